//! The task of a group member: it sends what [`Membership`] wants sent and tells it what comes back.
//!
//! Nothing is decided here. All requests in flight are polled together, so that none stands in front of another, and all of
//! them end with the task.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{CommitError, ConsumerConfig},
    GroupEvent, Order,
    classic::{Action, CallId, Event, Membership, RevocationId},
    commits::WaiterId,
    link::{Answer, Failure, Link, NotFound},
};
use crate::{cluster::NodeId, connection::BoxFuture};

/// A leader waits so long for the metadata of topics that it did not know; what comes later makes another round.
const DESCRIBE_BUDGET: Duration = Duration::from_secs(5);

/// What was waited for.
enum Done {
    Found(Result<NodeId, NotFound>),
    Answered(CallId, Result<Answer, Failure>),
    Described(CallId, BTreeSet<Arc<str>>),
    Released(RevocationId),
}

pub(super) struct Driver<L> {
    link: L,
    membership: Membership,
    orders: mpsc::Receiver<Order>,
    leaving: CancellationToken,
    events: mpsc::UnboundedSender<GroupEvent>,
    in_flight: FuturesUnordered<BoxFuture<Done>>,
    waiters: BTreeMap<WaiterId, oneshot::Sender<Result<(), CommitError>>>,
    next_waiter: WaiterId,
    over: bool,
}

impl<L: Link> Driver<L> {
    pub(super) fn new(
        link: L,
        config: ConsumerConfig,
        backoff: (Duration, Duration),
        orders: mpsc::Receiver<Order>,
        leaving: CancellationToken,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        Self {
            link,
            membership: Membership::new(config, backoff, Instant::now()),
            orders,
            leaving,
            events,
            in_flight: FuturesUnordered::new(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
            over: false,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut leaving = false;
        let mut ordering = true;
        let mut changing = true;
        self.step(Event::Tick);
        while !self.over {
            let wake = self.membership.wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => self.step(Event::Abort),
                () = self.leaving.cancelled(), if !leaving => {
                    leaving = true;
                    self.step(Event::Leave);
                }
                Some(done) = self.in_flight.next() => self.take(done),
                // Heartbeats and deadlines go before new work.
                () = sleep => self.step(Event::Tick),
                order = self.orders.recv(), if ordering => match order {
                    Some(order) => self.commit(order),
                    None => {
                        // Nobody can commit or close any more.
                        ordering = false;
                        self.leaving.cancel();
                    }
                },
                // Nobody processes records any more.
                () = self.events.closed(), if !leaving => self.leaving.cancel(),
                more = self.link.changed(), if changing => {
                    changing = more;
                    if let Some(topics) = self.membership.planned_topics() {
                        let counts = self.link.counts(&topics);
                        self.step(Event::Partitions(counts));
                    }
                }
            }
        }
    }

    fn commit(&mut self, order: Order) {
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        self.waiters.insert(waiter, order.done);
        self.step(Event::Commit { waiter, offsets: order.offsets });
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Found(found) => self.step(Event::Found(found)),
            Done::Answered(call, answer) => self.step(Event::Answered { call, answer }),
            Done::Described(call, topics) => {
                let counts = self.link.counts(&topics);
                self.step(Event::Described { call, counts });
            }
            Done::Released(revocation) => self.step(Event::Released(revocation)),
        }
    }

    fn step(&mut self, event: Event) {
        for action in self.membership.step(event, Instant::now()) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Find => {
                let found = self.link.find();
                self.in_flight.push(Box::pin(async move { Done::Found(found.await) }));
            }
            Action::Forget => self.link.forget(),
            Action::Send { call, node, request, timeout } => {
                let answer = self.link.call(node, request, timeout);
                self.in_flight.push(Box::pin(async move { Done::Answered(call, answer.await) }));
            }
            Action::Describe { call, topics } => {
                self.link.watch(&topics);
                let known = self.link.counts(&topics).len() == topics.len();
                let refreshed = (!known).then(|| self.link.refresh());
                self.in_flight.push(Box::pin(async move {
                    if let Some(refreshed) = refreshed {
                        // Late or not, the plan is made with what is known then.
                        let _ = tokio::time::timeout(DESCRIBE_BUDGET, refreshed).await;
                    }
                    Done::Described(call, topics)
                }));
            }
            Action::Unwatch => self.link.watch(&BTreeSet::new()),
            // Whoever dropped the receiver is noticed by the channel itself.
            Action::Assigned(assigned) => drop(self.events.send(GroupEvent::Assigned(assigned))),
            Action::Lost(leases) => drop(self.events.send(GroupEvent::Lost(leases))),
            Action::Fault { code, message } => drop(self.events.send(GroupEvent::Fault { code, message })),
            Action::Revoke { revocation, leases, deadline } => {
                let (released, drained) = oneshot::channel();
                drop(self.events.send(GroupEvent::Revoking { leases, deadline, released }));
                self.in_flight.push(Box::pin(async move {
                    // Sent or dropped: either way they are drained.
                    let _ = drained.await;
                    Done::Released(revocation)
                }));
            }
            Action::Reply(reply) => {
                if let Some(done) = self.waiters.remove(&reply.waiter) {
                    // Whoever stopped waiting wants no answer.
                    let _ = done.send(reply.result);
                }
            }
            Action::End => {
                self.link.watch(&BTreeSet::new());
                self.over = true;
            }
        }
    }
}
