//! The producer: records in, receipts out.
//!
//! Idempotent with acks=all by default. It does not know topics' schemas or who sends; [`Producer`] is its main type. Records
//! are gathered in `accumulator`; `sequencer` says, without sockets and clock, what is sent when, and `sender` does it.

mod accumulator;
mod answers;
mod batch;
mod completion;
mod lane;
mod partitioner;
mod sender;
mod sequencer;
mod verdict;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use accumulator::Shared;
use bytes::Bytes;
use completion::{Completion, Seat, Written};
use tokio::time::Instant;

use crate::{
    budget::Budget,
    cluster::{Cluster, Metadata, Partition},
    error_code::ErrorCode,
    outcome::Outcome,
    record::{BatchBuilder, Compression},
};

/// Kafka's `acks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

/// Kafka's producer settings, typed. Defaults are the sidecar's.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// `acks`, all.
    pub acks: Acks,
    /// `enable.idempotence`, true. Requires `acks` all and at most five requests in flight.
    pub idempotence: bool,
    /// `linger.ms`, 1 ms.
    pub linger: Duration,
    /// `batch.size`, 16384 bytes: a batch is sealed when it holds so much.
    pub batch_size: usize,
    /// `max.request.size`, 1048576 bytes: the largest record, and the largest request of several batches.
    pub max_request_size: usize,
    /// `compression.type`, none.
    pub compression: Compression,
    /// `delivery.timeout.ms`, 120 s: from `send` to the outcome, in every state.
    pub delivery_timeout: Duration,
    /// `request.timeout.ms`, 30 s.
    pub request_timeout: Duration,
    /// `retries`; None = unlimited within the delivery timeout.
    pub retries: Option<u32>,
    /// `retry.backoff.ms`, 100 ms, doubling to `retry.backoff.max.ms`.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`, 1 s.
    pub retry_backoff_max: Duration,
    /// `max.in.flight.requests.per.connection`, 5: batches in flight per partition.
    pub max_in_flight: usize,
    /// How long a topic may be unknown before its records fail with UNKNOWN_TOPIC_OR_PARTITION; 5 s.
    pub unknown_topic_timeout: Duration,
    /// Whether metadata requests ask the broker to create missing topics (as Java's producer does), true.
    pub allow_auto_create_topics: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            linger: Duration::from_millis(1),
            batch_size: 16_384,
            max_request_size: 1_048_576,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            retries: None,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            max_in_flight: 5,
            unknown_topic_timeout: Duration::from_secs(5),
            allow_auto_create_topics: true,
        }
    }
}

/// One record to produce.
#[derive(Debug, Clone, Default)]
pub struct ProduceRecord {
    pub topic: Arc<str>,
    /// None: by key, or sticky for records without one.
    pub partition: Option<i32>,
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In order; names may repeat and need not be UTF-8; values may be null.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since the epoch; None = now.
    pub timestamp: Option<i64>,
}

/// Where a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub partition: i32,
    /// None: written, at an offset that the broker no longer tells (a duplicate of a lost answer, or acks 0).
    pub offset: Option<i64>,
    /// The broker's time on a LogAppendTime topic, else the record's own.
    pub timestamp: i64,
}

