//! The requests of a classic group member, and what their answers say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
        OffsetFetchResponse, SyncGroupRequest, TopicName,
        consumer_protocol_assignment::TopicPartition as AssignedTopic,
        consumer_protocol_subscription::TopicPartition as OwnedTopic,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use super::{
    super::{Assignor, ConsumerConfig},
    assignor::{Member, Plan, Slot},
};
use crate::{
    error_code::ErrorCode,
    message::{self, EncodeError},
};

/// The only protocol type of consumers.
const CONSUMER: &str = "consumer";
const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 3;
/// The first versions that carry these fields.
const JOIN_REASON: i16 = 8;
const LEAVE_MEMBERS: i16 = 3;
const LEAVE_REASON: i16 = 5;
const OFFSET_FETCH_STABLE: i16 = 7;
const OFFSET_FETCH_GROUPS: i16 = 8;
const SYNC_PROTOCOL: i16 = 5;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn by_topic(slots: &[Slot]) -> BTreeMap<Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in slots {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    topics.values_mut().for_each(|partitions| partitions.sort_unstable());
    topics
}

pub(super) fn assignor_name(assignor: Assignor) -> &'static str {
    match assignor {
        Assignor::Range => "range",
        Assignor::CooperativeSticky => "cooperative-sticky",
    }
}

/// What the member subscribes to and owns; sorted, since a changed blob of a stable member is a rebalance.
fn subscription(
    assignor: Assignor,
    config: &ConsumerConfig,
    owned: &[Slot],
    generation: i32,
) -> Result<Bytes, EncodeError> {
    let mut topics = config.topics.clone();
    topics.sort();
    let owned = by_topic(owned).into_iter().map(|(topic, partitions)| {
        OwnedTopic::default().with_topic(TopicName(text(&topic))).with_partitions(partitions)
    });
    let user_data = match assignor {
        Assignor::Range => None,
        // Java's assignor reads the generation from here where the subscription is too old to tell it.
        Assignor::CooperativeSticky => Some(Bytes::copy_from_slice(&generation.to_be_bytes())),
    };
    let blob = ConsumerProtocolSubscription::default()
        .with_topics(topics.iter().map(|topic| text(topic)).collect())
        .with_user_data(user_data)
        .with_owned_partitions(owned.collect())
        .with_generation_id(generation)
        .with_rack_id(config.rack.as_deref().map(text));
    message::encode_subscription(&blob, SUBSCRIPTION_VERSION)
}

pub(super) fn join(
    config: &ConsumerConfig,
    member_id: &str,
    owned: &[Slot],
    generation: i32,
    rebalance_timeout: Duration,
    reason: &'static str,
) -> Result<impl FnOnce(i16) -> JoinGroupRequest + Send + use<>, EncodeError> {
    let mut protocols = Vec::new();
    for assignor in &config.assignors {
        protocols.push(
            JoinGroupRequestProtocol::default()
                .with_name(text(assignor_name(*assignor)))
                .with_metadata(subscription(*assignor, config, owned, generation)?),
        );
    }
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(&config.group_id)))
        .with_session_timeout_ms(milliseconds(config.session_timeout))
        .with_rebalance_timeout_ms(milliseconds(rebalance_timeout))
        .with_member_id(text(member_id))
        .with_protocol_type(text(CONSUMER))
        .with_protocols(protocols);
    Ok(
        move |version| {
            if version >= JOIN_REASON { request.with_reason(Some(StrBytes::from_static_str(reason))) } else { request }
        },
    )
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// The members as the leader's answer tells them. One whose blob cannot be read subscribes to nothing and owns nothing.
pub(super) fn members(answer: &JoinGroupResponse) -> Vec<Member> {
    let read = answer.members.iter().map(|member| {
        let mut read = Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
            generation: -1,
            ..Member::default()
        };
        match message::decode_subscription(&member.metadata) {
            Ok(subscription) => {
                read.topics = subscription.topics.iter().map(|topic| Arc::from(topic.as_str())).collect();
                for topic in &subscription.owned_partitions {
                    let name: Arc<str> = topic.topic.as_str().into();
                    read.owned.extend(topic.partitions.iter().filter(|p| **p >= 0).map(|p| (name.clone(), *p)));
                }
                // As Java reads it: from the user data where the field does not tell it.
                let told = subscription.user_data.as_ref().and_then(|data| data.first_chunk::<4>().copied());
                read.generation = match subscription.generation_id {
                    generation @ 0.. => generation,
                    _ => told.map_or(-1, i32::from_be_bytes),
                };
            }
            Err(error) => tracing::warn!(member = %read.id, %error, "a member's subscription cannot be read"),
        }
        read
    });
    read.collect()
}

