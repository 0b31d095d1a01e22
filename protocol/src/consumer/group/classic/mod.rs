//! Membership of a classic group as a machine: [`Membership::step`] takes what happened and gives what is to be done.
//!
//! ```text
//!  .------------------ lost, refused, rebalance, what was revoked is given up ------------------.
//!  v                                                                                            |
//! Due -> Joining -> (leader: Describing) -> Syncing -> Stable -> (what was revoked drains) -----'
//!  '- eager: everything drains first
//! any, told to leave, once nothing is held -> Parting -> Left
//! ```
//!
//! It knows no sockets and no clock: times come in, and [`Membership::wake`] tells when it wants to be asked again. It does
//! not know who processes records, and nothing in it waits for them but a hand-over, which has a deadline.
//!
//! Each request has a number; an answer to a number that is not waited for any more changes nothing. A heartbeat's and a
//! commit's answer counts for the generation that they were sent in.
//!
//! Cooperative members never join with less than they hold: what still drains is claimed too, so that nobody else gets it,
//! and a rebalance of the group does not wait for the drain.

mod answers;
mod holding;
mod pulse;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use pulse::Pulse;
use tokio::time::{Duration, Instant};

use super::{
    super::{Assignor, CommitOffset, ConsumerConfig, Lease},
    AssignedPartition,
    assignor::{Member, Plan, Slot},
    commits::{CommitQueue, Reply, WaiterId},
    link::{Answer, Call, Failure, NotFound},
};
use crate::{
    cluster::{Backoff, NodeId},
    error_code::ErrorCode,
};

/// What the rebalance timeout has beyond the drain timeout: the last commit, and the way to the coordinator.
const HAND_OVER_BUDGET: Duration = Duration::from_secs(10);
/// So long the last commits of a hand-over may take.
const FLUSH_BUDGET: Duration = Duration::from_secs(5);
/// So long LeaveGroup may take, finding the coordinator included.
const PART_BUDGET: Duration = Duration::from_secs(5);
/// The broker may hold JoinGroup and SyncGroup for the rebalance timeout; so much longer we wait for the answer.
const JOIN_MARGIN: Duration = Duration::from_secs(5);
/// After an error that somebody has to mend.
const FATAL_DELAY: Duration = Duration::from_secs(10);
/// A cooperative round is often followed by another: look for it so soon.
const EARLY_HEARTBEAT: Duration = Duration::from_millis(500);

pub(super) type CallId = u64;
pub(super) type RevocationId = u64;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Nothing but that time passed.
    Tick,
    Found(Result<NodeId, NotFound>),
    Answered {
        call: CallId,
        answer: Result<Answer, Failure>,
    },
    /// The answer to [`Action::Describe`].
    Described {
        call: CallId,
        counts: BTreeMap<Arc<str>, i32>,
    },
    /// New metadata of the topics of [`Membership::planned_topics`].
    Partitions(BTreeMap<Arc<str>, i32>),
    Commit {
        waiter: WaiterId,
        offsets: Vec<CommitOffset>,
    },
    /// The owner has drained what was revoked.
    Released(RevocationId),
    /// Revoke everything, then leave the group.
    Leave,
    /// Stop at once: nothing can be sent any more.
    Abort,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Find the coordinator, and tell by [`Event::Found`].
    Find,
    /// The coordinator that was found is none any more.
    Forget,
    /// Send it, and tell by [`Event::Answered`].
    Send {
        call: CallId,
        node: NodeId,
        request: Call,
        timeout: Duration,
    },
    /// Keep these topics watched, and tell their partition counts by [`Event::Described`].
    Describe {
        call: CallId,
        topics: BTreeSet<Arc<str>>,
    },
    /// We do not lead: the topics of the last [`Action::Describe`] are watched no longer.
    Unwatch,
    Assigned(Vec<AssignedPartition>),
    Revoke {
        revocation: RevocationId,
        leases: Vec<Lease>,
        deadline: Instant,
    },
    Lost(Vec<Lease>),
    Fault {
        code: ErrorCode,
        message: String,
    },
    Reply(Reply),
    /// It is over; the last action.
    End,
}

