//! A backlog behind a backend that hangs and then answers at once: the memory it takes to wait, and the rate it is drained at.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use clap::Args;
use protocol::{
    admin::Admin,
    budget::Budget,
    client::Client,
    producer::{Producer, ProducerConfig},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    kafka::Kafka,
    produce,
    record::Records,
    settings::Codec,
    sidecar::{self, Sidecar},
    topic::Topics,
};

const TOPIC: &str = "backlog";
const GROUP: &str = "bench-backlog";
const VALUE_BYTES: usize = 1024;
/// How often progress is shown, and how often memory is looked at.
const PROGRESS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
/// Without a record for so long (beside the hang) it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Backlog {
    /// The sidecar's binary [default: target/release/kafka-sidecar of this repository]
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// Bytes of all values; each has 1 KiB
    #[arg(long, default_value_t = 2 * 1024 * 1024 * 1024)]
    bytes: u64,
    #[arg(long, default_value_t = 6)]
    partitions: usize,
    /// How the records are packed: none, gzip, snappy, lz4, zstd
    #[arg(long, default_value = "none")]
    codec: Codec,
    /// How long the backend keeps every answer back, from its first call on
    #[arg(long, default_value_t = 60)]
    hang_seconds: u64,
    /// Above so much memory (VmHWM) it has failed
    #[arg(long, default_value_t = 48)]
    limit_mib: u64,
    /// `batchMaxRecords`; what else is not written down has its default, above all `requestMaxBytes`
    #[arg(long, default_value_t = 500)]
    batch_max_records: usize,
    /// Leaves the audit on, as it is by default: an entry per record, to a topic
    #[arg(long)]
    audit: bool,
    /// A setting of the sidecar's, as KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::settings::key_and_value)]
    set: Vec<(String, String)>,
}

/// The backend, and what it saw.
struct Backend {
    hang: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When the first call came.
    since: Option<Instant>,
    /// By partition: the offset that follows those delivered.
    next: BTreeMap<i32, i64>,
    delivered: u64,
    redelivered: u64,
    calls: u64,
    /// The first thing that was wrong; nothing after it counts.
    fault: Option<String>,
}

/// A record as the backend gets it; only what is checked is kept.
#[derive(Deserialize)]
struct Record<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Backlog {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = sidecar::binary(self.sidecar.as_deref())?;
        let kafka = Kafka::start()?;
        let topics = Topics::new(kafka.address())?;
        topics.make_with(TOPIC, self.partitions, &[("retention.ms", "-1")])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let _inside = runtime.enter();
        let client = produce::client(kafka.address())?;
        let total = self.bytes.div_ceil(VALUE_BYTES as u64);
        let ends = runtime.block_on(self.fill(&client, total))?;
        let backend = Arc::new(Backend { hang: Duration::from_secs(self.hang_seconds), seen: Mutex::default() });
        let address = runtime.block_on(serve(backend.clone()))?;
        let (batch, audit) = (self.batch_max_records.to_string(), self.audit.to_string());
        let mut settings = vec![
            ("kafka-consumer.topic", TOPIC),
            ("kafka-consumer.group.id", GROUP),
            ("kafka-consumer.backendApiHost", address.as_str()),
            ("kafka-consumer.batchMaxRecords", batch.as_str()),
            ("kafka-consumer.auditEnabled", audit.as_str()),
        ];
        settings.extend(self.set.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let mut sidecar = Sidecar::start(&binary, kafka.address(), 0, &settings)?;
        let most_anonymous = self.watch(&mut sidecar, &backend, total)?;
        let admin = client.admin();
        runtime.block_on(committed(&admin, &ends))?;
        let drained = backend.drained_for()?;
        let memory = |field| Ok::<_, anyhow::Error>(sidecar.status_kib(field)? as f64 / 1024.0);
        let (peak, anonymous, file) = (memory("VmHWM")?, memory("RssAnon")?, memory("RssFile")?);
        let cpu = sidecar.cpu()?;
        let status = sidecar.terminate()?;
        let (delivered, redelivered, calls) = {
            let seen = backend.seen();
            (seen.delivered, seen.redelivered, seen.calls)
        };
        println!(
            "\n### backlog of {total} records of 1 KiB ({}), {} partitions, the backend hung {} s, audit {}\n",
            self.codec.0,
            self.partitions,
            self.hang_seconds,
            if self.audit { "on" } else { "off" }
        );
        println!("| | |\n|---|---|");
        println!("| delivered | {delivered} |\n| delivered again | {redelivered} |");
        println!("| records per call | {:.1} |", (delivered + redelivered) as f64 / calls as f64);
        println!("| seconds, from the first answer to the last commit | {:.1} |", drained.as_secs_f64());
        println!("| records/s | {:.0} |", delivered as f64 / drained.as_secs_f64());
        println!("| CPU us/record, of the sidecar's whole life | {:.2} |", cpu.as_secs_f64() * 1e6 / delivered as f64);
        println!("| VmHWM MiB (limit {}) | {peak:.1} |", self.limit_mib);
        println!("| most RssAnon that was seen, MiB | {:.1} |", most_anonymous as f64 / 1024.0);
        println!("| RssAnon and RssFile at the end, MiB | {anonymous:.1}, {file:.1} |");
        ensure!(status.success(), "the sidecar did not end well after SIGTERM: {status}");
        backend.check()?;
        ensure!(delivered == total, "{delivered} of {total} records were delivered");
        ensure!(peak <= self.limit_mib as f64, "VmHWM {peak:.1} MiB is above {} MiB", self.limit_mib);
        Ok(())
    }

