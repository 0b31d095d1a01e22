//! The reactive flow: records of assigned partitions go to the backend, its verdicts to dead letters, audit and commits.
//!
//! It knows nothing of HTTP or of how a broker is reached. [`run`] is the door: one lane per partition, each of two halves,
//! dispatch ([`lane`]) and what follows it ([`finisher`]); what an answer means is decided in [`settle`]. A revoke and a stop are one
//! path: no new dispatch, what is in flight settles until the deadline, commit, release.

mod apply;
mod body;
mod finisher;
mod gate;
mod lane;
mod observer;
mod prefix;
#[cfg(test)]
mod script;
mod settle;
mod source;
mod stall;
mod work;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub(crate) use body::Formats;
use finisher::Finisher;
pub(crate) use gate::BackendState;
use gate::Gate;
use lane::Lane;
#[cfg(test)]
pub(crate) use observer::PartitionStatus;
use observer::count;
pub(crate) use observer::{Observer, PartitionState, Status};
use protocol::{
    budget::Budget,
    consumer::{Fault, FaultKind, Lease},
};
use settle::Policy;
pub(crate) use source::Membership;
use source::{Change, Handover, Stream};
#[cfg(test)]
pub(crate) use stall::WaitsFor;
use stall::{Report, Stalls};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    audit::Audit,
    backend::BackendCall,
    config::settings::{self, BadRecordPolicy},
    dead_letter::DeadLetters,
};

/// Steps between the halves of a lane; dispatch waits beyond that.
const STEPS: usize = 64;
/// Between looks at a backend that does not accept connections yet: this, doubling up to [`START_DELAY_MAX`].
const START_DELAY: Duration = Duration::from_millis(100);
const START_DELAY_MAX: Duration = Duration::from_secs(2);

/// What the flow is made of.
pub(crate) struct ReactiveParts<M> {
    /// The group member whose partitions are processed; it is closed by the flow.
    pub(crate) consumer: M,
    pub(crate) backend: Arc<dyn BackendCall>,
    /// None: `deadLetterEnabled: false`.
    pub(crate) dead_letters: Option<Arc<DeadLetters>>,
    /// None: `auditEnabled: false`.
    pub(crate) audit: Option<Audit>,
    pub(crate) settings: settings::Consumer,
    /// `health.downstreamEnabled`: fetching also waits for the health path.
    pub(crate) ask_health: bool,
    /// What requests under way may take, and what is kept of their records beside what was fetched.
    pub(crate) memory: Budget,
    pub(crate) observer: Arc<Observer>,
    /// Cancelled to stop: drain, commit, leave the group.
    pub(crate) stop: CancellationToken,
}

/// Why the flow ended other than by its stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A defect; the partition's records are delivered again by whoever gets it next.
    #[error("a lane ended by itself")]
    LaneDied(#[source] tokio::task::JoinError),
    /// One of its tasks died (its panic is in the log), or the group was left by somebody else.
    #[error("the group member ended by itself")]
    Left,
}

/// What all lanes share.
struct Shared {
    backend: Arc<dyn BackendCall>,
    dead_letters: Option<Arc<DeadLetters>>,
    audit: Option<Audit>,
    formats: Formats,
    dispatch: settings::Dispatch,
    policy: Policy,
    bad_records: BadRecordPolicy,
    ask_health: bool,
    gate: Arc<Gate>,
    memory: Budget,
    /// One per request in flight.
    permits: Semaphore,
    /// Answers of the backend that were about records.
    answers: AtomicU64,
    /// Calls that found nobody to connect to.
    unreachable: AtomicU64,
    /// Whether the backend has accepted a connection.
    ready: watch::Sender<bool>,
    observer: Arc<Observer>,
}

