//! The produce flow: parsed records in, one outcome per record out, in the order of the request.
//!
//! ```text
//! Vec<NewRecord> --encode--> Encoded | unfit --send, waits for room--> delivery --> Receipt | RecordFailure
//! ```
//!
//! It knows nothing of HTTP. [`Flow`] is its main type; [`Sink`] and [`AuditSink`] are what it hands records and audit entries to.

mod new_record;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) use new_record::{Common, Encode, Encoded, NewRecord, topic_name_fault};
use protocol::{
    outcome::Outcome,
    producer::{Delivery, ProduceError, ProduceRecord, Producer, Receipt},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::telemetry::metrics::ProduceMetrics;

/// How long one request waits for room in the byte budget before what is left of it fails as not sent.
pub(crate) const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// What takes records: the Kafka producer, or a stand-in in tests.
pub(crate) trait Sink: Clone + Send + Sync + 'static {
    type Delivery: Future<Output = Result<Receipt, ProduceError>> + Send + 'static;

    /// Waits for room and takes the record. Dropping this future before it completes sends nothing.
    fn send(&self, record: ProduceRecord) -> impl Future<Output = Result<Self::Delivery, ProduceError>> + Send;
}

impl Sink for Producer {
    type Delivery = Delivery;

    async fn send(&self, record: ProduceRecord) -> Result<Delivery, ProduceError> {
        Producer::send(self, record).await
    }
}

/// One produced record, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducedEntry {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    pub(crate) correlation_id: String,
    pub(crate) traceability_id: Option<String>,
    pub(crate) key: Option<String>,
    /// Milliseconds since the epoch.
    pub(crate) timestamp: i64,
    /// What went wrong; None is a success.
    pub(crate) failure: Option<String>,
}

/// What takes audit entries. It waits for room in a bounded queue, never for an acknowledgement.
pub(crate) trait AuditSink: Send + Sync + 'static {
    fn record(&self, entry: ProducedEntry) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Why one record was not written, or perhaps not.
#[derive(Debug, Clone)]
pub(crate) enum RecordFailure {
    /// Key or value do not fit their format; names the record and the field.
    Unfit(String),
    /// No room in the byte budget within [`ROOM_TIMEOUT`].
    NoRoom,
    /// The producer's answer.
    Producer(ProduceError),
}

impl RecordFailure {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Unfit(_) | Self::NoRoom => Outcome::NotSent,
            Self::Producer(error) => error.outcome,
        }
    }
}

impl std::fmt::Display for RecordFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfit(reason) => f.write_str(reason),
            Self::NoRoom => write!(f, "no room for the record within {} s", ROOM_TIMEOUT.as_secs()),
            Self::Producer(error) => write!(f, "{error}"),
        }
    }
}

/// What became of each record, in the order of the request.
pub(crate) type Report = Vec<Result<Receipt, RecordFailure>>;

/// Takes requests' records through encoding, sending and auditing.
pub(crate) struct Flow<S> {
    sink: S,
    audit: Option<Arc<dyn AuditSink>>,
    encode: Encode,
    metrics: ProduceMetrics,
    tasks: TaskTracker,
}

/// The flow's task ended without a report, which only a defect can cause.
#[derive(Debug, thiserror::Error)]
#[error("the produce task ended without a report")]
pub(crate) struct NoReport;

impl<S: Sink> Flow<S> {
    pub(crate) fn new(sink: S, audit: Option<Arc<dyn AuditSink>>, encode: Encode, metrics: ProduceMetrics) -> Self {
        Self { sink, audit, encode, metrics, tasks: TaskTracker::new() }
    }

    /// Produces what fits and reports on every record.
    ///
    /// `memory` is dropped as soon as the last record was taken (it stands for the request's bytes), `slot` when the last outcome is
    /// known. Dropping the returned future changes nothing: the records are sent and audited all the same.
    pub(crate) fn produce(
        &self,
        common: &Common,
        records: Vec<NewRecord<'_>>,
        memory: impl Send + 'static,
        slot: impl Send + 'static,
    ) -> impl Future<Output = Result<Report, NoReport>> + Send + 'static {
        let with_key_text = self.audit.is_some();
        let encoded: Vec<_> = records
            .into_iter()
            .enumerate()
            .map(|(index, record)| {
                let encoded = record.encode(common, self.encode, with_key_text);
                encoded.map_err(|reason| RecordFailure::Unfit(format!("records[{index}].{reason}")))
            })
            .collect();
        let (sink, audit, metrics) = (self.sink.clone(), self.audit.clone(), self.metrics.clone());
        let task = self.tasks.spawn(async move {
            let sent = send_all(&sink, encoded).await;
            drop(memory);
            let report = outcomes(sent, audit.as_deref(), &metrics).await;
            drop(slot);
            report
        });
        async move { task.await.map_err(|_| NoReport) }
    }

    /// How many requests have records whose outcome is not known yet.
    pub(crate) fn in_progress(&self) -> usize {
        self.tasks.len()
    }

    /// Completes when every request that was taken has its outcomes and audit entries. To be called when no more can come.
    pub(crate) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A record that was handed to the sink, and what its audit entry needs.
struct Sent<D> {
    delivery: Result<D, RecordFailure>,
    audit: Option<ProducedEntry>,
}

