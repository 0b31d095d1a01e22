//! Which batches of a fetch a `read_committed` consumer leaves out (KIP-98).
//!
//! A fetch response names the aborted transactions that touch it, each by producer and first offset; that one ends is told
//! by an abort marker among the batches. Pure, and without looking into data batches. [`AbortedTransactions`] is the main
//! type.

use std::collections::BTreeSet;

use super::{batches::RawBatch, control::ControlType, error::BatchError};

/// The aborted transactions of one partition of one fetch response; asked batch by batch, in order.
#[derive(Debug, Clone, Default)]
pub struct AbortedTransactions {
    /// First offset and producer id of those that no batch has come to yet, the nearest last.
    ahead: Vec<(i64, i64)>,
    /// Producers inside an aborted transaction.
    aborting: BTreeSet<i64>,
}

impl AbortedTransactions {
    /// From the (producer id, first offset) pairs of the response, in any order: not every broker sorts them.
    pub fn new(transactions: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut ahead: Vec<(i64, i64)> =
            transactions.into_iter().map(|(producer_id, first_offset)| (first_offset, producer_id)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self { ahead, aborting: BTreeSet::new() }
    }

    /// Whether the application must not see this batch: it is a marker, or data of an aborted transaction. Must be asked
    /// of every batch of the response, in order. Only a control batch is looked into.
    ///
    /// # Errors
    /// That of [`RawBatch::control_type`] for a malformed marker: whether its transaction was aborted is then not known.
    pub fn skips(&mut self, batch: &RawBatch) -> Result<bool, BatchError> {
        let header = &batch.header;
        if !header.has_producer_id() {
            return Ok(header.is_control());
        }
        let last = header.last_offset();
        while let Some((_, producer_id)) = self.ahead.pop_if(|(first_offset, _)| *first_offset <= last) {
            self.aborting.insert(producer_id);
        }
        if !header.is_control() {
            return Ok(header.is_transactional() && self.aborting.contains(&header.producer_id));
        }
        // Compaction may have emptied it; then it says nothing.
        if header.record_count > 0 && batch.control_type()? == ControlType::Abort {
            self.aborting.remove(&header.producer_id);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchHeader, control_batch};

    /// A batch of three offsets; the payload is not one, so that looking into it would fail.
    fn data(base_offset: i64, producer_id: i64, transactional: bool) -> RawBatch {
        let header = BatchHeader {
            base_offset,
            last_offset_delta: 2,
            record_count: 3,
            attributes: if transactional { 0x14 } else { 0x04 },
            producer_id,
            ..BatchHeader::default()
        };
        RawBatch::assemble(header, b"not zstd").expect("small")
    }

    fn marker(base_offset: i64, producer_id: i64, kind: ControlType) -> RawBatch {
        control_batch(kind, base_offset, 0, producer_id, 0, 0).expect("small")
    }

    fn skipped(transactions: &[(i64, i64)], batches: &[RawBatch]) -> Vec<i64> {
        let mut aborted = AbortedTransactions::new(transactions.iter().copied());
        let skipped = batches.iter().filter(|batch| aborted.skips(batch).expect("readable"));
        skipped.map(|batch| batch.header.base_offset).collect()
    }

    #[test]
    fn data_of_an_aborted_transaction_is_left_out_up_to_its_marker() {
        let batches = [
            data(0, 1, true),
            data(3, 2, true),
            data(6, 1, true),
            marker(9, 1, ControlType::Abort),
            data(10, 1, true),
            marker(13, 2, ControlType::Commit),
            marker(14, 1, ControlType::Commit),
        ];
        assert_eq!(skipped(&[(1, 0)], &batches), [0, 6, 9, 13, 14]);
        assert_eq!(skipped(&[], &batches), [9, 13, 14], "nothing aborted");
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let batches = [
            data(0, 1, true),
            marker(3, 1, ControlType::Abort),
            data(4, 1, true),
            marker(7, 1, ControlType::Commit),
            data(8, 1, true),
            marker(11, 1, ControlType::Abort),
        ];
        let expected = [0, 3, 7, 8, 11];
        assert_eq!(skipped(&[(1, 0), (1, 8)], &batches), expected);
        assert_eq!(skipped(&[(1, 8), (1, 0)], &batches), expected);
    }

    #[test]
    fn a_transaction_that_began_before_the_fetch_counts_from_its_first_batch() {
        assert_eq!(skipped(&[(1, 3)], &[data(100, 1, true), marker(103, 1, ControlType::Abort)]), [100, 103]);
        // It begins within the batch: first_offset <= last_offset.
        assert_eq!(skipped(&[(1, 102)], &[data(100, 1, true)]), [100]);
        assert_eq!(skipped(&[(1, 103)], &[data(100, 1, true)]), [] as [i64; 0]);
    }

    #[test]
    fn only_transactional_batches_of_that_producer_are_left_out() {
        let batches = [data(0, 1, false), data(3, 2, true), data(6, -1, false)];
        assert_eq!(skipped(&[(1, 0)], &batches), [] as [i64; 0]);
    }

    #[test]
    fn a_commit_marker_or_another_producers_abort_ends_nothing() {
        let batches =
            [data(0, 1, true), marker(3, 2, ControlType::Abort), marker(4, 1, ControlType::Commit), data(5, 1, true)];
        assert_eq!(skipped(&[(1, 0)], &batches), [0, 3, 4, 5]);
    }

    #[test]
    fn an_emptied_marker_is_left_out_and_a_malformed_one_is_an_error() {
        let header = BatchHeader { attributes: 0x30, producer_id: 1, ..BatchHeader::default() };
        let emptied = RawBatch::assemble(header, &[]).expect("small");
        assert_eq!(AbortedTransactions::new([]).skips(&emptied), Ok(true));
        let malformed = RawBatch::assemble(BatchHeader { record_count: 1, ..header }, b"\x02\x00").expect("small");
        assert!(AbortedTransactions::new([]).skips(&malformed).is_err());
        let foreign = BatchHeader { attributes: 0x20, ..BatchHeader::default() };
        assert_eq!(AbortedTransactions::new([]).skips(&RawBatch::assemble(foreign, b"?").expect("small")), Ok(true));
    }
}
