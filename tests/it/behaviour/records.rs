//! What goes in comes out: codecs, headers, times, acknowledgements, placement.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
    },
    protocol::StrBytes,
};
use protocol::{
    producer::{Acks, Delivery, ProduceErrorKind, ProduceRecord, Producer, ProducerConfig, Receipt},
    record::Compression,
};

use super::{
    bed::{Bed, PATIENCE, member, producer},
    reading::{Row, assigned, batches, commit, leave, rows},
};

/// Creates a topic of one partition with this configuration.
pub(super) async fn configured_topic(bed: &Bed, topic: &str, key: &'static str, value: &'static str) -> Result<()> {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str(key))
        .with_value(Some(StrBytes::from_static_str(value)));
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = bed.raw().await?.ask(7, &request).await?;
    ensure!(answer.topics.iter().all(|topic| topic.error_code == 0), "{answer:?}");
    Ok(())
}

/// Sends records of which only the value matters, one after the other as they were taken.
pub(super) async fn send_values(
    producer: &Producer,
    topic: &str,
    partition: Option<i32>,
    values: std::ops::Range<usize>,
) -> Result<Vec<Receipt>> {
    let mut deliveries: Vec<Delivery> = Vec::new();
    for value in values {
        let value = Some(Bytes::from(value.to_string()));
        let record = ProduceRecord { topic: topic.into(), partition, value, ..ProduceRecord::default() };
        deliveries.push(producer.send(record).await?);
    }
    let mut receipts = Vec::new();
    for delivery in deliveries {
        receipts.push(delivery.await?);
    }
    Ok(receipts)
}

pub(super) async fn what_is_produced_is_consumed_in_every_codec(bed: &Bed) -> Result<()> {
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        produced_is_consumed(bed, codec).await.with_context(|| codec.to_string())?;
    }
    Ok(())
}

async fn produced_is_consumed(bed: &Bed, compression: Compression) -> Result<()> {
    let topic: Arc<str> = format!("codec-{compression}").into();
    let client = bed.client();
    client.admin().create_topic(&topic, 3, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig { compression, ..ProducerConfig::default() })?;
    let (mut deliveries, mut records) = (Vec::new(), Vec::new());
    for index in 0..1000i64 {
        let key = (index % 3 != 0).then(|| format!("key-{}", index % 17).into_bytes());
        let value = (index % 10 != 0).then(|| format!("value {index} ").repeat(5).into_bytes());
        let headers =
            vec![(b"h".to_vec(), Some(vec![0xff, index as u8])), (b"h".to_vec(), None), (vec![0xfe], Some(vec![]))];
        let record = ProduceRecord {
            topic: topic.clone(),
            partition: None,
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers: headers.iter().map(|(n, v)| (n.clone().into(), v.clone().map(Into::into))).collect(),
            timestamp: Some(1_700_000_000_000 + index),
        };
        deliveries.push(producer.send(record).await?);
        records.push((1_700_000_000_000 + index, key, value, headers));
    }
    let mut sent: Vec<Row> = Vec::new();
    for (delivery, (timestamp, key, value, headers)) in deliveries.into_iter().zip(records) {
        let Receipt { partition, offset, timestamp: told } = delivery.await?;
        assert_eq!(told, timestamp);
        sent.push(Row { partition, offset: offset.context("an offset")?, timestamp, key, value, headers });
    }
    sent.sort_by_key(|row| (row.partition, row.offset));
    let group = format!("readers-of-{topic}");
    let mut consumer = member(&client, &group, &topic);
    let mut streams = assigned(&mut consumer, 3).await?;
    let read = rows(&mut streams, 1000).await?;
    assert_eq!(read, sent, "every record, in the order of its partition, with all that belongs to it");
    for stream in &mut streams {
        stream.seek(0);
    }
    let again = batches(&mut streams, 1000).await?;
    commit(&consumer.committer(), &again).await?;
    leave(consumer).await?;
    let committed = client.admin().committed(&group).await?;
    for (partition, ends) in client.admin().log_ends(&topic).await? {
        assert_eq!(committed.get(&(topic.clone(), partition)), Some(&ends.latest), "partition {partition}");
    }
    assert_eq!(producer.close(PATIENCE).await, 0);
    assert!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}

