//! What goes wrong on purpose: rules that a test sets, and that connections ask before and after they serve a request.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use protocol::error_code::ErrorCode;
use tokio::sync::watch;

use crate::request_log::LoggedRequest;
use crate::shared::Shared;

type Predicate = Box<dyn Fn(&LoggedRequest) -> bool + Send + Sync>;

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Not applied; the answer carries the error wherever it has a place for one.
    ReplyError(ErrorCode),
    /// Applied, then the connection is closed without an answer.
    DropAnswer,
    /// Not applied; the connection is closed.
    CloseBefore,
    /// Not applied before the gate opens.
    HoldRequest(Arc<Gate>),
    /// Applied, not answered before the gate opens.
    HoldAnswer(Arc<Gate>),
    /// Applied, answered later.
    Delay(Duration),
    /// Not applied; these bytes instead of an answer, then the connection is closed.
    Garbage(Bytes),
    /// Applied; the answer says so long, and the connection is not read for so long (KIP-219).
    Throttle(Duration),
}

struct Rule {
    api: Option<ApiKey>,
    node: Option<i32>,
    predicate: Option<Predicate>,
    /// None: for ever.
    left: Option<usize>,
    action: Action,
    hits: Arc<AtomicUsize>,
    id: u64,
}

impl Rule {
    fn fits(&self, request: &LoggedRequest) -> bool {
        self.api.is_none_or(|api| api == request.api)
            && self.node.is_none_or(|node| node == request.node)
            && self.predicate.as_ref().is_none_or(|predicate| predicate(request))
    }
}

#[derive(Default)]
struct Rules {
    rules: Vec<Rule>,
    next_id: u64,
}

/// All rules that are set.
#[derive(Default)]
pub(crate) struct Faults {
    rules: Mutex<Rules>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("rules", &self.lock().rules.len()).finish()
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to happen to this request; uses up one time of the first rule that fits.
    pub(crate) fn take(&self, request: &LoggedRequest) -> Option<Action> {
        let mut rules = self.lock();
        let index = rules.rules.iter().position(|rule| rule.fits(request))?;
        let rule = rules.rules.get_mut(index)?;
        rule.hits.fetch_add(1, Ordering::SeqCst);
        let action = rule.action.clone();
        if let Some(left) = &mut rule.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                rules.rules.remove(index);
            }
        }
        Some(action)
    }

    pub(crate) fn clear(&self) {
        self.lock().rules.clear();
    }

    fn remove(&self, id: u64) {
        self.lock().rules.retain(|rule| rule.id != id);
    }
}

/// Which requests a fault is for; made by [`crate::FakeCluster::on`]. It happens once unless [`FaultOn::times`] or
/// [`FaultOn::always`] says otherwise. Of several faults that fit a request the first that was set happens.
#[must_use]
pub struct FaultOn {
    shared: Arc<Shared>,
    api: Option<ApiKey>,
    node: Option<i32>,
    predicate: Option<Predicate>,
    times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    /// Nobody said: once, or until released.
    Unsaid,
    Exactly(usize),
    Always,
}

impl fmt::Debug for FaultOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, node, times, .. } = self;
        f.debug_struct("FaultOn").field("api", api).field("node", node).field("times", times).finish_non_exhaustive()
    }
}

impl FaultOn {
    pub(crate) fn new(shared: Arc<Shared>, api: Option<ApiKey>) -> Self {
        Self { shared, api, node: None, predicate: None, times: Times::Unsaid }
    }

    /// Only at this node.
    pub fn node(mut self, node: i32) -> Self {
        self.node = Some(node);
        self
    }

