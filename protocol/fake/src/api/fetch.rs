//! Fetch: sessions, the long poll, and what a partition has to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use protocol::error_code::ErrorCode;
use tokio::time::Instant;

use super::produce::NO_TOPIC_ID;
use super::{Api, Caller, Served, throttled};
use crate::epochs::{NO_EPOCH, NO_OFFSET};
use crate::log::Reading;
use crate::names::{text, topic_name};
use crate::sessions::{Found, Mode, SessionRequest, TopicRef, Wanted, knows_its_epoch};
use crate::shared::Shared;
use crate::state::State;
use crate::topic::Partition;

/// The version from which topics are named by id.
const BY_ID: i16 = 13;
/// The version from which a consumer may read from any replica (KIP-392).
const FROM_FOLLOWER: i16 = 11;
/// The version from which a wrong node says who leads (KIP-951).
const WITH_LEADER: i16 = 16;
/// `fetch.max.bytes` of the broker.
const MAX_BYTES: i32 = 55 << 20;
const READ_COMMITTED: i8 = 1;

/// A fetch, apart from its partitions.
#[derive(Debug, Clone, Copy)]
struct Terms {
    node: i32,
    version: i16,
    committed: bool,
    max_bytes: usize,
    min_bytes: usize,
}

impl Api for FetchRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let by_id = caller.version >= BY_ID;
        let reference = |name: &str, id| if by_id { TopicRef::Id(id) } else { TopicRef::Name(name.to_owned()) };
        let wanted = self.topics.iter().flat_map(|topic| wanted(topic, &reference(&topic.topic, topic.topic_id)));
        let wanted: Vec<Wanted> = wanted.collect();
        let mut forgotten = Vec::new();
        for topic in &self.forgotten_topics_data {
            let topic_ref = reference(&topic.topic, topic.topic_id);
            forgotten.extend(topic.partitions.iter().map(|partition| (topic_ref.clone(), *partition)));
        }
        let session = SessionRequest { id: self.session_id, epoch: self.session_epoch, by_id };
        let max_bytes = self.max_bytes.clamp(0, MAX_BYTES);
        let terms = Terms {
            node: caller.node,
            version: caller.version,
            committed: self.isolation_level == READ_COMMITTED,
            max_bytes: usize::try_from(max_bytes).unwrap_or(0),
            min_bytes: usize::try_from(self.min_bytes.min(max_bytes)).unwrap_or(0),
        };
        let begun = shared.quietly(|state| match state.nodes.get_mut(&caller.node) {
            Some(node) => node.sessions.begin(session, wanted, &forgotten),
            None => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        });
        let (mode, wanted) = match begun {
            Ok(begun) => begun,
            // The session is in doubt: the error alone ends it.
            Err(code) => return Served::Answer(FetchResponse::default().with_error_code(code.0)),
        };
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(self.max_wait_ms).unwrap_or(0));
        wait(shared, &terms, &wanted, deadline).await;
        Served::Answer(answer(shared, &terms, mode, wanted))
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let of_session = matches!(
            ErrorCode(code),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
                | ErrorCode::INVALID_FETCH_SESSION_EPOCH
                | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
        );
        if version >= 7 && (of_session || self.topics.is_empty()) {
            return FetchResponse::default().with_error_code(code);
        }
        let partition = |index| partition_data(index, Found::error(ErrorCode(code)));
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| partition(asked.partition)).collect();
            let response = FetchableTopicResponse::default().with_partitions(partitions);
            if version >= BY_ID {
                response.with_topic_id(topic.topic_id)
            } else {
                response.with_topic(topic.topic.clone())
            }
        });
        FetchResponse::default().with_responses(topics.collect())
    }

    throttled!();
}

fn wanted<'a>(topic: &'a FetchTopic, reference: &TopicRef) -> impl Iterator<Item = Wanted> + use<'a> {
    let reference = reference.clone();
    topic.partitions.iter().map(move |partition| Wanted {
        topic: reference.clone(),
        partition: partition.partition,
        offset: partition.fetch_offset,
        leader_epoch: partition.current_leader_epoch,
        fetched_epoch: partition.last_fetched_epoch,
        max_bytes: partition.partition_max_bytes,
    })
}

/// Waits until there are enough bytes, something to say at once, or no time left.
async fn wait(shared: &Shared, terms: &Terms, wanted: &[Wanted], deadline: Instant) {
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        if wanted.is_empty() || shared.quietly(|state| is_enough(state, terms, wanted)) {
            return;
        }
        tokio::select! { biased;
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep_until(deadline) => return,
        }
    }
}

fn is_enough(state: &State, terms: &Terms, wanted: &[Wanted]) -> bool {
    let mut bytes = 0;
    for wanted in wanted {
        match look(state, terms, wanted) {
            Ok(Look::Readable { partition, before }) => {
                let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).max(1);
                let reading = Reading { offset: wanted.offset, before, max_bytes, whole_first: true };
                bytes += partition.log.available(&reading);
            }
            Ok(Look::Diverging { .. }) | Err(_) => return true,
        }
        if bytes >= terms.min_bytes {
            return true;
        }
    }
    bytes >= terms.min_bytes
}

/// What a partition has for a consumer.
enum Look<'a> {
    Readable {
        partition: &'a Partition,
        /// The offset that may not be read any more.
        before: i64,
    },
    Diverging {
        partition: &'a Partition,
        epoch: i32,
        end: i64,
    },
}

