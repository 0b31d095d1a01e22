//! What a test does to a cluster itself: makes topics, writes and reads records, asks what a group has committed.
//!
//! By our own client; foreign clients are witnesses elsewhere. [`Operator`] is its main type.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    producer::{ProduceRecord, Producer, ProducerConfig},
};

use super::{
    client::member,
    kafka::Kafka,
    reading::{self, Row},
};

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two questions to a broker that is not ready.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A client with every right.
pub(crate) struct Operator {
    client: Client,
    producer: Producer,
}

impl Operator {
    pub(crate) fn of(kafka: &Kafka) -> Result<Self> {
        let bootstrap = kafka.bootstrap().into_iter().map(|address| {
            let (host, port) = address.rsplit_once(':').context("host:port")?;
            Ok((host.to_owned(), port.parse()?))
        });
        let client = Client::new(ClusterConfig::new(bootstrap.collect::<Result<_>>()?));
        let producer = client.producer(ProducerConfig::default(), Budget::new(16 << 20))?;
        Ok(Self { client, producer })
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        Ok(self.client.admin().create_topic(topic, partitions, PATIENCE).await?)
    }

    /// Writes a record and waits for its offset.
    pub(crate) async fn write(&self, record: ProduceRecord) -> Result<i64> {
        self.producer.send(record).await?.await?.offset.context("an offset")
    }

    /// Appends JSON values `{"n": 0}`, `{"n": 1}`, … to each of the partitions, so many to each.
    pub(crate) async fn fill(&self, topic: &str, partitions: i32, count: i64) -> Result<()> {
        let topic: Arc<str> = topic.into();
        let mut deliveries = Vec::new();
        for n in 0..count {
            for partition in 0..partitions {
                let value = Some(format!("{{\"n\":{n}}}").into());
                let record =
                    ProduceRecord { topic: topic.clone(), partition: Some(partition), value, ..Default::default() };
                deliveries.push(self.producer.send(record).await?);
            }
        }
        for delivery in deliveries {
            delivery.await?;
        }
        Ok(())
    }

    /// What a group has committed of a topic.
    pub(crate) async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.client.admin().committed(group).await {
                Ok(all) => {
                    let own = all.into_iter().filter(|((name, _), _)| **name == *topic);
                    return Ok(own.map(|((_, partition), offset)| (partition, offset)).collect());
                }
                // A coordinator that is just being made, or loads its log.
                Err(error) if error.retriable() && Instant::now() < until => tokio::time::sleep(ASK_AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How many records each partition holds; None if the topic does not exist.
    pub(crate) async fn sizes(&self, topic: &str) -> Result<Option<BTreeMap<i32, i64>>> {
        if self.client.admin().describe_topic(topic).await.is_none() {
            return Ok(None);
        }
        let ends = self.client.admin().log_ends(topic).await?;
        Ok(Some(ends.into_iter().map(|(partition, ends)| (partition, ends.latest - ends.earliest)).collect()))
    }

    /// Every record that the topic holds now, in order within each partition.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Row>> {
        let sizes = self.sizes(topic).await?.unwrap_or_default();
        let count = usize::try_from(sizes.values().sum::<i64>())?;
        tokio::time::timeout(PATIENCE, self.read_so_many(topic, count)).await.context("reading")?
    }

    /// Waits until the topic holds so many records, and reads them.
    pub(crate) async fn read_so_many(&self, topic: &str, count: usize) -> Result<Vec<Row>> {
        let described = async {
            loop {
                match self.client.admin().describe_topic(topic).await {
                    Some(topic) => return topic.partitions.len(),
                    None => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        };
        let partitions =
            tokio::time::timeout(PATIENCE, described).await.with_context(|| format!("no topic {topic}"))?;
        let mut consumer = member(&self.client, &format!("readers-of-{topic}-{}", uuid::Uuid::new_v4()), topic);
        let mut streams = reading::assigned(&mut consumer, partitions).await?;
        let mut rows = reading::rows(&mut streams, count).await?;
        rows.sort_by_key(|row| (row.partition, row.offset));
        Ok(rows)
    }

    pub(crate) async fn close(self) {
        self.producer.close(PATIENCE).await;
        self.client.close(PATIENCE).await;
    }
}

/// Takes the records below an offset out of a partition, as retention does; by Kafka's own tool.
pub(crate) async fn delete_before(kafka: &Kafka, topic: &str, partition: i32, offset: i64) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let partitions = serde_json::json!([{ "topic": topic, "partition": partition, "offset": offset }]);
    std::fs::write(file.path(), serde_json::json!({ "version": 1, "partitions": partitions }).to_string())?;
    let mut tool = kafka.tool();
    tool.arg("org.apache.kafka.tools.DeleteRecordsCommand").args(["--bootstrap-server", &kafka.bootstrap_servers()]);
    tool.arg("--offset-json-file").arg(file.path());
    let output = tokio::task::spawn_blocking(move || tool.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
