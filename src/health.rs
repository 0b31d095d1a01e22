//! Whether the process is ready, from what its parts say of themselves.
//!
//! ```text
//! Starting --every gate was passed once--> Running --drain()--> Draining
//! ```
//!
//! Starting and Draining are not ready. Running is ready unless a gate was closed for longer than the grace. A part that is no
//! gate explains and never decides. It knows no HTTP and asks nobody: parts report. [`Health`] is its main type.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

/// Cheap to clone; clones share the state.
#[derive(Clone)]
pub(crate) struct Health(Arc<Shared>);

struct Shared {
    grace: Duration,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    phase: Phase,
    parts: Vec<PartState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Draining,
}

struct PartState {
    name: &'static str,
    gate: bool,
    /// None: it works. Else since when it does not, and why.
    fault: Option<(Instant, String)>,
    ever_ok: bool,
}

/// A part's handle, to report by.
#[derive(Clone)]
pub(crate) struct Part {
    health: Health,
    index: usize,
}

/// What the health endpoints answer with `useJson`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) status: Word,
    /// `starting`, `running` or `draining`.
    pub(crate) phase: &'static str,
    pub(crate) parts: Vec<PartSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PartSnapshot {
    pub(crate) name: &'static str,
    pub(crate) status: Word,
    /// Whether readiness depends on it.
    pub(crate) gate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// For how long it does not work.
    #[serde(rename = "failingSeconds", skip_serializing_if = "Option::is_none")]
    pub(crate) failing_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Word {
    #[serde(rename = "OK")]
    Ok,
    #[serde(rename = "ERROR")]
    Error,
}

impl Word {
    fn of(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Error }
    }
}

impl Health {
    /// `grace` is how long a gate may be closed while running before readiness fails.
    pub(crate) fn new(grace: Duration) -> Self {
        let state = State { phase: Phase::Starting, parts: Vec::new() };
        Self(Arc::new(Shared { grace, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// A part that readiness depends on: not ready before it reported OK once.
    pub(crate) fn gate(&self, name: &'static str) -> Part {
        self.register(name, true)
    }

    /// A part that explains only.
    pub(crate) fn explain(&self, name: &'static str) -> Part {
        self.register(name, false)
    }

    fn register(&self, name: &'static str, gate: bool) -> Part {
        let mut state = self.lock();
        let fault = Some((Instant::now(), "not reported yet".to_owned()));
        state.parts.push(PartState { name, gate, fault, ever_ok: false });
        Part { health: self.clone(), index: state.parts.len() - 1 }
    }

    /// From here on the process is not ready.
    pub(crate) fn drain(&self) {
        self.lock().phase = Phase::Draining;
        self.0.changed.notify_waiters();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.lock().is_ready(self.0.grace)
    }

    /// Completes when the process is ready. Cancel-safe.
    pub(crate) async fn ready(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_ready() {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            status: Word::of(state.is_ready(self.0.grace)),
            phase: match state.phase {
                Phase::Starting => "starting",
                Phase::Running => "running",
                Phase::Draining => "draining",
            },
            parts: state
                .parts
                .iter()
                .map(|part| PartSnapshot {
                    name: part.name,
                    status: Word::of(part.fault.is_none()),
                    gate: part.gate,
                    reason: part.fault.as_ref().map(|(_, reason)| reason.clone()),
                    failing_seconds: part.fault.as_ref().map(|(since, _)| since.elapsed().as_secs()),
                })
                .collect(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_ready(&self, grace: Duration) -> bool {
        let within_grace =
            |part: &PartState| part.fault.as_ref().is_none_or(|(since, _)| !part.gate || since.elapsed() < grace);
        self.phase == Phase::Running && self.parts.iter().all(within_grace)
    }
}

impl Part {
    pub(crate) fn ok(&self) {
        self.report(None);
    }

    pub(crate) fn failing(&self, reason: impl Into<String>) {
        self.report(Some(reason.into()));
    }

    fn report(&self, fault: Option<String>) {
        let mut state = self.health.lock();
        if let Some(part) = state.parts.get_mut(self.index) {
            part.ever_ok |= fault.is_none();
            let since = part.fault.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            part.fault = fault.map(|reason| (since, reason));
        }
        if state.phase == Phase::Starting && state.parts.iter().all(|part| part.ever_ok || !part.gate) {
            state.phase = Phase::Running;
        }
        drop(state);
        self.health.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn readiness_gates_the_start_survives_a_short_outage_and_ends_with_the_drain() {
        let health = Health::new(GRACE);
        let (brokers, backend, lane) = (health.gate("brokers"), health.gate("backend"), health.explain("lane"));
        lane.failing("stuck at t-0@17");
        assert!(!health.is_ready(), "nothing was reached yet");
        brokers.ok();
        assert!(!health.is_ready(), "the backend was not");
        backend.ok();
        assert!(health.is_ready(), "what explains does not decide");

        brokers.failing("no broker answers");
        tokio::time::advance(GRACE - Duration::from_secs(1)).await;
        brokers.failing("still none");
        assert!(health.is_ready(), "within the grace");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!health.is_ready(), "reporting the same fault again does not begin the grace anew");
        brokers.ok();
        assert!(health.is_ready());
        brokers.failing("again");
        assert!(health.is_ready(), "a new outage has a grace of its own");

        health.drain();
        brokers.ok();
        assert!(!health.is_ready());
        assert_eq!(health.snapshot().phase, "draining");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_that_opened_once_and_closed_again_does_not_hold_back_the_start() {
        let health = Health::new(GRACE);
        let (brokers, backend) = (health.gate("brokers"), health.gate("backend"));
        brokers.ok();
        brokers.failing("a moment");
        backend.ok();
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn who_waits_for_readiness_is_told() {
        let health = Health::new(GRACE);
        let brokers = health.gate("brokers");
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.ready().await }
        });
        tokio::task::yield_now().await;
        brokers.ok();
        waiting.await.expect("told");
    }

    #[tokio::test(start_paused = true)]
    async fn the_parts_are_told_one_by_one() {
        let health = Health::new(GRACE);
        health.gate("brokers").failing("refused");
        tokio::time::advance(Duration::from_secs(7)).await;
        let json = serde_json::to_string(&health.snapshot()).expect("json");
        assert_eq!(
            json,
            r#"{"status":"ERROR","phase":"starting","parts":[{"name":"brokers","status":"ERROR","gate":true,"reason":"refused","failingSeconds":7}]}"#
        );
    }
}
