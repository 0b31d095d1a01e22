//! What a member holds, and how it lets go of it: revocations, losses, doubt, the way out.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{
    Action, Asked, CallId, FLUSH_BUDGET, GAVE_UP, Goal, Membership, PART_BUDGET, Phase, Revocation, RevocationId,
    Stage, list,
};
use crate::{
    cluster::NodeId,
    consumer::{
        CommitOffset, Lease,
        group::{
            assignor::Slot,
            commits::{Reply, WaiterId},
            link::{Answer, Call, Failure},
        },
    },
    error_code::ErrorCode,
};

impl Membership {
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
        let commits = &self.commits;
        let over: Vec<RevocationId> = self
            .revocations
            .iter()
            .filter(|(_, revocation)| match revocation.stage {
                Stage::Draining { .. } => false,
                Stage::Flushing { until } => until <= now || !commits.has_any(revocation.slots.iter()),
            })
            .map(|(id, _)| *id)
            .collect();
        for revocation in over.into_iter().filter_map(|id| self.revocations.remove(&id)).collect::<Vec<_>>() {
            tracing::info!(group = %self.config.group_id, partitions = %list(&revocation.slots), "gave partitions up");
            for slot in &revocation.slots {
                self.held.remove(slot);
            }
            let mut replies = Vec::new();
            self.commits.abandon(revocation.slots.iter(), &mut replies);
            self.reply(replies);
            if self.revocations.is_empty() {
                self.want_rejoin(GAVE_UP, now);
            }
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
        self.assigned_in = -1;
        self.unsettled = false;
        self.planned_for = None;
        self.suspect = false;
        self.pulse.stop();
    }

    pub(super) fn suspect_if_due(&mut self, now: Instant) {
        if self.session_end().is_some_and(|end| end <= now) {
            self.suspect = true;
            tracing::warn!(group = %self.config.group_id,
                "no heartbeat was answered for session.timeout.ms: nothing new is started until one is");
            self.held.values().for_each(|held| held.lease.set_suspect(true));
        }
    }

    pub(super) fn trust(&mut self) {
        if self.suspect {
            self.suspect = false;
            tracing::info!(group = %self.config.group_id, "the coordinator answers again");
            self.held.values().for_each(|held| held.lease.set_suspect(false));
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
            if self.member_id.is_empty() {
                self.end();
            }
        }
        let Phase::Parting { until, call } = self.phase else { return };
        if until <= now {
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
            Ok(Answer::Left(ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE)) => true,
            Ok(_) => false,
            Err(failure) => failure.retriable,
        };
        if again {
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
