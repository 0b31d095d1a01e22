//! Tasks with names: who runs, who ended before it should, who is waited for at the end.
//!
//! It knows nothing of what the tasks do. [`Tasks`] is its main type.

use std::future::Future;

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

/// Starts tasks and hears of their ends. The channel holds at most one message per task.
pub(crate) struct Tasks {
    ended: mpsc::UnboundedSender<Ended>,
    ends: mpsc::UnboundedReceiver<Ended>,
}

/// A task that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) result: Result<(), String>,
}

/// A task that runs. Dropping it does not stop the task.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    work: tokio::task::AbortHandle,
    watch: JoinHandle<Result<(), String>>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        let (ended, ends) = mpsc::unbounded_channel();
        Self { ended, ends }
    }

    /// Starts a task. A panic is an error like any other.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> Running {
        let ended = self.ended.clone();
        let work = tokio::spawn(work);
        let abort = work.abort_handle();
        let watch = tokio::spawn(async move {
            let result = match work.await {
                Ok(result) => result,
                Err(error) if error.is_cancelled() => Err("it was cut".to_owned()),
                Err(error) => Err(format!("it crashed: {error}")),
            };
            // Nobody listens once the process is shutting down.
            let _ = ended.send(Ended { name, result: result.clone() });
            result
        });
        Running { name, work: abort, watch }
    }

    /// The next task that ended. Cancel-safe.
    pub(crate) async fn next_end(&mut self) -> Ended {
        match self.ends.recv().await {
            Some(ended) => ended,
            // `self` holds a sender, so the channel cannot be closed.
            None => std::future::pending().await,
        }
    }
}

impl Running {
    /// Waits for the end until the deadline, then cuts the task. The error says why it did not end well.
    pub(crate) async fn end_by(self, deadline: Instant) -> Result<(), String> {
        let Self { work, mut watch, .. } = self;
        match tokio::time::timeout_at(deadline, &mut watch).await {
            Ok(result) => result.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => {
                work.abort();
                Err("it did not end in time".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_end_is_heard_of_whatever_its_cause() {
        let mut tasks = Tasks::new();
        for (name, fails) in [("well", None), ("badly", Some("reason"))] {
            tasks.spawn(name, async move { fails.map_or(Ok(()), |reason: &str| Err(reason.to_owned())) });
            let ended = tasks.next_end().await;
            assert_eq!(ended.name, name);
            assert_eq!(ended.result.err().as_deref(), fails);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut() {
        let tasks = Tasks::new();
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let running = tasks.spawn("endless", async move {
            let _alive = alive;
            std::future::pending().await
        });
        let ended = running.end_by(Instant::now() + Duration::from_secs(3)).await;
        assert_eq!(ended, Err("it did not end in time".to_owned()));
        assert!(gone.await.is_err(), "the task was dropped");
    }
}
