//! FindCoordinator, OffsetCommit, OffsetFetch, and looking at groups from outside.

use std::sync::Arc;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    BrokerId, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use protocol::error_code::ErrorCode;
use tokio::time::Instant;

use super::{Api, Caller, Served, throttled};
use crate::group::{Commit, Committed, Group, Phase};
use crate::names::{group_id, text, topic_name};
use crate::shared::Shared;
use crate::state::State;

/// The key type of groups; transactional ids and share groups are not served.
const GROUP: i8 = 0;

impl Api for FindCoordinatorRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        if self.key_type != GROUP {
            return Served::Answer(self.refuse(caller.version, ErrorCode::INVALID_REQUEST.0));
        }
        let found = |state: &State, key: &str| {
            let answer = Coordinator::default().with_key(text(key));
            match state.coordinator(key).and_then(|id| Some((id, state.nodes.get(&id)?))) {
                Some((id, node)) => {
                    answer.with_node_id(BrokerId(id)).with_host(text(&node.host)).with_port(i32::from(node.port))
                }
                None => nowhere(answer, ErrorCode::COORDINATOR_NOT_AVAILABLE.0),
            }
        };
        let response = shared.quietly(|state| {
            if caller.version >= 4 {
                let coordinators = self.coordinator_keys.iter().map(|key| found(state, key)).collect();
                return FindCoordinatorResponse::default().with_coordinators(coordinators);
            }
            alone(found(state, &self.key), caller.version)
        });
        Served::Answer(response)
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        if version < 4 {
            return alone(nowhere(Coordinator::default(), code), version);
        }
        let refused =
            |key: &kafka_protocol::protocol::StrBytes| nowhere(Coordinator::default().with_key(key.clone()), code);
        FindCoordinatorResponse::default().with_coordinators(self.coordinator_keys.iter().map(refused).collect())
    }

    throttled!();
}

fn nowhere(answer: Coordinator, code: i16) -> Coordinator {
    answer.with_error_code(code).with_node_id(BrokerId(-1)).with_port(-1)
}

/// The answer before batches of keys.
fn alone(coordinator: Coordinator, version: i16) -> FindCoordinatorResponse {
    let message = ErrorCode(coordinator.error_code).name().filter(|_| version >= 1);
    FindCoordinatorResponse::default()
        .with_error_code(coordinator.error_code)
        .with_error_message(message.map(text))
        .with_node_id(coordinator.node_id)
        .with_host(coordinator.host)
        .with_port(coordinator.port)
}

impl Api for OffsetCommitRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let committed = shared.change(|state| {
            let new_group = self.generation_id_or_member_epoch < 0;
            let there = state.group_at(caller.node, &self.group_id)?.is_some();
            if !there && !new_group {
                return Err(ErrorCode::ILLEGAL_GENERATION);
            }
            let group = state.group_at_or_new(caller.node, &self.group_id)?;
            let commit = Commit { member_id: &self.member_id, generation: self.generation_id_or_member_epoch };
            group.may_commit(Instant::now(), &commit)?;
            Ok(self.topics.iter().map(|topic| commit_topic(state, &self.group_id, topic)).collect())
        });
        match committed {
            Ok(topics) => Served::Answer(OffsetCommitResponse::default().with_topics(topics)),
            Err(code) => Served::Answer(self.refuse(caller.version, code.0)),
        }
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        let topics = self.topics.iter().map(|topic| {
            let partition =
                |index| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
            let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect();
            OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
    }

    throttled!();
}