pub(super) async fn each_acks_is_written_and_only_zero_learns_no_offset(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("acks", 1, PATIENCE).await?;
    for (acks, idempotence, offsets) in [
        (Acks::All, true, Some(0..50)),
        (Acks::All, false, Some(50..100)),
        (Acks::Leader, false, Some(100..150)),
        (Acks::None, false, None),
    ] {
        let producer = producer(&client, ProducerConfig { acks, idempotence, ..ProducerConfig::default() })?;
        let receipts = send_values(&producer, "acks", None, 0..50).await?;
        let told: Vec<Option<i64>> = receipts.iter().map(|receipt| receipt.offset).collect();
        match offsets {
            Some(offsets) => assert_eq!(told, offsets.map(Some).collect::<Vec<_>>(), "{acks:?}"),
            None => assert_eq!(told, vec![None; 50], "{acks:?}"),
        }
        producer.close(PATIENCE).await;
    }
    let mut consumer = member(&client, "acks-readers", "acks");
    let read = rows(&mut assigned(&mut consumer, 1).await?, 200).await?;
    let values: Vec<String> =
        read.iter().filter_map(|row| String::from_utf8(row.value.clone().unwrap_or_default()).ok()).collect();
    let expected: Vec<String> = (0..4).flat_map(|_| (0..50).map(|value| value.to_string())).collect();
    assert_eq!(values, expected);
    leave(consumer).await
}

pub(super) async fn a_key_stays_on_its_partition_and_unkeyed_records_go_round_in_batches(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("placed", 5, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig { batch_size: 1000, ..ProducerConfig::default() })?;
    // As Java's producer places them: murmur2 of the key, modulo the partitions.
    for (key, partition) in [("a", 4), ("b", 1), ("key-1", 0), ("key-2", 2), ("0123456789", 3)] {
        for _ in 0..3 {
            let (key, value) = (Some(Bytes::from(key)), Some(Bytes::from("v")));
            let record = ProduceRecord { topic: "placed".into(), key, value, ..ProduceRecord::default() };
            assert_eq!(producer.send(record).await?.await?.partition, partition);
        }
    }
    let receipts = send_values(&producer, "placed", None, 0..10_000).await?;
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for receipt in &receipts {
        *counts.entry(receipt.partition).or_default() += 1;
    }
    let changes = receipts.windows(2).filter(|pair| pair[0].partition != pair[1].partition).count();
    assert_eq!(counts.len(), 5, "all partitions get some: {counts:?}");
    assert!(changes < 1000, "a batch is filled before the partition changes; it changed {changes} times");
    Ok(())
}

pub(super) async fn the_brokers_time_counts_where_the_topic_says_so(bed: &Bed) -> Result<()> {
    configured_topic(bed, "broker-time", "message.timestamp.type", "LogAppendTime").await?;
    let client = bed.client();
    let producer = producer(&client, ProducerConfig::default())?;
    let record = ProduceRecord {
        topic: "broker-time".into(),
        value: Some(Bytes::from("v")),
        timestamp: Some(1_000),
        ..ProduceRecord::default()
    };
    let receipt = producer.send(record).await?.await?;
    assert!(receipt.timestamp > 1_600_000_000_000, "{receipt:?}");
    let mut consumer = member(&client, "broker-time-readers", "broker-time");
    let read = rows(&mut assigned(&mut consumer, 1).await?, 1).await?;
    assert_eq!(read[0].timestamp, receipt.timestamp);
    leave(consumer).await
}

pub(super) async fn a_record_that_the_broker_finds_too_large_fails_alone(bed: &Bed) -> Result<()> {
    configured_topic(bed, "small-records", "max.message.bytes", "1000").await?;
    let client = bed.client();
    let producer = producer(&client, ProducerConfig::default())?;
    let mut deliveries = Vec::new();
    for size in [100, 5000, 200] {
        let value = Some(Bytes::from(vec![b'x'; size]));
        let record = ProduceRecord { topic: "small-records".into(), value, ..ProduceRecord::default() };
        deliveries.push(producer.send(record).await?);
    }
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.await.map(|receipt| receipt.offset).map_err(|error| error.kind));
    }
    assert_eq!(outcomes[0], Ok(Some(0)));
    assert!(matches!(outcomes[1], Err(ProduceErrorKind::TooLarge { limit: None, .. })), "{:?}", outcomes[1]);
    assert_eq!(outcomes[2], Ok(Some(1)));
    Ok(())
}