/// Runs until `stop` is cancelled and everything is drained and committed, or released at the deadline of the drain.
///
/// Dropping the future abandons what is in flight; nothing of it is committed.
///
/// # Errors
/// A lane panicked (the other partitions are drained first), or the group member ended by itself.
pub(crate) async fn run<M: Membership>(parts: ReactiveParts<M>) -> Result<(), RunError> {
    let ReactiveParts { consumer, backend, dead_letters, audit, settings, ask_health, memory, observer, stop } = parts;
    let dispatch = settings.dispatch;
    let gate = Arc::new(Gate::new(dispatch.retry_delay, dispatch.retry_max_delay));
    observer.watch_gate(gate.clone());
    let shared = Arc::new(Shared {
        backend,
        dead_letters,
        audit,
        formats: Formats { key: settings.key_format, value: settings.value_format },
        policy: Policy { max_retries: dispatch.max_retries, rollback_threshold: dispatch.rollback_threshold },
        permits: Semaphore::new(dispatch.max_concurrency.clamp(1, Semaphore::MAX_PERMITS)),
        dispatch,
        bad_records: settings.bad_record_policy,
        ask_health,
        gate,
        memory,
        answers: AtomicU64::new(0),
        unreachable: AtomicU64::new(0),
        ready: watch::Sender::new(false),
        observer,
    });
    Flow { consumer, shared, lanes: JoinSet::new(), live: Vec::new(), handovers: Vec::new() }.run(stop).await
}

/// The task that owns the membership and the lanes.
struct Flow<M> {
    consumer: M,
    shared: Arc<Shared>,
    lanes: JoinSet<Lease>,
    live: Vec<Live>,
    handovers: Vec<Handover>,
}

struct Live {
    lease: Lease,
    standing: mpsc::UnboundedSender<i64>,
}

