//! Records on their way into batches: one open batch per partition, filled in place by those who send.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Delivery, Outcome, ProduceErrorKind, ProduceRecord, ProducerConfig,
    batch::{Batch, Key, failure},
    completion::{Completion, Seat},
    partitioner::{self, Sticky},
};
use crate::{budget::Reservation, cluster::Partition, record::BatchBuilder};

/// What a batch reserves at first, if its first record takes no more.
const FIRST_BYTES: usize = 1024;

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

impl Shared {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self { config, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record into the open batch of its partition; returns what becomes of it. `partitions` are those of its topic;
    /// `deadline` is asked for if the record begins a batch.
    ///
    /// # Errors
    /// When it is larger than any batch can be, or nothing is sent any more.
    pub(super) fn append(
        &self,
        record: &ProduceRecord,
        partitions: &[Partition],
        deadline: impl FnOnce() -> Instant,
        room: Reservation,
    ) -> Result<Delivery, ProduceErrorKind> {
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let fill = |builder: &mut BatchBuilder| {
            builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers)
        };
        let mut guard = self.state();
        let state = &mut *guard;
        if state.ended {
            return Err(ProduceErrorKind::Closed);
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
                return Ok(delivery);
            }
            state.full.extend(filling.close(&record.topic, partition));
        }
        let expected = room.bytes().max(FIRST_BYTES).max(filling.last_bytes);
        let mut builder = BatchBuilder::new(self.config.compression, None, expected);
        fill(&mut builder).map_err(|_| {
            let limit = Some(BatchBuilder::MAX_BYTES);
            ProduceErrorKind::TooLarge { size: room.bytes(), limit }
        })?;
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
        Ok(delivery)
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
                Ok(batch) => {
                    let batch = Batch::new(open.number, batch, open.completion, count, open.deadline, open.memory);
                    sealed.push((key, batch));
                }
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

    /// Forgets what it knows of a topic that was not written to for long.
    pub(super) fn forget(&self, topic: &str) {
        let mut state = self.state();
        if state.topics.get(topic).is_some_and(|filling| filling.open.is_empty()) {
            state.topics.remove(topic);
        }
    }

    /// Takes nothing more, and tells the task to fail what is left; returns how many batches that is.
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
    use crate::{budget::Budget, error_code::ErrorCode, producer::completion::Written};

    #[test]
    fn at_the_end_a_batch_that_has_its_outcome_is_not_left() {
        let shared = Shared::new(ProducerConfig::default());
        let record = ProduceRecord { topic: "t".into(), partition: Some(0), ..ProduceRecord::default() };
        let (leader, leader_epoch, error) = (Some(1), 0, ErrorCode::NONE);
        let partitions = [Partition { index: 0, leader, leader_epoch, error, replicas: vec![1] }];
        let append = || shared.append(&record, &partitions, Instant::now, Budget::new(100).charge(50));
        append().expect("small");
        shared.flush();
        let (sealed, _) = shared.drain(Instant::now(), |_, _| false);
        let [(_, batch)] = &sealed[..] else { panic!("{} batches", sealed.len()) };
        let written = Written { partition: 0, offset: Some(0), append_time: None };
        assert_eq!(batch.settlement(Ok(written)).tell(), Some(0), "it has its end");
        append().expect("not ended");
        assert_eq!(shared.end(), 1, "only the second");
        assert_eq!(append().err(), Some(ProduceErrorKind::Closed), "nobody would send it");
    }
}
