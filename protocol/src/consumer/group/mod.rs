//! Membership of a classic consumer group: join, sync, heartbeat, commit, hand over, leave.
//!
//! A task of its own with timers of its own: it never waits for whoever processes records, so a slow backend costs no
//! rebalance. It creates the leases and knows nothing of fetching.
//!
//! [`classic::Membership`] decides, as a pure machine; [`driver::Driver`] does what it says.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

mod assignor;
mod classic;
mod commits;
mod driver;
mod link;
mod requests;
mod table;

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{CommitError, CommitOffset, ConsumerConfig, Lease};
use crate::{cluster::Cluster, error_code::ErrorCode};

/// So many commits may wait for the group task to look at them; whoever commits more waits.
const MAX_ORDERS: usize = 256;

/// What the group tells. The channel is unbounded, because the group task waits for nobody; there are never more events in
/// it than rounds of rebalance, each of which waits for the last one's hand-over, and faults, each followed by seconds of
/// rest.
#[derive(Debug)]
pub(crate) enum GroupEvent {
    /// These are ours now.
    Assigned(Vec<AssignedPartition>),
    /// These are to be given up. `released` is to be sent or dropped when they are drained and their last commits queued.
    Revoking { leases: Vec<Lease>, deadline: Instant, released: oneshot::Sender<()> },
    /// These are gone.
    Lost(Vec<Lease>),
    /// Something that needs a human; the group is tried again all the same.
    Fault { code: ErrorCode, message: String },
}

/// A partition that is ours, and where it was committed (offset and leader epoch).
#[derive(Debug)]
pub(crate) struct AssignedPartition {
    pub(crate) lease: Lease,
    pub(crate) committed: Option<(i64, i32)>,
}

/// Offsets to commit, and who waits for that.
struct Order {
    offsets: Vec<CommitOffset>,
    done: oneshot::Sender<Result<(), CommitError>>,
}

/// A handle on the group task.
#[derive(Clone)]
pub(crate) struct GroupHandle {
    orders: mpsc::Sender<Order>,
    leaving: CancellationToken,
}

impl GroupHandle {
    /// Commits and waits for the answer; an error names the first partition that could not be committed, while the others
    /// were. An offset lower than one that was committed under the same lease, or of before the position went back, is
    /// refused. While the group rebalances the commit waits, and goes out in the new generation for what is still ours.
    ///
    /// Dropping the future stops waiting; the commit itself may still happen.
    pub(crate) async fn commit(&self, offsets: Vec<CommitOffset>) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        let gone = || CommitError { code: None, reason: "the group was left".to_owned() };
        self.orders.send(Order { offsets, done }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Revokes everything, leaves the group, and then closes the event channel. Takes the drain timeout and about ten
    /// seconds at most. Idempotent.
    pub(crate) fn leave(&self) {
        self.leaving.cancel();
    }
}

/// Starts the membership as a task of the cluster's tracker. `slot` numbers the groups of one client, for sockets of their
/// own. The task ends once the group was left, which is also what it does when every handle or the event receiver is
/// dropped; `cancel` ends it at once, with every lease lost and nothing sent.
pub(crate) fn spawn(
    cluster: Cluster,
    config: &ConsumerConfig,
    slot: u32,
    cancel: CancellationToken,
) -> (GroupHandle, mpsc::UnboundedReceiver<GroupEvent>) {
    let (orders, inbox) = mpsc::channel(MAX_ORDERS);
    let (events, outbox) = mpsc::unbounded_channel();
    let leaving = CancellationToken::new();
    let settings = cluster.config();
    let backoff = (settings.retry_backoff, settings.retry_backoff_max);
    let link = link::ClusterLink::new(cluster.clone(), config.clone(), slot);
    let driver = driver::Driver::new(link, config.clone(), backoff, inbox, leaving.clone(), events);
    cluster.tracker().spawn(driver.run(cancel));
    (GroupHandle { orders, leaving }, outbox)
}
