//! Follows finished records of one partition to their audit acknowledgement and on to the commit.
//!
//! It runs beside the lane's dispatch, which never waits for it. It does not decide what is finished. [`Finisher`] is its
//! main type: audit acknowledged, lease checked, offsets advanced, commit.

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use protocol::consumer::{CommitError, CommitOffset, Lease};
use tokio::{sync::mpsc, time::Instant};

use super::{
    observer::{Observer, count},
    prefix::Prefix,
    source::Commit,
};
use crate::audit::{Ack, NotWritten};

/// Delay before a commit that failed is tried again.
const COMMIT_RETRY: Duration = Duration::from_secs(1);

/// What dispatch tells.
pub(crate) enum Step {
    /// Offsets and leader epochs of records that will be processed.
    Taken(Vec<(i64, i32)>),
    /// Every record below was taken.
    Covered(i64, i32),
    /// All of the former log is settled; what follows is of another one, after so many rewinds of the lease. Nothing below
    /// `begins` is to be read in it.
    Rewound { rewinds: u32, begins: i64, epoch: i32 },
    /// The effect of these records is durable; with the acknowledgement of their audit entries, where there are some.
    Settled(Vec<(i64, Option<Ack>)>),
}

/// The second half of a lane.
pub(crate) struct Finisher<C> {
    pub(crate) lease: Lease,
    pub(crate) steps: mpsc::Receiver<Step>,
    pub(crate) committer: C,
    pub(crate) observer: Arc<Observer>,
}

/// What a commit was about (rewinds and offset), and its answer.
type Committing = BoxFuture<'static, (u32, i64, Result<(), CommitError>)>;

/// The log that is read.
#[derive(Default)]
struct Reading {
    /// How often the position went back before it.
    rewinds: u32,
    prefix: Prefix,
    committed: Option<i64>,
}

impl Reading {
    /// What is to be committed. Nothing, if the position went back since: a commit would speak of a log that is gone.
    fn due(&self, lease: &Lease) -> Option<(i64, i32)> {
        let more = |(done, _): &(i64, i32)| self.committed.is_none_or(|committed| committed < *done);
        self.prefix.done().filter(more).filter(|_| self.rewinds == lease.rewinds())
    }
}

impl<C: Commit> Finisher<C> {
    /// Runs until dispatch is done, all acknowledgements are in and the last commit is answered, or until the lease is
    /// lost: then nothing more is committed.
    pub(crate) async fn run(mut self) {
        let mut reading = Reading::default();
        let mut rewound = None;
        let mut acks = FuturesUnordered::new();
        let mut committing: Option<Committing> = None;
        let mut not_before: Option<Instant> = None;
        let mut open = true;
        let lease = self.lease.clone();
        loop {
            if let Some((rewinds, begins, epoch)) = rewound.filter(|_| acks.is_empty()) {
                if reading.prefix.unfinished() > 0 {
                    // An audit entry was never written: nothing behind its record may be committed.
                    return;
                }
                reading = Reading { rewinds, ..Reading::default() };
                // The group's offset goes back as well, before anything of the new log is finished.
                reading.prefix.cover(begins, epoch);
                rewound = None;
                self.observer.update(&lease, |status| status.committed = None);
            }
            let due = reading.due(&lease);
            if committing.is_none() && not_before.is_none() {
                committing = due.map(|(offset, epoch)| self.commit(reading.rewinds, offset, epoch));
            }
            if !open && acks.is_empty() && committing.is_none() && due.is_none() {
                return;
            }
            tokio::select! {
                biased;
                () = lease.lost() => return,
                Some((rewinds, offset, answer)) = poll(&mut committing) => {
                    committing = None;
                    match answer {
                        // What it was about is gone.
                        _ if rewinds != lease.rewinds() || rewinds != reading.rewinds => {}
                        Ok(()) => {
                            reading.committed = Some(offset);
                            count(&self.observer.metrics.commits, 1);
                            self.observer.update(&lease, |status| status.committed = Some(offset));
                        }
                        Err(error) => {
                            not_before = Some(Instant::now() + COMMIT_RETRY);
                            count(&self.observer.metrics.commit_failures, 1);
                            tracing::warn!(
                                topic = %lease.topic(), partition = lease.partition(), offset, error = %error,
                                "the commit failed and is tried again"
                            );
                        }
                    }
                }
                () = wait_until(not_before) => not_before = None,
                Some(acknowledged) = acks.next() => settle_audited(&mut reading.prefix, acknowledged),
                // What is of another log waits until all of this one is audited.
                step = self.steps.recv(), if open && rewound.is_none() => match step {
                    Some(Step::Taken(offsets)) => {
                        let now = Instant::now();
                        for (offset, epoch) in offsets {
                            reading.prefix.take(offset, epoch, now);
                        }
                    }
                    Some(Step::Covered(end, epoch)) => reading.prefix.cover(end, epoch),
                    Some(Step::Settled(records)) => for (offset, ack) in records {
                        match ack {
                            None => reading.prefix.finish(offset),
                            Some(ack) => acks.push(async move { (offset, ack.await) }),
                        }
                    },
                    Some(Step::Rewound { rewinds, begins, epoch }) => rewound = Some((rewinds, begins, epoch)),
                    None => open = false,
                },
            }
            let prefix = &reading.prefix;
            let finished = prefix.done().map(|(done, _)| done);
            self.observer.progress(&lease, finished, prefix.unfinished(), prefix.oldest(), acks.len());
        }
    }

    fn commit(&self, rewinds: u32, offset: i64, leader_epoch: i32) -> Committing {
        let lease = self.lease.clone();
        let request = CommitOffset { lease, rewinds, offset, leader_epoch, metadata: String::new() };
        let committer = self.committer.clone();
        async move { (rewinds, offset, committer.commit(request).await) }.boxed()
    }
}

fn settle_audited(prefix: &mut Prefix, (offset, acknowledged): (i64, Result<(), NotWritten>)) {
    // An entry that was never written leaves its record unfinished: it will be delivered and audited again.
    if acknowledged.is_ok() {
        prefix.finish(offset);
    }
}

/// Completes with the commit's answer; without one under way it disables its branch.
async fn poll(committing: &mut Option<Committing>) -> Option<(u32, i64, Result<(), CommitError>)> {
    match committing {
        Some(committing) => Some(committing.await),
        None => None,
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
