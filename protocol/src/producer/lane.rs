//! One partition's way to its leader: the order of its batches, their sequence numbers, and what may be sent next. Pure.
//!
//! ```text
//! Queued -> InFlight -> Done
//!    ^_________/  again, in the order of sequence numbers, with the same bytes
//! ```
//! After a try that has to be repeated, nothing younger is sent until what was in flight is answered, and then what is
//! repeated one by one: a broker knows a batch again only while few are written after it, and without idempotence nothing
//! else keeps the order.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::batch::{Batch, Identity, Place, Stamp, advance};
use crate::cluster::{Backoff, NodeId};

/// Where a partition's batches are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) leader: NodeId,
    /// Nil where the broker tells no topic ids.
    pub(super) topic_id: Uuid,
}

impl Target {
    /// Whether it is the same log on the same broker, as far as is known.
    fn is(self, other: Target) -> bool {
        self.leader == other.leader && !self.is_of_another_topic(other)
    }

    /// Whether the topic was deleted and made anew.
    fn is_of_another_topic(self, other: Target) -> bool {
        !self.topic_id.is_nil() && !other.topic_id.is_nil() && self.topic_id != other.topic_id
    }
}

pub(super) struct Lane {
    queue: VecDeque<Batch>,
    in_flight: Vec<Batch>,
    /// Where the last batch was sent.
    target: Option<Target>,
    /// Producer id and epoch of what is stamped here: the producer's at first, later an epoch of its own.
    identity: Option<Identity>,
    next_sequence: i32,
    /// A batch of this epoch was written to this log. Before that only one is in flight: a broker without a state for us
    /// takes any sequence number, so a second batch could overtake a first one that has to be repeated.
    settled: bool,
    backoff: Backoff,
    not_before: Instant,
    /// What stood in the way last.
    pub(super) fault: Cow<'static, str>,
    used: Instant,
}

/// What waits for its turn has met no fault yet.
const NO_FAULT: Cow<'static, str> = Cow::Borrowed("it waited for its turn");

impl Lane {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            target: None,
            identity: None,
            next_sequence: 0,
            settled: false,
            backoff,
            not_before: now,
            fault: NO_FAULT,
            used: now,
        }
    }

    /// Into the queue, before what is younger.
    pub(super) fn put(&mut self, mut batch: Batch, now: Instant) {
        if batch.stamp().is_some_and(|stamp| Some(stamp.identity) != self.identity) {
            // Its epoch ended while it was in flight.
            batch.unstamp();
        }
        self.used = now;
        let place = self.queue.partition_point(|other| other.place() < batch.place());
        self.queue.insert(place, batch);
    }

    pub(super) fn waiting(&self) -> &VecDeque<Batch> {
        &self.queue
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Since when nothing was to be done here; None while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.queue.is_empty() && self.in_flight.is_empty()).then_some(self.used)
    }

    /// The next batch, if one may be sent as far as this lane is concerned, wherever to.
    pub(super) fn next(&self, max_in_flight: usize) -> Option<&Batch> {
        self.queue.front().filter(|_| self.has_room(max_in_flight))
    }

    /// Whether one more may be in flight: alone, as long as something is repeated (which stands in front of what is younger)
    /// or nothing of the epoch was written.
    pub(super) fn has_room(&self, max_in_flight: usize) -> bool {
        let repeated = self.queue.front().is_some_and(|next| next.tries() > 0);
        let alone = repeated || !self.settled || self.in_flight.iter().any(|batch| batch.tries() > 1);
        self.in_flight.len() < if alone { 1 } else { max_in_flight }
    }

    /// Until when it rests, after a try that failed.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        Some(self.not_before).filter(|until| *until > now)
    }

    /// A new leader gets nothing before the old one has answered, or a batch could be repeated after more than the five
    /// younger ones by which a broker still knows it.
    pub(super) fn may_go_to(&self, target: Target) -> bool {
        self.in_flight.is_empty() || self.target.is_none_or(|last| last.is(target))
    }

    /// Sends the next batch: its place, and its bytes, stamped if there is an identity. `fresh` is taken by a lane that has
    /// none of its own.
    pub(super) fn send(&mut self, target: Target, fresh: Option<Identity>) -> Option<(Place, Bytes)> {
        let mut batch = self.queue.pop_front()?;
        if self.target.is_some_and(|last| last.is_of_another_topic(target)) {
            // A new log knows nothing of us.
            self.settled = false;
        }
        // An id that is not told just now is no other.
        let topic_id = self.target.map(|last| last.topic_id).filter(|_| target.topic_id.is_nil());
        self.target = Some(Target { topic_id: topic_id.unwrap_or(target.topic_id), ..target });
        self.identity = self.identity.or(fresh);
        if let (Some(identity), None) = (self.identity, batch.stamp()) {
            batch.set_stamp(Stamp { identity, sequence: self.next_sequence });
            self.next_sequence = advance(self.next_sequence, batch.sealed().count());
        }
        batch.tried();
        let sent = (batch.place(), batch.sealed().bytes());
        self.in_flight.push(batch);
        Some(sent)
    }

    /// A batch of which the request is answered or dead; what becomes of it is decided elsewhere.
    pub(super) fn land(&mut self, place: Place, now: Instant) -> Option<Batch> {
        self.used = now;
        let position = self.in_flight.iter().position(|batch| batch.place() == place)?;
        Some(self.in_flight.remove(position))
    }

    /// Whether no older batch waits for its outcome.
    pub(super) fn is_first(&self, batch: &Batch) -> bool {
        let older = |other: &Batch| other.place() < batch.place();
        !self.in_flight.iter().any(older) && !self.queue.iter().any(older)
    }

    /// A batch was written.
    pub(super) fn written(&mut self) {
        self.backoff.reset();
        self.settled = true;
        self.fault = NO_FAULT;
    }

    /// A batch is sent again, in its place, after a rest.
    pub(super) fn again(&mut self, batch: Batch, now: Instant) {
        self.not_before = now + self.backoff.next_delay();
        self.put(batch, now);
    }

    /// Goes on with the next epoch, sequences from 0 (KIP-360, done locally as no transaction is involved). Without an
    /// identity afterwards: no epoch was left.
    pub(super) fn begin_epoch(&mut self) {
        self.identity = self.identity.and_then(|(id, epoch)| Some((id, epoch.checked_add(1)?)));
        self.next_sequence = 0;
        self.settled = false;
        self.queue.iter_mut().for_each(Batch::unstamp);
    }

    /// Takes out what waits and is over its delivery timeout.
    pub(super) fn expire(&mut self, now: Instant) -> VecDeque<Batch> {
        if self.queue.iter().all(|batch| batch.deadline > now) {
            return VecDeque::new();
        }
        let (late, queue) = self.queue.drain(..).partition(|batch| batch.deadline <= now);
        self.queue = queue;
        late
    }

    /// What is in flight and whose records still wait for their end.
    pub(super) fn flying(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.in_flight.iter_mut().filter(|batch| !batch.given_up)
    }

    /// Everything that waits, out of the queue.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> {
        self.queue.drain(..)
    }
}

#[cfg(test)]
impl Lane {
    /// As if so much had been written in this epoch.
    pub(super) fn stand_at(&mut self, identity: Identity, next_sequence: i32) {
        self.identity = Some(identity);
        self.next_sequence = next_sequence;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}
