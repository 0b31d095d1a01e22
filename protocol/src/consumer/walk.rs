//! One partition's bytes of one answer, batch by batch, on their way into the stream.
//!
//! Only headers and transaction markers are read here; unpacking is the stream's work. [`Walk`] is the main type.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    FaultKind,
    position::Position,
    stream::{BATCH_OVERHEAD, Chunk, Feed},
};
use crate::{
    budget::Reservation,
    record::{AbortedTransactions, BatchError, Batches, RawBatch},
};

pub(super) struct Walk {
    pub(super) aborted: AbortedTransactions,
    pub(super) read_committed: bool,
    pub(super) check_crcs: bool,
    pub(super) end: i64,
    pub(super) memory: Arc<Reservation>,
    /// Where reading goes on; batches below it are left out.
    pub(super) position: Position,
    /// Of the request, see [`Chunk`].
    pub(super) seek: u64,
    pub(super) rewinds: u32,
}

impl Walk {
    /// Hands over every complete batch; returns what stopped it, if not the end.
    pub(super) fn deliver(
        &mut self,
        records: Bytes,
        feed: &Feed,
        chunks: &mpsc::UnboundedSender<Chunk>,
    ) -> Option<(i64, FaultKind)> {
        for batch in Batches::new(records) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Some((self.position.offset, FaultKind::CorruptBatch(error.to_string()))),
            };
            let visible = match self.check(&batch) {
                Ok(visible) => visible,
                Err(error) => return Some((batch.header.base_offset, FaultKind::CorruptBatch(error.to_string()))),
            };
            if batch.header.last_offset() < self.position.offset {
                continue;
            }
            let (offset, next_offset) = (self.position.offset, batch.header.next_offset());
            let epoch = batch.header.partition_leader_epoch;
            self.position = Position { offset: next_offset, epoch };
            let bytes = if visible { batch.bytes.len() } else { 0 } + BATCH_OVERHEAD;
            feed.buffered.fetch_add(bytes, Ordering::AcqRel);
            let chunk = Chunk {
                batch: visible.then_some(batch),
                position: offset,
                next_offset,
                leader_epoch: epoch,
                high_watermark: self.end,
                seek: self.seek,
                rewinds: self.rewinds,
                bytes,
                memory: visible.then(|| self.memory.clone()),
            };
            let _ = chunks.send(chunk);
        }
        None
    }

    /// Whether the application is to see the batch. Asked of every batch: a marker speaks of those after it.
    fn check(&mut self, batch: &RawBatch) -> Result<bool, BatchError> {
        if self.check_crcs {
            batch.verify_crc()?;
        }
        Ok(!if self.read_committed { self.aborted.skips(batch)? } else { batch.header.is_control() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Budget,
        record::{BatchBuilder, BatchHeader, Compression, ControlType, control_batch},
    };

    const PRODUCER: i64 = 1;

    /// A batch of two records of a transaction of [`PRODUCER`].
    fn data(base_offset: i64) -> RawBatch {
        let mut builder = BatchBuilder::new(Compression::None, None, 0).transactional(true);
        for value in [b"a", b"b"] {
            builder.append(0, None, Some(value), &[]).expect("room");
        }
        let mut sealed = builder.seal().expect("two");
        sealed.stamp(PRODUCER, 0, 0);
        let batch = RawBatch::try_from(sealed.bytes()).expect("whole");
        RawBatch::assemble(BatchHeader { base_offset, ..batch.header }, &batch.payload()).expect("small")
    }

    fn marker(kind: ControlType, base_offset: i64) -> RawBatch {
        control_batch(kind, base_offset, 0, PRODUCER, 0, 0).expect("small")
    }

    /// For each chunk where it begins, the offset after it, and whether there is something to see; and what stopped it.
    type Walked = (Vec<(i64, i64, bool)>, Option<i64>);

    fn walk(read_committed: bool, position: i64, aborted: &[(i64, i64)], batches: &[RawBatch]) -> Walked {
        let mut walk = Walk {
            aborted: AbortedTransactions::new(aborted.iter().copied()),
            read_committed,
            check_crcs: true,
            end: 100,
            memory: Arc::new(Budget::new(1000).charge(0)),
            position: Position { offset: position, epoch: -1 },
            seek: 0,
            rewinds: 0,
        };
        let (sender, mut chunks) = mpsc::unbounded_channel();
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
        let stopped = walk.deliver(bytes.into(), &Feed::default(), &sender).map(|(offset, _)| offset);
        let mut walked = Vec::new();
        while let Ok(chunk) = chunks.try_recv() {
            walked.push((chunk.position, chunk.next_offset, chunk.batch.is_some()));
        }
        (walked, stopped)
    }

    #[test]
    fn an_aborted_batch_is_not_seen_and_the_position_passes_it() {
        let batches = [data(5), marker(ControlType::Abort, 7), data(8), marker(ControlType::Commit, 10)];
        let committed = vec![(5, 7, false), (7, 8, false), (8, 10, true), (10, 11, false)];
        assert_eq!(walk(true, 5, &[(PRODUCER, 5)], &batches), (committed, None));
        let uncommitted = vec![(5, 7, true), (7, 8, false), (8, 10, true), (10, 11, false)];
        assert_eq!(walk(false, 5, &[], &batches), (uncommitted, None));
    }

    #[test]
    fn a_marker_below_the_position_still_ends_its_transaction() {
        let batches = [data(5), marker(ControlType::Abort, 7), data(8)];
        assert_eq!(walk(true, 8, &[(PRODUCER, 5)], &batches), (vec![(8, 10, true)], None));
    }

    #[test]
    fn a_batch_that_begins_below_the_position_is_handed_over_from_the_position_on() {
        assert_eq!(walk(true, 6, &[], &[data(5)]), (vec![(6, 7, true)], None));
    }

    #[test]
    fn behind_a_marker_that_cannot_be_read_nothing_is_handed_over() {
        let header = BatchHeader { record_count: 1, ..marker(ControlType::Abort, 7).header };
        let broken = RawBatch::assemble(header, b"\x02\x00").expect("small");
        let batches = [data(5), broken, data(8)];
        assert_eq!(walk(true, 5, &[(PRODUCER, 5)], &batches), (vec![(5, 7, false)], Some(7)));
    }

    #[test]
    fn a_batch_with_another_checksum_is_not_handed_over() {
        let mut changed = data(7);
        let mut bytes = changed.bytes.to_vec();
        bytes[70] ^= 1;
        changed.bytes = bytes.into();
        assert_eq!(walk(true, 5, &[], &[data(5), changed]), (vec![(5, 7, true)], Some(7)));
    }
}
