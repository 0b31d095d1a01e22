//! What the coordinator's answers do to a membership: the rows of the error tables, carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{Action, Asked, CallId, EARLY_HEARTBEAT, FATAL_DELAY, Goal, Membership, Phase, list};
use crate::{
    cluster::NodeId,
    consumer::{
        Lease,
        group::{
            AssignedPartition,
            assignor::{self, Plan, Slot},
            link::{Answer, Failure, Joined, NotFound},
            requests,
            table::{self, Fix},
        },
    },
    error_code::ErrorCode,
};

impl Membership {
    pub(super) fn answered(&mut self, call: CallId, answer: Result<Answer, Failure>, now: Instant) {
        let Some((node, asked)) = self.asked.remove(&call) else { return };
        if let Err(failure) = &answer {
            tracing::debug!(group = %self.config.group_id, node, error = %failure.text, "a group request got no answer");
            if failure.retriable {
                self.coordinator_is_gone(node, now);
            }
        }
        match asked {
            Asked::Join { sent } => self.joined(call, node, sent, answer, now),
            Asked::Sync => self.synced(call, node, answer, now),
            Asked::Heartbeat { generation, sent } => {
                self.pulse.returned(call);
                self.beaten(node, generation, sent, answer, now);
            }
            Asked::Commit { generation } => self.committed(node, generation, answer, now),
            Asked::FetchOffsets(wanted) => self.offsets_fetched(node, wanted, answer, now),
            Asked::Leave => self.parted(call, node, answer, now),
        }
    }

    /// At once for the first time, after a back-off when it happens again.
    fn soon(&mut self, now: Instant) -> Instant {
        let first = self.join_backoff.tries() == 0;
        let delay = self.join_backoff.next_delay();
        if first { now } else { now + delay }
    }

    pub(super) fn later(&mut self, now: Instant) -> Instant {
        now + self.join_backoff.next_delay()
    }

    pub(super) fn coordinator_is_gone(&mut self, node: NodeId, now: Instant) {
        // What an old one says tells nothing of the one that was found since.
        if self.coordinator == Some(node) {
            self.coordinator = None;
            self.find_at = now + self.find_backoff.next_delay();
            self.actions.push(Action::Forget);
        }
    }

    pub(super) fn found(&mut self, found: Result<NodeId, NotFound>, now: Instant) {
        self.finding = false;
        let error = match found {
            Ok(node) => {
                tracing::debug!(group = %self.config.group_id, node, "found the group's coordinator");
                self.coordinator = Some(node);
                self.give_up_on_others(node, now);
                return;
            }
            Err(error) => error,
        };
        tracing::debug!(group = %self.config.group_id, error = %error.text, "no coordinator yet");
        self.find_at = now + self.find_backoff.next_delay();
        if let Some(code) = error.code.filter(|code| table::on_find(*code) == Fix::Fatal) {
            self.lose();
            self.join_at(now);
            self.fault(code, "the group's coordinator is refused to us");
            self.find_at = now + FATAL_DELAY;
        } else if !error.retriable {
            self.fault(ErrorCode::UNSUPPORTED_VERSION, &error.text);
            self.find_at = now + FATAL_DELAY;
        }
    }

    /// What was asked of a broker that is the coordinator no longer: its answer may never come, and would be worth nothing.
    fn give_up_on_others(&mut self, coordinator: NodeId, now: Instant) {
        let elsewhere = self.asked.iter().filter(|(_, (node, _))| *node != coordinator);
        for call in elsewhere.map(|(call, _)| *call).collect::<Vec<_>>() {
            let text = format!("broker {coordinator} is the group's coordinator now");
            self.answered(call, Err(Failure { retriable: true, text }), now);
        }
    }

    /// Does what the tables say of a refused join, sync or heartbeat; returns when to join.
    fn mend(&mut self, fix: Fix, code: ErrorCode, node: NodeId, what: &str, now: Instant) -> Instant {
        tracing::debug!(group = %self.config.group_id, %code, ?fix, "{what} was refused");
        match fix {
            Fix::Retry | Fix::JoinWithId => self.later(now),
            Fix::Rejoin => self.soon(now),
            Fix::Refind => {
                self.coordinator_is_gone(node, now);
                self.later(now)
            }
            Fix::LostKeepId => {
                self.lose();
                self.soon(now)
            }
            Fix::LostNewId => {
                self.lose();
                self.member_id.clear();
                self.soon(now)
            }
            Fix::Fatal => {
                self.lose();
                if code == ErrorCode::FENCED_INSTANCE_ID {
                    self.member_id.clear();
                }
                self.fault(code, &format!("{what} was refused"));
                now + FATAL_DELAY
            }
        }
    }

