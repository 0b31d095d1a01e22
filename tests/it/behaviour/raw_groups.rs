//! A member's requests, said by hand: what does not fit the group's state gets Kafka's code.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::{
    ConsumerProtocolSubscription, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    sync_group_request::SyncGroupRequestAssignment,
};
use protocol::{error_code::ErrorCode, message::encode_subscription};

use super::{
    bed::Bed,
    raw::{Codes, Raw, ready_topic, text, topic_name},
};

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// What a member says of itself; brokers look into it.
fn metadata() -> Bytes {
    let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text("raw-groups")]);
    encode_subscription(&subscription, 1).unwrap_or_default()
}

fn joining(group_id: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata());
    JoinGroupRequest::default()
        .with_group_id(group(group_id))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

async fn heartbeat(raw: &mut Raw, group_id: &str, member: &str, generation: i32) -> Result<i16> {
    let request = HeartbeatRequest::default()
        .with_group_id(group(group_id))
        .with_member_id(text(member))
        .with_generation_id(generation);
    Ok(raw.ask(4, &request).await?.error_code)
}

fn syncing(group_id: &str, member: &str, generation: i32, given: &[(&str, &'static str)]) -> SyncGroupRequest {
    let assignment = |(member, bytes): &(&str, &'static str)| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from(*bytes))
    };
    SyncGroupRequest::default()
        .with_group_id(group(group_id))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(given.iter().map(assignment).collect())
}

async fn commit(raw: &mut Raw, group_id: &str, member: &str, generation: i32, metadata: &str) -> Result<i16> {
    commit_of(raw, group_id, member, generation, "raw-groups", metadata).await
}

async fn commit_of(
    raw: &mut Raw,
    group_id: &str,
    member: &str,
    generation: i32,
    topic: &str,
    metadata: &str,
) -> Result<i16> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(5)
        .with_committed_leader_epoch(0)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(group_id))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic]);
    let answer = raw.ask(8, &request).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first());
    Ok(told.context("a partition")?.error_code)
}

async fn leave(raw: &mut Raw, group_id: &str, member: &str) -> Result<(i16, i16)> {
    let member = MemberIdentity::default().with_member_id(text(member));
    let request = LeaveGroupRequest::default().with_group_id(group(group_id)).with_members(vec![member]);
    let answer = raw.ask(4, &request).await?;
    Ok((answer.error_code, answer.members.first().map_or(0, |member| member.error_code)))
}

/// A connection to a broker that coordinates groups by now: the first question makes a real one prepare.
async fn coordinator(bed: &Bed, group_id: &str) -> Result<Raw> {
    let mut raw = bed.raw().await?;
    let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group_id)]);
    loop {
        let found = raw.ask(4, &request).await?;
        let settled = found.coordinators.first().is_some_and(|coordinator| coordinator.error_code == 0);
        let code = ErrorCode(heartbeat(&mut raw, group_id, "nobody", 1).await?);
        let loading = [ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::NOT_COORDINATOR];
        if settled && !loading.contains(&code) && code != ErrorCode::COORDINATOR_NOT_AVAILABLE {
            return Ok(raw);
        }
    }
}

/// The only member of a group in its first generation, which it leads.
async fn sole_member(raw: &mut Raw, group_id: &str) -> Result<JoinGroupResponse> {
    let told = raw.ask(7, &joining(group_id, "")).await?;
    ensure!(told.error_code == ErrorCode::MEMBER_ID_REQUIRED.0, "{told:?}");
    let joined = raw.ask(7, &joining(group_id, &told.member_id)).await?;
    ensure!(joined.error_code == 0 && joined.leader == joined.member_id, "{joined:?}");
    Ok(joined)
}

pub(super) async fn nobody_is_known_to_an_unknown_group(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-groups", 1).await?;
    let id = "raw-unknown";
    let mut raw = coordinator(bed, id).await?;
    let mut codes = Codes::default();
    codes.check("a heartbeat", heartbeat(&mut raw, id, "nobody", 1).await?, ErrorCode::UNKNOWN_MEMBER_ID);
    let joined = raw.ask(7, &joining(id, "nobody")).await?;
    codes.check("a join with an id", joined.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    let synced = raw.ask(5, &syncing(id, "nobody", 1, &[])).await?;
    codes.check("a sync", synced.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    codes.same("a leave", leave(&mut raw, id, "nobody").await?, (0, ErrorCode::UNKNOWN_MEMBER_ID.0));
    codes.check("a commit", commit(&mut raw, id, "nobody", 1, "").await?, ErrorCode::ILLEGAL_GENERATION);
    for (version, code) in [(5, ErrorCode::NONE), (6, ErrorCode::GROUP_ID_NOT_FOUND)] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group(id)]);
        if raw.serves::<DescribeGroupsRequest>(version).await? {
            let answer = raw.ask(version, &request).await?;
            let told = answer.groups.first().context("a group")?;
            codes.check("a description", told.error_code, code);
            codes.same("a description", told.group_state.as_str(), "Dead");
        }
    }
    let asked = OffsetFetchRequestTopics::default().with_name(topic_name("raw-groups")).with_partition_indexes(vec![0]);
    let one = OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(Some(vec![asked]));
    let answer = raw.ask(8, &OffsetFetchRequest::default().with_groups(vec![one])).await?;
    let told = answer.groups.first().context("a group")?;
    let offset = told.topics.first().and_then(|topic| topic.partitions.first()).map(|found| found.committed_offset);
    codes.same("offsets", (told.error_code, offset), (0, Some(-1)));
    codes.check("a commit from outside", commit(&mut raw, id, "", -1, "").await?, ErrorCode::NONE);
    codes.end()
}

