//! Which batches a read_committed reader must not see.

use std::collections::{BTreeSet, VecDeque};

use super::BatchHeader;

/// A transaction that was aborted, as a fetch answer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// The aborted transactions of one partition of one fetch answer. Batches are asked about in the order of their offsets.
#[derive(Debug)]
pub struct AbortedTransactions {
    /// By first offset: not every broker sorts them.
    ahead: VecDeque<AbortedTransaction>,
    open: BTreeSet<i64>,
}

impl AbortedTransactions {
    pub fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        Self { ahead: aborted.into(), open: BTreeSet::new() }
    }

    /// Whether this data batch belongs to an aborted transaction. Told from the header alone: nothing is unpacked.
    pub fn hides(&mut self, header: &BatchHeader) -> bool {
        while let Some(next) = self.ahead.front()
            && next.first_offset <= header.last_offset()
        {
            self.open.insert(next.producer_id);
            self.ahead.pop_front();
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }

    /// The producer's abort marker was met: what it writes later is of another transaction.
    pub fn ended(&mut self, producer_id: i64) {
        self.open.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::header::TRANSACTIONAL;

    fn header(offset: i64, producer_id: i64, attributes: i16) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            length: 0,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            record_count: 1,
        }
    }

    #[test]
    fn aborted_batches_are_hidden_until_their_marker_also_from_an_unsorted_list() {
        let transaction = |producer_id, first_offset| AbortedTransaction { producer_id, first_offset };
        let mut aborted = AbortedTransactions::new(vec![transaction(2, 10), transaction(1, 3), transaction(1, 20)]);
        assert!(!aborted.hides(&header(2, 1, TRANSACTIONAL)), "before its first offset");
        assert!(aborted.hides(&header(3, 1, TRANSACTIONAL)));
        assert!(!aborted.hides(&header(4, 1, 0)), "not transactional");
        assert!(!aborted.hides(&header(5, 2, TRANSACTIONAL)), "another producer");
        aborted.ended(1);
        assert!(!aborted.hides(&header(7, 1, TRANSACTIONAL)), "a later transaction of the same producer");
        assert!(aborted.hides(&header(10, 2, TRANSACTIONAL)));
        assert!(aborted.hides(&header(20, 1, TRANSACTIONAL)));
    }
}
