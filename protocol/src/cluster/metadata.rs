//! An immutable picture of the cluster, and how an answer or a hint makes the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::MetadataResponse;
use uuid::Uuid;

use super::NodeId;
use crate::error_code::ErrorCode;

/// Brokers and topics as one metadata answer told them. Topics are those that somebody watches.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    pub cluster_id: Option<Arc<str>>,
    pub controller: Option<NodeId>,
    pub brokers: BTreeMap<NodeId, Broker>,
    pub topics: BTreeMap<Arc<str>, Topic>,
    /// Grows with every picture; 0 before the first answer.
    pub version: u64,
    /// The newest refresh ticket that this picture serves.
    pub(super) ticket: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub host: Arc<str>,
    pub port: u16,
    pub rack: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub struct Topic {
    /// Nil where the broker tells no topic ids.
    pub id: Uuid,
    pub error: ErrorCode,
    /// By index; a topic that does not exist has none.
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub leader: Option<NodeId>,
    /// -1 where the broker does not tell it.
    pub leader_epoch: i32,
    pub error: ErrorCode,
    pub replicas: Vec<NodeId>,
}

impl Metadata {
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        let partitions = &self.topics.get(topic)?.partitions;
        partitions.get(usize::try_from(partition).ok()?).filter(|found| found.index == partition)
    }

    pub fn leader(&self, topic: &str, partition: i32) -> Option<NodeId> {
        self.partition(topic, partition)?.leader
    }

    /// The name of a topic id that a broker answered with.
    pub fn topic_name(&self, id: Uuid) -> Option<&Arc<str>> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name)
    }

    /// The next picture. A topic that the answer reports with a retriable error keeps the partitions it had, and a leader
    /// with an older epoch than the known one does not replace it.
    pub(super) fn advance(&self, answer: &MetadataResponse, watched: &BTreeSet<Arc<str>>, ticket: u64) -> Self {
        let brokers: BTreeMap<NodeId, Broker> = answer
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                let rack = broker.rack.as_ref().map(|rack| Arc::from(rack.as_str()));
                Some((broker.node_id.0, Broker { host: broker.host.as_str().into(), port, rack }))
            })
            .collect();
        let mut topics = BTreeMap::new();
        for answered in &answer.topics {
            let Some(name) = answered.name.as_ref().and_then(|name| watched.get(name.as_str())) else { continue };
            let error = ErrorCode(answered.error_code);
            let known = self.topics.get(name);
            let topic = match known {
                Some(known) if error.retriable() && error != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                    Topic { error, ..known.clone() }
                }
                _ => {
                    let known = known.filter(|known| known.id == answered.topic_id);
                    let mut partitions: Vec<Partition> = answered
                        .partitions
                        .iter()
                        .map(|partition| {
                            let fresh = Partition {
                                index: partition.partition_index,
                                leader: Some(partition.leader_id.0).filter(|node| *node >= 0),
                                leader_epoch: partition.leader_epoch,
                                error: ErrorCode(partition.error_code),
                                replicas: partition.replica_nodes.iter().map(|node| node.0).collect(),
                            };
                            known
                                .and_then(|topic| topic.partitions.get(usize::try_from(fresh.index).ok()?))
                                .filter(|old| old.index == fresh.index && old.leader_epoch > fresh.leader_epoch)
                                .cloned()
                                .unwrap_or(fresh)
                        })
                        .collect();
                    partitions.sort_by_key(|partition| partition.index);
                    Topic { id: answered.topic_id, error, partitions }
                }
            };
            topics.insert(name.clone(), topic);
        }
        Self {
            cluster_id: answer.cluster_id.as_ref().map(|id| id.as_str().into()),
            controller: Some(answer.controller_id.0).filter(|node| *node >= 0),
            brokers,
            topics,
            version: self.version + 1,
            ticket,
        }
    }

    /// The next picture with one leader as a produce or fetch answer told it (KIP-951); None if it is no news.
    pub(super) fn with_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: NodeId,
        epoch: i32,
        endpoint: Option<(NodeId, Broker)>,
    ) -> Option<Self> {
        let known = self.partition(topic, partition)?;
        let reachable =
            endpoint.as_ref().is_some_and(|(node, _)| *node == leader) || self.brokers.contains_key(&leader);
        if epoch <= known.leader_epoch || !reachable {
            return None;
        }
        let mut next = self.clone();
        next.version += 1;
        next.brokers.extend(endpoint);
        let place = next.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(partition).ok()?)?;
        place.leader = Some(leader);
        place.leader_epoch = epoch;
        place.error = ErrorCode::NONE;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, TopicName,
            metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        },
        protocol::StrBytes,
    };

    use super::*;

    fn answer(error: i16, leader: i32, epoch: i32) -> MetadataResponse {
        let broker = |id: i32| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str("h"))
                .with_port(9092 + id)
        };
        let partitions = (error == 0)
            .then(|| {
                MetadataResponsePartition::default()
                    .with_partition_index(0)
                    .with_leader_id(BrokerId(leader))
                    .with_leader_epoch(epoch)
            })
            .into_iter()
            .collect();
        MetadataResponse::default().with_brokers(vec![broker(1), broker(2)]).with_topics(vec![
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
                .with_error_code(error)
                .with_partitions(partitions),
        ])
    }

    fn watched() -> BTreeSet<Arc<str>> {
        BTreeSet::from([Arc::from("t")])
    }

    #[test]
    fn an_older_leader_does_not_replace_a_newer_one() {
        let first = Metadata::default().advance(&answer(0, 1, 5), &watched(), 1);
        assert_eq!(first.leader("t", 0), Some(1));
        assert_eq!(first.advance(&answer(0, 2, 4), &watched(), 2).leader("t", 0), Some(1));
        assert_eq!(first.advance(&answer(0, 2, 6), &watched(), 2).leader("t", 0), Some(2));
    }

    #[test]
    fn a_passing_error_keeps_the_partitions_and_a_missing_topic_has_none() {
        let first = Metadata::default().advance(&answer(0, 1, 5), &watched(), 1);
        let leaderless = first.advance(&answer(ErrorCode::LEADER_NOT_AVAILABLE.0, -1, 0), &watched(), 2);
        assert_eq!(leaderless.leader("t", 0), Some(1));
        let gone = first.advance(&answer(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0, -1, 0), &watched(), 2);
        assert_eq!(gone.leader("t", 0), None);
    }

    #[test]
    fn a_leader_hint_counts_only_if_it_is_newer_and_reachable() {
        let first = Metadata::default().advance(&answer(0, 1, 5), &watched(), 1);
        assert!(first.with_leader("t", 0, 2, 5, None).is_none());
        assert!(first.with_leader("t", 0, 3, 6, None).is_none());
        assert!(first.with_leader("other", 0, 2, 6, None).is_none());
        let moved = first.with_leader("t", 0, 2, 6, None).expect("news");
        assert_eq!(moved.leader("t", 0), Some(2));
        let far = Broker { host: "x".into(), port: 1, rack: None };
        assert_eq!(first.with_leader("t", 0, 3, 6, Some((3, far))).expect("news").leader("t", 0), Some(3));
    }
}
