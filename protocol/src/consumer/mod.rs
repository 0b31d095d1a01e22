//! The consumer: a group member that heartbeats by itself, and one stream of records per assigned partition.
//!
//! It does not decode keys or values and does not know who processes them. [`Consumer`] is its main type.

mod fetch;
mod fetcher;
pub(crate) mod group;
pub mod lease;
pub(crate) mod lookup;
mod position;
mod session;
mod stream;
mod walk;

use std::{sync::Arc, time::Duration};

use fetcher::{Command, Fetcher, NewPartition};
use group::{AssignedPartition, GroupEvent, GroupHandle};
pub use lease::{Lease, LeaseState};
pub use stream::PartitionStream;
use stream::{Back, Feed};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{Budget, Reservation},
    cluster::Cluster,
    error_code::ErrorCode,
    record::{Place, RecordView, Records},
};

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
    /// `partition.assignment.strategy`, [cooperative-sticky]; a list with range in it is eager as a whole, as in Java.
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
            assignors: vec![Assignor::CooperativeSticky],
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

/// What fetched records may take: as they came from the broker, and unpacked. Two budgets, since who holds a packed batch
/// waits for room to unpack it.
#[derive(Debug, Clone)]
pub struct FetchMemory {
    pub packed: Budget,
    pub unpacked: Budget,
}

impl FetchMemory {
    /// The most that one batch may become; one beyond its budget goes alone.
    fn largest(&self) -> usize {
        self.packed.limit().saturating_add(self.unpacked.limit())
    }
}