enum Phase {
    /// A join is due then, once everything that is being given up is gone.
    Due(Instant),
    Joining(CallId),
    /// We lead, and ask for the partition counts of what the members subscribe to.
    Describing(CallId, Vec<Member>),
    Syncing(CallId),
    Stable,
    /// LeaveGroup is due or on its way.
    Parting {
        until: Instant,
        call: Option<CallId>,
    },
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Member,
    Leave,
}

/// One partition of ours.
struct Held {
    lease: Lease,
    /// Whether its committed offset was found and the owner knows of it.
    announced: bool,
}

/// Partitions that are being given up.
struct Revocation {
    slots: Vec<Slot>,
    stage: Stage,
}

enum Stage {
    /// The owner finishes what is in flight.
    Draining { deadline: Instant },
    /// Its last commits are on their way.
    Flushing { until: Instant },
}

/// A request whose answer is awaited.
enum Asked {
    Join { sent: Instant },
    Sync,
    Heartbeat { generation: i32, sent: Instant },
    Commit { generation: i32 },
    FetchOffsets(Vec<(Slot, Lease)>),
    Leave,
}

pub(super) struct Membership {
    config: ConsumerConfig,
    goal: Goal,
    phase: Phase,
    member_id: String,
    /// -1 = none.
    generation: i32,
    protocol: Assignor,
    /// The last assignment and its generation: what we claim to own is as of then.
    assigned: BTreeSet<Slot>,
    assigned_in: i32,
    /// What we gave up and the group still takes us for the owner of.
    given_up: BTreeSet<Slot>,
    /// A join was sent, and no assignment has followed: the group may have a generation that we do not know.
    unsettled: bool,
    reason: &'static str,
    join_backoff: Backoff,
    coordinator: Option<NodeId>,
    finding: bool,
    find_at: Instant,
    find_backoff: Backoff,
    pulse: Pulse,
    /// The coordinator's word does not hold any more.
    in_doubt: bool,
    held: BTreeMap<Slot, Held>,
    fetching_offsets: bool,
    offsets_at: Instant,
    offsets_backoff: Backoff,
    revocations: BTreeMap<RevocationId, Revocation>,
    commits: CommitQueue,
    asked: BTreeMap<CallId, (NodeId, Asked)>,
    next_number: u64,
    /// If we lead: the partition counts that the plan was made for, and the newest ones.
    planned_for: Option<BTreeMap<Arc<str>, i32>>,
    seen_counts: Option<BTreeMap<Arc<str>, i32>>,
    actions: Vec<Action>,
}

