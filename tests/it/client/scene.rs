//! A fake cluster in memory and a client on it, on a paused clock.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fake_broker::FakeCluster;
use kafka_protocol::messages::ProduceRequest;
use protocol::{
    client::Client,
    cluster::ClusterConfig,
    record::{BatchHeader, RawBatch},
};

/// The topic that every scene has, if a test makes no other.
pub(super) const TOPIC: &str = "t";

pub(super) struct Scene {
    pub(super) fake: FakeCluster,
    pub(super) client: Client,
}

impl Scene {
    /// So many nodes, and [`TOPIC`] with so many partitions.
    pub(super) async fn new(nodes: i32, partitions: i32) -> Result<Self> {
        Self::with(nodes, partitions, |_| {}).await
    }

    /// The same, with a client that is set otherwise.
    pub(super) async fn with(nodes: i32, partitions: i32, set: impl FnOnce(&mut ClusterConfig)) -> Result<Self> {
        let fake = FakeCluster::builder().nodes(nodes).topic(TOPIC, partitions).start().await?;
        let mut config = ClusterConfig::new(fake.bootstrap());
        set(&mut config);
        let client = Client::with_connector(config, Arc::new(fake.clone()));
        Ok(Self { fake, client })
    }

    /// The batches of one partition of [`TOPIC`] in each produce request that named it, in the order in which they came.
    pub(super) fn batches_sent(&self, partition: i32) -> Result<Vec<(BatchHeader, Bytes)>> {
        let mut sent = Vec::new();
        for (_, request) in self.fake.requests_of::<ProduceRequest>() {
            let parts = request.topic_data.into_iter().flat_map(|topic| topic.partition_data);
            for part in parts.filter(|part| part.index == partition) {
                let bytes = part.records.context("records")?;
                sent.push((BatchHeader::parse(&bytes)?, bytes));
            }
        }
        Ok(sent)
    }

    /// The values of one partition of [`TOPIC`], as they stand in its log.
    pub(super) fn stored(&self, partition: i32) -> Result<Vec<usize>> {
        let mut values = Vec::new();
        for bytes in self.fake.read(TOPIC, partition) {
            let records = RawBatch::try_from(bytes)?.records(1 << 20)?;
            for record in records.iter() {
                values.push(std::str::from_utf8(record?.value.context("a value")?)?.parse()?);
            }
        }
        Ok(values)
    }
}
