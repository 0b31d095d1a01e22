//! Membership of a classic consumer group: join, sync, heartbeat, commit, hand over, leave.
//!
//! A task of its own with timers of its own: it never waits for whoever processes records, so a slow backend costs no
//! rebalance. It creates the leases and knows nothing of fetching.

mod assignor;
mod driver;
mod requests;
mod table;

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{CommitError, CommitOffset, ConsumerConfig, Lease};
use crate::{cluster::Cluster, error_code::ErrorCode};

/// What the group tells. The channel is unbounded, because the group task waits for nobody; there are never more events in
/// it than rounds of rebalance, each of which waits for the last one's hand-over.
pub(crate) enum GroupEvent {
    Assigned(Vec<AssignedPartition>),
    /// `released` is to be sent or dropped when the partitions are drained.
    Revoking {
        leases: Vec<Lease>,
        deadline: Instant,
        released: oneshot::Sender<()>,
    },
    Lost(Vec<Lease>),
    Fault {
        code: ErrorCode,
        message: String,
    },
}

/// A partition that is ours, and where it was committed (offset and leader epoch).
pub(crate) struct AssignedPartition {
    pub(crate) lease: Lease,
    pub(crate) committed: Option<(i64, i32)>,
}

enum Order {
    Commit { offsets: Vec<CommitOffset>, done: oneshot::Sender<Result<(), CommitError>> },
    Leave,
}

/// A handle on the group task.
#[derive(Clone)]
pub(crate) struct GroupHandle {
    orders: mpsc::UnboundedSender<Order>,
}

impl GroupHandle {
    pub(crate) async fn commit(&self, offsets: Vec<CommitOffset>) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        let gone = || CommitError { code: None, reason: "the group was left".to_owned() };
        self.orders.send(Order::Commit { offsets, done }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Revokes everything, leaves the group, and then closes the event channel.
    pub(crate) fn leave(&self) {
        let _ = self.orders.send(Order::Leave);
    }
}

/// Starts the membership. `slot` numbers the groups of one client, for sockets of their own.
pub(crate) fn spawn(
    cluster: Cluster,
    config: &ConsumerConfig,
    slot: u32,
    cancel: CancellationToken,
) -> (GroupHandle, mpsc::UnboundedReceiver<GroupEvent>) {
    let (orders, inbox) = mpsc::unbounded_channel();
    let (events, outbox) = mpsc::unbounded_channel();
    let driver = driver::Driver::new(cluster.clone(), config.clone(), slot, inbox, events);
    cluster.tracker().spawn(driver.run(cancel));
    (GroupHandle { orders }, outbox)
}
