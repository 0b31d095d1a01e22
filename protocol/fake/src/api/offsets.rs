//! ListOffsets and OffsetForLeaderEpoch: what is asked of a log beside its records.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use protocol::error_code::ErrorCode;

use super::{Api, Caller, Served, throttled};
use crate::epochs::{NO_EPOCH, NO_OFFSET};
use crate::sessions::TopicRef;
use crate::shared::Shared;
use crate::state::State;
use crate::topic::Partition;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734), from version 7 on.
const MAX_TIMESTAMP: i64 = -3;
/// The earliest offset that is not on remote storage, from version 8 on. This cluster has none.
const EARLIEST_LOCAL: i64 = -4;
/// The latest offset on remote storage, from version 9 on.
const LATEST_TIERED: i64 = -5;
const READ_COMMITTED: i8 = 1;

fn led<'a>(
    state: &'a State,
    node: i32,
    topic: &str,
    index: i32,
    current_epoch: i32,
) -> Result<&'a Partition, ErrorCode> {
    let topic = state.resolve(&TopicRef::Name(topic.to_owned()))?;
    let partition = topic.partition(index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.check_leader(node, current_epoch)?;
    Ok(partition)
}

/// An offset, its time and its leader epoch; -1 where there is none.
struct Listed {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

const NOT_FOUND: Listed = Listed { offset: NO_OFFSET, timestamp: -1, epoch: NO_EPOCH };

fn list(partition: &Partition, version: i16, committed: bool, timestamp: i64) -> Result<Listed, ErrorCode> {
    let log = &partition.log;
    let at = |offset, timestamp| Listed { offset, timestamp, epoch: log.epochs.of(offset) };
    match timestamp {
        LATEST => {
            let offset = if committed { log.last_stable() } else { log.end() };
            Ok(Listed { offset, timestamp: -1, epoch: partition.leader_epoch })
        }
        EARLIEST => Ok(at(log.start(), -1)),
        EARLIEST_LOCAL if version >= 8 => Ok(at(log.start(), -1)),
        LATEST_TIERED if version >= 9 => Ok(NOT_FOUND),
        MAX_TIMESTAMP if version >= 7 => Ok(log.newest().map_or(NOT_FOUND, |(offset, time)| at(offset, time))),
        timestamp if timestamp >= 0 => {
            Ok(log.first_since(timestamp).map_or(NOT_FOUND, |(offset, time)| at(offset, time)))
        }
        _ => Err(ErrorCode::UNSUPPORTED_VERSION),
    }
}

fn listed(
    asked: &ListOffsetsPartition,
    version: i16,
    listed: Result<Listed, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    match listed {
        Ok(listed) => answer
            .with_offset(listed.offset)
            .with_timestamp(listed.timestamp)
            .with_leader_epoch(if version >= 4 { listed.epoch } else { NO_EPOCH }),
        Err(code) => {
            answer.with_error_code(code.0).with_offset(NO_OFFSET).with_timestamp(-1).with_leader_epoch(NO_EPOCH)
        }
    }
}

impl Api for ListOffsetsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let committed = self.isolation_level == READ_COMMITTED;
        let mut seen = BTreeSet::new();
        let mut twice = BTreeSet::new();
        for topic in &self.topics {
            for asked in &topic.partitions {
                let key = (topic.name.as_str(), asked.partition_index);
                if !seen.insert(key) {
                    twice.insert(key);
                }
            }
        }
        let topics = shared.quietly(|state| {
            let one = |topic: &str, asked: &ListOffsetsPartition| {
                let (index, epoch) = (asked.partition_index, asked.current_leader_epoch);
                let answer = if twice.contains(&(topic, index)) {
                    Err(ErrorCode::INVALID_REQUEST)
                } else {
                    led(state, caller.node, topic, index, epoch)
                        .and_then(|partition| list(partition, caller.version, committed, asked.timestamp))
                };
                listed(asked, caller.version, answer)
            };
            let topics = self.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|asked| one(&topic.name, asked)).collect();
                ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
            });
            topics.collect()
        });
        Served::Answer(ListOffsetsResponse::default().with_topics(topics))
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let topics = self.topics.iter().map(|topic| {
            let refused = |asked| listed(asked, version, Err(ErrorCode(code)));
            let partitions = topic.partitions.iter().map(refused).collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    throttled!();
}

fn epoch_end(asked: &OffsetForLeaderPartition, found: Result<(i32, i64), ErrorCode>) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(asked.partition);
    match found {
        Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
        Err(code) => answer.with_error_code(code.0).with_leader_epoch(NO_EPOCH).with_end_offset(NO_OFFSET),
    }
}

impl Api for OffsetForLeaderEpochRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let topics = shared.quietly(|state| {
            let one = |topic: &str, asked: &OffsetForLeaderPartition| {
                let partition = led(state, caller.node, topic, asked.partition, asked.current_leader_epoch);
                let end = |partition: &Partition| {
                    let log = &partition.log;
                    log.epochs.end_of(asked.leader_epoch, log.end())
                };
                epoch_end(asked, partition.map(end))
            };
            let topics = self.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|asked| one(&topic.topic, asked)).collect();
                OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
            });
            topics.collect()
        });
        Served::Answer(OffsetForLeaderEpochResponse::default().with_topics(topics))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| epoch_end(asked, Err(ErrorCode(code)))).collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    throttled!();
}