/// As much as the budget in two halves.
impl From<Budget> for FetchMemory {
    fn from(budget: Budget) -> Self {
        let packed = budget.limit() / 2;
        Self { packed: Budget::new(packed), unpacked: Budget::new(budget.limit() - packed) }
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

/// Partitions that are being taken from us. Dropping it tells the group task that they are drained.
#[derive(Debug)]
pub struct Revocation {
    pub leases: Vec<Lease>,
    /// After this the partitions are released whatever is still in flight.
    pub deadline: Instant,
    released: Option<oneshot::Sender<()>>,
}

impl Revocation {
    /// Everything is drained and committed: the partitions may go.
    pub fn released(mut self) {
        if let Some(released) = self.released.take() {
            let _ = released.send(());
        }
    }
}

/// A fault of one partition, or (`partition: None`) of the group or the topic.
#[derive(Debug, Clone)]
pub struct Fault {
    pub topic: Option<Arc<str>>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub kind: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The bytes at `offset` are no valid batch (CRC, magic 0 or 1, framing, codec): refetching gives the same.
    #[error("the batch cannot be read, the partition stands: {0}")]
    CorruptBatch(String),
    /// `auto.offset.reset=none` and no valid position.
    #[error("there is no valid position and auto.offset.reset is none: the partition stands")]
    NoPosition,
    /// The log was truncated below our position (KIP-320); where we were, and where the log now ends.
    #[error("the log was truncated from {position} to {end} (unclean leader election?): going on at {end}")]
    Truncated { position: i64, end: i64 },
    /// The batch is beyond the byte budget.
    #[error("a batch of at least {size} bytes is beyond the memory budget of {limit}: the partition stands")]
    BeyondBudget { size: usize, limit: usize },
    /// A broker refuses us, e.g. TOPIC_AUTHORIZATION_FAILED; retried with a long back-off.
    #[error("{message}: {code}")]
    Broker { code: ErrorCode, message: String },
    /// The group cannot be joined with these settings; retried with a long back-off.
    #[error("{message}: {code}")]
    Group { code: ErrorCode, message: String },
}

impl FaultKind {
    /// Whether nothing of this partition moves until somebody does something.
    pub fn stands(&self) -> bool {
        matches!(self, Self::CorruptBatch(_) | Self::NoPosition | Self::BeyondBudget { .. })
    }
}

/// Records of one partition, in order, of one batch as the broker stored it.
pub struct FetchedRecords {
    pub lease: Lease,
    /// None where there is nothing to see (transaction markers, aborted batches) and only the position moves.
    records: Option<Records>,
    /// The first offset that is due: records below it were consumed already.
    pub position: i64,
    /// The offset after this batch, also where compaction removed its last records.
    pub next_offset: i64,
    /// The partition leader epoch of this batch, for commits (KIP-320).
    pub leader_epoch: i32,
    /// The end of what a reader with our isolation level can see, as of this fetch.
    pub high_watermark: i64,
    /// How often the position went back (the log was truncated or made anew, or a seek) before this was fetched. The first
    /// of a new number has no records and tells by its position where reading goes on. Offsets of different numbers have
    /// nothing to do with each other.
    pub rewinds: u32,
    _memory: Option<Arc<Reservation>>,
}

impl FetchedRecords {
    /// The records from the position on, in order, borrowed from the batch.
    pub fn iter(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.iter_from(Place::default()).map(|(_, record)| record)
    }

    /// What to commit once all of it is finished.
    pub fn end(&self) -> CommitOffset {
        CommitOffset {
            lease: self.lease.clone(),
            rewinds: self.rewinds,
            offset: self.next_offset,
            leader_epoch: self.leader_epoch,
            metadata: String::new(),
        }
    }

    /// The same from a place on that this told before; each record with its place.
    pub fn iter_from(&self, place: Place) -> impl Iterator<Item = (Place, RecordView<'_>)> {
        let mut records = self.records.as_ref().map(|records| records.iter_from(place));
        let next = move || {
            let records = records.as_mut()?;
            let place = records.place();
            // All of them were walked when the batch was unpacked: none can fail now.
            Some((place, records.next()?.ok()?))
        };
        std::iter::from_fn(next).filter(|(_, record)| record.offset >= self.position)
    }
}

/// One offset to commit: the offset after the last finished record.
#[derive(Debug, Clone)]
pub struct CommitOffset {
    pub lease: Lease,
    /// Of the records that it is about, see [`FetchedRecords::rewinds`].
    pub rewinds: u32,
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
pub struct Consumer {
    group: GroupHandle,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    faults: mpsc::UnboundedReceiver<Fault>,
    back: Back,
    fetching: CancellationToken,
}

impl Consumer {
    /// Joins the group and starts fetching what it assigns. `slot` numbers the consumers of one client. Tasks end with
    /// [`Consumer::close`], on drop, or with the cluster.
    pub(crate) fn start(cluster: &Cluster, config: ConsumerConfig, memory: FetchMemory, slot: u32) -> Self {
        let fetching = cluster.cancel_token().child_token();
        let (commands, orders) = mpsc::unbounded_channel();
        let (fault_sender, faults) = mpsc::unbounded_channel();
        let wake = Arc::new(Notify::new());
        cluster.watch_topics(&config.topics);
        let packed = memory.packed.clone();
        let fetcher =
            Fetcher::new(cluster.clone(), config.clone(), packed, slot, orders, wake.clone(), fault_sender.clone());
        // However the fetcher ends, by a panic too: a member that fetches nothing would keep its partitions for nothing.
        let ended = fetching.clone().drop_guard();
        let cancelled = fetching.clone();
        cluster.tracker().spawn(async move {
            let _ended = ended;
            fetcher.run(cancelled).await;
        });
        let (group, events) = group::spawn(cluster.clone(), &config, slot, cluster.cancel_token().child_token());
        Self { group, events, faults, back: Back { commands, wake, faults: fault_sender, memory }, fetching }
    }

    /// The next event; None once the group was left after [`Consumer::close`], or when one of the consumer's tasks died: then
    /// there is nothing to do but to drop it. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            event = self.events.recv() => Some(self.on_group_event(event?)),
            () = self.fetching.cancelled() => None,
            Some(fault) = self.faults.recv() => Some(Event::Fault(fault)),
        }
    }

    /// A handle for commits that can be cloned into the lanes.
    pub fn committer(&self) -> Committer {
        Committer(self.group.clone())
    }

    /// Gives everything up as a revocation of all partitions would (the owner sees `Revoking`), then leaves the group.
    /// `next` keeps returning events until then. Idempotent.
    pub fn close(&self) {
        self.group.leave();
    }

    fn on_group_event(&mut self, event: GroupEvent) -> Event {
        match event {
            GroupEvent::Assigned(assigned) => {
                let (new, streams) = assigned.into_iter().map(|partition| self.open(partition)).unzip();
                let _ = self.back.commands.send(Command::Add(new));
                Event::Assigned(streams)
            }
            GroupEvent::Revoking { leases, deadline, released } => {
                let _ = self.back.commands.send(Command::Remove(leases.clone()));
                Event::Revoking(Revocation { leases, deadline, released: Some(released) })
            }
            GroupEvent::Lost(leases) => {
                let _ = self.back.commands.send(Command::Remove(leases.clone()));
                Event::Lost(leases)
            }
            GroupEvent::Fault { code, message } => {
                let kind = FaultKind::Group { code, message };
                Event::Fault(Fault { topic: None, partition: None, offset: None, kind })
            }
        }
    }

    /// The two ends of a partition: the fetcher's and the owner's.
    fn open(&self, assigned: AssignedPartition) -> (NewPartition, PartitionStream) {
        let AssignedPartition { lease, committed } = assigned;
        let (chunks, receiver) = mpsc::unbounded_channel();
        let feed = Arc::new(Feed::default());
        let new = NewPartition { lease: lease.clone(), committed, feed: feed.clone(), chunks };
        (new, PartitionStream::new(lease, receiver, feed, self.back.clone()))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.group.leave();
        self.fetching.cancel();
    }
}

/// Commits offsets: in order, one request in flight per group, later offsets of a waiting commit replacing earlier ones.
#[derive(Clone)]
pub struct Committer(GroupHandle);

impl Committer {
    /// Commits and waits for the answer. Offsets of leases that are Lost, of before the position went back, or lower than
    /// the last of the same lease are refused; the error names the first, and the others are committed all the same.
    /// Dropping the future stops waiting; the commit itself may still happen.
    pub async fn commit(&self, offsets: Vec<CommitOffset>) -> Result<(), CommitError> {
        self.0.commit(offsets).await
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        cluster::ClusterConfig,
        connection::{BoxFuture, Connector, Stream},
    };

    /// No broker ever answers.
    struct Nowhere;

    impl Connector for Nowhere {
        fn connect(&self, _: &str, _: u16) -> BoxFuture<std::io::Result<Box<dyn Stream>>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_fetcher_died_ends_instead_of_keeping_its_partitions_for_nothing() {
        let config = ClusterConfig::new(vec![("nowhere".to_owned(), 9092)]);
        let tracker = TaskTracker::new();
        let cluster = Cluster::start(config, Arc::new(Nowhere), tracker, CancellationToken::new());
        let group = ConsumerConfig { group_id: "g".to_owned(), ..ConsumerConfig::default() };
        let mut consumer = Consumer::start(&cluster, group, Budget::new(2).into(), 0);
        let waited = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await;
        assert!(waited.is_err(), "it lives");
        // The fetcher ends when nobody can tell it anything any more, which is as near to a panic as it comes here.
        let (unheard, _) = mpsc::unbounded_channel();
        consumer.back.commands = unheard;
        let ended = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await;
        assert!(matches!(ended, Ok(None)));
    }
}
