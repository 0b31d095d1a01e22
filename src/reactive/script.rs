//! A group member and a backend that a test scripts.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use protocol::{
    consumer::{CommitError, CommitOffset, Fault, Lease},
    record::Place,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::source::{Change, Commit, Handover, Membership, RawRecord, RecordBatch, Stream};
use crate::{
    backend::{Answer, BackendCall, Call},
    record::Verdict,
};

/// Records with their offset as key.
pub(super) struct TestBatch {
    position: i64,
    next_offset: i64,
    records: Vec<(i64, String)>,
    rewinds: u32,
}

/// The same batch after so many rewinds.
pub(super) fn rewound(rewinds: u32, batch: TestBatch) -> TestBatch {
    TestBatch { rewinds, ..batch }
}

pub(super) fn batch(position: i64, next_offset: i64, records: &[(i64, &str)]) -> TestBatch {
    let records = records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect();
    TestBatch { position, next_offset, records, rewinds: 0 }
}

impl RecordBatch for TestBatch {
    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn leader_epoch(&self) -> i32 {
        3
    }

    fn high_watermark(&self) -> i64 {
        self.next_offset
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn rewinds(&self) -> u32 {
        self.rewinds
    }

    fn visit(&self, from: Place, visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>) {
        let due = self.records.iter().enumerate().skip(from.byte).filter(|(_, (offset, _))| *offset >= self.position);
        for (index, (offset, value)) in due {
            let raw = RawRecord {
                offset: *offset,
                place: Place { byte: index, index: 0 },
                timestamp: 1,
                key: None,
                value: Some(value.as_bytes()),
                headers: Vec::new(),
            };
            if visit(raw).is_break() {
                return;
            }
        }
    }
}

/// A partition's log: a list of values by offset; a value can be taken out, as retention does.
#[derive(Clone)]
pub(super) struct Log(Arc<LogState>);

struct LogState {
    records: Mutex<Vec<Option<String>>>,
    changed: watch::Sender<()>,
    batch: usize,
    paused: AtomicBool,
    /// How often it was replaced, and from which offset on the last time.
    replaced: Mutex<(u32, i64)>,
    /// Rewinds and offset of the last commit.
    committed: Mutex<(u32, i64)>,
}

impl Log {
    /// Handed out in batches of `batch` records.
    pub(super) fn new(batch: usize) -> Self {
        Self(Arc::new(LogState {
            records: Mutex::default(),
            changed: watch::Sender::new(()),
            batch,
            paused: AtomicBool::new(false),
            replaced: Mutex::default(),
            committed: Mutex::new((0, -1)),
        }))
    }

    pub(super) fn with(batch: usize, count: usize) -> Self {
        let log = Self::new(batch);
        (0..count).for_each(|index| log.append(&index.to_string()));
        log
    }

    pub(super) fn append(&self, value: &str) {
        self.records().push(Some(value.to_owned()));
        self.0.changed.send_replace(());
    }

    pub(super) fn set(&self, offset: usize, value: Option<&str>) {
        self.records()[offset] = value.map(str::to_owned);
        self.0.changed.send_replace(());
    }

    /// Another log from `offset` on, as after a truncation; `lease` is the one under which it is read.
    pub(super) fn replace(&self, lease: &Lease, offset: usize, values: &[&str]) {
        lease.rewind();
        *self.0.replaced.lock().expect("no panic while it was held") = (lease.rewinds(), offset as i64);
        let mut records = self.records();
        records.truncate(offset);
        records.extend(values.iter().map(|value| Some((*value).to_owned())));
        drop(records);
        self.0.changed.send_replace(());
    }

    pub(super) fn committed(&self) -> i64 {
        self.0.committed.lock().expect("no panic while it was held").1
    }

    pub(super) fn paused(&self) -> bool {
        self.0.paused.load(Ordering::SeqCst)
    }

    fn records(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.0.records.lock().expect("no panic while it was held")
    }

