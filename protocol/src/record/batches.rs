//! The batches in the bytes of a fetch answer (or a produce request), one by one, unpacked by nobody.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::Bytes;

use super::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, Records, codec,
    header::{CRC_COVERS_FROM, LOG_OVERHEAD, MAGIC_AT},
};
use crate::wire::Reader;

/// The only message format since Kafka 0.11.
const MAGIC: i8 = 2;

/// One whole batch.
#[derive(Debug, Clone)]
pub struct RawBatch {
    pub header: BatchHeader,
    /// The batch with its header.
    pub bytes: Bytes,
}

/// What a control batch says (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlType {
    Abort,
    Commit,
    Other(i16),
}

impl RawBatch {
    /// The checksum (CRC-32C) over everything behind it.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let actual = crc32c::crc32c(self.bytes.get(CRC_COVERS_FROM..).unwrap_or_default());
        let BatchHeader { base_offset: offset, crc: expected, .. } = self.header;
        if actual == expected { Ok(()) } else { Err(BatchError::Crc { offset, expected, actual }) }
    }

    /// Unpacks the records; more than `max_unpacked` bytes of them are refused.
    pub fn records(&self, max_unpacked: usize) -> Result<Records, BatchError> {
        let packed = self.bytes.slice(HEADER_BYTES.min(self.bytes.len())..);
        let offset = self.header.base_offset;
        let unpacked = match self.header.compression()? {
            Compression::None => packed,
            codec => codec::decompress(codec, &packed, max_unpacked).map_err(|error| error.at(offset, codec))?,
        };
        Records::new(self.header, unpacked)
    }

    /// What a control batch marks.
    pub fn control_type(&self) -> Result<ControlType, BatchError> {
        let offset = self.header.base_offset;
        let records = self.records(self.bytes.len())?;
        let Some(record) = records.iter().next().transpose()? else {
            return Err(BatchError::Count { offset, count: 0, last_offset_delta: self.header.last_offset_delta });
        };
        let mut key = Reader::new(record.key.unwrap_or_default());
        let kind = key.i16("control version").and_then(|_| key.i16("control type"));
        Ok(match kind.map_err(|error| BatchError::Record(error, offset))? {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            other => ControlType::Other(other),
        })
    }
}

/// Iterates the complete batches; the partial one at the end, with which brokers fill an answer, is left out silently.
/// After an error there is nothing more.
#[derive(Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    fn take_next(&mut self) -> Result<Option<RawBatch>, BatchError> {
        let mut reader = Reader::new(&self.rest);
        let (Ok(offset), Ok(length)) = (reader.i64("base offset"), reader.i32("batch length")) else { return Ok(None) };
        let magic = self.rest.get(MAGIC_AT).copied().map(|byte| byte as i8);
        if let Some(magic) = magic
            && magic != MAGIC
        {
            return Err(BatchError::UnsupportedMagic { offset, magic });
        }
        let whole = usize::try_from(length).ok().map(|length| length + LOG_OVERHEAD);
        let Some(whole) = whole.filter(|whole| *whole >= HEADER_BYTES) else {
            return Err(BatchError::Length { offset, length });
        };
        if self.rest.len() < whole {
            return Ok(None);
        }
        let bytes = self.rest.split_to(whole);
        Ok(Some(RawBatch { header: BatchHeader::read(&bytes)?, bytes }))
    }
}

impl Iterator for Batches {
    type Item = Result<RawBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.take_next();
        if next.is_err() {
            self.rest.clear();
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn batch() -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.append(7, Some(b"k"), Some(b"v"), &[]);
        builder.seal().expect("sealed").bytes()
    }

    fn with(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Bytes {
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes.into()
    }

    #[test]
    fn the_partial_tail_is_left_out_at_every_length() {
        let one = batch();
        for cut in 0..one.len() {
            let mut bytes = one.to_vec();
            bytes.extend_from_slice(&one[..cut]);
            let read: Vec<_> = Batches::new(bytes.into()).collect();
            assert_eq!(read.len(), 1, "a tail of {cut} bytes");
            assert!(read[0].is_ok());
        }
    }

    #[test]
    fn older_message_formats_are_named_with_their_offset() {
        for magic in [0u8, 1, 3, 0xff] {
            let mut bytes = batch().to_vec();
            bytes[..8].copy_from_slice(&41i64.to_be_bytes());
            let bytes = with(bytes, MAGIC_AT, &[magic]);
            let error = Batches::new(bytes).next().expect("something").expect_err("not magic 2");
            assert_eq!(error, BatchError::UnsupportedMagic { offset: 41, magic: magic as i8 });
        }
    }

    #[test]
    fn lengths_and_offsets_that_cannot_be_are_errors() {
        for length in [-1i32, 0, 48, i32::MIN] {
            let bytes = with(batch().to_vec(), 8, &length.to_be_bytes());
            assert_eq!(
                Batches::new(bytes).next().expect("something").expect_err("impossible"),
                BatchError::Length { offset: 0, length }
            );
        }
        for (at, value) in [(0, i64::MAX.to_be_bytes().to_vec()), (23, (-1i32).to_be_bytes().to_vec())] {
            let bytes = with(batch().to_vec(), at, &value);
            assert!(matches!(Batches::new(bytes).next(), Some(Err(BatchError::Overflow { .. }))));
        }
    }

    #[test]
    fn a_flipped_bit_is_found_by_the_checksum() {
        let one = batch();
        let good = Batches::new(one.clone()).next().expect("one").expect("whole");
        assert_eq!(good.verify_crc(), Ok(()));
        for at in CRC_COVERS_FROM..one.len() {
            let mut bytes = one.to_vec();
            bytes[at] ^= 1;
            if let Some(Ok(bad)) = Batches::new(bytes.into()).next() {
                assert!(matches!(bad.verify_crc(), Err(BatchError::Crc { offset: 0, .. })), "byte {at}");
            }
        }
    }
}
