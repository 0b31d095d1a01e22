//! The task that fetches, ahead of whoever processes, for all partitions of one consumer.
//!
//! Each broker is asked through two sockets with a session of their own: while one long-polls for partitions that are at
//! their end, a partition that has room again is asked for by the other, which only waits for a moment, and joins the long
//! poll when that comes back. A request goes out only if its worst case fits the byte budget. The task reads batch headers only; unpacking is the streams' work.

mod answers;
mod lookups;
mod partition;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use partition::Partition;
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
    position::{Phase, Position},
    session::{FetchSession, Key, Wanted},
    stream::{Chunk, Feed},
};
use crate::{
    budget::{Budget, Reservation},
    cluster::{Backoff, Cluster, Metadata, NodeId},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
};

/// Sockets (and sessions) per broker.
const SOURCES: usize = 2;
/// While one socket of a broker long-polls the other waits for no longer than this, and so does a partition that has just
/// become fetchable.
const SHORT_POLL: Duration = Duration::from_millis(50);
/// Delay after a broker refused us, or a fault that only an operator can mend.
const REFUSED_DELAY: Duration = Duration::from_secs(10);
/// Room for headers in an answer, per partition.
const ANSWER_OVERHEAD: usize = 128;

pub(super) enum Command {
    /// All partitions of one assignment together, so that they share requests.
    Add(Vec<NewPartition>),
    Remove(Vec<Lease>),
    /// `seek` is its number; `rewinds` and `back` are as of what the stream handed out last.
    Seek {
        lease: Lease,
        offset: i64,
        seek: u64,
        rewinds: u32,
        back: bool,
    },
    /// The stream cannot read what is at `offset`.
    Stand {
        lease: Lease,
        offset: i64,
        rewinds: u32,
    },
}

pub(super) struct NewPartition {
    pub(super) lease: Lease,
    pub(super) committed: Option<(i64, i32)>,
    pub(super) feed: Arc<Feed>,
    pub(super) chunks: mpsc::UnboundedSender<Chunk>,
}

#[derive(Default)]
struct Source {
    session: FetchSession,
    /// Until when the broker may hold the request that is in flight.
    polls_until: Option<Instant>,
}

impl Source {
    /// Whether its poll is about to come back, or overdue a little.
    fn ends_soon(&self, now: Instant) -> bool {
        self.polls_until.is_some_and(|until| until <= now + SHORT_POLL && now < until + SHORT_POLL)
    }
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
            Command::Seek { lease, offset, seek, rewinds, back } => {
                let Some(partition) = self.held_under(&lease) else { return };
                partition.alone = false;
                // What is on its way is for the old position and will be dropped.
                partition.busy = false;
                partition.not_before = Instant::now();
                let position = Position { offset, epoch: -1 };
                if lease.rewinds() != rewinds {
                    // Whoever seeks has not heard of the rewind, and the stream drops what was sent since.
                    if let Some(begins) = partition.begins {
                        partition.begin(begins, seek);
                    }
                } else if back {
                    partition.rewind(Phase::Fetching(position));
                    partition.begin(position, seek);
                } else {
                    partition.phase = Phase::Fetching(position);
                }
            }
            Command::Stand { lease, offset, rewinds } => {
                if let Some(partition) = self.held_under(&lease).filter(|_| lease.rewinds() == rewinds) {
                    partition.phase = Phase::Standing(Position { offset, epoch: -1 });
                }
            }
        }
    }

    fn held_under(&mut self, lease: &Lease) -> Option<&mut Partition> {
        let key = (lease.topic().clone(), lease.partition());
        self.partitions.get_mut(&key).filter(|found| found.lease.same(lease))
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
            begins: None,
            at_end: false,
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
            if partition.busy || !partition.lease.is_active() {
                continue;
            }
            let topic_id = metadata.topics.get(&key.0).map(|topic| topic.id).unwrap_or_default();
            if partition.is_of_another(topic_id) {
                // Also of one that stands: what it stood before is gone.
                tracing::warn!(topic = %key.0, partition = key.1, "the topic was made anew: going on by auto.offset.reset");
                let offset = partition.phase.position().offset;
                partition.rewind(Phase::Resetting(self.config.offset_reset));
                (partition.alone, partition.not_before) = (false, now);
                if self.config.offset_reset == OffsetReset::None {
                    homeless.push((key.clone(), offset));
                }
            }
            if matches!(partition.phase, Phase::Standing(_) | Phase::Resetting(OffsetReset::None)) {
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
            next = self.ask_records(leader, wanted, now).map_or(next, |again| next.min(again));
        }
        next
    }

    /// A partition with so many bytes fetched ahead is not asked for.
    fn full_at(&self) -> usize {
        let share = self.budget.limit() / (self.partitions.len() + 1);
        share.clamp(1, 2 * self.config.max_partition_fetch_bytes)
    }

    /// Returns when to look again where it waits for a poll that is about to end.
    fn ask_records(&mut self, leader: NodeId, mut wanted: BTreeMap<Key, Wanted>, now: Instant) -> Option<Instant> {
        let sources = self.brokers.entry(leader).or_default();
        let source = sources.iter().position(|source| source.polls_until.is_none())?;
        let polling = sources.iter().find(|source| source.polls_until.is_some());
        if polling.is_some_and(|other| other.ends_soon(now))
            && wanted.keys().all(|key| self.partitions.get(key).is_some_and(|partition| partition.at_end))
        {
            // They were just found empty: they go out with those of the other socket again.
            return polling.and_then(|other| other.polls_until).map(|until| until + SHORT_POLL);
        }
        let short = SHORT_POLL.min(self.config.fetch_max_wait);
        let wait = if polling.is_some() { short } else { self.config.fetch_max_wait };
        if let Some(alone) = wanted.keys().find(|key| self.partitions.get(*key).is_some_and(|p| p.alone)).cloned() {
            wanted.retain(|key, _| *key == alone);
        }
        let each = self.config.max_partition_fetch_bytes.saturating_mul(wanted.len());
        let worst = each.min(self.config.fetch_max_bytes) + ANSWER_OVERHEAD * wanted.len();
        let Some(memory) = self.budget.try_reserve(worst) else {
            self.out_of_room = true;
            return None;
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
        slot.polls_until = Some(now + wait);
        let plan = slot.session.plan(wanted);
        let socket = self.first_socket + source as u32;
        let names = asked.iter().map(|(key, asked)| (asked.wanted.topic_id, key.0.clone())).collect();
        let answer = fetch::ask(&self.cluster, leader, socket, (&self.config, wait), plan, names);
        self.requests
            .push(Box::pin(async move { Done::Fetched { node: leader, source, asked, memory, answer: answer.await } }));
        None
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

    fn back_off(&mut self, key: &Key) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.not_before = Instant::now() + partition.backoff.next_delay();
        }
    }

    fn stand(&mut self, key: &Key) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.phase = Phase::Standing(partition.phase.position());
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
