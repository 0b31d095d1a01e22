//! One reactive sidecar on a real Kafka, in front of a backend of this process.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::support::{
    backend::Backend,
    kafka::Kafka,
    operator::{Operator, PATIENCE},
    process::Sidecar,
};

/// Settings of a sidecar that calls a backend.
#[derive(Clone)]
pub(crate) struct Reactive {
    settings: Vec<(String, String)>,
}

impl Reactive {
    /// Nothing is set.
    pub(crate) fn bare() -> Self {
        Self { settings: Vec::new() }
    }

    /// Reads `topic` as the group of the same name and calls the backend; no audit, which has tests of its own.
    pub(crate) fn new(kafka: &Kafka, topic: &str, backend: &str) -> Self {
        let servers = kafka.bootstrap_servers();
        let mut own = Self::bare();
        for file in ["kafka-producer", "kafka-consumer", "kafka-admin"] {
            own = own.with(&format!("{file}.bootstrap.servers"), &servers);
        }
        own.consumer("session.timeout.ms", 6000)
            .consumer("heartbeat.interval.ms", 1000)
            .consumer("topic", topic)
            .consumer("group.id", topic)
            .consumer("backendApiHost", backend)
            .consumer("auditEnabled", false)
            .with("kafka-producer.auditEnabled", false)
    }

    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn consumer(self, key: &str, value: impl ToString) -> Self {
        self.with(&format!("kafka-consumer.{key}"), value)
    }

    pub(crate) fn start(&self) -> Result<Sidecar> {
        let settings: Vec<(&str, &str)> = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Sidecar::start(&settings)
    }
}

/// Waits until the group has committed so far.
pub(crate) async fn committed(
    operator: &Operator,
    backend: &Backend,
    topic: &str,
    expected: &[(i32, i64)],
) -> Result<()> {
    let expected: BTreeMap<i32, i64> = expected.iter().copied().collect();
    let reached = async {
        while operator.committed(topic, topic).await? != expected {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.with_context(|| format!("{expected:?} was not committed: {}", backend.history().summary()))?
}
