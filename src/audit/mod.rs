//! The audit: one entry per produced record and per record of a settled batch, metadata only, to a topic or a file.
//!
//! It knows nothing of what the records hold or of who judged them. [`Audit`] is the handle that the flows have: its queue
//! is bounded, and when it is full its callers wait; nothing is ever dropped. [`AuditWriter`] is the task behind it.

mod entry;
mod file;
mod lines;
mod topic;

use std::{
    any::Any,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

pub(crate) use entry::{AuditEntry, AuditType};
use file::RollingFile;
use lines::write_lines;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use topic::TopicWriter;

use crate::{
    config::settings::{self, AuditTarget},
    record::sink::{RecordSink, Topics},
};

/// Entries that wait for the writer; a caller beyond that waits.
const QUEUE: usize = 1024;
/// The first delay before a failed write is tried again; doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Why the audit could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error("auditFile: {path} cannot be opened; set auditFile, or auditTarget: topic, or auditEnabled: false")]
    File { path: PathBuf, source: std::io::Error },
}

/// Numbers since the start.
#[derive(Debug, Default)]
pub(crate) struct AuditMetrics {
    /// Entries that were taken and are not acknowledged or written yet.
    pub(crate) pending: AtomicU64,
    pub(crate) written: AtomicU64,
    /// Writes that failed and were tried again.
    pub(crate) failures: AtomicU64,
    /// Those of them that crashed.
    pub(crate) restarts: AtomicU64,
}

/// Takes entries. Cheap to clone; when the last clone is dropped the writer drains its queue and ends.
#[derive(Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Item>,
    metrics: Arc<AuditMetrics>,
}

/// Completes when its entry was acknowledged by a broker or written to the file.
#[derive(Debug)]
pub(crate) struct Ack(oneshot::Receiver<()>);

/// The writer ended before it wrote the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit ended before the entry was written")]
pub(crate) struct NotWritten;

impl Future for Ack {
    type Output = Result<(), NotWritten>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|written| written.map_err(|_| NotWritten))
    }
}

impl Audit {
    /// Waits for room in the queue and takes the entry; the [`Ack`] need not be awaited.
    ///
    /// Dropping the future before it completes takes nothing.
    pub(crate) async fn record(&self, entry: AuditEntry) -> Result<Ack, NotWritten> {
        let place = self.queue.reserve().await.map_err(|_| NotWritten)?;
        let (written, ack) = oneshot::channel();
        self.metrics.pending.fetch_add(1, Ordering::Relaxed);
        place.send(Item { entry, written });
        Ok(Ack(ack))
    }

    pub(crate) fn metrics(&self) -> &Arc<AuditMetrics> {
        &self.metrics
    }
}

struct Item {
    entry: AuditEntry,
    written: oneshot::Sender<()>,
}

/// The task that writes entries.
pub(crate) struct AuditWriter {
    queue: mpsc::Receiver<Item>,
    service_id: String,
    target: Target,
    metrics: Arc<AuditMetrics>,
}

enum Target {
    Topic(TopicWriter),
    File(RollingFile),
}

/// Opens the audit that `settings` name. `create_topic` says whether a missing audit topic may be made.
///
/// # Errors
/// The file cannot be opened. A topic is only looked for when there is an entry.
pub(crate) fn open(
    settings: &settings::Audit,
    service_id: &str,
    sink: Arc<dyn RecordSink>,
    topics: Arc<dyn Topics>,
    create_topic: bool,
) -> Result<(Audit, AuditWriter), AuditError> {
    let target = match settings.target {
        AuditTarget::Topic => Target::Topic(TopicWriter::new(sink, topics, &settings.topic, create_topic)),
        AuditTarget::LogFile => {
            let path = settings.file.clone();
            let file = RollingFile::open(path.clone(), settings.file_max_bytes, settings.file_max_history)
                .map_err(|source| AuditError::File { path, source })?;
            Target::File(file)
        }
    };
    let (sender, queue) = mpsc::channel(QUEUE);
    let metrics = Arc::<AuditMetrics>::default();
    let audit = Audit { queue: sender, metrics: metrics.clone() };
    Ok((audit, AuditWriter { queue, service_id: service_id.to_owned(), target, metrics }))
}

impl AuditWriter {
    /// Writes until every [`Audit`] is dropped and the queue is empty, or until `give_up`. Returns how many entries were
    /// taken and not written.
    pub(crate) async fn run(self, give_up: CancellationToken) -> u64 {
        let Self { queue, service_id, target, metrics } = self;
        let writing = async {
            match target {
                Target::Topic(writer) => writer.run(queue, &service_id, &metrics).await,
                Target::File(mut file) => {
                    let path = file.path().display().to_string();
                    write_lines(&path, move |lines| file.append(lines), queue, &service_id, &metrics).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = writing => {}
            () = give_up.cancelled() => {}
        }
        metrics.pending.load(Ordering::Relaxed)
    }
}

fn acknowledge(metrics: &AuditMetrics, written: oneshot::Sender<()>) {
    metrics.pending.fetch_sub(1, Ordering::Relaxed);
    metrics.written.fetch_add(1, Ordering::Relaxed);
    // Producers of entries do not wait for them.
    let _ = written.send(());
}

/// A write that panicked: the writer goes on with everything that is not durable yet, this entry included. Returns what to say.
fn crashed(metrics: &AuditMetrics, panic: &(dyn Any + Send)) -> String {
    metrics.restarts.fetch_add(1, Ordering::Relaxed);
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the writer crashed: {}", words.unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests;
