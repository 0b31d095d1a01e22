//! Records on their way into batches: one open batch per partition, filled in place by those who send.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Delivery, Outcome, ProduceError, ProduceErrorKind, ProduceRecord, ProducerConfig,
    completion::{self, Completion, Seat},
    partitioner::{self, Sticky},
};
use crate::{
    budget::Reservation,
    record::{BatchBuilder, BatchError, SealedBatch},
};

/// What a batch reserves at first, if its first record takes no more.
const FIRST_BYTES: usize = 1024;

pub(super) type Key = (Arc<str>, i32);

/// What senders and the task have in common. The lock is held for one record at a time, never across an await.
pub(super) struct Shared {
    pub(super) config: ProducerConfig,
    state: Mutex<State>,
    pub(super) wake: Notify,
}

#[derive(Default)]
struct State {
    open: BTreeMap<Key, Open>,
    full: VecDeque<(Key, Open)>,
    sticky: BTreeMap<Arc<str>, Sticky>,
    /// Batches without an outcome, by number.
    unfinished: BTreeMap<u64, Arc<Completion>>,
    next_number: u64,
    /// Batches with a lower number do not linger.
    flushed_below: u64,
    ended: bool,
}

struct Open {
    number: u64,
    builder: BatchBuilder,
    completion: Arc<Completion>,
    since: Instant,
    deadline: Instant,
    memory: Reservation,
}

/// A sealed batch that waits for its outcome.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) sealed: SealedBatch,
    pub(super) completion: Arc<Completion>,
    pub(super) indexes: Indexes,
    pub(super) deadline: Instant,
    /// Producer id, epoch and first sequence number it was last stamped with.
    pub(super) stamp: Option<(i64, i16, i32)>,
    /// A request with it may have been written without our knowing.
    pub(super) in_doubt: bool,
    pub(super) tries: u32,
    pub(super) last_fault: String,
    pub(super) _memory: Arc<Reservation>,
}

/// Of the records of a batch, their index in the batch as it was filled.
pub(super) enum Indexes {
    /// It is that batch, of so many records.
    All(usize),
    /// It is a part of it.
    Part(Vec<usize>),
}

impl Indexes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::Part(indexes) => indexes.len(),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<usize> {
        match self {
            Self::All(count) => (place < *count).then_some(place),
            Self::Part(indexes) => indexes.get(place).copied(),
        }
    }

    /// In order, each with its place in this batch.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len()).filter_map(|place| Some((place, self.get(place)?)))
    }
}

impl Batch {
    /// Where the first of its records was written, or why none was: what has an outcome already keeps it.
    pub(super) fn settle(&self, outcome: completion::Outcome) {
        match &self.indexes {
            Indexes::All(_) => self.completion.set_all(outcome),
            Indexes::Part(_) => self
                .completion
                .set(self.indexes.iter().map(|(place, index)| (index, outcome.clone().map(|first| first.at(place))))),
        }
    }
}

