//! One assigned partition: its records in order, one request at a time, until the lease ends.
//!
//! ```text
//! fill -> permission (permit, memory, gate) -> cut -> post -> settle::plan -> apply -> fill
//!              ^------- back-off, halves <-------------'
//! ```
//!
//! It decides nothing about records (that is [`super::settle`]) and commits nothing (that is [`super::finisher`]).
//! [`Lane`] is its main type. After `Revoking` nothing new is sent and nothing is tried again, while an answer that is on
//! its way is still awaited and applied; after `Lost` everything is dropped where it stands.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use futures_util::FutureExt;
use protocol::{budget::Growing, consumer::Lease};
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    Shared,
    finisher::Step,
    observer::{PartitionState, count},
    settle::{self, Facts, Failure, Fate, Settlement},
    source::Stream,
    work::{self, Cut, Entry, Limits, Pending, Request, Work},
};
use crate::{
    backend::{Answer, Call},
    config::settings::BadRecordPolicy,
    record::Verdict,
};

/// How long a partition whose bytes cannot be read stands before it is looked at again.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The lease is no longer Active, or the stream or the audit ended: dispatch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Over;

/// The first half of a lane: from the stream to the backend and to dead letters and audit.
pub(crate) struct Lane<S> {
    stream: S,
    lease: Lease,
    shared: Arc<Shared>,
    pending: Pending,
    steps: mpsc::Sender<Step>,
    /// Offsets at which the stream stands, as faults tell.
    standing: mpsc::UnboundedReceiver<i64>,
}

/// Part of a batch that is sent on its own.
struct Piece {
    range: Range<usize>,
    /// Charged deliveries.
    attempts: u32,
    rollbacks: u32,
    /// In a row, for the back-off.
    failures: u32,
    /// Deliveries, charged or not.
    sent: u32,
    /// Its connection was lost: it goes out by one of its own.
    lost: bool,
    /// What was cut; dropped once it was sent and made again for a retry.
    request: Option<Request>,
}

impl Piece {
    fn of(range: Range<usize>, sent: u32, request: Option<Request>) -> Self {
        Self { range, attempts: 0, rollbacks: 0, failures: 0, sent, lost: false, request }
    }
}

impl<S: Stream> Lane<S> {
    pub(crate) fn new(
        stream: S,
        shared: Arc<Shared>,
        steps: mpsc::Sender<Step>,
        standing: mpsc::UnboundedReceiver<i64>,
    ) -> Self {
        let lease = stream.lease().clone();
        let pending = Pending::new(lease.clone(), shared.formats);
        Self { stream, lease, shared, pending, steps, standing }
    }

    /// Runs until the lease is no longer Active and nothing is in flight.
    pub(crate) async fn run(mut self) {
        // It ends with `Over`; there is nothing else to tell.
        let Err(Over) = self.dispatch().await;
    }

    async fn dispatch(&mut self) -> Result<std::convert::Infallible, Over> {
        self.wait_for_backend().await?;
        loop {
            self.fill().await?;
            let shared = self.shared.clone();
            let limits = self.request_limits();
            let granted = permission(&shared, &self.lease, self.pending.next_size(limits)).await?;
            let Cut { work, covered } = self.pending.cut(limits);
            match work {
                Work::Send { entries, request } => {
                    self.take(&entries).await?;
                    self.deliver(entries, request, granted).await?;
                }
                Work::Bad(bad) => {
                    drop(granted);
                    let stop = self.shared.bad_records == BadRecordPolicy::Stop;
                    match bad.first() {
                        Some((first, reason)) if stop => {
                            let (offset, reason) = (first.offset, reason.to_string());
                            self.stand(offset, reason).await?;
                            continue;
                        }
                        _ => self.settle_bad(bad).await?,
                    }
                }
                Work::Nothing => drop(granted),
                Work::Rewound { rewinds, begins } => {
                    drop(granted);
                    self.rewound(rewinds, begins).await?;
                }
            }
            if let Some((end, epoch)) = covered {
                self.tell(Step::Covered(end, epoch)).await?;
                self.observe_position(end);
            }
        }
    }

    async fn wait_for_backend(&self) -> Result<(), Over> {
        let mut ready = self.shared.ready.subscribe();
        if !*ready.borrow() {
            self.stream.pause();
            tokio::select! {
                biased;
                () = self.lease.revoking() => return Err(Over),
                opened = ready.wait_for(|ready| *ready) => if opened.is_err() { return Err(Over) },
            }
            self.stream.resume();
        }
        self.shared.observer.update(&self.lease, |status| status.state = PartitionState::Running);
        Ok(())
    }

