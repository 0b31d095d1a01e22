//! The consumer when things go wrong: nothing lost, nothing skipped, nothing twice, and what cannot go on is named.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use fake_broker::{ApiKey, FakeCluster, Fault as Broken, FaultOn};
use futures_util::FutureExt as _;
use kafka_protocol::messages::FetchRequest;
use protocol::{
    budget::Budget,
    consumer::{
        CommitOffset, Consumer, ConsumerConfig, Event, Fault, FaultKind, FetchedRecords, OffsetReset, PartitionStream,
    },
    error_code::ErrorCode,
    producer::{Producer, ProducerConfig},
    record::{BatchBuilder, BatchHeader, Compression, ControlType, RawBatch, control_batch},
};

use super::scene::{Scene, TOPIC};
use crate::support::{
    client::{PATIENCE, group_of, member, member_with, producer, send_values},
    reading::{assigned, batches, commit, leave, next, rows},
};

/// A producer of which every record is a batch of its own.
pub(super) fn single(scene: &Scene) -> Result<Producer> {
    producer(&scene.client, ProducerConfig { batch_size: 1, ..ProducerConfig::default() })
}

/// A topic of one node and so many partitions, its producer, and the only member of a group.
async fn open(partitions: i32) -> Result<(Scene, Producer, Consumer, Vec<PartitionStream>)> {
    let scene = Scene::new(1, partitions).await?;
    let producer = single(&scene)?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let streams = assigned(&mut consumer, usize::try_from(partitions)?).await?;
    Ok((scene, producer, consumer, streams))
}

/// Offset and value of so many records of one partition.
pub(super) async fn read(stream: &mut PartitionStream, count: usize) -> Result<Vec<(i64, String)>> {
    let rows = rows(std::slice::from_mut(stream), count).await?;
    let text = |value: Option<Vec<u8>>| anyhow::Ok(String::from_utf8(value.context("a value")?)?);
    rows.into_iter().map(|row| Ok((row.offset, text(row.value)?))).collect()
}

/// Numbers that were sent one after the other, the first of them at this offset.
pub(super) fn numbers(first_offset: i64, values: std::ops::Range<usize>) -> Vec<(i64, String)> {
    (first_offset..).zip(values).map(|(offset, value)| (offset, value.to_string())).collect()
}

/// The next event, which is to be a fault of a partition of [`TOPIC`].
pub(super) async fn fault(consumer: &mut Consumer) -> Result<Fault> {
    match next(consumer).await? {
        Event::Fault(fault) => {
            assert_eq!(fault.topic.as_deref(), Some(TOPIC));
            Ok(fault)
        }
        Event::Assigned(_) | Event::Revoking(_) | Event::Lost(_) => bail!("a change of the assignment"),
    }
}

/// Leaves the group; nothing was reported that nobody has read.
pub(super) async fn leave_in_peace(mut consumer: Consumer) -> Result<()> {
    if let Some(Some(Event::Fault(fault))) = consumer.next().now_or_never() {
        bail!("{fault:?}");
    }
    leave(consumer).await
}

/// A batch of these values.
pub(super) fn batch(compression: Compression, values: &[&[u8]]) -> Result<RawBatch> {
    let mut builder = BatchBuilder::new(compression, None, 0);
    for value in values {
        builder.append(1, None, Some(value), &[])?;
    }
    Ok(RawBatch::try_from(builder.seal()?.bytes())?)
}

pub(super) fn put(fake: &FakeCluster, partition: i32, batch: &RawBatch) -> Result<i64> {
    fake.produce_raw(TOPIC, partition, batch.bytes.clone()).map_err(|code| anyhow!("the fake refused: {code}"))
}

type SetFault = fn(FaultOn) -> Broken;