    /// Writes the records; returns the end of each partition.
    async fn fill(&self, client: &Client, total: u64) -> Result<BTreeMap<i32, i64>> {
        let start = Instant::now();
        let config = ProducerConfig {
            linger: Duration::from_millis(5),
            batch_size: 65_536,
            compression: self.codec.0,
            ..ProducerConfig::default()
        };
        let producer: Producer = client.producer(config, Budget::new(64 * 1024 * 1024))?;
        let (records, topic) = (Records::new(1000, VALUE_BYTES), TOPIC.into());
        produce::send_ours(&producer, &topic, &records, 0..usize::try_from(total)?).await?;
        ensure!(producer.close(PATIENCE).await == 0, "the producer did not end");
        let ends = client.admin().log_ends(TOPIC).await?;
        let ends: BTreeMap<i32, i64> = ends.into_iter().map(|(partition, ends)| (partition, ends.latest)).collect();
        ensure!(u64::try_from(ends.values().sum::<i64>())? == total, "not the records that were produced: {ends:?}");
        println!("{total} records produced in {:.1} s", start.elapsed().as_secs_f64());
        Ok(ends)
    }

    /// Until every record was delivered; returns the most anonymous memory that was seen, in KiB.
    fn watch(&self, sidecar: &mut Sidecar, backend: &Backend, total: u64) -> Result<u64> {
        let start = Instant::now();
        let (mut shown, mut moved, mut last, mut most) = (start, start, 0, 0);
        loop {
            if let Some(status) = sidecar.ended()? {
                bail!("the sidecar ended: {status}");
            }
            most = most.max(sidecar.status_kib("RssAnon")?);
            backend.check()?;
            let delivered = backend.seen().delivered;
            if delivered != last {
                (last, moved) = (delivered, Instant::now());
            }
            let done = delivered >= total;
            if done || shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                let (seconds, lag) = (start.elapsed().as_secs_f64(), total.saturating_sub(delivered));
                let resident = sidecar.status_kib("VmRSS")? as f64 / 1024.0;
                println!("{seconds:6.1} s: {delivered} delivered, {lag} to come, VmRSS {resident:.1} MiB");
            }
            if done {
                return Ok(most);
            }
            ensure!(
                moved.elapsed() < backend.hang + PATIENCE,
                "no record for {:?}: {delivered} of {total}",
                moved.elapsed()
            );
            std::thread::sleep(LOOK);
        }
    }
}

