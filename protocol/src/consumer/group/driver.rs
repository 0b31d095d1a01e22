//! The task of a group member.
//!
//! ```text
//! Out -> Joining -> Syncing -> Stable -> (revoked parts drain) -> Joining …
//!  ^--------- lost: session over, member unknown, generation over ---------'
//! any -> Leaving (everything drains) -> Left
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Assignor, CommitError, CommitOffset, ConsumerConfig, Lease},
    AssignedPartition, GroupEvent, Order,
    assignor::{self, Member, Plan, Slot},
    requests::{self, Offset},
    table::{self, Fix},
};
use crate::{
    cluster::{Backoff, Cluster, NodeId, Purpose},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
};

/// What a peer may have to wait beyond the drain, for the last commit.
const COMMIT_BUDGET: Duration = Duration::from_secs(10);
/// Brokers hold JoinGroup for the rebalance timeout; so much longer we wait for the answer.
const JOIN_MARGIN: Duration = Duration::from_secs(5);
/// After an error that somebody has to mend.
const FATAL_DELAY: Duration = Duration::from_secs(10);
/// A commit is sent at most so often.
const COMMIT_TRIES: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No generation.
    Out,
    /// JoinGroup is on its way; what we own stays ours meanwhile (cooperative).
    Joining,
    Syncing,
    Stable,
    /// Everything drains, then LeaveGroup.
    Leaving,
}

/// One partition of ours.
struct Held {
    lease: Lease,
    /// Whether its committed offset is known and it was handed out.
    handed_out: bool,
}

struct Revocation {
    slots: Vec<Slot>,
    deadline: Instant,
}

struct Waiter {
    done: oneshot::Sender<Result<(), CommitError>>,
    /// What of it is still to be committed.
    slots: BTreeSet<Slot>,
}

/// Everything that is answered, with the generation it was asked in.
enum Done {
    Coordinator(Result<NodeId, (bool, String)>),
    Joined(Result<JoinGroupResponse, RequestError>),
    Synced(i32, Result<SyncGroupResponse, RequestError>),
    Beaten(i32, Instant, Result<ErrorCode, RequestError>),
    Committed(i32, BTreeMap<Slot, Offset>, Result<OffsetCommitResponse, RequestError>),
    Fetched(Vec<Slot>, Result<(i16, OffsetFetchResponse), RequestError>),
    Released,
    Left,
}

pub(super) struct Driver {
    cluster: Cluster,
    config: ConsumerConfig,
    slot: u32,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::UnboundedSender<GroupEvent>,
    requests: FuturesUnordered<BoxFuture<Done>>,
    phase: Phase,
    member_id: String,
    generation: i32,
    protocol: Assignor,
    coordinator: Option<NodeId>,
    finding: bool,
    /// A rebalance is due.
    rejoin: bool,
    reason: &'static str,
    not_before: Instant,
    backoff: Backoff,
    next_heartbeat: Instant,
    beating: bool,
    session_ends: Option<Instant>,
    held: BTreeMap<Slot, Held>,
    fetching_offsets: bool,
    offsets_not_before: Instant,
    revocation: Option<Revocation>,
    pending: BTreeMap<Slot, (Lease, Offset)>,
    waiters: Vec<Waiter>,
    committing: bool,
    commit_tries: u32,
    commit_not_before: Instant,
    /// Partition counts that the last plan of ours was made for, if we lead.
    planned_for: Option<BTreeMap<Arc<str>, i32>>,
}

