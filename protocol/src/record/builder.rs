//! A batch while records are added to it.
//!
//! Records are written in place into one buffer that begins with room for the header; nothing is allocated per record.
//! It does not decide when a batch is full. [`BatchBuilder`] is the main type.

use bytes::Bytes;

use super::{
    codec::{self, CodecError, Compression},
    error::BatchError,
    header::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, TRANSACTIONAL_BIT},
    records::RecordView,
    sealed::SealedBatch,
};
use crate::wire::{put_varint, put_varlong, varint_len, varlong_len};

/// Length, attributes, two deltas, key length, value length and header count, each at its longest.
const MAX_RECORD_OVERHEAD: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
/// Two lengths.
const MAX_HEADER_OVERHEAD: usize = 5 + 5;

/// A batch that records are appended to. Its base timestamp is that of the first record, its max timestamp the largest.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    transactional: bool,
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// What the length fields can say: a batch's, and within it a record's.
    pub const MAX_BYTES: usize = i32::MAX as usize;

    /// `level` is the codec's own (gzip 1 to 9, zstd up to 22; cut to the range), None its default. `size_hint` bytes of
    /// records fit without growing.
    pub fn new(compression: Compression, level: Option<i32>, size_hint: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_LEN + size_hint.min(Self::MAX_BYTES));
        buffer.resize(HEADER_LEN, 0);
        Self { compression, level, transactional: false, buffer, count: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    /// Whether the batch belongs to a transaction; it does not unless set.
    #[must_use]
    pub fn transactional(mut self, transactional: bool) -> Self {
        self.transactional = transactional;
        self
    }

    /// Adds a record. `timestamp` is in milliseconds since the epoch; a null value is a tombstone; headers keep their
    /// order, names may repeat and need not be UTF-8.
    ///
    /// # Errors
    /// [`BatchError::Full`] beyond what the format can hold (2 GiB), [`BatchError::Overflow`] if the timestamps of a batch
    /// are further apart than 64 bits. The batch is then as it was.
    #[inline]
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), BatchError> {
        let headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
        self.append_parts(timestamp, key, value, headers)
    }

    /// Adds a record as it was read: key, value, headers and timestamp unchanged. Errors as [`Self::append`].
    pub fn append_record(&mut self, record: &RecordView<'_>) -> Result<(), BatchError> {
        self.append_parts(record.timestamp, record.key, record.value, record.headers.iter())
    }

    #[inline]
    fn append_parts<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) -> Result<(), BatchError> {
        let base_timestamp = if self.count == 0 { timestamp } else { self.base_timestamp };
        let Some(timestamp_delta) = timestamp.checked_sub(base_timestamp) else {
            let delta = timestamp.saturating_sub(base_timestamp);
            return Err(BatchError::Overflow { offset: 0, field: "timestamp", base: base_timestamp, delta });
        };
        let offset_delta = self.count;
        let header_count = headers.len();
        let headers_len: usize = headers.clone().map(|(name, value)| bytes_len(Some(name)) + bytes_len(value)).sum();
        // Each of these lengths is that of something in memory, so their sum does not overflow; whether it fits the
        // format is asked before anything is written.
        let length = 1
            + varlong_len(timestamp_delta)
            + varint_len(offset_delta)
            + bytes_len(key)
            + bytes_len(value)
            + varint_len(length_field(header_count))
            + headers_len;
        let total = varint_len(length_field(length)) + length;
        if self.buffer.len() + total > Self::MAX_BYTES || self.count == i32::MAX {
            return Err(BatchError::Full { bytes: self.buffer.len(), count: self.count });
        }

        let buffer = &mut self.buffer;
        buffer.reserve(total);
        put_varint(buffer, length_field(length));
        buffer.push(0); // attributes: none are in use
        put_varlong(buffer, timestamp_delta);
        put_varint(buffer, offset_delta);
        put_bytes(buffer, key);
        put_bytes(buffer, value);
        put_varint(buffer, length_field(header_count));
        for (name, value) in headers {
            put_bytes(buffer, Some(name));
            put_bytes(buffer, value);
        }

        self.max_timestamp = if self.count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base_timestamp;
        self.count += 1;
        Ok(())
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, header included, before compression.
    pub fn encoded_len(&self) -> usize {
        self.buffer.len()
    }

    /// The most bytes that a record of these parts takes in any batch, before compression. A batch of it alone takes
    /// [`super::HEADER_LEN`] more.
    pub fn record_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(Bytes, Option<Bytes>)]) -> usize {
        let headers = headers
            .iter()
            .map(|(name, value)| MAX_HEADER_OVERHEAD + name.len() + value.as_ref().map_or(0, Bytes::len))
            .sum::<usize>();
        MAX_RECORD_OVERHEAD + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
    }

    /// Compresses, once, and closes the batch: from now on only producer fields can change.
    ///
    /// # Errors
    /// [`BatchError::Empty`], [`BatchError::Compress`].
    pub fn seal(self) -> Result<SealedBatch, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let plain_len = self.buffer.len() - HEADER_LEN;
        let buffer = match self.compression {
            Compression::None => self.buffer,
            compression => {
                let mut out = Vec::with_capacity(HEADER_LEN + plain_len / 2);
                out.resize(HEADER_LEN, 0);
                let (_, plain) = self.buffer.split_at(HEADER_LEN);
                codec::compress(compression, self.level, plain, &mut out).map_err(|error| match error {
                    CodecError::Invalid(reason) => BatchError::Compress { compression, reason },
                    CodecError::TooLarge { limit } => BatchError::Full { bytes: limit, count: self.count },
                })?;
                out.shrink_to_fit();
                out
            }
        };
        let length = i32::try_from(buffer.len() - LENGTH_OVERHEAD)
            .map_err(|_| BatchError::Full { bytes: buffer.len(), count: self.count })?;
        let transactional = if self.transactional { TRANSACTIONAL_BIT } else { 0 };
        let header = BatchHeader {
            length,
            attributes: self.compression.code() | transactional,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            record_count: self.count,
            ..BatchHeader::default()
        };
        Ok(SealedBatch::new(header, buffer, plain_len, self.level))
    }
}