impl Shared {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self { config, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record into the open batch of its partition; returns what becomes of it.
    ///
    /// # Errors
    /// When it is larger than any batch can be.
    pub(super) fn append(
        &self,
        record: &ProduceRecord,
        led: &[bool],
        deadline: Instant,
        mut room: Reservation,
    ) -> Result<Delivery, BatchError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::of_key(key, led.len()),
            (None, None) => state.sticky.entry(record.topic.clone()).or_default().choose(led),
        };
        let key = (record.topic.clone(), partition);
        if state.open.get(&key).is_some_and(|open| open.builder.encoded_len() + room.bytes() > self.config.batch_size) {
            state.close(&key);
        }
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let fill = |open: &mut Open| {
            open.builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers)
        };
        let filled = state.open.get_mut(&key).map(fill);
        if let Some(Err(_)) = filled {
            // Its timestamps are too far from this one's: the next batch takes it.
            state.close(&key);
        }
        let fresh = !matches!(filled, Some(Ok(())));
        if fresh {
            let mut open = Open {
                number: state.next_number,
                builder: BatchBuilder::new(self.config.compression, None, room.bytes().max(FIRST_BYTES)),
                completion: Completion::new(),
                since: Instant::now(),
                deadline,
                memory: room.take(0),
            };
            fill(&mut open)?;
            state.next_number += 1;
            state.unfinished.insert(open.number, open.completion.clone());
            state.open.insert(key.clone(), open);
        }
        let Some(open) = state.open.get_mut(&key) else { unreachable!("it was just filled") };
        open.memory.absorb(room);
        let index = places(open.builder.count()) - 1;
        let delivery = Delivery { completion: open.completion.clone(), index, timestamp, seat: Seat::default() };
        let full = open.builder.encoded_len() >= self.config.batch_size;
        if full {
            state.close(&key);
        }
        drop(guard);
        if fresh || full {
            self.wake.notify_one();
        }
        Ok(delivery)
    }

    /// The batches that are full, have lingered or are flushed, sealed; and when the next will have lingered.
    pub(super) fn drain(&self, now: Instant) -> (Vec<(Key, Batch)>, Option<Instant>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let due: Vec<Key> = state
            .open
            .iter()
            .filter(|(_, open)| open.since + self.config.linger <= now || open.number < state.flushed_below)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &due {
            state.close(key);
        }
        let next = state.open.values().map(|open| open.since + self.config.linger).min();
        let ready: Vec<(Key, Open)> = state.full.drain(..).collect();
        drop(guard);
        let mut sealed = Vec::new();
        for (key, open) in ready {
            let count = places(open.builder.count());
            open.completion.sealed(count);
            match open.builder.seal() {
                Ok(batch) => sealed.push((
                    key,
                    Batch {
                        number: open.number,
                        sealed: batch,
                        completion: open.completion,
                        indexes: Indexes::All(count),
                        deadline: open.deadline,
                        stamp: None,
                        in_doubt: false,
                        tries: 0,
                        last_fault: "it waited for its turn".to_owned(),
                        _memory: Arc::new(open.memory),
                    },
                )),
                Err(error) => {
                    let kind = ProduceErrorKind::DeliveryTimeout { last: error.to_string() };
                    let error = failure(&key, Outcome::NotSent, kind);
                    open.completion.set_all(Err(error));
                    self.finished(open.number);
                }
            }
        }
        (sealed, next)
    }

    /// A batch has all its outcomes.
    pub(super) fn finished(&self, number: u64) {
        self.state().unfinished.remove(&number);
    }

    /// Lets nothing that is there linger; returns what is to be waited for.
    pub(super) fn flush(&self) -> Vec<Arc<Completion>> {
        let mut state = self.state();
        state.flushed_below = state.next_number;
        let waiting = state.unfinished.values().cloned().collect();
        drop(state);
        self.wake.notify_one();
        waiting
    }

    /// Tells the task to fail what is left; returns how many batches that is.
    pub(super) fn end(&self) -> usize {
        let mut state = self.state();
        state.ended = true;
        state.flushed_below = state.next_number;
        // One that was settled a moment ago may still be counted there.
        let left = state.unfinished.values().filter(|completion| !completion.is_done()).count();
        drop(state);
        self.wake.notify_one();
        left
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }
}

impl State {
    fn close(&mut self, key: &Key) {
        if let Some(open) = self.open.remove(key) {
            self.full.push_back((key.clone(), open));
        }
        if let Some(sticky) = self.sticky.get_mut(&key.0) {
            sticky.sealed(key.1);
        }
    }
}

pub(super) fn failure(key: &Key, outcome: Outcome, kind: ProduceErrorKind) -> ProduceError {
    ProduceError { topic: key.0.clone(), partition: Some(key.1), outcome, kind }
}

/// Records of a batch; never negative.
fn places(count: i32) -> usize {
    usize::try_from(count).unwrap_or_default()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