/// Why a record was not (or perhaps not) written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{topic}: {kind} ({outcome})")]
pub struct ProduceError {
    pub topic: Arc<str>,
    pub partition: Option<i32>,
    pub outcome: Outcome,
    pub kind: ProduceErrorKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceErrorKind {
    /// The topic does not exist and was not created in time.
    UnknownTopic,
    /// The record names a partition that the topic does not have.
    UnknownPartition { partitions: i32 },
    /// Larger than `max.request.size`, or than the broker accepts.
    TooLarge { size: usize, limit: Option<usize> },
    /// A broker answered with this error, after retries where it is retriable.
    Broker { code: ErrorCode, message: Option<String> },
    /// The delivery timeout passed; the text names what stood in the way last.
    DeliveryTimeout { last: String },
    /// The producer was closed.
    Closed,
}

impl ProduceError {
    /// Whether the same record may be accepted later without anybody changing anything.
    pub fn retriable(&self) -> bool {
        match &self.kind {
            ProduceErrorKind::Broker { code, .. } => code.retriable(),
            ProduceErrorKind::DeliveryTimeout { .. } | ProduceErrorKind::Closed => true,
            ProduceErrorKind::UnknownTopic
            | ProduceErrorKind::UnknownPartition { .. }
            | ProduceErrorKind::TooLarge { .. } => false,
        }
    }
}

impl fmt::Display for ProduceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTopic => f.write_str("the topic does not exist"),
            Self::UnknownPartition { partitions } => write!(f, "no such partition: the topic has {partitions}"),
            Self::TooLarge { size, limit: Some(limit) } => {
                write!(f, "the record takes {size} bytes, more than max.request.size {limit}")
            }
            Self::TooLarge { size, limit: None } => {
                write!(f, "the record takes {size} bytes, more than the broker accepts")
            }
            Self::Broker { code, message: Some(message) } => write!(f, "{code}: {message}"),
            Self::Broker { code, message: None } => write!(f, "{code}"),
            Self::DeliveryTimeout { last } => write!(f, "not delivered within delivery.timeout.ms; last: {last}"),
            Self::Closed => f.write_str("the producer was closed"),
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("enable.idempotence needs acks=all; set acks=all, or enable.idempotence=false")]
    IdempotenceNeedsAcksAll,
    #[error("enable.idempotence needs max.in.flight.requests.per.connection between 1 and 5, not {0}")]
    InFlight(usize),
}

/// Up to so many batches of one partition a broker remembers to recognise a repetition.
const IDEMPOTENT_IN_FLIGHT: usize = 5;

impl ProducerConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.idempotence && self.acks != Acks::All {
            return Err(ConfigError::IdempotenceNeedsAcksAll);
        }
        if self.max_in_flight == 0 || (self.idempotence && self.max_in_flight > IDEMPOTENT_IN_FLIGHT) {
            return Err(ConfigError::InFlight(self.max_in_flight));
        }
        Ok(())
    }
}

/// What becomes of a record: a future of its [`Receipt`]. Dropping it changes nothing: the record is sent all the same.
pub struct Delivery {
    completion: Arc<Completion>,
    index: usize,
    /// The record's own.
    timestamp: i64,
    seat: Seat,
}

impl Future for Delivery {
    type Output = Result<Receipt, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { completion, index, timestamp, seat } = &mut *self;
        completion.poll_outcome(*index, seat, context.waker()).map_ok(|Written { partition, offset, append_time }| {
            Receipt { partition, offset, timestamp: append_time.unwrap_or(*timestamp) }
        })
    }
}

/// The partitions of the record's topic, if it has any and the one that the record may name.
fn partitions_for<'a>(metadata: &'a Metadata, record: &ProduceRecord) -> Option<&'a [Partition]> {
    let partitions = metadata.topics.get(&record.topic)?.partitions.as_slice();
    let named = record.partition.is_none_or(|named| usize::try_from(named).is_ok_and(|named| named < partitions.len()));
    (named && !partitions.is_empty()).then_some(partitions)
}

/// Sends records. Cheap to clone; clones share batches, sequence numbers and the byte budget.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    cluster: Cluster,
    budget: Budget,
    closed: Arc<AtomicBool>,
}

impl Producer {
    pub(crate) fn start(cluster: Cluster, config: ProducerConfig, budget: Budget) -> Result<Self, ConfigError> {
        config.check()?;
        let shared = Arc::new(Shared::new(config));
        cluster
            .tracker()
            .spawn(sender::Sender::new(cluster.clone(), shared.clone()).run(cluster.cancel_token().clone()));
        Ok(Self { shared, cluster, budget, closed: Arc::default() })
    }