async fn send_all<S: Sink>(sink: &S, encoded: Vec<Result<Encoded, RecordFailure>>) -> Vec<Sent<S::Delivery>> {
    let deadline = Instant::now() + ROOM_TIMEOUT;
    let mut room = true;
    let mut sent = Vec::with_capacity(encoded.len());
    for encoded in encoded {
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(unfit) => {
                sent.push(Sent { delivery: Err(unfit), audit: None });
                continue;
            }
        };
        let audit = Some(ProducedEntry {
            topic: encoded.record.topic.clone(),
            partition: encoded.record.partition,
            offset: None,
            correlation_id: encoded.correlation_id,
            traceability_id: encoded.traceability_id,
            key: encoded.key_text,
            timestamp: encoded.record.timestamp.unwrap_or_else(now_ms),
            failure: None,
        });
        // After one record found no room none is tried, so that no later one overtakes it.
        let delivery = if room {
            match tokio::time::timeout_at(deadline, sink.send(encoded.record)).await {
                Ok(taken) => taken.map_err(RecordFailure::Producer),
                Err(_) => {
                    room = false;
                    Err(RecordFailure::NoRoom)
                }
            }
        } else {
            Err(RecordFailure::NoRoom)
        };
        sent.push(Sent { delivery, audit });
    }
    sent
}

async fn outcomes<D: Future<Output = Result<Receipt, ProduceError>>>(
    sent: Vec<Sent<D>>,
    audit: Option<&dyn AuditSink>,
    metrics: &ProduceMetrics,
) -> Report {
    let mut report = Vec::with_capacity(sent.len());
    for Sent { delivery, audit: entry } in sent {
        let result = match delivery {
            Ok(delivery) => delivery.await.map_err(RecordFailure::Producer),
            Err(failure) => Err(failure),
        };
        metrics.record(match &result {
            Ok(_) => None,
            Err(failure) => Some(failure.outcome()),
        });
        if let (Some(audit), Some(mut entry)) = (audit, entry) {
            match &result {
                Ok(receipt) => {
                    entry.partition = Some(receipt.partition);
                    entry.offset = receipt.offset;
                    entry.timestamp = receipt.timestamp;
                }
                Err(failure) => entry.failure = Some(failure.to_string()),
            }
            audit.record(entry).await;
        }
        report.push(result);
    }
    report
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod memory_sink;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use serde_json::value::RawValue;

    use super::{memory_sink::MemorySink, *};
    use crate::config::settings::Format;

    fn json(_: Format, raw: &RawValue) -> Result<Option<Bytes>, String> {
        match raw.get() {
            "\"bad\"" => Err("not fit".to_owned()),
            text => Ok((text != "null").then(|| Bytes::copy_from_slice(text.as_bytes()))),
        }
    }

    fn common() -> Common {
        Common {
            topic: "t".into(),
            key_format: Format::Json,
            value_format: Format::Json,
            headers: Vec::new(),
            trace_context: Vec::new(),
            correlation_id: Some("c".into()),
            traceability_id: None,
        }
    }

    fn values(texts: &[&str]) -> Vec<Box<RawValue>> {
        texts.iter().map(|text| RawValue::from_string((*text).to_owned()).expect("json")).collect()
    }

    fn records(values: &[Box<RawValue>]) -> Vec<NewRecord<'_>> {
        values.iter().map(|value| NewRecord { value: Some(value), ..NewRecord::default() }).collect()
    }

    #[derive(Default)]
    struct Entries(Mutex<Vec<ProducedEntry>>);

    impl AuditSink for Entries {
        fn record(&self, entry: ProducedEntry) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.0.lock().expect("lock").push(entry);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn an_unfit_record_fails_alone_with_its_index_and_the_others_are_written() {
        let (sink, audit) = (MemorySink::default(), Arc::new(Entries::default()));
        let flow = Flow::new(sink.clone(), Some(audit.clone()), json, ProduceMetrics::default());
        let values = values(&["1", "\"bad\"", "null"]);
        let report = flow.produce(&common(), records(&values), (), ()).await.expect("report");
        assert_eq!(report[0].as_ref().expect("written").offset, Some(0));
        assert_eq!(report[1].as_ref().expect_err("unfit").to_string(), "records[1].value: not fit");
        assert_eq!(report[2].as_ref().expect("written").offset, Some(1));
        let written = sink.written();
        assert_eq!(written[0].value.as_deref(), Some(b"1".as_slice()));
        assert_eq!(written[1].value, None, "null is a tombstone");
        let entries = audit.0.lock().expect("lock");
        assert_eq!(entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [Some(0), Some(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_record_overtakes_one_that_found_no_room() {
        let sink = MemorySink::default();
        sink.set_room(1);
        let flow = Flow::new(sink.clone(), None, json, ProduceMetrics::default());
        let values = values(&["1", "2", "3"]);
        let started = Instant::now();
        let report = flow.produce(&common(), records(&values), (), ()).await.expect("report");
        assert_eq!(started.elapsed(), ROOM_TIMEOUT);
        assert!(report[0].is_ok());
        assert!(matches!(report[1], Err(RecordFailure::NoRoom)));
        assert!(matches!(report[2], Err(RecordFailure::NoRoom)));
        assert_eq!(sink.written().len(), 1);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_does_not_lose_the_records_or_their_audit() {
        let (sink, audit) = (MemorySink::default(), Arc::new(Entries::default()));
        let flow = Flow::new(sink.clone(), Some(audit.clone()), json, ProduceMetrics::default());
        let values = values(&["1", "2"]);
        drop(flow.produce(&common(), records(&values), (), ()));
        flow.finished().await;
        assert_eq!(sink.written().len(), 2);
        assert_eq!(audit.0.lock().expect("lock").len(), 2);
    }
}