fn commit_topic(state: &mut State, group: &str, topic: &OffsetCommitRequestTopic) -> OffsetCommitResponseTopic {
    let known = state.topic(&topic.name).is_some();
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for asked in &topic.partitions {
        let committed = Committed {
            offset: asked.committed_offset,
            leader_epoch: asked.committed_leader_epoch,
            metadata: asked.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let code = match state.groups.get_mut(group) {
            Some(group) if known => group.commit(&topic.name, asked.partition_index, committed),
            _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        let answer = OffsetCommitResponsePartition::default().with_partition_index(asked.partition_index);
        partitions.push(answer.with_error_code(code.0));
    }
    OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
}

/// One group of an OffsetFetch: partitions by topic, none for all that there are.
type Asked = (GroupId, Option<Vec<(String, Vec<i32>)>>);
/// Offsets by topic.
type Offsets = Vec<(String, Vec<(i32, Committed)>)>;

fn fetch_group(state: &mut State, node: i32, (id, topics): &Asked) -> Result<Offsets, ErrorCode> {
    let group = state.group_at(node, id)?;
    let none = || Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
    if let Some(topics) = topics {
        let one = |topic: &str, partition: i32| {
            let found = group.as_ref().and_then(|group| group.committed(topic, partition)).cloned();
            (partition, found.unwrap_or_else(none))
        };
        let of = |(topic, partitions): &(String, Vec<i32>)| {
            (topic.clone(), partitions.iter().map(|partition| one(topic, *partition)).collect())
        };
        return Ok(topics.iter().map(of).collect());
    }
    let mut all: Offsets = Vec::new();
    for (topic, partition, committed) in group.iter().flat_map(|group| group.offsets()) {
        match all.last_mut() {
            Some((last, partitions)) if last == topic => partitions.push((partition, committed.clone())),
            _ => all.push((topic.to_owned(), vec![(partition, committed.clone())])),
        }
    }
    Ok(all)
}

impl Api for OffsetFetchRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let version = caller.version;
        if version >= 8 {
            let groups = self.groups.iter().map(|group| {
                let of = |topics: &Vec<kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics>| {
                    topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
                };
                let asked: Asked = (group.group_id.clone(), group.topics.as_ref().map(of));
                let found = shared.quietly(|state| fetch_group(state, caller.node, &asked));
                fetched_group(&asked.0, found)
            });
            return Served::Answer(OffsetFetchResponse::default().with_groups(groups.collect()));
        }
        let of = |topics: &Vec<kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic>| {
            topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
        };
        let asked: Asked = (self.group_id.clone(), self.topics.as_ref().map(of));
        match shared.quietly(|state| fetch_group(state, caller.node, &asked)) {
            Ok(offsets) => Served::Answer(OffsetFetchResponse::default().with_topics(fetched_topics(offsets, version))),
            Err(code) => Served::Answer(self.refuse(version, code.0)),
        }
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        if version >= 8 {
            let refused = self.groups.iter().map(|group| fetched_group(&group.group_id, Err(ErrorCode(code))));
            return OffsetFetchResponse::default().with_groups(refused.collect());
        }
        if version >= 2 {
            return OffsetFetchResponse::default().with_error_code(code);
        }
        let topics = self.topics.iter().flatten().map(|topic| {
            let partition = |index: &i32| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(*index)
                    .with_committed_offset(-1)
                    .with_metadata(Some(text("")))
                    .with_error_code(code)
            };
            let partitions = topic.partition_indexes.iter().map(partition).collect();
            OffsetFetchResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        OffsetFetchResponse::default().with_topics(topics.collect())
    }

    throttled!();
}

fn fetched_topics(offsets: Offsets, version: i16) -> Vec<OffsetFetchResponseTopic> {
    let partition = |(index, committed): (i32, Committed)| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(if version >= 5 { committed.leader_epoch } else { -1 })
            .with_metadata(Some(text(&committed.metadata)))
    };
    let topic = |(name, partitions): (String, Vec<(i32, Committed)>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    offsets.into_iter().map(topic).collect()
}

fn fetched_group(id: &GroupId, found: Result<Offsets, ErrorCode>) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(id.clone());
    let offsets = match found {
        Ok(offsets) => offsets,
        Err(code) => return answer.with_error_code(code.0),
    };
    let partition = |(index, committed): (i32, Committed)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    };
    let topic = |(name, partitions): (String, Vec<(i32, Committed)>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopics::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    answer.with_topics(offsets.into_iter().map(topic).collect())
}

impl Api for DescribeGroupsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let groups = shared.quietly(|state| {
            let mut groups = Vec::with_capacity(self.groups.len());
            for id in &self.groups {
                let answer = DescribedGroup::default().with_group_id(id.clone());
                groups.push(match state.group_at(caller.node, id) {
                    Err(code) => answer.with_error_code(code.0),
                    Ok(Some(group)) => described(answer, group),
                    Ok(None) if caller.version >= 6 => answer
                        .with_error_code(ErrorCode::GROUP_ID_NOT_FOUND.0)
                        .with_error_message(Some(text(&format!("Group {} not found.", id.as_str()))))
                        .with_group_state(text("Dead")),
                    Ok(None) => answer.with_group_state(text("Dead")),
                });
            }
            groups
        });
        Served::Answer(DescribeGroupsResponse::default().with_groups(groups))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        let group = |id: &GroupId| DescribedGroup::default().with_group_id(id.clone()).with_error_code(code);
        DescribeGroupsResponse::default().with_groups(self.groups.iter().map(group).collect())
    }

    throttled!();
}

fn described(answer: DescribedGroup, group: &Group) -> DescribedGroup {
    let stable = group.phase() == Phase::Stable;
    let protocol = group.protocol().filter(|_| stable);
    let members = group.members().iter().map(|(id, member)| {
        let profile = &member.profile;
        DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_client_id(text(&profile.client_id))
            .with_client_host(text(&profile.client_host))
            .with_member_metadata(member.metadata(protocol))
            .with_member_assignment(if stable { profile.assignment.clone() } else { Default::default() })
    });
    answer
        .with_group_state(text(group.phase().name()))
        .with_protocol_type(text(group.protocol_type().unwrap_or_default()))
        .with_protocol_data(text(protocol.unwrap_or_default()))
        .with_members(members.collect())
}

impl Api for ListGroupsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let version = caller.version;
        let among = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let groups = shared.quietly(|state| {
            let here = state.groups.iter().filter(|(id, _)| state.coordinator(id) == Some(caller.node));
            let fits = |group: &Group| {
                among(&self.states_filter, group.phase().name()) && among(&self.types_filter, "classic")
            };
            let listed = here.filter(|(_, group)| fits(group)).map(|(id, group)| {
                ListedGroup::default()
                    .with_group_id(group_id(id))
                    .with_protocol_type(text(group.protocol_type().unwrap_or_default()))
                    .with_group_state(text(if version >= 4 { group.phase().name() } else { "" }))
                    .with_group_type(text(if version >= 5 { "classic" } else { "" }))
            });
            listed.collect()
        });
        Served::Answer(ListGroupsResponse::default().with_groups(groups))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        ListGroupsResponse::default().with_error_code(code)
    }

    throttled!();
}
