//! What a member holds, and how it lets go of it: revocations, losses, doubt, the way out.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{
    Action, Asked, CallId, FLUSH_BUDGET, Goal, Held, Membership, PART_BUDGET, Phase, Revocation, RevocationId, Stage,
    list,
};
use crate::{
    cluster::NodeId,
    consumer::{
        CommitOffset, Lease,
        group::{
            assignor::Slot,
            commits::{Reply, WaiterId},
            link::{Answer, Call, Failure},
            table,
        },
    },
    error_code::ErrorCode,
};

impl Membership {
    /// Joins at `at`, unless it is on its way out.
    pub(super) fn join_at(&mut self, at: Instant) {
        if !matches!(self.phase, Phase::Parting { .. } | Phase::Left) {
            self.phase = Phase::Due(at);
        }
    }

    pub(super) fn want_rejoin(&mut self, reason: &'static str, now: Instant) {
        if matches!(self.phase, Phase::Stable) && self.goal == Goal::Member {
            self.reason = reason;
            self.phase = Phase::Due(now);
        }
    }

    pub(super) fn rejoin_if_planned_for_others(&mut self, now: Instant) {
        let (Some(planned), Some(seen)) = (&self.planned_for, &self.seen_counts) else { return };
        let changed = planned.iter().any(|(topic, count)| seen.get(topic).copied().unwrap_or(0) != *count);
        if changed && matches!(self.phase, Phase::Stable) && self.goal == Goal::Member {
            tracing::info!(group = %self.config.group_id, "the subscribed topics have other partitions now");
            self.want_rejoin("the subscribed topics have other partitions", now);
        }
    }

    pub(super) fn revoke(&mut self, slots: Vec<Slot>, now: Instant) {
        let mut leases = Vec::new();
        let mut told = Vec::new();
        for slot in slots {
            self.assigned.remove(&slot);
            match self.held.get(&slot) {
                Some(held) if held.announced => {
                    held.lease.start_revoking();
                    leases.push(held.lease.clone());
                    told.push(slot);
                }
                Some(held) => {
                    held.lease.lose();
                    self.held.remove(&slot);
                }
                None => {}
            }
        }
        if leases.is_empty() {
            return;
        }
        let (revocation, deadline) = (self.number(), now + self.config.drain_timeout);
        tracing::info!(group = %self.config.group_id, partitions = %list(&told), "giving partitions up");
        self.revocations.insert(revocation, Revocation { slots: told, stage: Stage::Draining { deadline } });
        self.actions.push(Action::Revoke { revocation, leases, deadline });
    }

    /// Drained, or late: no side effect may start any more. The last commits still go out before the partitions do.
    pub(super) fn released(&mut self, revocation: RevocationId, now: Instant) {
        let Some(revocation) = self.revocations.get_mut(&revocation) else { return };
        if matches!(revocation.stage, Stage::Draining { .. }) {
            revocation.stage = Stage::Flushing { until: now + FLUSH_BUDGET };
            for held in revocation.slots.iter().filter_map(|slot| self.held.get(slot)) {
                held.lease.lose();
            }
        }
    }

    /// When a revocation goes on without anybody's doing.
    pub(super) fn revocation_due(&self, revocation: &Revocation) -> Option<Instant> {
        // Between a join and its assignment no commit can be made, and nobody waits for the partitions either.
        let patient = matches!(self.phase, Phase::Describing(..) | Phase::Syncing(_)) && self.goal == Goal::Member;
        match revocation.stage {
            Stage::Draining { deadline } => Some(deadline),
            Stage::Flushing { until } => (!patient).then_some(until),
        }
    }

