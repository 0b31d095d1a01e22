//! A group member on the fake cluster, on a paused clock: what goes over the wire, and when.

mod hand_over;
mod liveness;
mod rows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use fake_broker::{ApiKey, FakeCluster, LoggedRequest};
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{Assignor, ConsumerConfig},
    producer::{ProduceRecord, ProducerConfig},
};

use crate::support::member::{History, Member};

const TOPIC: &str = "t";
const GROUP: &str = "g";
const PARTITIONS: i32 = 4;
const HEARTBEAT: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(25);
/// On the paused clock: no wait is as long as this, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(600);

fn config() -> ConsumerConfig {
    ConsumerConfig {
        group_id: GROUP.to_owned(),
        topics: vec![TOPIC.to_owned()],
        session_timeout: SESSION,
        heartbeat_interval: HEARTBEAT,
        drain_timeout: DRAIN,
        ..ConsumerConfig::default()
    }
}

fn range() -> ConsumerConfig {
    ConsumerConfig { assignors: vec![Assignor::Range], ..config() }
}

/// A cluster, its members by their client ids, and what happened to them.
struct Bed {
    cluster: FakeCluster,
    history: History,
    clients: BTreeMap<String, Client>,
}

impl Bed {
    async fn new() -> Result<Self> {
        let cluster = FakeCluster::builder().nodes(3).topic(TOPIC, PARTITIONS).start().await?;
        Ok(Self { cluster, history: History::default(), clients: BTreeMap::new() })
    }

    fn client(&mut self, name: &str) -> Client {
        let new = || {
            let config = ClusterConfig { client_id: name.to_owned(), ..ClusterConfig::new(self.cluster.bootstrap()) };
            Client::with_connector(config, Arc::new(self.cluster.clone()))
        };
        self.clients.entry(name.to_owned()).or_insert_with(new).clone()
    }

    fn member(&mut self, name: &str, config: ConsumerConfig) -> Member {
        self.slow_member(name, config, Duration::ZERO)
    }

    fn slow_member(&mut self, name: &str, config: ConsumerConfig, drain: Duration) -> Member {
        Member::start(&self.client(name), config, name, &self.history, drain)
    }

    /// Waits until the partitions are shared so.
    async fn shared(&self, shares: &[usize]) -> Result<()> {
        self.history.wait_until(&format!("a share of {shares:?}"), |seen| seen.shares() == shares).await
    }

    /// One more record to each partition; all that were written so far must come and be committed.
    async fn one_more(&mut self) -> Result<()> {
        let producer = self.client("producer").producer(ProducerConfig::default(), Budget::new(1 << 20))?;
        for partition in 0..PARTITIONS {
            let value = Some(Bytes::from_static(b"v"));
            let record =
                ProduceRecord { topic: TOPIC.into(), partition: Some(partition), value, ..ProduceRecord::default() };
            producer.send(record).await?.await?;
        }
        let ends: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, self.end(partition))).collect();
        self.history.wait_until("what was written", |seen| seen.has_all(&ends)).await?;
        let committed = self.cluster.wait_until(|cluster| {
            ends.iter().all(|(partition, end)| cluster.committed(GROUP, TOPIC, *partition) == Some(*end))
        });
        tokio::time::timeout(PATIENCE, committed).await?;
        Ok(())
    }

    fn end(&self, partition: i32) -> i64 {
        self.cluster.offsets(TOPIC, partition).map_or(0, |(_, end)| end)
    }

    /// Waits until so many requests of a kind from this client came in (since the log was forgotten last) and were answered.
    async fn answered(&self, client: &str, api: ApiKey, count: usize) -> Result<()> {
        let fits = |request: &&LoggedRequest| is_of(request, client, api) && request.answered.is_some();
        let came = self.cluster.wait_for(|log| log.iter().filter(fits).count() >= count);
        Ok(tokio::time::timeout(PATIENCE, came).await?)
    }

    /// Nothing was lost, no commit refused, nothing faulty.
    fn is_unharmed(&self) {
        let seen = self.history.look();
        assert_eq!((&seen.lost[..], &seen.faults[..], &seen.refused[..]), (&[][..], &[][..], &[][..]));
        assert_eq!(seen.shared_by_two(), Vec::<String>::new());
    }

    async fn end_all(self, members: impl IntoIterator<Item = Member>) -> Result<()> {
        for member in members {
            member.leave().await?;
        }
        for (name, client) in self.clients {
            assert!(client.close(PATIENCE).await, "{name}: every task ends");
        }
        Ok(())
    }
}

fn is_of(request: &LoggedRequest, client: &str, api: ApiKey) -> bool {
    request.api == api && request.client_id.as_deref() == Some(client)
}
