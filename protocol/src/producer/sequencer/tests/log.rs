//! A partition's log as a broker keeps it: what it takes, what it knows again, what it refuses.

use std::collections::VecDeque;

use kafka_protocol::messages::produce_response::BatchIndexAndErrorMessage;

use super::*;
use crate::record::RawBatch;

/// Batches by which a broker knows a repetition.
const KEPT: usize = 5;
/// A batch of more records is too large.
const LARGE: i32 = 4;

/// A record, by the number of its batch and its index.
pub(super) type Id = (u64, usize);

/// Epoch, and first sequence, record count and offset of the last batches.
type Written = (i16, VecDeque<(i32, i32, i64)>);

/// One partition as its replicas have it.
#[derive(Default)]
pub(super) struct Log {
    pub(super) records: Vec<Id>,
    /// By producer id.
    producers: BTreeMap<i64, Written>,
}

impl Log {
    pub(super) fn take(&mut self, bytes: &Bytes) -> PartitionProduceResponse {
        let header = BatchHeader::parse(bytes).expect("whole");
        let records = ids(bytes);
        let culprits = records.iter().enumerate().filter(|(_, id)| is_culprit(**id));
        let named: Vec<_> =
            culprits.map(|(place, _)| BatchIndexAndErrorMessage::default().with_batch_index(place as i32)).collect();
        if header.record_count > LARGE {
            return code(ErrorCode::MESSAGE_TOO_LARGE);
        }
        if !named.is_empty() {
            return code(ErrorCode::INVALID_RECORD).with_record_errors(named);
        }
        let offset = self.records.len() as i64;
        if header.has_producer_id() {
            let (epoch, first, count) = (header.producer_epoch, header.base_sequence, header.record_count);
            if let Some((known, batches)) = self.producers.get(&header.producer_id) {
                if epoch < *known {
                    return code(ErrorCode::INVALID_PRODUCER_EPOCH);
                }
                if epoch == *known
                    && let Some(same) = batches.iter().find(|batch| (batch.0, batch.1) == (first, count))
                {
                    return written(same.2);
                }
                let last = batches.back().filter(|_| epoch == *known);
                if first != last.map_or(0, |last| last.0 + last.1) {
                    return code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
                }
            }
            let producer = self.producers.entry(header.producer_id).or_default();
            if producer.0 != epoch {
                *producer = (epoch, VecDeque::new());
            }
            producer.1.push_back((first, count, offset));
            if producer.1.len() > KEPT {
                producer.1.pop_front();
            }
        }
        self.records.extend(records);
        written(offset)
    }
}

fn is_culprit((number, index): Id) -> bool {
    number % 9 == 4 && index == 1
}

pub(super) fn ids(bytes: &Bytes) -> Vec<Id> {
    let batch = RawBatch::try_from(bytes.clone()).expect("whole");
    assert_eq!(batch.verify_crc(), Ok(()));
    let id = |value: &[u8]| {
        let (number, index) = std::str::from_utf8(value).ok()?.split_once('.')?;
        Some((number.parse().ok()?, index.parse().ok()?))
    };
    let records = batch.records(1 << 20).expect("readable");
    records.iter().map(|record| record.expect("whole").value.and_then(id).expect("two numbers")).collect()
}
