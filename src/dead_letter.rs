//! Writes records that could not be processed to their dead-letter topics, as they were read, with the reason in headers.
//!
//! It does not decide what is a dead letter and does not move offsets. [`DeadLetters`] is its main type; a write ends when
//! a broker has acknowledged it or the partition's lease is lost, whatever lies between.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    consumer::Lease,
    producer::{ProduceError, ProduceErrorKind, ProduceRecord, Receipt},
};

use crate::{
    config::settings,
    record::{
        CORRELATION_ID, STACK_TRACE, SourceRecord, TRACEABILITY_ID, TraceIds,
        sink::{RecordSink, Topics},
        target_topics::{Partitions, TargetTopics},
    },
};

pub(crate) const TOPIC: &str = "X-Dead-Letter-Topic";
pub(crate) const PARTITION: &str = "X-Dead-Letter-Partition";
pub(crate) const OFFSET: &str = "X-Dead-Letter-Offset";
pub(crate) const GROUP: &str = "X-Dead-Letter-Group";
pub(crate) const REASON: &str = "X-Dead-Letter-Reason";
pub(crate) const ATTEMPTS: &str = "X-Dead-Letter-Attempts";

/// A stack trace is cut to so many bytes, at a character's boundary.
pub(crate) const STACK_TRACE_BYTES: usize = 8 << 10;
/// A reason is one line, not a document.
const REASON_BYTES: usize = 1 << 10;
/// The first delay before a failed write is tried again; doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Why a record became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    /// Deliveries that were charged to the record.
    pub(crate) attempts: u32,
    pub(crate) stacktrace: Option<String>,
    /// For a record whose headers have no ids.
    pub(crate) ids: TraceIds,
}

/// The lease was lost before a broker acknowledged: whoever has the partition now meets the record again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the partition was lost before the dead letter was acknowledged")]
pub(crate) struct Lost;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) written: AtomicU64,
    /// Writes that failed and were tried again.
    pub(crate) failures: AtomicU64,
    /// Records that are held because their dead letter is not acknowledged yet.
    pub(crate) waiting: AtomicU64,
}

/// Writes dead letters of one consumer group.
pub(crate) struct DeadLetters {
    sink: Arc<dyn RecordSink>,
    topics: TargetTopics,
    suffix: String,
    create: bool,
    group: String,
    metrics: Arc<Metrics>,
}

