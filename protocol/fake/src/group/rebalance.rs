//! From one generation to the next: waiting for all to join, choosing, waiting for the leader, handing out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use tokio::time::Instant;

use super::{Group, JoinTimer, Joined, Phase, Reply, Rules, Synced, answer};

impl Group {
    /// Something about the members changed: a new generation is due, or one step nearer.
    pub(super) fn rebalance(&mut self, now: Instant, rules: &Rules) {
        if matches!(self.phase, Phase::PreparingRebalance { .. }) {
            self.complete_if_all_joined(now);
            return;
        }
        if self.phase == Phase::CompletingRebalance {
            for member in self.members.values_mut() {
                member.profile.assignment = Bytes::new();
                if let Some(reply) = member.awaiting_sync.take() {
                    member.expires = now + member.profile.session_timeout;
                    answer(Some(reply), Synced::refused(ErrorCode::REBALANCE_IN_PROGRESS));
                }
            }
        }
        self.awaited_syncs.clear();
        self.sync_deadline = None;
        let initial = self.phase == Phase::Empty;
        self.phase = Phase::PreparingRebalance { initial };
        if initial {
            let delay = rules.join_delay;
            self.new_member_added = false;
            let left = self.rebalance_timeout().saturating_sub(delay);
            self.join_timer = Some(JoinTimer::Initial { at: now + delay, delay, left });
        } else if self.all_joined() {
            self.complete(now);
        } else {
            self.join_timer = Some(JoinTimer::Rebalance { at: now + self.rebalance_timeout() });
        }
    }

    /// The longest that a member asked for.
    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.profile.rebalance_timeout).max().unwrap_or_default()
    }

    fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Instant) {
        if self.phase == (Phase::PreparingRebalance { initial: false }) && self.all_joined() {
            self.complete(now);
        }
    }

    pub(super) fn join_timer_due(&mut self, now: Instant, rules: &Rules) {
        let Some(timer) = self.join_timer.filter(|timer| timer.at() <= now) else {
            return;
        };
        match timer {
            JoinTimer::Initial { delay, left, .. } if self.new_member_added && !left.is_zero() => {
                self.new_member_added = false;
                let next = rules.join_delay.min(left);
                let left = left.saturating_sub(delay);
                self.join_timer = Some(JoinTimer::Initial { at: now + next, delay: next, left });
            }
            JoinTimer::Initial { .. } | JoinTimer::Rebalance { .. } => self.complete(now),
        }
    }

    /// Ends the joining: whoever did not come is out, the others are told the new generation.
    fn complete(&mut self, now: Instant) {
        self.join_timer = None;
        let absent = |(id, member): (&String, &super::Member)| member.awaiting_join.is_none().then(|| id.clone());
        for id in self.members.iter().filter_map(absent).collect::<Vec<_>>() {
            self.drop_member(&id);
        }
        let leader_came = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(|leader| leader.awaiting_join.is_some());
        if !leader_came {
            self.leader = self.members.keys().next().cloned();
        }
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol = None;
            self.leader = None;
            self.persist();
            return;
        }
        self.protocol = self.select_protocol();
        self.phase = Phase::CompletingRebalance;
        self.awaited_syncs = self.members.keys().cloned().collect();
        self.sync_deadline = Some(now + self.rebalance_timeout());
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
                if let Some(reply) = member.awaiting_join.take() {
                    member.expires = now + member.profile.session_timeout;
                    answer(Some(reply), joined);
                }
            }
        }
    }

    /// Takes a SyncGroup in. The answer is held until the leader has said who gets what.
    pub(crate) fn sync(
        &mut self,
        now: Instant,
        member_id: &str,
        generation: i32,
        protocol: (Option<&str>, Option<&str>),
        mut assignments: BTreeMap<String, Bytes>,
        reply: Reply<Synced>,
    ) {
        let refuse = |reply, code| answer(Some(reply), Synced::refused(code));
        if !self.members.contains_key(member_id) {
            return refuse(reply, ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if generation != self.generation {
            return refuse(reply, ErrorCode::ILLEGAL_GENERATION);
        }
        let same = |asked: Option<&str>, ours: Option<&str>| asked.is_none() || asked == ours;
        if !same(protocol.0, self.protocol_type()) || !same(protocol.1, self.protocol()) {
            return refuse(reply, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.phase {
            Phase::Empty => return refuse(reply, ErrorCode::UNKNOWN_MEMBER_ID),
            Phase::PreparingRebalance { .. } => return refuse(reply, ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::CompletingRebalance | Phase::Stable => {}
        }
        self.awaited_syncs.remove(member_id);
        if self.awaited_syncs.is_empty() {
            self.sync_deadline = None;
        }
        if self.phase == Phase::Stable {
            self.prolong(now, member_id);
            let synced = self.synced(member_id);
            return answer(Some(reply), synced);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.awaiting_sync = Some(reply);
        }
        if self.is_leader(member_id) {
            for (id, member) in &mut self.members {
                member.profile.assignment = assignments.remove(id).unwrap_or_default();
            }
            self.phase = Phase::Stable;
            self.persist();
            for id in self.members.keys().cloned().collect::<Vec<_>>() {
                let synced = self.synced(&id);
                if let Some(member) = self.members.get_mut(&id)
                    && let Some(reply) = member.awaiting_sync.take()
                {
                    member.expires = now + member.profile.session_timeout;
                    answer(Some(reply), synced);
                }
            }
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.profile.assignment.clone()).unwrap_or_default(),
        }
    }

    /// Members that joined and did not sync in time are out.
    pub(super) fn sync_timer_due(&mut self, now: Instant, rules: &Rules) {
        if self.sync_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.sync_deadline = None;
        for id in std::mem::take(&mut self.awaited_syncs) {
            self.drop_member(&id);
        }
        self.rebalance(now, rules);
    }

    /// A member is gone; the others share anew.
    pub(super) fn remove(&mut self, now: Instant, rules: &Rules, id: &str) {
        self.drop_member(id);
        if self.phase != Phase::Empty {
            self.rebalance(now, rules);
        }
    }

    fn drop_member(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        answer(member.awaiting_join, Joined::refused(ErrorCode::UNKNOWN_MEMBER_ID, ""));
        answer(member.awaiting_sync, Synced::refused(ErrorCode::UNKNOWN_MEMBER_ID));
        self.awaited_syncs.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }
}
