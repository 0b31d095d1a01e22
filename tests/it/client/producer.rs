//! The producer when things go wrong: nothing lost, nothing twice, order kept, and every record told its end.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use fake_broker::{ApiKey, FakeCluster, Fault, FaultOn};
use kafka_protocol::messages::MetadataRequest;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    error_code::ErrorCode,
    outcome::Outcome,
    producer::{Acks, ProduceError, ProduceErrorKind, ProduceRecord, Producer, ProducerConfig},
};

use super::scene::{Scene, TOPIC};
use crate::support::client::{PATIENCE, producer, send_values};

fn record(value: usize) -> ProduceRecord {
    ProduceRecord { topic: TOPIC.into(), value: Some(Bytes::from(value.to_string())), ..ProduceRecord::default() }
}

/// Every record is a batch of its own.
fn single() -> ProducerConfig {
    ProducerConfig { batch_size: 1, ..ProducerConfig::default() }
}

/// A record that is sent and fails: by what, and whether it may have been written.
async fn failure(producer: &Producer, value: usize) -> Result<(ProduceErrorKind, Outcome)> {
    let outcome = match producer.send(record(value)).await {
        Ok(delivery) => delivery.await,
        Err(error) => Err(error),
    };
    let ProduceError { kind, outcome, .. } = outcome.err().context("it was written")?;
    Ok((kind, outcome))
}

fn kafka(code: ErrorCode) -> anyhow::Error {
    anyhow!("the fake refused: {code}")
}

type SetFault = fn(FaultOn) -> Fault;