pub(super) fn sync(
    config: &ConsumerConfig,
    member_id: &str,
    generation: i32,
    protocol: Assignor,
    plan: &Plan,
) -> Result<impl FnOnce(i16) -> SyncGroupRequest + Send + use<>, EncodeError> {
    let mut assignments = Vec::new();
    for (member, slots) in plan {
        let topics = by_topic(slots).into_iter().map(|(topic, partitions)| {
            AssignedTopic::default().with_topic(TopicName(text(&topic))).with_partitions(partitions)
        });
        let blob = ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect());
        assignments.push(
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(message::encode_assignment(&blob, ASSIGNMENT_VERSION)?),
        );
    }
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text(&config.group_id)))
        .with_generation_id(generation)
        .with_member_id(text(member_id))
        .with_assignments(assignments);
    Ok(move |version| {
        if version >= SYNC_PROTOCOL {
            request
                .with_protocol_type(Some(StrBytes::from_static_str(CONSUMER)))
                .with_protocol_name(Some(StrBytes::from_static_str(assignor_name(protocol))))
        } else {
            request
        }
    })
}

/// What a SyncGroup answer assigns; sorted, without what cannot be.
pub(super) fn assigned(blob: &Bytes) -> Result<Vec<Slot>, message::DecodeError> {
    let assignment = message::decode_assignment(blob)?;
    let mut slots = Vec::new();
    for topic in &assignment.assigned_partitions {
        let name: Arc<str> = topic.topic.as_str().into();
        slots.extend(topic.partitions.iter().filter(|p| **p >= 0).map(|p| (name.clone(), *p)));
    }
    slots.sort();
    slots.dedup();
    Ok(slots)
}

pub(super) fn heartbeat(
    config: &ConsumerConfig,
    member_id: &str,
    generation: i32,
) -> impl FnOnce(i16) -> HeartbeatRequest + Send + use<> {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(&config.group_id)))
        .with_generation_id(generation)
        .with_member_id(text(member_id));
    move |_| request
}

pub(super) fn leave(config: &ConsumerConfig, member_id: &str) -> impl FnOnce(i16) -> LeaveGroupRequest + Send + use<> {
    let (group, member) = (GroupId(text(&config.group_id)), text(member_id));
    move |version| {
        let request = LeaveGroupRequest::default().with_group_id(group);
        if version < LEAVE_MEMBERS {
            return request.with_member_id(member);
        }
        let mut identity = MemberIdentity::default().with_member_id(member);
        if version >= LEAVE_REASON {
            identity.reason = Some(StrBytes::from_static_str("the consumer was closed"));
        }
        request.with_members(vec![identity])
    }
}

/// What a commit says of one partition.
#[derive(Debug, Clone)]
pub(super) struct Offset {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
}

pub(super) fn commit(
    config: &ConsumerConfig,
    member_id: &str,
    generation: i32,
    offsets: &BTreeMap<Slot, Offset>,
) -> impl FnOnce(i16) -> OffsetCommitRequest + Send + use<> {
    let mut topics: BTreeMap<Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        topics.entry(topic.clone()).or_default().push(
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch)
                .with_committed_metadata(Some(text(&offset.metadata))),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OffsetCommitRequestTopic::default().with_name(TopicName(text(&topic))).with_partitions(partitions)
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&config.group_id)))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_topics(topics.collect());
    move |version| {
        let mut request = request;
        // The epoch came with version 6; before it the field must stand at its default.
        if version < 6 {
            for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.committed_leader_epoch = -1;
            }
        }
        request
    }
}