    pub(super) fn finish_revocations(&mut self, now: Instant) {
        let late: Vec<RevocationId> = self
            .revocations
            .iter()
            .filter(|(_, revocation)| matches!(revocation.stage, Stage::Draining { deadline } if deadline <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            tracing::warn!(group = %self.config.group_id, "the drain timeout passed: records in flight will come again");
            self.released(id, now);
        }
        let is_over = |revocation: &Revocation| {
            matches!(revocation.stage, Stage::Flushing { .. })
                && (!self.commits.has_any(revocation.slots.iter())
                    || self.revocation_due(revocation).is_some_and(|until| until <= now))
        };
        let over: Vec<RevocationId> =
            self.revocations.iter().filter(|(_, revocation)| is_over(revocation)).map(|(id, _)| *id).collect();
        for revocation in over.into_iter().filter_map(|id| self.revocations.remove(&id)).collect::<Vec<_>>() {
            tracing::info!(group = %self.config.group_id, partitions = %list(&revocation.slots), "gave partitions up");
            let mut replies = Vec::new();
            self.commits.abandon(revocation.slots.iter(), &mut replies);
            self.reply(replies);
            for slot in revocation.slots {
                self.held.remove(&slot);
                if self.goal == Goal::Member && self.assigned.contains(&slot) {
                    // While it drained the group gave it to us again.
                    self.hold(slot);
                    self.offsets_at = now;
                }
            }
        }
    }

    pub(super) fn hold(&mut self, slot: Slot) {
        let lease = Lease::new(slot.0.clone(), slot.1, self.generation);
        if let Some(until) = self.pulse.holds_until() {
            lease.confirm_until(until);
        }
        self.held.insert(slot, Held { lease, announced: false });
    }

    /// The group takes us for the owner of what we gave up, until we come and say so.
    pub(super) fn rejoin_if_given_up(&mut self, now: Instant) {
        if self.revocations.is_empty() && self.claimed.iter().any(|slot| !self.held.contains_key(slot)) {
            self.want_rejoin("partitions were given up", now);
        }
    }

    /// The generation is over without our doing: everything is gone at once, and nothing of it is committed.
    pub(super) fn lose(&mut self) {
        let told = self.held.values().filter(|held| held.announced && !held.lease.is_lost());
        let told: Vec<Lease> = told.map(|held| held.lease.clone()).collect();
        let mut replies = Vec::new();
        self.commits.abandon(self.held.keys(), &mut replies);
        for held in std::mem::take(&mut self.held).into_values() {
            held.lease.lose();
        }
        if !told.is_empty() {
            tracing::warn!(group = %self.config.group_id, partitions = told.len(), "the partitions are lost");
            self.actions.push(Action::Lost(told));
        }
        self.reply(replies);
        self.revocations.clear();
        self.generation = -1;
        self.assigned.clear();
        self.assigned_in = -1;
        self.claimed.clear();
        self.unsettled = false;
        self.planned_for = None;
        self.in_doubt = false;
        self.pulse.stop();
    }

    /// The coordinator takes us for a member, as of when that request was sent.
    pub(super) fn confirmed(&mut self, sent: Instant) {
        self.pulse.confirmed(sent);
        self.find_backoff.reset();
        if let Some(until) = self.pulse.holds_until() {
            self.held.values().for_each(|held| held.lease.confirm_until(until));
        }
    }

    /// Notices that the coordinator's word holds no longer, or again. The leases see it by themselves.
    pub(super) fn doubt(&mut self, now: Instant) {
        let over = self.pulse.holds_until().is_some_and(|until| until <= now);
        let in_doubt = over && !self.held.is_empty();
        if in_doubt == self.in_doubt {
            return;
        }
        self.in_doubt = in_doubt;
        if !in_doubt {
            tracing::info!(group = %self.config.group_id, "the membership is in doubt no longer");
        } else if self.held.values().any(|held| held.announced) {
            tracing::warn!(group = %self.config.group_id,
                "no heartbeat was answered for session.timeout.ms: nothing new is started until one is");
        }
    }

    pub(super) fn commit(&mut self, waiter: WaiterId, offsets: Vec<CommitOffset>) {
        let mut replies = Vec::new();
        let held = &self.held;
        let ours = |slot: &Slot| held.get(slot).filter(|held| held.announced).map(|held| &held.lease);
        self.commits.admit(waiter, offsets, ours, &mut replies);
        self.reply(replies);
    }

    pub(super) fn reply(&mut self, replies: Vec<Reply>) {
        self.actions.extend(replies.into_iter().map(Action::Reply));
    }

    pub(super) fn fault(&mut self, code: ErrorCode, message: &str) {
        tracing::warn!(group = %self.config.group_id, %code, "{message}");
        self.actions.push(Action::Fault { code, message: message.to_owned() });
    }

    pub(super) fn leave(&mut self, now: Instant) {
        if self.goal == Goal::Leave {
            return;
        }
        self.goal = Goal::Leave;
        let going: BTreeSet<&Slot> = self.revocations.values().flat_map(|revocation| &revocation.slots).collect();
        let rest = self.held.keys().filter(|slot| !going.contains(slot)).cloned().collect();
        self.revoke(rest, now);
    }

    pub(super) fn part_if_drained(&mut self, now: Instant) {
        if self.goal == Goal::Member || !self.revocations.is_empty() {
            return;
        }
        if !matches!(self.phase, Phase::Parting { .. } | Phase::Left) {
            self.phase = Phase::Parting { until: now + PART_BUDGET, call: None };
        }
        let Phase::Parting { until, call } = self.phase else { return };
        if self.member_id.is_empty() {
            // A first JoinGroup on its way will tell the id that the coordinator expects to hear of again.
            if !self.is_joining() || until <= now {
                self.end();
            }
        } else if until <= now {
            tracing::info!(group = %self.config.group_id, "left without an answer: the session will expire");
            self.end();
        } else if call.is_none() {
            let request = Call::Leave { member_id: self.member_id.clone() };
            let call = self.send(request, until - now, Asked::Leave);
            self.phase = Phase::Parting { until, call };
        }
    }

    pub(super) fn parted(&mut self, call: CallId, node: NodeId, answer: Result<Answer, Failure>, now: Instant) {
        let Phase::Parting { until, call: Some(due) } = self.phase else { return };
        if due != call {
            return;
        }
        let again = match answer {
            Ok(Answer::Left(code)) => table::leave_again(code),
            Ok(_) => false,
            Err(failure) => failure.retriable,
        };
        if again {
            // Another search is also the back-off that a coordinator needs that is loading.
            self.coordinator_is_gone(node, now);
            self.phase = Phase::Parting { until, call: None };
        } else {
            tracing::info!(group = %self.config.group_id, "left the group");
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        self.lose();
        let mut replies = Vec::new();
        self.commits.close(&mut replies);
        self.reply(replies);
        self.phase = Phase::Left;
        self.actions.push(Action::End);
    }
}
