//! What a partition remembers of idempotent producers (KIP-98): epoch and last batches, by which it tells the next batch from a
//! repeated one and from one that came too early.

use std::collections::{BTreeMap, VecDeque};

use protocol::error_code::ErrorCode;
use protocol::record::BatchHeader;

/// Batches by which a repetition is known; Kafka allows that many in flight.
const BATCHES_KEPT: usize = 5;
/// Producers remembered by a partition; beyond it the one that wrote longest ago is forgotten.
const MAX_PRODUCERS: usize = 10_000;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is in the log already, at this offset and, on a LogAppendTime topic, with this time.
    Duplicate {
        base_offset: i64,
        timestamp: i64,
    },
    Refuse(ErrorCode),
}

#[derive(Debug, Clone, Copy)]
struct Written {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    timestamp: i64,
}

#[derive(Debug, Clone)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Written>,
}

/// All producers that a partition remembers.
#[derive(Debug, Default, Clone)]
pub(crate) struct ProducerStates {
    producers: BTreeMap<i64, Producer>,
}

impl ProducerStates {
    /// Judges a batch of a producer with an id; any other may always be appended.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Verdict {
        let Some(producer) = self.producers.get(&header.producer_id).filter(|_| header.has_producer_id()) else {
            return Verdict::Append;
        };
        let (first, last) = (header.base_sequence, last_sequence(header));
        if header.producer_epoch < producer.epoch {
            return Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if header.producer_epoch > producer.epoch {
            return if first == 0 { Verdict::Append } else { Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) };
        }
        let same = |written: &&Written| (written.first_sequence, written.last_sequence) == (first, last);
        if let Some(written) = producer.batches.iter().find(same) {
            return Verdict::Duplicate { base_offset: written.base_offset, timestamp: written.timestamp };
        }
        let expected = producer.batches.back().map_or(0, |written| after(written.last_sequence));
        if first == expected { Verdict::Append } else { Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) }
    }

    /// Remembers a batch that was appended at its base offset.
    pub(crate) fn record(&mut self, header: &BatchHeader, timestamp: i64) {
        if !header.has_producer_id() || header.is_control() {
            return;
        }
        let epoch = header.producer_epoch;
        let producer =
            self.producers.entry(header.producer_id).or_insert_with(|| Producer { epoch, batches: VecDeque::new() });
        if producer.epoch != epoch {
            *producer = Producer { epoch, batches: VecDeque::new() };
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Written {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            base_offset: header.base_offset,
            timestamp,
        });
        if self.producers.len() > MAX_PRODUCERS {
            let last_write = |producer: &Producer| producer.batches.back().map(|written| written.base_offset);
            let oldest = self.producers.iter().min_by_key(|(_, producer)| last_write(producer)).map(|(id, _)| *id);
            if let Some(id) = oldest {
                self.producers.remove(&id);
            }
        }
    }
}

/// Sequences go on at 0 after 2^31 - 1.
fn after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

fn last_sequence(header: &BatchHeader) -> i32 {
    let last = i64::from(header.base_sequence) + i64::from(header.last_offset_delta);
    let wrapped = if last > i64::from(i32::MAX) { last - i64::from(i32::MAX) - 1 } else { last };
    i32::try_from(wrapped).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT_OF_ORDER: Verdict = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    const FENCED: Verdict = Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);

    fn batch(epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        BatchHeader {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
            last_offset_delta: count - 1,
            ..BatchHeader::default()
        }
    }

    /// Appends batches of 10 records, sequences 0 to 69, in epoch 3; the offsets are the sequences plus 100.
    fn seven_batches() -> ProducerStates {
        let mut states = ProducerStates::default();
        for sequence in (0..70).step_by(10) {
            let header = BatchHeader { base_offset: 100 + i64::from(sequence), ..batch(3, sequence, 10) };
            assert_eq!(states.judge(&header), Verdict::Append);
            states.record(&header, -1);
        }
        states
    }

    #[test]
    fn a_batch_is_next_or_repeated_or_out_of_order() {
        let states = seven_batches();
        let duplicate = |base_offset| Verdict::Duplicate { base_offset, timestamp: -1 };
        let rows = [
            ("the next one", batch(3, 70, 5), Verdict::Append),
            ("one too early", batch(3, 80, 10), OUT_OF_ORDER),
            ("the last one again", batch(3, 60, 10), duplicate(160)),
            ("the fifth last again", batch(3, 20, 10), duplicate(120)),
            ("the sixth last again", batch(3, 10, 10), OUT_OF_ORDER),
            ("the last one, but shorter", batch(3, 60, 9), OUT_OF_ORDER),
            ("from the start in the same epoch", batch(3, 0, 1), OUT_OF_ORDER),
            ("an older epoch", batch(2, 70, 1), FENCED),
            ("an older epoch, repeating", batch(2, 60, 10), FENCED),
            ("a newer epoch from the start", batch(4, 0, 1), Verdict::Append),
            ("a newer epoch in the middle", batch(4, 70, 1), OUT_OF_ORDER),
            ("another producer, anywhere", BatchHeader { producer_id: 8, ..batch(0, 33, 1) }, Verdict::Append),
            ("no producer id", BatchHeader { producer_id: -1, ..batch(-1, -1, 1) }, Verdict::Append),
        ];
        for (name, header, verdict) in rows {
            assert_eq!(states.judge(&header), verdict, "{name}");
        }
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let mut states = seven_batches();
        states.record(&batch(4, 0, 10), -1);
        assert_eq!(states.judge(&batch(4, 60, 10)), OUT_OF_ORDER);
        assert_eq!(states.judge(&batch(4, 10, 1)), Verdict::Append);
        assert_eq!(states.judge(&batch(3, 70, 1)), FENCED);
    }

    #[test]
    fn sequences_go_on_at_zero_after_the_largest() {
        for (sequence, count, next) in [(i32::MAX - 9, 10, 0), (i32::MAX - 4, 10, 5), (i32::MAX, 1, 0)] {
            let mut states = ProducerStates::default();
            states.record(&batch(0, sequence, count), -1);
            assert_eq!(states.judge(&batch(0, next, 1)), Verdict::Append, "after {sequence} and {count}");
            assert_eq!(states.judge(&batch(0, next + 1, 1)), OUT_OF_ORDER);
            let again = Verdict::Duplicate { base_offset: 0, timestamp: -1 };
            assert_eq!(states.judge(&batch(0, sequence, count)), again);
        }
    }
}