    fn read(&self, from: i64, rewinds: u32) -> Option<Arc<dyn RecordBatch>> {
        let records = self.records();
        let start = usize::try_from(from).expect("an offset");
        let found: Vec<_> = records.iter().enumerate().skip(start).take(self.0.batch).collect();
        let next_offset = found.last()?.0 as i64 + 1;
        let records = found.into_iter().filter_map(|(offset, value)| Some((offset as i64, value.clone()?))).collect();
        Some(Arc::new(TestBatch { position: from, next_offset, records, rewinds }))
    }
}

pub(super) struct TestStream {
    lease: Lease,
    log: Log,
    position: i64,
    rewinds: u32,
}

impl Stream for TestStream {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn next(&mut self) -> Option<Arc<dyn RecordBatch>> {
        let mut changed = self.log.0.changed.subscribe();
        loop {
            if !self.lease.is_active() {
                return None;
            }
            let (rewinds, begins) = *self.log.0.replaced.lock().expect("no panic while it was held");
            if rewinds != self.rewinds {
                (self.rewinds, self.position) = (rewinds, begins);
                return Some(Arc::new(rewound(rewinds, batch(begins, begins, &[]))));
            }
            let found = if self.log.paused() { None } else { self.log.read(self.position, rewinds) };
            if let Some(batch) = found {
                self.position = batch.next_offset();
                return Some(batch);
            }
            let lease = self.lease.clone();
            tokio::select! {
                biased;
                () = lease.revoking() => return None,
                _ = changed.changed() => {}
            }
        }
    }

    fn seek(&mut self, offset: i64) {
        self.position = offset;
    }

    fn pause(&self) {
        self.log.0.paused.store(true, Ordering::SeqCst);
    }

    fn resume(&self) {
        self.log.0.paused.store(false, Ordering::SeqCst);
        self.log.0.changed.send_replace(());
    }
}

/// Remembers commits; a lost lease's is refused, as Kafka fences it.
#[derive(Clone)]
pub(super) struct TestCommit {
    logs: Arc<Mutex<Vec<(Lease, Log)>>>,
    fail: Arc<AtomicBool>,
}

impl Commit for TestCommit {
    async fn commit(&self, offset: CommitOffset) -> Result<(), CommitError> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(CommitError { code: None, reason: "scripted".into() });
        }
        let logs = self.logs.lock().expect("no panic while it was held");
        let (_, log) = logs.iter().find(|(lease, _)| lease.same(&offset.lease)).expect("assigned");
        assert!(!offset.lease.is_lost(), "a commit for a lost lease");
        if offset.rewinds != offset.lease.rewinds() {
            return Err(CommitError { code: None, reason: "rewound".into() });
        }
        let mut committed = log.0.committed.lock().expect("no panic while it was held");
        let new = (offset.rewinds, offset.offset);
        assert!(*committed < new, "commits only grow: {committed:?} then {new:?}");
        *committed = new;
        Ok(())
    }
}

/// The member's end of the script.
pub(super) struct TestMember {
    changes: mpsc::UnboundedReceiver<Change<TestStream>>,
    committer: TestCommit,
    closed: watch::Sender<bool>,
    script: mpsc::UnboundedSender<Change<TestStream>>,
    drain: Duration,
    closing: Mutex<Option<oneshot::Receiver<()>>>,
}

/// The test's end.
pub(super) struct Group {
    script: mpsc::UnboundedSender<Change<TestStream>>,
    logs: Arc<Mutex<Vec<(Lease, Log)>>>,
    pub(super) fail_commits: Arc<AtomicBool>,
}

/// A group whose drains may last `drain`.
pub(super) fn group(drain: Duration) -> (Group, TestMember) {
    let (script, changes) = mpsc::unbounded_channel();
    let logs = Arc::<Mutex<Vec<(Lease, Log)>>>::default();
    let fail_commits = Arc::<AtomicBool>::default();
    let committer = TestCommit { logs: logs.clone(), fail: fail_commits.clone() };
    let closed = watch::Sender::new(false);
    let member = TestMember { changes, committer, closed, script: script.clone(), drain, closing: Mutex::default() };
    (Group { script, logs, fail_commits }, member)
}

impl Group {
    /// Assigns the log as a partition of topic `t`, read from its committed offset.
    pub(super) fn assign(&self, partition: i32, log: &Log) -> Lease {
        let lease = Lease::new("t".into(), partition, 1);
        self.logs.lock().expect("no panic while it was held").push((lease.clone(), log.clone()));
        let stream =
            TestStream { lease: lease.clone(), log: log.clone(), position: log.committed().max(0), rewinds: 0 };
        self.tell(Change::Assigned(vec![stream]));
        lease
    }

    /// Starts a handover; the receiver tells when it was released.
    pub(super) fn revoke(&self, lease: &Lease, within: Duration) -> oneshot::Receiver<()> {
        let (handover, released) = handover(vec![lease.clone()], within);
        self.tell(Change::Revoking(handover));
        released
    }

    pub(super) fn lose(&self, lease: &Lease) {
        lease.lose();
        self.tell(Change::Lost(vec![lease.clone()]));
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.tell(Change::Fault(fault));
    }

    fn tell(&self, change: Change<TestStream>) {
        assert!(self.script.send(change).is_ok(), "the flow ended");
    }
}

