//! What is sent when, and what becomes of it, as a machine: [`Sequencer::step`] takes what happened and gives what is to be
//! done.
//!
//! One request takes one batch of each ready partition of a broker; several requests are in flight per broker and
//! partition. What one partition may send is its [`Lane`]'s business; here are the producer id, the requests, and time.
//!
//! It knows no sockets and no clock: times and the picture of the cluster come in, and [`Sequencer::wake`] tells when it
//! wants to be asked again.

mod landing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Outcome, ProduceErrorKind, ProducerConfig,
    answers::Answers,
    batch::{Batch, Identity, Key, Place, Settlement},
    lane::{Lane, Target},
};
use crate::{
    cluster::{Backoff, Metadata, NodeId},
    connection::RequestError,
    error_code::ErrorCode,
};

/// A partition that was not written to for so long is forgotten (Kafka's `metadata.max.idle.ms`).
const MAX_IDLE: Duration = Duration::from_secs(300);

pub(super) type RequestId = u64;

/// What happened. That time passed, or the picture of the cluster changed, is no event: each step is told both.
pub(super) enum Event {
    /// In the order of their numbers, as far as they are of one partition.
    Sealed(Vec<(Key, Batch)>),
    /// The answer to [`Action::AskForId`].
    ProducerId(Result<Identity, NoId>),
    /// The answer to [`Action::Send`]; None: nothing is answered to acks=0, and it was written to the socket.
    Answered { request: RequestId, answer: Result<Option<Answers>, RequestError> },
    /// Fail what is left; nothing can be sent any more.
    Close,
}

/// Why there is no producer id.
#[derive(Debug)]
pub(super) struct NoId {
    /// What the broker said, if one answered.
    pub(super) code: Option<ErrorCode>,
    pub(super) text: String,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Keep this topic in the picture of the cluster.
    Watch(Arc<str>),
    /// Ask for a new picture.
    Refresh,
    /// Ask for a producer id, and tell by [`Event::ProducerId`].
    AskForId,
    /// Send these batches, and tell by [`Event::Answered`].
    Send {
        request: RequestId,
        leader: NodeId,
        batches: Vec<(Key, Bytes)>,
    },
    Settle(Settlement),
    /// No partition of the topic was written to for long.
    Forget(Arc<str>),
}

/// Where the producer id comes from.
struct IdSource {
    /// For partitions without an identity of their own: an epoch that none of the forgotten ones has used.
    fresh: Option<Identity>,
    asking: bool,
    backoff: Backoff,
    not_before: Instant,
    fault: String,
}

/// What is on its way to a broker.
#[derive(Default)]
struct Broker {
    requests: usize,
    /// The first partition that found no room in the last request: the next begins there.
    turn: Option<Key>,
}

pub(super) struct Sequencer {
    config: ProducerConfig,
    lanes: BTreeMap<Key, Lane>,
    brokers: BTreeMap<NodeId, Broker>,
    requests: BTreeMap<RequestId, (NodeId, Vec<(Key, Place)>)>,
    next_request: RequestId,
    id: IdSource,
    /// Nothing is over its delivery timeout, or idle for too long, before.
    expires: Instant,
    /// When to look for leaders again where there are none.
    look_at: Instant,
    look_backoff: Backoff,
    wake: Instant,
    refresh: bool,
    closed: bool,
    actions: Vec<Action>,
}

impl Sequencer {
    pub(super) fn new(config: ProducerConfig, now: Instant) -> Self {
        let backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        Self {
            expires: now + config.delivery_timeout.min(MAX_IDLE),
            config,
            lanes: BTreeMap::new(),
            brokers: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            id: IdSource {
                fresh: None,
                asking: false,
                backoff,
                not_before: now,
                fault: "it has no producer id yet".to_owned(),
            },
            look_at: now,
            look_backoff: backoff,
            wake: now,
            refresh: false,
            closed: false,
            actions: Vec::new(),
        }
    }