    /// Waits for the topic's metadata and for room in the byte budget, and takes the record. Dropping this future before it
    /// completes sends nothing.
    ///
    /// # Errors
    /// [`ProduceErrorKind::TooLarge`], [`ProduceErrorKind::UnknownTopic`], [`ProduceErrorKind::UnknownPartition`], a
    /// delivery timeout while waiting, or [`ProduceErrorKind::Closed`]: in each case the record was not sent.
    pub async fn send(&self, record: ProduceRecord) -> Result<Delivery, ProduceError> {
        let config = &self.shared.config;
        let not_sent = |kind| ProduceError {
            topic: record.topic.clone(),
            partition: record.partition,
            outcome: Outcome::NotSent,
            kind,
        };
        let size = BatchBuilder::record_len(record.key.as_deref(), record.value.as_deref(), &record.headers);
        if size > config.max_request_size {
            return Err(not_sent(ProduceErrorKind::TooLarge { size, limit: Some(config.max_request_size) }));
        }
        // Mostly there is nothing to wait for, and then no clock is read before a batch begins.
        let mut deadline = None;
        let mut until = || *deadline.get_or_insert_with(|| Instant::now() + config.delivery_timeout);
        let mut metadata = self.cluster.metadata();
        if partitions_for(&metadata, &record).is_none() {
            metadata = self.wait_for_partition(&record, until()).await.map_err(not_sent)?;
        }
        let room = match self.budget.try_reserve(size) {
            Some(room) => room,
            None => tokio::time::timeout_at(until(), self.budget.reserve(size)).await.map_err(|_| {
                let last = "the producing share of the memory budget is full".to_owned();
                not_sent(ProduceErrorKind::DeliveryTimeout { last })
            })?,
        };
        let Some(partitions) = partitions_for(&metadata, &record) else {
            return Err(not_sent(ProduceErrorKind::UnknownTopic));
        };
        if self.closed.load(Ordering::Acquire) {
            return Err(not_sent(ProduceErrorKind::Closed));
        }
        self.shared.append(&record, partitions, until, room).map_err(not_sent)
    }

    /// A picture of the cluster in which the record has somewhere to go.
    async fn wait_for_partition(
        &self,
        record: &ProduceRecord,
        deadline: Instant,
    ) -> Result<Arc<Metadata>, ProduceErrorKind> {
        let config = &self.shared.config;
        let mut changes = self.cluster.metadata_changes();
        let unknown = Instant::now() + config.unknown_topic_timeout;
        let mut checked_partition = false;
        loop {
            let metadata = changes.borrow_and_update().clone();
            if partitions_for(&metadata, record).is_some() {
                return Ok(metadata);
            }
            // Each time: another caller who gave up may have ended it.
            self.cluster.watch_to_produce(&record.topic, config.allow_auto_create_topics);
            let topic = metadata.topics.get(&record.topic);
            if let Some(topic) = topic.filter(|topic| !topic.partitions.is_empty()) {
                if checked_partition {
                    return Err(ProduceErrorKind::UnknownPartition { partitions: topic.partitions.len() as i32 });
                }
                // It may have been added since the last look.
                checked_partition = true;
                let _ = tokio::time::timeout_at(deadline, self.cluster.refresh()).await;
                continue;
            }
            if let Some(code) = topic.map(|topic| topic.error).filter(|code| !code.is_none() && !code.retriable()) {
                return Err(ProduceErrorKind::Broker { code, message: None });
            }
            if let Some(cause) = self.cluster.authentication_fault() {
                let (code, message) = (ErrorCode::SASL_AUTHENTICATION_FAILED, Some(cause.to_string()));
                return Err(ProduceErrorKind::Broker { code, message });
            }
            // A cluster that answers and does not have the topic is another thing than one that does not answer.
            let answers = topic.is_some() && self.cluster.trouble().is_none();
            let until = if answers { unknown.min(deadline) } else { deadline };
            let again = Instant::now() + self.cluster.config().retry_backoff;
            match tokio::time::timeout_at(until.min(again), changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ProduceErrorKind::Closed),
                Err(_) if Instant::now() < until => self.cluster.request_refresh(),
                Err(_) if answers => {
                    self.cluster.forget_missing(&record.topic);
                    return Err(ProduceErrorKind::UnknownTopic);
                }
                Err(_) => {
                    let last = self.cluster.trouble().map_or_else(|| "no metadata".to_owned(), |text| text.to_string());
                    return Err(ProduceErrorKind::DeliveryTimeout { last });
                }
            }
        }
    }

    /// Waits until everything taken before the call has its outcome. Dropping the future stops waiting, nothing else.
    pub async fn flush(&self) {
        for completion in self.shared.flush() {
            completion.done().await;
        }
    }

    /// Takes nothing more, flushes until `timeout`, then fails what is left. Returns how many batches were left.
    pub async fn close(&self, timeout: Duration) -> usize {
        self.closed.store(true, Ordering::Release);
        let _ = tokio::time::timeout(timeout, self.flush()).await;
        self.shared.end()
    }

    /// Bytes of records that have no outcome yet.
    pub fn buffered_bytes(&self) -> usize {
        self.budget.used()
    }
}
