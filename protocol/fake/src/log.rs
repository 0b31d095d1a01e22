//! The log of one partition: batches by offset, where it begins, and what of it may be read.
//!
//! Batches are kept as they came but for what a broker sets: base offset, leader epoch and, on a LogAppendTime topic, the time.
//! [`PartitionLog`] is the main type.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use protocol::record::{BatchHeader, ControlType, RawBatch};

use crate::epochs::LeaderEpochs;
use crate::producer_state::{ProducerStates, Verdict};

/// Bytes to which a batch is decompressed when records are searched by time.
const MAX_DECOMPRESSED: usize = 128 << 20;

/// A batch that was aborted, as a fetch for committed records names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    last_offset: i64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// Milliseconds since the epoch; -1 unless the topic has LogAppendTime.
    pub(crate) log_append_time: i64,
}

/// Where a read begins and how much it may bring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) offset: i64,
    /// The offset before which to stop: the high watermark or the last stable offset.
    pub(crate) before: i64,
    pub(crate) max_bytes: usize,
    /// Whether the first batch comes whole even if it is larger than `max_bytes`.
    pub(crate) whole_first: bool,
}

/// The log of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<RawBatch>,
    bytes: usize,
    start: i64,
    end: i64,
    pub(crate) epochs: LeaderEpochs,
    producers: ProducerStates,
    /// Producer and first offset of transactions without a marker yet.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

impl PartitionLog {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset that the next record gets; the high watermark as well, since all replicas share this log.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The offset before which no transaction is open.
    pub(crate) fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = &RawBatch> {
        self.batches.iter()
    }

    /// Appends a batch that was found valid, unless its producer sent it before or may not send it now.
    ///
    /// `log_append_time` is the broker's time if that counts on this topic.
    pub(crate) fn append(
        &mut self,
        batch: &RawBatch,
        leader_epoch: i32,
        log_append_time: Option<i64>,
        max_timestamp: i64,
    ) -> Result<Appended, ErrorCode> {
        match self.producers.judge(&batch.header) {
            Verdict::Append => {}
            Verdict::Duplicate { base_offset, timestamp } => {
                return Ok(Appended { base_offset, log_append_time: timestamp });
            }
            Verdict::Refuse(code) => return Err(code),
        }
        let mut header = BatchHeader { base_offset: self.end, partition_leader_epoch: leader_epoch, ..batch.header };
        header.set_log_append_time(log_append_time.is_some());
        header.max_timestamp = log_append_time.unwrap_or(max_timestamp);
        let stored = RawBatch::assemble(header, &batch.payload()).map_err(|_| ErrorCode::MESSAGE_TOO_LARGE)?;
        let log_append_time = log_append_time.unwrap_or(-1);
        let base_offset = header.base_offset;
        self.producers.record(&stored.header, log_append_time);
        self.push(stored);
        Ok(Appended { base_offset, log_append_time })
    }

