//! Three nodes, all of them up, and a topic on them; what a test does to them.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use protocol::{
    client::Client,
    cluster::{ClusterConfig, NodeId},
};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    support::kafka::{self, Kafka, Signal, VERSIONS},
    witness::{jvm::Witness, ours::Logs},
};

pub(super) const PARTITIONS: i32 = 6;
/// Records to each partition that show that it works.
pub(super) const SOME: usize = 20;
const NODES: usize = 3;
/// For nodes to start, elect and catch up on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what nobody tells by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One test has the nodes at a time.
static TURN: Mutex<()> = Mutex::const_new(());

struct Shared {
    kafka: Kafka,
    witness: Witness,
}

pub(super) struct Scene {
    pub(super) kafka: &'static Kafka,
    pub(super) witness: &'static Witness,
    pub(super) topic: String,
    /// Of whoever looks on.
    observer: Client,
    _turn: MutexGuard<'static, ()>,
}

fn shared(version: &'static str) -> &'static Shared {
    static SHARED: [OnceLock<Shared>; VERSIONS.len()] = [const { OnceLock::new() }; VERSIONS.len()];
    let index = VERSIONS.iter().position(|known| *known == version).expect("a version of the list");
    let start = || {
        let kafka = Kafka::start(version, NODES)?;
        let witness = Witness::start(&kafka)?;
        anyhow::Ok(Shared { kafka, witness })
    };
    SHARED[index].get_or_init(|| start().unwrap_or_else(|error| panic!("Kafka {version} does not start: {error:#}")))
}

/// `call` blocks: the other threads of the runtime go on.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

impl Scene {
    /// All nodes up, and a topic of the test's; None where there is no Java or no Maven.
    pub(super) async fn new(version: &'static str, test: &str, topic: &str) -> Result<Option<Self>> {
        if let Some(missing) = kafka::missing() {
            kafka::skip(test, missing, "openjdk-17-jdk-headless maven");
            return Ok(None);
        }
        // With RUST_LOG=protocol=debug our side of it can be read beside the nodes' logs.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        let turn = TURN.lock().await;
        let Shared { kafka, witness } = blocking(|| shared(version));
        let observer = Client::new(Self::configuration_of(kafka)?);
        let topic = format!("{topic}-{}", uuid::Uuid::new_v4().simple());
        let scene = Self { kafka, witness, topic, observer, _turn: turn };
        scene.start_again()?;
        for index in 0..NODES {
            scene.signal(index, Signal::Continue)?;
        }
        scene.whole().await?;
        scene.observer.admin().create_topic(&scene.topic, PARTITIONS, PATIENCE).await?;
        scene.whole().await?;
        Ok(Some(scene))
    }

    /// A client of the cluster whose first bootstrap address is dead, and which is impatient.
    pub(super) fn client(&self) -> Result<Client> {
        Ok(Client::new(self.configuration()?))
    }

    pub(super) fn configuration(&self) -> Result<ClusterConfig> {
        Self::configuration_of(self.kafka)
    }

    fn configuration_of(kafka: &Kafka) -> Result<ClusterConfig> {
        let mut addresses = vec![("127.0.0.1".to_owned(), 1)];
        for address in kafka.bootstrap() {
            let (host, port) = address.rsplit_once(':').context("host:port")?;
            addresses.push((host.to_owned(), port.parse()?));
        }
        Ok(ClusterConfig::new(addresses))
    }

    pub(super) fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        eprintln!("node {}: {signal:?}", index + 1);
        blocking(|| self.kafka.signal(index, signal))
    }

    /// Starts the nodes that do not run.
    pub(super) fn start_again(&self) -> Result<()> {
        blocking(|| self.kafka.start_again())
    }

    async fn metadata(&self) -> Result<MetadataResponse> {
        let ask = |_| MetadataRequest::default().with_topics(None);
        let asked = self.observer.cluster().call_any::<MetadataRequest>(PATIENCE, ask).await;
        Ok(asked.map(|(_, answer)| answer)?)
    }

    /// Waits until every node has everything that the others have.
    pub(super) async fn whole(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let missing = match self.metadata().await {
                Ok(answer) => missing(&answer),
                Err(error) => Some(error.to_string()),
            };
            let Some(missing) = missing else { return Ok(()) };
            ensure!(Instant::now() < until, "the cluster does not become whole: {missing}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Makes the first replica of each partition its leader: each node leads two of the six.
    pub(super) async fn spread_leaders(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.whole().await?;
            // A node that is busy may be taken for dead between the look and the election.
            match blocking(|| self.witness.elect(&self.topic, PARTITIONS)) {
                Ok(()) => return Ok(()),
                Err(error) => ensure!(Instant::now() < until, "{error:#}"),
            }
        }
    }

    /// The index of the node that coordinates a group.
    pub(super) async fn coordinator(&self, group: &str) -> Result<usize> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.observer.cluster().forget_coordinator(group);
            match self.observer.cluster().coordinator(group).await {
                Ok(node) => return index(node),
                Err(error) => ensure!(!error.fatal() && Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Moves the topic's partitions to these nodes.
    pub(super) fn reassign(&self, replicas: &[Vec<i32>]) -> Result<()> {
        blocking(|| self.witness.reassign(&self.topic, replicas))
    }

    /// Waits until this node leads the partition.
    pub(super) async fn led_by(&self, partition: i32, node: NodeId) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let topic = self.observer.admin().describe_topic(&self.topic).await.context("the topic")?;
            let found = topic.partitions.iter().find(|known| known.index == partition).context("the partition")?;
            if found.leader == Some(node) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{node} does not become the leader of {partition}: {found:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Another topic of the test's.
    pub(super) async fn another_topic(&self, name: &str) -> Result<String> {
        let topic = format!("{}-{name}", self.topic);
        self.observer.admin().create_topic(&topic, PARTITIONS, PATIENCE).await?;
        Ok(topic)
    }

    /// Everything in a topic, as Java reads it.
    pub(super) fn read(&self, topic: &str) -> Result<Logs> {
        blocking(|| self.witness.read(&json!({}), &[topic.to_owned()]))
    }

    pub(super) async fn close(&self) -> Result<()> {
        ensure!(self.observer.close(PATIENCE).await, "every task ends");
        Ok(())
    }
}

fn index(node: NodeId) -> Result<usize> {
    Ok(usize::try_from(node - 1)?)
}

/// What is not as it is when all nodes are up and have caught up.
fn missing(answer: &MetadataResponse) -> Option<String> {
    if answer.brokers.len() < NODES {
        return Some(format!("{} brokers", answer.brokers.len()));
    }
    answer.topics.iter().find_map(|topic| {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        topic.partitions.iter().find_map(|partition| {
            let (in_sync, all) = (partition.isr_nodes.len(), partition.replica_nodes.len());
            (in_sync < all || partition.leader_id.0 < 0)
                .then(|| format!("{name}-{}: {in_sync} of {all} in sync", partition.partition_index))
        })
    })
}
