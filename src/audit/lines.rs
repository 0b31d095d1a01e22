//! Writes audit entries as lines, many in one go; each until it is written.
//!
//! It knows neither files nor Kafka: what appends the lines is given to it. [`write_lines`] is all of it.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use tokio::sync::mpsc;

use super::{AuditMetrics, Item, RETRY_DELAY, RETRY_DELAY_MAX, acknowledge, crashed};

/// Lines written in one go.
const LINES_AT_ONCE: usize = 256;

/// Writes until the queue is closed and empty. `append` blocks; it takes lines out as it writes them, and what it leaves after
/// an error or a crash is given to it again. `target` names it in the log.
pub(super) async fn write_lines(
    target: &str,
    append: impl FnMut(&mut VecDeque<Vec<u8>>) -> io::Result<()> + Send + 'static,
    mut queue: mpsc::Receiver<Item>,
    service_id: &str,
    metrics: &AuditMetrics,
) {
    let mut append = append;
    let mut items = Vec::with_capacity(LINES_AT_ONCE);
    while queue.recv_many(&mut items, LINES_AT_ONCE).await > 0 {
        let mut lines: VecDeque<Vec<u8>> = items.iter().map(|item| item.entry.line(service_id)).collect();
        let mut delay = RETRY_DELAY;
        loop {
            let writing = tokio::task::spawn_blocking(move || {
                let written = catch_unwind(AssertUnwindSafe(|| append(&mut lines)));
                (append, lines, written)
            });
            let written;
            (append, lines, written) = match writing.await {
                Ok(back) => back,
                // The runtime is shutting down: what is left is counted by the caller.
                Err(_) => return,
            };
            let reason = match written {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(crash) => crashed(metrics, &*crash),
            };
            metrics.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                file = target,
                reason,
                waiting = metrics.pending.load(Ordering::Relaxed),
                "audit entries cannot be written and are tried again; callers slow down \
                 (settings: auditFile, auditTarget, auditEnabled)"
            );
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
        for item in items.drain(..) {
            acknowledge(metrics, item.written);
        }
    }
}
