//! The heartbeat of a membership: when the next is due, and how long the coordinator's word holds. Pure.

use tokio::time::{Duration, Instant};

use super::CallId;
use crate::cluster::Backoff;

/// A member of the group beats every `heartbeat.interval.ms`; the coordinator's word holds for `session.timeout.ms` from when
/// the last answered request was *sent*, since the coordinator counts from when it came.
pub(super) struct Pulse {
    interval: Duration,
    session: Duration,
    next: Instant,
    on_its_way: Option<CallId>,
    holds_until: Option<Instant>,
    backoff: Backoff,
}

impl Pulse {
    pub(super) fn new(interval: Duration, session: Duration, backoff: (Duration, Duration), now: Instant) -> Self {
        let backoff = Backoff::new(backoff.0, backoff.1.min(interval));
        Self { interval, session, next: now, on_its_way: None, holds_until: None, backoff }
    }

    /// A generation began, for which we asked at `asked`: the first heartbeat is due at once.
    pub(super) fn start(&mut self, asked: Instant, now: Instant) {
        self.next = now;
        // An answer that is still to come belongs to an older one.
        self.on_its_way = None;
        self.confirmed(asked);
    }

    /// No generation, nothing to keep alive.
    pub(super) fn stop(&mut self) {
        self.holds_until = None;
    }

    /// When the next is due; None while one is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.on_its_way.is_none().then_some(self.next)
    }

    pub(super) fn sent(&mut self, call: CallId, now: Instant) {
        self.on_its_way = Some(call);
        self.next = now + self.interval;
    }

    /// An answer, whatever it says, or none.
    pub(super) fn returned(&mut self, call: CallId) {
        if self.on_its_way == Some(call) {
            self.on_its_way = None;
        }
    }

    /// The coordinator takes us for a member, as of `sent`.
    pub(super) fn confirmed(&mut self, sent: Instant) {
        self.holds_until = self.holds_until.max(Some(sent + self.session));
        self.backoff.reset();
    }

    /// It did not say so: try again sooner.
    pub(super) fn missed(&mut self, now: Instant) {
        self.next = now + self.backoff.next_delay();
    }

    /// The next one no later than this.
    pub(super) fn hurry(&mut self, by: Instant) {
        self.next = self.next.min(by);
    }

    /// Until when we are surely a member; None without a generation.
    pub(super) fn holds_until(&self) -> Option<Instant> {
        self.holds_until
    }
}