impl DeadLetters {
    pub(crate) fn new(
        sink: Arc<dyn RecordSink>,
        topics: Arc<dyn Topics>,
        settings: &settings::DeadLetter,
        group: &str,
    ) -> Self {
        Self {
            sink,
            topics: TargetTopics::new(topics),
            suffix: settings.topic_ext.clone(),
            create: settings.create_topic,
            group: group.to_owned(),
            metrics: Arc::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The topic with the suffix; a topic that has it already is its own dead-letter topic.
    pub(crate) fn topic_of(&self, source: &str) -> String {
        if source.ends_with(&self.suffix) { source.to_owned() } else { format!("{source}{}", self.suffix) }
    }

    /// Writes the record and waits for the broker's acknowledgement, for as long as the lease is not lost.
    ///
    /// Dropping the future stops trying; what was sent already may be written all the same.
    pub(crate) async fn write(&self, record: SourceRecord, cause: &Cause, lease: &Lease) -> Result<(), Lost> {
        let _waiting = Waiting::new(&self.metrics);
        tokio::select! {
            biased;
            () = lease.lost() => Err(Lost),
            () = self.write_until_acknowledged(record, cause) => Ok(()),
        }
    }

    async fn write_until_acknowledged(&self, record: SourceRecord, cause: &Cause) {
        let topic = self.topic_of(&record.topic);
        let (source_topic, partition, offset) = (record.topic.clone(), record.partition, record.offset);
        let mut letter = self.letter(&topic, record, cause);
        let mut delay = RETRY_DELAY;
        let mut tries: u32 = 0;
        loop {
            let written = self.try_once(&source_topic, partition, letter.clone()).await;
            let reason = match written {
                Ok(receipt) => {
                    self.metrics.written.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(
                        topic = %source_topic, partition, offset,
                        dead_letter_topic = %topic, dead_letter_partition = receipt.partition,
                        dead_letter_offset = receipt.offset, "dead letter written"
                    );
                    return;
                }
                Err(Failure::Produce(error)) => {
                    if matches!(error.kind, ProduceErrorKind::TooLarge { .. }) && drop_stack_trace(&mut letter) {
                        tracing::warn!(
                            topic = %source_topic, partition, offset, dead_letter_topic = %topic,
                            "the dead letter is too large with its stack trace: it goes without"
                        );
                        continue;
                    }
                    if matches!(error.kind, ProduceErrorKind::UnknownTopic) {
                        self.topics.forget(&topic);
                    }
                    match too_large_for(&error.kind) {
                        Some(setting) => format!("{error}; it is written once {setting} allows for it"),
                        None => error.to_string(),
                    }
                }
                Err(Failure::NoTopic(reason)) => reason,
            };
            tries = tries.saturating_add(1);
            self.metrics.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                topic = %source_topic, partition, offset, dead_letter_topic = %topic, tries, reason,
                "the dead letter could not be written; the record is held and it is tried again"
            );
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    async fn try_once(&self, source: &str, partition: i32, mut letter: ProduceRecord) -> Result<Receipt, Failure> {
        let topic = letter.topic.clone();
        let mut count = self.partition_count(source, &topic).await?;
        if partition >= count {
            // Partitions may have been added.
            self.topics.forget(&topic);
            count = self.partition_count(source, &topic).await?;
        }
        letter.partition = (partition < count).then_some(partition);
        let by_key = ProduceRecord { partition: None, ..letter.clone() };
        let written = match self.sink.send(letter).await {
            Err(ProduceError { kind: ProduceErrorKind::UnknownPartition { .. }, .. }) => {
                self.topics.forget(&topic);
                self.sink.send(by_key).await
            }
            other => other,
        };
        written.map_err(Failure::Produce)
    }

    async fn partition_count(&self, source: &str, topic: &str) -> Result<i32, Failure> {
        let make = self.create.then_some(Partitions::Of(source));
        let count = self.topics.ready(topic, make).await.map_err(Failure::NoTopic)?;
        // Sending would make a broker create it that creates topics by itself.
        count
            .ok_or_else(|| Failure::NoTopic(format!("the topic {topic} does not exist (deadLetterTopicCreate: false)")))
    }

    fn letter(&self, topic: &str, record: SourceRecord, cause: &Cause) -> ProduceRecord {
        let again = *record.topic == *topic;
        let ids = [
            (CORRELATION_ID, record.header_text(CORRELATION_ID).is_none(), &cause.ids.correlation_id),
            (TRACEABILITY_ID, record.header_text(TRACEABILITY_ID).is_none(), &cause.ids.traceability_id),
        ];
        let missing: Vec<_> =
            ids.into_iter().filter_map(|(name, missing, id)| missing.then_some((name, id.clone()?))).collect();
        let mut headers = record.headers;
        // A dead letter that failed again keeps its origin and gets a new cause; its old one would only pile up.
        let origin_known = again && headers.iter().any(|(name, _)| name == TOPIC.as_bytes());
        if again {
            let stale = [GROUP, REASON, ATTEMPTS, STACK_TRACE];
            headers.retain(|(name, _)| !stale.iter().any(|stale| name == stale.as_bytes()));
        }
        let mut add = |name: &'static str, value: String| {
            headers.push((Bytes::from_static(name.as_bytes()), Some(Bytes::from(value))));
        };
        for (name, id) in missing {
            add(name, id);
        }
        if !origin_known {
            add(TOPIC, record.topic.to_string());
            add(PARTITION, record.partition.to_string());
            add(OFFSET, record.offset.to_string());
        }
        add(GROUP, self.group.clone());
        add(REASON, cut(&cause.reason, REASON_BYTES).to_owned());
        add(ATTEMPTS, cause.attempts.to_string());
        if let Some(trace) = &cause.stacktrace {
            add(STACK_TRACE, cut(trace, STACK_TRACE_BYTES).to_owned());
        }
        ProduceRecord {
            topic: topic.into(),
            partition: None,
            key: record.key,
            value: record.value,
            headers,
            timestamp: Some(record.timestamp).filter(|timestamp| *timestamp >= 0),
        }
    }
}

enum Failure {
    NoTopic(String),
    Produce(ProduceError),
}

struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.waiting.fetch_add(1, Ordering::Relaxed);
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The setting that refuses a letter of this size.
fn too_large_for(error: &ProduceErrorKind) -> Option<&'static str> {
    match error {
        ProduceErrorKind::TooLarge { limit: Some(_), .. } => Some("max.request.size (kafka-producer)"),
        ProduceErrorKind::TooLarge { limit: None, .. } => {
            Some("max.message.bytes of the dead-letter topic (or the brokers' message.max.bytes)")
        }
        _ => None,
    }
}

/// Takes our stack trace (always the last header) off; false if there is none.
fn drop_stack_trace(letter: &mut ProduceRecord) -> bool {
    letter.headers.pop_if(|(name, _)| name == STACK_TRACE.as_bytes()).is_some()
}

/// At most `bytes` bytes of `text`, whole characters only.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests;
