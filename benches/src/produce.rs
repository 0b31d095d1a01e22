//! Producers: how fast, for how much CPU, with how many allocations. Every record's outcome is looked at, on both sides.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use futures_util::FutureExt as _;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    producer::{Delivery, ProduceRecord, Producer, ProducerConfig},
    record::Compression,
};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use crate::{
    child::{self, Job, Work},
    meter::{Measured, Meter},
    record::Records,
    report, round,
    settings::{Settings, Side},
    topic::Topics,
};

/// Records before the measured ones: they pay for connections, metadata and the producer id.
const WARM: usize = 10_000;
/// After so many records it is looked which outcomes have come.
const LOOK_EVERY: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(120);

/// The sub-command.
pub(crate) fn compare(settings: &Settings) -> Result<()> {
    let (bootstrap, _broker) = settings.broker()?;
    let topics = Topics::new(&bootstrap)?;
    for load in &settings.loads {
        for codec in &settings.codecs {
            let mut number = 0;
            let measured = round::alternate(settings, |side| {
                number += 1;
                let topic = format!("produce-{load}-{}-{number}", codec.0.name());
                topics.make(&topic, settings.partitions)?;
                let job = Job {
                    work: Work::Produce,
                    side,
                    bootstrap: bootstrap.clone(),
                    topic: topic.clone(),
                    load: *load,
                    codec: *codec,
                    settings: settings.clone(),
                };
                let measured = job.measure::<Measured>()?;
                topics.remove(&topic)?;
                Ok(measured)
            })?;
            report::print(&format!("produce, values of {} B, {}", load.bytes, codec.0), &measured);
        }
    }
    Ok(())
}

/// In the child.
pub(crate) fn run(job: &Job) -> Result<Measured> {
    let records = Records::new(job.settings.keys, job.load.bytes);
    match job.side {
        Side::Ours => child::runtime(&job.settings)?.block_on(ours(job, &records)),
        Side::Theirs => theirs(job, &records),
    }
}

/// Our client, as both halves of the comparison open it.
pub(crate) fn client(bootstrap: &str) -> Result<Client> {
    let mut addresses = Vec::new();
    for address in bootstrap.split(',') {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| anyhow::anyhow!("{address} has no port"))?;
        addresses.push((host.to_owned(), port.parse()?));
    }
    Ok(Client::new(ClusterConfig::new(addresses)))
}

pub(crate) fn our_config(job: &Job) -> ProducerConfig {
    ProducerConfig {
        linger: job.settings.linger(),
        batch_size: job.settings.batch_size,
        compression: job.codec.0,
        ..ProducerConfig::default()
    }
}

async fn ours(job: &Job, records: &Records) -> Result<Measured> {
    let client = client(&job.bootstrap)?;
    let producer = client.producer(our_config(job), Budget::new(job.settings.memory))?;
    let topic: Arc<str> = job.topic.as_str().into();
    send_ours(&producer, &topic, records, 0..WARM).await?;
    let meter = Meter::start()?;
    let bytes = send_ours(&producer, &topic, records, WARM..WARM + job.load.records).await?;
    let measured = meter.stop(job.load.records as u64, bytes)?;
    ensure!(producer.close(PATIENCE).await == 0 && client.close(PATIENCE).await, "the client did not end");
    Ok(measured)
}

/// Sends those records and looks at every outcome; returns the bytes of their keys and values.
pub(crate) async fn send_ours(
    producer: &Producer,
    topic: &Arc<str>,
    records: &Records,
    range: Range<usize>,
) -> Result<u64> {
    let mut open: VecDeque<Delivery> = VecDeque::new();
    let mut bytes = 0;
    for index in range {
        let (key, value) = records.get(index);
        bytes += (key.map_or(0, |key| key.len()) + value.len()) as u64;
        let record = ProduceRecord {
            topic: topic.clone(),
            partition: None,
            key: key.cloned(),
            value: Some(value.clone()),
            headers: Vec::new(),
            timestamp: None,
        };
        open.push_back(producer.send(record).await?);
        if index % LOOK_EVERY == 0 {
            while let Some(outcome) = open.front_mut().and_then(|delivery| delivery.now_or_never()) {
                outcome?;
                open.pop_front();
            }
        }
    }
    for delivery in open {
        delivery.await?;
    }
    Ok(bytes)
}

/// librdkafka's settings for the same work.
pub(crate) fn their_config(job: &Job) -> ClientConfig {
    let settings = &job.settings;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", "5")
        .set("linger.ms", settings.linger_ms.to_string())
        .set("batch.size", settings.batch_size.to_string())
        // Only the size seals a batch, as on our side.
        .set("batch.num.messages", "1000000")
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", (settings.memory / 1024).to_string())
        .set("compression.type", job.codec.0.name())
        .set("partitioner", "murmur2_random");
    if job.codec.0 == Compression::Zstd {
        // Ours; its own default is 3, which costs more.
        config.set("compression.level", "1");
    }
    settings.their(config)
}

#[derive(Default)]
struct Outcomes {
    written: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Outcomes {}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.written } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn theirs(job: &Job, records: &Records) -> Result<Measured> {
    let producer: BaseProducer<Outcomes> = their_config(job).create_with_context(Outcomes::default())?;
    send_theirs(&producer, &job.topic, records, 0..WARM)?;
    let meter = Meter::start()?;
    let bytes = send_theirs(&producer, &job.topic, records, WARM..WARM + job.load.records)?;
    let measured = meter.stop(job.load.records as u64, bytes)?;
    let outcomes = producer.context();
    let (written, failed) = (outcomes.written.load(Ordering::Relaxed), outcomes.failed.load(Ordering::Relaxed));
    ensure!(failed == 0 && written == (WARM + job.load.records) as u64, "{written} written, {failed} failed");
    Ok(measured)
}

fn send_theirs(producer: &BaseProducer<Outcomes>, topic: &str, records: &Records, range: Range<usize>) -> Result<u64> {
    let mut bytes = 0;
    for index in range {
        let (key, value) = records.get(index);
        bytes += (key.map_or(0, |key| key.len()) + value.len()) as u64;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(value);
        if let Some(key) = key {
            record = record.key(key);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    producer.poll(Duration::from_millis(10));
                    record = again;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        if index % LOOK_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    Ok(bytes)
}
