//! The produce flow: parsed records in, one outcome per record out, in the order of the request.
//!
//! ```text
//! Vec<NewRecord> --encode--> Encoded | unfit --send, waits for room--> delivery --> Receipt | RecordFailure
//! ```
//!
//! It knows nothing of HTTP. [`Flow`] is its main type; [`Sink`] is what it hands records to.

mod new_record;

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

pub(crate) use new_record::{Common, Encode, Encoded, NewRecord, topic_name_fault};
use protocol::{
    outcome::Outcome,
    producer::{Delivery, ProduceError, ProduceRecord, Producer, Receipt},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    audit::{Audit, AuditEntry, AuditType},
    telemetry::metrics::ProduceMetrics,
};

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
    audit: Option<Audit>,
    encode: Encode,
    metrics: ProduceMetrics,
    tasks: TaskTracker,
}

/// The flow's task ended without a report, which only a defect can cause.
#[derive(Debug, thiserror::Error)]
#[error("the produce task ended without a report")]
pub(crate) struct NoReport;

impl<S: Sink> Flow<S> {
    pub(crate) fn new(sink: S, audit: Option<Audit>, encode: Encode, metrics: ProduceMetrics) -> Self {
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
        let encoded: Vec<_> = records
            .into_iter()
            .enumerate()
            .map(|(index, record)| {
                let encoded = record.encode(common, self.encode);
                encoded.map_err(|reason| RecordFailure::Unfit(format!("records[{index}].{reason}")))
            })
            .collect();
        let (sink, audit, metrics) = (self.sink.clone(), self.audit.clone(), self.metrics.clone());
        let task = self.tasks.spawn(async move {
            let sent = send_all(&sink, encoded).await;
            drop(memory);
            let report = outcomes(sent, audit.as_ref(), &metrics).await;
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
    audit: Option<AuditEntry>,
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
        let audit = Some(AuditEntry {
            audit_type: AuditType::Producer,
            topic: encoded.record.topic.clone(),
            partition: encoded.record.partition,
            offset: None,
            correlation_id: encoded.correlation_id,
            traceability_id: encoded.traceability_id,
            key: None,
            success: false,
            stacktrace: None,
            timestamp: Some(encoded.record.timestamp.unwrap_or_else(now_ms)),
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
    audit: Option<&Audit>,
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
                    entry.success = true;
                    entry.partition = Some(receipt.partition);
                    entry.offset = receipt.offset;
                    entry.timestamp = Some(receipt.timestamp);
                }
                Err(failure) => entry.stacktrace = Some(failure.to_string()),
            }
            // Room in the queue is waited for, the acknowledgement is not.
            if audit.record(entry).await.is_err() {
                tracing::error!("an audit entry was not taken: the audit writer has ended");
            }
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
    use std::sync::Arc;

    use bytes::Bytes;
    use protocol::producer::ProduceErrorKind;
    use serde_json::value::RawValue;
    use tokio_util::sync::CancellationToken;

    use super::{memory_sink::MemorySink, *};
    use crate::{
        config::settings::{self, Format},
        record::memory::MemoryKafka,
    };

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

    /// An audit that writes to a topic in memory, and that topic.
    fn audit() -> (Audit, Arc<MemoryKafka>, tokio::task::JoinHandle<u64>) {
        let kafka = Arc::new(MemoryKafka::with_topics(&[("sidecar-audit", 1)]));
        let settings = settings::Audit {
            enabled: true,
            target: settings::AuditTarget::Topic,
            topic: "sidecar-audit".to_owned(),
            file: std::path::PathBuf::new(),
            file_max_bytes: 0,
            file_max_history: 0,
        };
        let (audit, writer) =
            crate::audit::open(&settings, "me", kafka.clone(), kafka.clone(), false).expect("no file is opened");
        (audit, kafka, tokio::spawn(writer.run(CancellationToken::new())))
    }

    fn entries(kafka: &MemoryKafka) -> Vec<serde_json::Value> {
        let records = kafka.records();
        records
            .iter()
            .map(|record| serde_json::from_slice(record.value.as_deref().expect("value")).expect("json"))
            .collect()
    }

    #[tokio::test]
    async fn an_unfit_record_fails_alone_with_its_index_and_the_others_are_written() {
        let (sink, (audit, kafka, writer)) = (MemorySink::default(), audit());
        let flow = Flow::new(sink.clone(), Some(audit), json, ProduceMetrics::default());
        let values = values(&["1", "\"bad\"", "null"]);
        let report = flow.produce(&common(), records(&values), (), ()).await.expect("report");
        assert_eq!(report[0].as_ref().expect("written").offset, Some(0));
        assert_eq!(report[1].as_ref().expect_err("unfit").to_string(), "records[1].value: not fit");
        assert_eq!(report[2].as_ref().expect("written").offset, Some(1));
        let written = sink.written();
        assert_eq!(written[0].value.as_deref(), Some(b"1".as_slice()));
        assert_eq!(written[1].value, None, "null is a tombstone");
        drop(flow);
        assert_eq!(writer.await.expect("no panic"), 0, "without its last caller the audit drains and ends");
        let entries = entries(&kafka);
        assert_eq!(entries.iter().map(|entry| &entry["offset"]).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((&entries[0]["auditType"], &entries[0]["auditStatus"]), (&"PRODUCER".into(), &"SUCCESS".into()));
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
        let (sink, (audit, kafka, writer)) = (MemorySink::default(), audit());
        let flow = Flow::new(sink.clone(), Some(audit), json, ProduceMetrics::default());
        let values = values(&["1", "2"]);
        drop(flow.produce(&common(), records(&values), (), ()));
        flow.finished().await;
        drop(flow);
        assert_eq!(writer.await.expect("no panic"), 0);
        assert_eq!(sink.written().len(), 2);
        assert_eq!(entries(&kafka).len(), 2);
    }

    #[tokio::test]
    async fn the_answer_does_not_wait_for_the_audit_and_a_failure_is_audited_with_its_reason() {
        let (sink, (audit, kafka, writer)) = (MemorySink::default(), audit());
        sink.refuse(Outcome::NotSent, ProduceErrorKind::UnknownTopic);
        kafka.hold(true);
        let flow = Flow::new(sink.clone(), Some(audit), json, ProduceMetrics::default());
        let values = values(&["1"]);
        let report = flow.produce(&common(), records(&values), (), ()).await.expect("report");
        assert!(report[0].is_err());
        assert_eq!(kafka.records().len(), 0);
        kafka.hold(false);
        drop(flow);
        assert_eq!(writer.await.expect("no panic"), 0);
        let entries = entries(&kafka);
        assert_eq!(entries[0]["auditStatus"], "FAILURE");
        assert_eq!(entries[0]["stacktrace"], "t: the topic does not exist (not sent)");
        assert_eq!(entries[0].get("offset"), None);
    }
}
