//! Whether the backend may be asked: open while it answers; while it does not, one attempt at a time after a back-off.
//!
//! It knows nothing of records. [`Gate`] is its main type. Whatever the back-off or a `Retry-After` say, attempts begin at
//! most `retryMaxDelayMs` apart, so that a backend that recovers gets work within that time.
//!
//! ```text
//! Open -- unavailable --> Shut { until } -- answered --> Open
//!                           \__ unavailable, an attempt begins: a later until __/
//! ```

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::settle::delay;

/// What the gate says of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackendState {
    /// Nothing was sent yet: it does not accept connections (with the reason), or nobody asked.
    Waiting {
        why: String,
    },
    Up,
    Down {
        why: String,
        since: Instant,
    },
}

/// Shared by all lanes.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
    first: Duration,
    max: Duration,
}

#[derive(Debug)]
enum State {
    Waiting { why: String },
    Open,
    Shut { why: String, since: Instant, until: Instant, failures: u32, counted: Instant },
}

impl Gate {
    /// `first` doubles up to `max` with each failed attempt.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { state: Mutex::new(State::Waiting { why: String::new() }), changed: Notify::new(), first, max }
    }

    /// Waits until an attempt may be made. While the backend is away only one caller passes at a time.
    ///
    /// Cancel-safe; a caller that passed and makes no attempt delays the others by `max` at most.
    pub(crate) async fn pass(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let until = match self.try_pass(Instant::now()) {
                Ok(()) => return,
                Err(until) => until,
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn try_pass(&self, now: Instant) -> Result<(), Instant> {
        match &mut *self.lock() {
            State::Waiting { .. } | State::Open => Ok(()),
            State::Shut { until, .. } if *until > now => Err(*until),
            State::Shut { until, .. } => {
                *until = now + self.max;
                Ok(())
            }
        }
    }

    /// The backend does not accept connections yet.
    pub(crate) fn waiting(&self, reason: &str) {
        if let State::Waiting { why } = &mut *self.lock() {
            reason.clone_into(why);
        }
    }

    /// The backend answered something that is no "not now".
    pub(crate) fn answered(&self) {
        let before = std::mem::replace(&mut *self.lock(), State::Open);
        if let State::Shut { since, failures, .. } = before {
            tracing::info!(after_ms = since.elapsed().as_millis() as u64, attempts = failures, "the backend is back");
            self.changed.notify_waiters();
        }
    }

    /// An attempt that began at `started` found the backend away.
    pub(crate) fn unavailable(&self, started: Instant, retry_after: Option<Duration>, reason: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        let (since, failures) = match &*state {
            // Many calls fail together when a backend goes: they are one failure.
            State::Shut { counted, .. } if started < *counted => return,
            State::Shut { since, failures, .. } => (*since, failures.saturating_add(1)),
            State::Waiting { .. } | State::Open => {
                tracing::warn!(reason, "the backend is away; records wait, none is charged");
                (now, 1)
            }
        };
        let wait = retry_after.unwrap_or_else(|| delay(failures, self.first, self.max)).min(self.max);
        let until = (started + wait).max(now);
        *state = State::Shut { why: reason.to_owned(), since, until, failures, counted: now };
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn state(&self) -> BackendState {
        match &*self.lock() {
            State::Waiting { why } => BackendState::Waiting { why: why.clone() },
            State::Open => BackendState::Up,
            State::Shut { why, since, .. } => BackendState::Down { why: why.clone(), since: *since },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn gate() -> Gate {
        Gate::new(Duration::from_millis(100), Duration::from_secs(2))
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_on_an_absent_backend_begin_at_most_two_seconds_apart() {
        let gate = gate();
        let mut last = Instant::now();
        for attempt in 0..50 {
            gate.pass().await;
            let started = Instant::now();
            assert!(started - last <= Duration::from_secs(2), "attempt {attempt}: {:?}", started - last);
            last = started;
            // A connection that is not refused but not made either.
            tokio::time::sleep(Duration::from_millis(attempt * 40)).await;
            let retry_after = (attempt % 2 == 0).then_some(Duration::from_secs(3600));
            gate.unavailable(started, retry_after, "no route");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_at_a_time_tries_and_all_go_when_the_backend_is_back() {
        let gate = Arc::new(gate());
        gate.unavailable(Instant::now(), Some(Duration::from_secs(1)), "503");
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let gate = gate.clone();
            callers.spawn(async move { gate.pass().await });
        }
        let begin = Instant::now();
        callers.join_next().await.expect("a caller").expect("no panic");
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert!(callers.try_join_next().is_none());
        assert!(matches!(gate.state(), BackendState::Down { .. }));
        gate.answered();
        assert_eq!(callers.join_all().await.len(), 9);
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert_eq!(gate.state(), BackendState::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_are_one_failure() {
        let gate = gate();
        let started = Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        for _ in 0..32 {
            gate.unavailable(started, None, "reset");
        }
        assert!(matches!(&*gate.lock(), State::Shut { failures: 1, .. }));
    }
}
