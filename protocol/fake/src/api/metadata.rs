//! Metadata: topics by name, by id, or all; and creation in passing.

use std::sync::Arc;

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use protocol::error_code::ErrorCode;

use super::produce::NO_TOPIC_ID;
use super::{Api, Caller, Served, throttled};
use crate::names::{broker_id, text, topic_name};
use crate::shared::Shared;
use crate::state::State;
use crate::topic::{Topic, TopicConfig, is_valid_name};

impl Api for MetadataRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let version = caller.version;
        // Version 0 asks for all by naming none; later ones by a list that is null.
        let asked = self.topics.filter(|topics| version >= 1 || !topics.is_empty());
        let response = shared.change(|state| {
            let topics = match asked {
                None => state.topics().map(|(name, topic)| described(state, name, topic)).collect(),
                Some(asked) => {
                    let mut topics = Vec::with_capacity(asked.len());
                    for wanted in asked {
                        topics.push(match wanted.name {
                            Some(name) if wanted.topic_id == NO_TOPIC_ID => {
                                by_name(state, &name, self.allow_auto_topic_creation)
                            }
                            _ => by_id(state, wanted.topic_id, version),
                        });
                    }
                    topics
                }
            };
            let brokers = state.nodes.iter().filter(|(_, node)| node.alive).map(|(id, node)| {
                let broker = MetadataResponseBroker::default().with_node_id(BrokerId(*id));
                broker.with_host(text(&node.host)).with_port(i32::from(node.port))
            });
            MetadataResponse::default()
                .with_brokers(brokers.collect())
                .with_cluster_id(Some(text(&state.settings.cluster_id)))
                .with_controller_id(broker_id(state.alive().next()))
                .with_topics(topics)
        });
        Served::Answer(response)
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let topics = self.topics.iter().flatten().map(|topic| {
            let name = topic.name.clone().or_else(|| (version < 12).then(|| topic_name("")));
            MetadataResponseTopic::default().with_error_code(code).with_name(name).with_topic_id(topic.topic_id)
        });
        let response = MetadataResponse::default().with_controller_id(BrokerId(-1)).with_topics(topics.collect());
        if version >= 13 { response.with_error_code(code) } else { response }
    }

    throttled!();
}

fn by_name(state: &mut State, name: &str, may_create: bool) -> MetadataResponseTopic {
    if let Some(topic) = state.topic(name) {
        return described(state, name, topic);
    }
    let answer = MetadataResponseTopic::default().with_name(Some(topic_name(name)));
    if !is_valid_name(name) {
        return answer.with_error_code(ErrorCode::INVALID_TOPIC_EXCEPTION.0);
    }
    if may_create && state.settings.auto_create {
        let (partitions, replication) = (state.settings.default_partitions, state.default_replication());
        match state.plan_topic(name, partitions, replication) {
            Ok(replicas) => {
                state.add_topic(name, replicas, TopicConfig::default());
            }
            Err((code, _)) => return answer.with_error_code(code.0),
        }
    }
    // Also for a topic that was created just now: it is there for the next request.
    answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0)
}

fn by_id(state: &State, id: uuid::Uuid, version: i16) -> MetadataResponseTopic {
    if let Some((name, topic)) = state.name_of(id).and_then(|name| Some((name, state.topic(name)?))) {
        return described(state, name, topic);
    }
    MetadataResponseTopic::default()
        .with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0)
        .with_name((version < 12).then(|| topic_name("")))
        .with_topic_id(id)
}

fn described(state: &State, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let ids = |nodes: &[i32]| nodes.iter().map(|node| BrokerId(*node)).collect::<Vec<_>>();
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let offline: Vec<i32> = partition.replicas.iter().copied().filter(|node| !state.is_alive(*node)).collect();
        let error = if partition.leader.is_some() { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE };
        MetadataResponsePartition::default()
            .with_error_code(error.0)
            .with_partition_index(index)
            .with_leader_id(broker_id(partition.leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.in_sync))
            .with_offline_replicas(ids(&offline))
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}