/// The partitions' errors, those without one included.
pub(super) fn committed(answer: &OffsetCommitResponse) -> BTreeMap<Slot, ErrorCode> {
    let mut codes = BTreeMap::new();
    for topic in &answer.topics {
        let name: Arc<str> = topic.name.as_str().into();
        for partition in &topic.partitions {
            codes.insert((name.clone(), partition.partition_index), ErrorCode(partition.error_code));
        }
    }
    codes
}

pub(super) fn offset_fetch(
    config: &ConsumerConfig,
    slots: &[Slot],
) -> impl FnOnce(i16) -> OffsetFetchRequest + Send + use<> {
    let (group, topics) = (GroupId(text(&config.group_id)), by_topic(slots));
    move |version| {
        let stable = version >= OFFSET_FETCH_STABLE;
        if version >= OFFSET_FETCH_GROUPS {
            let topics = topics.into_iter().map(|(topic, partitions)| {
                OffsetFetchRequestTopics::default()
                    .with_name(TopicName(text(&topic)))
                    .with_partition_indexes(partitions)
            });
            let group = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(topics.collect()));
            return OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(stable);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default().with_name(TopicName(text(&topic))).with_partition_indexes(partitions)
        });
        OffsetFetchRequest::default()
            .with_group_id(group)
            .with_topics(Some(topics.collect()))
            .with_require_stable(stable)
    }
}

/// Committed offsets (and leader epochs) by partition; None = no commit. The first error, if any.
pub(super) fn fetched(
    version: i16,
    answer: &OffsetFetchResponse,
) -> Result<BTreeMap<Slot, Option<(i64, i32)>>, ErrorCode> {
    let mut found: Vec<(Slot, i16, i64, i32)> = Vec::new();
    let top = if version >= OFFSET_FETCH_GROUPS {
        for topic in answer.groups.iter().flat_map(|group| &group.topics) {
            let name: Arc<str> = topic.name.as_str().into();
            found.extend(topic.partitions.iter().map(|p| {
                ((name.clone(), p.partition_index), p.error_code, p.committed_offset, p.committed_leader_epoch)
            }));
        }
        answer.groups.first().map_or(0, |group| group.error_code)
    } else {
        for topic in &answer.topics {
            let name: Arc<str> = topic.name.as_str().into();
            found.extend(topic.partitions.iter().map(|p| {
                ((name.clone(), p.partition_index), p.error_code, p.committed_offset, p.committed_leader_epoch)
            }));
        }
        answer.error_code
    };
    if top != 0 {
        return Err(ErrorCode(top));
    }
    let mut offsets = BTreeMap::new();
    for (slot, code, offset, epoch) in found {
        if code != 0 {
            return Err(ErrorCode(code));
        }
        offsets.insert(slot, Some((offset, epoch)).filter(|_| offset >= 0));
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;

    use super::*;

    #[test]
    fn a_subscription_comes_back_as_the_leader_reads_it() {
        let config = ConsumerConfig { topics: vec!["b".into(), "a".into()], ..ConsumerConfig::default() };
        let owned = [("b".into(), 2), ("a".into(), 1), ("b".into(), 0)];
        let blob = subscription(Assignor::CooperativeSticky, &config, &owned, 7).expect("encodes");
        let member = JoinGroupResponseMember::default().with_member_id(text("m")).with_metadata(blob);
        let broken = JoinGroupResponseMember::default()
            .with_member_id(text("x"))
            .with_metadata(Bytes::from_static(b"\0\x01\x7f\xff\xff\xff"));
        let read = members(&JoinGroupResponse::default().with_members(vec![member, broken]));
        assert_eq!(read[0].topics, ["a".into(), "b".into()]);
        assert_eq!(read[0].owned, [("a".into(), 1), ("b".into(), 0), ("b".into(), 2)]);
        assert_eq!(read[0].generation, 7);
        assert!(read[1].topics.is_empty() && read[1].owned.is_empty());
    }
}
