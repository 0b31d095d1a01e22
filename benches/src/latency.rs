//! Latencies of both clients at a steady rate, from the time a record was due, not from when it could be sent: a client that
//! holds its caller up is charged for it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use protocol::{budget::Budget, consumer::Event, producer::ProduceRecord};
use rdkafka::{
    ClientContext, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use serde::{Deserialize, Serialize};

use crate::{
    child::{self, Job, Work},
    consume, produce, report, round,
    settings::{Settings, Side},
    topic::Topics,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A steady stream of records.
#[derive(Debug, Clone, Copy, Args, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Records per second
    #[arg(long, default_value_t = 1000)]
    pub(crate) rate: u32,
    /// How long it is measured
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u32,
    /// How long it runs before
    #[arg(long, default_value_t = 3)]
    pub(crate) warm_seconds: u32,
}

impl Pace {
    pub(crate) fn warm(self) -> usize {
        (self.rate * self.warm_seconds) as usize
    }

    pub(crate) fn records(self) -> usize {
        (self.rate * (self.warm_seconds + self.seconds)) as usize
    }

    /// Calls `send` for each record at its time, with its index and how long after `start` it was due.
    pub(crate) fn keep(self, start: Instant, mut send: impl FnMut(usize, Duration) -> Result<()>) -> Result<()> {
        for index in 0..self.records() {
            let due = Duration::from_nanos(index as u64 * 1_000_000_000 / u64::from(self.rate));
            if let Some(early) = due.checked_sub(start.elapsed()) {
                std::thread::sleep(early);
            }
            send(index, due)?;
        }
        Ok(())
    }
}

/// Histograms as pairs of microseconds and count.
#[derive(Serialize, Deserialize)]
pub(crate) struct Latencies {
    acknowledged: Vec<(u64, u64)>,
    consumed: Vec<(u64, u64)>,
}

/// The sub-command.
pub(crate) fn compare(settings: &Settings, pace: Pace) -> Result<()> {
    let (bootstrap, _broker) = settings.broker()?;
    let topics = Topics::new(&bootstrap)?;
    for load in &settings.loads {
        for codec in &settings.codecs {
            let topic = format!("latency-{load}-{}", codec.0.name());
            topics.make(&topic, settings.partitions)?;
            let measured = round::alternate(settings, |side| {
                let job = Job {
                    work: Work::Latency(pace),
                    side,
                    bootstrap: bootstrap.clone(),
                    topic: topic.clone(),
                    load: *load,
                    codec: *codec,
                    settings: settings.clone(),
                };
                job.measure::<Latencies>()
            })?;
            let (rate, linger) = (pace.rate, settings.linger_ms);
            println!("\n### latency, values of {} B, {}, {rate}/s, linger {linger} ms\n", load.bytes, codec.0);
            println!("{}", report::LATENCY_HEAD);
            for (side, rounds) in [Side::Ours, Side::Theirs].into_iter().zip(&measured) {
                let row = |what: &str, of: fn(&Latencies) -> &Vec<(u64, u64)>| -> Result<()> {
                    let mut all = report::histogram();
                    for (value, count) in rounds.iter().flat_map(of) {
                        all.record_n(*value, *count)?;
                    }
                    println!("{}", report::latency_row(&format!("{}: due to {what}", side.name()), &all));
                    Ok(())
                };
                row("acknowledged", |latencies| &latencies.acknowledged)?;
                row("consumed", |latencies| &latencies.consumed)?;
            }
            topics.remove(&topic)?;
        }
    }
    Ok(())
}

/// In the child.
pub(crate) fn run(job: &Job, pace: Pace) -> Result<Latencies> {
    let clock = Arc::new(Clock::new(pace));
    match job.side {
        Side::Ours => ours(job, pace, &clock)?,
        Side::Theirs => theirs(job, pace, &clock)?,
    }
    let pairs = |histogram: &Mutex<Histogram<u64>>| {
        let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    };
    Ok(Latencies { acknowledged: pairs(&clock.acknowledged), consumed: pairs(&clock.consumed) })
}

/// When records were due, and when they were there.
struct Clock {
    pace: Pace,
    start: Mutex<Instant>,
    acknowledged: Mutex<Histogram<u64>>,
    consumed: Mutex<Histogram<u64>>,
    arrived: AtomicUsize,
}

/// A record's index, which its value begins with.
const INDEX_BYTES: usize = 8;

impl Clock {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            start: Mutex::new(Instant::now()),
            acknowledged: Mutex::new(report::histogram()),
            consumed: Mutex::new(report::histogram()),
            arrived: AtomicUsize::new(0),
        }
    }

    fn begin(&self) -> Instant {
        let now = Instant::now();
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = now;
        now
    }

    fn take(&self, histogram: &Mutex<Histogram<u64>>, index: usize) {
        let start = *self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let due = Duration::from_nanos(index as u64 * 1_000_000_000 / u64::from(self.pace.rate));
        if index >= self.pace.warm() {
            let late = start.elapsed().saturating_sub(due);
            let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        }
    }

    fn acknowledged(&self, index: usize) {
        self.take(&self.acknowledged, index);
    }

    fn consumed(&self, value: &[u8]) {
        if let Some(index) = value.first_chunk::<INDEX_BYTES>() {
            self.take(&self.consumed, u64::from_be_bytes(*index) as usize);
            self.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every record was consumed.
    fn wait(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.arrived.load(Ordering::Relaxed) < self.pace.records() {
            ensure!(Instant::now() < until, "not every record was consumed");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn value(job: &Job, index: usize) -> Vec<u8> {
    let mut value = vec![b'x'; job.load.bytes.max(INDEX_BYTES)];
    value[..INDEX_BYTES].copy_from_slice(&(index as u64).to_be_bytes());
    value
}

fn key(job: &Job, index: usize) -> Option<String> {
    (job.settings.keys > 0).then(|| format!("key-{:06}", index % job.settings.keys))
}

fn ours(job: &Job, pace: Pace, clock: &Arc<Clock>) -> Result<()> {
    let runtime = child::runtime(&job.settings)?;
    let _inside = runtime.enter();
    let client = produce::client(&job.bootstrap)?;
    let budget = || Budget::new(job.settings.memory);
    let producer = client.producer(produce::our_config(job), budget())?;
    // Only what this child sends is read.
    let config = protocol::consumer::ConsumerConfig {
        offset_reset: protocol::consumer::OffsetReset::Latest,
        ..consume::our_config(job)
    };
    let mut consumer = client.consumer(config, budget());
    let streams = runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.context("not assigned in time")? {
            Some(Event::Assigned(streams)) => Ok(streams),
            _ => bail!("something else came before an assignment"),
        }
    })?;
    ensure!(streams.len() == job.settings.partitions, "{} partitions were assigned", streams.len());
    for mut stream in streams {
        let clock = clock.clone();
        runtime.spawn(async move {
            while let Some(batch) = stream.next().await {
                for record in batch.iter() {
                    clock.consumed(record.value.unwrap_or_default());
                }
            }
        });
    }
    settle();
    let failed = Arc::new(AtomicBool::new(false));
    let topic: Arc<str> = job.topic.as_str().into();
    pace.keep(clock.begin(), |index, _| {
        let record = ProduceRecord {
            topic: topic.clone(),
            key: key(job, index).map(Into::into),
            value: Some(value(job, index).into()),
            ..ProduceRecord::default()
        };
        let delivery = runtime.block_on(producer.send(record))?;
        let (clock, failed) = (clock.clone(), failed.clone());
        runtime.spawn(async move {
            match delivery.await {
                Ok(_) => clock.acknowledged(index),
                Err(_) => failed.store(true, Ordering::Relaxed),
            }
        });
        Ok(())
    })?;
    clock.wait()?;
    ensure!(!failed.load(Ordering::Relaxed), "a record was not written");
    Ok(())
}

/// "Latest" is looked up after the assignment: a record sent before that would never be seen.
fn settle() {
    std::thread::sleep(Duration::from_secs(1));
}

struct Acknowledgements {
    clock: Arc<Clock>,
    failed: AtomicBool,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        match result {
            Ok(_) => self.clock.acknowledged(*index),
            Err(_) => self.failed.store(true, Ordering::Relaxed),
        }
    }
}

fn theirs(job: &Job, pace: Pace, clock: &Arc<Clock>) -> Result<()> {
    let context = Acknowledgements { clock: clock.clone(), failed: AtomicBool::new(false) };
    let producer: ThreadedProducer<Acknowledgements> = produce::their_config(job).create_with_context(context)?;
    let consumer: BaseConsumer = consume::their_config(job).set("auto.offset.reset", "latest").create()?;
    consumer.subscribe(&[&job.topic])?;
    let until = Instant::now() + PATIENCE;
    while consumer.assignment()?.count() < job.settings.partitions {
        ensure!(Instant::now() < until, "not assigned in time");
        ensure!(consumer.poll(Duration::from_millis(50)).is_none(), "something came before anything was sent");
    }
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            while !end.load(Ordering::Relaxed) {
                if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                    clock.consumed(message?.payload().unwrap_or_default());
                }
            }
            Ok(())
        });
        settle();
        let kept = pace.keep(clock.begin(), |index, _| {
            let (key, value) = (key(job, index), value(job, index));
            let mut record =
                BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(&job.topic, Box::new(index)).payload(&value);
            if let Some(key) = &key {
                record = record.key(key.as_bytes());
            }
            producer.send(record).map_err(|(error, _)| error.into())
        });
        let waited = kept.and_then(|()| clock.wait());
        end.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        waited.and(read)
    })?;
    producer.flush(PATIENCE)?;
    ensure!(!producer.context().failed.load(Ordering::Relaxed), "a record was not written");
    Ok(())
}
