//! Kafka in memory, for tests of what writes records: what was written, and failures in the order in which they come.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use futures_util::future::{BoxFuture, FutureExt};
use protocol::{
    outcome::Outcome,
    producer::{ProduceError, ProduceErrorKind, ProduceRecord, Receipt},
};
use tokio::sync::watch;

use super::sink::{RecordSink, Topics};

/// Topics with their partition counts and everything that was written to them.
#[derive(Default)]
pub(crate) struct MemoryKafka {
    state: Mutex<State>,
    /// While true, no write is answered.
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, i32>,
    records: Vec<ProduceRecord>,
    failures: VecDeque<ProduceErrorKind>,
    crashes: usize,
    refuse_creation: Option<String>,
    creations: usize,
}

impl MemoryKafka {
    pub(crate) fn with_topics(topics: &[(&str, i32)]) -> Self {
        let kafka = Self::default();
        kafka.state().topics = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        kafka
    }

    pub(crate) fn fail_next(&self, kind: ProduceErrorKind) {
        self.state().failures.push_back(kind);
    }

    /// The next so many writes panic.
    pub(crate) fn crash_next(&self, writes: usize) {
        self.state().crashes = writes;
    }

    pub(crate) fn refuse_creation(&self, reason: Option<&str>) {
        self.state().refuse_creation = reason.map(str::to_owned);
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(crate) fn records(&self) -> Vec<ProduceRecord> {
        self.state().records.clone()
    }

    pub(crate) fn creations(&self) -> usize {
        self.state().creations
    }

    pub(crate) fn partitions(&self, topic: &str) -> Option<i32> {
        self.state().topics.get(topic).copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    fn write(&self, record: ProduceRecord) -> Result<Receipt, ProduceErrorKind> {
        let mut state = self.state();
        if let Some(kind) = state.failures.pop_front() {
            return Err(kind);
        }
        let partitions = *state.topics.get(&*record.topic).ok_or(ProduceErrorKind::UnknownTopic)?;
        let partition = record.partition.unwrap_or(0);
        if partition >= partitions {
            return Err(ProduceErrorKind::UnknownPartition { partitions });
        }
        let timestamp = record.timestamp.unwrap_or(0);
        state.records.push(record);
        let count = state.records.len();
        Ok(Receipt { partition, offset: Some(count as i64 - 1), timestamp })
    }
}

impl RecordSink for MemoryKafka {
    fn send(&self, record: ProduceRecord) -> BoxFuture<'_, Result<Receipt, ProduceError>> {
        async move {
            let (topic, partition) = (record.topic.clone(), record.partition);
            let mut held = self.held.subscribe();
            held.wait_for(|held| !held).await.expect("the sender lives");
            let crashes = std::mem::take(&mut self.state().crashes);
            if crashes > 0 {
                self.state().crashes = crashes - 1;
                panic!("as the test wants it");
            }
            self.write(record).map_err(|kind| ProduceError { topic, partition, outcome: Outcome::Rejected, kind })
        }
        .boxed()
    }
}

impl Topics for MemoryKafka {
    fn partition_count<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Option<i32>> {
        async move { self.partitions(topic) }.boxed()
    }

    fn create<'a>(&'a self, topic: &'a str, partitions: Option<i32>) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let mut state = self.state();
            match state.refuse_creation.clone() {
                Some(reason) => Err(reason),
                None => {
                    state.creations += 1;
                    state.topics.insert(topic.to_owned(), partitions.unwrap_or(1));
                    Ok(())
                }
            }
        }
        .boxed()
    }
}
