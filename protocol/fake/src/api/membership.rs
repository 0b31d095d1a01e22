//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup: a member's life in a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use protocol::error_code::ErrorCode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Api, Caller, Served, throttled};
use crate::group::{Join, Joined, Synced};
use crate::names::text;
use crate::shared::Shared;

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A copy, so that what a group keeps does not hold a whole request in memory.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl Api for JoinGroupRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let session_timeout = millis(self.session_timeout_ms);
        let join = Join {
            member_id: self.member_id.to_string(),
            instance_id: self.group_instance_id.as_ref().map(ToString::to_string),
            client_id: caller.client_id.clone(),
            client_host: format!("/{}", caller.host),
            session_timeout,
            // Version 0 knows one timeout only.
            rebalance_timeout: if caller.version >= 1 { millis(self.rebalance_timeout_ms) } else { session_timeout },
            protocol_type: self.protocol_type.to_string(),
            protocols: self
                .protocols
                .iter()
                .map(|protocol| (protocol.name.to_string(), own(&protocol.metadata)))
                .collect(),
            id_first: caller.version >= 4,
            can_skip_assignment: caller.version >= 9,
        };
        let (reply, joined) = oneshot::channel();
        let refused = shared.change(|state| {
            let rules = state.rules();
            let is_new = join.member_id.is_empty();
            let group = match is_new {
                true => state.group_at_or_new(caller.node, &self.group_id).map(|_| ()),
                false => state
                    .group_at(caller.node, &self.group_id)
                    .and_then(|group| group.map(|_| ()).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)),
            };
            if let Err(code) = group {
                return Some(code);
            }
            let new_id = match is_new {
                true => state.new_member_id(join.instance_id.as_deref().unwrap_or(&caller.client_id)),
                false => String::new(),
            };
            if let Some(group) = state.groups.get_mut(self.group_id.as_str()) {
                group.join(Instant::now(), &rules, new_id, &join, reply);
            }
            None
        });
        if let Some(code) = refused {
            return Served::Answer(self.refuse(caller.version, code.0));
        }
        match joined.await {
            Ok(joined) => Served::Answer(join_response(joined, caller.version)),
            // The same member joined by another connection, or the group is gone.
            Err(_) => Served::Close,
        }
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        join_response(Joined::refused(ErrorCode(code), &self.member_id), version)
    }

    throttled!();
}

fn join_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let instance = instance.filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(text(&id))
            .with_group_instance_id(instance.as_deref().map(text))
            .with_metadata(metadata)
    });
    // Before version 7 the name cannot be null.
    let protocol = joined.protocol.or_else(|| (version < 7).then(String::new));
    JoinGroupResponse::default()
        .with_error_code(joined.error.0)
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(text))
        .with_protocol_name(protocol.as_deref().map(text))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= 9)
        .with_member_id(text(&joined.member_id))
        .with_members(members.collect())
}

impl Api for SyncGroupRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let assignments: BTreeMap<String, Bytes> =
            self.assignments.iter().map(|given| (given.member_id.to_string(), own(&given.assignment))).collect();
        let (reply, synced) = oneshot::channel();
        let refused = shared.change(|state| match state.group_at(caller.node, &self.group_id) {
            Err(code) => Some(code),
            Ok(None) => Some(ErrorCode::UNKNOWN_MEMBER_ID),
            Ok(Some(group)) => {
                let protocol = (self.protocol_type.as_deref(), self.protocol_name.as_deref());
                let (member, instance) = (&self.member_id, self.group_instance_id.as_deref());
                group.sync(Instant::now(), member, instance, self.generation_id, protocol, assignments, reply);
                None
            }
        });
        if let Some(code) = refused {
            return Served::Answer(self.refuse(caller.version, code.0));
        }
        match synced.await {
            Ok(synced) => Served::Answer(sync_response(synced)),
            Err(_) => Served::Close,
        }
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        sync_response(Synced::refused(ErrorCode(code)))
    }

    throttled!();
}

fn sync_response(synced: Synced) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(synced.error.0)
        .with_protocol_type(synced.protocol_type.as_deref().map(text))
        .with_protocol_name(synced.protocol.as_deref().map(text))
        .with_assignment(synced.assignment)
}

impl Api for HeartbeatRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let code = shared.change(|state| match state.group_at(caller.node, &self.group_id) {
            Err(code) => code,
            Ok(None) => ErrorCode::UNKNOWN_MEMBER_ID,
            Ok(Some(group)) => {
                let instance = self.group_instance_id.as_deref();
                group.heartbeat(Instant::now(), &self.member_id, instance, self.generation_id)
            }
        });
        Served::Answer(self.refuse(caller.version, code.0))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        HeartbeatResponse::default().with_error_code(code)
    }

    throttled!();
}

impl Api for LeaveGroupRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        // Up to version 2 one member leaves, and the error is the answer's own.
        let alone = (caller.version < 3).then(|| (self.member_id.to_string(), None));
        let leaving = self
            .members
            .iter()
            .map(|member| (member.member_id.to_string(), member.group_instance_id.as_ref().map(ToString::to_string)));
        let leaving: Vec<(String, Option<String>)> =
            if caller.version < 3 { alone.into_iter().collect() } else { leaving.collect() };
        let codes = shared.change(|state| {
            let rules = state.rules();
            let mut group = state.group_at(caller.node, &self.group_id)?;
            let now = Instant::now();
            let mut leave = |(member, instance): &(String, Option<String>)| match &mut group {
                Some(group) => group.leave(now, &rules, member, instance.as_deref()),
                None => ErrorCode::UNKNOWN_MEMBER_ID,
            };
            Ok::<_, ErrorCode>(leaving.iter().map(&mut leave).collect::<Vec<_>>())
        });
        let codes = match codes {
            Ok(codes) => codes,
            Err(code) => return Served::Answer(self.refuse(caller.version, code.0)),
        };
        if caller.version < 3 {
            let code = codes.first().copied().unwrap_or(ErrorCode::NONE);
            return Served::Answer(self.refuse(caller.version, code.0));
        }
        let members = leaving.iter().zip(codes).map(|((member, instance), code)| {
            MemberResponse::default()
                .with_member_id(text(member))
                .with_group_instance_id(instance.as_deref().map(text))
                .with_error_code(code.0)
        });
        Served::Answer(LeaveGroupResponse::default().with_members(members.collect()))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        LeaveGroupResponse::default().with_error_code(code)
    }

    throttled!();
}
