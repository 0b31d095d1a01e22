//! One fetch request on the wire, and its answer by partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, FetchRequest, TopicName,
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
    cluster::{Broker, Call, Cluster, NodeId, Purpose},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
    message::{self, CurrentLeader, FetchResponse, FetchedPartition, TopicKey},
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
    pub(super) partitions: Vec<(Key, FetchedPartition)>,
    endpoints: BTreeMap<NodeId, Broker>,
}

/// A newer leader, as [`Cluster::apply_leader_hint`] takes it.
pub(super) type LeaderHint = (Arc<str>, i32, NodeId, i32, Option<(NodeId, Broker)>);

impl FetchAnswer {
    pub(super) fn leader_hints(&self) -> Vec<LeaderHint> {
        let hints = self.partitions.iter().filter_map(|(key, partition)| {
            let CurrentLeader { leader, epoch } = partition.current_leader?;
            let endpoint = self.endpoints.get(&leader).map(|broker| (leader, broker.clone()));
            Some((key.0.clone(), key.1, leader, epoch, endpoint))
        });
        hints.collect()
    }
}

/// Sends the request of `plan`, which the broker may hold for `wait`; `names` are the topics that may be in the answer.
pub(super) fn ask(
    cluster: &Cluster,
    leader: NodeId,
    socket: u32,
    (config, wait): (&ConsumerConfig, Duration),
    plan: Plan,
    names: BTreeSet<(Uuid, Arc<str>)>,
) -> BoxFuture<Result<FetchAnswer, RequestError>> {
    let timeout = config.request_timeout + wait;
    let config = config.clone();
    let topic_ids = names.iter().all(|(id, _)| !id.is_nil()) && plan.forget.iter().all(|(_, id)| !id.is_nil());
    let call = Call { api_key: ApiKey::Fetch as i16, expects_answer: true, topic_ids };
    let encode = move |version, client_id: &str| {
        message::encode_request(&request(version, (&config, wait), plan), version, 0, client_id)
    };
    let asked = cluster.call_raw(leader, Purpose::Fetch(socket), timeout, call, encode);
    Box::pin(async move {
        let (connection, answer) = asked.await?;
        let answer = answer.ok_or_else(|| connection.unanswered())?;
        let response = FetchResponse::decode(answer.version, &answer.body)
            .map_err(|error| RequestError::undecodable(connection.address(), error))?;
        connection.throttle(response.throttle_time_ms);
        Ok(by_name(response, &names))
    })
}

fn request(version: i16, (config, wait): (&ConsumerConfig, Duration), plan: Plan) -> FetchRequest {
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
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
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

/// What is of no topic that was asked for is left out.
fn by_name(response: FetchResponse, names: &BTreeSet<(Uuid, Arc<str>)>) -> FetchAnswer {
    let mut read = FetchAnswer {
        error: response.error,
        session_id: response.session_id,
        bytes: 0,
        partitions: Vec::new(),
        endpoints: BTreeMap::new(),
    };
    for endpoint in response.node_endpoints {
        if let Ok(port) = u16::try_from(endpoint.port) {
            read.endpoints.insert(endpoint.node, Broker { host: endpoint.host.into(), port, rack: None });
        }
    }
    for partition in response.partitions {
        let found = names.iter().find(|(id, name)| match &partition.topic {
            TopicKey::Id(told) => id == told,
            TopicKey::Name(told) => **name == **told,
        });
        if let Some((_, name)) = found {
            read.bytes += partition.records.len();
            read.partitions.push(((name.clone(), partition.partition), partition));
        }
    }
    read
}
