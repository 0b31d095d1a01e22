//! Where reading begins, and moving it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use protocol::{
    consumer::{ConsumerConfig, Event, FaultKind, OffsetReset},
    producer::{ProduceRecord, ProducerConfig},
};

use super::{
    bed::{Bed, PATIENCE, group_of, member, member_with, producer},
    reading::{Row, assigned, leave, next, rows},
    records::send_values,
};

fn values(rows: &[Row]) -> Vec<String> {
    let text = |row: &Row| String::from_utf8_lossy(row.value.as_deref().unwrap_or_default()).into_owned();
    rows.iter().map(text).collect()
}

fn expected(values: std::ops::Range<usize>) -> Vec<String> {
    values.map(|value| value.to_string()).collect()
}

pub(super) async fn earliest_begins_at_the_start_and_latest_at_the_end(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("reset", 1, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig::default())?;
    send_values(&producer, "reset", None, 0..10).await?;
    let mut earliest = member(&client, "reset-earliest", "reset");
    let mut all = assigned(&mut earliest, 1).await?;
    let latest = ConsumerConfig { offset_reset: OffsetReset::Latest, ..group_of("reset-latest", "reset") };
    let mut latest = member_with(&client, latest);
    let mut rest = assigned(&mut latest, 1).await?;
    assert_eq!(values(&rows(&mut all, 10).await?), expected(0..10));
    // The end is looked up after the assignment; more is sent until the first record arrives.
    let arrived = rows(&mut rest, 1);
    let sending = async {
        let mut sent = 10;
        loop {
            send_values(&producer, "reset", None, sent..sent + 1).await?;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = tokio::select! { rows = arrived => rows?, failed = sending => return failed };
    assert!(first[0].offset >= 10, "nothing from before: {first:?}");
    leave(earliest).await?;
    leave(latest).await
}

pub(super) async fn without_a_reset_policy_a_partition_stands_until_a_seek(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("no-reset", 1, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig::default())?;
    send_values(&producer, "no-reset", None, 0..10).await?;
    let config = ConsumerConfig { offset_reset: OffsetReset::None, ..group_of("no-resetters", "no-reset") };
    let mut consumer = member_with(&client, config);
    let mut streams = assigned(&mut consumer, 1).await?;
    match next(&mut consumer).await? {
        Event::Fault(fault) => assert_eq!(fault.kind, FaultKind::NoPosition),
        _ => bail!("a fault was expected"),
    }
    streams[0].seek(4);
    assert_eq!(values(&rows(&mut streams, 6).await?), expected(4..10));
    // Beyond the log there is no position either.
    streams[0].seek(100);
    match next(&mut consumer).await? {
        Event::Fault(fault) => assert_eq!((fault.kind, fault.offset), (FaultKind::NoPosition, Some(100))),
        _ => bail!("a fault was expected"),
    }
    leave(consumer).await
}

pub(super) async fn a_seek_goes_back_and_forward(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("sought", 1, PATIENCE).await?;
    // Batches of several records: a seek may land inside one.
    let producer = producer(&client, ProducerConfig { batch_size: 800, ..ProducerConfig::default() })?;
    send_values(&producer, "sought", None, 0..100).await?;
    let mut consumer = member(&client, "seekers", "sought");
    let mut streams = assigned(&mut consumer, 1).await?;
    assert_eq!(values(&rows(&mut streams, 100).await?), expected(0..100));
    for offset in [50usize, 3, 99, 0] {
        streams[0].seek(offset as i64);
        assert_eq!(values(&rows(&mut streams, 100 - offset).await?), expected(offset..100), "from {offset}");
    }
    leave(consumer).await
}

pub(super) async fn pause_keeps_what_was_fetched(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("paused", 1, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig::default())?;
    send_values(&producer, "paused", None, 0..10).await?;
    let mut consumer = member(&client, "pausers", "paused");
    let mut streams = assigned(&mut consumer, 1).await?;
    let first = rows(&mut streams, 1).await?;
    streams[0].pause();
    let rest = rows(&mut streams, 10 - first.len()).await?;
    assert_eq!(first.len() + rest.len(), 10);
    // A fetch that was out when it was paused may still bring what comes now; a second round finds none out.
    send_values(&producer, "paused", None, 10..11).await?;
    send_values(&producer, "paused", None, 11..12).await?;
    streams[0].resume();
    assert_eq!(values(&rows(&mut streams, 2).await?), expected(10..12), "nothing is lost, nothing comes twice");
    leave(consumer).await
}

pub(super) async fn a_time_finds_the_first_record_that_is_not_older(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("timed", 2, PATIENCE).await?;
    let producer = producer(&client, ProducerConfig::default())?;
    let topic: Arc<str> = "timed".into();
    const START: i64 = 1_700_000_000_000;
    for place in 0..10 {
        let record = ProduceRecord {
            topic: topic.clone(),
            partition: Some(0),
            value: Some(Bytes::from("v")),
            timestamp: Some(START + place * 1000),
            ..ProduceRecord::default()
        };
        let receipt = producer.send(record).await?.await?;
        assert_eq!(receipt.offset, Some(place));
    }
    for (timestamp, offset) in
        [(0, Some(0)), (START, Some(0)), (START + 1, Some(1)), (START + 9000, Some(9)), (START + 9001, None)]
    {
        let found = client.admin().offsets_since("timed", timestamp).await?;
        assert_eq!(found.get(&0), Some(&offset), "{timestamp}");
        assert_eq!(found.get(&1).context("partition 1")?, &None, "an empty partition has none");
    }
    Ok(())
}
