//! The requests of a classic group member, and what their answers say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, TopicName,
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

/// The members as the leader's answer tells them, each once. One whose blob cannot be read subscribes to nothing and owns
/// nothing.
pub(super) fn members(answer: &JoinGroupResponse) -> Vec<Member> {
    let mut seen = BTreeSet::new();
    let distinct = answer.members.iter().filter(|member| seen.insert(member.member_id.clone()));
    let read = distinct.map(|member| {
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// An offset and the leader epoch of the record before it; None = no commit.
pub(super) type Committed = Option<(i64, i32)>;

/// Committed offsets by partition, or what is the matter with that partition; the error of the whole, if it has one.
pub(super) fn fetched(
    version: i16,
    answer: &OffsetFetchResponse,
) -> Result<BTreeMap<Slot, Result<Committed, ErrorCode>>, ErrorCode> {
    let mut offsets = BTreeMap::new();
    let mut take = |topic: &TopicName, partition: i32, code: i16, offset: i64, epoch: i32| {
        let read = if code == 0 { Ok(Some((offset, epoch)).filter(|_| offset >= 0)) } else { Err(ErrorCode(code)) };
        offsets.insert((Arc::from(topic.as_str()), partition), read);
    };
    let whole = if version >= OFFSET_FETCH_GROUPS {
        for topic in answer.groups.iter().flat_map(|group| &group.topics) {
            for p in &topic.partitions {
                take(&topic.name, p.partition_index, p.error_code, p.committed_offset, p.committed_leader_epoch);
            }
        }
        answer.groups.first().map_or(0, |group| group.error_code)
    } else {
        for topic in &answer.topics {
            for p in &topic.partitions {
                take(&topic.name, p.partition_index, p.error_code, p.committed_offset, p.committed_leader_epoch);
            }
        }
        answer.error_code
    };
    if whole == 0 { Ok(offsets) } else { Err(ErrorCode(whole)) }
}

/// What LeaveGroup says of us.
pub(super) fn left(answer: &LeaveGroupResponse) -> ErrorCode {
    let member = answer.members.first().map_or(0, |member| member.error_code);
    ErrorCode(if answer.error_code == 0 { member } else { answer.error_code })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::join_group_response::JoinGroupResponseMember, protocol::Request};

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
        let twice = broken.clone();
        let read = members(&JoinGroupResponse::default().with_members(vec![member, broken, twice]));
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].topics, ["a".into(), "b".into()]);
        assert_eq!(read[0].owned, [("a".into(), 1), ("b".into(), 0), ("b".into(), 2)]);
        assert_eq!(read[0].generation, 7);
        assert!(read[1].topics.is_empty() && read[1].owned.is_empty());
    }

    /// Encoding fails where a field is set that the version does not have.
    fn check<R: Request>(build: impl Fn() -> Box<dyn FnOnce(i16) -> R>) {
        for version in message::supported(R::KEY).expect("spoken") {
            let request = build()(version);
            let bytes = message::encode_request(&request, version, 1, "c");
            assert!(bytes.is_ok(), "{} v{version}: {bytes:?}", message::api_name(R::KEY));
        }
    }

    #[test]
    fn every_request_can_be_written_in_every_version() {
        let config = ConsumerConfig { group_id: "g".into(), topics: vec!["t".into()], ..ConsumerConfig::default() };
        let slots: Vec<Slot> = vec![("t".into(), 0), ("t".into(), 1), ("u".into(), 3)];
        let plan = Plan::from([("m".to_owned(), slots.clone())]);
        let offset = Offset { offset: 5, leader_epoch: 2, metadata: "x".into() };
        let offsets: BTreeMap<Slot, Offset> = slots.iter().map(|slot| (slot.clone(), offset.clone())).collect();
        let minute = Duration::from_secs(60);
        check(|| Box::new(join(&config, "m", &slots, 3, minute, "a new member").expect("encodes")));
        check(|| Box::new(sync(&config, "m", 3, Assignor::Range, &plan).expect("encodes")));
        check(|| Box::new(heartbeat(&config, "m", 3)));
        check(|| Box::new(leave(&config, "m")));
        check(|| Box::new(commit(&config, "m", 3, &offsets)));
        check(|| Box::new(offset_fetch(&config, &slots)));
    }

    #[test]
    fn a_subscription_too_old_to_tell_its_generation_tells_it_in_the_user_data() {
        // Version 1, topic "t", user data 00000007, owned t: [4].
        let blob = b"\0\x01\0\0\0\x01\0\x01t\0\0\0\x04\0\0\0\x07\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x04";
        let member = JoinGroupResponseMember::default()
            .with_member_id(text("m"))
            .with_metadata(Bytes::from_static(blob))
            .with_group_instance_id(Some(text("i")));
        let read = members(&JoinGroupResponse::default().with_members(vec![member]));
        assert_eq!((read[0].generation, &read[0].owned[..]), (7, &[("t".into(), 4)][..]));
        assert_eq!(read[0].instance_id.as_deref(), Some("i"));
    }

    #[test]
    fn the_same_state_gives_the_same_blob_whatever_its_order() {
        let blob = |topics: [&str; 2], owned: &[Slot]| {
            let config = ConsumerConfig { topics: topics.map(Into::into).to_vec(), ..ConsumerConfig::default() };
            subscription(Assignor::CooperativeSticky, &config, owned, 7).expect("encodes")
        };
        let (a, b): (Slot, Slot) = (("a".into(), 1), ("b".into(), 0));
        assert_eq!(blob(["a", "b"], &[a.clone(), b.clone()]), blob(["b", "a"], &[b, a]));
    }

    #[test]
    fn an_assignment_that_lies_about_its_length_is_an_error_and_an_empty_one_is_empty() {
        assert!(assigned(&Bytes::from_static(b"\0\x03\x7f\xff\xff\xff")).is_err());
        assert_eq!(assigned(&Bytes::new()).expect("empty"), []);
    }

    #[test]
    fn one_partition_with_an_error_does_not_spoil_the_others_of_an_offset_fetch() {
        use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic};
        let partition = |index, code, offset| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(4)
        };
        let topic = OffsetFetchResponseTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![
            partition(0, 0, 9),
            partition(1, 0, -1),
            partition(2, 88, -1),
        ]);
        let answer = OffsetFetchResponse::default().with_topics(vec![topic]);
        let read: Vec<_> = fetched(7, &answer).expect("no error of the whole").into_values().collect();
        assert_eq!(read, [Ok(Some((9, 4))), Ok(None), Err(ErrorCode::UNSTABLE_OFFSET_COMMIT)]);
        assert_eq!(fetched(7, &answer.with_error_code(14)), Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    }
}
