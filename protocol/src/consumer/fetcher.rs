//! The task that fetches, ahead of whoever processes, for all partitions of one consumer.
//!
//! Each broker is asked through two sockets with a session of their own: while one long-polls for partitions that are at
//! their end, a partition that has room again is asked for by the other and waits for nobody. A request goes out only if
//! its worst case fits the byte budget. The task reads batch headers only; unpacking is the streams' work.

mod lookups;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ConsumerConfig, Fault, FaultKind, Lease, OffsetReset,
    fetch::{self, FetchAnswer},
    lookup::{self, Found, ToCheck},
    position::{self, FetchError, Phase, Position},
    session::{FetchSession, Key, Wanted},
    stream::{BATCH_OVERHEAD, Chunk, Feed},
    walk::Walk,
};
use crate::{
    budget::{Budget, Reservation},
    cluster::{Backoff, Cluster, Metadata, NodeId},
    connection::{BoxFuture, RequestError, RequestErrorKind},
    error_code::ErrorCode,
    message::{DivergingEpoch, FetchedPartition},
    record::{AbortedTransactions, Batches},
};

/// Sockets (and sessions) per broker.
const SOURCES: usize = 2;
/// Delay after a broker refused us, or a fault that only an operator can mend.
const REFUSED_DELAY: Duration = Duration::from_secs(10);
/// Room for headers in an answer, per partition.
const ANSWER_OVERHEAD: usize = 128;

pub(super) enum Command {
    /// All partitions of one assignment together, so that they share requests.
    Add(Vec<NewPartition>),
    Remove(Vec<Lease>),
    Seek {
        lease: Lease,
        offset: i64,
    },
}

pub(super) struct NewPartition {
    pub(super) lease: Lease,
    pub(super) committed: Option<(i64, i32)>,
    pub(super) feed: Arc<Feed>,
    pub(super) chunks: mpsc::UnboundedSender<Chunk>,
}

struct Partition {
    lease: Lease,
    feed: Arc<Feed>,
    chunks: mpsc::UnboundedSender<Chunk>,
    phase: Phase,
    /// A lookup or a fetch that names it is on its way.
    busy: bool,
    backoff: Backoff,
    not_before: Instant,
    /// The leader (and its epoch) that it was last asked of.
    leader: Option<(NodeId, i32)>,
    /// Of the topic that the position belongs to; nil = not known yet.
    topic_id: Uuid,
    /// Asked alone after an answer that was too large, to find the batch that is.
    alone: bool,
    refusal_told: bool,
}

impl Partition {
    /// Whether the topic was deleted and made anew since its position was found; takes the new one's id.
    fn is_of_another(&mut self, topic_id: Uuid) -> bool {
        if topic_id.is_nil() {
            return false;
        }
        let known = std::mem::replace(&mut self.topic_id, topic_id);
        !known.is_nil() && known != topic_id
    }
}

#[derive(Default)]
struct Source {
    session: FetchSession,
    in_flight: bool,
}

/// What came back from the network.
enum Done {
    Fetched {
        node: NodeId,
        source: usize,
        asked: BTreeMap<Key, Asked>,
        memory: Reservation,
        answer: Result<FetchAnswer, RequestError>,
    },
    Ends {
        asked: Vec<(Key, u64)>,
        answer: Result<Vec<Found>, RequestError>,
    },
    Epochs {
        asked: Vec<(Key, u64)>,
        answer: Result<Vec<Found>, RequestError>,
    },
}

/// One partition of a fetch request, to recognise a seek or a new lease that came meanwhile.
#[derive(Clone)]
struct Asked {
    lease: Lease,
    seek: u64,
    wanted: Wanted,
}

pub(super) struct Fetcher {
    cluster: Cluster,
    config: ConsumerConfig,
    budget: Budget,
    commands: mpsc::UnboundedReceiver<Command>,
    wake: Arc<Notify>,
    faults: mpsc::UnboundedSender<Fault>,
    partitions: BTreeMap<Key, Partition>,
    brokers: BTreeMap<NodeId, [Source; SOURCES]>,
    requests: FuturesUnordered<BoxFuture<Done>>,
    /// First socket number of this consumer: two consumers of one client share no fetch session.
    first_socket: u32,
    out_of_room: bool,
}