impl<M: Membership> Flow<M> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        let waiting = wait_for_backend(self.shared.clone());
        tokio::pin!(waiting);
        let mut ready = false;
        let mut closing = false;
        let (mut stalls, mut looks) = (Stalls::default(), tokio::time::interval(stall::LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outcome = Ok(());
        loop {
            let deadline = self.handovers.iter().map(|handover| handover.deadline).min();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !closing => {
                    closing = true;
                    self.consumer.close();
                }
                Some(ended) = self.lanes.join_next() => match ended {
                    Ok(lease) => self.ended(&lease),
                    Err(error) => {
                        // Whose lane it was is not known: all partitions are given up, and the process with them.
                        tracing::error!(error = %error, "a lane ended by itself: the flow stops");
                        outcome = Err(RunError::LaneDied(error));
                        closing = true;
                        self.consumer.close();
                    }
                },
                change = self.consumer.next() => match change {
                    Some(change) => self.on_change(change),
                    None => break,
                },
                () = sleep_until(deadline) => self.release_expired(),
                () = &mut waiting, if !ready => ready = true,
                now = looks.tick() => stalls.look(&self.shared.observer.status(), now).iter().for_each(Report::log),
            }
        }
        // The group was left: whatever is still running has lost its lease, or loses it now.
        for live in &self.live {
            live.lease.lose();
        }
        while let Some(ended) = self.lanes.join_next().await {
            match ended {
                Ok(lease) => self.ended(&lease),
                Err(error) if outcome.is_ok() => outcome = Err(RunError::LaneDied(error)),
                Err(_) => {}
            }
        }
        if closing { outcome } else { outcome.and(Err(RunError::Left)) }
    }

    fn on_change(&mut self, change: Change<M::Stream>) {
        match change {
            Change::Assigned(streams) => {
                self.shared.observer.fault(None);
                tracing::info!(partitions = names(streams.iter().map(Stream::lease)), "partitions assigned");
                for stream in streams {
                    self.start(stream);
                }
            }
            Change::Revoking(handover) => {
                let partitions = names(handover.leases.iter());
                tracing::info!(partitions, "partitions are to be given up: what is in flight finishes first");
                for lease in &handover.leases {
                    self.shared.observer.update(lease, |status| status.state = PartitionState::Revoking);
                }
                self.handovers.push(handover);
                self.release_drained();
            }
            Change::Lost(leases) => {
                count(&self.shared.observer.metrics.partitions_lost, leases.len());
                for lease in leases {
                    tracing::warn!(
                        topic = %lease.topic(), partition = lease.partition(), generation = lease.generation(),
                        "the partition was lost; what is in flight is dropped and delivered again by its new owner"
                    );
                }
            }
            Change::Fault(fault) => self.on_fault(&fault),
        }
    }

    fn start(&mut self, stream: M::Stream) {
        let lease = stream.lease().clone();
        let state = if *self.shared.ready.borrow() { PartitionState::Running } else { PartitionState::Waiting };
        self.shared.observer.add(&lease, state);
        let (steps, received) = mpsc::channel(STEPS);
        let (standing, stands) = mpsc::unbounded_channel();
        let finisher = Finisher {
            lease: lease.clone(),
            steps: received,
            committer: self.consumer.committer(),
            observer: self.shared.observer.clone(),
        };
        let lane = Lane::new(stream, self.shared.clone(), steps, stands);
        let span = tracing::info_span!("lane", topic = %lease.topic(), partition = lease.partition());
        self.live.push(Live { lease: lease.clone(), standing });
        let task = async move {
            tokio::join!(lane.run(), finisher.run());
            lease
        };
        self.lanes.spawn(task.instrument(span));
    }

    fn ended(&mut self, lease: &Lease) {
        self.live.retain(|live| !live.lease.same(lease));
        self.shared.observer.remove(lease);
        self.release_drained();
    }

    /// Gives back the partitions of which no lane is left.
    fn release_drained(&mut self) {
        let live = &self.live;
        let drained = |handover: &mut Handover| {
            !handover.leases.iter().any(|lease| live.iter().any(|live| live.lease.same(lease)))
        };
        for handover in self.handovers.extract_if(.., drained) {
            (handover.release)();
        }
    }

    /// Gives back what was not drained in time: its lanes drop what is in flight.
    fn release_expired(&mut self) {
        let now = Instant::now();
        for handover in self.handovers.extract_if(.., |handover| handover.deadline <= now) {
            for lease in &handover.leases {
                if self.live.iter().any(|live| live.lease.same(lease)) {
                    tracing::warn!(
                        topic = %lease.topic(), partition = lease.partition(),
                        "the partition could not be drained in time; what is in flight will be delivered again"
                    );
                }
                lease.lose();
            }
            (handover.release)();
        }
    }

    fn on_fault(&mut self, fault: &Fault) {
        count(&self.shared.observer.metrics.faults, 1);
        let Fault { topic, partition, offset, kind } = fault;
        let topic = topic.as_deref().unwrap_or_default();
        tracing::error!(topic, partition, offset, "{kind}");
        let live = self.live.iter().find(|live| {
            **live.lease.topic() == *topic && Some(live.lease.partition()) == *partition && live.lease.is_active()
        });
        match (live, kind) {
            (Some(live), kind) if kind.stands() => {
                let state = PartitionState::Standing { offset: *offset, why: kind.to_string() };
                self.shared.observer.update(&live.lease, |status| status.state = state);
                if let Some(offset) = offset.filter(|offset| *offset >= 0) {
                    // A lane that has just ended looks no more.
                    let _ = live.standing.send(offset);
                }
            }
            (_, FaultKind::Broker { .. } | FaultKind::Group { .. }) => {
                let place = if topic.is_empty() { String::new() } else { format!("{topic}: ") };
                self.shared.observer.fault(Some(format!("{place}{kind}")));
            }
            _ => {}
        }
    }
}

fn names<'a>(leases: impl Iterator<Item = &'a Lease>) -> String {
    let names: Vec<String> = leases.map(|lease| format!("{}-{}", lease.topic(), lease.partition())).collect();
    names.join(", ")
}

/// Opens the lanes once the backend accepts a connection (and, if asked for, answers its health path).
async fn wait_for_backend(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let found = match shared.backend.accepts().await {
            Ok(()) if shared.ask_health => shared.backend.healthy().await,
            other => other,
        };
        let Err(reason) = found else { break };
        if failures == 0 {
            tracing::warn!(reason, "waiting for the backend to accept connections");
        }
        failures += 1;
        shared.gate.waiting(&reason);
        tokio::time::sleep_until(started + settle::delay(failures, START_DELAY, START_DELAY_MAX)).await;
    }
    tracing::info!("the backend accepts connections");
    shared.gate.answered();
    shared.ready.send_replace(true);
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
