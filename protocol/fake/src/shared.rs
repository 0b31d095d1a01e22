//! What all tasks of a cluster hold together: the state behind its lock, and the signals that it changed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::Faults;
use crate::request_log::RequestLog;
use crate::settings::Settings;
use crate::state::State;

/// What all tasks of a cluster hold together.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    state: Mutex<State>,
    /// Counts changes that somebody may be waiting for: long polls and tests.
    changed: watch::Sender<u64>,
    /// The next deadline of a group may be another one now.
    timers: Notify,
    pub(crate) faults: Faults,
    pub(crate) requests: RequestLog,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(settings: Settings, state: State) -> Self {
        let requests = RequestLog::new(settings.request_log_bytes);
        Self {
            settings,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            timers: Notify::new(),
            faults: Faults::default(),
            requests,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, changes nothing that anybody waits for.
    pub(crate) fn quietly<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.lock())
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.announce();
        result
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.timers.notify_one();
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Lets the groups do what is due when it is due, until the cluster stops.
    pub(crate) async fn run_timers(&self) {
        loop {
            let deadline = self.quietly(|state| state.deadline());
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = self.cancel.cancelled() => return,
                () = self.timers.notified() => {}
                () = due => self.change(|state| state.tick(Instant::now())),
            }
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