impl Driver {
    pub(super) fn new(
        cluster: Cluster,
        config: ConsumerConfig,
        slot: u32,
        orders: mpsc::UnboundedReceiver<Order>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let now = Instant::now();
        let settings = cluster.config();
        let backoff = Backoff::new(settings.retry_backoff, settings.retry_backoff_max);
        let protocol = config.assignors.first().copied().unwrap_or(Assignor::CooperativeSticky);
        Self {
            cluster,
            config,
            slot,
            orders,
            events,
            requests: FuturesUnordered::new(),
            phase: Phase::Out,
            member_id: String::new(),
            generation: -1,
            protocol,
            coordinator: None,
            finding: false,
            rejoin: true,
            reason: "a new member",
            not_before: now,
            backoff,
            next_heartbeat: now,
            beating: false,
            session_ends: None,
            held: BTreeMap::new(),
            fetching_offsets: false,
            offsets_not_before: now,
            revocation: None,
            pending: BTreeMap::new(),
            waiters: Vec::new(),
            committing: false,
            commit_tries: 0,
            commit_not_before: now,
            planned_for: None,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut metadata = self.cluster.metadata_changes();
        loop {
            let next = self.advance(Instant::now());
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                order = self.orders.recv() => match order {
                    Some(Order::Commit { offsets, done }) => self.queue_commit(offsets, done),
                    Some(Order::Leave) | None => self.start_leaving(),
                },
                Some(done) = self.requests.next() => {
                    if self.take(done) {
                        break;
                    }
                }
                changed = metadata.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
        for held in self.held.values() {
            held.lease.lose();
        }
        let gone = CommitError { code: None, reason: "the group was left".to_owned() };
        for waiter in self.waiters.drain(..) {
            let _ = waiter.done.send(Err(gone.clone()));
        }
    }

    fn eager(&self) -> bool {
        // As in Java: one assignor that cannot do it makes the whole list eager.
        self.config.assignors.contains(&Assignor::Range)
    }

    fn rebalance_timeout(&self) -> Duration {
        self.config.drain_timeout + COMMIT_BUDGET
    }

    fn rebalancing(&self) -> bool {
        self.rejoin || matches!(self.phase, Phase::Joining | Phase::Syncing)
    }

    /// Starts whatever is due; returns when to look again.
    fn advance(&mut self, now: Instant) -> Instant {
        if let Some(ends) = self.session_ends
            && ends <= now
        {
            tracing::warn!(group = %self.config.group_id, "no heartbeat was answered for session.timeout.ms: the partitions are lost");
            self.lose_everything(false);
        }
        if let Some(revocation) = &self.revocation
            && revocation.deadline <= now
        {
            tracing::warn!(group = %self.config.group_id, partitions = revocation.slots.len(),
                "the drain timeout passed: giving up partitions with records in flight");
            self.hand_over();
        }
        self.look_at_partition_counts();
        let mut wakes = vec![now + self.config.heartbeat_interval];
        match self.coordinator {
            None => wakes.extend(self.find_coordinator(now)),
            Some(coordinator) => {
                wakes.extend(self.join_if_due(coordinator, now));
                wakes.extend(self.beat_if_due(coordinator, now));
                wakes.extend(self.fetch_offsets_if_due(coordinator, now));
                wakes.extend(self.commit_if_due(coordinator, now));
                self.leave_if_drained(coordinator);
            }
        }
        wakes.extend(self.session_ends);
        wakes.extend(self.revocation.as_ref().map(|revocation| revocation.deadline));
        wakes.into_iter().min().unwrap_or(now)
    }

    fn find_coordinator(&mut self, now: Instant) -> Option<Instant> {
        if self.finding {
            return None;
        }
        if self.not_before > now {
            return Some(self.not_before);
        }
        self.finding = true;
        let (cluster, group) = (self.cluster.clone(), self.config.group_id.clone());
        self.requests.push(Box::pin(async move {
            let found = cluster.coordinator(&group).await;
            Done::Coordinator(found.map_err(|error| (error.fatal(), chain(&error))))
        }));
        None
    }

    fn join_if_due(&mut self, coordinator: NodeId, now: Instant) -> Option<Instant> {
        let idle = matches!(self.phase, Phase::Out | Phase::Stable);
        if !self.rejoin || !idle || self.revocation.is_some() {
            return None;
        }
        if self.not_before > now {
            return Some(self.not_before);
        }
        if self.eager() && !self.held.is_empty() {
            // Eager members come with empty hands.
            let all = self.held.keys().cloned().collect();
            self.revoke(all);
            return None;
        }
        let owned: Vec<Slot> = self.held.keys().cloned().collect();
        let timeout = self.rebalance_timeout();
        let request = requests::join(&self.config, &self.member_id, &owned, self.generation, timeout, self.reason);
        match request {
            Ok(build) => {
                self.phase = Phase::Joining;
                self.rejoin = false;
                let purpose = Purpose::Join(self.slot);
                let answer = self.cluster.call::<JoinGroupRequest>(coordinator, purpose, timeout + JOIN_MARGIN, build);
                self.requests.push(Box::pin(async move { Done::Joined(answer.await.map(|(_, answer)| answer)) }));
                None
            }
            Err(error) => {
                self.fault(ErrorCode::INVALID_REQUEST, &error.to_string());
                self.not_before = now + FATAL_DELAY;
                Some(self.not_before)
            }
        }
    }

    fn beat_if_due(&mut self, coordinator: NodeId, now: Instant) -> Option<Instant> {
        if self.generation < 0 || self.beating {
            return None;
        }
        if self.next_heartbeat > now {
            return Some(self.next_heartbeat);
        }
        self.beating = true;
        self.next_heartbeat = now + self.config.heartbeat_interval;
        let build = requests::heartbeat(&self.config, &self.member_id, self.generation);
        let timeout = self.config.session_timeout.min(self.config.request_timeout);
        let answer = self.cluster.call::<HeartbeatRequest>(coordinator, Purpose::General, timeout, build);
        let generation = self.generation;
        self.requests.push(Box::pin(async move {
            Done::Beaten(generation, now, answer.await.map(|(_, answer)| ErrorCode(answer.error_code)))
        }));
        None
    }

    fn fetch_offsets_if_due(&mut self, coordinator: NodeId, now: Instant) -> Option<Instant> {
        if self.fetching_offsets || self.phase != Phase::Stable {
            return None;
        }
        let new: Vec<Slot> =
            self.held.iter().filter(|(_, held)| !held.handed_out).map(|(slot, _)| slot.clone()).collect();
        if new.is_empty() {
            return None;
        }
        if self.offsets_not_before > now {
            return Some(self.offsets_not_before);
        }
        self.fetching_offsets = true;
        let build = requests::offset_fetch(&self.config, &new);
        let timeout = self.config.request_timeout;
        let answer = self.cluster.call::<OffsetFetchRequest>(coordinator, Purpose::General, timeout, build);
        self.requests.push(Box::pin(async move { Done::Fetched(new, answer.await) }));
        None
    }

    fn commit_if_due(&mut self, coordinator: NodeId, now: Instant) -> Option<Instant> {
        let may = self.generation >= 0 && !matches!(self.phase, Phase::Joining | Phase::Syncing | Phase::Out);
        if self.committing || self.pending.is_empty() || !may {
            return None;
        }
        if self.commit_not_before > now {
            return Some(self.commit_not_before);
        }
        self.drop_lost_commits();
        let offsets: BTreeMap<Slot, Offset> =
            std::mem::take(&mut self.pending).into_iter().map(|(slot, (_, offset))| (slot, offset)).collect();
        if offsets.is_empty() {
            return None;
        }
        self.committing = true;
        self.commit_tries += 1;
        let build = requests::commit(&self.config, &self.member_id, self.generation, &offsets);
        let timeout = self.config.request_timeout;
        let answer = self.cluster.call::<OffsetCommitRequest>(coordinator, Purpose::General, timeout, build);
        let generation = self.generation;
        self.requests.push(Box::pin(async move {
            Done::Committed(generation, offsets, answer.await.map(|(_, answer)| answer))
        }));
        None
    }

    fn leave_if_drained(&mut self, coordinator: NodeId) {
        let drained = self.phase == Phase::Leaving && self.revocation.is_none() && self.held.is_empty();
        if !drained || self.committing || !self.pending.is_empty() || self.reason == LEFT {
            return;
        }
        self.reason = LEFT;
        if self.member_id.is_empty() {
            self.requests.push(Box::pin(async { Done::Left }));
            return;
        }
        let build = requests::leave(&self.config, &self.member_id);
        let answer = self.cluster.call::<LeaveGroupRequest>(coordinator, Purpose::General, COMMIT_BUDGET, build);
        let group = self.config.group_id.clone();
        self.requests.push(Box::pin(async move {
            match answer.await {
                Ok(_) => tracing::info!(%group, "left the group"),
                Err(error) => {
                    tracing::info!(%group, error = %error.chain(), "left without an answer: the session will expire");
                }
            }
            Done::Left
        }));
    }

    fn start_leaving(&mut self) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.phase = Phase::Leaving;
        self.rejoin = false;
        let all: Vec<Slot> = self.held.keys().cloned().collect();
        // A revocation that is under way goes first; the rest follows it.
        if self.revocation.is_none() {
            self.revoke(all);
        }
        if self.coordinator.is_none() && self.held.is_empty() {
            self.reason = LEFT;
            self.requests.push(Box::pin(async { Done::Left }));
        }
    }

    fn revoke(&mut self, slots: Vec<Slot>) {
        if slots.is_empty() {
            return;
        }
        let deadline = Instant::now() + self.config.drain_timeout;
        let mut leases = Vec::new();
        for slot in &slots {
            if let Some(held) = self.held.get(slot) {
                held.lease.start_revoking();
                if held.handed_out {
                    leases.push(held.lease.clone());
                }
            }
        }
        tracing::info!(group = %self.config.group_id, partitions = slots.len(), "giving partitions up");
        self.revocation = Some(Revocation { slots, deadline });
        if leases.is_empty() {
            self.hand_over();
            return;
        }
        let (released, drained) = oneshot::channel();
        let _ = self.events.send(GroupEvent::Revoking { leases, deadline, released });
        self.requests.push(Box::pin(async move {
            // Sent or dropped: either way they are drained.
            let _ = drained.await;
            Done::Released
        }));
    }

    /// What was revoked is drained (or late): it is no longer ours once its commits are through.
    fn hand_over(&mut self) {
        let Some(revocation) = self.revocation.take() else { return };
        let now = Instant::now();
        let committing = self.committing
            || revocation.slots.iter().any(|slot| self.pending.contains_key(slot)) && self.generation >= 0;
        if committing && now < revocation.deadline + COMMIT_BUDGET && self.coordinator.is_some() {
            let deadline = revocation.deadline.min(now) + COMMIT_BUDGET;
            let slots = revocation.slots;
            self.revocation = Some(Revocation { slots, deadline });
            self.requests.push(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Done::Released
            }));
            return;
        }
        for slot in revocation.slots {
            if let Some(held) = self.held.remove(&slot) {
                held.lease.lose();
            }
        }
        if self.phase == Phase::Leaving {
            let rest: Vec<Slot> = self.held.keys().cloned().collect();
            self.revoke(rest);
        } else {
            // The leader can give them to others only in another round.
            self.want_rejoin("partitions were given up");
        }
    }

    fn want_rejoin(&mut self, reason: &'static str) {
        if self.phase != Phase::Leaving {
            self.rejoin = true;
            self.reason = reason;
        }
    }

    /// The generation is over without our doing: nothing is committed any more.
    fn lose_everything(&mut self, forget_member: bool) {
        let leases: Vec<Lease> = self.held.values().map(|held| held.lease.clone()).collect();
        leases.iter().for_each(Lease::lose);
        let told: Vec<Lease> =
            self.held.values().filter(|held| held.handed_out).map(|held| held.lease.clone()).collect();
        if !told.is_empty() {
            tracing::warn!(group = %self.config.group_id, partitions = told.len(), "the partitions are lost");
            let _ = self.events.send(GroupEvent::Lost(told));
        }
        self.held.clear();
        self.revocation = None;
        self.generation = -1;
        self.session_ends = None;
        if forget_member {
            self.member_id.clear();
        }
        self.drop_lost_commits();
        if self.phase != Phase::Leaving {
            self.phase = Phase::Out;
            self.want_rejoin("the membership was lost");
        }
    }

    fn fault(&self, code: ErrorCode, message: &str) {
        let _ = self.events.send(GroupEvent::Fault { code, message: message.to_owned() });
    }

    fn forget_coordinator(&mut self) {
        self.cluster.forget_coordinator(&self.config.group_id);
        self.coordinator = None;
    }

    fn back_off(&mut self) {
        self.not_before = Instant::now() + self.backoff.next_delay();
    }

    /// Takes an answer; true once the group is left.
    fn take(&mut self, done: Done) -> bool {
        match done {
            Done::Coordinator(found) => self.found(found),
            Done::Joined(answer) => self.joined(answer),
            Done::Synced(generation, answer) => self.synced(generation, answer),
            Done::Beaten(generation, sent, answer) => self.beaten(generation, sent, answer),
            Done::Committed(generation, offsets, answer) => self.committed(generation, offsets, answer),
            Done::Fetched(slots, answer) => self.offsets_fetched(&slots, answer),
            Done::Released => self.hand_over(),
            Done::Left => return true,
        }
        false
    }

    fn found(&mut self, found: Result<NodeId, (bool, String)>) {
        self.finding = false;
        match found {
            Ok(node) => {
                tracing::debug!(group = %self.config.group_id, node, "found the group's coordinator");
                self.coordinator = Some(node);
                self.backoff.reset();
            }
            Err((fatal, text)) => {
                tracing::debug!(group = %self.config.group_id, error = %text, "no coordinator yet");
                self.back_off();
                if fatal {
                    self.fault(ErrorCode::COORDINATOR_NOT_AVAILABLE, &text);
                    self.not_before = Instant::now() + FATAL_DELAY;
                }
                if self.phase == Phase::Leaving && self.held.is_empty() && self.reason != LEFT {
                    self.reason = LEFT;
                    self.requests.push(Box::pin(async { Done::Left }));
                }
            }
        }
    }

    /// What the tables say, for join, sync and heartbeat.
    fn mend(&mut self, fix: Fix, code: ErrorCode, what: &'static str) {
        tracing::debug!(group = %self.config.group_id, %code, what, ?fix, "a group request was refused");
        match fix {
            Fix::Retry | Fix::JoinWithId => {}
            Fix::Refind => self.forget_coordinator(),
            Fix::Rejoin => self.want_rejoin("the group rebalances"),
            Fix::LostKeepId => self.lose_everything(false),
            Fix::LostNewId => self.lose_everything(true),
            Fix::Fatal => {
                self.lose_everything(code == ErrorCode::FENCED_INSTANCE_ID);
                self.fault(code, &format!("{what} was refused"));
                self.not_before = Instant::now() + FATAL_DELAY;
            }
        }
    }

    fn joined(&mut self, answer: Result<JoinGroupResponse, RequestError>) {
        let leaving = self.phase == Phase::Leaving;
        if !leaving {
            self.phase = if self.generation >= 0 { Phase::Stable } else { Phase::Out };
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(group = %self.config.group_id, error = %error.chain(), "JoinGroup got no answer");
                self.forget_coordinator();
                self.want_rejoin(self.reason);
                self.back_off();
                return;
            }
        };
        let code = ErrorCode(answer.error_code);
        if !code.is_none() {
            let fix = table::on_join(code);
            if fix == Fix::JoinWithId {
                self.member_id = answer.member_id.to_string();
            } else {
                self.back_off();
            }
            self.want_rejoin(self.reason);
            self.mend(fix, code, "JoinGroup");
            return;
        }
        self.member_id = answer.member_id.to_string();
        if leaving {
            return;
        }
        self.backoff.reset();
        self.generation = answer.generation_id;
        let now = Instant::now();
        self.next_heartbeat = now + self.config.heartbeat_interval;
        self.session_ends = Some(now + self.config.session_timeout);
        let protocol = answer.protocol_name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let known = self.config.assignors.iter().find(|known| requests::assignor_name(**known) == protocol);
        self.protocol = known.copied().unwrap_or(self.protocol);
        let plan = if answer.leader == answer.member_id { self.plan(&requests::members(&answer)) } else { Plan::new() };
        if answer.leader != answer.member_id {
            self.planned_for = None;
        }
        self.sync(&plan);
    }

    fn plan(&mut self, members: &[Member]) -> Plan {
        let topics: BTreeSet<Arc<str>> = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let names: Vec<String> = topics.iter().map(|topic| topic.to_string()).collect();
        self.cluster.watch_topics(&names, false);
        let counts = self.partition_counts(topics.iter());
        let plan = assignor::assign(self.protocol, members, &counts);
        // Topics whose metadata is not here yet are noticed by the watch, and make another round.
        self.planned_for =
            Some(topics.into_iter().map(|t| (t.clone(), counts.get(&t).copied().unwrap_or(0))).collect());
        plan
    }

    fn partition_counts<'a>(&self, topics: impl Iterator<Item = &'a Arc<str>>) -> BTreeMap<Arc<str>, i32> {
        let metadata = self.cluster.metadata();
        let count =
            |topic: &Arc<str>| metadata.topics.get(topic).map(|found| (topic.clone(), found.partitions.len() as i32));
        topics.filter_map(count).collect()
    }

    /// Metadata may come while we are joining: it is looked at whenever we are stable, not only when it changes.
    fn look_at_partition_counts(&mut self) {
        let Some(planned) = self.planned_for.as_ref().filter(|_| self.phase == Phase::Stable) else { return };
        let now = self.partition_counts(planned.keys());
        let changed = planned.iter().any(|(topic, count)| now.get(topic).copied().unwrap_or(0) != *count);
        if changed {
            tracing::info!(group = %self.config.group_id, "the subscribed topics have other partitions now");
            self.planned_for = None;
            self.want_rejoin("the subscribed topics have other partitions");
        }
    }

    fn sync(&mut self, plan: &Plan) {
        let Some(coordinator) = self.coordinator else {
            self.want_rejoin(self.reason);
            return;
        };
        match requests::sync(&self.config, &self.member_id, self.generation, self.protocol, plan) {
            Ok(build) => {
                self.phase = Phase::Syncing;
                let (purpose, timeout) = (Purpose::Join(self.slot), self.rebalance_timeout() + JOIN_MARGIN);
                let answer = self.cluster.call::<SyncGroupRequest>(coordinator, purpose, timeout, build);
                let generation = self.generation;
                self.requests
                    .push(Box::pin(async move { Done::Synced(generation, answer.await.map(|(_, answer)| answer)) }));
            }
            Err(error) => {
                self.fault(ErrorCode::INVALID_REQUEST, &error.to_string());
                self.want_rejoin(self.reason);
                self.not_before = Instant::now() + FATAL_DELAY;
            }
        }
    }

    fn synced(&mut self, generation: i32, answer: Result<SyncGroupResponse, RequestError>) {
        if self.phase != Phase::Syncing || generation != self.generation {
            return;
        }
        self.phase = Phase::Stable;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(group = %self.config.group_id, error = %error.chain(), "SyncGroup got no answer");
                self.forget_coordinator();
                self.want_rejoin(self.reason);
                self.back_off();
                return;
            }
        };
        let code = ErrorCode(answer.error_code);
        if !code.is_none() {
            self.back_off();
            self.want_rejoin(self.reason);
            self.mend(table::on_sync(code), code, "SyncGroup");
            return;
        }
        match requests::assigned(&answer.assignment) {
            Ok(slots) => self.reconcile(slots),
            Err(error) => {
                self.fault(ErrorCode::INVALID_REQUEST, &format!("the leader's assignment cannot be read: {error}"));
                self.want_rejoin(self.reason);
                self.not_before = Instant::now() + FATAL_DELAY;
            }
        }
    }

    fn reconcile(&mut self, slots: Vec<Slot>) {
        let assigned: BTreeSet<Slot> = slots.into_iter().collect();
        let revoked: Vec<Slot> = self.held.keys().filter(|slot| !assigned.contains(*slot)).cloned().collect();
        tracing::info!(group = %self.config.group_id, generation = self.generation, member = %self.member_id,
            partitions = assigned.len(), revoked = revoked.len(), "joined the group");
        for slot in assigned {
            let lease = || Lease::new(slot.0.clone(), slot.1, self.generation);
            self.held.entry(slot.clone()).or_insert_with(|| Held { lease: lease(), handed_out: false });
        }
        self.revoke(revoked);
    }

    fn beaten(&mut self, generation: i32, sent: Instant, answer: Result<ErrorCode, RequestError>) {
        self.beating = false;
        if generation != self.generation {
            return;
        }
        match answer {
            Ok(code) if code.is_none() || code == ErrorCode::REBALANCE_IN_PROGRESS => {
                self.session_ends = Some(sent + self.config.session_timeout);
                if !code.is_none() && self.phase == Phase::Stable {
                    self.want_rejoin("the group rebalances");
                }
            }
            Ok(code) => self.mend(table::on_heartbeat(code), code, "Heartbeat"),
            Err(error) => {
                tracing::debug!(group = %self.config.group_id, error = %error.chain(), "a heartbeat got no answer");
                self.next_heartbeat = Instant::now() + self.backoff.next_delay();
                self.forget_coordinator();
            }
        }
    }

    fn offsets_fetched(&mut self, slots: &[Slot], answer: Result<(i16, OffsetFetchResponse), RequestError>) {
        self.fetching_offsets = false;
        let fetched = match answer {
            Ok((version, answer)) => requests::fetched(version, &answer),
            Err(error) => {
                tracing::debug!(group = %self.config.group_id, error = %error.chain(), "OffsetFetch got no answer");
                self.forget_coordinator();
                self.offsets_not_before = Instant::now() + self.backoff.next_delay();
                return;
            }
        };
        match fetched {
            Ok(offsets) => {
                let mut assigned = Vec::new();
                for slot in slots {
                    let (Some(held), Some(committed)) = (self.held.get_mut(slot), offsets.get(slot)) else { continue };
                    if held.lease.is_active() && !held.handed_out {
                        held.handed_out = true;
                        assigned.push(AssignedPartition { lease: held.lease.clone(), committed: *committed });
                    }
                }
                if !assigned.is_empty() {
                    let _ = self.events.send(GroupEvent::Assigned(assigned));
                }
            }
            Err(code) => {
                self.offsets_not_before = Instant::now() + self.backoff.next_delay();
                match table::on_offset_fetch(code) {
                    Fix::Refind => self.forget_coordinator(),
                    Fix::Fatal => {
                        self.fault(code, "OffsetFetch was refused");
                        self.offsets_not_before = Instant::now() + FATAL_DELAY;
                    }
                    _ => {}
                }
            }
        }
    }

    fn queue_commit(&mut self, offsets: Vec<CommitOffset>, done: oneshot::Sender<Result<(), CommitError>>) {
        let mut slots = BTreeSet::new();
        for commit in offsets.into_iter().filter(|commit| !commit.lease.is_lost()) {
            let slot = (commit.lease.topic().clone(), commit.lease.partition());
            let CommitOffset { lease, offset, leader_epoch, metadata } = commit;
            self.pending.insert(slot.clone(), (lease, Offset { offset, leader_epoch, metadata }));
            slots.insert(slot);
        }
        if slots.is_empty() {
            let _ = done.send(Ok(()));
            return;
        }
        self.waiters.push(Waiter { done, slots });
    }

    fn drop_lost_commits(&mut self) {
        let lost: Vec<Slot> =
            self.pending.iter().filter(|(_, (lease, _))| lease.is_lost()).map(|(slot, _)| slot.clone()).collect();
        self.pending.retain(|slot, _| !lost.contains(slot));
        let error = CommitError { code: None, reason: "the partition is no longer ours".to_owned() };
        for slot in lost {
            self.answer_waiters(&slot, Err(&error));
        }
    }

    /// A slot's waiters are answered, unless a newer offset of theirs is still to be sent.
    fn answer_waiters(&mut self, slot: &Slot, result: Result<(), &CommitError>) {
        let mut kept = Vec::new();
        for mut waiter in self.waiters.drain(..) {
            if waiter.slots.remove(slot) {
                match result {
                    Err(error) => {
                        let _ = waiter.done.send(Err(error.clone()));
                        continue;
                    }
                    Ok(()) if waiter.slots.is_empty() => {
                        let _ = waiter.done.send(Ok(()));
                        continue;
                    }
                    Ok(()) => {}
                }
            }
            kept.push(waiter);
        }
        self.waiters = kept;
    }

    fn committed(
        &mut self,
        generation: i32,
        offsets: BTreeMap<Slot, Offset>,
        answer: Result<OffsetCommitResponse, RequestError>,
    ) {
        self.committing = false;
        let codes = match answer {
            Ok(answer) => requests::committed(&answer),
            Err(error) => {
                tracing::debug!(group = %self.config.group_id, error = %error.chain(), "a commit got no answer");
                self.forget_coordinator();
                BTreeMap::new()
            }
        };
        let rebalancing = self.rebalancing() || generation != self.generation;
        let mut fixes = BTreeSet::new();
        for (slot, offset) in offsets {
            // Left out of the answer, or no answer: as after a passing error.
            let code = codes.get(&slot).copied().unwrap_or(ErrorCode::COORDINATOR_NOT_AVAILABLE);
            if code.is_none() {
                self.commit_tries = 0;
                // A newer one of the same partition answers for those who wait for it.
                if !self.pending.contains_key(&slot) {
                    self.answer_waiters(&slot, Ok(()));
                }
                continue;
            }
            let fix = table::on_commit(code, rebalancing);
            fixes.insert((fix as u8, code));
            let again = matches!(fix, Fix::Retry | Fix::Refind | Fix::Rejoin) && self.commit_tries < COMMIT_TRIES;
            let lease = self.held.get(&slot).map(|held| held.lease.clone());
            match lease.filter(|lease| again && !lease.is_lost()) {
                Some(lease) => {
                    self.pending.entry(slot).or_insert((lease, offset));
                }
                None => {
                    let error = CommitError { code: Some(code), reason: code.to_string() };
                    self.answer_waiters(&slot, Err(&error));
                }
            }
        }
        for (_, code) in fixes {
            match table::on_commit(code, rebalancing) {
                // A commit that may not be is the waiter's to hear of; the membership is not touched by it.
                Fix::Fatal | Fix::Retry | Fix::JoinWithId => {}
                fix => self.mend(fix, code, "OffsetCommit"),
            }
            self.commit_not_before = Instant::now() + self.backoff.next_delay();
        }
    }
}

/// Stands in place of a join reason once LeaveGroup is on its way.
const LEFT: &str = "left";

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
