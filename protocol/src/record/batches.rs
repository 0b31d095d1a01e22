//! The batches in the records field of a fetch response.
//!
//! [`Batches`] only walks headers: it verifies no CRC and decompresses nothing, so that a caller can skip what it has seen
//! already. [`RawBatch`] is the main type.

use bytes::{Buf, Bytes};

use super::{
    codec::{self, Compression},
    error::BatchError,
    header::{BatchHeader, CRC_START, HEADER_LEN, LENGTH_OVERHEAD, MAGIC},
    records::Records,
};
use crate::wire::Reader;

/// Up to and with the magic byte; the same place in all message formats.
const MAGIC_END: usize = 17;
/// The least length field of formats 0 and 1: CRC, magic, attributes and two empty lengths.
const LEAST_OLD_LENGTH: i32 = 14;

/// One whole batch as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBatch {
    pub header: BatchHeader,
    /// The whole batch, 61-byte header included.
    pub bytes: Bytes,
}

impl RawBatch {
    /// A batch of `payload` (the records, already compressed as the attributes say); length and CRC are set here.
    ///
    /// # Errors
    /// [`BatchError::Full`] if the payload is beyond what a length field can say.
    pub fn assemble(mut header: BatchHeader, payload: &[u8]) -> Result<Self, BatchError> {
        let total = HEADER_LEN + payload.len();
        header.length = i32::try_from(total - LENGTH_OVERHEAD)
            .map_err(|_| BatchError::Full { bytes: payload.len(), count: header.record_count })?;
        let encoded = header.encode();
        let (_, summed) = encoded.split_at(CRC_START);
        header.crc = crc32c::crc32c_append(crc32c::crc32c(summed), payload);
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(payload);
        Ok(Self { header, bytes: bytes.into() })
    }

