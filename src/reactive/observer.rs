//! What the reactive flow says of itself: where each partition stands, how the backend is, and counters.
//!
//! It decides nothing. [`Observer`] is shared by the lanes, which write, and by health and metrics, which read
//! [`Observer::status`]. No lock is held for longer than a copy.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::consumer::Lease;
use tokio::time::Instant;

use super::{
    gate::{BackendState, Gate},
    stall::WaitsFor,
};
use crate::record::TopicPartition;

/// Counters since the start, and one gauge.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Requests to the backend, and the time until their answers.
    pub(crate) calls: AtomicU64,
    pub(crate) call_micros: AtomicU64,
    /// Requests whose answer is awaited now.
    pub(crate) calls_in_flight: AtomicU64,
    /// Records in requests, repetitions included.
    pub(crate) records_sent: AtomicU64,
    pub(crate) records_processed: AtomicU64,
    /// `processed: false`.
    pub(crate) records_refused: AtomicU64,
    /// Records that used up `maxRetries`.
    pub(crate) records_exhausted: AtomicU64,
    pub(crate) records_undecodable: AtomicU64,
    /// Undecodable ones that `badRecordPolicy: skip` passed over.
    pub(crate) records_skipped: AtomicU64,
    /// Refused or exhausted ones that were only audited, since dead letters are off.
    pub(crate) records_dropped: AtomicU64,
    pub(crate) answers_unavailable: AtomicU64,
    pub(crate) answers_refused: AtomicU64,
    pub(crate) answers_malformed: AtomicU64,
    pub(crate) answers_late: AtomicU64,
    pub(crate) answers_lost: AtomicU64,
    pub(crate) halvings: AtomicU64,
    pub(crate) rollbacks: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commit_failures: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) partitions_lost: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// What a partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartitionState {
    /// Processing, or at the end of the log.
    Running,
    /// Not fetching yet: the backend does not accept connections.
    Waiting,
    /// Nothing moves until somebody does something.
    Standing { offset: Option<i64>, why: String },
    /// To be given up; what is in flight may finish.
    Revoking,
}

/// One assigned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionStatus {
    pub(crate) partition: TopicPartition,
    /// The offset after the last record that was taken for processing; None before the first.
    pub(crate) position: Option<i64>,
    /// Everything below is finished.
    pub(crate) finished: Option<i64>,
    pub(crate) committed: Option<i64>,
    /// The end of what can be read, as of the last fetch.
    pub(crate) high_watermark: Option<i64>,
    /// Records that were taken and are not finished.
    pub(crate) in_flight: usize,
    pub(crate) oldest_unfinished: Option<i64>,
    pub(crate) oldest_unfinished_age: Option<Duration>,
    /// What its oldest unfinished record waits for; where there is none, its next.
    pub(crate) waits_for: WaitsFor,
    pub(crate) state: PartitionState,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) backend: BackendState,
    /// The last fault of the group or the brokers, until partitions are assigned again.
    pub(crate) fault: Option<String>,
    /// By topic and partition.
    pub(crate) partitions: Vec<PartitionStatus>,
}

/// Collects what the lanes tell.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub(crate) metrics: Metrics,
    board: Mutex<Board>,
    gate: OnceLock<std::sync::Arc<Gate>>,
}

#[derive(Debug, Default)]
struct Board {
    fault: Option<String>,
    partitions: BTreeMap<TopicPartition, Row>,
}

#[derive(Debug)]
struct Row {
    lease: Lease,
    status: PartitionStatus,
    oldest: Option<(i64, Instant)>,
    /// Audit entries that are not acknowledged. Their records are older than those that are with the backend.
    auditing: usize,
    stage: Stage,
    /// The end of what was fetched.
    fetched: Option<i64>,
}

/// Where dispatch is with the records it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Backend,
    DeadLetter,
    Audit,
}