/// Whatever keeps records from us for a while.
const PASSING: [(&str, SetFault); 16] = [
    ("the answer is lost", |on| on.drop_answer()),
    ("the request is lost", |on| on.close_before()),
    ("the answer is garbage", |on| on.garbage(Bytes::from_static(&[0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]))),
    ("the answer is late", |on| on.delay(Duration::from_secs(3))),
    ("the session is unknown", |on| on.reply_error(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)),
    ("the session is elsewhere", |on| on.reply_error(ErrorCode::INVALID_FETCH_SESSION_EPOCH)),
    ("the session names topics otherwise", |on| on.reply_error(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR)),
    ("the leader is elsewhere", |on| on.reply_error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    ("the epoch is old", |on| on.reply_error(ErrorCode::FENCED_LEADER_EPOCH)),
    ("the epoch is new", |on| on.reply_error(ErrorCode::UNKNOWN_LEADER_EPOCH)),
    ("the topic is not there yet", |on| on.reply_error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
    ("its id is not there yet", |on| on.reply_error(ErrorCode::UNKNOWN_TOPIC_ID)),
    ("its id is another one", |on| on.reply_error(ErrorCode::INCONSISTENT_TOPIC_ID)),
    ("the disk is broken", |on| on.reply_error(ErrorCode::KAFKA_STORAGE_ERROR)),
    ("the replica is not there", |on| on.reply_error(ErrorCode::REPLICA_NOT_AVAILABLE)),
    ("the high watermark lags", |on| on.reply_error(ErrorCode::OFFSET_NOT_AVAILABLE)),
];

#[tokio::test(start_paused = true)]
async fn no_fault_that_passes_loses_skips_or_doubles_a_record() -> Result<()> {
    for (what, set) in PASSING {
        for times in [1, 4] {
            passing(set, times).await.with_context(|| format!("{what}, {times} times"))?;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn garbage_that_looks_like_a_size_is_no_batch_beyond_the_budget() -> Result<()> {
    for times in [1, 5] {
        passing(|on| on.garbage(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n")), times).await?;
    }
    Ok(())
}

async fn passing(set: SetFault, times: usize) -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = single(&scene)?;
    send_values(&producer, TOPIC, Some(0), 0..20).await?;
    // Before the first fetch, and in the middle of a session.
    let first = set(scene.fake.on(ApiKey::Fetch).times(times));
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 1).await?;
    let stream = streams.first_mut().context("a stream")?;
    assert_eq!(read(stream, 20).await?, numbers(0, 0..20));
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(|_| first.hits() == times)).await.context("all hits")?;
    let second = set(scene.fake.on(ApiKey::Fetch).times(times));
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(|_| second.hits() > 0)).await.context("a hit")?;
    send_values(&producer, TOPIC, Some(0), 20..40).await?;
    assert_eq!(read(stream, 20).await?, numbers(20, 20..40));
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(|_| second.hits() == times)).await.context("all hits")?;
    send_values(&producer, TOPIC, Some(0), 40..41).await?;
    assert_eq!(read(stream, 1).await?, numbers(40, 40..41));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_moves_deaths_and_faults_loses_skips_and_doubles_no_record() -> Result<()> {
    for seed in 0..20 {
        storm(seed).await.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

async fn storm(seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(3, 2).await?;
    let producer = single(&scene)?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 2).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        for stream in &mut streams {
            all.push(tokio::time::timeout(20 * PATIENCE, read(stream, 150)).await??);
        }
        anyhow::Ok((streams, all))
    });
    for step in 0..30 {
        // Node 1 stays, so that the group always has a node to go to.
        match random.u8(0..6) {
            0 | 1 => scene.fake.move_leader(TOPIC, random.i32(0..2), random.i32(1..=3))?,
            2 => {
                let node = random.i32(2..=3);
                scene.fake.kill(node).await?;
                tokio::time::sleep(Duration::from_millis(random.u64(0..2000))).await;
                scene.fake.revive(node).await?;
            }
            _ => {
                let (_, set) = PASSING[random.usize(0..PASSING.len())];
                set(scene.fake.on(ApiKey::Fetch).times(random.usize(1..4)));
            }
        }
        for partition in 0..2 {
            send_values(&producer, TOPIC, Some(partition), step * 5..step * 5 + 5).await?;
        }
    }
    scene.fake.clear_faults();
    let (streams, all) = reading.await??;
    assert_eq!(all, [numbers(0, 0..150), numbers(0, 0..150)]);
    for mut stream in streams {
        send_values(&producer, TOPIC, Some(stream.lease().partition()), 150..151).await?;
        assert_eq!(read(&mut stream, 1).await?, numbers(150, 150..151));
    }
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_a_fetch_answer_names_is_asked_without_any_metadata() -> Result<()> {
    let scene = Scene::new(3, 1).await?;
    let producer = single(&scene)?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 1).await?;
    let stream = streams.first_mut().context("a stream")?;
    send_values(&producer, TOPIC, Some(0), 0..1).await?;
    assert_eq!(read(stream, 1).await?, numbers(0, 0..1));
    let (old, _) = scene.fake.leader(TOPIC, 0).context("a leader")?;
    let new = old % 3 + 1;
    // Metadata says nothing new from here on.
    scene.fake.on(ApiKey::Metadata).always().reply_error(ErrorCode::LEADER_NOT_AVAILABLE);
    scene.fake.move_leader(TOPIC, 0, new)?;
    put(&scene.fake, 0, &batch(Compression::None, &[b"1"])?)?;
    assert_eq!(read(stream, 1).await?, numbers(1, 1..2));
    let fetches = scene.fake.requests_of::<FetchRequest>();
    assert_eq!(fetches.last().map(|(request, _)| request.node), Some(new));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_waited_for() -> Result<()> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    let stream = streams.first_mut().context("a stream")?;
    for round in 0..5 {
        send_values(&producer, TOPIC, Some(0), round..round + 1).await?;
        scene.fake.kill(1).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        scene.fake.revive(1).await?;
        assert_eq!(read(stream, 1).await?, numbers(i64::try_from(round)?, round..round + 1));
    }
    leave(consumer).await
}

/// Ten records of which the first two are committed, and a log that begins at 6.
async fn retained(reset: OffsetReset) -> Result<(Scene, Producer, Consumer, Vec<PartitionStream>)> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..10).await?;
    commit(&consumer.committer(), &batches(&mut streams, 2).await?).await?;
    leave_in_peace(consumer).await?;
    assert_eq!(scene.fake.committed("g", TOPIC, 0), Some(2));
    scene.fake.delete_records_before(TOPIC, 0, 6)?;
    let config = ConsumerConfig { offset_reset: reset, ..group_of("g", TOPIC) };
    let mut consumer = member_with(&scene.client, config);
    let streams = assigned(&mut consumer, 1).await?;
    Ok((scene, producer, consumer, streams))
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_retention_took_is_reset_to_the_earliest() -> Result<()> {
    let (.., consumer, mut streams) = retained(OffsetReset::Earliest).await?;
    assert_eq!(read(streams.first_mut().context("a stream")?, 4).await?, numbers(6, 6..10));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_retention_took_is_reset_to_the_latest() -> Result<()> {
    let (scene, producer, consumer, mut streams) = retained(OffsetReset::Latest).await?;
    let asked_at_the_end = |fake: &FakeCluster| {
        let fetches = fake.requests_of::<FetchRequest>();
        let mut partitions = fetches.iter().flat_map(|(_, fetch)| &fetch.topics).flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.fetch_offset == 10)
    };
    // The first member got to the end as well.
    scene.fake.forget_requests();
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(asked_at_the_end)).await?;
    send_values(&producer, TOPIC, Some(0), 10..11).await?;
    assert_eq!(read(streams.first_mut().context("a stream")?, 1).await?, numbers(10, 10..11));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_retention_took_stands_if_there_is_no_reset() -> Result<()> {
    let (.., mut consumer, mut streams) = retained(OffsetReset::None).await?;
    let fault = fault(&mut consumer).await?;
    assert_eq!((fault.partition, fault.offset, fault.kind), (Some(0), Some(2), FaultKind::NoPosition));
    let stream = streams.first_mut().context("a stream")?;
    let waited = tokio::time::timeout(PATIENCE, stream.next()).await;
    assert!(waited.is_err(), "it stands");
    stream.seek(7);
    assert_eq!(read(stream, 3).await?, numbers(7, 7..10));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_group_without_an_offset_stands_if_there_is_no_reset() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let config = ConsumerConfig { offset_reset: OffsetReset::None, ..group_of("g", TOPIC) };
    let mut consumer = member_with(&scene.client, config);
    let streams = assigned(&mut consumer, 1).await?;
    let fault = fault(&mut consumer).await?;
    assert_eq!((fault.partition, fault.offset, fault.kind), (Some(0), None, FaultKind::NoPosition));
    drop(streams);
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_truncated_is_told_and_read_and_committed_from_its_end_on() -> Result<()> {
    let (scene, producer, mut consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..10).await?;
    let committer = consumer.committer();
    commit(&committer, &batches(&mut streams, 10).await?).await?;
    scene.fake.truncate(TOPIC, 0, 6)?;
    let fault = fault(&mut consumer).await?;
    assert_eq!((fault.partition, fault.offset), (Some(0), Some(10)));
    assert_eq!(fault.kind, FaultKind::Truncated { position: 10, end: 6 });
    put(&scene.fake, 0, &batch(Compression::None, &[b"a", b"b"])?)?;
    let again = batches(&mut streams, 2).await?;
    // First where reading goes on, then the records.
    assert_eq!(
        again.iter().map(|records| (records.position, records.next_offset)).collect::<Vec<_>>(),
        [(6, 6), (6, 8)]
    );
    // The group's offset goes back with the log, or a restart would skip what is written now.
    commit(&committer, &again).await?;
    assert_eq!(scene.fake.committed("g", TOPIC, 0), Some(8));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_committed_offset_of_a_log_that_was_truncated_is_told_and_read_from_its_end_on() -> Result<()> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..10).await?;
    commit(&consumer.committer(), &batches(&mut streams, 10).await?).await?;
    leave_in_peace(consumer).await?;
    scene.fake.truncate(TOPIC, 0, 6)?;
    // Beyond the old end by now: only the epochs tell.
    for value in [&b"6"[..], b"7", b"8", b"9", b"10", b"11"] {
        put(&scene.fake, 0, &batch(Compression::None, &[value])?)?;
    }
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 1).await?;
    let fault = fault(&mut consumer).await?;
    assert_eq!((fault.offset, fault.kind), (Some(10), FaultKind::Truncated { position: 10, end: 6 }));
    assert_eq!(read(streams.first_mut().context("a stream")?, 6).await?, numbers(6, 6..12));
    leave_in_peace(consumer).await
}