impl Membership {
    /// `backoff`: `retry.backoff.ms` and `retry.backoff.max.ms`.
    pub(super) fn new(config: ConsumerConfig, backoff: (Duration, Duration), now: Instant) -> Self {
        let pulse = Pulse::new(config.heartbeat_interval, config.session_timeout, backoff, now);
        let new_backoff = || Backoff::new(backoff.0, backoff.1);
        Self {
            goal: Goal::Member,
            phase: Phase::Due(now),
            member_id: String::new(),
            generation: -1,
            protocol: config.assignors.first().copied().unwrap_or(Assignor::CooperativeSticky),
            config,
            assigned: BTreeSet::new(),
            assigned_in: -1,
            given_up: BTreeSet::new(),
            unsettled: false,
            reason: "a new member",
            join_backoff: new_backoff(),
            coordinator: None,
            finding: false,
            find_at: now,
            find_backoff: new_backoff(),
            pulse,
            in_doubt: false,
            held: BTreeMap::new(),
            fetching_offsets: false,
            offsets_at: now,
            offsets_backoff: new_backoff(),
            revocations: BTreeMap::new(),
            commits: CommitQueue::new(backoff, now),
            asked: BTreeMap::new(),
            next_number: 0,
            planned_for: None,
            seen_counts: None,
            actions: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        if matches!(self.phase, Phase::Left) {
            return Vec::new();
        }
        match event {
            Event::Tick => {}
            Event::Found(found) => self.found(found, now),
            Event::Answered { call, answer } => self.answered(call, answer, now),
            Event::Described { call, counts } => self.described(call, &counts, now),
            Event::Partitions(counts) => self.seen_counts = Some(counts),
            Event::Commit { waiter, offsets } => self.commit(waiter, offsets),
            Event::Released(revocation) => self.released(revocation, now),
            Event::Leave => self.leave(now),
            Event::Abort => {
                self.lose();
                self.end();
            }
        }
        self.pursue(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub(super) fn wake(&self) -> Option<Instant> {
        let revocations = self.revocations.values().map(|revocation| self.revocation_due(revocation));
        let parting = match self.phase {
            Phase::Parting { until, .. } => Some(until),
            _ => None,
        };
        [
            parting,
            self.doubt_due(),
            self.find_due(),
            self.revoke_due(),
            self.join_due(),
            self.heartbeat_due(),
            self.offsets_due(),
            self.commit_due(),
        ]
        .into_iter()
        .chain(revocations)
        .flatten()
        .min()
    }

    /// The topics whose partition counts the plan of ours hangs on; None if we do not lead.
    pub(super) fn planned_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        Some(self.planned_for.as_ref()?.keys().cloned().collect())
    }

    // What is due.

    /// Starts whatever is due. Each part looks at the state alone, so that it does not matter what led there.
    fn pursue(&mut self, now: Instant) {
        self.finish_revocations(now);
        self.doubt(now);
        self.rejoin_if_planned_for_others(now);
        self.rejoin_if_given_up(now);
        self.part_if_drained(now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.find_due()) {
            self.finding = true;
            self.actions.push(Action::Find);
        }
        if due(self.revoke_due()) {
            // Eager members come with empty hands.
            let all = self.held.keys().cloned().collect();
            self.revoke(all, now);
        }
        if due(self.join_due()) {
            self.join(now);
        }
        if due(self.heartbeat_due()) {
            self.heartbeat(now);
        }
        if due(self.offsets_due()) {
            self.fetch_offsets();
        }
        if due(self.commit_due()) {
            self.send_commits();
        }
    }

    /// As in Java: one assignor that cannot do it cooperatively makes the whole list eager.
    fn is_eager(&self) -> bool {
        self.config.assignors.contains(&Assignor::Range)
    }

    fn doubt_due(&self) -> Option<Instant> {
        self.pulse.holds_until().filter(|_| !self.in_doubt && !self.held.is_empty())
    }

    /// While a join or its sync is on its way the next cannot be answered.
    fn is_joining(&self) -> bool {
        self.asked.values().any(|(_, asked)| matches!(asked, Asked::Join { .. } | Asked::Sync))
    }

    fn find_due(&self) -> Option<Instant> {
        (self.coordinator.is_none() && !self.finding && !matches!(self.phase, Phase::Left)).then_some(self.find_at)
    }

    /// When everything is to be given up before a join.
    fn revoke_due(&self) -> Option<Instant> {
        let Phase::Due(at) = self.phase else { return None };
        let hands_full = self.is_eager() && !self.held.is_empty() && self.revocations.is_empty();
        (hands_full && self.goal == Goal::Member).then_some(at)
    }

    fn join_due(&self) -> Option<Instant> {
        let Phase::Due(at) = self.phase else { return None };
        let free = (self.held.is_empty() || !self.is_eager()) && !self.is_joining();
        (free && self.goal == Goal::Member && self.coordinator.is_some()).then_some(at)
    }

    fn heartbeat_due(&self) -> Option<Instant> {
        let member = self.generation >= 0 && !matches!(self.phase, Phase::Parting { .. } | Phase::Left);
        if member && self.coordinator.is_some() { self.pulse.due() } else { None }
    }

    fn offsets_due(&self) -> Option<Instant> {
        let wanted = self.held.values().any(|held| !held.announced);
        let may = self.generation >= 0 && self.goal == Goal::Member && self.coordinator.is_some();
        (wanted && may && !self.fetching_offsets && !self.in_doubt).then_some(self.offsets_at)
    }

    /// While the group gathers, the coordinator still takes commits of the old generation. From when it has a new one until
    /// its assignments are known it takes none.
    fn commit_due(&self) -> Option<Instant> {
        let may = matches!(self.phase, Phase::Due(_) | Phase::Joining(_) | Phase::Stable);
        // Whoever leaves has nothing to wait for; the generation in the commit keeps it harmless.
        let sure = !self.in_doubt || self.goal == Goal::Leave;
        if may && sure && self.generation >= 0 && self.coordinator.is_some() { self.commits.due() } else { None }
    }

    // Requests.

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn send(&mut self, request: Call, timeout: Duration, asked: Asked) -> Option<CallId> {
        let node = self.coordinator?;
        let call = self.number();
        self.asked.insert(call, (node, asked));
        self.actions.push(Action::Send { call, node, request, timeout });
        Some(call)
    }

    fn rebalance_timeout(&self) -> Duration {
        self.config.drain_timeout + HAND_OVER_BUDGET
    }

    fn join(&mut self, now: Instant) {
        let request = Call::Join {
            member_id: self.member_id.clone(),
            owned: self.held.keys().cloned().collect(),
            owned_generation: self.assigned_in,
            rebalance_timeout: self.rebalance_timeout(),
            reason: self.reason,
        };
        match self.send(request, self.rebalance_timeout() + JOIN_MARGIN, Asked::Join { sent: now }) {
            Some(call) => {
                self.phase = Phase::Joining(call);
                self.given_up.clear();
                self.unsettled = true;
                self.planned_for = None;
            }
            None => self.phase = Phase::Due(self.later(now)),
        }
    }

    fn sync(&mut self, plan: Plan, now: Instant) {
        let request = Call::Sync {
            member_id: self.member_id.clone(),
            generation: self.generation,
            protocol: self.protocol,
            plan,
        };
        match self.send(request, self.rebalance_timeout() + JOIN_MARGIN, Asked::Sync) {
            Some(call) => self.phase = Phase::Syncing(call),
            None => {
                let at = self.later(now);
                self.join_at(at);
            }
        }
    }

    fn heartbeat(&mut self, now: Instant) {
        let generation = self.generation;
        let request = Call::Heartbeat { member_id: self.member_id.clone(), generation };
        // Half a session is left to try another socket.
        let timeout = self.config.request_timeout.min(self.config.session_timeout / 2);
        if let Some(call) = self.send(request, timeout, Asked::Heartbeat { generation, sent: now }) {
            self.pulse.sent(call, now);
        }
    }

    fn fetch_offsets(&mut self) {
        let new = self.held.iter().filter(|(_, held)| !held.announced);
        let wanted: Vec<(Slot, Lease)> = new.map(|(slot, held)| (slot.clone(), held.lease.clone())).collect();
        let request = Call::FetchOffsets { slots: wanted.iter().map(|(slot, _)| slot.clone()).collect() };
        let timeout = self.config.request_timeout;
        self.fetching_offsets = self.send(request, timeout, Asked::FetchOffsets(wanted)).is_some();
    }

    fn send_commits(&mut self) {
        let (member_id, generation) = (self.member_id.clone(), self.generation);
        let mut replies = Vec::new();
        let offsets = self.commits.take(&mut replies);
        self.reply(replies);
        if offsets.is_empty() {
            return;
        }
        let request = Call::Commit { member_id, generation, offsets };
        self.send(request, self.config.request_timeout, Asked::Commit { generation });
    }
}

/// `orders[0,1] payments[4]`, for the log.
fn list<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> String {
    let mut text = String::new();
    let mut last: Option<&Arc<str>> = None;
    for (topic, partition) in slots {
        let start = match last {
            Some(known) if known == topic => ",",
            Some(_) => "] ",
            None => "",
        };
        if start == "," {
            let _ = write!(text, ",{partition}");
        } else {
            let _ = write!(text, "{start}{topic}[{partition}");
        }
        last = Some(topic);
    }
    if last.is_some() {
        text.push(']');
    }
    text
}