fn handover(leases: Vec<Lease>, within: Duration) -> (Handover, oneshot::Receiver<()>) {
    leases.iter().for_each(Lease::start_revoking);
    let (done, released) = oneshot::channel();
    let release = Box::new(move || {
        // A test that does not wait for it has dropped its end.
        let _ = done.send(());
    });
    (Handover { leases, deadline: Instant::now() + within, release }, released)
}

impl Membership for TestMember {
    type Stream = TestStream;
    type Commit = TestCommit;

    async fn next(&mut self) -> Option<Change<TestStream>> {
        let mut closed = self.closed.subscribe();
        loop {
            if *closed.borrow_and_update() && self.changes.is_empty() {
                // Not taken out: this may be dropped while it waits.
                let released = self.closing.get_mut().expect("no panic while it was held").as_mut()?;
                return tokio::select! {
                    biased;
                    change = self.changes.recv() => change,
                    _ = released => None,
                };
            }
            tokio::select! {
                biased;
                change = self.changes.recv() => return change,
                _ = closed.changed() => {}
            }
        }
    }

    fn committer(&self) -> TestCommit {
        self.committer.clone()
    }

    fn close(&self) {
        let logs = self.committer.logs.lock().expect("no panic while it was held");
        let leases: Vec<_> = logs.iter().map(|(lease, _)| lease.clone()).filter(Lease::is_active).collect();
        let (handover, released) = handover(leases, self.drain);
        *self.closing.lock().expect("no panic while it was held") = Some(released);
        assert!(self.script.send(Change::Revoking(handover)).is_ok(), "we hold the receiver");
        self.closed.send_replace(true);
    }
}

type Answers = dyn Fn(&Call) -> BoxFuture<'static, Answer> + Send + Sync;

/// A backend by a function of the call; remembers every call.
pub(super) struct TestBackend {
    answer: Box<Answers>,
    calls: Mutex<Vec<(Instant, Call)>>,
    called: watch::Sender<usize>,
    refuse_connections: Mutex<VecDeque<String>>,
    pub(super) healthy: AtomicBool,
}

impl TestBackend {
    pub(super) fn new(answer: impl Fn(&Call) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            calls: Mutex::default(),
            called: watch::Sender::new(0),
            refuse_connections: Mutex::default(),
            healthy: AtomicBool::new(false),
        })
    }

    /// Answers at once.
    pub(super) fn by(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |call| std::future::ready(answer(call)).boxed())
    }

    pub(super) fn refuse_connections(&self, times: usize) {
        let mut refusals = self.refuse_connections.lock().expect("no panic while it was held");
        refusals.extend((0..times).map(|_| "connection refused".to_owned()));
    }

    pub(super) fn calls(&self) -> Vec<(Instant, Call)> {
        self.calls.lock().expect("no panic while it was held").clone()
    }

    /// The offsets of every call to a partition, in order.
    pub(super) fn offsets(&self, partition: i32) -> Vec<Vec<i64>> {
        let calls = self.calls().into_iter().map(|(_, call)| call);
        calls.filter(|call| call.partition == partition).map(|call| call.offsets).collect()
    }

    /// Waits until so many calls were made.
    pub(super) async fn called(&self, count: usize) {
        self.called.subscribe().wait_for(|called| *called >= count).await.expect("the sender lives");
    }
}

impl BackendCall for TestBackend {
    fn post(&self, call: Call) -> BoxFuture<'_, Answer> {
        let answer = (self.answer)(&call);
        // Remembered with bytes of its own: the memory of the request is the answer's business.
        let call = Call { body: Bytes::copy_from_slice(&call.body), ..call };
        let mut calls = self.calls.lock().expect("no panic while it was held");
        calls.push((Instant::now(), call));
        let count = calls.len();
        drop(calls);
        self.called.send_replace(count);
        answer
    }

    fn accepts(&self) -> BoxFuture<'_, Result<(), String>> {
        let refusal = self.refuse_connections.lock().expect("no panic while it was held").pop_front();
        std::future::ready(refusal.map_or(Ok(()), Err)).boxed()
    }

    fn healthy(&self) -> BoxFuture<'_, Result<(), String>> {
        let healthy = self.healthy.load(Ordering::SeqCst);
        std::future::ready(if healthy { Ok(()) } else { Err("scripted".into()) }).boxed()
    }
}

/// A verdict per record: processed, but for the given offsets.
pub(super) fn verdicts(call: &Call, refused: &[i64]) -> Answer {
    let verdict = |offset: &i64| Verdict { processed: !refused.contains(offset), ..Verdict::default() };
    Answer::Verdicts(call.offsets.iter().map(verdict).collect())
}
