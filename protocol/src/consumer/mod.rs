//! The consumer: a group member that heartbeats by itself, and one stream of records per assigned partition.
//!
//! It does not decode keys or values and does not know who processes them. [`Consumer`] is its main type.

pub mod lease;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use lease::{Lease, LeaseState};

use crate::{budget::Reservation, error_code::ErrorCode, record::Records};

/// `auto.offset.reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    Latest,
    /// Report a fault instead.
    None,
}

/// `isolation.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// `partition.assignment.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    Range,
    CooperativeSticky,
}

/// Kafka's consumer settings, typed. Defaults are the sidecar's.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// `group.id`.
    pub group_id: String,
    /// Topics subscribed to.
    pub topics: Vec<String>,
    /// `auto.offset.reset`, earliest.
    pub offset_reset: OffsetReset,
    /// `isolation.level`, read_committed.
    pub isolation: Isolation,
    /// `partition.assignment.strategy`, [cooperative-sticky, range] in order of preference.
    pub assignors: Vec<Assignor>,
    /// `session.timeout.ms`, 45 s.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`, 3 s.
    pub heartbeat_interval: Duration,
    /// How long a revoked partition may drain; the rebalance timeout sent is this plus 10 s.
    pub drain_timeout: Duration,
    /// `fetch.max.bytes`, 102400.
    pub fetch_max_bytes: usize,
    /// `max.partition.fetch.bytes`, 102400.
    pub max_partition_fetch_bytes: usize,
    /// `fetch.min.bytes`, 1.
    pub fetch_min_bytes: usize,
    /// `fetch.max.wait.ms`, 500 ms.
    pub fetch_max_wait: Duration,
    /// `request.timeout.ms`, 30 s.
    pub request_timeout: Duration,
    /// `check.crcs`, true.
    pub check_crcs: bool,
    /// `client.rack`.
    pub rack: Option<String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: String::new(),
            topics: Vec::new(),
            offset_reset: OffsetReset::Earliest,
            isolation: Isolation::ReadCommitted,
            assignors: vec![Assignor::CooperativeSticky, Assignor::Range],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(25),
            fetch_max_bytes: 102_400,
            max_partition_fetch_bytes: 102_400,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            request_timeout: Duration::from_secs(30),
            check_crcs: true,
            rack: None,
        }
    }
}

/// What the group and the fetchers tell the owner of a [`Consumer`].
pub enum Event {
    /// These partitions are ours now; each stream starts at its committed offset (or where the reset policy says).
    Assigned(Vec<PartitionStream>),
    /// These partitions are to be given up: finish what is in flight, commit, drop the [`Revocation`].
    Revoking(Revocation),
    /// These partitions are gone already: cancel, do not commit, do not dead-letter.
    Lost(Vec<Lease>),
    /// Something that needs a human or a policy; the consumer goes on by itself where it can.
    Fault(Fault),
}

/// Partitions that are being taken from us. Dropping it (or [`Revocation::released`]) tells the group task that they are drained.
pub struct Revocation {
    pub leases: Vec<Lease>,
    /// After this the partitions are released whatever is still in flight.
    pub deadline: Instant,
    /// Closed when this value is dropped.
    pub(crate) _released: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Revocation {
    pub fn released(self) {}
}

/// A fault of one partition, or (`partition: None`) of the group or the topic.
#[derive(Debug, Clone)]
pub struct Fault {
    pub topic: Option<Arc<str>>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub kind: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The bytes at `offset` are no valid batch (CRC, magic 0 or 1, framing, codec): refetching gives the same. The partition stands.
    CorruptBatch(String),
    /// `auto.offset.reset=none` and no valid position.
    NoPosition,
    /// The log was truncated below our position (KIP-320); where we were, and where the log now ends.
    Truncated { position: i64, end: i64 },
    /// The batch is beyond the byte budget. The partition stands.
    BeyondBudget { size: usize, limit: usize },
    /// A broker refuses us, e.g. TOPIC_AUTHORIZATION_FAILED; retried with a long back-off.
    Broker { code: ErrorCode, message: String },
    /// The group cannot be joined with these settings; retried with a long back-off.
    Group { code: ErrorCode, message: String },
}

/// Records of one partition, in order, of one batch as the broker stored it.
pub struct FetchedRecords {
    pub lease: Lease,
    /// The decompressed batch. Iterate with [`FetchedRecords::iter`], which skips records below the position.
    pub records: Records,
    /// The first offset that is due: records below it were consumed already.
    pub position: i64,
    /// The offset after this batch, also where compaction removed its last records.
    pub next_offset: i64,
    /// The partition leader epoch of this batch, for commits (KIP-320).
    pub leader_epoch: i32,
    /// The end of what a reader with our isolation level can see, as of this fetch.
    pub high_watermark: i64,
    pub(crate) _memory: Reservation,
}

/// The records of one assigned partition. Reading it moves nothing in Kafka; only [`Consumer::commit`] does.
pub struct PartitionStream {
    lease: Lease,
}

impl PartitionStream {
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The next records, in order; None once the partition was revoked, lost or the consumer closed.
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<FetchedRecords> {
        unimplemented!("contract stub")
    }

    /// Fetches from `offset` on; what was fetched before is dropped. Cancel-safe.
    pub fn seek(&mut self, _offset: i64) {
        unimplemented!("contract stub")
    }

    /// Stops and restarts fetching; what was fetched already stays and is still handed out by `next`.
    pub fn pause(&self) {
        unimplemented!("contract stub")
    }

    pub fn resume(&self) {
        unimplemented!("contract stub")
    }
}

/// One offset to commit: the offset after the last finished record.
#[derive(Debug, Clone)]
pub struct CommitOffset {
    pub lease: Lease,
    pub offset: i64,
    /// Of the last finished record; -1 if unknown.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the commit failed: {reason}")]
pub struct CommitError {
    pub code: Option<ErrorCode>,
    pub reason: String,
}

/// A member of a group. Its membership lives in a task of its own, whatever the owner of this value does.
pub struct Consumer(());

impl Consumer {
    /// The next event; None after [`Consumer::close`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        unimplemented!("contract stub")
    }

    /// A handle for commits that can be cloned into the lanes.
    pub fn committer(&self) -> Committer {
        unimplemented!("contract stub")
    }

    /// Gives everything up as a revocation of all partitions would (the owner sees `Revoking`), then leaves the group.
    /// `next` keeps returning events until then. Idempotent.
    pub fn close(&self) {
        unimplemented!("contract stub")
    }
}

/// Commits offsets: in order, one request in flight per group, later offsets of a waiting commit replacing earlier ones.
#[derive(Clone)]
pub struct Committer(());

impl Committer {
    /// Commits and waits for the answer. Offsets of leases that are Lost are left out. Dropping the future stops waiting;
    /// the commit itself may still happen.
    pub async fn commit(&self, _offsets: Vec<CommitOffset>) -> Result<(), CommitError> {
        unimplemented!("contract stub")
    }
}
