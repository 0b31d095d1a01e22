//! JoinGroup: who comes in and who comes again.

use std::time::Duration;

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use tokio::time::Instant;

use super::{Group, Joined, MAX_MEMBERS, Member, NEW_MEMBER_JOIN_TIMEOUT, Phase, Profile, Reply, Rules, answer};

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// Empty for a member that has none yet.
    pub(crate) member_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// From version 4 on a new member is given its id before it may join (KIP-394).
    pub(crate) id_first: bool,
}

impl Join {
    fn profile(&self) -> Profile {
        Profile {
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout: self.session_timeout,
            rebalance_timeout: self.rebalance_timeout,
            protocols: self.protocols.clone(),
            assignment: Bytes::new(),
        }
    }
}

impl Group {
    /// Takes a JoinGroup in; `new_id` is the member's if it has none. The answer may be given at once or held until the
    /// generation is complete.
    pub(crate) fn join(&mut self, now: Instant, rules: &Rules, new_id: String, join: &Join, reply: Reply<Joined>) {
        let refuse = |reply, code| answer(Some(reply), Joined::refused(code, &join.member_id));
        if join.session_timeout < rules.min_session_timeout || join.session_timeout > rules.max_session_timeout {
            return refuse(reply, ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        let known = self.members.contains_key(&join.member_id);
        if !known && self.members.len() + self.pending.len() >= MAX_MEMBERS {
            return refuse(reply, ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        if !self.supports(join) {
            return refuse(reply, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if !join.member_id.is_empty() {
            return self.join_again(now, rules, join, reply);
        }
        if !join.id_first {
            return self.add(now, rules, new_id, join, reply);
        }
        self.pending.insert(new_id.clone(), now + join.session_timeout);
        answer(Some(reply), Joined::refused(ErrorCode::MEMBER_ID_REQUIRED, &new_id));
    }

    /// A member that has an id joins with it.
    fn join_again(&mut self, now: Instant, rules: &Rules, join: &Join, reply: Reply<Joined>) {
        let id = join.member_id.as_str();
        if self.pending.remove(id).is_some() {
            return self.add(now, rules, id.to_owned(), join, reply);
        }
        let Some(member) = self.members.get(id) else {
            return answer(Some(reply), Joined::refused(ErrorCode::UNKNOWN_MEMBER_ID, id));
        };
        let unchanged = member.profile.protocols == join.protocols;
        match self.phase {
            Phase::Empty => answer(Some(reply), Joined::refused(ErrorCode::UNKNOWN_MEMBER_ID, id)),
            // It may not have heard the answer to its last join.
            Phase::CompletingRebalance if unchanged => answer(Some(reply), self.joined(id)),
            // A follower that comes again without news needs no new generation; the leader comes because it wants one.
            Phase::Stable if unchanged && !self.is_leader(id) => answer(Some(reply), self.joined(id)),
            Phase::PreparingRebalance { .. } | Phase::CompletingRebalance | Phase::Stable => {
                self.update(id, join, reply);
                self.rebalance(now, rules);
            }
        }
    }

    fn add(&mut self, now: Instant, rules: &Rules, id: String, join: &Join, reply: Reply<Joined>) {
        if matches!(self.phase, Phase::PreparingRebalance { initial: true }) {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        let member = Member {
            profile: join.profile(),
            awaiting_join: Some(reply),
            awaiting_sync: None,
            expires: now + NEW_MEMBER_JOIN_TIMEOUT,
            is_new: true,
        };
        self.members.insert(id, member);
        self.rebalance(now, rules);
    }

    fn update(&mut self, id: &str, join: &Join, reply: Reply<Joined>) {
        if let Some(member) = self.members.get_mut(id) {
            let assignment = std::mem::take(&mut member.profile.assignment);
            member.profile = Profile { assignment, ..join.profile() };
            // Whoever waits on an earlier join of the same member is not answered any more; its connection closes.
            member.awaiting_join = Some(reply);
        }
    }

    /// What a member of the current generation is told.
    pub(super) fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol.as_deref();
        let member = |(id, member): (&String, &Member)| (id.clone(), member.metadata(protocol));
        Joined {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: if self.is_leader(id) { self.members.iter().map(member).collect() } else { Vec::new() },
        }
    }

    /// Whether a member with these protocols can be in this group.
    fn supports(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let all_know = |name: &str| self.members.values().all(|member| knows(member, name));
        self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
            && join.protocols.iter().any(|(name, _)| all_know(name))
    }

    /// The protocol that most members prefer among those that all know.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let candidates = first.profile.protocols.iter().map(|(name, _)| name.as_str());
        let common: Vec<&str> =
            candidates.filter(|name| self.members.values().all(|member| knows(member, name))).collect();
        let vote = |member: &Member| {
            let preferred = member.profile.protocols.iter().find(|(name, _)| common.contains(&name.as_str()));
            preferred.map(|(name, _)| name.clone())
        };
        let votes: Vec<String> = self.members.values().filter_map(vote).collect();
        let count = |name: &str| votes.iter().filter(|vote| *vote == name).count();
        // Of equals the one that stands first with the first member.
        common.iter().rev().max_by_key(|name| count(name)).map(|name| (*name).to_owned())
    }
}

fn knows(member: &Member, protocol: &str) -> bool {
    member.profile.protocols.iter().any(|(name, _)| name == protocol)
}
