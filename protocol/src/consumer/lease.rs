//! The right to process one partition, for as long as it is ours.
//!
//! It travels with its records; every side effect (dispatch, retry, dead letter, offset, commit) checks it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// ```text
/// Active -> Revoking -> Lost
///    \________________^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LeaseState {
    /// Ours: everything is allowed.
    Active = 0,
    /// To be given up: what is in flight may finish and be committed, nothing new may start.
    Revoking = 1,
    /// No longer ours: no side effect at all.
    Lost = 2,
}

/// A partition that was assigned to us in one generation. Clones share the state.
///
/// Besides its state it may be *suspect*: the coordinator has not confirmed our membership for a whole session timeout, so
/// somebody else may own the partition by now. An Active lease that is suspect starts no side effect; what runs may finish,
/// and once the coordinator has answered everything goes on as before. The lease itself knows until when it was confirmed:
/// a process that slept and wakes must not wait for the group's task to find out.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    topic: Arc<str>,
    partition: i32,
    generation: i32,
    state: AtomicU8,
    /// Until when the coordinator's word holds; None = it sets no end.
    confirmed_until: watch::Sender<Option<Instant>>,
    rewinds: AtomicU32,
    revoking: CancellationToken,
    lost: CancellationToken,
}

impl Lease {
    /// `generation` is the one it was assigned in, for the log.
    pub fn new(topic: Arc<str>, partition: i32, generation: i32) -> Self {
        Self(Arc::new(Inner {
            topic,
            partition,
            generation,
            state: AtomicU8::new(LeaseState::Active as u8),
            confirmed_until: watch::Sender::new(None),
            rewinds: AtomicU32::new(0),
            revoking: CancellationToken::new(),
            lost: CancellationToken::new(),
        }))
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    pub fn generation(&self) -> i32 {
        self.0.generation
    }

    pub fn state(&self) -> LeaseState {
        match self.0.state.load(Ordering::Acquire) {
            0 => LeaseState::Active,
            1 => LeaseState::Revoking,
            _ => LeaseState::Lost,
        }
    }

    pub fn is_active(&self) -> bool {
        self.state() == LeaseState::Active
    }

    pub fn is_lost(&self) -> bool {
        self.state() == LeaseState::Lost
    }

    /// Whether a side effect may start now: Active, and not suspect.
    pub fn may_start(&self) -> bool {
        self.is_active() && !self.is_suspect()
    }

    pub fn is_suspect(&self) -> bool {
        self.0.confirmed_until.borrow().is_some_and(|until| until <= Instant::now())
    }

    /// Completes at once unless the lease is suspect; then when it is confirmed, or no longer Active. Cancel-safe.
    pub async fn confirmed(&self) {
        let mut word = self.0.confirmed_until.subscribe();
        while self.is_suspect() {
            tokio::select! {
                biased;
                () = self.revoking() => return,
                // The sender stands beside us: waiting cannot fail.
                _ = word.changed() => {}
            }
        }
    }

    /// The coordinator confirmed our membership: it holds until then.
    pub fn confirm_until(&self, until: Instant) {
        self.0.confirmed_until.send_replace(Some(until));
    }

    /// Says at once whether the membership is in doubt, for whoever counts no sessions.
    pub fn set_suspect(&self, suspect: bool) {
        self.0.confirmed_until.send_replace(suspect.then(Instant::now));
    }

    /// The position goes back, or into another log: no offset of before may be committed any more. For whoever fetches.
    pub fn rewind(&self) {
        self.0.rewinds.fetch_add(1, Ordering::AcqRel);
    }

    /// How often the position went back. What was fetched before the last time counts no more, see
    /// [`FetchedRecords::rewinds`](super::FetchedRecords::rewinds).
    pub fn rewinds(&self) -> u32 {
        self.0.rewinds.load(Ordering::Acquire)
    }

    /// Completes when the lease is no longer Active. Cancel-safe.
    pub async fn revoking(&self) {
        self.0.revoking.cancelled().await;
    }

    /// Completes when the lease is Lost. Cancel-safe.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }

    /// Active -> Revoking; a Lost lease stays Lost.
    pub fn start_revoking(&self) {
        let _ = self.0.state.compare_exchange(
            LeaseState::Active as u8,
            LeaseState::Revoking as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        self.0.revoking.cancel();
    }

    /// Any state -> Lost.
    pub fn lose(&self) {
        self.0.state.store(LeaseState::Lost as u8, Ordering::Release);
        self.0.revoking.cancel();
        self.0.lost.cancel();
    }

    /// Whether both are the same grant, not just the same partition.
    pub fn same(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}:{:?}", self.0.topic, self.0.partition, self.0.generation, self.state())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_lease_never_comes_back() {
        let lease = Lease::new("t".into(), 0, 1);
        lease.lose();
        lease.start_revoking();
        assert_eq!(lease.state(), LeaseState::Lost);
        lease.revoking().await;
        lease.lost().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_suspect_from_the_moment_its_confirmation_ends_whether_or_not_anybody_says_so() {
        let second = std::time::Duration::from_secs(1);
        let lease = Lease::new("t".into(), 0, 1);
        lease.confirm_until(Instant::now() + second);
        tokio::time::advance(second - second / 4).await;
        assert!(lease.may_start());
        tokio::time::advance(second / 4).await;
        assert!(lease.is_active() && !lease.may_start());
        let waiter = tokio::spawn({
            let lease = lease.clone();
            async move { lease.confirmed().await }
        });
        tokio::task::yield_now().await;
        // The answer to a heartbeat that was sent too long ago is no comfort.
        lease.confirm_until(Instant::now());
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        lease.confirm_until(Instant::now() + second);
        waiter.await.expect("no panic");
        assert!(lease.may_start());
    }

    #[tokio::test]
    async fn a_suspect_lease_starts_nothing_until_it_is_confirmed_or_over() {
        let lease = Lease::new("t".into(), 0, 1);
        lease.confirmed().await;
        lease.set_suspect(true);
        assert!(lease.is_active() && !lease.may_start());
        for end in [|lease: &Lease| lease.set_suspect(false), |lease: &Lease| lease.lose()] {
            lease.set_suspect(true);
            let waiter = tokio::spawn({
                let lease = lease.clone();
                async move { lease.confirmed().await }
            });
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished());
            end(&lease);
            waiter.await.expect("no panic");
        }
    }
}
