//! Fetches and questions about offsets, said by hand: sessions, limits, epochs, errors.

use anyhow::{Context as _, Result};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};
use protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{
    bed::Bed,
    raw::{Codes, Raw, ready_topic, topic_name},
    raw_produce::{batch, produce},
};

/// Which session a fetch belongs to: id and epoch.
type Session = (i32, i32);
const NO_SESSION: Session = (0, -1);
const NEW_SESSION: Session = (0, 0);

fn partition(index: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1 << 20)
}

fn fetch(session: Session, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

fn named(topic: &str, partitions: Vec<FetchPartition>) -> Vec<FetchTopic> {
    vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions)]
}

/// Partition, error and bytes of all that an answer names.
fn told(answer: &FetchResponse) -> Vec<(i32, i16, usize)> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let told = |partition: &kafka_protocol::messages::fetch_response::PartitionData| {
        let bytes = partition.records.as_ref().map_or(0, |records| records.len());
        (partition.partition_index, partition.error_code, bytes)
    };
    partitions.map(told).collect()
}

pub(super) async fn a_session_names_only_what_changed(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-session", 3).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let size = batch(3)?.bytes.len();
    let all = (0..3).map(|index| partition(index, 0)).collect();
    let answer = raw.ask(12, &fetch(NEW_SESSION, named("raw-session", all))).await?;
    let id = answer.session_id;
    codes.same("a session is opened", id > 0, true);
    codes.same("the first fetch names all", told(&answer), vec![(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
    let answer = raw.ask(12, &fetch((id, 1), vec![])).await?;
    codes.same("an idle one names nobody", (answer.session_id, told(&answer)), (id, vec![]));
    produce(&mut raw, "raw-session", 1, batch(3)?.bytes).await?;
    let answer = raw.ask(12, &fetch((id, 2), vec![])).await?;
    codes.same("what came is told", told(&answer), vec![(1, 0, size)]);
    let answer = raw.ask(12, &fetch((id, 3), vec![])).await?;
    codes.same("again, since it did not move on", told(&answer), vec![(1, 0, size)]);
    let answer = raw.ask(12, &fetch((id, 4), named("raw-session", vec![partition(1, 3)]))).await?;
    codes.same("nothing after it moved on", told(&answer), vec![]);
    let answer = raw.ask(12, &fetch((id, 5), named("raw-session", vec![partition(2, 9)]))).await?;
    codes.same("an error is told", told(&answer), vec![(2, ErrorCode::OFFSET_OUT_OF_RANGE.0, 0)]);
    let answer = raw.ask(12, &fetch((id, 6), vec![])).await?;
    codes.same("and told again", told(&answer), vec![(2, ErrorCode::OFFSET_OUT_OF_RANGE.0, 0)]);
    let forgotten = ForgottenTopic::default().with_topic(topic_name("raw-session")).with_partitions(vec![2]);
    let answer = raw.ask(12, &fetch((id, 7), vec![]).with_forgotten_topics_data(vec![forgotten])).await?;
    codes.same("not after it was forgotten", told(&answer), vec![]);
    let answer = raw.ask(12, &fetch((id, 7), vec![])).await?;
    codes.check("the same epoch twice", answer.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    let answer = raw.ask(12, &fetch((id, 10), vec![])).await?;
    codes.check("an epoch ahead", answer.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    let answer = raw.ask(13, &fetch((id, 8), vec![])).await?;
    codes.check("topics by id in a session by name", answer.error_code, ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    let answer = raw.ask(12, &fetch((id, 8), vec![])).await?;
    codes.same("the session lives on after all that", (answer.error_code, answer.session_id), (0, id));
    let closed = fetch((id, -1), named("raw-session", vec![partition(0, 0)]));
    let answer = raw.ask(12, &closed).await?;
    codes.same("the last epoch closes it", (answer.session_id, told(&answer)), (0, vec![(0, 0, 0)]));
    for (what, session) in [("a closed session", (id, 9)), ("no session at all", (0, 1)), ("another", (id ^ 1, 1))] {
        let answer = raw.ask(12, &fetch(session, vec![])).await?;
        codes.check(what, answer.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        codes.same(what, told(&answer), vec![]);
    }
    codes.end()
}

pub(super) async fn limits_hold_and_the_first_batch_comes_whole(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-limits", 2).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let one = batch(3)?.bytes.len();
    for _ in 0..4 {
        for index in 0..2 {
            produce(&mut raw, "raw-limits", index, batch(3)?.bytes).await?;
        }
    }
    let limited = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    // Limit of the request, limit of each partition, bytes of both partitions.
    for (what, of_all, of_one, expected) in [
        ("no limit", usize::MAX, usize::MAX, (4 * one, 4 * one)),
        ("one byte in all", 1, usize::MAX, (one, 0)),
        ("one byte each", usize::MAX, 1, (one, 0)),
        ("two batches each", usize::MAX, 2 * one, (2 * one, 2 * one)),
        ("two and a half each", usize::MAX, 2 * one + one / 2, (2 * one + one / 2, 2 * one + one / 2)),
        ("five batches in all", 5 * one, usize::MAX, (4 * one, one)),
        ("half a batch in all", one / 2, usize::MAX, (one, 0)),
    ] {
        let partitions = (0..2).map(|index| partition(index, 0).with_partition_max_bytes(limited(of_one))).collect();
        let request = fetch(NO_SESSION, named("raw-limits", partitions)).with_max_bytes(limited(of_all));
        let answer = told(&raw.ask(12, &request).await?);
        let found = answer.first().zip(answer.get(1)).map(|(first, second)| (first.2, second.2));
        codes.same(what, found, Some(expected));
    }
    let inside = fetch(NO_SESSION, named("raw-limits", vec![partition(0, 4)]));
    codes.same("from inside a batch it comes whole", told(&raw.ask(12, &inside).await?), vec![(0, 0, 3 * one)]);
    let at_end = fetch(NO_SESSION, named("raw-limits", vec![partition(0, 12)]));
    codes.same("nothing at the end", told(&raw.ask(12, &at_end).await?), vec![(0, 0, 0)]);
    codes.end()
}

pub(super) async fn a_long_poll_ends_when_something_comes(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-poll", 1).await?;
    let (mut raw, mut other) = (bed.raw().await?, bed.raw().await?);
    let mut codes = Codes::default();
    let one = batch(3)?.bytes.len();
    let request = fetch(NO_SESSION, named("raw-poll", vec![partition(0, 0)]));
    let long = request.clone().with_max_wait_ms(30_000);
    let (answer, sent) = tokio::join!(raw.ask(12, &long), produce(&mut other, "raw-poll", 0, batch(3)?.bytes));
    sent?;
    codes.same("what came ends it", told(&answer?), vec![(0, 0, one)]);
    let two = i32::try_from(2 * one)?;
    let more = request.clone().with_max_wait_ms(30_000).with_min_bytes(two);
    let (answer, sent) = tokio::join!(raw.ask(12, &more), produce(&mut other, "raw-poll", 0, batch(3)?.bytes));
    sent?;
    codes.same("not before there is enough", told(&answer?), vec![(0, 0, 2 * one)]);
    let short = fetch(NO_SESSION, named("raw-poll", vec![partition(0, 6)])).with_max_wait_ms(50);
    codes.same("nothing, when its time is up", told(&raw.ask(12, &short).await?), vec![(0, 0, 0)]);
    let wrong = fetch(NO_SESSION, named("raw-poll", vec![partition(0, 99)])).with_max_wait_ms(30_000);
    codes.same("an error ends it", told(&raw.ask(12, &wrong).await?), vec![(0, 1, 0)]);
    codes.end()
}

pub(super) async fn what_cannot_be_fetched_is_an_error(bed: &Bed) -> Result<()> {
    let id = ready_topic(bed, "raw-fetch", 1).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    produce(&mut raw, "raw-fetch", 0, batch(3)?.bytes).await?;
    let here = || partition(0, 0);
    for (what, topic, partition, expected) in [
        ("the start", "raw-fetch", here(), ErrorCode::NONE),
        ("the end", "raw-fetch", partition(0, 3), ErrorCode::NONE),
        ("beyond it", "raw-fetch", partition(0, 4), ErrorCode::OFFSET_OUT_OF_RANGE),
        ("below zero", "raw-fetch", partition(0, -1), ErrorCode::OFFSET_OUT_OF_RANGE),
        ("an unknown topic", "raw-nowhere", here(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("an unknown partition", "raw-fetch", partition(1, 0), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("its epoch", "raw-fetch", here().with_current_leader_epoch(0), ErrorCode::NONE),
        ("an epoch that is not yet", "raw-fetch", here().with_current_leader_epoch(5), ErrorCode::UNKNOWN_LEADER_EPOCH),
        ("after a record of its epoch", "raw-fetch", partition(0, 3).with_last_fetched_epoch(0), ErrorCode::NONE),
        (
            "after a record of an epoch that never was",
            "raw-fetch",
            partition(0, 3).with_last_fetched_epoch(5),
            ErrorCode::OFFSET_OUT_OF_RANGE,
        ),
    ] {
        let answer = raw.ask(12, &fetch(NO_SESSION, named(topic, vec![partition]))).await?;
        let told = answer.responses.first().and_then(|topic| topic.partitions.first()).context(what)?;
        codes.check(what, told.error_code, expected);
    }
    let beyond = partition(0, 9).with_last_fetched_epoch(0);
    let answer = raw.ask(12, &fetch(NO_SESSION, named("raw-fetch", vec![beyond]))).await?;
    let told = answer.responses.first().and_then(|topic| topic.partitions.first()).context("a partition")?;
    let diverging = (told.error_code, told.diverging_epoch.epoch, told.diverging_epoch.end_offset);
    codes.same("a log that was longer is told where it parts", diverging, (0, 0, 3));
    for (what, id, expected) in
        [("by its id", id, ErrorCode::NONE), ("an unknown id", Uuid::from_u128(7), ErrorCode::UNKNOWN_TOPIC_ID)]
    {
        let topics = vec![FetchTopic::default().with_topic_id(id).with_partitions(vec![here()])];
        let answer = raw.ask(16, &fetch(NEW_SESSION, topics)).await?;
        codes.check(what, answer.error_code, ErrorCode::NONE);
        let told = answer.responses.first().and_then(|topic| topic.partitions.first()).context(what)?;
        codes.check(what, told.error_code, expected);
    }
    codes.end()
}

async fn list(raw: &mut Raw, topic: &str, partition: i32, epoch: i32, timestamp: i64) -> Result<(i16, i64, i64, i32)> {
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(epoch)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = raw.ask(7, &request).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first()).context("a partition")?;
    Ok((told.error_code, told.offset, told.timestamp, told.leader_epoch))
}

pub(super) async fn offsets_are_listed(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-offsets", 2).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    produce(&mut raw, "raw-offsets", 0, batch(3)?.bytes).await?;
    const TIME: i64 = 1_700_000_000_000;
    const NOTHING: (i64, i64, i32) = (-1, -1, -1);
    for (what, partition, epoch, timestamp, code, expected) in [
        ("the start", 0, -1, -2, ErrorCode::NONE, (0, -1, 0)),
        ("the end", 0, -1, -1, ErrorCode::NONE, (3, -1, 0)),
        ("the start of nothing", 1, -1, -2, ErrorCode::NONE, (0, -1, 0)),
        ("the end of nothing", 1, -1, -1, ErrorCode::NONE, (0, -1, 0)),
        ("the newest", 0, -1, -3, ErrorCode::NONE, (0, TIME, 0)),
        ("the newest of nothing", 1, -1, -3, ErrorCode::NONE, NOTHING),
        ("a time before", 0, -1, TIME - 1, ErrorCode::NONE, (0, TIME, 0)),
        ("a time after", 0, -1, TIME + 1, ErrorCode::NONE, NOTHING),
        ("an epoch that is not yet", 0, 5, -1, ErrorCode::UNKNOWN_LEADER_EPOCH, NOTHING),
        ("an unknown partition", 2, -1, -1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, NOTHING),
        ("a time that means nothing", 0, -1, -99, ErrorCode::UNSUPPORTED_VERSION, NOTHING),
    ] {
        let (error, offset, time, leader_epoch) = list(&mut raw, "raw-offsets", partition, epoch, timestamp).await?;
        codes.check(what, error, code);
        codes.same(what, (offset, time, leader_epoch), expected);
    }
    let (error, ..) = list(&mut raw, "raw-nowhere", 0, -1, -1).await?;
    codes.check("an unknown topic", error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    codes.end()
}

pub(super) async fn the_end_of_an_epoch_is_told(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-epochs", 1).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    produce(&mut raw, "raw-epochs", 0, batch(3)?.bytes).await?;
    for (what, topic, current, asked, code, expected) in [
        ("the only epoch", "raw-epochs", -1, 0, ErrorCode::NONE, (0, 3)),
        ("the only epoch, knowing it", "raw-epochs", 0, 0, ErrorCode::NONE, (0, 3)),
        ("one that is not yet", "raw-epochs", -1, 5, ErrorCode::NONE, (-1, -1)),
        ("none", "raw-epochs", -1, -1, ErrorCode::NONE, (-1, -1)),
        ("knowing one that is not yet", "raw-epochs", 5, 0, ErrorCode::UNKNOWN_LEADER_EPOCH, (-1, -1)),
        ("an unknown topic", "raw-nowhere", -1, 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, (-1, -1)),
    ] {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = raw.ask(4, &request).await?;
        let told = answer.topics.first().and_then(|topic| topic.partitions.first()).context(what)?;
        codes.check(what, told.error_code, code);
        codes.same(what, (told.leader_epoch, told.end_offset), expected);
    }
    codes.end()
}