    /// `events`: what happened since the last step, in its order.
    pub(super) fn step(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        metadata: &Metadata,
        now: Instant,
    ) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        for event in events {
            match event {
                Event::Sealed(batches) => self.sealed(batches, now),
                Event::ProducerId(answer) => self.identified(answer, now),
                Event::Answered { request, answer } => self.answered(request, answer, now),
                Event::Close => self.close(),
            }
        }
        if !self.closed {
            if self.expires <= now {
                self.expire(now);
            }
            self.wake = self.send_what_is_ready(metadata, now).into_iter().fold(self.expires, Instant::min);
        }
        if std::mem::take(&mut self.refresh) {
            self.actions.push(Action::Refresh);
        }
        std::mem::take(&mut self.actions)
    }

    /// Whether a batch of this partition would have to wait for others.
    pub(super) fn is_busy(&self, topic: &Arc<str>, partition: i32) -> bool {
        let full = |lane: &Lane| !lane.waiting().is_empty() || !lane.has_room(self.config.max_in_flight);
        self.lanes.get(&(topic.clone(), partition)).is_some_and(full)
    }

    /// When the next step is due, if nothing happens before.
    pub(super) fn wake(&self) -> Instant {
        self.wake
    }

    fn sealed(&mut self, batches: Vec<(Key, Batch)>, now: Instant) {
        for (key, batch) in batches {
            self.expires = self.expires.min(batch.deadline);
            self.lane(&key, now).put(batch, now);
        }
    }

    fn lane(&mut self, key: &Key, now: Instant) -> &mut Lane {
        if !self.lanes.contains_key(key) {
            // Its leader is to be followed, also if it was known because somebody else watched the topic.
            self.actions.push(Action::Watch(key.0.clone()));
        }
        let config = &self.config;
        self.lanes
            .entry(key.clone())
            .or_insert_with(|| Lane::new(Backoff::new(config.retry_backoff, config.retry_backoff_max), now))
    }

    fn settle(&mut self, settlement: Settlement) {
        self.actions.push(Action::Settle(settlement));
    }

    // Time.

    /// Fails what is over its delivery timeout, in whatever state, forgets what is idle, and finds out when the next will be.
    fn expire(&mut self, now: Instant) {
        let mut next = now + self.config.delivery_timeout.min(MAX_IDLE);
        let without_id = self.config.idempotence && self.id.fresh.is_none();
        let mut idle = Vec::new();
        for (key, lane) in &mut self.lanes {
            // What waits is taken out. What is in flight keeps its place in the sequence; only its records hear of it.
            for batch in lane.expire(now) {
                let waits_for_id = without_id && batch.stamp().is_none();
                let last = if waits_for_id { self.id.fault.clone() } else { lane.fault.clone().into_owned() };
                let kind = ProduceErrorKind::DeliveryTimeout { last };
                self.actions.push(Action::Settle(batch.failure(key, batch.fate(), kind)));
            }
            for batch in lane.flying() {
                if batch.deadline <= now {
                    let kind = ProduceErrorKind::DeliveryTimeout { last: "the broker has not answered".to_owned() };
                    self.actions.push(Action::Settle(batch.failure(key, Outcome::Unknown, kind)));
                    batch.given_up = true;
                } else {
                    next = next.min(batch.deadline);
                }
            }
            next = lane.waiting().iter().map(|batch| batch.deadline).fold(next, Instant::min);
            if lane.idle_since().is_some_and(|since| since + MAX_IDLE <= now) {
                idle.push(key.clone());
            }
        }
        self.forget(idle);
        self.expires = next;
    }

    /// Forgets partitions. A broker may remember what they wrote: whoever writes there again does it in a later epoch.
    fn forget(&mut self, idle: Vec<Key>) {
        let mut topics = BTreeSet::new();
        for key in idle {
            let used = self.lanes.remove(&key).and_then(|lane| lane.identity());
            if let (Some((id, epoch)), Some(fresh)) = (used, self.id.fresh)
                && id == fresh.0
                && epoch >= fresh.1
            {
                self.id.fresh = epoch.checked_add(1).map(|epoch| (id, epoch));
            }
            topics.insert(key.0);
        }
        topics.retain(|topic| self.lanes.range((topic.clone(), 0)..).next().is_none_or(|((next, _), _)| next != topic));
        self.actions.extend(topics.into_iter().map(Action::Forget));
    }

    fn close(&mut self) {
        self.closed = true;
        for (key, lane) in &mut self.lanes {
            for batch in lane.drain() {
                self.actions.push(Action::Settle(batch.failure(key, batch.fate(), ProduceErrorKind::Closed)));
            }
            for batch in lane.flying() {
                self.actions.push(Action::Settle(batch.failure(key, Outcome::Unknown, ProduceErrorKind::Closed)));
            }
        }
    }

    // The producer id.

    /// When to look again, if that is what is waited for.
    fn ask_for_id(&mut self, now: Instant) -> Option<Instant> {
        if self.id.asking {
            return None;
        }
        if self.id.not_before > now {
            return Some(self.id.not_before);
        }
        self.id.asking = true;
        self.actions.push(Action::AskForId);
        None
    }

    fn identified(&mut self, answer: Result<Identity, NoId>, now: Instant) {
        self.id.asking = false;
        let NoId { code, text } = match answer {
            Ok(identity) => {
                tracing::debug!(producer_id = identity.0, epoch = identity.1, "got a producer id");
                self.id.fresh = Some(identity);
                self.id.backoff.reset();
                return;
            }
            Err(fault) => fault,
        };
        tracing::debug!(fault = %text, "no producer id yet");
        self.id.fault = text;
        self.id.not_before = now + self.id.backoff.next_delay();
        // A broker that will not give one gives none to what waits now either; what comes later asks again.
        let Some(code) = code.filter(|code| !code.retriable()) else { return };
        for (key, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.identity().is_none()) {
            for batch in lane.drain() {
                let kind = ProduceErrorKind::Broker { code, message: Some(self.id.fault.clone()) };
                self.actions.push(Action::Settle(batch.failure(key, batch.fate(), kind)));
            }
        }
    }

    // Requests.

    /// Sends every request that can be sent now; returns when to look again.
    fn send_what_is_ready(&mut self, metadata: &Metadata, now: Instant) -> Option<Instant> {
        if self.lanes.values().all(|lane| lane.waiting().is_empty()) {
            return None;
        }
        if self.config.idempotence && self.id.fresh.is_none() {
            return self.ask_for_id(now);
        }
        loop {
            let mut ready: BTreeMap<NodeId, Vec<(Key, Target, usize)>> = BTreeMap::new();
            let mut leaderless = BTreeSet::new();
            let mut next: Option<Instant> = None;
            for (key, lane) in &mut self.lanes {
                let Some(batch) = lane.next(self.config.max_in_flight) else { continue };
                let size = batch.sealed().len();
                if let Some(until) = lane.rests_until(now) {
                    next = next.into_iter().chain([until]).min();
                    continue;
                }
                let Some(target) = target(metadata, key) else {
                    lane.fault = "its partition has no leader".into();
                    leaderless.insert(key.0.clone());
                    continue;
                };
                let busy = self.brokers.get(&target.leader).is_some_and(|to| to.requests >= self.config.max_in_flight);
                if lane.may_go_to(target) && !busy {
                    ready.entry(target.leader).or_default().push((key.clone(), target, size));
                }
            }
            if ready.is_empty() {
                let look = self.look_for_leaders(leaderless, now);
                return next.into_iter().chain(look).min();
            }
            for (leader, lanes) in ready {
                self.send(leader, lanes);
            }
        }
    }

    /// Asks for the leaders of these topics' partitions from time to time; returns when next.
    fn look_for_leaders(&mut self, topics: BTreeSet<Arc<str>>, now: Instant) -> Option<Instant> {
        if topics.is_empty() {
            self.look_backoff.reset();
            self.look_at = now;
            return None;
        }
        if self.look_at <= now {
            self.look_at = now + self.look_backoff.next_delay();
            self.refresh = true;
            self.actions.extend(topics.into_iter().map(Action::Watch));
        }
        Some(self.look_at)
    }

    /// One request with one batch of each of these partitions, as long as it is no larger than `max.request.size`.
    fn send(&mut self, leader: NodeId, mut lanes: Vec<(Key, Target, usize)>) {
        let broker = self.brokers.entry(leader).or_default();
        if let Some(turn) = broker.turn.take() {
            let first = lanes.partition_point(|(key, ..)| *key < turn);
            lanes.rotate_left(first);
        }
        let mut bytes = 0;
        let fitting = lanes.iter().take_while(|(_, _, size)| {
            let first = bytes == 0;
            bytes += size;
            first || bytes <= self.config.max_request_size
        });
        let fitting = fitting.count();
        broker.turn = lanes.get(fitting).map(|(key, ..)| key.clone());
        lanes.truncate(fitting);
        // What is of one topic stands together.
        lanes.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        let fresh = self.id.fresh.filter(|_| self.config.idempotence);
        let (mut places, mut batches) = (Vec::with_capacity(fitting), Vec::with_capacity(fitting));
        for (key, target, _) in lanes {
            let Some((place, bytes)) = self.lanes.get_mut(&key).and_then(|lane| lane.send(target, fresh)) else {
                continue;
            };
            places.push((key.clone(), place));
            batches.push((key, bytes));
        }
        broker.requests += 1;
        self.next_request += 1;
        let request = self.next_request;
        self.requests.insert(request, (leader, places));
        self.actions.push(Action::Send { request, leader, batches });
    }
}

fn target(metadata: &Metadata, key: &Key) -> Option<Target> {
    let leader = metadata.leader(&key.0, key.1)?;
    let topic_id = metadata.topics.get(&key.0)?.id;
    Some(Target { leader, topic_id })
}