    /// Only requests of which this is true.
    pub fn when(mut self, predicate: impl Fn(&LoggedRequest) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Box::new(predicate));
        self
    }

    /// To so many requests.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Times::Exactly(times);
        self
    }

    /// To every request, until [`Fault::remove`] or [`crate::FakeCluster::clear_faults`].
    pub fn always(mut self) -> Self {
        self.times = Times::Always;
        self
    }

    /// Not applied; the answer carries this error wherever it has a place for one.
    pub fn reply_error(self, code: ErrorCode) -> Fault {
        self.set(Action::ReplyError(code))
    }

    /// Applied, but never answered: the connection is closed. The client cannot know.
    pub fn drop_answer(self) -> Fault {
        self.set(Action::DropAnswer)
    }

    /// Not applied; the connection is closed. To the client it looks as [`FaultOn::drop_answer`] does.
    pub fn close_before(self) -> Fault {
        self.set(Action::CloseBefore)
    }

    /// Applied and answered so much later. Other requests of the connection wait behind it, as at a real broker.
    pub fn delay(self, delay: Duration) -> Fault {
        self.set(Action::Delay(delay))
    }

    /// Not applied; these bytes are written as they are, without a length in front, and the connection is closed.
    pub fn garbage(self, bytes: impl Into<Bytes>) -> Fault {
        self.set(Action::Garbage(bytes.into()))
    }

    /// Applied and answered with this throttle time; the broker does not serve the connection for so long (KIP-219).
    pub fn throttle(self, time: Duration) -> Fault {
        self.set(Action::Throttle(time))
    }

    /// Applied, but the answer waits until [`Held::release`]. Every request that fits, unless [`FaultOn::times`] was said.
    pub fn hold(self) -> Held {
        self.held(Action::HoldAnswer)
    }

    /// Not applied until [`Held::release`]. Every request that fits, unless [`FaultOn::times`] was said.
    pub fn hold_request(self) -> Held {
        self.held(Action::HoldRequest)
    }

    fn held(self, action: impl FnOnce(Arc<Gate>) -> Action) -> Held {
        let gate = Arc::new(Gate::default());
        let on = if self.times == Times::Unsaid { self.always() } else { self };
        let fault = on.set(action(gate.clone()));
        Held { gate, fault }
    }

    fn set(self, action: Action) -> Fault {
        let hits = Arc::new(AtomicUsize::new(0));
        let mut rules = self.shared.faults.lock();
        let id = rules.next_id;
        rules.next_id += 1;
        let Self { api, node, predicate, times, .. } = self;
        let left = match times {
            Times::Unsaid => Some(1),
            Times::Exactly(times) => Some(times),
            Times::Always => None,
        };
        if left != Some(0) {
            rules.rules.push(Rule { api, node, predicate, left, action, hits: hits.clone(), id });
        }
        drop(rules);
        Fault { shared: self.shared, id, hits }
    }
}

/// A fault that is set. Dropping it leaves it set.
#[derive(Debug)]
pub struct Fault {
    shared: Arc<Shared>,
    id: u64,
    hits: Arc<AtomicUsize>,
}

impl Fault {
    /// How many requests it happened to.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// It happens to no further request.
    pub fn remove(&self) {
        self.shared.faults.remove(self.id);
    }
}

/// Where held requests wait.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Gate {
    /// Waits until it is open.
    pub(crate) async fn pass(&self) {
        self.waiting.send_modify(|count| *count += 1);
        let mut open = self.open.subscribe();
        // The sender is in self.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Requests or answers that are held. Dropping it releases them.
#[derive(Debug)]
#[must_use]
pub struct Held {
    gate: Arc<Gate>,
    fault: Fault,
}

impl Held {
    /// How many were held so far, at most one per connection at a time.
    pub fn count(&self) -> usize {
        *self.gate.waiting.borrow()
    }

    /// Waits until so many were held. Dropping this future does nothing.
    pub async fn reached(&self, count: usize) {
        let mut waiting = self.gate.waiting.subscribe();
        // The sender is in self.
        let _ = waiting.wait_for(|waiting| *waiting >= count).await;
    }

    /// Lets all go, and holds no further one.
    pub fn release(self) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        self.fault.remove();
        self.gate.open.send_replace(true);
    }
}
