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
        if self.group_instance_id.is_some() {
            // This cluster has no static members: fatal to the client, rather than a member that is none.
            return Served::Answer(self.refuse(caller.version, ErrorCode::UNSUPPORTED_VERSION.0));
        }
        let session_timeout = millis(self.session_timeout_ms);
        let join = Join {
            member_id: self.member_id.to_string(),
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
                true => state.new_member_id(&caller.client_id),
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
    let member = |(id, metadata): (String, Bytes)| {
        JoinGroupResponseMember::default().with_member_id(text(&id)).with_metadata(metadata)
    };
    let members = joined.members.into_iter().map(member);
    // Before version 7 the name cannot be null.
    let protocol = joined.protocol.or_else(|| (version < 7).then(String::new));
    JoinGroupResponse::default()
        .with_error_code(joined.error.0)
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(text))
        .with_protocol_name(protocol.as_deref().map(text))
        .with_leader(text(&joined.leader))
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
                let (member, generation) = (&self.member_id, self.generation_id);
                group.sync(Instant::now(), member, generation, protocol, assignments, reply);
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
            Ok(Some(group)) => group.heartbeat(Instant::now(), &self.member_id, self.generation_id),
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
        let leaving: Vec<String> = match caller.version {
            ..3 => vec![self.member_id.to_string()],
            _ => self.members.iter().map(|member| member.member_id.to_string()).collect(),
        };
        let codes = shared.change(|state| {
            let rules = state.rules();
            let mut group = state.group_at(caller.node, &self.group_id)?;
            let now = Instant::now();
            let leave = |member: &String| match &mut group {
                Some(group) => group.leave(now, &rules, member),
                None => ErrorCode::UNKNOWN_MEMBER_ID,
            };
            Ok::<_, ErrorCode>(leaving.iter().map(leave).collect::<Vec<_>>())
        });
        let codes = match codes {
            Ok(codes) => codes,
            Err(code) => return Served::Answer(self.refuse(caller.version, code.0)),
        };
        if caller.version < 3 {
            let code = codes.first().copied().unwrap_or(ErrorCode::NONE);
            return Served::Answer(self.refuse(caller.version, code.0));
        }
        let members = leaving
            .iter()
            .zip(codes)
            .map(|(member, code)| MemberResponse::default().with_member_id(text(member)).with_error_code(code.0));
        Served::Answer(LeaveGroupResponse::default().with_members(members.collect()))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        LeaveGroupResponse::default().with_error_code(code)
    }

    throttled!();
}
