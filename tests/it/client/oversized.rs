//! Batches and answers that are larger than limits and budgets: those that can be read are, the others are named.

use anyhow::{Result, bail};
use protocol::{
    budget::Budget,
    consumer::{ConsumerConfig, FaultKind},
    record::Compression,
};

use super::{
    consumer::{batch, fault, leave_in_peace, numbers, put, read, single},
    scene::{Scene, TOPIC},
};
use crate::support::{
    client::{PATIENCE, group_of, member, member_with, send_values},
    reading::assigned,
};

#[tokio::test(start_paused = true)]
async fn a_batch_beyond_the_fetch_limits_is_delivered_all_the_same() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let large = vec![b'x'; 300_000];
    for value in [&b"before"[..], &large, b"after"] {
        put(&scene.fake, 0, &batch(Compression::None, &[value])?)?;
    }
    let small = ConsumerConfig { max_partition_fetch_bytes: 1000, fetch_max_bytes: 1000, ..group_of("g", TOPIC) };
    let mut consumer = member_with(&scene.client, small);
    let mut streams = assigned(&mut consumer, 1).await?;
    let lengths: Vec<usize> = read(&mut streams[0], 3).await?.iter().map(|(_, value)| value.len()).collect();
    assert_eq!(lengths, [6, 300_000, 5]);
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_batch_beyond_the_budget_is_named_and_its_neighbour_goes_on() -> Result<()> {
    // Small as it comes, and too large once it is unpacked.
    let scene = Scene::new(1, 2).await?;
    let producer = single(&scene)?;
    put(&scene.fake, 0, &batch(Compression::Zstd, &[&vec![0; 4 << 20]])?)?;
    put(&scene.fake, 0, &batch(Compression::None, &[b"1"])?)?;
    let mut consumer = scene.client.consumer(group_of("g", TOPIC), Budget::new(2 << 20));
    let mut streams = assigned(&mut consumer, 2).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let [bad, good] = &mut streams[..] else { bail!("two streams") };
    let (fault, waited) = tokio::join!(fault(&mut consumer), tokio::time::timeout(PATIENCE / 2, bad.next()));
    let fault = fault?;
    assert!(waited.is_err(), "it stands");
    assert_eq!((fault.partition, fault.offset), (Some(0), Some(0)));
    assert!(matches!(fault.kind, FaultKind::BeyondBudget { limit, .. } if limit == 2 << 20), "{fault:?}");
    send_values(&producer, TOPIC, Some(1), 0..50).await?;
    assert_eq!(read(good, 50).await?, numbers(0, 0..50));
    bad.seek(1);
    assert_eq!(read(bad, 1).await?, numbers(1, 1..2));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_beyond_the_budget_is_named_and_its_neighbours_go_on() -> Result<()> {
    let scene = Scene::with(1, 6, |config| config.max_fetch_response_bytes = 200_000).await?;
    let producer = single(&scene)?;
    // The last one is too large, the one before it has something to read, and the others are idle.
    put(&scene.fake, 5, &batch(Compression::None, &[&vec![b'x'; 300_000]])?)?;
    put(&scene.fake, 5, &batch(Compression::None, &[b"1"])?)?;
    send_values(&producer, TOPIC, Some(4), 0..25).await?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 6).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let [.., good, bad] = &mut streams[..] else { bail!("six streams") };
    let fault = fault(&mut consumer).await?;
    assert_eq!((fault.partition, fault.offset), (Some(5), Some(0)));
    assert!(matches!(fault.kind, FaultKind::BeyondBudget { limit: 200_000, .. }), "{fault:?}");
    send_values(&producer, TOPIC, Some(4), 25..50).await?;
    assert_eq!(read(good, 50).await?, numbers(0, 0..50));
    bad.seek(1);
    assert_eq!(read(bad, 1).await?, numbers(1, 1..2));
    leave_in_peace(consumer).await
}