impl Fetcher {
    pub(super) fn new(
        cluster: Cluster,
        config: ConsumerConfig,
        budget: Budget,
        slot: u32,
        commands: mpsc::UnboundedReceiver<Command>,
        wake: Arc<Notify>,
        faults: mpsc::UnboundedSender<Fault>,
    ) -> Self {
        Self {
            cluster,
            config,
            budget,
            commands,
            wake,
            faults,
            partitions: BTreeMap::new(),
            brokers: BTreeMap::new(),
            requests: FuturesUnordered::new(),
            first_socket: slot * SOURCES as u32,
            out_of_room: false,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut metadata = self.cluster.metadata_changes();
        let budget = self.budget.clone();
        loop {
            let freed = budget.freed_since_now();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let next = self.send_what_is_ready();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.requests.next() => self.take(done),
                changed = metadata.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = freed, if self.out_of_room => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(partitions) => partitions.into_iter().for_each(|new| self.add(new)),
            Command::Remove(leases) => {
                self.partitions.retain(|_, partition| !leases.iter().any(|lease| lease.same(&partition.lease)));
            }
            Command::Seek { lease, offset } => {
                let key = (lease.topic().clone(), lease.partition());
                if let Some(partition) = self.partitions.get_mut(&key).filter(|found| found.lease.same(&lease)) {
                    partition.phase = Phase::Fetching(Position { offset, epoch: -1 });
                    partition.alone = false;
                    // What is on its way is for the old position and will be dropped.
                    partition.busy = false;
                    partition.not_before = Instant::now();
                }
            }
        }
    }

    fn add(&mut self, new: NewPartition) {
        let key = (new.lease.topic().clone(), new.lease.partition());
        let config = self.cluster.config();
        let partition = Partition {
            phase: Phase::start(new.committed, self.config.offset_reset),
            lease: new.lease,
            feed: new.feed,
            chunks: new.chunks,
            busy: false,
            backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
            not_before: Instant::now(),
            leader: None,
            topic_id: Uuid::nil(),
            alone: false,
            refusal_told: false,
        };
        let homeless = partition.phase == Phase::Resetting(OffsetReset::None);
        self.partitions.insert(key.clone(), partition);
        if homeless {
            self.report(&key, -1, FaultKind::NoPosition);
            self.stand(&key);
        }
    }

    /// Sends every request that can be sent now; returns when to look again if nothing else happens.
    fn send_what_is_ready(&mut self) -> Instant {
        let now = Instant::now();
        let metadata = self.cluster.metadata();
        let mut next = now + self.cluster.config().metadata_max_age;
        let mut resets: BTreeMap<NodeId, Vec<(Key, i64)>> = BTreeMap::new();
        let mut checks: BTreeMap<NodeId, Vec<ToCheck>> = BTreeMap::new();
        let mut fetches: BTreeMap<NodeId, BTreeMap<Key, Wanted>> = BTreeMap::new();
        let mut leaderless = false;
        let mut homeless: Vec<(Key, i64)> = Vec::new();
        let full = self.full_at();
        for (key, partition) in &mut self.partitions {
            if partition.busy || !partition.lease.is_active() || matches!(partition.phase, Phase::Standing(_)) {
                continue;
            }
            if partition.not_before > now {
                next = next.min(partition.not_before);
                continue;
            }
            let Some((leader, epoch)) = leader_of(&metadata, key) else {
                leaderless = true;
                partition.not_before = now + partition.backoff.next_delay();
                next = next.min(partition.not_before);
                continue;
            };
            if partition.leader.is_some_and(|known| known.1 != epoch) {
                partition.phase = partition.phase.leader_changed();
            }
            partition.leader = Some((leader, epoch));
            let topic_id = metadata.topics.get(&key.0).map(|topic| topic.id).unwrap_or_default();
            if partition.is_of_another(topic_id) {
                match (self.config.offset_reset, partition.phase) {
                    (OffsetReset::None, Phase::Fetching(position) | Phase::Validating(position)) => {
                        homeless.push((key.clone(), position.offset));
                        continue;
                    }
                    (reset, _) => partition.phase = Phase::Resetting(reset),
                }
            }
            match partition.phase {
                Phase::Resetting(OffsetReset::None) | Phase::Standing(_) => continue,
                Phase::Resetting(OffsetReset::Earliest) => {
                    resets.entry(leader).or_default().push((key.clone(), lookup::EARLIEST));
                }
                Phase::Resetting(OffsetReset::Latest) => {
                    resets.entry(leader).or_default().push((key.clone(), lookup::LATEST));
                }
                Phase::Validating(position) => checks.entry(leader).or_default().push((key.clone(), (position, epoch))),
                Phase::Fetching(position) => {
                    let feed = &partition.feed;
                    if !feed.paused.load(Ordering::Acquire) && feed.buffered.load(Ordering::Acquire) < full {
                        let wanted = Wanted {
                            topic_id,
                            offset: position.offset,
                            leader_epoch: epoch,
                            last_fetched_epoch: position.epoch,
                            max_bytes: i32::try_from(self.config.max_partition_fetch_bytes).unwrap_or(i32::MAX),
                        };
                        fetches.entry(leader).or_default().insert(key.clone(), wanted);
                    }
                }
            }
        }
        if leaderless {
            self.cluster.request_refresh();
        }
        for (key, offset) in homeless {
            self.report(&key, offset, FaultKind::NoPosition);
            self.stand(&key);
        }
        for (leader, timestamps) in resets {
            self.ask_ends(leader, timestamps);
        }
        for (leader, positions) in checks {
            self.ask_epochs(leader, positions);
        }
        self.out_of_room = false;
        for (leader, wanted) in fetches {
            self.ask_records(leader, wanted);
        }
        next
    }

    /// A partition with so many bytes fetched ahead is not asked for.
    fn full_at(&self) -> usize {
        let share = self.budget.limit() / (self.partitions.len() + 1);
        share.clamp(1, 2 * self.config.max_partition_fetch_bytes)
    }

    fn ask_records(&mut self, leader: NodeId, mut wanted: BTreeMap<Key, Wanted>) {
        let sources = self.brokers.entry(leader).or_default();
        let Some(source) = sources.iter().position(|source| !source.in_flight) else { return };
        if let Some(alone) = wanted.keys().find(|key| self.partitions.get(*key).is_some_and(|p| p.alone)).cloned() {
            wanted.retain(|key, _| *key == alone);
        }
        let each = self.config.max_partition_fetch_bytes.saturating_mul(wanted.len());
        let worst = each.min(self.config.fetch_max_bytes) + ANSWER_OVERHEAD * wanted.len();
        let Some(memory) = self.budget.try_reserve(worst) else {
            self.out_of_room = true;
            return;
        };
        let mut asked = BTreeMap::new();
        for (key, wanted) in &wanted {
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.busy = true;
                let seek = partition.feed.seek.load(Ordering::Acquire);
                asked.insert(key.clone(), Asked { lease: partition.lease.clone(), seek, wanted: wanted.clone() });
            }
        }
        let slot = &mut sources[source];
        slot.in_flight = true;
        let plan = slot.session.plan(wanted);
        let socket = self.first_socket + source as u32;
        let names = asked.iter().map(|(key, asked)| (asked.wanted.topic_id, key.0.clone())).collect();
        let answer = fetch::ask(&self.cluster, leader, socket, &self.config, plan, names);
        self.requests
            .push(Box::pin(async move { Done::Fetched { node: leader, source, asked, memory, answer: answer.await } }));
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Ends { asked, answer } => self.take_lookup(asked, answer, Self::take_end),
            Done::Epochs { asked, answer } => self.take_lookup(asked, answer, Self::take_epoch),
            Done::Fetched { node, source, asked, memory, answer } => {
                self.take_records(node, source, asked, memory, answer);
            }
        }
    }

    fn take_records(
        &mut self,
        node: NodeId,
        source: usize,
        mut asked: BTreeMap<Key, Asked>,
        mut memory: Reservation,
        answer: Result<FetchAnswer, RequestError>,
    ) {
        let sources = self.brokers.entry(node).or_default();
        sources[source].in_flight = false;
        let session = &mut sources[source].session;
        // What was sought away, taken from us or given anew meanwhile is none of this answer's business.
        asked.retain(|key, asked| {
            self.partitions.get_mut(key).is_some_and(|partition| {
                let current =
                    partition.lease.same(&asked.lease) && partition.feed.seek.load(Ordering::Acquire) == asked.seek;
                if current {
                    partition.busy = false;
                }
                current
            })
        });
        let answer = match answer {
            Ok(answer) if answer.error.is_none() => {
                session.answered(answer.session_id);
                answer
            }
            Ok(answer) => {
                tracing::debug!(code = %answer.error, node, "the fetch session has to start afresh");
                session.refused(answer.error);
                self.after_refused_fetch(&asked, answer.error);
                return;
            }
            Err(error) => {
                session.reset();
                drop(memory);
                self.after_lost_fetch(node, &asked, &error);
                return;
            }
        };
        for (topic, partition, leader, epoch, endpoint) in answer.leader_hints() {
            self.cluster.apply_leader_hint(&topic, partition, leader, epoch, endpoint);
        }
        let whole = answer.bytes;
        if whole > memory.bytes() {
            memory = self.budget.charge(whole);
        } else {
            memory.shrink(whole);
        }
        for (key, fetched) in answer.partitions {
            if asked.contains_key(&key) {
                self.take_partition(node, source, key, fetched, whole, &mut memory);
            }
        }
    }

    fn after_refused_fetch(&mut self, asked: &BTreeMap<Key, Asked>, code: ErrorCode) {
        let of_the_session = matches!(
            code,
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
                | ErrorCode::INVALID_FETCH_SESSION_EPOCH
                | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
        );
        if !of_the_session {
            self.cluster.request_refresh();
            for key in asked.keys() {
                self.back_off(key);
            }
        }
    }

    fn after_lost_fetch(&mut self, node: NodeId, asked: &BTreeMap<Key, Asked>, error: &RequestError) {
        tracing::debug!(node, error = %error.chain(), "a fetch failed; trying again");
        let too_large = match &error.kind {
            RequestErrorKind::FrameTooLarge { size, limit, .. } => Some((*size, *limit)),
            _ => None,
        };
        if too_large.is_none() {
            self.cluster.request_refresh();
        }
        for (key, asked) in asked {
            // Once may be garbage that looks like a size; twice, and alone, is a batch.
            let alone = self.partitions.get(key).is_some_and(|partition| partition.alone);
            match too_large {
                Some((size, limit)) if alone => {
                    self.report(key, asked.wanted.offset, FaultKind::BeyondBudget { size, limit });
                    self.stand(key);
                }
                Some(_) => {
                    if let Some(partition) = self.partitions.get_mut(key) {
                        partition.alone = true;
                    }
                }
                None => self.back_off(key),
            }
        }
    }

    fn take_partition(
        &mut self,
        node: NodeId,
        source: usize,
        key: Key,
        fetched: FetchedPartition,
        whole: usize,
        memory: &mut Reservation,
    ) {
        let Some(Phase::Fetching(position)) = self.partitions.get(&key).map(|partition| partition.phase) else {
            return;
        };
        if let Some(DivergingEpoch { epoch, end_offset }) = fetched.diverging_epoch {
            self.truncated(&key, position, Position { offset: end_offset, epoch });
            return;
        }
        if !fetched.error.is_none() {
            self.fetch_failed(node, source, &key, position, fetched.error);
            return;
        }
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.backoff.reset();
        partition.refusal_told = false;
        // Whoever has nothing is not the one that is too large.
        partition.alone = false;
        if fetched.records.is_empty() {
            return;
        }
        // A small part of a large answer is copied out, so that it does not keep the whole answer in memory.
        let size = fetched.records.len();
        let (records, share) = if size * 2 < whole {
            (bytes::Bytes::copy_from_slice(&fetched.records), memory.take(size))
        } else {
            (fetched.records.clone(), memory.take(whole))
        };
        let mut share = if share.bytes() < size { self.budget.charge(size) } else { share };
        share.absorb(self.budget.charge(Batches::new(records.clone()).count() * BATCH_OVERHEAD));
        let mut walk = Walk {
            aborted: AbortedTransactions::new(
                fetched.aborted_transactions.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)),
            ),
            read_committed: matches!(self.config.isolation, super::Isolation::ReadCommitted),
            check_crcs: self.config.check_crcs,
            end: if matches!(self.config.isolation, super::Isolation::ReadCommitted) {
                fetched.last_stable_offset
            } else {
                fetched.high_watermark
            },
            memory: Arc::new(share),
            position,
        };
        let fault = walk.deliver(records, &partition.feed, &partition.chunks);
        partition.phase = Phase::Fetching(walk.position);
        if let Some((offset, kind)) = fault {
            self.report(&key, offset, kind);
            self.stand(&key);
        }
    }

    fn fetch_failed(&mut self, node: NodeId, source: usize, key: &Key, position: Position, code: ErrorCode) {
        tracing::debug!(topic = %key.0, partition = key.1, offset = position.offset, %code, "a partition's fetch failed");
        match position::on_fetch_error(code) {
            FetchError::Refresh => {
                self.cluster.request_refresh();
                self.back_off(key);
            }
            FetchError::BackOff => self.back_off(key),
            FetchError::Validate => {
                self.cluster.request_refresh();
                if let Some(partition) = self.partitions.get_mut(key) {
                    partition.phase = partition.phase.leader_changed();
                }
                self.back_off(key);
            }
            FetchError::OutOfRange => match self.config.offset_reset {
                OffsetReset::None => {
                    self.report(key, position.offset, FaultKind::NoPosition);
                    self.stand(key);
                }
                reset => {
                    tracing::warn!(topic = %key.0, partition = key.1, offset = position.offset, ?reset,
                        "the offset is no longer in the log (retention?): going on by auto.offset.reset");
                    if let Some(partition) = self.partitions.get_mut(key) {
                        partition.phase = Phase::Resetting(reset);
                    }
                }
            },
            FetchError::Corrupt => {
                self.report(key, position.offset, FaultKind::CorruptBatch(code.to_string()));
                self.stand(key);
            }
            FetchError::Refused => self.refuse(key, code),
        }
        if let Some(sources) = self.brokers.get_mut(&node) {
            sources[source].session.name_again(key);
        }
    }

    fn back_off(&mut self, key: &Key) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.not_before = Instant::now() + partition.backoff.next_delay();
        }
    }

    fn stand(&mut self, key: &Key) {
        if let Some(partition) = self.partitions.get_mut(key) {
            let position = match partition.phase {
                Phase::Fetching(position) | Phase::Validating(position) | Phase::Standing(position) => position,
                Phase::Resetting(_) => Position { offset: -1, epoch: -1 },
            };
            partition.phase = Phase::Standing(position);
        }
    }

    /// Reports a refusal once, and asks again after a long back-off: rights can be granted.
    fn refuse(&mut self, key: &Key, code: ErrorCode) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        partition.not_before = Instant::now() + REFUSED_DELAY;
        if !std::mem::replace(&mut partition.refusal_told, true) {
            let message = "the broker refuses to let us read".to_owned();
            self.report(key, -1, FaultKind::Broker { code, message });
        }
    }

    fn report(&self, key: &Key, offset: i64, kind: FaultKind) {
        let offset = Some(offset).filter(|offset| *offset >= 0);
        let _ = self.faults.send(Fault { topic: Some(key.0.clone()), partition: Some(key.1), offset, kind });
    }
}

fn leader_of(metadata: &Metadata, key: &Key) -> Option<(NodeId, i32)> {
    let partition = metadata.partition(&key.0, key.1)?;
    Some((partition.leader?, partition.leader_epoch))
}
