//! A batch being written, in place; and one that is sealed, ready to be stamped and sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, RawBatch, Records, codec,
    header::{CRC_AT, CRC_COVERS_FROM, LOG_OVERHEAD, TRANSACTIONAL},
};
use crate::wire::{put_varint, put_varlong, varlong_len};

const MAGIC: i8 = 2;
const PRODUCER_ID_AT: usize = 43;
const ATTRIBUTES_AT: usize = 21;

/// Appends records to one buffer; no allocation per record but the buffer's own growth.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    compression: Compression,
    level: Option<i32>,
    transactional: bool,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// `level` is the codec's own; None = ours.
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        let mut buffer = BytesMut::with_capacity(1024);
        buffer.put_bytes(0, HEADER_BYTES);
        Self { buffer, compression, level, transactional: false, count: 0, base_timestamp: 0, max_timestamp: i64::MIN }
    }

    /// Marks the batch as part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Bytes that a record takes at the most, uncompressed.
    pub fn record_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(Bytes, Option<Bytes>)]) -> usize {
        // length 5, attributes 1, timestamp 10, offset 5, key and value lengths 5 each, header count 5
        let headers: usize = headers.iter().map(|(k, v)| 10 + k.len() + v.as_ref().map_or(0, Bytes::len)).sum();
        36 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
    }

    /// Appends a record; `timestamp` in milliseconds since the epoch.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let field = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len());
        let headers_len: usize = headers.iter().map(|(name, value)| field(Some(name)) + field(value.as_deref())).sum();
        let length = 1
            + varlong_len(timestamp_delta)
            + varlong_len(i64::from(self.count))
            + field(key)
            + field(value)
            + varlong_len(headers.len() as i64)
            + headers_len;
        self.buffer.reserve(length + 5);
        put_varint(&mut self.buffer, length as i32);
        self.buffer.put_i8(0);
        put_varlong(&mut self.buffer, timestamp_delta);
        put_varint(&mut self.buffer, self.count);
        self.put_field(key);
        self.put_field(value);
        put_varint(&mut self.buffer, headers.len() as i32);
        for (name, value) in headers {
            self.put_field(Some(name));
            self.put_field(value.as_deref());
        }
        self.count += 1;
    }

    fn put_field(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => {
                put_varint(&mut self.buffer, bytes.len() as i32);
                self.buffer.extend_from_slice(bytes);
            }
            None => put_varint(&mut self.buffer, -1),
        }
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, uncompressed, header included.
    pub fn encoded_len(&self) -> usize {
        self.buffer.len()
    }

    /// Compresses once. The batch has no producer yet.
    pub fn seal(self) -> Result<SealedBatch, BatchError> {
        let mut bytes = match self.compression {
            Compression::None => self.buffer,
            codec => {
                let mut packed = Vec::with_capacity(self.buffer.len() / 2);
                packed.resize(HEADER_BYTES, 0);
                codec::compress(codec, self.level, &self.buffer[HEADER_BYTES..], &mut packed)
                    .map_err(|error| error.at(0, codec))?;
                BytesMut::from(Bytes::from(packed))
            }
        };
        let length = bytes.len() - LOG_OVERHEAD;
        let attributes = self.compression.id() | if self.transactional { TRANSACTIONAL } else { 0 };
        let mut header = &mut bytes[..HEADER_BYTES];
        header.put_i64(0);
        header.put_i32(length as i32);
        header.put_i32(-1);
        header.put_i8(MAGIC);
        header.put_u32(0);
        header.put_i16(attributes);
        header.put_i32(self.count - 1);
        header.put_i64(self.base_timestamp);
        header.put_i64(self.max_timestamp);
        header.put_i64(-1);
        header.put_i16(-1);
        header.put_i32(-1);
        header.put_i32(self.count);
        let mut sealed = SealedBatch { bytes: bytes.freeze(), count: self.count, level: self.level };
        sealed.stamp(-1, -1, -1);
        Ok(sealed)
    }
}

/// A batch that changes no more, but for the producer it is stamped with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    bytes: Bytes,
    count: i32,
    level: Option<i32>,
}

