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
    cluster::Partition,
    record::{BatchBuilder, BatchError, SealedBatch},
};

/// What a batch reserves at first, if its first record takes no more.
const FIRST_BYTES: usize = 1024;

pub(super) type Key = (Arc<str>, i32);
/// The number of a batch as it was filled, and the index of its first record in that.
pub(super) type Place = (u64, usize);

/// What senders and the task have in common. The lock is held for one record at a time, never across an await.
pub(super) struct Shared {
    pub(super) config: ProducerConfig,
    state: Mutex<State>,
    pub(super) wake: Notify,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Arc<str>, Filling>,
    full: VecDeque<(Key, Open)>,
    /// Batches without an outcome, by number.
    unfinished: BTreeMap<u64, Arc<Completion>>,
    next_number: u64,
    /// Batches with a lower number do not linger.
    flushed_below: u64,
    ended: bool,
}

/// What is being filled of one topic.
#[derive(Default)]
struct Filling {
    /// By partition.
    open: BTreeMap<i32, Open>,
    sticky: Sticky,
    /// What the last batch took: the next is likely to take as much, and need not grow to it.
    last_bytes: usize,
}

struct Open {
    number: u64,
    builder: BatchBuilder,
    completion: Arc<Completion>,
    since: Instant,
    deadline: Instant,
    /// None before its first record.
    memory: Option<Reservation>,
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
    /// What is known of its tries so far, all together.
    pub(super) outcome: Outcome,
    pub(super) tries: u32,
    pub(super) last_fault: String,
    pub(super) _memory: Option<Arc<Reservation>>,
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

impl Batch {
    /// Its place among the batches of its partition: parts of a divided batch share their number.
    pub(super) fn place(&self) -> Place {
        (self.number, self.indexes.get(0).unwrap_or_default())
    }

    /// A try ended so.
    pub(super) fn tried(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }

    /// Producer id and epoch that it was last stamped with.
    pub(super) fn identity(&self) -> Option<(i64, i16)> {
        self.stamp.map(|(id, epoch, _)| (id, epoch))
    }
}

impl Shared {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self { config, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record into the open batch of its partition; returns what becomes of it, or None when nothing is taken any
    /// more. `partitions` are those of its topic; `deadline` is asked for if the record begins a batch.
    ///
    /// # Errors
    /// When it is larger than any batch can be.
    pub(super) fn append(
        &self,
        record: &ProduceRecord,
        partitions: &[Partition],
        deadline: impl FnOnce() -> Instant,
        room: Reservation,
    ) -> Result<Option<Delivery>, BatchError> {
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let fill = |builder: &mut BatchBuilder| {
            builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers)
        };
        let mut guard = self.state();
        let state = &mut *guard;
        if state.ended {
            return Ok(None);
        }
        if !state.topics.contains_key(&record.topic) {
            state.topics.insert(record.topic.clone(), Filling::default());
        }
        let Some(filling) = state.topics.get_mut(&record.topic) else { unreachable!("it was just put there") };
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::of_key(key, partitions.len()),
            (None, None) => filling.sticky.choose(partitions),
        };
        let limit = self.config.batch_size;
        if let Some(open) = filling.open.get_mut(&partition) {
            // An error: its timestamps are too far from this one's. Then, too, the next batch takes it.
            if open.builder.encoded_len() + room.bytes() <= limit && fill(&mut open.builder).is_ok() {
                let delivery = open.took(timestamp, room);
                if open.builder.encoded_len() >= limit {
                    state.full.extend(filling.close(&record.topic, partition));
                    drop(guard);
                    self.wake.notify_one();
                }
                return Ok(Some(delivery));
            }
            state.full.extend(filling.close(&record.topic, partition));
        }
        let expected = room.bytes().max(FIRST_BYTES).max(filling.last_bytes);
        let mut builder = BatchBuilder::new(self.config.compression, None, expected);
        fill(&mut builder)?;
        let mut open = Open {
            number: state.next_number,
            builder,
            completion: Completion::new(),
            since: Instant::now(),
            deadline: deadline(),
            memory: None,
        };
        let delivery = open.took(timestamp, room);
        state.next_number += 1;
        state.unfinished.insert(open.number, open.completion.clone());
        let full = open.builder.encoded_len() >= limit;
        filling.open.insert(partition, open);
        if full {
            state.full.extend(filling.close(&record.topic, partition));
        }
        drop(guard);
        self.wake.notify_one();
        Ok(Some(delivery))
    }

    /// The batches that are full, flushed, over their deadline, or have lingered and can go; sealed, and when the next is to
    /// be looked at. One whose partition is `busy` goes on being filled: sealed, it would wait for its turn with what it has,
    /// and a partition whose broker is slow for a moment would work off a queue of batches of one record each.
    pub(super) fn drain(
        &self,
        now: Instant,
        busy: impl Fn(&Arc<str>, i32) -> bool,
    ) -> (Vec<(Key, Batch)>, Option<Instant>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut next: Option<Instant> = None;
        for (topic, filling) in &mut state.topics {
            let mut due = Vec::new();
            for (partition, open) in &filling.open {
                let until = if busy(topic, *partition) { open.deadline } else { open.since + self.config.linger };
                if until <= now || open.number < state.flushed_below {
                    due.push(*partition);
                } else {
                    next = next.into_iter().chain([until]).min();
                }
            }
            for partition in due {
                state.full.extend(filling.close(topic, partition));
            }
        }
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
                        outcome: Outcome::NotSent,
                        tries: 0,
                        last_fault: "it waited for its turn".to_owned(),
                        _memory: open.memory.map(Arc::new),
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
        // Who waited for an outcome may be here before its batch is struck off the list.
        let left = state.unfinished.values().filter(|completion| !completion.is_done()).count();
        drop(state);
        self.wake.notify_one();
        left
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }
}

impl Filling {
    /// Ends the open batch of a partition.
    fn close(&mut self, topic: &Arc<str>, partition: i32) -> Option<(Key, Open)> {
        let open = self.open.remove(&partition)?;
        self.last_bytes = open.builder.encoded_len();
        self.sticky.sealed(partition);
        Some(((topic.clone(), partition), open))
    }
}

impl Open {
    /// A record was appended, for which `room` was taken.
    fn took(&mut self, timestamp: i64, room: Reservation) -> Delivery {
        match &mut self.memory {
            Some(memory) => memory.absorb(room),
            None => self.memory = Some(room),
        }
        let index = places(self.builder.count()) - 1;
        Delivery { completion: self.completion.clone(), index, timestamp, seat: Seat::default() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{budget::Budget, error_code::ErrorCode};

    #[test]
    fn at_the_end_a_batch_that_has_its_outcome_is_not_left() {
        let shared = Shared::new(ProducerConfig::default());
        let record = ProduceRecord { topic: "t".into(), partition: Some(0), ..ProduceRecord::default() };
        let (leader, leader_epoch, error) = (Some(1), 0, ErrorCode::NONE);
        let partitions = [Partition { index: 0, leader, leader_epoch, error, replicas: vec![1] }];
        let append = || shared.append(&record, &partitions, Instant::now, Budget::new(100).charge(50)).expect("small");
        assert!(append().is_some());
        shared.flush();
        let (sealed, _) = shared.drain(Instant::now(), |_, _| false);
        let [(_, batch)] = &sealed[..] else { panic!("{} batches", sealed.len()) };
        batch.settle(Ok(completion::Written { partition: 0, offset: Some(0), append_time: None }));
        assert!(append().is_some());
        assert_eq!(shared.end(), 1, "only the second");
        assert!(append().is_none(), "nobody would ever send it");
    }
}
