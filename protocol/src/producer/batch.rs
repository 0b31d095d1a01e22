//! A sealed batch on its way, and what became of it.
//!
//! [`Batch`] is the main type: its bytes, its place, and what is known of its tries. It does not know when it is sent.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Outcome, ProduceError, ProduceErrorKind,
    completion::{self, Completion},
};
use crate::{
    budget::Reservation,
    record::{BatchError, SealedBatch},
};

/// A partition: its topic, its index.
pub(super) type Key = (Arc<str>, i32);
/// The number of a batch as it was filled, and the index of its first record in that.
pub(super) type Place = (u64, usize);
/// Producer id and epoch.
pub(super) type Identity = (i64, i16);

/// By what a broker tells the next batch from a repeated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) identity: Identity,
    /// Of its first record.
    pub(super) sequence: i32,
}

/// A sealed batch that waits for its outcome.
pub(super) struct Batch {
    number: u64,
    sealed: SealedBatch,
    completion: Arc<Completion>,
    indexes: Indexes,
    pub(super) deadline: Instant,
    stamp: Option<Stamp>,
    /// What its tries so far may have come to.
    fate: Outcome,
    tries: u32,
    /// Its records were told its end already; it only keeps its place in the sequence.
    pub(super) given_up: bool,
    memory: Option<Arc<Reservation>>,
}

/// Of the records of a batch, their index in the batch as it was filled.
#[derive(Debug, Clone)]
enum Indexes {
    /// It is that batch, of so many records.
    All(usize),
    /// It is a part of it.
    Part(Vec<usize>),
}

/// The end of some records of a batch.
#[derive(Debug)]
pub(super) struct Settlement {
    number: u64,
    completion: Arc<Completion>,
    indexes: Indexes,
    /// Where the first of them was written, or why none was.
    pub(super) outcome: completion::Outcome,
}

impl Indexes {
    fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::Part(indexes) => indexes.len(),
        }
    }

    fn get(&self, place: usize) -> Option<usize> {
        match self {
            Self::All(count) => (place < *count).then_some(place),
            Self::Part(indexes) => indexes.get(place).copied(),
        }
    }

    /// In order, each with its place in this batch.
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len()).filter_map(|place| Some((place, self.get(place)?)))
    }
}

impl Batch {
    /// A batch of `count` records as it was filled.
    pub(super) fn new(
        number: u64,
        sealed: SealedBatch,
        completion: Arc<Completion>,
        count: usize,
        deadline: Instant,
        memory: Option<Reservation>,
    ) -> Self {
        Self {
            number,
            sealed,
            completion,
            indexes: Indexes::All(count),
            deadline,
            stamp: None,
            fate: Outcome::NotSent,
            tries: 0,
            given_up: false,
            memory: memory.map(Arc::new),
        }
    }

    pub(super) fn sealed(&self) -> &SealedBatch {
        &self.sealed
    }

    pub(super) fn records(&self) -> usize {
        self.indexes.len()
    }

    /// Its place among the batches of its partition: parts of a divided batch share their number.
    pub(super) fn place(&self) -> Place {
        (self.number, self.indexes.get(0).unwrap_or_default())
    }

    /// How often it was sent.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    pub(super) fn tried(&mut self) {
        self.tries += 1;
    }

    pub(super) fn fate(&self) -> Outcome {
        self.fate
    }

    /// What one more try came to. A doubt stays, whatever a later try says.
    pub(super) fn learn(&mut self, outcome: Outcome) {
        self.fate = self.fate.max(outcome);
    }

    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    pub(super) fn set_stamp(&mut self, stamp: Stamp) {
        let (id, epoch) = stamp.identity;
        self.sealed.stamp(id, epoch, stamp.sequence);
        self.stamp = Some(stamp);
    }

    /// To be stamped anew before it is sent again.
    pub(super) fn unstamp(&mut self) {
        self.stamp = None;
    }

    /// The end of all its records; those that have one already keep it.
    pub(super) fn settlement(&self, outcome: completion::Outcome) -> Settlement {
        self.settlement_of(self.indexes.clone(), outcome)
    }

    /// That all its records failed.
    pub(super) fn failure(&self, key: &Key, outcome: Outcome, kind: ProduceErrorKind) -> Settlement {
        self.settlement(Err(failure(key, outcome, kind)))
    }

    /// The end of the one record at `place`, if there is one.
    pub(super) fn settlement_at(&self, place: usize, outcome: completion::Outcome) -> Option<Settlement> {
        Some(self.settlement_of(Indexes::Part(vec![self.indexes.get(place)?]), outcome))
    }

    fn settlement_of(&self, indexes: Indexes, outcome: completion::Outcome) -> Settlement {
        Settlement { number: self.number, completion: self.completion.clone(), indexes, outcome }
    }

    /// Sorts its records, told by their place, into new batches, which take over its sequence numbers as far as they go;
    /// those for which `part` says None are left out.
    ///
    /// # Errors
    /// Those of [`SealedBatch::divide`].
    pub(super) fn divide(&self, part: impl Fn(usize) -> Option<usize>) -> Result<Vec<Batch>, BatchError> {
        let mut stamp = self.stamp;
        let mut parts = Vec::new();
        // Parts come in the order of their numbers, and none is empty.
        let mut numbers: Vec<usize> = (0..self.records()).filter_map(&part).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for (number, sealed) in numbers.into_iter().zip(self.sealed.divide(&part)?) {
            let of_part = |(place, index)| (part(place) == Some(number)).then_some(index);
            let mut batch = Batch {
                sealed,
                completion: self.completion.clone(),
                indexes: Indexes::Part(self.indexes.iter().filter_map(of_part).collect()),
                stamp: None,
                memory: self.memory.clone(),
                ..*self
            };
            if let Some(first) = stamp {
                batch.set_stamp(first);
                stamp = Some(Stamp { sequence: advance(first.sequence, batch.sealed.count()), ..first });
            }
            parts.push(batch);
        }
        Ok(parts)
    }
}

impl Settlement {
    /// Tells everybody who waits for one of these records. Returns the batch's number if all its records have their end.
    pub(super) fn tell(self) -> Option<u64> {
        match &self.indexes {
            Indexes::All(_) => self.completion.set_all(self.outcome),
            Indexes::Part(_) => {
                let at = |place| self.outcome.clone().map(|first| first.at(place));
                self.completion.set(self.indexes.iter().map(|(place, index)| (index, at(place))));
            }
        }
        self.completion.is_done().then_some(self.number)
    }

    /// The batch's number, and of its records as it was filled the indexes of these.
    #[cfg(test)]
    pub(super) fn records(&self) -> (u64, Vec<usize>) {
        (self.number, self.indexes.iter().map(|(_, index)| index).collect())
    }
}

pub(super) fn failure(key: &Key, outcome: Outcome, kind: ProduceErrorKind) -> ProduceError {
    ProduceError { topic: key.0.clone(), partition: Some(key.1), outcome, kind }
}

/// The sequence number after so many records; they wrap to 0 after the largest.
pub(super) fn advance(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX - 1, 3), 1);
        assert_eq!(advance(i32::MAX, 1), 0);
    }
}
