//! A bound on bytes held in memory, shared by everything that holds records.
//!
//! One [`Budget`] stands for the whole process; [`Budget::split`] gives producing a share that fetching cannot take.
//! It knows nothing of what the bytes are.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// A bound on bytes. Cheap to clone; clones share the bound.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: Mutex<usize>,
    freed: Notify,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, used: Mutex::new(0), freed: Notify::new() }))
    }

    /// The producing quarter and the fetching rest of `total` bytes.
    pub fn split(total: usize) -> (Budget, Budget) {
        let producing = total / 4;
        (Self::new(producing), Self::new(total - producing))
    }

    pub fn limit(&self) -> usize {
        self.0.limit
    }

    pub fn used(&self) -> usize {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` if they fit now. A demand beyond the whole limit fits only when nothing else is held.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = used.saturating_add(bytes) <= self.0.limit || *used == 0;
        fits.then(|| {
            *used = used.saturating_add(bytes);
            Reservation { budget: self.clone(), bytes }
        })
    }

    /// Takes `bytes`, waiting until they fit. Dropping the future takes nothing.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            freed.await;
        }
    }

    /// Takes `bytes` that exist already, even beyond the limit: later demands wait until they are given back.
    pub fn charge(&self, bytes: usize) -> Reservation {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_add(bytes);
        Reservation { budget: self.clone(), bytes }
    }

    /// Completes when something is given back after the future was enabled (`Notified::enable`) or first polled.
    pub fn freed_since_now(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.freed.notified()
    }

    fn release(&self, bytes: usize) {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(bytes);
        drop(used);
        self.0.freed.notify_waiters();
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
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producing_has_a_quarter_that_fetching_cannot_take() {
        let (producing, fetching) = Budget::split(100);
        let _all = fetching.try_reserve(75).expect("fits");
        assert!(fetching.try_reserve(1).is_none());
        assert!(producing.try_reserve(25).is_some());
    }

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
}