/// Whatever leaves a batch unwritten, or in doubt, for a while.
const PASSING: [(&str, SetFault); 13] = [
    ("the answer is lost", |on| on.drop_answer()),
    ("the request is lost", |on| on.close_before()),
    ("the answer is garbage", |on| on.garbage(Bytes::from_static(&[0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]))),
    ("the leader is elsewhere", |on| on.reply_error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    ("there is no leader", |on| on.reply_error(ErrorCode::LEADER_NOT_AVAILABLE)),
    ("the epoch is old", |on| on.reply_error(ErrorCode::FENCED_LEADER_EPOCH)),
    ("the topic is not there yet", |on| on.reply_error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
    ("its id is not there yet", |on| on.reply_error(ErrorCode::UNKNOWN_TOPIC_ID)),
    ("the disk is broken", |on| on.reply_error(ErrorCode::KAFKA_STORAGE_ERROR)),
    ("replicas are missing", |on| on.reply_error(ErrorCode::NOT_ENOUGH_REPLICAS)),
    ("replication takes too long", |on| on.reply_error(ErrorCode::REQUEST_TIMED_OUT)),
    ("the batch was damaged on its way", |on| on.reply_error(ErrorCode::CORRUPT_MESSAGE)),
    ("the producer is forgotten", |on| on.reply_error(ErrorCode::UNKNOWN_PRODUCER_ID)),
];

#[tokio::test(start_paused = true)]
async fn no_fault_that_passes_loses_doubles_or_reorders_anything() -> Result<()> {
    for (what, fault) in PASSING {
        for times in [1, 4] {
            let scene = Scene::new(1, 1).await?;
            let producer = producer(&scene.client, single())?;
            // Before the first batch, and in the middle.
            let first = fault(scene.fake.on(ApiKey::Produce).times(times));
            send_values(&producer, TOPIC, None, 0..20).await.with_context(|| format!("first, {what}"))?;
            let second = fault(scene.fake.on(ApiKey::Produce).times(times));
            send_values(&producer, TOPIC, None, 20..40).await.with_context(|| what)?;
            assert_eq!((first.hits(), second.hits()), (times, times), "{what}");
            assert_eq!(scene.stored(0)?, (0..40).collect::<Vec<_>>(), "{what}, {times} times");
            assert_eq!(producer.close(PATIENCE).await, 0, "{what}");
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_faults_and_moves_loses_doubles_and_reorders_nothing() -> Result<()> {
    for seed in 0..40 {
        storm(seed).await.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

async fn storm(seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(3, 2).await?;
    let producer = producer(&scene.client, ProducerConfig { delivery_timeout: 20 * PATIENCE, ..single() })?;
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move {
            let mut deliveries = Vec::new();
            for value in 0..300 {
                let partition = Some(i32::try_from(value % 2)?);
                deliveries.push(producer.send(ProduceRecord { partition, ..record(value) }).await?);
                if value % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for delivery in deliveries {
                delivery.await?;
            }
            anyhow::Ok(())
        }
    });
    for _ in 0..60 {
        let before = scene.fake.requests().last().map_or(0, |request| request.number);
        match random.u8(0..10) {
            0 => scene.fake.move_leader(TOPIC, random.i32(0..2), random.i32(1..=3))?,
            1 => {
                let node = random.i32(1..=3);
                scene.fake.kill(node).await?;
                scene.fake.revive(node).await?;
            }
            _ => {
                // INVALID_PRODUCER_EPOCH and the like mean something else when they are lies; the rest are passing.
                let (_, fault) = PASSING[random.usize(0..PASSING.len() - 1)];
                fault(scene.fake.on(ApiKey::Produce).times(random.usize(1..4)));
            }
        }
        let moved = scene.fake.wait_for(|log| log.iter().filter(|request| request.number > before).count() > 3);
        tokio::select! { () = moved => {}, () = tokio::time::sleep(Duration::from_secs(5)) => {} }
    }
    scene.fake.clear_faults();
    sending.await??;
    for partition in 0..2 {
        let expected: Vec<usize> =
            (0..300).filter(|value| value % 2 == usize::try_from(partition).unwrap_or(9)).collect();
        assert_eq!(scene.stored(partition)?, expected);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_idempotence_order_is_kept_and_nothing_is_lost() -> Result<()> {
    for (what, fault) in PASSING {
        let scene = Scene::new(1, 1).await?;
        let config = ProducerConfig { acks: Acks::Leader, idempotence: false, ..single() };
        let producer = producer(&scene.client, config)?;
        fault(scene.fake.on(ApiKey::Produce).times(3));
        let sent = send_values(&producer, TOPIC, None, 0..20).await;
        if what == "the producer is forgotten" {
            assert!(sent.is_err(), "a producer without an id has nothing to be forgotten");
            continue;
        }
        sent.with_context(|| what)?;
        let mut stored = scene.stored(0)?;
        // What was in doubt may stand there twice, but each time in order.
        stored.dedup();
        let twice =
            stored.iter().zip(1..).filter(|(value, next)| stored.get(*next).is_some_and(|n| n < *value)).count();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored, (0..20).collect::<Vec<_>>(), "{what}");
        assert!(twice <= 3, "{what}: {twice} steps back");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_final_error_fails_its_batch_alone() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, single())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    for code in [
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_RECORD,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode::UNKNOWN_SERVER_ERROR,
    ] {
        scene.fake.on(ApiKey::Produce).reply_error(code);
        let (kind, outcome) = failure(&producer, 99).await?;
        assert!(matches!(kind, ProduceErrorKind::Broker { code: told, .. } if told == code), "{code}: {kind:?}");
        assert_eq!(outcome, Outcome::Rejected, "{code}");
    }
    send_values(&producer, TOPIC, None, 1..3).await?;
    assert_eq!(scene.stored(0)?, [0, 1, 2], "the sequence goes on over the gap that the refused ones left");
    Ok(())
}

/// A producer that gives up after ten seconds.
fn hasty(client: &Client) -> Result<Producer> {
    producer(client, ProducerConfig { delivery_timeout: Duration::from_secs(10), ..single() })
}

fn timed_out(failed: &(ProduceErrorKind, Outcome), expected: Outcome) {
    assert!(matches!(failed.0, ProduceErrorKind::DeliveryTimeout { .. }), "{failed:?}");
    assert_eq!(failed.1, expected, "{failed:?}");
}

/// What keeps a record from being written, on the warm producer or on the first record's way.
type Break = fn(&FakeCluster) -> Result<()>;

/// What is broken, how, whether a record was written before; what the caller hears, and then the log and its last epoch.
type Broken = (&'static str, Break, bool, Outcome, &'static [usize], i16);

const BROKEN: [Broken; 6] = [
    (
        "there is no metadata",
        |fake| always(fake, ApiKey::Metadata, |on| on.close_before()),
        false,
        Outcome::NotSent,
        &[2, 3],
        0,
    ),
    (
        "there is no producer id",
        |fake| always(fake, ApiKey::InitProducerId, |on| on.reply_error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)),
        false,
        Outcome::NotSent,
        &[2, 3],
        0,
    ),
    // What was sent once leaves a gap, which is healed by a new epoch. A deposed leader may have written it.
    ("there is no leader", |fake| Ok(fake.take_leader(TOPIC, 0)?), true, Outcome::Unknown, &[0, 2, 3], 1),
    (
        "it is refused",
        |fake| always(fake, ApiKey::Produce, |on| on.reply_error(ErrorCode::NOT_ENOUGH_REPLICAS)),
        true,
        Outcome::Rejected,
        &[0, 2, 3],
        1,
    ),
    (
        "the requests are lost",
        |fake| always(fake, ApiKey::Produce, |on| on.close_before()),
        true,
        Outcome::Unknown,
        &[0, 2, 3],
        1,
    ),
    // It is there, and once.
    (
        "the answers are lost",
        |fake| always(fake, ApiKey::Produce, |on| on.drop_answer()),
        true,
        Outcome::Unknown,
        &[0, 1, 2, 3],
        0,
    ),
];

fn always(fake: &FakeCluster, api: ApiKey, fault: SetFault) -> Result<()> {
    fault(fake.on(api).always());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_delivery_timeout_ends_every_wait_tells_what_is_known_and_nothing_is_written_twice() -> Result<()> {
    for (what, break_it, warm, told, stored, epoch) in BROKEN {
        let scene = Scene::new(1, 1).await?;
        let producer = hasty(&scene.client)?;
        if warm {
            send_values(&producer, TOPIC, None, 0..1).await?;
        }
        break_it(&scene.fake)?;
        timed_out(&failure(&producer, 1).await.context(what)?, told);
        scene.fake.clear_faults();
        if scene.fake.leader(TOPIC, 0).is_none() {
            scene.fake.move_leader(TOPIC, 0, 1)?;
        }
        send_values(&producer, TOPIC, None, 2..4).await.context(what)?;
        assert_eq!(scene.stored(0)?, stored, "{what}");
        assert_eq!(scene.batches_sent(0)?.pop().context("a batch")?.0.producer_epoch, epoch, "{what}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_delivery_timeout_ends_the_wait_for_any_broker() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let nowhere = ClusterConfig::new(vec![("nowhere".to_owned(), 1)]);
    let client = Client::with_connector(nowhere, std::sync::Arc::new(scene.fake.clone()));
    timed_out(&failure(&hasty(&client)?, 0).await?, Outcome::NotSent);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_delivery_timeout_ends_the_wait_for_room() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..single() };
    let producer = scene.client.producer(config, Budget::new(200))?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    let held = scene.fake.on(ApiKey::Produce).hold_request();
    let value = Some(Bytes::from(vec![b'1'; 150]));
    let large = producer.send(ProduceRecord { value, ..record(0) }).await?;
    held.reached(1).await;
    let value = Some(Bytes::from(vec![b'2'; 150]));
    let refused = producer.send(ProduceRecord { value, ..record(0) }).await.err().context("there was room")?;
    timed_out(&(refused.kind, refused.outcome), Outcome::NotSent);
    held.release();
    let late = large.await.err().context("it is over its time as well")?;
    timed_out(&(late.kind, late.outcome), Outcome::Unknown);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_delivery_timeout_ends_the_wait_for_an_answer_and_the_batch_is_in_doubt() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = hasty(&scene.client)?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    for (value, applied) in [(1, true), (2, false)] {
        let on = scene.fake.on(ApiKey::Produce).times(1);
        let held = if applied { on.hold() } else { on.hold_request() };
        timed_out(&failure(&producer, value).await?, Outcome::Unknown);
        assert_eq!(held.count(), 1);
        held.release();
    }
    send_values(&producer, TOPIC, None, 3..6).await?;
    assert_eq!(scene.stored(0)?, [0, 1, 2, 3, 4, 5], "what was in doubt came after all, once and in its place");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_deposed_leader_or_a_lost_answer_leaves_in_doubt_stays_so_whatever_is_answered_later() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = hasty(&scene.client)?;
    // It may have appended the batch before it was deposed.
    scene.fake.on(ApiKey::Produce).always().reply_error(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    timed_out(&failure(&producer, 0).await?, Outcome::Unknown);
    scene.fake.clear_faults();
    scene.fake.on(ApiKey::Produce).drop_answer();
    let refused = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    scene.fake.on(ApiKey::Produce).always().reply_error(refused);
    let failed = failure(&producer, 1).await?;
    assert_eq!(failed, (ProduceErrorKind::Broker { code: refused, message: None }, Outcome::Unknown));
    assert_eq!(scene.stored(0)?, [1], "it was written indeed");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_ever_took_was_not_sent_however_often_it_was_tried() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = hasty(&scene.client)?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    scene.fake.kill(1).await?;
    // The first notices that the connection is lost; it may have been sent.
    failure(&producer, 1).await?;
    timed_out(&failure(&producer, 2).await?, Outcome::NotSent);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn while_a_partition_waits_for_its_broker_its_next_batch_goes_on_being_filled() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, ProducerConfig::default())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    let held = scene.fake.on(ApiKey::Produce).hold();
    let mut deliveries = Vec::new();
    for value in 1..200 {
        deliveries.push(producer.send(record(value)).await?);
        // Longer than linger.ms.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    held.reached(1).await;
    held.release();
    for delivery in deliveries {
        delivery.await?;
    }
    assert_eq!(scene.stored(0)?, (0..200).collect::<Vec<_>>());
    let batches = scene.batches_sent(0)?.len();
    assert!(batches <= 8, "{batches} batches: one, five in flight, and what was filled meanwhile");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_is_followed() -> Result<()> {
    let scene = Scene::new(3, 1).await?;
    let producer = producer(&scene.client, single())?;
    for (round, node) in [2, 3, 1, 2].into_iter().enumerate() {
        scene.fake.move_leader(TOPIC, 0, node)?;
        send_values(&producer, TOPIC, None, round * 10..round * 10 + 10).await?;
    }
    let (leader, _) = scene.fake.leader(TOPIC, 0).context("a leader")?;
    scene.fake.kill(leader).await?;
    send_values(&producer, TOPIC, None, 40..50).await?;
    assert_eq!(scene.stored(0)?, (0..50).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_the_answer_leads_to_the_new_leader_without_new_metadata() -> Result<()> {
    let scene = Scene::new(2, 1).await?;
    let producer = producer(&scene.client, single())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    scene.fake.forget_requests();
    let other = if scene.fake.leader(TOPIC, 0).context("a leader")?.0 == 1 { 2 } else { 1 };
    scene.fake.move_leader(TOPIC, 0, other)?;
    send_values(&producer, TOPIC, None, 1..2).await?;
    let asked: Vec<ApiKey> = scene.fake.requests().iter().map(|request| request.api).collect();
    assert!(!asked.contains(&ApiKey::Metadata), "{asked:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_end_makes_the_producer_begin_a_new_epoch() -> Result<()> {
    let scene = Scene::new(1, 2).await?;
    let producer = producer(&scene.client, single())?;
    for partition in 0..2 {
        send_values(&producer, TOPIC, Some(partition), 0..10).await?;
    }
    scene.fake.truncate(TOPIC, 0, 5)?;
    for partition in 0..2 {
        send_values(&producer, TOPIC, Some(partition), 10..20).await?;
    }
    assert_eq!(scene.stored(0)?, (0..5).chain(10..20).collect::<Vec<_>>());
    assert_eq!(scene.stored(1)?, (0..20).collect::<Vec<_>>());
    let last = |partition| anyhow::Ok(scene.batches_sent(partition)?.pop().context("a batch")?.0);
    let (cut, whole) = (last(0)?, last(1)?);
    assert_eq!((cut.producer_epoch, cut.base_sequence), (1, 9), "the epoch is the partition's own");
    assert_eq!((whole.producer_epoch, whole.base_sequence), (0, 19));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_broker_finds_too_large_is_divided_and_keeps_its_order() -> Result<()> {
    for idempotence in [true, false] {
        let scene = Scene::new(1, 1).await?;
        scene.fake.create_topic_with("small", 1, &[("max.message.bytes", "200")]).map_err(kafka)?;
        let acks = Acks::All;
        let config =
            ProducerConfig { linger: Duration::from_millis(50), idempotence, acks, ..ProducerConfig::default() };
        let producer = producer(&scene.client, config)?;
        let receipts = send_values(&producer, "small", None, 0..200).await?;
        let offsets: Vec<Option<i64>> = receipts.iter().map(|receipt| receipt.offset).collect();
        assert_eq!(offsets, (0..200).map(Some).collect::<Vec<_>>(), "idempotence {idempotence}");
        assert!(scene.fake.read("small", 0).len() > 10);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn records_that_the_broker_names_fail_alone() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    scene.fake.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).map_err(kafka)?;
    let config = ProducerConfig { linger: Duration::from_millis(50), ..ProducerConfig::default() };
    let producer = producer(&scene.client, config)?;
    let mut deliveries = Vec::new();
    for value in 0..6 {
        let key = (value % 3 != 1).then(|| Bytes::from("k"));
        let partition = Some(0);
        let record = ProduceRecord { topic: "compacted".into(), key, partition, ..record(value) };
        deliveries.push(producer.send(record).await?);
    }
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.await.map(|receipt| receipt.offset).map_err(|error| error.outcome));
    }
    let (written, refused) = (|offset| Ok(Some(offset)), Err(Outcome::Rejected));
    assert_eq!(outcomes, [written(0), refused, written(1), written(2), refused, written(3)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_throttled_client_waits_as_long_as_it_is_told() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, single())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    scene.fake.on(ApiKey::Produce).throttle(Duration::from_secs(3));
    send_values(&producer, TOPIC, None, 1..2).await?;
    let before = tokio::time::Instant::now();
    send_values(&producer, TOPIC, None, 2..3).await?;
    let requests = scene.fake.requests();
    let last = requests.iter().rev().find(|request| request.api == ApiKey::Produce).context("a produce")?;
    assert!(last.at - before >= Duration::from_secs(3), "it was sent {:?} later", last.at - before);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_on_its_way_and_fails_what_does_not_come() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, single())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    let held = scene.fake.on(ApiKey::Produce).hold();
    let mut deliveries = Vec::new();
    for value in 1..8 {
        deliveries.push(producer.send(record(value)).await?);
    }
    held.reached(1).await;
    assert_eq!(producer.close(Duration::from_secs(5)).await, 7);
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        let error = delivery.await.err().context("it was written")?;
        assert_eq!(error.kind, ProduceErrorKind::Closed);
        outcomes.push(error.outcome);
    }
    let (unknown, not_sent) = (Outcome::Unknown, Outcome::NotSent);
    assert_eq!(outcomes, [unknown, unknown, unknown, unknown, unknown, not_sent, not_sent]);
    let refused = producer.send(record(9)).await.err().context("it was taken")?;
    assert_eq!((refused.kind, refused.outcome), (ProduceErrorKind::Closed, Outcome::NotSent));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_fails_what_still_lingers_and_takes_nothing_more() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let config = ProducerConfig { linger: 10 * PATIENCE, ..ProducerConfig::default() };
    let producer = producer(&scene.client, config)?;
    let delivery = producer.send(record(1)).await?;
    assert!(scene.client.close(PATIENCE).await, "its tasks end");
    let lingered = delivery.await.err().context("it was written")?;
    assert_eq!((lingered.kind, lingered.outcome), (ProduceErrorKind::Closed, Outcome::NotSent));
    assert_eq!(failure(&producer, 2).await?, (ProduceErrorKind::Closed, Outcome::NotSent));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_and_made_anew_is_written_to_in_order() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, single())?;
    send_values(&producer, TOPIC, None, 0..10).await?;
    scene.fake.delete_topic(TOPIC)?;
    scene.fake.create_topic(TOPIC, 1).map_err(kafka)?;
    // The first that gets there is refused, and nothing overtakes it.
    let sending = send_values(&producer, TOPIC, None, 10..20);
    scene.fake.on(ApiKey::Produce).times(2).reply_error(ErrorCode::NOT_ENOUGH_REPLICAS);
    sending.await?;
    assert_eq!(scene.stored(0)?, (10..20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_idle_for_long_is_written_to_in_a_new_epoch() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, single())?;
    for round in 0..3 {
        send_values(&producer, TOPIC, None, round * 5..round * 5 + 5).await?;
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    assert_eq!(scene.stored(0)?, (0..15).collect::<Vec<_>>());
    let last = scene.batches_sent(0)?.pop().context("a batch")?.0;
    assert_eq!((last.producer_epoch, last.base_sequence), (2, 4));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_there_is_asked_for_no_longer_than_somebody_waits_for_it() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer =
        producer(&scene.client, ProducerConfig { allow_auto_create_topics: false, ..ProducerConfig::default() })?;
    let missing = |name: &str| producer.send(ProduceRecord { topic: name.into(), ..record(0) });
    let (one, two) = tokio::join!(missing("missing-1"), missing("missing-2"));
    for failed in [one.map(drop), two.map(drop)] {
        assert_eq!(failed.map_err(|error| error.kind), Err(ProduceErrorKind::UnknownTopic));
    }
    scene.client.cluster().refresh().await;
    let (_, last) = scene.fake.requests_of::<MetadataRequest>().pop().context("a request")?;
    let named = last.topics.unwrap_or_default().iter().filter(|topic| topic.name.is_some()).count();
    assert_eq!(named, 0, "nobody waits any more");
    send_values(&producer, TOPIC, None, 0..1).await?;
    Ok(())
}
