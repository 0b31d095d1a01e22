//! One reactive sidecar on a real Kafka, in front of a backend of this process.

use anyhow::Result;

use crate::support::{kafka::Kafka, process::Sidecar};

/// Settings of a sidecar that calls a backend.
#[derive(Clone)]
pub(super) struct Reactive {
    settings: Vec<(String, String)>,
}

impl Reactive {
    /// Reads `topic` as the group of the same name and calls the backend; no audit, which has tests of its own.
    pub(super) fn new(kafka: &Kafka, topic: &str, backend: &str) -> Self {
        let servers = kafka.bootstrap_servers();
        let mut own = Self { settings: Vec::new() };
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

    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    pub(super) fn consumer(self, key: &str, value: impl ToString) -> Self {
        self.with(&format!("kafka-consumer.{key}"), value)
    }

    pub(super) fn start(&self) -> Result<Sidecar> {
        let settings: Vec<(&str, &str)> = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Sidecar::start(&settings)
    }
}
