//! The whole flow on paused time: a scripted group, a scripted backend, topics in memory.

mod dispatch;
mod leases;
mod memory;
mod stalls;

use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;

use super::{
    script::{Group, Log, TestBackend, group},
    *,
};
use crate::{
    audit,
    config::settings::{AuditTarget, Format},
    dead_letter,
    record::memory::MemoryKafka,
};

const DRAIN: Duration = Duration::from_secs(25);

/// A flow under test, with everything around it.
struct Bed {
    group: Group,
    kafka: Arc<MemoryKafka>,
    observer: Arc<Observer>,
    memory: Budget,
    stop: CancellationToken,
    flow: JoinHandle<Result<(), RunError>>,
}

struct Setup {
    settings: settings::Consumer,
    audit: bool,
    ask_health: bool,
    memory: Budget,
}

fn setup() -> Setup {
    let connection = settings::Connection {
        bootstrap_servers: vec![],
        client_id: String::new(),
        rack: None,
        request_timeout: Duration::ZERO,
        metadata_max_age: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        retry_backoff: Duration::ZERO,
        retry_backoff_max: Duration::ZERO,
        reconnect_backoff: Duration::ZERO,
        reconnect_backoff_max: Duration::ZERO,
        security: settings::KafkaSecurity::default(),
    };
    let settings = settings::Consumer {
        connection,
        kafka: protocol::consumer::ConsumerConfig { group_id: "g".into(), ..Default::default() },
        key_format: Format::String,
        value_format: Format::Json,
        dead_letter: settings::DeadLetter { enabled: true, topic_ext: ".dlq".into(), create_topic: true },
        audit: settings::Audit {
            enabled: true,
            target: AuditTarget::Topic,
            topic: "audit".into(),
            file: "".into(),
            file_max_bytes: 0,
            file_max_history: 0,
        },
        backend: settings::Backend {
            host: String::new(),
            path: String::new(),
            timeout: Duration::from_secs(300),
            connection_reset: false,
        },
        dispatch: settings::Dispatch {
            max_records: 100,
            max_bytes: 204_800,
            min_bytes: None,
            batch_wait: None,
            max_concurrency: 32,
            max_retries: None,
            retry_delay: Duration::from_millis(100),
            retry_max_delay: Duration::from_secs(2),
            rollback_threshold: None,
            wait_period: Duration::from_millis(100),
        },
        bad_record_policy: BadRecordPolicy::DeadLetter,
        drain_timeout: DRAIN,
    };
    Setup { settings, audit: false, ask_health: false, memory: Budget::new(1 << 20) }
}

impl Setup {
    fn retries(mut self, retries: u32) -> Self {
        self.settings.dispatch.max_retries = Some(retries);
        self
    }

    fn start(self, backend: &Arc<TestBackend>) -> Bed {
        let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 4), ("audit", 1)]));
        let (group, consumer) = group(self.settings.drain_timeout);
        let audit = self.audit.then(|| {
            let opened = audit::open(&self.settings.audit, "s", kafka.clone(), kafka.clone(), true);
            let (audit, writer) = opened.expect("a topic needs nothing");
            tokio::spawn(writer.run(CancellationToken::new()));
            audit
        });
        let dead_letters = self.settings.dead_letter.enabled.then(|| {
            let settings = &self.settings.dead_letter;
            Arc::new(dead_letter::DeadLetters::new(kafka.clone(), kafka.clone(), settings, "g"))
        });
        let observer = Arc::<Observer>::default();
        let stop = CancellationToken::new();
        let parts = ReactiveParts {
            consumer,
            backend: backend.clone(),
            dead_letters,
            audit,
            settings: self.settings,
            ask_health: self.ask_health,
            memory: self.memory.clone(),
            observer: observer.clone(),
            stop: stop.clone(),
        };
        Bed { group, kafka, observer, memory: self.memory, stop, flow: tokio::spawn(run(parts)) }
    }
}

impl Bed {
    /// Stops and drains; fails if that takes longer than it may.
    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(DRAIN + Duration::from_secs(1), self.flow).await;
        ended.expect("drained in time").expect("no panic").expect("no fault");
        assert!(self.observer.status().partitions.is_empty());
    }

    /// Offsets in the dead-letter topic, in order, with their attempts.
    fn dead_letters(&self) -> Vec<(i64, u32)> {
        let header = |record: &protocol::producer::ProduceRecord, name: &str| {
            let found = record.headers.iter().find(|(key, _)| key == name.as_bytes());
            let value = found.and_then(|(_, value)| value.clone()).expect("the header");
            std::str::from_utf8(&value).expect("text").parse::<i64>().expect("a number")
        };
        let records = self.kafka.records().into_iter().filter(|record| &*record.topic == "t.dlq");
        records
            .map(|record| (header(&record, dead_letter::OFFSET), header(&record, dead_letter::ATTEMPTS) as u32))
            .collect()
    }

    async fn committed(&self, log: &Log, offset: i64) {
        // On paused time this is no wait but a yield until every timer that matters has fired.
        let reached = async {
            while log.committed() != offset {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(3600), reached).await;
        waited.unwrap_or_else(|_| {
            panic!("committed {} instead of {offset}: {:?}", log.committed(), self.observer.status())
        });
    }

    fn metric(&self, pick: impl Fn(&super::observer::Metrics) -> &AtomicU64) -> u64 {
        pick(&self.observer.metrics).load(Ordering::Relaxed)
    }
}

/// That every record was processed in order, repetitions aside: the first deliveries ascend.
fn in_order(calls: &[Vec<i64>], count: i64) {
    let mut next = 0;
    for offsets in calls {
        for offset in offsets {
            assert!(*offset <= next, "{offset} before {next}: {calls:?}");
            next = next.max(offset + 1);
        }
    }
    assert_eq!(next, count);
}