    /// Stores bytes without any check, as the next batch; only its base offset and leader epoch are set, and only if it is long
    /// enough to have them. `header` says what the log takes it for.
    pub(crate) fn plant(&mut self, header: BatchHeader, mut bytes: Vec<u8>) {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = header.base_offset.to_be_bytes();
        }
        if let Some(place) = bytes.get_mut(12..16) {
            place.copy_from_slice(&header.partition_leader_epoch.to_be_bytes());
        }
        self.push(RawBatch { header, bytes: bytes.into() });
    }

    fn push(&mut self, batch: RawBatch) {
        let header = batch.header;
        if header.is_transactional() && !header.is_control() {
            self.open.entry(header.producer_id).or_insert(header.base_offset);
        } else if header.is_control()
            && let Some(first_offset) = self.open.remove(&header.producer_id)
            && batch.control_type() == Ok(ControlType::Abort)
        {
            let (producer_id, last_offset) = (header.producer_id, header.last_offset());
            self.aborted.push(Aborted { producer_id, first_offset, last_offset });
        }
        self.epochs.begin(header.partition_leader_epoch, header.base_offset);
        self.bytes += batch.bytes.len();
        self.end = header.next_offset();
        self.batches.push_back(batch);
    }

    /// Removes the oldest batches until at most `max_bytes` are left; the newest batch stays.
    pub(crate) fn retain_bytes(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes && self.batches.len() > 1 {
            if let Some(batch) = self.batches.pop_front() {
                self.bytes -= batch.bytes.len();
                self.start = self.start.max(batch.header.next_offset());
            }
        }
        self.forget_before_start();
    }

    /// Moves the log start up to `offset`, at most to the end.
    pub(crate) fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.header.last_offset() < self.start) {
            self.bytes -= batch.bytes.len();
        }
        self.forget_before_start();
    }

    fn forget_before_start(&mut self) {
        self.epochs.advance(self.start);
        self.aborted.retain(|aborted| aborted.last_offset >= self.start);
    }

    /// Loses everything from `offset` on, as a partition does whose new leader never had it. A batch that spans `offset` goes whole.
    pub(crate) fn truncate(&mut self, offset: i64) {
        let offset = offset.max(self.start);
        while let Some(batch) = self.batches.pop_back_if(|batch| batch.header.last_offset() >= offset) {
            self.bytes -= batch.bytes.len();
            self.end = batch.header.base_offset.max(self.start);
        }
        self.epochs.truncate(self.end);
        self.producers = ProducerStates::default();
        for batch in &self.batches {
            let header = &batch.header;
            self.producers.record(header, if header.is_log_append_time() { header.max_timestamp } else { -1 });
        }
        self.open.retain(|_, first| *first < self.end);
        self.aborted.retain(|aborted| aborted.last_offset < self.end);
    }

    /// The index of the batch that holds `offset` or, where compaction left a gap, the next one.
    fn index_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.header.last_offset() < offset)
    }

    /// Bytes that a read would find, counted up to `reading.max_bytes`.
    pub(crate) fn available(&self, reading: &Reading) -> usize {
        let mut bytes = 0;
        for batch in self.batches.range(self.index_of(reading.offset)..) {
            if batch.header.base_offset >= reading.before || bytes >= reading.max_bytes {
                break;
            }
            bytes += batch.bytes.len();
        }
        bytes.min(reading.max_bytes)
    }

    /// Batches from the one that holds the offset on, cut at `max_bytes` wherever that falls: the last one may be partial, but a
    /// first one that does not fit is left out or comes whole.
    pub(crate) fn read(&self, reading: &Reading) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut left = reading.max_bytes;
        for batch in self.batches.range(self.index_of(reading.offset)..) {
            let bytes = &batch.bytes;
            if batch.header.base_offset >= reading.before || left == 0 && !(pieces.is_empty() && reading.whole_first) {
                break;
            }
            if bytes.len() <= left {
                left -= bytes.len();
                pieces.push(bytes.clone());
            } else {
                if !pieces.is_empty() {
                    pieces.push(bytes.slice(..left));
                } else if reading.whole_first {
                    pieces.push(bytes.clone());
                }
                break;
            }
        }
        pieces
    }

    /// Aborted transactions that have to do with offsets from `offset` to below `before`.
    pub(crate) fn aborted_within(&self, offset: i64, before: i64) -> Vec<Aborted> {
        let overlaps = |aborted: &&Aborted| aborted.last_offset >= offset && aborted.first_offset < before;
        self.aborted.iter().filter(overlaps).copied().collect()
    }

    /// Offset and time of the first record that is not older than `timestamp`.
    pub(crate) fn first_since(&self, timestamp: i64) -> Option<(i64, i64)> {
        self.records_with(|batch_max| batch_max >= timestamp)
            .find(|(offset, time)| *time >= timestamp && *offset >= self.start)
    }

    /// Offset and time of the first of the newest records.
    pub(crate) fn newest(&self) -> Option<(i64, i64)> {
        let newest = self.batches.iter().map(|batch| batch.header.max_timestamp).max()?;
        self.records_with(move |batch_max| batch_max >= newest).find(|(_, time)| *time >= newest)
    }

    fn records_with(&self, batch_max: impl Fn(i64) -> bool) -> impl Iterator<Item = (i64, i64)> {
        let candidates = self.batches.iter().filter(move |batch| batch_max(batch.header.max_timestamp));
        candidates.filter(|batch| !batch.header.is_control()).flat_map(|batch| {
            let records = batch.records(MAX_DECOMPRESSED).ok();
            let times = records.map(|records| {
                let known = records.iter().map_while(Result::ok);
                known.map(|record| (record.offset, record.timestamp)).collect::<Vec<_>>()
            });
            times.unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::record::{BatchBuilder, Compression, control_batch};

    use super::*;

    fn batch(records: usize, timestamp: i64) -> RawBatch {
        let mut builder = BatchBuilder::new(Compression::None, None, 0);
        for i in 0..records {
            builder.append(timestamp + i as i64, None, Some(&[7; 30]), &[]).expect("room");
        }
        RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole")
    }

    fn append(log: &mut PartitionLog, records: usize, timestamp: i64) {
        let batch = batch(records, timestamp);
        log.append(&batch, 0, None, batch.header.max_timestamp).expect("no producer");
    }

    /// Five batches of two records each, times 1000, 1001, 2000, 2001, …
    fn log() -> PartitionLog {
        let mut log = PartitionLog::default();
        for i in 1..=5 {
            append(&mut log, 2, 1000 * i);
        }
        log
    }

    fn lengths(log: &PartitionLog, offset: i64, before: i64, max_bytes: usize, whole_first: bool) -> Vec<usize> {
        let pieces = log.read(&Reading { offset, before, max_bytes, whole_first });
        pieces.iter().map(Bytes::len).collect()
    }

    #[test]
    fn a_read_ends_in_a_partial_batch_but_never_begins_with_one() {
        let log = log();
        let one = log.batches[0].bytes.len();
        let rows = [
            (0, 10, usize::MAX, true, vec![one; 5]),
            (3, 10, usize::MAX, true, vec![one; 4]),
            (3, 8, usize::MAX, true, vec![one; 3]),
            (0, 10, one + 20, true, vec![one, 20]),
            (0, 10, one, true, vec![one]),
            (0, 10, one - 1, true, vec![one]),
            (0, 10, 0, true, vec![one]),
            (0, 10, one - 1, false, vec![]),
            (0, 10, 0, false, vec![]),
            (10, 10, usize::MAX, true, vec![]),
        ];
        for (offset, before, max_bytes, whole_first, expected) in rows {
            let found = lengths(&log, offset, before, max_bytes, whole_first);
            assert_eq!(found, expected, "offset {offset} before {before}, at most {max_bytes}");
        }
    }

    #[test]
    fn retention_moves_the_start_and_keeps_the_newest_batch() {
        let mut log = log();
        let one = log.batches[0].bytes.len();
        log.retain_bytes(one * 2 + 10);
        assert_eq!((log.start(), log.end(), log.batches.len()), (6, 10, 2));
        log.retain_bytes(0);
        assert_eq!((log.start(), log.end(), log.batches.len()), (8, 10, 1));
    }

    #[test]
    fn the_start_can_be_inside_a_batch() {
        let mut log = log();
        log.delete_before(3);
        assert_eq!((log.start(), log.batches.len()), (3, 4));
        assert_eq!(log.first_since(0), Some((3, 2001)), "what was deleted is not found by time");
        log.delete_before(99);
        assert_eq!((log.start(), log.end(), log.batches.len()), (10, 10, 0));
    }

    #[test]
    fn truncation_takes_the_batch_that_spans_the_offset() {
        let mut log = log();
        log.truncate(5);
        assert_eq!((log.end(), log.batches.len()), (4, 2));
        append(&mut log, 1, 9000);
        assert_eq!(log.end(), 5);
    }

    #[test]
    fn records_are_found_by_time() {
        let log = log();
        let rows = [
            (0, Some((0, 1000))),
            (1001, Some((1, 1001))),
            (1002, Some((2, 2000))),
            (5001, Some((9, 5001))),
            (5002, None),
        ];
        for (timestamp, expected) in rows {
            assert_eq!(log.first_since(timestamp), expected, "{timestamp}");
        }
        assert_eq!(log.newest(), Some((9, 5001)));
        assert_eq!(PartitionLog::default().newest(), None);
    }

    #[test]
    fn an_open_transaction_holds_the_stable_offset_and_an_aborted_one_is_named() {
        let mut log = log();
        let plain = batch(2, 6000);
        let header = |log: &PartitionLog| BatchHeader {
            base_offset: log.end(),
            attributes: 0x10,
            producer_id: 4,
            producer_epoch: 0,
            partition_leader_epoch: 0,
            ..plain.header
        };
        log.plant(header(&log), plain.bytes.to_vec());
        append(&mut log, 1, 7000);
        assert_eq!((log.last_stable(), log.end()), (10, 13));
        let marker = control_batch(ControlType::Abort, log.end(), 0, 4, 0, 0).expect("small");
        log.plant(marker.header, marker.bytes.to_vec());
        assert_eq!((log.last_stable(), log.end()), (14, 14));
        let aborted = Aborted { producer_id: 4, first_offset: 10, last_offset: 13 };
        for (offset, before, expected) in
            [(0, 14, vec![aborted]), (13, 14, vec![aborted]), (0, 10, vec![]), (14, 20, vec![])]
        {
            assert_eq!(log.aborted_within(offset, before), expected, "{offset} to {before}");
        }
    }

    #[test]
    fn the_brokers_time_replaces_the_records_own_where_the_topic_says_so() {
        let mut log = PartitionLog::default();
        let appended = log.append(&batch(2, 1000), 3, Some(5555), 1001).expect("no producer");
        assert_eq!(appended, Appended { base_offset: 0, log_append_time: 5555 });
        let stored = &log.batches[0];
        assert_eq!(stored.verify_crc(), Ok(()));
        assert!(stored.header.is_log_append_time());
        assert_eq!((stored.header.max_timestamp, stored.header.partition_leader_epoch), (5555, 3));
        assert_eq!(BatchHeader::parse(&stored.bytes), Ok(stored.header));
    }
}