    /// Waits for records, and for more of them where the configuration wants that.
    async fn fill(&mut self) -> Result<(), Over> {
        let limits = self.request_limits();
        if self.pending.is_empty() && self.next_batch().await? {
            self.shared.observer.update(&self.lease, |status| status.state = PartitionState::Running);
        }
        while !self.pending.holds(limits) {
            match self.stream.next().now_or_never() {
                Some(Some(batch)) => self.push(batch),
                Some(None) | None => break,
            }
        }
        let dispatch = &self.shared.dispatch;
        let Some(wait) = dispatch.batch_wait.filter(|wait| !wait.is_zero()) else { return Ok(()) };
        let enough = Limits { bytes: dispatch.min_bytes.unwrap_or(limits.bytes).min(limits.bytes), ..limits };
        let deadline = Instant::now() + wait;
        while !self.pending.holds(enough) {
            tokio::select! {
                biased;
                () = self.lease.revoking() => return Err(Over),
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                batch = self.stream.next() => match batch {
                    Some(batch) => self.push(batch),
                    None => return Err(Over),
                },
            }
        }
        Ok(())
    }

    /// All that was cut before is settled: what follows is of another log.
    async fn rewound(&self, rewinds: u32, (begins, epoch): (i64, i32)) -> Result<(), Over> {
        tracing::warn!(
            topic = %self.lease.topic(), partition = self.lease.partition(), offset = begins,
            "the position was set back, or its log is another one: reading goes on here"
        );
        self.tell(Step::Rewound { rewinds, begins, epoch }).await?;
        self.observe_position(begins);
        Ok(())
    }

    /// Waits for a batch; says whether the stream stood meanwhile.
    async fn next_batch(&mut self) -> Result<bool, Over> {
        let mut stood = false;
        loop {
            let stands_at = tokio::select! {
                biased;
                () = self.lease.revoking() => return Err(Over),
                batch = self.stream.next() => match batch {
                    Some(batch) => {
                        self.push(batch);
                        return Ok(stood);
                    }
                    None => return Err(Over),
                },
                Some(offset) = self.standing.recv() => offset,
            };
            stood = true;
            tokio::select! {
                biased;
                () = self.lease.revoking() => return Err(Over),
                // The log that it stood in is gone.
                batch = self.stream.next() => {
                    self.push(batch.ok_or(Over)?);
                    return Ok(true);
                }
                () = tokio::time::sleep(LOOK_AGAIN) => self.stream.seek(stands_at),
            }
        }
    }

    fn push(&mut self, batch: Arc<dyn super::source::RecordBatch>) {
        self.shared.observer.fetched(&self.lease, batch.next_offset(), batch.high_watermark());
        self.pending.push(batch);
    }

    fn request_limits(&self) -> Limits {
        Limits { records: self.shared.dispatch.max_records.max(1), bytes: self.shared.dispatch.max_bytes }
    }

    /// Sends the records, whole or in halves, until each has its fate.
    async fn deliver(&self, entries: Vec<Entry>, request: Request, granted: Permission<'_>) -> Result<(), Over> {
        let _kept = self.shared.memory.charge(entries.len() * work::ENTRY_BYTES);
        let mut pieces = VecDeque::from([Piece::of(0..entries.len(), 0, Some(request))]);
        let mut first = Some(granted);
        while let Some(mut piece) = pieces.pop_front() {
            let Some(records) = entries.get(piece.range.clone()) else { return Ok(()) };
            let shared = self.shared.clone();
            let granted = match first.take() {
                Some(granted) => granted,
                None => permission(&shared, &self.lease, work::size_of(records)).await?,
            };
            let own_connection = piece.lost;
            let (answer, backend_answered) = self.post(&mut piece, records, granted).await?;
            let facts = Facts {
                records: records.len(),
                attempts: piece.attempts,
                rollbacks: piece.rollbacks,
                backend_answered,
                own_connection,
            };
            match settle::plan(facts, answer, self.shared.policy) {
                Settlement::Finished(fates) => self.apply(records, fates, true).await?,
                // The gate has logged it, and says when the backend may be asked again.
                Settlement::Unavailable { .. } => pieces.push_front(piece),
                Settlement::Again { charged, reason } => {
                    piece.attempts += u32::from(charged);
                    self.log_retry(records, &piece, &reason);
                    self.back_off(&mut piece).await?;
                    pieces.push_front(piece);
                }
                Settlement::RolledBack { refused } => {
                    count(&self.shared.observer.metrics.rollbacks, 1);
                    piece.rollbacks += 1;
                    self.log_retry(records, &piece, &format!("{refused} of {} records were refused", records.len()));
                    self.back_off(&mut piece).await?;
                    pieces.push_front(piece);
                }
                Settlement::Halved { reason } => {
                    count(&self.shared.observer.metrics.halvings, 1);
                    self.log_retry(records, &piece, &reason);
                    let Range { start, end } = piece.range;
                    let middle = start + (end - start) / 2;
                    pieces.push_front(Piece::of(middle..end, piece.sent, None));
                    pieces.push_front(Piece::of(start..middle, piece.sent, None));
                    let first =
                        settle::delay(1, self.shared.dispatch.retry_delay, self.shared.dispatch.retry_max_delay);
                    pause(&self.lease, first).await?;
                }
            }
        }
        Ok(())
    }