/// Something unreadable at offset 2 of partition 0: told, and passed only by a seek; partition 1 goes on.
async fn stands_before(unreadable: &[u8], told: &str) -> Result<()> {
    let (scene, producer, mut consumer, mut streams) = open(2).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let [bad, good] = &mut streams[..] else { bail!("two streams") };
    send_values(&producer, TOPIC, Some(0), 0..2).await?;
    assert_eq!(scene.fake.plant(TOPIC, 0, unreadable)?, 2);
    put(&scene.fake, 0, &batch(Compression::None, &[b"3"])?)?;
    assert_eq!(read(bad, 2).await?, numbers(0, 0..2));
    let (fault, waited) = tokio::join!(fault(&mut consumer), tokio::time::timeout(PATIENCE / 2, bad.next()));
    let fault = fault?;
    assert!(waited.is_err(), "it stands");
    assert_eq!((fault.partition, fault.offset), (Some(0), Some(2)));
    match &fault.kind {
        FaultKind::CorruptBatch(text) => assert!(text.contains(told), "{text}"),
        other => bail!("{other:?}"),
    }
    send_values(&producer, TOPIC, Some(1), 0..50).await?;
    assert_eq!(read(good, 50).await?, numbers(0, 0..50));
    bad.seek(3);
    assert_eq!(read(bad, 1).await?, numbers(3, 3..4));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_is_named_and_its_neighbour_goes_on() -> Result<()> {
    for compression in [Compression::None, Compression::Lz4] {
        let mut bytes = batch(compression, &[b"broken"])?.bytes.to_vec();
        *bytes.last_mut().context("a byte")? ^= 1;
        stands_before(&bytes, "offset 2").await?;
    }
    // The checksum is right, and what it covers cannot be read.
    let whole = batch(Compression::None, &[b"broken"])?;
    let cut = whole.payload().slice(..5);
    stands_before(&RawBatch::assemble(whole.header, &cut)?.bytes, "offset 2").await?;
    let no_frame = BatchHeader { attributes: 3, ..whole.header };
    stands_before(&RawBatch::assemble(no_frame, &whole.payload())?.bytes, "offset 2").await
}

#[tokio::test(start_paused = true)]
async fn a_message_of_an_old_format_is_named_and_its_neighbour_goes_on() -> Result<()> {
    for magic in [0, 1] {
        // Offset, length, checksum, magic, attributes, (timestamp,) no key, a value of one byte.
        let timestamp = if magic == 1 { &[0; 8][..] } else { &[] };
        let after_length = [&[0; 4][..], &[magic, 0], timestamp, &[0xff; 4], &[0, 0, 0, 1, b'v']].concat();
        let length = u32::try_from(after_length.len())?.to_be_bytes();
        let message = [&[0; 8][..], &length, &after_length].concat();
        stands_before(&message, &format!("format {magic}")).await.with_context(|| format!("magic {magic}"))?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_and_reading_goes_on_when_rights_are_granted() -> Result<()> {
    let (scene, producer, mut consumer, mut streams) = open(1).await?;
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    scene.fake.set_partition_error(TOPIC, 0, Some(code))?;
    let fault = fault(&mut consumer).await?;
    assert!(matches!(fault.kind, FaultKind::Broker { code: told, .. } if told == code), "{fault:?}");
    let again = tokio::time::timeout(PATIENCE, consumer.next()).await;
    assert!(again.is_err(), "told once");
    scene.fake.set_partition_error(TOPIC, 0, None)?;
    send_values(&producer, TOPIC, Some(0), 0..5).await?;
    assert_eq!(read(streams.first_mut().context("a stream")?, 5).await?, numbers(0, 0..5));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_is_read_from_where_the_reset_policy_says() -> Result<()> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..10).await?;
    let committer = consumer.committer();
    commit(&committer, &batches(&mut streams, 10).await?).await?;
    scene.fake.delete_topic(TOPIC)?;
    scene.fake.create_topic(TOPIC, 1).map_err(|code| anyhow!("{code}"))?;
    for value in [&b"0"[..], b"1", b"2"] {
        put(&scene.fake, 0, &batch(Compression::None, &[value])?)?;
    }
    let anew = batches(&mut streams, 3).await?;
    let offsets: Vec<i64> = anew.iter().flat_map(|records| records.iter().map(|record| record.offset)).collect();
    assert_eq!(offsets, [0, 1, 2]);
    commit(&committer, &anew).await?;
    assert_eq!(scene.fake.committed("g", TOPIC, 0), Some(3));
    leave_in_peace(consumer).await
}

/// Ten records that were read and not committed, and a topic of that name with three others.
async fn made_anew() -> Result<(Scene, Consumer, PartitionStream, Vec<CommitOffset>)> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..10).await?;
    let old = batches(&mut streams, 10).await?.iter().map(FetchedRecords::end).collect();
    scene.fake.delete_topic(TOPIC)?;
    scene.fake.create_topic(TOPIC, 1).map_err(|code| anyhow!("{code}"))?;
    for value in [&b"0"[..], b"1", b"2"] {
        put(&scene.fake, 0, &batch(Compression::None, &[value])?)?;
    }
    Ok((scene, consumer, streams.pop().context("a stream")?, old))
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_when_its_topic_was_made_anew_is_committed_no_more() -> Result<()> {
    let (scene, consumer, mut stream, old) = made_anew().await?;
    let committer = consumer.committer();
    let begins = stream.next().await.context("the beginning")?;
    assert_eq!((begins.position, begins.next_offset, begins.rewinds, begins.iter().count()), (0, 0, 1, 0));
    for late in old {
        assert!(committer.commit(vec![late]).await.is_err());
    }
    assert_eq!(scene.fake.committed("g", TOPIC, 0), None);
    let anew = batches(std::slice::from_mut(&mut stream), 3).await?;
    assert!(anew.iter().all(|records| records.rewinds == 1));
    commit(&committer, &anew).await?;
    assert_eq!(scene.fake.committed("g", TOPIC, 0), Some(3));
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_seek_in_a_log_that_is_gone_skips_nothing_of_the_new_one() -> Result<()> {
    let (scene, consumer, mut stream, _) = made_anew().await?;
    let read_to_the_end = |fake: &FakeCluster| {
        let id = fake.topic_id(TOPIC);
        let fetches = fake.requests_of::<FetchRequest>();
        let mut topics = fetches.iter().flat_map(|(_, fetch)| &fetch.topics).filter(|topic| Some(topic.topic_id) == id);
        topics.any(|topic| topic.partitions.iter().any(|partition| partition.fetch_offset == 3))
    };
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(read_to_the_end)).await?;
    stream.seek(2);
    assert_eq!(read(&mut stream, 3).await?, numbers(0, 0..3));
    stream.seek(2);
    let again = batches(std::slice::from_mut(&mut stream), 1).await?;
    // A seek back in the log that is read counts as another one.
    let seen: Vec<_> = again.iter().map(|records| (records.position, records.next_offset, records.rewinds)).collect();
    assert_eq!(seen, [(2, 2, 2), (2, 3, 2)]);
    commit(&consumer.committer(), &again).await?;
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_stands_goes_on_when_its_topic_is_made_anew() -> Result<()> {
    // What stops the fetcher, and what stops the stream.
    for compression in [Compression::None, Compression::Lz4] {
        let (scene, producer, mut consumer, mut streams) = open(1).await?;
        let stream = streams.first_mut().context("a stream")?;
        send_values(&producer, TOPIC, Some(0), 0..5).await?;
        let whole = batch(compression, &[b"broken"])?;
        let broken = match compression {
            Compression::None => RawBatch::assemble(BatchHeader { magic: 1, ..whole.header }, &whole.payload())?,
            _ => RawBatch::assemble(whole.header, &whole.payload().slice(..5))?,
        };
        scene.fake.plant(TOPIC, 0, &broken.bytes)?;
        put(&scene.fake, 0, &batch(Compression::None, &[b"6"])?)?;
        assert_eq!(read(stream, 5).await?, numbers(0, 0..5));
        let (told, waited) = tokio::join!(fault(&mut consumer), tokio::time::timeout(PATIENCE / 2, stream.next()));
        assert!(told?.kind.stands() && waited.is_err(), "it stands");
        scene.fake.delete_topic(TOPIC)?;
        scene.fake.create_topic(TOPIC, 1).map_err(|code| anyhow!("{code}"))?;
        put(&scene.fake, 0, &batch(Compression::None, &[b"0", b"1"])?)?;
        scene.client.cluster().refresh().await;
        let anew = batches(&mut streams, 2).await?;
        let seen: Vec<_> =
            anew.iter().map(|records| (records.position, records.next_offset, records.rewinds)).collect();
        assert_eq!(seen, [(0, 0, 1), (0, 2, 1)]);
        leave_in_peace(consumer).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_added_are_read_from_their_first_record_on() -> Result<()> {
    let (scene, producer, mut consumer, mut streams) = open(1).await?;
    send_values(&producer, TOPIC, Some(0), 0..5).await?;
    scene.fake.add_partitions(TOPIC, 2).map_err(|code| anyhow!("{code}"))?;
    for partition in [1, 2] {
        put(&scene.fake, partition, &batch(Compression::None, &[b"0", b"1"])?)?;
    }
    scene.client.cluster().refresh().await;
    streams.extend(assigned(&mut consumer, 2).await?);
    streams.sort_by_key(|stream| stream.lease().partition());
    let [old, added @ ..] = &mut streams[..] else { bail!("streams") };
    assert_eq!(read(old, 5).await?, numbers(0, 0..5));
    for stream in added {
        assert_eq!(read(stream, 2).await?, numbers(0, 0..2));
    }
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn of_transactions_only_what_was_committed_is_read() -> Result<()> {
    let (scene, _, consumer, mut streams) = open(1).await?;
    let stream = streams.first_mut().context("a stream")?;
    let data = |producer_id: i64, values: &[&[u8]]| {
        let mut builder = BatchBuilder::new(Compression::None, None, 0).transactional(true);
        for value in values {
            builder.append(1, None, Some(value), &[])?;
        }
        let mut sealed = builder.seal()?;
        sealed.stamp(producer_id, 0, 0);
        anyhow::Ok(scene.fake.plant(TOPIC, 0, &sealed.bytes())?)
    };
    let end = |producer_id: i64, kind: ControlType| {
        anyhow::Ok(scene.fake.plant(TOPIC, 0, &control_batch(kind, 0, 1, producer_id, 0, 0)?.bytes)?)
    };
    let expected = |offset: i64, value: &str| (offset, value.to_owned());
    data(1, &[b"aborted", b"aborted"])?; // 0, 1
    data(2, &[b"committed"])?; // 2
    put(&scene.fake, 0, &batch(Compression::None, &[b"plain"])?)?; // 3
    end(2, ControlType::Commit)?; // 4
    // The transaction of 1 is still open: nothing behind its beginning is stable.
    let early = tokio::time::timeout(PATIENCE, stream.next()).await;
    assert!(early.is_err(), "nothing is to be seen before the end of a transaction");
    data(1, &[b"aborted"])?; // 5
    end(1, ControlType::Abort)?; // 6
    data(1, &[b"after"])?; // 7
    assert_eq!(read(stream, 2).await?, [expected(2, "committed"), expected(3, "plain")]);
    end(1, ControlType::Commit)?; // 8
    assert_eq!(read(stream, 1).await?, [expected(7, "after")]);
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_does_not_stop_its_neighbours() -> Result<()> {
    let scene = Scene::new(1, 2).await?;
    let producer = single(&scene)?;
    // More than the whole budget.
    let large = batch(Compression::None, &[&vec![b'x'; 50_000]])?;
    for _ in 0..80 {
        put(&scene.fake, 0, &large)?;
    }
    let mut consumer = scene.client.consumer(group_of("g", TOPIC), Budget::new(2 << 20));
    let mut streams = assigned(&mut consumer, 2).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let [unread, read_on] = &mut streams[..] else { bail!("two streams") };
    for round in 0..20 {
        send_values(&producer, TOPIC, Some(1), round * 10..round * 10 + 10).await?;
        let first = i64::try_from(round * 10)?;
        assert_eq!(read(read_on, 10).await?, numbers(first, round * 10..round * 10 + 10));
    }
    for late in 0..80 {
        let record = read(unread, 1).await?;
        assert_eq!(record.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [late]);
    }
    leave_in_peace(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_throttles_is_left_alone_for_so_long() -> Result<()> {
    let (scene, producer, consumer, mut streams) = open(1).await?;
    let stream = streams.first_mut().context("a stream")?;
    let throttle = Duration::from_secs(5);
    let throttled = scene.fake.on(ApiKey::Fetch).throttle(throttle);
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(|_| throttled.hits() == 1)).await?;
    let number = scene.fake.requests_of::<FetchRequest>().last().context("a fetch")?.0.number;
    send_values(&producer, TOPIC, Some(0), 0..5).await?;
    assert_eq!(read(stream, 5).await?, numbers(0, 0..5));
    send_values(&producer, TOPIC, Some(0), 5..6).await?;
    assert_eq!(read(stream, 1).await?, numbers(5, 5..6));
    let requests = scene.fake.requests();
    let first = requests.iter().find(|request| request.number == number).context("the throttled one")?;
    let end = first.answered.context("an answer")? + throttle;
    let mut after = requests.iter().filter(|request| request.api == ApiKey::Fetch && request.number > number);
    let next = after.find(|request| request.connection == first.connection).context("the next fetch")?;
    assert!(next.at >= end, "{:?} too early", end - next.at);
    leave_in_peace(consumer).await
}