    /// The records as bytes, still compressed.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN.min(self.bytes.len())..)
    }

    /// Whether the bytes are those that were written; 40 ns/KiB.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let summed = self.bytes.get(CRC_START..).unwrap_or_default();
        let actual = crc32c::crc32c(summed);
        if actual == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::Crc { offset: self.header.base_offset, expected: self.header.crc, actual })
        }
    }

    /// Decompresses, to at most `max_decompressed` bytes. Uncompressed records are not copied: they stay in the fetched
    /// bytes, which then live as long as the [`Records`].
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`], [`BatchError::Decompress`], [`BatchError::DecompressedTooLarge`].
    pub fn records(&self, max_decompressed: usize) -> Result<Records, BatchError> {
        let payload = self.payload();
        let bytes = match self.header.compression()? {
            // A batch that compaction emptied has no payload, not the compressed form of nothing.
            Compression::None => payload,
            _ if payload.is_empty() => payload,
            compression => codec::decompress(compression, &payload, max_decompressed)
                .map_err(|error| error.of_batch(self.header.base_offset, compression))?,
        };
        Ok(Records::new(self.header, bytes))
    }
}

/// Walks the batches of a fetch response. A partial batch at the end, which brokers send when a limit cuts it, ends the
/// walk silently; an error ends it as well.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    failed: bool,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// Bytes not walked yet; after the end those of the partial batch. A response that is all tail brings nobody forward.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// None at the partial tail.
    fn next_batch(&mut self) -> Result<Option<RawBatch>, BatchError> {
        let Some(start) = self.rest.first_chunk::<MAGIC_END>() else {
            return Ok(None);
        };
        let (offset, length, magic) = prefix(start);
        let least = if magic == MAGIC { (HEADER_LEN - LENGTH_OVERHEAD) as i32 } else { LEAST_OLD_LENGTH };
        if length < least {
            return Err(BatchError::BadLength { offset, length });
        }
        let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LENGTH_OVERHEAD);
        if self.rest.len() < total {
            return Ok(None);
        }
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { offset, magic });
        }
        let header = BatchHeader::parse(&self.rest).map_err(BatchError::Header)?;
        header.check()?;
        Ok(Some(RawBatch { header, bytes: self.rest.split_to(total) }))
    }
}

/// Base offset, length and magic.
fn prefix(start: &[u8; MAGIC_END]) -> (i64, i32, i8) {
    let mut reader = Reader::new(start);
    let offset = reader.i64("base_offset").unwrap_or_default();
    let length = reader.i32("length").unwrap_or_default();
    let magic = reader.rest().last().map_or(MAGIC, |&byte| byte as i8);
    (offset, length, magic)
}

impl Iterator for Batches {
    type Item = Result<RawBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_batch().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl std::iter::FusedIterator for Batches {}

/// A batch alone: exactly one, whole, with nothing after it, as a produce request carries it.
impl TryFrom<Bytes> for RawBatch {
    type Error = BatchError;

    fn try_from(bytes: Bytes) -> Result<Self, BatchError> {
        let mut batches = Batches::new(bytes);
        let batch = batches.next_batch()?.ok_or_else(|| {
            let have = batches.remaining();
            BatchError::Header(crate::wire::WireError::Truncated { field: "batch", need: have.saturating_add(1), have })
        })?;
        match batches.rest.remaining() {
            0 => Ok(batch),
            extra => Err(BatchError::TrailingBytes { offset: batch.header.base_offset, extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(base_offset: i64, last_offset_delta: i32) -> RawBatch {
        let header = BatchHeader { base_offset, last_offset_delta, ..BatchHeader::default() };
        RawBatch::assemble(header, &[]).expect("small")
    }

    fn walk(bytes: &[u8]) -> Vec<Result<i64, BatchError>> {
        Batches::new(Bytes::copy_from_slice(bytes)).map(|batch| batch.map(|b| b.header.base_offset)).collect()
    }

    #[test]
    fn the_partial_tail_ends_the_walk_silently_wherever_it_is_cut() {
        let whole = [empty(10, 4).bytes, empty(15, 0).bytes].concat();
        assert_eq!(walk(&whole), [Ok(10), Ok(15)]);
        for cut in 0..whole.len() {
            let expected: &[_] = if cut < HEADER_LEN { &[] } else { &[Ok(10)] };
            assert_eq!(walk(&whole[..cut]), expected, "cut at {cut}");
        }
        let mut batches = Batches::new(Bytes::from(whole).slice(..70));
        assert!(batches.next().is_some() && batches.next().is_none());
        assert_eq!(batches.remaining(), 9);
    }

    #[test]
    fn a_batch_that_compaction_emptied_still_says_where_to_go_on() {
        let bytes = empty(100, 41).bytes;
        let batch = Batches::new(bytes).next().expect("one").expect("valid");
        assert_eq!(batch.header.next_offset(), 142);
        assert_eq!(batch.records(0).expect("nothing to decompress").iter().count(), 0);
    }

    #[test]
    fn an_empty_batch_is_empty_whatever_its_codec() {
        for code in 0..=4 {
            let header = BatchHeader { attributes: code, last_offset_delta: 3, ..BatchHeader::default() };
            let batch = RawBatch::assemble(header, &[]).expect("small");
            assert_eq!(batch.records(0).expect("empty").iter().count(), 0, "codec {code}");
        }
    }

    #[test]
    fn what_is_not_a_batch_is_refused_once() {
        let good = empty(7, 0).bytes;
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.to_vec();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        let cases = [
            (with(16, &[0]), BatchError::UnsupportedMagic { offset: 7, magic: 0 }),
            (with(16, &[1]), BatchError::UnsupportedMagic { offset: 7, magic: 1 }),
            (with(16, &[3]), BatchError::UnsupportedMagic { offset: 7, magic: 3 }),
            (with(8, &[0xff; 4]), BatchError::BadLength { offset: 7, length: -1 }),
            (with(8, &[0, 0, 0, 48]), BatchError::BadLength { offset: 7, length: 48 }),
            (with(8, &[0, 0, 0, 0]), BatchError::BadLength { offset: 7, length: 0 }),
            (with(23, &[0xff; 4]), BatchError::BadHeader { offset: 7, field: "last_offset_delta", value: -1 }),
            (with(57, &[0, 0, 0, 2]), BatchError::BadHeader { offset: 7, field: "record_count", value: 2 }),
            (with(57, &[0x80, 0, 0, 0]), BatchError::BadHeader { offset: 7, field: "record_count", value: i32::MIN }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(walk(&[&bytes[..], &good[..]].concat()), [Err(expected)]);
        }
        let far = empty(i64::MAX - 3, 3).bytes;
        assert!(matches!(walk(&far)[..], [Err(BatchError::Overflow { field: "offset", .. })]));
    }

    #[test]
    fn a_message_of_the_old_format_is_named_even_if_it_is_shorter_than_a_header() {
        // Offset 5, a magic-1 message of 22 bytes without key and value.
        let mut old = vec![0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 22, 1, 2, 3, 4, 1];
        old.resize(34, 0xff);
        let error = Batches::new(Bytes::from(old)).next().expect("one").expect_err("old");
        assert_eq!(error.to_string(), "batch at offset 5: message format 1 is not supported, only 2");
    }

    #[test]
    fn a_changed_byte_fails_the_crc_and_what_the_broker_sets_does_not() {
        let good = empty(7, 0);
        assert_eq!(good.verify_crc(), Ok(()));
        for at in 0..good.bytes.len() {
            let mut changed = good.bytes.to_vec();
            changed[at] ^= 0x40;
            let batch = RawBatch { header: BatchHeader::parse(&changed).expect("whole"), bytes: changed.into() };
            let outside = at < 17; // base offset, length, leader epoch, magic
            assert_eq!(batch.verify_crc().is_ok(), outside, "byte {at}");
        }
    }

    #[test]
    fn a_batch_alone_is_whole_and_nothing_follows_it() {
        let good = empty(7, 0);
        assert_eq!(RawBatch::try_from(good.bytes.clone()), Ok(good.clone()));
        assert!(RawBatch::try_from(good.bytes.slice(..60)).is_err());
        let two = Bytes::from([&good.bytes[..], b"x"].concat());
        assert_eq!(RawBatch::try_from(two), Err(BatchError::TrailingBytes { offset: 7, extra: 1 }));
    }
}
