//! A cluster that a behaviour is tried on, whatever it is made of.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use fake_broker::FakeCluster;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    connection::{Connector, TcpConnector},
    consumer::{Consumer, ConsumerConfig},
    producer::{Producer, ProducerConfig},
};

use super::raw::Raw;
use crate::support::kafka;

/// What a test waits for at most, before it says that it does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Memory of a producer or consumer in a test.
const BUDGET: usize = 8 << 20;

/// A cluster of one node. Its topics without a number get three partitions, and its groups wait for nobody.
pub(crate) struct Bed {
    nodes: Vec<(String, u16)>,
    connector: Arc<dyn Connector>,
    /// Ends the fake when the bed is dropped.
    _fake: Option<FakeCluster>,
}

impl Bed {
    /// The fake, in memory: the clock may be paused.
    pub(crate) async fn fake() -> Result<Self> {
        let fake = FakeCluster::builder().default_partitions(3).start().await?;
        Ok(Self { nodes: fake.bootstrap(), connector: Arc::new(fake.clone()), _fake: Some(fake) })
    }

    /// The shared broker of a version; None where there is no Java or no Maven.
    pub(crate) async fn kafka(version: &'static str, test: &str) -> Result<Option<Self>> {
        let name = test.to_owned();
        let shared = tokio::task::spawn_blocking(move || kafka::shared(version, &name)).await?;
        let nodes = |kafka: &kafka::Kafka| {
            let pair = |address: String| {
                let (host, port) = address.rsplit_once(':').context("host:port")?;
                Ok((host.to_owned(), port.parse()?))
            };
            kafka.bootstrap().into_iter().map(pair).collect::<Result<Vec<_>>>()
        };
        let bed = |kafka| Ok(Self { nodes: nodes(kafka)?, connector: Arc::new(TcpConnector), _fake: None });
        shared.map(bed).transpose()
    }

    /// Runs a behaviour, at most for twice the test's patience.
    pub(crate) async fn run(self, behaviour: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        tokio::time::timeout(2 * PATIENCE, behaviour(&self)).await.map_err(|_| anyhow!("it hangs"))?
    }

    /// A client whose first bootstrap address is dead.
    pub(crate) fn client(&self) -> Client {
        let mut bootstrap = vec![("127.0.0.1".to_owned(), 1)];
        bootstrap.extend(self.nodes.iter().cloned());
        Client::with_connector(ClusterConfig::new(bootstrap), self.connector.clone())
    }

    /// A connection on which a test says what it likes.
    pub(crate) async fn raw(&self) -> Result<Raw> {
        let (host, port) = self.nodes.first().context("a node")?;
        Ok(Raw::new(self.connector.connect(host, *port).await?))
    }
}

/// A producer with room enough for a test.
pub(crate) fn producer(client: &Client, config: ProducerConfig) -> Result<Producer> {
    Ok(client.producer(config, Budget::new(BUDGET))?)
}

/// A member of a group, with room enough for a test and the quickest session that Kafka allows by default.
pub(crate) fn member(client: &Client, group: &str, topic: &str) -> Consumer {
    client.consumer(group_of(group, topic), Budget::new(BUDGET))
}

/// A member with further settings.
pub(crate) fn member_with(client: &Client, config: ConsumerConfig) -> Consumer {
    client.consumer(config, Budget::new(BUDGET))
}

pub(crate) fn group_of(group: &str, topic: &str) -> ConsumerConfig {
    ConsumerConfig {
        group_id: group.to_owned(),
        topics: vec![topic.to_owned()],
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_secs(1),
        ..ConsumerConfig::default()
    }
}