fn look<'a>(state: &'a State, terms: &Terms, wanted: &Wanted) -> Result<Look<'a>, ErrorCode> {
    let topic = state.resolve(&wanted.topic)?;
    let partition = topic.partition(wanted.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.check_fault()?;
    if terms.version >= FROM_FOLLOWER && partition.replicas.contains(&terms.node) && partition.leader.is_some() {
        partition.check_epoch(wanted.leader_epoch)?;
    } else {
        partition.check_leader(terms.node, wanted.leader_epoch)?;
    }
    let log = &partition.log;
    if knows_its_epoch(wanted) {
        let (epoch, end) = log.epochs.end_of(wanted.fetched_epoch, log.end());
        if epoch == NO_EPOCH || end == NO_OFFSET {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if epoch < wanted.fetched_epoch || end < wanted.offset {
            return Ok(Look::Diverging { partition, epoch, end });
        }
    }
    if wanted.offset < log.start() || wanted.offset > log.end() {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    let before = if terms.committed { log.last_stable() } else { log.end() };
    Ok(Look::Readable { partition, before })
}

fn answer(shared: &Shared, terms: &Terms, mode: Mode, wanted: Vec<Wanted>) -> FetchResponse {
    let (session_id, found, endpoints) = shared.quietly(|state| {
        let mut left = terms.max_bytes;
        let mut nothing_yet = true;
        let mut endpoints = BTreeMap::new();
        let mut found = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let mut here = read(state, terms, &wanted, left, nothing_yet);
            let bytes: usize = here.records.iter().map(Bytes::len).sum();
            nothing_yet &= bytes == 0;
            left = left.saturating_sub(bytes);
            if matches!(here.error, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
                && terms.version >= WITH_LEADER
            {
                here.leader = leader_hint(state, &wanted, &mut endpoints);
            }
            found.push((wanted, here));
        }
        let new_id = match mode {
            Mode::Open { .. } => state.new_session_id(),
            Mode::Sessionless | Mode::Incremental(_) => 0,
        };
        let (session_id, told) = match state.nodes.get_mut(&terms.node) {
            Some(node) => node.sessions.finish(mode, new_id, &found),
            None => (0, vec![true; found.len()]),
        };
        let found: Vec<(Wanted, Found)> =
            found.into_iter().zip(told).filter(|(_, told)| *told).map(|(found, _)| found).collect();
        (session_id, found, endpoints)
    });
    // The copying is done when nobody waits for the lock any more.
    let mut topics: Vec<(TopicRef, Vec<PartitionData>)> = Vec::new();
    for (wanted, found) in found {
        let data = partition_data(wanted.partition, found);
        match topics.last_mut() {
            Some((topic, partitions)) if *topic == wanted.topic => partitions.push(data),
            _ => topics.push((wanted.topic, vec![data])),
        }
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let response = FetchableTopicResponse::default().with_partitions(partitions);
        match topic {
            TopicRef::Name(name) => response.with_topic(topic_name(&name)).with_topic_id(NO_TOPIC_ID),
            TopicRef::Id(id) => response.with_topic_id(id),
        }
    });
    FetchResponse::default()
        .with_session_id(if terms.version >= 7 { session_id } else { 0 })
        .with_responses(topics.collect())
        .with_node_endpoints(endpoints.into_values().collect())
}

fn read(state: &State, terms: &Terms, wanted: &Wanted, left: usize, whole_first: bool) -> Found {
    let (partition, before) = match look(state, terms, wanted) {
        Ok(Look::Readable { partition, before }) => (partition, before),
        Ok(Look::Diverging { partition, epoch, end }) => {
            let (log, none) = (&partition.log, Found::error(ErrorCode::NONE));
            return Found {
                high_watermark: log.end(),
                last_stable: log.last_stable(),
                log_start: log.start(),
                diverging: Some((epoch, end)),
                ..none
            };
        }
        Err(code) => return Found::error(code),
    };
    let log = &partition.log;
    let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
    Found {
        error: ErrorCode::NONE,
        high_watermark: log.end(),
        last_stable: log.last_stable(),
        log_start: log.start(),
        diverging: None,
        leader: None,
        aborted: terms.committed.then(|| log.aborted_within(wanted.offset, before)),
        records: log.read(&Reading { offset: wanted.offset, before, max_bytes, whole_first }),
    }
}

fn leader_hint(state: &State, wanted: &Wanted, endpoints: &mut BTreeMap<i32, NodeEndpoint>) -> Option<(i32, i32)> {
    let partition = state.resolve(&wanted.topic).ok()?.partition(wanted.partition)?;
    let leader = partition.leader?;
    let node = state.nodes.get(&leader)?;
    let endpoint = NodeEndpoint::default().with_node_id(BrokerId(leader)).with_host(text(&node.host));
    endpoints.insert(leader, endpoint.with_port(i32::from(node.port)));
    Some((leader, partition.leader_epoch))
}

fn partition_data(index: i32, found: Found) -> PartitionData {
    let records = match &found.records[..] {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| all.extend_from_slice(piece));
            all.freeze()
        }
    };
    let aborted = found.aborted.map(|aborted| {
        let transaction = |aborted: &crate::log::Aborted| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(aborted.producer_id))
                .with_first_offset(aborted.first_offset)
        };
        aborted.iter().map(transaction).collect()
    });
    let diverging =
        found.diverging.map(|(epoch, end)| EpochEndOffset::default().with_epoch(epoch).with_end_offset(end));
    let leader = found
        .leader
        .map(|(leader, epoch)| LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch));
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(found.error.0)
        .with_high_watermark(found.high_watermark)
        .with_last_stable_offset(found.last_stable)
        .with_log_start_offset(found.log_start)
        .with_diverging_epoch(diverging.unwrap_or_default())
        .with_current_leader(leader.unwrap_or_default())
        .with_aborted_transactions(aborted)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(records))
}