/// Until the group has committed everything.
async fn committed(admin: &Admin, ends: &BTreeMap<i32, i64>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let committed = admin.committed(GROUP).await?;
        let committed: BTreeMap<i32, i64> =
            committed.into_iter().map(|((_, partition), offset)| (partition, offset)).collect();
        // A partition without a record has no commit.
        if ends.iter().all(|(partition, end)| committed.get(partition).copied().unwrap_or_default() == *end) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "not everything was committed: {committed:?} of {ends:?}");
        tokio::time::sleep(LOOK).await;
    }
}

impl Backend {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        match &self.seen().fault {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }

    /// Since it began to answer.
    fn drained_for(&self) -> Result<Duration> {
        let since = self.seen().since.context("the backend was never called")?;
        Ok(since.elapsed().saturating_sub(self.hang))
    }

    /// Counts a call; returns its answer and how long it has to wait.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<(String, Duration)> {
        let now = Instant::now();
        let records: Vec<Record<'_>> = serde_json::from_slice(body)?;
        let mut answer = String::with_capacity(records.len() * 80);
        for record in &records {
            ensure!(record.value.get().len() == VALUE_BYTES, "a value of {} bytes", record.value.get().len());
            let (topic, partition, offset) = (record.topic, record.partition, record.offset);
            let before = if answer.is_empty() { '[' } else { ',' };
            let place = format_args!(r#"{{"topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
            write!(answer, r#"{before}{{"record":{place},"processed":true}}"#)?;
        }
        answer.push(']');
        let mut seen = self.seen();
        let answered = *seen.since.get_or_insert(now) + self.hang;
        seen.count(headers, &records)?;
        Ok((answer, answered.saturating_duration_since(now)))
    }
}

impl Seen {
    fn count(&mut self, headers: &HeaderMap, records: &[Record<'_>]) -> Result<()> {
        let number = |name: &str| -> Result<i64> {
            let value = headers.get(name).with_context(|| format!("no header {name}"))?;
            Ok(value.to_str()?.parse()?)
        };
        let partition = i32::try_from(number("x-kafka-partition")?)?;
        let (first, last) = (number("x-kafka-first-offset")?, number("x-kafka-last-offset")?);
        // Nothing is taken from this log: its offsets have no gaps.
        let promised = (first..=last).map(|offset| (partition, offset));
        let whole = promised.eq(records.iter().map(|record| (record.partition, record.offset)));
        ensure!(whole, "{} records for the offsets {first} to {last} of {partition}", records.len());
        ensure!(records.iter().all(|record| record.topic == TOPIC), "a record of a foreign topic");
        let next = self.next.entry(partition).or_default();
        ensure!(first <= *next, "partition {partition} goes on at {first}, not at {next}");
        let fresh = (last + 1 - *next).max(0);
        *next += fresh;
        let fresh = u64::try_from(fresh)?;
        self.delivered += fresh;
        self.redelivered += records.len() as u64 - fresh;
        self.calls += 1;
        Ok(())
    }
}

async fn serve(backend: Arc<Backend>) -> Result<String> {
    let answer = |State(backend): State<Arc<Backend>>, headers: HeaderMap, body: Bytes| async move {
        match backend.take(&headers, &body) {
            Ok((answer, wait)) => {
                drop(body);
                tokio::time::sleep(wait).await;
                Ok(answer)
            }
            Err(error) => {
                let fault = format!("{error:#}");
                backend.seen().fault.get_or_insert_with(|| fault.clone());
                Err((StatusCode::BAD_REQUEST, fault))
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/kafka/records", post(answer)).with_state(backend);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}
