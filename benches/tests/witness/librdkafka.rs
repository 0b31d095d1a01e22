//! librdkafka's producer and consumer.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, DeliveryResult, Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use crate::{
    support::kafka::Kafka,
    witness::{
        ours::{Logs, PATIENCE},
        samples::Sample,
    },
};

/// By the record's index its partition, or why it was not written.
#[derive(Default)]
struct Receipts(Mutex<Vec<(usize, Result<i32, KafkaError>)>>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Self::DeliveryOpaque) {
        let receipt = match result {
            Ok(message) => Ok(message.partition()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().expect("not poisoned").push((*index, receipt));
    }
}

pub(crate) fn config(kafka: &Kafka, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap_servers());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// Writes the samples in order; returns the partition of each.
pub(crate) fn write(
    kafka: &Kafka,
    settings: &[(&str, &str)],
    topic: &str,
    partition: Option<i32>,
    samples: &[Sample],
) -> Result<Vec<i32>> {
    let producer: BaseProducer<Receipts> = config(kafka, settings).create_with_context(Receipts::default())?;
    for (index, sample) in samples.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &sample.headers {
            headers = headers.insert(Header { key: std::str::from_utf8(name)?, value: value.as_deref() });
        }
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(index)).timestamp(sample.timestamp);
        record.key = sample.key.as_deref();
        record.payload = sample.value.as_deref();
        record.partition = partition;
        record.headers = (!sample.headers.is_empty()).then_some(headers);
        let record: BaseRecord<'_, [u8], [u8], Box<usize>> = record;
        if let Err((error, _)) = producer.send(record) {
            bail!("{sample:?}: {error}");
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE)?;
    let mut receipts = std::mem::take(&mut *producer.context().0.lock().expect("not poisoned"));
    receipts.sort_by_key(|(index, _)| *index);
    ensure!(receipts.len() == samples.len(), "{} receipts", receipts.len());
    receipts.into_iter().map(|(_, partition)| Ok(partition?)).collect()
}

/// Reads partition 0 of each topic from its beginning to its end.
pub(crate) fn read(kafka: &Kafka, topics: &[&str]) -> Result<Logs> {
    let settings = [("group.id", "unused"), ("enable.auto.commit", "false"), ("enable.partition.eof", "true")];
    let consumer: BaseConsumer = config(kafka, &[&settings[..], &[("check.crcs", "true")]].concat()).create()?;
    let mut partitions = TopicPartitionList::new();
    for topic in topics {
        partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (mut logs, mut ends) = (Logs::new(), 0);
    let until = Instant::now() + PATIENCE;
    while ends < topics.len() {
        ensure!(Instant::now() < until, "{ends} ends were reached");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition))) => {}
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => {
                let log = logs.entry((message.topic().to_owned(), message.partition())).or_default();
                log.push((message.offset(), sample(&message)?));
            }
        }
    }
    Ok(logs)
}

fn sample(message: &BorrowedMessage<'_>) -> Result<Sample> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Ok(Sample {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.as_bytes().to_vec(), header.value.map(<[u8]>::to_vec))).collect(),
        timestamp: message.timestamp().to_millis().context("a timestamp")?,
    })
}