    /// One request and its answer; and, where the answer does not come, whether the backend answers otherwise.
    async fn post(
        &self,
        piece: &mut Piece,
        records: &[Entry],
        granted: Permission<'_>,
    ) -> Result<(Answer, bool), Over> {
        let shared = &self.shared;
        let metrics = &shared.observer.metrics;
        let Permission { permit, mut memory } = granted;
        let request = piece.request.take().unwrap_or_else(|| work::body_of(shared.formats, &self.lease, records));
        memory.resize(request.body.len());
        let call = Call {
            topic: self.lease.topic().to_string(),
            partition: self.lease.partition(),
            offsets: records.iter().map(|entry| entry.offset).collect(),
            attempt: piece.sent.saturating_add(1),
            traceparent: request.traceparent,
            own_connection: piece.lost,
            body: memory.keep(request.body),
        };
        count(&metrics.calls, 1);
        count(&metrics.records_sent, records.len());
        let (answered, unreachable) =
            (shared.answers.load(Ordering::Relaxed), shared.unreachable.load(Ordering::Relaxed));
        let started = Instant::now();
        let in_flight = InFlight::new(&metrics.calls_in_flight);
        let answer = tokio::select! {
            biased;
            () = self.lease.lost() => return Err(Over),
            answer = shared.backend.post(call) => answer,
        };
        drop(in_flight);
        drop(permit);
        metrics.call_micros.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        if !matches!(answer, Answer::Unreachable(_)) {
            piece.sent = piece.sent.saturating_add(1);
        }
        piece.lost = matches!(answer, Answer::Lost(_));
        let answers_otherwise = shared.answers.load(Ordering::Relaxed) != answered;
        self.note(&answer, started);
        let alone_without_answer = matches!(answer, Answer::Late | Answer::Lost(_)) && records.len() == 1;
        let backend_answered = alone_without_answer && self.backend_lives(answers_otherwise, unreachable).await?;
        Ok((answer, backend_answered))
    }

    /// Whether a record was left without an answer by a backend that lives and answers other things. One that goes answers
    /// others until it goes: nobody may have found it away since, and a little later it has to be there as well.
    async fn backend_lives(&self, answers_otherwise: bool, unreachable: u64) -> Result<bool, Over> {
        let shared = &self.shared;
        let asked = async {
            let answers = answers_otherwise || shared.ask_health && shared.backend.healthy().await.is_ok();
            if answers {
                tokio::time::sleep(shared.dispatch.retry_delay).await;
            }
            answers
                && shared.unreachable.load(Ordering::Relaxed) == unreachable
                && shared.backend.accepts().await.is_ok()
        };
        tokio::select! {
            biased;
            () = self.lease.revoking() => Err(Over),
            lives = asked => Ok(lives),
        }
    }

    /// Tells gate and metrics of an answer.
    fn note(&self, answer: &Answer, started: Instant) {
        let shared = &self.shared;
        let metrics = &shared.observer.metrics;
        let one = Facts { records: 1, attempts: 0, rollbacks: 0, backend_answered: false, own_connection: false };
        if let Settlement::Unavailable { retry_after, reason } = settle::plan(one, answer.clone(), shared.policy) {
            count(&metrics.answers_unavailable, 1);
            count(&shared.unreachable, usize::from(matches!(answer, Answer::Unreachable(_))));
            shared.gate.unavailable(started, retry_after, &reason);
            return;
        }
        match answer {
            Answer::Late => return count(&metrics.answers_late, 1),
            Answer::Lost(_) => return count(&metrics.answers_lost, 1),
            Answer::Refused { .. } => count(&metrics.answers_refused, 1),
            Answer::Malformed(_) => count(&metrics.answers_malformed, 1),
            Answer::Verdicts(_) | Answer::Unreachable(_) => {}
        }
        shared.answers.fetch_add(1, Ordering::Relaxed);
        shared.gate.answered();
    }

    /// Dead letters acknowledged, audit entries taken, lease checked, and on to the finisher. `letters`: whether failed
    /// records become dead letters (if those are on).
    async fn apply(&self, entries: &[Entry], fates: Vec<Fate>, letters: bool) -> Result<(), Over> {
        let outcome = super::apply::apply(&self.shared, &self.lease, entries, fates, letters);
        let settled = outcome.await.map_err(|_| Over)?;
        self.tell(Step::Settled(settled)).await
    }

