//! What must be seen on the wire: read off the fake's log of requests.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fake_broker::{ApiKey, FaultOn, LoggedRequest};
use kafka_protocol::messages::{FetchRequest, MetadataRequest};
use protocol::{
    client::Client, cluster::ClusterConfig, consumer::ConsumerConfig, producer::ProducerConfig, record::Compression,
};

use super::scene::{Scene, TOPIC};
use crate::support::{
    client::{PATIENCE, group_of, member, member_with, producer, send_values},
    reading::{assigned, batches, leave},
};

fn open(log: &[LoggedRequest], api: ApiKey) -> usize {
    log.iter().filter(|request| request.api == api && request.answered.is_none()).count()
}

/// Waits until the log shows it.
async fn seen(scene: &Scene, what: &str, condition: impl FnMut(&[LoggedRequest]) -> bool) -> Result<()> {
    let waited = tokio::time::timeout(PATIENCE, scene.fake.wait_for(condition)).await;
    waited.with_context(|| what.to_owned())
}

#[tokio::test(start_paused = true)]
async fn five_batches_of_one_partition_are_outstanding_while_answers_are_held() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    // Every record is a batch of its own.
    let producer = producer(&scene.client, ProducerConfig { batch_size: 1, ..ProducerConfig::default() })?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    let held = scene.fake.on(ApiKey::Produce).hold();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send_values(&producer, TOPIC, None, 1..9).await }
    });
    seen(&scene, "five at once", |log| open(log, ApiKey::Produce) == 5).await?;
    held.reached(1).await;
    // Time enough for a sixth, if one were to come.
    for _ in 0..3 {
        scene.client.cluster().refresh().await;
    }
    let sequences: Vec<i32> = scene.batches_sent(0)?.iter().map(|(header, _)| header.base_sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4, 5]);
    held.release();
    sending.await??;
    assert_eq!(scene.stored(0)?, (0..9).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_sent_again_has_the_same_bytes() -> Result<()> {
    let faults: [fn(FaultOn) -> fake_broker::Fault; 4] = [
        |on| on.times(2).drop_answer(),
        |on| on.times(2).close_before(),
        |on| on.times(2).reply_error(protocol::error_code::ErrorCode::NOT_LEADER_OR_FOLLOWER),
        |on| on.times(2).garbage(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let scene = Scene::new(1, 1).await?;
        let config = ProducerConfig { compression: Compression::Zstd, ..ProducerConfig::default() };
        let producer = producer(&scene.client, config)?;
        let fault = fault(scene.fake.on(ApiKey::Produce));
        send_values(&producer, TOPIC, None, 0..100).await?;
        assert_eq!(fault.hits(), 2, "fault {number}");
        let sent = scene.batches_sent(0)?;
        for (header, bytes) in &sent {
            let others = sent.iter().filter(|(other, _)| other.base_sequence == header.base_sequence);
            assert!(others.clone().all(|(_, other)| other == bytes), "fault {number}");
        }
        let again = sent.iter().filter(|(header, _)| header.base_sequence == 0).count();
        assert_eq!(again, 3, "fault {number}: the first batch was sent three times");
        assert_eq!(scene.stored(0)?, (0..100).collect::<Vec<_>>(), "fault {number}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_second_fetch_of_a_thousand_idle_partitions_names_none() -> Result<()> {
    let scene = Scene::new(1, 1000).await?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let streams = assigned(&mut consumer, 1000).await?;
    let partitions = |request: &FetchRequest| request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
    // The sessions of a broker go by their sockets: what a later fetch of the same socket names.
    let later = |fake: &fake_broker::FakeCluster| {
        let fetches = fake.requests_of::<FetchRequest>();
        let full = fetches.iter().position(|(_, request)| partitions(request) == 1000)?;
        let (first, _) = fetches.get(full)?;
        let mut after = fetches.iter().skip(full + 1).filter(|(logged, _)| logged.connection == first.connection);
        after.next().map(|(_, request)| request.clone())
    };
    tokio::time::timeout(PATIENCE, scene.fake.wait_until(|fake| later(fake).is_some())).await?;
    let second = later(&scene.fake).context("a second fetch")?;
    assert_eq!((partitions(&second), second.forgotten_topics_data.len()), (0, 0));
    assert!(second.session_id > 0 && second.session_epoch == 1, "{second:?}");
    drop(streams);
    leave(consumer).await
}

#[tokio::test(start_paused = true)]
async fn the_next_fetch_is_out_while_the_consumers_user_hangs() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    let producer = producer(&scene.client, ProducerConfig::default())?;
    send_values(&producer, TOPIC, None, 0..1).await?;
    let mut consumer = member(&scene.client, "g", TOPIC);
    let mut streams = assigned(&mut consumer, 1).await?;
    let first = batches(&mut streams, 1).await?;
    let next = first.first().context("a batch")?.next_offset;
    // From here on nobody asks the stream for anything.
    let offset = |request: &LoggedRequest| {
        let fetch: FetchRequest = request.decode()?;
        fetch.topics.first()?.partitions.first().map(|partition| partition.fetch_offset)
    };
    seen(&scene, "the next fetch", |log| log.iter().any(|request| offset(request) == Some(next))).await?;
    send_values(&producer, TOPIC, None, 1..2).await?;
    seen(&scene, "the one after it", |log| log.iter().any(|request| offset(request) == Some(next + 1))).await?;
    assert_eq!(scene.fake.group_state("g"), Some("Stable"));
    assert_eq!(batches(&mut streams, 1).await?.first().map(|records| records.position), Some(next));
    leave(consumer).await
}

/// Waits for a heartbeat and a produce that come after this moment, and are answered while `open` is not.
async fn others_are_answered_while(scene: &Scene, open: u64, producer: &protocol::producer::Producer) -> Result<()> {
    let from = scene.fake.requests().last().map_or(0, |request| request.number);
    send_values(producer, "other", None, 0..1).await?;
    let answered = |log: &[LoggedRequest], api| {
        log.iter().any(|request| request.number > from && request.api == api && request.answered.is_some())
    };
    let both = |log: &[LoggedRequest]| answered(log, ApiKey::Heartbeat) && answered(log, ApiKey::Produce);
    seen(scene, "a heartbeat and a produce", both).await?;
    let requests = scene.fake.requests();
    let waiting = requests.iter().find(|request| request.number == open).context("the request that waits")?;
    assert_eq!(waiting.answered, None, "{:?} was answered meanwhile", waiting.api);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_and_a_produce_are_answered_during_a_long_poll_and_a_held_join() -> Result<()> {
    let scene = Scene::new(1, 2).await?;
    scene.fake.create_topic("other", 1).map_err(|code| anyhow::anyhow!("{code}"))?;
    let producer = producer(&scene.client, ProducerConfig::default())?;
    let long = ConsumerConfig { fetch_max_wait: Duration::from_secs(25), ..group_of("g", TOPIC) };
    let mut first = member_with(&scene.client, long);
    let streams = assigned(&mut first, 2).await?;
    seen(&scene, "a long poll", |log| open(log, ApiKey::Fetch) > 0).await?;
    let waiting = |api| {
        let requests = scene.fake.requests();
        requests.iter().rev().find(|r| r.api == api && r.answered.is_none()).map(|request| request.number)
    };
    let poll = waiting(ApiKey::Fetch).context("a fetch")?;
    others_are_answered_while(&scene, poll, &producer).await?;
    // A second member comes; the first one's join is held on its way in.
    let member_of = |request: &LoggedRequest| {
        let join: Option<kafka_protocol::messages::JoinGroupRequest> = request.decode();
        join.map(|join| join.member_id.to_string())
    };
    let known = scene.fake.members("g").first().context("a member")?.member_id.clone();
    let held = scene
        .fake
        .on(ApiKey::JoinGroup)
        .when(move |request| member_of(request).as_ref() == Some(&known))
        .hold_request();
    let second = member(&scene.client, "g", TOPIC);
    held.reached(1).await;
    let join = waiting(ApiKey::JoinGroup).context("a join")?;
    others_are_answered_while(&scene, join, &producer).await?;
    held.release();
    drop(streams);
    tokio::try_join!(leave(second), leave(first))?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_has_just_become_fetchable_waits_for_no_long_poll() -> Result<()> {
    let scene = Scene::new(1, 3).await?;
    let producer = producer(&scene.client, ProducerConfig::default())?;
    send_values(&producer, TOPIC, Some(2), 0..1).await?;
    let long = ConsumerConfig { fetch_max_wait: Duration::from_secs(25), ..group_of("g", TOPIC) };
    let mut consumer = member_with(&scene.client, long);
    let mut streams = assigned(&mut consumer, 3).await?;
    streams.sort_by_key(|stream| stream.lease().partition());
    let [_, second, third] = &mut streams[..] else { anyhow::bail!("three streams") };
    // One after the other: the first is polled for, then the second by the other socket.
    second.pause();
    third.pause();
    seen(&scene, "a poll", |log| open(log, ApiKey::Fetch) == 1).await?;
    second.resume();
    seen(&scene, "two polls", |log| open(log, ApiKey::Fetch) == 2).await?;
    let resumed = tokio::time::Instant::now();
    third.resume();
    let read = third.next().await.context("the stream ended")?;
    assert_eq!(read.iter().count(), 1);
    assert!(resumed.elapsed() < Duration::from_secs(1), "it waited {:?}", resumed.elapsed());
    // Where nobody comes and nothing is there, all are polled for together again.
    let last =
        |log: &[LoggedRequest]| log.iter().rfind(|request| request.api == ApiKey::Fetch).map(|request| request.at);
    let quiet = |log: &[LoggedRequest]| {
        let now = tokio::time::Instant::now();
        open(log, ApiKey::Fetch) == 1 && last(log).is_some_and(|last| now >= last + Duration::from_secs(5))
    };
    while !quiet(&scene.fake.requests()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        anyhow::ensure!(resumed.elapsed() < 2 * PATIENCE, "it never gets quiet");
    }
    drop(streams);
    leave(consumer).await
}

#[tokio::test(start_paused = true)]
async fn a_leader_asks_for_the_topics_of_others_for_as_long_as_they_are_members() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    scene.fake.create_topic("other", 1).map_err(|code| anyhow::anyhow!("{code}"))?;
    let mut leader = member(&scene.client, "g", TOPIC);
    let streams = assigned(&mut leader, 1).await?;
    let elsewhere = Client::with_connector(ClusterConfig::new(scene.fake.bootstrap()), Arc::new(scene.fake.clone()));
    let mut other = member(&elsewhere, "g", "other");
    let streams_of_other = assigned(&mut other, 1).await?;
    let names_other = |request: &LoggedRequest| {
        let asked: Option<MetadataRequest> = request.decode();
        let topics = asked.and_then(|asked| asked.topics).unwrap_or_default();
        topics.iter().any(|topic| topic.name.as_ref().is_some_and(|name| name.as_str() == "other"))
    };
    let ours = scene.client.cluster().refresh().await;
    assert!(ours.topics.contains_key("other"), "the leader makes the plan for both");
    drop(streams_of_other);
    leave(other).await?;
    scene.fake.delete_topic("other")?;
    let forgotten = async {
        while scene.client.cluster().refresh().await.topics.contains_key("other") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.context("it is asked for for ever")?;
    scene.fake.forget_requests();
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(scene.fake.requests().iter().filter(|request| names_other(request)).count(), 0);
    drop(streams);
    leave(leader).await
}