    /// When to join after a request that got no (readable) answer.
    fn after(&mut self, failure: Option<&Failure>, now: Instant) -> Instant {
        match failure {
            Some(failure) if !failure.retriable => {
                self.fault(ErrorCode::UNSUPPORTED_VERSION, &failure.text);
                now + FATAL_DELAY
            }
            _ => self.later(now),
        }
    }

    fn joined(&mut self, call: CallId, node: NodeId, sent: Instant, answer: Result<Answer, Failure>, now: Instant) {
        if let (Phase::Parting { .. }, Ok(Answer::Joined(joined))) = (&self.phase, &answer)
            && self.member_id.is_empty()
        {
            self.member_id.clone_from(&joined.member_id);
        }
        if !matches!(self.phase, Phase::Joining(due) if due == call) {
            return;
        }
        let joined = match answer {
            Ok(Answer::Joined(joined)) => joined,
            other => {
                let at = self.after(other.err().as_ref(), now);
                self.join_at(at);
                return;
            }
        };
        let Joined { code, member_id, generation, protocol, members } = joined;
        if !code.is_none() {
            let fix = table::on_join(code);
            let at = if fix == Fix::JoinWithId && !member_id.is_empty() {
                self.member_id = member_id;
                self.soon(now)
            } else {
                self.mend(fix, code, node, "JoinGroup", now)
            };
            self.join_at(at);
            return;
        }
        self.member_id = member_id;
        self.generation = generation;
        self.pulse.start(sent, now);
        self.confirmed(sent);
        let known = self.config.assignors.iter().find(|known| requests::assignor_name(**known) == protocol);
        let Some(known) = known else {
            let at = self.mend(Fix::Fatal, ErrorCode::INCONSISTENT_GROUP_PROTOCOL, node, "the group's assignor", now);
            self.join_at(at);
            return;
        };
        self.protocol = *known;
        match members {
            Some(members) => {
                let topics = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
                let call = self.number();
                self.phase = Phase::Describing(call, members);
                self.actions.push(Action::Describe { call, topics });
            }
            None => {
                self.actions.push(Action::Unwatch);
                self.sync(Plan::new(), now);
            }
        }
    }

    pub(super) fn described(&mut self, call: CallId, counts: &BTreeMap<Arc<str>, i32>, now: Instant) {
        let Phase::Describing(due, members) = &mut self.phase else { return };
        if *due != call {
            return;
        }
        let members = std::mem::take(members);
        let plan = assignor::assign(self.protocol, &members, counts);
        let topics = members.iter().flat_map(|member| &member.topics);
        let planned = topics.map(|topic| (topic.clone(), counts.get(topic).copied().unwrap_or(0)));
        self.planned_for = Some(planned.collect());
        self.seen_counts = None;
        self.sync(plan, now);
    }

    fn synced(&mut self, call: CallId, node: NodeId, answer: Result<Answer, Failure>, now: Instant) {
        if !matches!(self.phase, Phase::Syncing(due) if due == call) {
            return;
        }
        let at = match answer {
            Ok(Answer::Synced { code: ErrorCode::NONE, assigned: Ok(slots) }) => return self.reconcile(slots, now),
            Ok(Answer::Synced { code: ErrorCode::NONE, assigned: Err(text) }) => {
                self.lose();
                self.fault(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, &format!("the leader's assignment: {text}"));
                now + FATAL_DELAY
            }
            Ok(Answer::Synced { code, .. }) => {
                self.reason = "SyncGroup was refused";
                self.mend(table::on_sync(code), code, node, "SyncGroup", now)
            }
            other => {
                self.reason = "SyncGroup got no answer";
                self.after(other.err().as_ref(), now)
            }
        };
        self.join_at(at);
    }

    /// The assignment of this generation: what is new is asked for, what is missing is given up.
    fn reconcile(&mut self, assigned: Vec<Slot>, now: Instant) {
        self.phase = Phase::Stable;
        self.unsettled = false;
        self.assigned_in = self.generation;
        self.join_backoff.reset();
        if !self.is_eager() {
            self.pulse.hurry(now + EARLY_HEARTBEAT);
        }
        if self.goal == Goal::Leave {
            return;
        }
        let (ours, foreign): (BTreeSet<Slot>, BTreeSet<Slot>) =
            assigned.into_iter().partition(|slot| self.config.topics.iter().any(|topic| **topic == *slot.0));
        if !foreign.is_empty() {
            tracing::warn!(group = %self.config.group_id, partitions = %list(&foreign),
                "the leader assigns what this member does not subscribe to: left alone");
        }
        let going: BTreeSet<&Slot> = self.revocations.values().flat_map(|revocation| &revocation.slots).collect();
        let kept = |slot: &Slot| ours.contains(slot) || going.contains(slot);
        let revoked: Vec<Slot> = self.held.keys().filter(|slot| !kept(slot)).cloned().collect();
        tracing::info!(group = %self.config.group_id, generation = self.generation, member = %self.member_id,
            leads = self.planned_for.is_some(), assignor = requests::assignor_name(self.protocol),
            partitions = %list(&ours), "joined the group");
        for slot in &ours {
            if !self.held.contains_key(slot) {
                self.hold(slot.clone());
            }
        }
        self.assigned = ours;
        self.offsets_at = now;
        self.revoke(revoked, now);
    }