impl Row {
    fn waits_for(&self, backend: &BackendState) -> WaitsFor {
        let away = !matches!(backend, BackendState::Up);
        match (self.oldest, self.stage) {
            _ if matches!(self.status.state, PartitionState::Standing { .. }) => WaitsFor::Record,
            (Some(_), _) if self.auditing > 0 => WaitsFor::Audit,
            (Some(_), Stage::Audit) => WaitsFor::Audit,
            (Some(_), Stage::DeadLetter) => WaitsFor::DeadLetter,
            (None, _) if self.status.position >= self.fetched => WaitsFor::Records,
            _ if self.lease.is_suspect() => WaitsFor::Membership,
            _ if away => WaitsFor::Backend,
            (Some(_), Stage::Backend) => WaitsFor::Answer,
            (None, _) => WaitsFor::Turn,
        }
    }
}

impl Observer {
    pub(crate) fn status(&self) -> Status {
        let now = Instant::now();
        let backend = self.gate.get().map_or_else(|| BackendState::Waiting { why: String::new() }, |gate| gate.state());
        let board = self.board();
        let partitions = board.partitions.values().map(|row| PartitionStatus {
            oldest_unfinished: row.oldest.map(|(offset, _)| offset),
            oldest_unfinished_age: row.oldest.map(|(_, since)| now.saturating_duration_since(since)),
            waits_for: row.waits_for(&backend),
            ..row.status.clone()
        });
        let partitions = partitions.collect();
        Status { backend, fault: board.fault.clone(), partitions }
    }

    pub(super) fn watch_gate(&self, gate: std::sync::Arc<Gate>) {
        // A second run with the same observer would be a defect; the first gate stays.
        let _ = self.gate.set(gate);
    }

    pub(super) fn fault(&self, fault: Option<String>) {
        self.board().fault = fault;
    }

    pub(super) fn add(&self, lease: &Lease, state: PartitionState) {
        let partition = name(lease);
        let status = PartitionStatus {
            partition: partition.clone(),
            position: None,
            finished: None,
            committed: None,
            high_watermark: None,
            in_flight: 0,
            oldest_unfinished: None,
            oldest_unfinished_age: None,
            waits_for: WaitsFor::Records,
            state,
        };
        let (lease, stage) = (lease.clone(), Stage::Backend);
        let row = Row { lease, status, oldest: None, auditing: 0, stage, fetched: None };
        self.board().partitions.insert(partition, row);
    }

    /// Does nothing if the partition was assigned anew meanwhile.
    pub(super) fn remove(&self, lease: &Lease) {
        let mut board = self.board();
        if board.partitions.get(&name(lease)).is_some_and(|row| row.lease.same(lease)) {
            board.partitions.remove(&name(lease));
        }
    }

    pub(super) fn update(&self, lease: &Lease, change: impl FnOnce(&mut PartitionStatus)) {
        self.with_row(lease, |row| change(&mut row.status));
    }

    pub(super) fn progress(
        &self,
        lease: &Lease,
        finished: Option<i64>,
        in_flight: usize,
        oldest: Option<(i64, Instant)>,
        auditing: usize,
    ) {
        self.with_row(lease, |row| {
            row.status.finished = finished;
            row.status.in_flight = in_flight;
            row.oldest = oldest;
            row.auditing = auditing;
        });
    }

    pub(super) fn stage(&self, lease: &Lease, stage: Stage) {
        self.with_row(lease, |row| row.stage = stage);
    }

    pub(super) fn fetched(&self, lease: &Lease, next_offset: i64, high_watermark: i64) {
        self.with_row(lease, |row| {
            row.fetched = Some(next_offset);
            row.status.high_watermark = Some(high_watermark);
        });
    }

    fn with_row(&self, lease: &Lease, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.board().partitions.get_mut(&name(lease)).filter(|row| row.lease.same(lease)) {
            change(row);
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(lease: &Lease) -> TopicPartition {
    TopicPartition { topic: lease.topic().clone(), partition: lease.partition() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_old_lease_says_does_not_touch_the_new_one() {
        let observer = Observer::default();
        let (old, new) = (Lease::new("t".into(), 0, 1), Lease::new("t".into(), 0, 2));
        observer.add(&old, PartitionState::Running);
        observer.add(&new, PartitionState::Running);
        observer.update(&old, |status| status.committed = Some(1));
        observer.remove(&old);
        let status = observer.status();
        assert_eq!(status.partitions.len(), 1);
        assert_eq!(status.partitions[0].committed, None);
        observer.remove(&new);
        assert!(observer.status().partitions.is_empty());
    }
}
