//! Questions about logs: where they begin and end (ListOffsets), and where an epoch ends (OffsetForLeaderEpoch).

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
    protocol::StrBytes,
};

use super::{Isolation, position::Position, session::Key};
use crate::{
    cluster::{Cluster, NodeId, Purpose},
    connection::RequestError,
    error_code::ErrorCode,
};

/// ListOffsets' timestamp for the end of the log.
pub(crate) const LATEST: i64 = -1;
/// ListOffsets' timestamp for the start of the log.
pub(crate) const EARLIEST: i64 = -2;

/// One partition's answer.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) code: ErrorCode,
    /// -1 = no such offset.
    pub(crate) offset: i64,
    /// -1 = unknown.
    pub(crate) epoch: i32,
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A topic with an item for each of some partitions.
type OfTopic<T> = (Arc<str>, Vec<(i32, T)>);

/// Items of one topic after the other, grouped.
fn by_topic<T>(items: Vec<(Key, T)>) -> Vec<OfTopic<T>> {
    let mut topics: Vec<OfTopic<T>> = Vec::new();
    for ((topic, partition), item) in items {
        match topics.last_mut() {
            Some((last, partitions)) if *last == topic => partitions.push((partition, item)),
            _ => topics.push((topic, vec![(partition, item)])),
        }
    }
    topics
}

/// The offsets of `timestamps` (milliseconds, [`LATEST`] or [`EARLIEST`]), asked of their leader.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    leader: NodeId,
    isolation: Isolation,
    timestamps: Vec<(Key, i64)>,
) -> Result<Vec<Found>, RequestError> {
    let level = match isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    };
    let timeout = cluster.config().request_timeout;
    let build = move |_| {
        let topics = by_topic(timestamps).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(partition, timestamp)| {
                ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp)
            });
            ListOffsetsTopic::default().with_name(name(&topic)).with_partitions(partitions.collect())
        });
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(level)
            .with_topics(topics.collect())
    };
    let (_, answer) = cluster.call::<ListOffsetsRequest>(leader, Purpose::General, timeout, build).await?;
    let mut found = Vec::new();
    for topic in &answer.topics {
        let topic_name: Arc<str> = topic.name.as_str().into();
        found.extend(topic.partitions.iter().map(|partition| Found {
            key: (topic_name.clone(), partition.partition_index),
            code: ErrorCode(partition.error_code),
            offset: partition.offset,
            epoch: partition.leader_epoch,
        }));
    }
    Ok(found)
}

/// A position to validate, and the leader epoch of its partition as we know it.
pub(super) type ToCheck = (Key, (Position, i32));

/// Where the epochs of these positions end in the leader's log; `current` is the leader epoch as we know it.
pub(super) async fn epoch_ends(
    cluster: &Cluster,
    leader: NodeId,
    positions: Vec<ToCheck>,
) -> Result<Vec<Found>, RequestError> {
    let timeout = cluster.config().request_timeout;
    let build = move |_| {
        let topics = by_topic(positions).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(partition, (position, current))| {
                OffsetForLeaderPartition::default()
                    .with_partition(partition)
                    .with_current_leader_epoch(current)
                    .with_leader_epoch(position.epoch)
            });
            OffsetForLeaderTopic::default().with_topic(name(&topic)).with_partitions(partitions.collect())
        });
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect())
    };
    let (_, answer) = cluster.call::<OffsetForLeaderEpochRequest>(leader, Purpose::General, timeout, build).await?;
    let mut found = Vec::new();
    for topic in &answer.topics {
        let topic_name: Arc<str> = topic.topic.as_str().into();
        found.extend(topic.partitions.iter().map(|partition| Found {
            key: (topic_name.clone(), partition.partition),
            code: ErrorCode(partition.error_code),
            offset: partition.end_offset,
            epoch: partition.leader_epoch,
        }));
    }
    Ok(found)
}