    async fn settle_bad(&self, bad: Vec<(Entry, super::body::BadRecord)>) -> Result<(), Over> {
        let metrics = &self.shared.observer.metrics;
        let letters = self.shared.bad_records == BadRecordPolicy::DeadLetter;
        let (entries, reasons): (Vec<_>, Vec<_>) = bad.into_iter().unzip();
        self.take(&entries).await?;
        if !letters {
            count(&metrics.records_skipped, entries.len());
        }
        for (entry, reason) in entries.iter().zip(&reasons) {
            tracing::warn!(
                topic = %self.lease.topic(), partition = self.lease.partition(), offset = entry.offset, %reason,
                "the record is {}", if letters { "dead-lettered" } else { "skipped (badRecordPolicy)" }
            );
        }
        let failed = |reason: super::body::BadRecord| Fate::Failed {
            failure: Failure::Undecodable,
            verdict: Verdict::default(),
            reason: reason.to_string(),
            attempts: 0,
        };
        self.apply(&entries, reasons.into_iter().map(failed).collect(), letters).await
    }

    /// The partition stands before `offset` until another record is there, or until the lease ends.
    async fn stand(&mut self, offset: i64, why: String) -> Result<(), Over> {
        let (topic, partition) = (self.lease.topic().clone(), self.lease.partition());
        tracing::error!(
            %topic, partition, offset, reason = why,
            "the partition stands before a record that cannot be decoded (badRecordPolicy: stop)"
        );
        count(&self.shared.observer.metrics.records_undecodable, 1);
        let state = PartitionState::Standing { offset: Some(offset), why };
        self.shared.observer.update(&self.lease, |status| status.state = state);
        loop {
            pause(&self.lease, self.shared.dispatch.wait_period).await?;
            self.pending.clear();
            if !self.pending.is_empty() {
                break;
            }
            self.stream.seek(offset);
            self.next_batch().await?;
            if !self.pending.begins_with_undecodable(offset) {
                break;
            }
        }
        self.shared.observer.update(&self.lease, |status| status.state = PartitionState::Running);
        tracing::info!(%topic, partition, offset, "the record is gone: the partition goes on");
        Ok(())
    }

    async fn take(&self, entries: &[Entry]) -> Result<(), Over> {
        if let Some(last) = entries.last() {
            self.observe_position(last.offset + 1);
        }
        self.tell(Step::Taken(entries.iter().map(|entry| (entry.offset, entry.leader_epoch)).collect())).await
    }

    fn observe_position(&self, position: i64) {
        self.shared.observer.update(&self.lease, |status| status.position = Some(position));
    }

    async fn tell(&self, step: Step) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = self.lease.lost() => Err(Over),
            told = self.steps.send(step) => told.map_err(|_| Over),
        }
    }

    async fn back_off(&self, piece: &mut Piece) -> Result<(), Over> {
        piece.failures = piece.failures.saturating_add(1);
        let dispatch = &self.shared.dispatch;
        pause(&self.lease, settle::delay(piece.failures, dispatch.retry_delay, dispatch.retry_max_delay)).await
    }

    fn log_retry(&self, records: &[Entry], piece: &Piece, reason: &str) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        tracing::warn!(
            topic = %self.lease.topic(), partition = self.lease.partition(), offset = first.offset,
            last_offset = last.offset, sent = piece.sent, attempts = piece.attempts, reason,
            "the batch is not settled and goes out again"
        );
    }
}

/// What one request takes.
struct Permission<'a> {
    /// Its place among those in flight.
    permit: SemaphorePermit<'a>,
    /// For its body, until that is written to the socket.
    memory: Growing,
}

/// A permit and memory for a request of about so many bytes, the gate open and the membership not in doubt; or the lease is no
/// longer Active.
async fn permission<'a>(shared: &'a Shared, lease: &Lease, bytes: usize) -> Result<Permission<'a>, Over> {
    let permitted = async {
        loop {
            lease.confirmed().await;
            let permit = shared.permits.acquire().await.map_err(|_| Over)?;
            let mut memory = shared.memory.growing();
            memory.grow(bytes).await;
            shared.gate.pass().await;
            if !lease.is_suspect() {
                return Ok(Permission { permit, memory });
            }
        }
    };
    tokio::select! {
        biased;
        () = lease.revoking() => Err(Over),
        permission = permitted => permission,
    }
}

/// A pause that ends early, and for good, when the lease is no longer Active.
async fn pause(lease: &Lease, duration: std::time::Duration) -> Result<(), Over> {
    tokio::select! {
        biased;
        () = lease.revoking() => Err(Over),
        () = tokio::time::sleep(duration) => Ok(()),
    }
}

struct InFlight<'a>(&'a std::sync::atomic::AtomicU64);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a std::sync::atomic::AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
