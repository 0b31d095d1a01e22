//! A bound on bytes held in memory, shared by everything that holds records.
//!
//! A process has one total, given out in shares that cannot take from each other: a [`Budget`] each. It knows nothing of
//! what the bytes are. Who waits for room is served in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A bound on bytes. Cheap to clone; clones share the bound.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    freed: Notify,
    /// Held by the first of those who wait.
    turn: tokio::sync::Mutex<()>,
    /// Held by the one who may go on beyond the limit.
    beyond: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    waiting: usize,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            limit,
            state: Mutex::default(),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            beyond: Arc::new(Semaphore::new(1)),
        }))
    }

    pub fn limit(&self) -> usize {
        self.0.limit
    }

    pub fn used(&self) -> usize {
        self.state().used
    }

    /// Takes `bytes` if they fit now and nobody waits for room. A demand beyond the whole limit fits only when nothing else
    /// is held.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let state = self.state();
        if state.waiting > 0 { None } else { self.fit(state, bytes) }
    }

    /// Takes `bytes`, waiting until they fit, in turn. Dropping the future takes nothing.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        if let Some(reservation) = self.try_reserve(bytes) {
            return reservation;
        }
        let _waiting = Waiting::begin(self);
        let _turn = self.0.turn.lock().await;
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reservation) = self.fit(self.state(), bytes) {
                return reservation;
            }
            freed.await;
        }
    }

    /// Takes `bytes` that exist already, even beyond the limit: later demands wait until they are given back.
    pub fn charge(&self, bytes: usize) -> Reservation {
        let mut state = self.state();
        state.used = state.used.saturating_add(bytes);
        drop(state);
        Reservation { budget: self.clone(), bytes }
    }

    /// Nothing yet, of something that arrives in pieces.
    pub fn growing(&self) -> Growing {
        Growing { held: self.charge(0), beyond: None }
    }

    /// Completes when something is given back after the future was enabled (`Notified::enable`) or first polled.
    pub fn freed_since_now(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.freed.notified()
    }

    fn fit(&self, mut state: MutexGuard<'_, State>, bytes: usize) -> Option<Reservation> {
        let used = state.used.saturating_add(bytes);
        let fits = used <= self.0.limit || state.used == 0;
        fits.then(|| {
            state.used = used;
            Reservation { budget: self.clone(), bytes }
        })
    }

    fn release(&self, bytes: usize) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(bytes);
        drop(state);
        self.0.freed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody overtakes who waits, large demands are served as well as small ones.
struct Waiting<'a>(&'a Budget);

impl<'a> Waiting<'a> {
    fn begin(budget: &'a Budget) -> Self {
        budget.state().waiting += 1;
        Self(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        // Who only tries may have failed because of this one.
        self.0.0.freed.notify_waiters();
    }
}

impl Reservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `bytes`. Does nothing if it holds no more than that.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.budget.release(surplus);
        }
    }

    /// Corrects a guess: from now on it holds `bytes`, even beyond the limit.
    pub fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(missing) => self.absorb(self.budget.charge(missing)),
            None => self.shrink(bytes),
        }
    }

    /// Adds what another reservation of the same budget holds.
    pub fn absorb(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes `bytes` out into a reservation of their own (at most what is held).
    pub fn take(&mut self, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reservation { budget: self.budget.clone(), bytes }
    }

    /// The same bytes; it is given back when the last part of them is dropped.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _memory: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes);
        }
    }
}

/// What something holds that arrives in pieces. When everything is taken, one of these at a time goes on beyond the limit, so
/// that those who hold a part already never wait for each other.
#[derive(Debug)]
pub struct Growing {
    held: Reservation,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Growing {
    /// Takes so many bytes more, waiting until they fit or until this is the one that goes on without. Dropping the future
    /// takes nothing.
    pub async fn grow(&mut self, bytes: usize) {
        let budget = self.held.budget.clone();
        if self.beyond.is_none() {
            if let Some(more) = budget.try_reserve(bytes) {
                return self.held.absorb(more);
            }
            self.beyond = tokio::select! {
                biased;
                more = budget.reserve(bytes) => return self.held.absorb(more),
                permit = budget.0.beyond.clone().acquire_owned() => permit.ok(),
            };
        }
        self.held.absorb(budget.charge(bytes));
    }

    /// As [`Reservation::resize`].
    pub fn resize(&mut self, bytes: usize) {
        self.held.resize(bytes);
    }

    /// As [`Reservation::keep`].
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _memory: self })
    }
}

/// Bytes and what they hold of a budget.
struct Kept<M> {
    bytes: Bytes,
    _memory: M,
}

impl<M> AsRef<[u8]> for Kept<M> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_demand_beyond_the_limit_is_served_when_it_is_alone() {
        let budget = Budget::new(10);
        let one = budget.try_reserve(1).expect("fits");
        assert!(budget.try_reserve(11).is_none());
        drop(one);
        assert_eq!(budget.try_reserve(11).expect("alone").bytes(), 11);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_waiter_goes_on_when_bytes_are_given_back() {
        let budget = Budget::new(10);
        let mut held = budget.charge(15);
        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(4).await.bytes() }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        held.shrink(6);
        assert_eq!(waiter.await.expect("no panic"), 4);
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_however_much_it_wants() {
        let budget = Budget::new(10);
        let mut held = budget.try_reserve(10).expect("fits");
        let mut large = Box::pin(budget.reserve(12));
        let mut small = Box::pin(budget.reserve(1));
        assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        held.shrink(5);
        assert!((&mut small).now_or_never().is_none(), "the large one waits before it");
        assert!(budget.try_reserve(1).is_none(), "nor does anybody else overtake");
        drop(held);
        assert_eq!((&mut large).now_or_never().expect("alone").bytes(), 12);
        assert_eq!((&mut small).now_or_never().expect("in its turn").bytes(), 1);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_lets_the_next_one_go_on() {
        let budget = Budget::new(10);
        let held = budget.try_reserve(5).expect("fits");
        let mut large = Box::pin(budget.reserve(6));
        let mut small = Box::pin(budget.reserve(5));
        assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        let freed = budget.freed_since_now();
        tokio::pin!(freed);
        freed.as_mut().enable();
        drop(large);
        freed.await;
        assert_eq!((&mut small).now_or_never().expect("fits").bytes(), 5);
        drop(held);
        assert!(budget.try_reserve(10).is_some());
    }

    #[tokio::test]
    async fn of_those_that_hold_a_part_one_at_a_time_goes_on_beyond_the_limit() {
        let budget = Budget::new(10);
        let (mut one, mut two, mut three) = (budget.growing(), budget.growing(), budget.growing());
        for growing in [&mut one, &mut two, &mut three] {
            growing.grow(3).await;
        }
        one.grow(5).await;
        one.grow(5).await;
        assert_eq!(budget.used(), 19);
        let mut waiting = Box::pin(two.grow(5));
        assert!((&mut waiting).now_or_never().is_none());
        drop(one);
        assert!((&mut waiting).now_or_never().is_some());
        assert!(three.grow(1).now_or_never().is_none(), "two is beyond the limit now");
        drop(waiting);
        drop(two);
        assert_eq!(budget.used(), 3);
    }

    #[test]
    fn kept_bytes_count_until_their_last_part_is_gone() {
        let budget = Budget::new(10);
        let mut reservation = budget.charge(4);
        reservation.resize(6);
        reservation.resize(5);
        let bytes = reservation.keep(Bytes::from_static(b"12345"));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!((&part[..], budget.used()), (&b"2"[..], 5));
        drop(part);
        assert_eq!(budget.used(), 0);
    }
}