/// A length as the format has it. Beyond its range it saturates, and [`BatchBuilder::append`] refuses the record.
#[inline]
fn length_field(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint_len(length_field(bytes.len())) + bytes.len(),
        None => 1,
    }
}

#[inline]
fn put_bytes(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(buffer, length_field(bytes.len()));
            buffer.extend_from_slice(bytes);
        }
        None => put_varint(buffer, -1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::RawBatch;

    #[test]
    fn a_batch_is_written_byte_for_byte_as_the_format_says() {
        let mut builder = BatchBuilder::new(Compression::None, None, 0);
        let header = (Bytes::from_static(b"h"), Some(Bytes::from_static(b"1")));
        builder.append(1000, Some(b"k"), Some(b"v"), &[header]).expect("room");
        builder.append(998, None, None, &[]).expect("room");
        let bytes = builder.seal().expect("two").bytes();
        let (head, records) = bytes.split_at(HEADER_LEN);
        assert_eq!(
            records,
            [
                0x18, 0, 0, 0, 0x02, b'k', 0x02, b'v', 0x02, 0x02, b'h', 0x02, b'1', // deltas 0 and 0, one header
                0x0c, 0, 0x03, 0x02, 0x01, 0x01, 0, // deltas -2 and 1, null and null
            ]
        );
        let header = BatchHeader::parse(head).expect("whole");
        let expected = BatchHeader {
            length: (bytes.len() - 12) as i32,
            crc: crc32c::crc32c(&bytes[21..]),
            last_offset_delta: 1,
            base_timestamp: 1000,
            max_timestamp: 1000,
            record_count: 2,
            ..BatchHeader::default()
        };
        assert_eq!(header, expected);
    }

    #[test]
    fn the_first_record_gives_the_base_and_the_largest_the_max_timestamp() {
        for (timestamps, base, max) in [
            (&[5_i64, 9, 7][..], 5, 9),
            (&[9, 5], 9, 9),
            (&[-1], -1, -1),
            (&[-7, -3, -5], -7, -3),
            (&[i64::MAX, 0], i64::MAX, i64::MAX),
        ] {
            let mut builder = BatchBuilder::new(Compression::None, None, 0);
            for timestamp in timestamps {
                builder.append(*timestamp, None, None, &[]).expect("room");
            }
            let batch = RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole");
            assert_eq!((batch.header.base_timestamp, batch.header.max_timestamp), (base, max), "{timestamps:?}");
            let records = batch.records(0).expect("plain");
            let back: Vec<i64> = records.iter().map(|record| record.expect("valid").timestamp).collect();
            assert_eq!(back, timestamps);
        }
    }

    #[test]
    fn a_record_that_does_not_fit_changes_nothing() {
        let mut builder = BatchBuilder::new(Compression::None, None, 0);
        builder.append(i64::MIN, None, None, &[]).expect("room");
        let before = builder.encoded_len();
        let error = builder.append(1, None, None, &[]).expect_err("further apart than 64 bits");
        assert!(matches!(error, BatchError::Overflow { field: "timestamp", .. }));
        assert_eq!((builder.count(), builder.encoded_len()), (1, before));
    }

    #[test]
    fn an_empty_batch_cannot_be_sealed() {
        let builder = BatchBuilder::new(Compression::Zstd, None, 100);
        assert!(builder.is_empty());
        assert_eq!(builder.seal().map(|_| ()), Err(BatchError::Empty));
    }

    type Record = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn any_record() -> impl Strategy<Value = Record> {
        let bytes = |most: usize| proptest::collection::vec(any::<u8>(), 0..most);
        let header = (bytes(9), proptest::option::of(bytes(70)));
        (
            prop_oneof![any::<i32>().prop_map(i64::from), 1_700_000_000_000..1_700_000_999_999_i64],
            proptest::option::of(bytes(80)),
            proptest::option::of(bytes(300)),
            proptest::collection::vec(header, 0..4),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn records_come_back_in_every_codec(written in proptest::collection::vec(any_record(), 1..30)) {
            for compression in Compression::ALL {
                let mut builder = BatchBuilder::new(compression, None, 16);
                for (timestamp, key, value, headers) in &written {
                    let headers: Vec<(Bytes, Option<Bytes>)> = headers
                        .iter()
                        .map(|(name, value)| (Bytes::copy_from_slice(name), value.clone().map(Bytes::from)))
                        .collect();
                    let before = builder.encoded_len();
                    builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers).expect("room");
                    let most = BatchBuilder::record_len(key.as_deref(), value.as_deref(), &headers);
                    prop_assert!(builder.encoded_len() - before <= most);
                }
                let plain_len = builder.encoded_len() - HEADER_LEN;
                let batch = RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole");
                prop_assert_eq!(batch.verify_crc(), Ok(()));
                prop_assert_eq!(batch.header.compression(), Ok(compression));
                let records = batch.records(plain_len).expect("fits");
                prop_assert_eq!(records.len_bytes(), plain_len);
                let mut read: Vec<Record> = Vec::new();
                for (index, record) in records.iter().enumerate() {
                    let record = record.expect("valid");
                    prop_assert_eq!(record.offset, index as i64);
                    let headers =
                        record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
                    read.push((record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers));
                }
                prop_assert_eq!(&read, &written);
            }
        }
    }
}
