//! The first 61 bytes of a batch.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use super::{BatchError, Compression};
use crate::wire::Reader;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Offset and length, which stand before what the length counts.
pub(super) const LOG_OVERHEAD: usize = 12;
/// Where the magic byte stands, in every message format.
pub(super) const MAGIC_AT: usize = 16;
/// Where the checksum stands, and where what it covers begins.
pub(super) const CRC_AT: usize = 17;
pub(super) const CRC_COVERS_FROM: usize = 21;

const COMPRESSION_BITS: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The header of a batch, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes behind this field.
    pub length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    /// Survives compaction, also where the last records do not.
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1 = not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header whose magic is 2. The numbers are as they stand there; only offsets are checked to stay in range.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let mut reader = Reader::new(bytes);
        let header = (|| {
            Ok(Self {
                base_offset: reader.i64("base offset")?,
                length: reader.i32("batch length")?,
                partition_leader_epoch: reader.i32("partition leader epoch")?,
                magic: reader.i8("magic")?,
                crc: reader.u32("crc")?,
                attributes: reader.i16("attributes")?,
                last_offset_delta: reader.i32("last offset delta")?,
                base_timestamp: reader.i64("base timestamp")?,
                max_timestamp: reader.i64("max timestamp")?,
                producer_id: reader.i64("producer id")?,
                producer_epoch: reader.i16("producer epoch")?,
                base_sequence: reader.i32("base sequence")?,
                record_count: reader.i32("record count")?,
            })
        })()
        .map_err(|error| BatchError::Record(error, -1))?;
        let offset = header.base_offset;
        let in_range = offset >= 0
            && header.last_offset_delta >= 0
            && offset.checked_add(i64::from(header.last_offset_delta) + 1).is_some();
        if in_range { Ok(header) } else { Err(BatchError::Overflow { offset, what: "the last offset" }) }
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = self.attributes & COMPRESSION_BITS;
        Compression::from_id(id).ok_or(BatchError::UnknownCodec { offset: self.base_offset, id })
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Transaction markers and the like; never for the application.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The last offset that this batch stands for, whether or not compaction left a record there.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Where to go on after this batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }
}