pub(super) async fn a_group_takes_only_members_that_fit(bed: &Bed) -> Result<()> {
    let id = "raw-fitting";
    let mut raw = coordinator(bed, id).await?;
    let mut codes = Codes::default();
    for (what, request, expected) in [
        ("no name", joining("", ""), ErrorCode::INVALID_GROUP_ID),
        ("a hasty session", joining(id, "").with_session_timeout_ms(10), ErrorCode::INVALID_SESSION_TIMEOUT),
        ("a session for ever", joining(id, "").with_session_timeout_ms(i32::MAX), ErrorCode::INVALID_SESSION_TIMEOUT),
        ("no protocols", joining(id, "").with_protocols(vec![]), ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        ("no type", joining(id, "").with_protocol_type(text("")), ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
    ] {
        codes.check(what, raw.ask(7, &request).await?.error_code, expected);
    }
    let leader = sole_member(&mut raw, id).await?;
    raw.ask(5, &syncing(id, &leader.member_id, 1, &[(&leader.member_id, "all")])).await?;
    let other = JoinGroupRequestProtocol::default().with_name(text("sticky")).with_metadata(metadata());
    for (what, request) in [
        ("another protocol", joining(id, "").with_protocols(vec![other])),
        ("another type", joining(id, "").with_protocol_type(text("connect"))),
    ] {
        codes.check(what, raw.ask(7, &request).await?.error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    let told = raw.ask(7, &joining(id, "nobody")).await?;
    codes.check("an id that was never given", told.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    codes.check("nobody was disturbed", heartbeat(&mut raw, id, &leader.member_id, 1).await?, ErrorCode::NONE);
    leave(&mut raw, id, &leader.member_id).await?;
    codes.end()
}

pub(super) async fn generations_are_checked(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-groups", 1).await?;
    let id = "raw-generations";
    let mut raw = coordinator(bed, id).await?;
    let mut codes = Codes::default();
    let joined = sole_member(&mut raw, id).await?;
    let member = joined.member_id.as_str();
    let shown: Vec<(String, Bytes)> =
        joined.members.iter().map(|member| (member.member_id.to_string(), member.metadata.clone())).collect();
    codes.same("the leader is shown all", shown, vec![(member.to_owned(), metadata())]);
    codes.same("the first generation", (joined.generation_id, joined.protocol_name.as_deref()), (1, Some("range")));
    codes.check("a heartbeat before the sync", heartbeat(&mut raw, id, member, 1).await?, ErrorCode::NONE);
    let code = commit(&mut raw, id, member, 1, "").await?;
    codes.check("a commit before the sync", code, ErrorCode::REBALANCE_IN_PROGRESS);
    for (what, request, expected) in [
        ("a sync of no member", syncing(id, "nobody", 1, &[]), ErrorCode::UNKNOWN_MEMBER_ID),
        ("a sync of another generation", syncing(id, member, 2, &[]), ErrorCode::ILLEGAL_GENERATION),
        (
            "a sync of another protocol",
            syncing(id, member, 1, &[]).with_protocol_name(Some(text("sticky"))),
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        ("the leader's sync", syncing(id, member, 1, &[(member, "all")]), ErrorCode::NONE),
        ("the leader's sync again", syncing(id, member, 1, &[]), ErrorCode::NONE),
    ] {
        codes.check(what, raw.ask(5, &request).await?.error_code, expected);
    }
    let again = raw.ask(5, &syncing(id, member, 1, &[])).await?;
    codes.same("the assignment stays", again.assignment, Bytes::from("all"));
    for (what, member, generation, expected) in [
        ("a heartbeat", member, 1, ErrorCode::NONE),
        ("a heartbeat of a former generation", member, 0, ErrorCode::ILLEGAL_GENERATION),
        ("a heartbeat of a later generation", member, 2, ErrorCode::ILLEGAL_GENERATION),
        ("a heartbeat of no member", "nobody", 1, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        codes.check(what, heartbeat(&mut raw, id, member, generation).await?, expected);
    }
    let long = "m".repeat(5000);
    for (what, member, generation, metadata, expected) in [
        ("a commit", member, 1, "", ErrorCode::NONE),
        ("a commit of another generation", member, 2, "", ErrorCode::ILLEGAL_GENERATION),
        ("a commit of no member", "nobody", 1, "", ErrorCode::UNKNOWN_MEMBER_ID),
        ("a commit from outside", "", -1, "", ErrorCode::UNKNOWN_MEMBER_ID),
        ("long metadata", member, 1, long.as_str(), ErrorCode::OFFSET_METADATA_TOO_LARGE),
    ] {
        codes.check(what, commit(&mut raw, id, member, generation, metadata).await?, expected);
    }
    let code = commit_of(&mut raw, id, member, 1, "raw-nowhere", "").await?;
    codes.check("a commit for an unknown topic", code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let described = raw.ask(5, &DescribeGroupsRequest::default().with_groups(vec![group(id)])).await?;
    let told = described.groups.first().context("a group")?;
    let shown = (told.error_code, told.group_state.as_str(), told.protocol_type.as_str(), told.protocol_data.as_str());
    codes.same("a description", shown, (0, "Stable", "consumer", "range"));
    let members: Vec<(&str, &Bytes)> =
        told.members.iter().map(|member| (member.member_id.as_str(), &member.member_assignment)).collect();
    codes.same("its members", members, vec![(member, &Bytes::from("all"))]);
    let listed = raw.ask(4, &ListGroupsRequest::default()).await?;
    let found = listed.groups.iter().find(|listed| listed.group_id.as_str() == id);
    codes.same("it is listed", found.map(|found| found.group_state.as_str()), Some("Stable"));
    codes.same("a leave of no member", leave(&mut raw, id, "nobody").await?, (0, ErrorCode::UNKNOWN_MEMBER_ID.0));
    codes.same("a leave", leave(&mut raw, id, member).await?, (0, 0));
    codes.same("a leave again", leave(&mut raw, id, member).await?, (0, ErrorCode::UNKNOWN_MEMBER_ID.0));
    codes.check("a heartbeat afterwards", heartbeat(&mut raw, id, member, 1).await?, ErrorCode::UNKNOWN_MEMBER_ID);
    codes.check("a commit afterwards", commit(&mut raw, id, member, 1, "").await?, ErrorCode::UNKNOWN_MEMBER_ID);
    codes.check("a commit from outside, to an empty group", commit(&mut raw, id, "", -1, "").await?, ErrorCode::NONE);
    codes.end()
}

pub(super) async fn a_rebalance_is_told_to_all_and_waits_for_them(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-groups", 1).await?;
    let id = "raw-rebalance";
    let (mut raw, mut other) = (coordinator(bed, id).await?, bed.raw().await?);
    let mut codes = Codes::default();
    let joined = sole_member(&mut raw, id).await?;
    let first = joined.member_id.as_str();
    raw.ask(5, &syncing(id, first, 1, &[(first, "all")])).await?;
    let told = other.ask(7, &joining(id, "")).await?;
    let second = told.member_id.as_str();
    let rejoin = async {
        // The second's join is held; it is seen by its effect.
        while ErrorCode(heartbeat(&mut raw, id, first, 1).await?) != ErrorCode::REBALANCE_IN_PROGRESS {}
        codes.check("a commit meanwhile", commit(&mut raw, id, first, 1, "").await?, ErrorCode::NONE);
        let synced = raw.ask(5, &syncing(id, first, 1, &[])).await?;
        codes.check("a sync meanwhile", synced.error_code, ErrorCode::REBALANCE_IN_PROGRESS);
        raw.ask(7, &joining(id, first)).await
    };
    let second_join = joining(id, second);
    let (again, joined) = tokio::join!(rejoin, other.ask(7, &second_join));
    let (again, joined) = (again?, joined?);
    codes.same("both are in the second generation", (again.generation_id, joined.generation_id), (2, 2));
    codes.same("the leader stays", (again.leader.as_str(), joined.leader.as_str()), (first, first));
    codes.same("only the leader is shown the members", (again.members.len(), joined.members.len()), (2, 0));
    let (sync_first, sync_second) =
        (syncing(id, first, 2, &[(first, "a"), (second, "b")]), syncing(id, second, 2, &[]));
    let (of_first, of_second) = tokio::join!(raw.ask(5, &sync_first), other.ask(5, &sync_second));
    codes.same("the leader's share", of_first?.assignment, Bytes::from("a"));
    codes.same("the other's share", of_second?.assignment, Bytes::from("b"));
    let code = heartbeat(&mut raw, id, first, 1).await?;
    codes.check("a heartbeat of the former generation", code, ErrorCode::ILLEGAL_GENERATION);
    let unchanged = other.ask(7, &joining(id, second)).await?;
    codes.same("a follower that joins again without news", (unchanged.error_code, unchanged.generation_id), (0, 2));
    codes.check("disturbs nobody", heartbeat(&mut raw, id, first, 2).await?, ErrorCode::NONE);
    leave(&mut raw, id, first).await?;
    let code = heartbeat(&mut other, id, second, 2).await?;
    codes.check("a heartbeat after the other left", code, ErrorCode::REBALANCE_IN_PROGRESS);
    let alone = other.ask(7, &joining(id, second)).await?;
    codes.same("then it leads", (alone.generation_id, alone.leader.as_str()), (3, second));
    leave(&mut other, id, second).await?;
    codes.end()
}
