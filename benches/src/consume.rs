//! Consumers: how fast, for how much CPU, with how many allocations. Every key and value is looked at, on both sides.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::{
    budget::Budget,
    consumer::{ConsumerConfig, Event, PartitionStream},
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    child::{self, Job, Work},
    meter::{Measured, Meter},
    produce, report, round,
    settings::{Settings, Side},
    topic::Topics,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// The sub-command. Each topic is written once and read by everybody.
pub(crate) fn compare(settings: &Settings) -> Result<()> {
    let (bootstrap, _broker) = settings.broker()?;
    let topics = Topics::new(&bootstrap)?;
    for load in &settings.loads {
        for codec in &settings.codecs {
            let topic = format!("consume-{load}-{}", codec.0.name());
            topics.make(&topic, settings.partitions)?;
            let job = |work, side| Job {
                work,
                side,
                bootstrap: bootstrap.clone(),
                topic: topic.clone(),
                load: *load,
                codec: *codec,
                settings: settings.clone(),
            };
            // Not what is measured, so not under anything.
            let mut fill = job(Work::Produce, Side::Ours);
            fill.settings.under = None;
            fill.measure::<Measured>()?;
            let measured = round::alternate(settings, |side| job(Work::Consume, side).measure())?;
            report::print(&format!("consume, values of {} B, {}", load.bytes, codec.0), &measured);
            topics.remove(&topic)?;
        }
    }
    Ok(())
}

/// In the child.
pub(crate) fn run(job: &Job) -> Result<Measured> {
    match job.side {
        Side::Ours => child::runtime(&job.settings)?.block_on(ours(job)),
        Side::Theirs => theirs(job),
    }
}

/// A group that nobody was in before.
pub(crate) fn group() -> String {
    format!("bench-{}", std::process::id())
}

pub(crate) fn our_config(job: &Job) -> ConsumerConfig {
    ConsumerConfig {
        group_id: group(),
        topics: vec![job.topic.clone()],
        fetch_max_bytes: job.settings.fetch_max_bytes,
        max_partition_fetch_bytes: job.settings.max_partition_fetch_bytes,
        ..ConsumerConfig::default()
    }
}

/// What the streams have read together. The meter runs from the first record: joining the group is not measured.
struct Progress {
    due: u64,
    records: AtomicU64,
    bytes: AtomicU64,
    meter: Mutex<Option<Meter>>,
    done: Notify,
}

async fn ours(job: &Job) -> Result<Measured> {
    let client = produce::client(&job.bootstrap)?;
    let mut consumer = client.consumer(our_config(job), Budget::new(job.settings.memory));
    let progress = Arc::new(Progress {
        due: job.load.records as u64,
        records: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        meter: Mutex::new(None),
        done: Notify::new(),
    });
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            () = progress.done.notified() => break,
            event = consumer.next() => match event {
                Some(Event::Assigned(streams)) => {
                    for stream in streams {
                        readers.spawn(read(stream, progress.clone()));
                    }
                }
                Some(Event::Fault(fault)) => bail!("{:?}: {}", fault.partition, fault.kind),
                Some(Event::Revoking(_) | Event::Lost(_)) | None => bail!("the partitions are gone"),
            },
            Some(ended) = readers.join_next() => ended??,
        }
    }
    let meter = progress.meter.lock().unwrap_or_else(PoisonError::into_inner).take().context("nothing came")?;
    let measured = meter.stop(progress.records.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed))?;
    readers.abort_all();
    drop(consumer);
    ensure!(client.close(PATIENCE).await, "the client did not end");
    Ok(measured)
}

async fn read(mut stream: PartitionStream, progress: Arc<Progress>) -> Result<()> {
    while let Some(batch) = stream.next().await {
        let (mut records, mut bytes) = (0, 0);
        if progress.records.load(Ordering::Relaxed) == 0 {
            let mut meter = progress.meter.lock().unwrap_or_else(PoisonError::into_inner);
            if meter.is_none() {
                *meter = Some(Meter::start()?);
            }
        }
        for record in batch.iter() {
            records += 1;
            bytes += look_at(record.key) + look_at(record.value);
        }
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        if progress.records.fetch_add(records, Ordering::Relaxed) + records >= progress.due {
            progress.done.notify_one();
        }
    }
    Ok(())
}

/// Its length; the first byte is read so that nobody can leave it untouched.
fn look_at(bytes: Option<&[u8]>) -> u64 {
    let bytes = bytes.unwrap_or_default();
    std::hint::black_box(bytes.first().copied());
    bytes.len() as u64
}

/// librdkafka's settings for the same work.
pub(crate) fn their_config(job: &Job) -> ClientConfig {
    let settings = &job.settings;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.bootstrap)
        .set("group.id", group())
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // Off by default there; ours always checks.
        .set("check.crcs", "true")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.max.bytes", settings.fetch_max_bytes.to_string())
        .set("max.partition.fetch.bytes", settings.max_partition_fetch_bytes.to_string())
        .set("queued.max.messages.kbytes", (settings.memory / 1024).to_string())
        // By default it fetches nothing for a second once its queue is full.
        .set("fetch.queue.backoff.ms", "10");
    settings.their(config)
}

fn theirs(job: &Job) -> Result<Measured> {
    let consumer: BaseConsumer = their_config(job).create()?;
    consumer.subscribe(&[&job.topic])?;
    let until = Instant::now() + PATIENCE;
    let (mut records, mut bytes) = (0, 0);
    let mut meter = None;
    while records < job.load.records as u64 {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            ensure!(Instant::now() < until, "{records} records came in time");
            continue;
        };
        let message = message?;
        if meter.is_none() {
            meter = Some(Meter::start()?);
        }
        records += 1;
        bytes += look_at(message.key()) + look_at(message.payload());
    }
    meter.context("nothing came")?.stop(records, bytes)
}
