//! What the sidecar adds: from a producer's send until the backend is called, at a steady rate, with the real binary.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use clap::Args;
use hdrhistogram::Histogram;
use protocol::{
    budget::Budget,
    producer::{ProduceRecord, ProducerConfig},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    kafka::Kafka,
    latency::Pace,
    produce, report,
    sidecar::{self, Sidecar},
    topic::Topics,
};

const TOPIC: &str = "reactive";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Reactive {
    /// The sidecar's release binary [default: target/release/kafka-sidecar of this repository]
    #[arg(long)]
    sidecar: Option<PathBuf>,
    #[arg(long, default_value_t = 4)]
    partitions: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Records per second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long it is measured
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// How long it runs before
    #[arg(long, default_value_t = 5)]
    warm_seconds: u32,
}

/// What the backend saw.
struct Calls {
    start: Mutex<Option<Instant>>,
    warm: usize,
    from_due: Mutex<Histogram<u64>>,
    from_append: Mutex<Histogram<u64>>,
    /// Records in all calls, and calls.
    records: AtomicUsize,
    calls: AtomicUsize,
}

/// A record as the backend gets it.
#[derive(Deserialize)]
struct Record<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// The broker's clock: the topic has LogAppendTime.
    timestamp: u64,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
struct Value {
    /// None: sent before anything is measured.
    index: Option<usize>,
    due_us: u64,
}

impl Reactive {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = sidecar::binary(self.sidecar.as_deref())?;
        let kafka = Kafka::start()?;
        let topics = Topics::new(kafka.address())?;
        topics.make_with(TOPIC, self.partitions, &[("message.timestamp.type", "LogAppendTime")])?;
        let pace = Pace { rate: self.rate, seconds: self.seconds, warm_seconds: self.warm_seconds };
        let calls = Arc::new(Calls {
            start: Mutex::new(None),
            warm: pace.warm(),
            from_due: Mutex::new(report::histogram()),
            from_append: Mutex::new(report::histogram()),
            records: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let backend = runtime.block_on(backend(calls.clone()))?;
        let settings = [
            ("kafka-consumer.topic", TOPIC),
            ("kafka-consumer.group.id", "bench-reactive"),
            ("kafka-consumer.backendApiHost", &backend),
        ];
        let _sidecar = Sidecar::start(&binary, kafka.address(), 0, &settings)?;
        let _inside = runtime.enter();
        let client = produce::client(kafka.address())?;
        let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
        let producer = client.producer(config, Budget::new(16 * 1024 * 1024))?;
        let topic: Arc<str> = TOPIC.into();
        let send = |index: Option<usize>, due: Duration| -> Result<()> {
            let record = ProduceRecord {
                topic: topic.clone(),
                key: Some(format!("key-{}", index.unwrap_or_default() % 1000).into()),
                value: Some(self.value(index, due).into()),
                ..ProduceRecord::default()
            };
            let delivery = runtime.block_on(producer.send(record))?;
            // Its receipt is not waited for: the next record is due.
            runtime.spawn(delivery);
            Ok(())
        };
        // Until the sidecar has joined its group nothing can be measured.
        send(None, Duration::ZERO)?;
        calls.wait(1)?;
        let start = Instant::now();
        *calls.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
        pace.keep(start, |index, due| send(Some(index), due))?;
        calls.wait(1 + pace.records())?;
        println!("\n### reactive, values of {} B, {}/s, {} partitions\n", self.bytes, self.rate, self.partitions);
        println!("{}", report::LATENCY_HEAD);
        for (name, histogram) in [
            ("due at the producer to the backend's call", &calls.from_due),
            ("append at the broker (its clock, whole ms) to the backend's call", &calls.from_append),
        ] {
            let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            println!("{}", report::latency_row(name, &histogram));
        }
        let records = calls.records.load(Ordering::Relaxed) as f64;
        println!("\n{:.2} records per call", records / calls.calls.load(Ordering::Relaxed) as f64);
        Ok(())
    }

    fn value(&self, index: Option<usize>, due: Duration) -> Vec<u8> {
        let index = index.map_or_else(|| "null".to_owned(), |index| index.to_string());
        let mut value = format!("{{\"index\":{index},\"due_us\":{},\"pad\":\"", due.as_micros()).into_bytes();
        value.resize(value.len().max(self.bytes.saturating_sub(2)), b'x');
        value.extend_from_slice(b"\"}");
        value
    }
}

impl Calls {
    fn take(&self, body: &[u8]) -> Result<String> {
        let (now, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
        let records: Vec<Record<'_>> = serde_json::from_slice(body)?;
        let start = *self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdicts = Vec::new();
        for record in &records {
            let value: Value = serde_json::from_str(record.value.get())?;
            if let (Some(start), Some(_)) = (start, value.index.filter(|index| *index >= self.warm)) {
                let late = (now - start).saturating_sub(Duration::from_micros(value.due_us));
                let since_append = clock.saturating_sub(Duration::from_millis(record.timestamp));
                for (histogram, time) in [(&self.from_due, late), (&self.from_append, since_append)] {
                    let micros = u64::try_from(time.as_micros())?;
                    histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
                }
            }
            let (topic, partition, offset) = (record.topic, record.partition, record.offset);
            let place = serde_json::json!({"topic": topic, "partition": partition, "offset": offset});
            verdicts.push(serde_json::json!({"record": place, "processed": true}));
        }
        self.records.fetch_add(records.len(), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(serde_json::Value::Array(verdicts).to_string())
    }

    fn wait(&self, records: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.records.load(Ordering::Relaxed) < records {
            ensure!(Instant::now() < until, "the backend was not called for every record");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

async fn backend(calls: Arc<Calls>) -> Result<String> {
    let answer = |State(calls): State<Arc<Calls>>, body: Bytes| async move {
        calls.take(&body).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}")))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/kafka/records", post(answer)).with_state(calls);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}
