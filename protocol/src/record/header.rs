//! The 61 bytes before the records of a batch.
//!
//! Layout: Kafka documentation, "Record Batch". The CRC-32C covers everything after itself, which is everything from the
//! attributes on; base offset, length, leader epoch and magic are outside, so that a broker can set them.

use super::{codec::Compression, error::BatchError};
use crate::wire::{Reader, WireError};

/// Bytes of a batch header.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: itself and the base offset.
pub(super) const LENGTH_OVERHEAD: usize = 12;
/// Bytes that the CRC does not cover: up to itself.
pub(super) const CRC_START: usize = 21;
/// The producer id of a batch that no idempotent producer wrote.
pub const NO_PRODUCER_ID: i64 = -1;

pub(super) const MAGIC: i8 = 2;

const COMPRESSION_BITS: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;

/// All fields of a batch header, in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field.
    pub length: i32,
    /// Of the leader that took it; -1 from a producer.
    pub partition_leader_epoch: i32,
    pub magic: i8,
    /// CRC-32C of everything after it.
    pub crc: u32,
    pub attributes: i16,
    /// Kept when compaction removes the last record, or all of them.
    pub last_offset_delta: i32,
    /// Milliseconds since the epoch.
    pub base_timestamp: i64,
    /// Milliseconds since the epoch; the time of all records on a LogAppendTime topic.
    pub max_timestamp: i64,
    /// -1 if the producer was not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// A batch that starts at offset 0, from no particular producer, without records.
impl Default for BatchHeader {
    fn default() -> Self {
        Self {
            base_offset: 0,
            length: (HEADER_LEN - LENGTH_OVERHEAD) as i32,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        }
    }
}

impl BatchHeader {
    /// Reads the fields of the first 61 bytes as they are; says nothing about whether they make sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            base_offset: reader.i64("base_offset")?,
            length: reader.i32("length")?,
            partition_leader_epoch: reader.i32("partition_leader_epoch")?,
            magic: reader.i8("magic")?,
            crc: reader.u32("crc")?,
            attributes: reader.i16("attributes")?,
            last_offset_delta: reader.i32("last_offset_delta")?,
            base_timestamp: reader.i64("base_timestamp")?,
            max_timestamp: reader.i64("max_timestamp")?,
            producer_id: reader.i64("producer_id")?,
            producer_epoch: reader.i16("producer_epoch")?,
            base_sequence: reader.i32("base_sequence")?,
            record_count: reader.i32("record_count")?,
        })
    }

    /// The fields as bytes; the CRC is written as it stands in `self`.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = bytes.as_mut_slice();
        // The widths below add up to the array's length, so nothing is left out.
        let mut put = |field: &[u8]| {
            if let Some((to, after)) = std::mem::take(&mut rest).split_at_mut_checked(field.len()) {
                to.copy_from_slice(field);
                rest = after;
            }
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let code = self.attributes & COMPRESSION_BITS;
        Compression::from_code(code).ok_or(BatchError::UnknownCompression { offset: self.base_offset, code })
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether its record is a marker of the broker and not an application's.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the broker's time, [`Self::max_timestamp`], stands for that of each record.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Sets or clears the bit behind [`Self::is_log_append_time`].
    pub fn set_log_append_time(&mut self, on: bool) {
        self.attributes =
            if on { self.attributes | LOG_APPEND_TIME_BIT } else { self.attributes & !LOG_APPEND_TIME_BIT };
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    /// The last offset that it stands for, even if compaction took that record. Saturating; [`super::Batches`] refuses a
    /// batch for which it would overflow.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Where reading goes on after it: also after an empty, control or aborted batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Refuses a header with which nothing can be done: wrong magic, negative counts, offsets beyond 64 bits.
    pub(super) fn check(&self) -> Result<(), BatchError> {
        let offset = self.base_offset;
        if self.magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { offset, magic: self.magic });
        }
        for (field, value) in [("last_offset_delta", self.last_offset_delta), ("record_count", self.record_count)] {
            if value < 0 {
                return Err(BatchError::BadHeader { offset, field, value });
            }
        }
        let delta = i64::from(self.last_offset_delta) + 1;
        if i64::from(self.record_count) > delta {
            return Err(BatchError::BadHeader { offset, field: "record_count", value: self.record_count });
        }
        match offset.checked_add(delta) {
            Some(_) => Ok(()),
            None => Err(BatchError::Overflow { offset, field: "offset", base: offset, delta }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = BatchHeader {
            base_offset: 1,
            length: 2,
            partition_leader_epoch: 3,
            magic: 4,
            crc: 5,
            attributes: 6,
            last_offset_delta: 7,
            base_timestamp: 8,
            max_timestamp: 9,
            producer_id: 10,
            producer_epoch: 11,
            base_sequence: 12,
            record_count: 13,
        };
        let bytes = header.encode();
        assert_eq!(BatchHeader::parse(&bytes), Ok(header));
        assert_eq!(bytes[HEADER_LEN - 4..], [0, 0, 0, 13]);
        assert!(BatchHeader::parse(&bytes[..60]).is_err());
    }

    #[test]
    fn the_attribute_bits_are_kafkas() {
        let with = |attributes| BatchHeader { attributes, ..BatchHeader::default() };
        for (attributes, compression) in [
            (0, Compression::None),
            (1, Compression::Gzip),
            (2, Compression::Snappy),
            (3, Compression::Lz4),
            (4, Compression::Zstd),
        ] {
            assert_eq!(with(attributes | 0x38).compression(), Ok(compression));
        }
        assert_eq!(with(5).compression(), Err(BatchError::UnknownCompression { offset: 0, code: 5 }));
        assert!(with(0x08).is_log_append_time() && !with(0x37).is_log_append_time());
        assert!(with(0x10).is_transactional() && !with(0x2f).is_transactional());
        assert!(with(0x20).is_control() && !with(0x1f).is_control());
        let mut header = with(0x11);
        header.set_log_append_time(true);
        assert_eq!(header.attributes, 0x19);
        header.set_log_append_time(false);
        assert_eq!(header.attributes, 0x11);
    }

    #[test]
    fn offsets_at_the_end_of_the_range_do_not_wrap() {
        let header = BatchHeader { base_offset: i64::MAX - 1, last_offset_delta: 5, ..BatchHeader::default() };
        assert_eq!(header.last_offset(), i64::MAX);
        assert_eq!(header.next_offset(), i64::MAX);
        assert!(matches!(header.check(), Err(BatchError::Overflow { .. })));
    }
}