impl SealedBatch {
    /// Writes producer id, epoch and first sequence number, and the checksum. Records stay as they are.
    pub fn stamp(&mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
        let mut bytes = match std::mem::take(&mut self.bytes).try_into_mut() {
            Ok(bytes) => bytes,
            // A copy of an earlier stamp is still on its way to a broker, and must not change there.
            Err(shared) => BytesMut::from(&shared[..]),
        };
        let mut place = &mut bytes[PRODUCER_ID_AT..];
        place.put_i64(producer_id);
        place.put_i16(producer_epoch);
        place.put_i32(base_sequence);
        let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
        bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        self.bytes = bytes.freeze();
    }

    /// The batch as it goes over the wire; identical until it is stamped again.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Records.
    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps the records for which `keep` (given their index) is true, in order, in one batch for each value of `part`:
    /// the way to split a batch that is too large, and to leave out records that a broker refused.
    pub fn divide(&self, part: impl Fn(usize) -> Option<usize>) -> Result<Vec<SealedBatch>, BatchError> {
        let records = self.unpack()?;
        let compression = records.header().compression()?;
        let transactional = records.header().attributes & TRANSACTIONAL != 0;
        let mut builders: Vec<BatchBuilder> = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let record = record?;
            let Some(place) = part(index) else { continue };
            while builders.len() <= place {
                let builder = BatchBuilder::new(compression, self.level);
                builders.push(if transactional { builder.transactional() } else { builder });
            }
            let headers: Vec<(Bytes, Option<Bytes>)> = record
                .headers
                .iter()
                .map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)))
                .collect();
            builders[place].append(record.timestamp, record.key, record.value, &headers);
        }
        builders.into_iter().filter(|builder| !builder.is_empty()).map(BatchBuilder::seal).collect()
    }

    fn unpack(&self) -> Result<Records, BatchError> {
        let header = BatchHeader::read(&self.bytes)?;
        // Our own bytes: what they unpack to was in memory when they were packed.
        RawBatch { header, bytes: self.bytes.clone() }.records(usize::MAX >> 1)
    }

    /// The records' own timestamps, in order.
    pub fn timestamps(&self) -> Vec<i64> {
        let Ok(records) = self.unpack() else { return Vec::new() };
        records.iter().map_while(Result::ok).map(|record| record.timestamp).collect()
    }

    /// The attributes, for those who look at what was written.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes([self.bytes[ATTRIBUTES_AT], self.bytes[ATTRIBUTES_AT + 1]])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Batches;

    type Owned = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn read(bytes: Bytes) -> Vec<Owned> {
        let batch = Batches::new(bytes).next().expect("a batch").expect("whole");
        batch.verify_crc().expect("the checksum");
        let records = batch.records(1 << 24).expect("unpacks");
        records
            .iter()
            .map(|record| {
                let record = record.expect("a record");
                let headers = record.headers.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
                (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
            })
            .collect()
    }

    fn write(records: &[Owned], compression: Compression) -> SealedBatch {
        let mut builder = BatchBuilder::new(compression, None);
        for (timestamp, key, value, headers) in records {
            let headers: Vec<(Bytes, Option<Bytes>)> =
                headers.iter().map(|(k, v)| (k.clone().into(), v.clone().map(Into::into))).collect();
            let before = builder.encoded_len();
            let bound = BatchBuilder::record_len(key.as_deref(), value.as_deref(), &headers);
            builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers);
            assert!(builder.encoded_len() - before <= bound);
        }
        builder.seal().expect("sealed")
    }

    fn odd_records() -> Vec<Owned> {
        vec![
            (1000, Some(b"k".to_vec()), Some(b"v".to_vec()), vec![]),
            (900, None, Some(vec![]), vec![(b"a".to_vec(), None), (b"a".to_vec(), Some(vec![]))]),
            (2000, Some(vec![]), None, vec![(vec![0xff, 0xfe], Some(b"x".to_vec()))]),
        ]
    }

    #[test]
    fn repeated_null_valued_and_non_utf8_headers_survive_in_order() {
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            assert_eq!(read(write(&odd_records(), codec).bytes()), odd_records(), "{codec}");
        }
    }

    #[test]
    fn log_append_time_is_the_batchs_max_timestamp() {
        let mut bytes = write(&odd_records(), Compression::None).bytes().to_vec();
        bytes[ATTRIBUTES_AT + 1] |= 1 << 3;
        let batch = Batches::new(bytes.into()).next().expect("a batch").expect("whole");
        let records = batch.records(1 << 20).expect("unpacks");
        assert!(records.iter().all(|record| record.expect("a record").timestamp == 2000));
    }

    #[test]
    fn a_compacted_batch_still_ends_where_it_ended() {
        let mut bytes = write(&odd_records(), Compression::None).bytes().to_vec();
        bytes[..8].copy_from_slice(&100i64.to_be_bytes());
        bytes[23..27].copy_from_slice(&9i32.to_be_bytes());
        let batch = Batches::new(bytes.into()).next().expect("a batch").expect("whole");
        assert_eq!((batch.header.last_offset(), batch.header.next_offset()), (109, 110));
        assert_eq!(batch.records(1 << 20).expect("unpacks").iter().count(), 3);
        let mut empty = BatchBuilder::new(Compression::None, None).seal().expect("sealed").bytes().to_vec();
        empty[23..27].copy_from_slice(&4i32.to_be_bytes());
        let batch = Batches::new(empty.into()).next().expect("a batch").expect("whole");
        assert_eq!((batch.records(10).expect("none").iter().count(), batch.header.next_offset()), (0, 5));
    }

    #[test]
    fn a_stamp_changes_producer_and_checksum_only_and_never_a_copy_on_its_way() {
        let mut batch = write(&odd_records(), Compression::None);
        batch.stamp(7, 1, 42);
        let sent = batch.bytes();
        assert_eq!(sent, batch.bytes());
        let kept = sent.to_vec();
        batch.stamp(7, 2, 0);
        assert_eq!(sent, kept);
        assert_ne!(sent, batch.bytes());
        let header = BatchHeader::read(&batch.bytes()).expect("a header");
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 2, 0));
        assert_eq!(read(batch.bytes()), odd_records());
    }

    #[test]
    fn a_batch_is_divided_without_losing_anything() {
        let batch = write(&odd_records(), Compression::Zstd);
        let halves = batch.divide(|index| Some(usize::from(index >= 1))).expect("divided");
        let read: Vec<Owned> = halves.iter().flat_map(|half| read(half.bytes())).collect();
        assert_eq!((halves.len(), read), (2, odd_records()));
        let rest = batch.divide(|index| (index != 1).then_some(0)).expect("divided");
        assert_eq!(rest.iter().map(SealedBatch::count).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn counts_that_lie_are_refused_before_anything_is_allocated() {
        let one = write(&odd_records(), Compression::None).bytes();
        for count in [i32::MAX, 4, -1] {
            let mut bytes = one.to_vec();
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            let batch = Batches::new(bytes.into()).next().expect("a batch").expect("whole");
            let read =
                batch.records(1 << 20).and_then(|records| records.iter().collect::<Result<Vec<_>, _>>().map(|_| ()));
            assert!(read.is_err(), "{count} records");
        }
    }

    fn record() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
        let name = proptest::collection::vec(any::<u8>(), 0..20);
        (any::<i32>().prop_map(i64::from), bytes(), bytes(), proptest::collection::vec((name, bytes()), 0..4))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(record(), 1..30)) {
            for codec in [Compression::None, Compression::Lz4] {
                prop_assert_eq!(read(write(&records, codec).bytes()), records.clone());
            }
        }

        #[test]
        fn broken_records_never_panic(at in 0usize..400, value: u8, cut in 0usize..400) {
            let mut bytes = write(&odd_records(), Compression::None).bytes().to_vec();
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut);
            for batch in Batches::new(bytes.into()).flatten() {
                if let Ok(records) = batch.records(1 << 16) {
                    for record in records.iter().flatten() {
                        prop_assert!(record.headers.iter().count() == record.headers.len());
                    }
                }
            }
        }
    }
}
