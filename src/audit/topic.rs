//! Writes audit entries to a topic, keyed by correlation id; each until a broker has acknowledged it.
//!
//! It knows nothing of files. [`TopicWriter`] is its main type.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use protocol::producer::{ProduceErrorKind, ProduceRecord};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{AuditMetrics, Item, RETRY_DELAY, RETRY_DELAY_MAX, acknowledge, crashed};
use crate::record::{
    sink::{RecordSink, Topics},
    target_topics::{Partitions, TargetTopics},
};

/// Entries that were sent and are not acknowledged; the next waits.
const IN_FLIGHT: usize = 512;
/// While entries cannot be written, one log line in so long.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Writes to one topic, which it makes if it may and must.
pub(super) struct TopicWriter {
    sink: Arc<dyn RecordSink>,
    topics: TargetTopics,
    topic: Arc<str>,
    create: bool,
    last_logged: Mutex<Option<Instant>>,
}

impl TopicWriter {
    pub(super) fn new(sink: Arc<dyn RecordSink>, topics: Arc<dyn Topics>, topic: &str, create: bool) -> Self {
        Self { sink, topics: TargetTopics::new(topics), topic: topic.into(), create, last_logged: Mutex::new(None) }
    }

    pub(super) async fn run(self, mut queue: mpsc::Receiver<Item>, service_id: &str, metrics: &AuditMetrics) {
        let mut in_flight = FuturesUnordered::new();
        let mut open = true;
        while open || !in_flight.is_empty() {
            tokio::select! {
                biased;
                Some(()) = in_flight.next() => {}
                item = queue.recv(), if open && in_flight.len() < IN_FLIGHT => match item {
                    Some(item) => in_flight.push(self.write(item, service_id, metrics)),
                    None => open = false,
                },
            }
        }
    }

    async fn write(&self, item: Item, service_id: &str, metrics: &AuditMetrics) {
        let record = ProduceRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(Bytes::copy_from_slice(item.entry.key())),
            value: Some(Bytes::from(item.entry.json(service_id))),
            headers: Vec::new(),
            timestamp: None,
        };
        let mut delay = RETRY_DELAY;
        loop {
            // A crash costs its own entry another try, and no other entry anything.
            let tried = AssertUnwindSafe(self.try_once(record.clone())).catch_unwind().await;
            let reason = match tried {
                Ok(Ok(())) => break,
                Ok(Err(reason)) => reason,
                Err(crash) => crashed(metrics, &*crash),
            };
            metrics.failures.fetch_add(1, Ordering::Relaxed);
            self.log(&reason, metrics);
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
        acknowledge(metrics, item.written);
    }

    async fn try_once(&self, record: ProduceRecord) -> Result<(), String> {
        let make = self.create.then_some(Partitions::Default);
        if self.topics.ready(&self.topic, make).await?.is_none() && !self.create {
            // Sending would make a broker create it that creates topics by itself.
            return Err("the topic does not exist (deadLetterTopicCreate: false)".to_owned());
        }
        match self.sink.send(record).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.kind == ProduceErrorKind::UnknownTopic {
                    self.topics.forget(&self.topic);
                }
                Err(error.to_string())
            }
        }
    }

    fn log(&self, reason: &str, metrics: &AuditMetrics) {
        let now = Instant::now();
        let mut last = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now - last >= LOG_INTERVAL) {
            *last = Some(now);
            tracing::warn!(
                topic = %self.topic, reason, waiting = metrics.pending.load(Ordering::Relaxed),
                "audit entries cannot be written and are tried again; callers slow down, committed offsets wait \
                 (settings: auditTopic, auditTarget, auditEnabled)"
            );
        }
    }
}