    fn beaten(&mut self, node: NodeId, generation: i32, sent: Instant, answer: Result<Answer, Failure>, now: Instant) {
        if generation != self.generation {
            return;
        }
        let Ok(Answer::Heartbeat(code)) = answer else { return self.pulse.missed(now) };
        if code.is_none() || code == ErrorCode::REBALANCE_IN_PROGRESS {
            self.confirmed(sent);
            if !code.is_none() {
                self.want_rejoin("the group rebalances", now);
            }
            return;
        }
        let fix = table::on_heartbeat(code);
        match fix {
            // The coordinator may have a newer generation of ours on its way to us.
            Fix::LostKeepId | Fix::LostNewId if self.unsettled => {}
            Fix::LostKeepId | Fix::LostNewId | Fix::Fatal => {
                self.reason = "the membership was lost";
                let at = self.mend(fix, code, node, "Heartbeat", now);
                self.join_at(at);
            }
            Fix::Refind => {
                self.coordinator_is_gone(node, now);
                self.pulse.missed(now);
            }
            Fix::Retry | Fix::JoinWithId | Fix::Rejoin => self.pulse.missed(now),
        }
    }

    fn committed(&mut self, node: NodeId, generation: i32, answer: Result<Answer, Failure>, now: Instant) {
        let rebalancing = self.unsettled || generation != self.generation;
        let codes = match &answer {
            Ok(Answer::Committed(codes)) => Some(codes),
            _ => None,
        };
        let mut replies = Vec::new();
        let errors = self.commits.answered(codes, rebalancing, now, &mut replies);
        self.reply(replies);
        for code in errors {
            let fix = table::on_commit(code, rebalancing);
            match fix {
                Fix::Refind => self.coordinator_is_gone(node, now),
                Fix::Rejoin => self.want_rejoin("the group rebalances", now),
                Fix::LostKeepId | Fix::LostNewId => {
                    self.reason = "the membership was lost";
                    let at = self.mend(fix, code, node, "OffsetCommit", now);
                    self.join_at(at);
                    return;
                }
                Fix::Fatal if code == ErrorCode::FENCED_INSTANCE_ID => {
                    let at = self.mend(fix, code, node, "OffsetCommit", now);
                    self.join_at(at);
                    return;
                }
                // Any other refusal is for whoever wanted to commit; the membership is not touched by it.
                Fix::Fatal | Fix::Retry | Fix::JoinWithId => {}
            }
        }
    }

    fn offsets_fetched(
        &mut self,
        node: NodeId,
        wanted: Vec<(Slot, Lease)>,
        answer: Result<Answer, Failure>,
        now: Instant,
    ) {
        self.fetching_offsets = false;
        let (offsets, whole) = match answer {
            Ok(Answer::Offsets(Ok(offsets))) => (offsets, None),
            Ok(Answer::Offsets(Err(code))) => (BTreeMap::new(), Some(code)),
            Err(failure) if !failure.retriable => {
                self.fault(ErrorCode::UNSUPPORTED_VERSION, &failure.text);
                self.offsets_at = now + FATAL_DELAY;
                return;
            }
            _ => (BTreeMap::new(), None),
        };
        let mut assigned = Vec::new();
        let mut errors: BTreeSet<ErrorCode> = whole.into_iter().collect();
        let mut missing = false;
        for (slot, lease) in wanted {
            // Lost, or lost and assigned again since: what was committed then is no news now.
            let Some(held) = self.held.get_mut(&slot).filter(|held| held.lease.same(&lease)) else { continue };
            match offsets.get(&slot) {
                Some(Ok(committed)) => {
                    held.announced = true;
                    assigned.push(AssignedPartition { lease, committed: *committed });
                }
                Some(Err(code)) => {
                    errors.insert(*code);
                }
                None => missing = true,
            }
        }
        if !assigned.is_empty() {
            self.actions.push(Action::Assigned(assigned));
        }
        if errors.is_empty() && !missing {
            self.offsets_backoff.reset();
            return;
        }
        self.offsets_at = now + self.offsets_backoff.next_delay();
        for code in errors {
            tracing::debug!(group = %self.config.group_id, %code, "OffsetFetch was refused");
            match table::on_offset_fetch(code) {
                Fix::Refind => self.coordinator_is_gone(node, now),
                Fix::Fatal => {
                    self.fault(code, "the committed offsets cannot be read");
                    self.offsets_at = now + FATAL_DELAY;
                }
                _ => {}
            }
        }
    }
}
