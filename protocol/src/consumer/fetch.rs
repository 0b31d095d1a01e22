//! One fetch request on the wire, and its answer by partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse, TopicName,
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    ConsumerConfig, Isolation,
    session::{Key, Plan},
};
use crate::{
    cluster::{Broker, Cluster, NodeId, Purpose},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
    record::AbortedTransaction,
};

/// Topics travel by id from this version on.
const BY_TOPIC_ID: i16 = 13;

/// A fetch answer, with topics by name.
pub(super) struct FetchAnswer {
    /// Of the whole request.
    pub(super) error: ErrorCode,
    pub(super) session_id: i32,
    /// Bytes of records in it.
    pub(super) bytes: usize,
    pub(super) partitions: Vec<FetchedPartition>,
    endpoints: BTreeMap<NodeId, Broker>,
}

pub(super) struct FetchedPartition {
    pub(super) key: Key,
    pub(super) code: ErrorCode,
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) aborted: Vec<AbortedTransaction>,
    /// Epoch and offset up to which the logs agree, if they do not agree at our position.
    pub(super) diverging: Option<(i32, i64)>,
    pub(super) records: Bytes,
    /// Leader and epoch, where the broker tells a newer one (KIP-951).
    leader: Option<(NodeId, i32)>,
}

/// A newer leader, as [`Cluster::apply_leader_hint`] takes it.
pub(super) type LeaderHint = (Arc<str>, i32, NodeId, i32, Option<(NodeId, Broker)>);

impl FetchAnswer {
    pub(super) fn leader_hints(&self) -> Vec<LeaderHint> {
        let hints = self.partitions.iter().filter_map(|partition| {
            let (leader, epoch) = partition.leader?;
            let endpoint = self.endpoints.get(&leader).map(|broker| (leader, broker.clone()));
            Some((partition.key.0.clone(), partition.key.1, leader, epoch, endpoint))
        });
        hints.collect()
    }
}

/// Sends the request of `plan`; `names` are the topics that may be in the answer.
pub(super) fn ask(
    cluster: &Cluster,
    leader: NodeId,
    socket: u32,
    config: &ConsumerConfig,
    plan: Plan,
    names: BTreeSet<(Uuid, Arc<str>)>,
) -> BoxFuture<Result<FetchAnswer, RequestError>> {
    let timeout = config.request_timeout + config.fetch_max_wait;
    let config = config.clone();
    let asked = cluster
        .call::<FetchRequest>(leader, Purpose::Fetch(socket), timeout, move |version| request(version, &config, plan));
    Box::pin(async move {
        let (version, answer) = asked.await?;
        Ok(read(version, answer, &names))
    })
}

fn request(version: i16, config: &ConsumerConfig, plan: Plan) -> FetchRequest {
    let clamp = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let name = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut last: Option<(Arc<str>, Uuid)> = None;
    for ((topic, partition), wanted) in plan.send {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(wanted.leader_epoch)
            .with_fetch_offset(wanted.offset)
            .with_last_fetched_epoch(wanted.last_fetched_epoch)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(wanted.max_bytes);
        let this = (topic, wanted.topic_id);
        match topics.last_mut() {
            Some(current) if last.as_ref() == Some(&this) => current.partitions.push(asked),
            _ => {
                let mut entry = FetchTopic::default().with_partitions(vec![asked]);
                if version >= BY_TOPIC_ID {
                    entry.topic_id = this.1;
                } else {
                    entry.topic = name(&this.0);
                }
                topics.push(entry);
                last = Some(this);
            }
        }
    }
    let forgotten = plan.forget.into_iter().map(|((topic, partition), id)| {
        let entry = ForgottenTopic::default().with_partitions(vec![partition]);
        if version >= BY_TOPIC_ID { entry.with_topic_id(id) } else { entry.with_topic(name(&topic)) }
    });
    let mut request = FetchRequest::default()
        .with_max_wait_ms(i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(clamp(config.fetch_min_bytes))
        .with_max_bytes(clamp(config.fetch_max_bytes))
        .with_isolation_level(i8::from(config.isolation == Isolation::ReadCommitted))
        .with_session_id(plan.session_id)
        .with_session_epoch(plan.session_epoch)
        .with_topics(topics);
    if version < 15 {
        request.replica_id = BrokerId(-1);
    }
    if version >= 7 {
        request.forgotten_topics_data = forgotten.collect();
    }
    if version >= 11
        && let Some(rack) = &config.rack
    {
        request.rack_id = StrBytes::from_string(rack.clone());
    }
    request
}

fn read(version: i16, answer: FetchResponse, names: &BTreeSet<(Uuid, Arc<str>)>) -> FetchAnswer {
    let mut read = FetchAnswer {
        error: ErrorCode(answer.error_code),
        session_id: answer.session_id,
        bytes: 0,
        partitions: Vec::new(),
        endpoints: BTreeMap::new(),
    };
    for endpoint in &answer.node_endpoints {
        if let Ok(port) = u16::try_from(endpoint.port) {
            let broker = Broker { host: endpoint.host.as_str().into(), port, rack: None };
            read.endpoints.insert(endpoint.node_id.0, broker);
        }
    }
    for topic in answer.responses {
        let found = names.iter().find(|(id, name)| {
            if version >= BY_TOPIC_ID { *id == topic.topic_id } else { **name == *topic.topic.as_str() }
        });
        let Some((_, name)) = found else { continue };
        for partition in topic.partitions {
            let records = partition.records.unwrap_or_default();
            read.bytes += records.len();
            let diverging = &partition.diverging_epoch;
            let leader = &partition.current_leader;
            let aborted = partition.aborted_transactions.unwrap_or_default();
            read.partitions.push(FetchedPartition {
                key: (name.clone(), partition.partition_index),
                code: ErrorCode(partition.error_code),
                high_watermark: partition.high_watermark,
                last_stable_offset: partition.last_stable_offset,
                aborted: aborted
                    .iter()
                    .map(|one| AbortedTransaction { producer_id: one.producer_id.0, first_offset: one.first_offset })
                    .collect(),
                diverging: Some((diverging.epoch, diverging.end_offset)).filter(|(_, end)| *end >= 0),
                records,
                leader: Some((leader.leader_id.0, leader.leader_epoch)).filter(|(node, _)| *node >= 0),
            });
        }
    }
    read
}
