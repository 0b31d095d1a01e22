//! Produce and InitProducerId.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    BrokerId, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};
use protocol::error_code::ErrorCode;
use protocol::record::BatchHeader;
use uuid::Uuid;

use super::{Api, Caller, Served, throttled};
use crate::incoming::{Demands, Incoming, Refusal};
use crate::log::Appended;
use crate::names::text;
use crate::sessions::TopicRef;
use crate::shared::{Shared, wall_clock_ms};
use crate::state::State;

/// The version from which topics are named by id.
const BY_ID: i16 = 13;
/// The version from which a wrong node says who leads (KIP-951).
const WITH_LEADER: i16 = 10;

/// What became of one partition's records.
struct Written {
    appended: Appended,
    log_start: i64,
}

/// One partition of a request, with what its records say of themselves.
struct Part {
    index: i32,
    incoming: Result<Incoming, Refusal>,
}

impl Api for ProduceRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let acks = self.acks;
        if !matches!(acks, -1..=1) {
            return Served::Answer(self.refuse(caller.version, ErrorCode::INVALID_REQUIRED_ACKS.0));
        }
        if self.topic_data.iter().flat_map(|topic| &topic.partition_data).any(is_transactional) {
            // This cluster has no transactions, so nobody may write in one.
            return Served::Answer(self.refuse(caller.version, ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED.0));
        }
        let mut topics = Vec::with_capacity(self.topic_data.len());
        for topic in self.topic_data {
            let parse = |index, records| Part { index, incoming: Incoming::parse(caller.version, records) };
            let parts: Vec<Part> =
                topic.partition_data.into_iter().map(|partition| parse(partition.index, partition.records)).collect();
            topics.push((topic.name, topic.topic_id, parts));
        }
        let (response, failed) = shared.change(|state| {
            let mut failed = false;
            let mut leaders = BTreeMap::new();
            let mut responses = Vec::with_capacity(topics.len());
            for (name, id, parts) in topics {
                let topic = if caller.version >= BY_ID { TopicRef::Id(id) } else { TopicRef::Name(name.to_string()) };
                let mut partitions = Vec::with_capacity(parts.len());
                for part in parts {
                    let written = append(state, caller.node, &topic, part.index, acks, part.incoming);
                    failed |= written.is_err();
                    let mut answer = partition_answer(part.index, written);
                    if answer.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER.0 && caller.version >= WITH_LEADER {
                        answer.current_leader = leader_hint(state, &topic, part.index, &mut leaders);
                    }
                    partitions.push(answer);
                }
                let response = TopicProduceResponse::default().with_name(name).with_topic_id(id);
                responses.push(response.with_partition_responses(partitions));
            }
            let endpoints = leaders.into_values().collect();
            (ProduceResponse::default().with_responses(responses).with_node_endpoints(endpoints), failed)
        });
        match (acks, failed) {
            (0, true) => Served::Close,
            (0, false) => Served::Silence,
            _ => Served::Answer(response),
        }
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let partition = |index| {
            PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(code)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
        };
        let topics = self.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|data| partition(data.index)).collect();
            let response = TopicProduceResponse::default().with_partition_responses(partitions);
            if version >= BY_ID {
                response.with_topic_id(topic.topic_id)
            } else {
                response.with_name(topic.name.clone())
            }
        });
        ProduceResponse::default().with_responses(topics.collect())
    }

    throttled!();
}

fn is_transactional(partition: &PartitionProduceData) -> bool {
    let header = partition.records.as_ref().and_then(|records| BatchHeader::parse(records).ok());
    header.is_some_and(|header| header.magic == 2 && header.is_transactional())
}

/// The checks in Kafka's order, then the append.
fn append(
    state: &mut State,
    node: i32,
    topic: &TopicRef,
    index: i32,
    acks: i16,
    incoming: Result<Incoming, Refusal>,
) -> Result<Written, Refusal> {
    let (cluster_max, retention) = (state.settings.max_message_bytes, state.settings.retention_bytes);
    let topic = state.resolve_mut(topic).map_err(Refusal::bare)?;
    let incoming = incoming?;
    let config = topic.config.clone();
    let partition = topic.partition_mut(index).ok_or(Refusal::bare(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    partition.check_leader(node, -1).map_err(Refusal::bare)?;
    if acks == -1 && partition.in_sync.len() < config.min_in_sync() {
        let (have, need) = (partition.in_sync.len(), config.min_in_sync());
        let message = format!("{have} replicas are in sync, min.insync.replicas is {need}");
        return Err(Refusal::new(ErrorCode::NOT_ENOUGH_REPLICAS, message));
    }
    let now = wall_clock_ms();
    let contents = incoming.check(&Demands {
        max_message_bytes: config.max_message_bytes(cluster_max),
        compacted: config.compacted(),
        log_append_time: config.log_append_time(),
        now,
        timestamp_after_max: config.timestamp_after_max(),
    })?;
    let log_append_time = config.log_append_time().then_some(now);
    let appended = partition
        .log
        .append(&incoming.batch, partition.leader_epoch, log_append_time, contents.max_timestamp)
        .map_err(Refusal::bare)?;
    if let Some(bytes) = config.retention_bytes(retention) {
        partition.log.retain_bytes(bytes);
    }
    Ok(Written { appended, log_start: partition.log.start() })
}

fn partition_answer(index: i32, written: Result<Written, Refusal>) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    match written {
        Ok(Written { appended, log_start }) => answer
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time)
            .with_log_start_offset(log_start),
        Err(refusal) => {
            let record = |(index, reason): &(i32, &'static str)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(Some(text(reason)))
            };
            answer
                .with_error_code(refusal.code.0)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
                .with_record_errors(refusal.records.iter().map(record).collect())
                .with_error_message(refusal.message.as_deref().map(text))
        }
    }
}

/// Who leads, for a client that asked another; the address goes to `endpoints`.
fn leader_hint(
    state: &State,
    topic: &TopicRef,
    index: i32,
    endpoints: &mut BTreeMap<i32, NodeEndpoint>,
) -> LeaderIdAndEpoch {
    let partition = state.resolve(topic).ok().and_then(|topic| topic.partition(index));
    let Some((partition, leader)) = partition.and_then(|partition| Some((partition, partition.leader?))) else {
        return LeaderIdAndEpoch::default();
    };
    if let Some(node) = state.nodes.get(&leader) {
        let endpoint = NodeEndpoint::default().with_node_id(BrokerId(leader)).with_host(text(&node.host));
        endpoints.insert(leader, endpoint.with_port(i32::from(node.port)));
    }
    LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(partition.leader_epoch)
}

impl Api for InitProducerIdRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        if self.transactional_id.is_some() {
            // This cluster has no transactions: fatal to the client, rather than something to wait for.
            return Served::Answer(self.refuse(caller.version, ErrorCode::INVALID_REQUEST.0));
        }
        // An id and epoch that the client names are only looked at with a transactional id.
        let id = shared.quietly(|state| state.new_producer_id());
        Served::Answer(InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    }

    throttled!();
}

/// What the wire has for "no topic id".
pub(super) const NO_TOPIC_ID: Uuid = Uuid::nil();
