//! A closed batch on its way to a broker: only its producer fields still change.
//!
//! [`SealedBatch`] is the main type. It does not know what sequence numbers mean.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::{
    batches::RawBatch,
    builder::BatchBuilder,
    checksum::Shift,
    error::BatchError,
    header::{BatchHeader, CRC_START, HEADER_LEN},
    records::Records,
};

/// A batch, compressed once. A retry sends the same bytes; a new producer id or epoch is stamped over the old one.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    header: BatchHeader,
    bytes: Bytes,
    /// CRC-32C of what follows the header, and what joins the header's to it: stamping sums 40 bytes.
    payload_crc: u32,
    payload: Shift,
    /// Of the records, before compression.
    plain_len: usize,
    level: Option<i32>,
}

impl SealedBatch {
    /// `buffer` has room for the header in front.
    pub(super) fn new(header: BatchHeader, buffer: Vec<u8>, plain_len: usize, level: Option<i32>) -> Self {
        let payload = buffer.get(HEADER_LEN..).unwrap_or_default();
        let mut sealed = Self {
            header,
            payload_crc: crc32c::crc32c(payload),
            payload: Shift::of(payload.len()),
            bytes: Bytes::from(buffer),
            plain_len,
            level,
        };
        sealed.write_header();
        sealed
    }

    /// Sets who sends it: producer id and epoch, and the sequence number of the first record. What [`Self::bytes`] handed
    /// out before stays as it was (the batch is copied if somebody still holds it).
    pub fn stamp(&mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self.write_header();
    }

    fn write_header(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut buffer = bytes.try_into_mut().unwrap_or_else(|held| BytesMut::from(&held[..]));
        let encoded = self.header.encode();
        let (_, summed) = encoded.split_at(CRC_START);
        self.header.crc = self.payload.join(crc32c::crc32c(summed), self.payload_crc);
        if let Some(place) = buffer.first_chunk_mut::<HEADER_LEN>() {
            *place = self.header.encode();
        }
        self.bytes = buffer.freeze();
    }

    /// The batch as a produce request carries it; the same until it is stamped again.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the batch on the wire.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Records.
    pub fn count(&self) -> i32 {
        self.header.record_count
    }

    /// Never: an empty batch cannot be sealed.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// The records that were appended, decompressed again.
    pub fn records(&self) -> Result<Records, BatchError> {
        RawBatch { header: self.header, bytes: self.bytes() }.records(self.plain_len)
    }

    /// Sorts the records, told by their index, into new batches; those for which `part` says None are left out. It is the
    /// way to split a batch that a broker found too large, and to leave out records that it refused. Within a part they
    /// keep their order; keys, values, headers and timestamps stay; the parts have no producer until they are stamped.
    ///
    /// # Errors
    /// Those of reading and of [`BatchBuilder::seal`].
    pub fn divide(&self, part: impl Fn(usize) -> Option<usize>) -> Result<Vec<SealedBatch>, BatchError> {
        let compression = self.header.compression()?;
        let transactional = self.header.is_transactional();
        let mut parts: BTreeMap<usize, BatchBuilder> = BTreeMap::new();
        for (index, record) in self.records()?.iter().enumerate() {
            let record = record?;
            if let Some(part) = part(index) {
                let new =
                    || BatchBuilder::new(compression, self.level, self.plain_len / 2).transactional(transactional);
                parts.entry(part).or_insert_with(new).append_record(&record)?;
            }
        }
        parts.into_values().map(BatchBuilder::seal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Compression;

    fn sealed(compression: Compression, count: i64) -> SealedBatch {
        let mut builder = BatchBuilder::new(compression, None, 0).transactional(true);
        for i in 0..count {
            let value = format!("value {i}").repeat(1 + i as usize % 5);
            let header = (Bytes::from_static(b"h"), None);
            builder.append(1000 + i % 3, Some(&[i as u8]), Some(value.as_bytes()), &[header]).expect("room");
        }
        builder.seal().expect("some")
    }

    type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

    fn rows(batch: &SealedBatch) -> Vec<Row> {
        let records = batch.records().expect("valid");
        let row = |record: Result<super::super::RecordView<'_>, _>| {
            let record = record.expect("valid");
            (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), record.headers.len())
        };
        records.iter().map(row).collect()
    }

    #[test]
    fn stamping_changes_the_producer_fields_and_the_crc_only() {
        for compression in Compression::ALL {
            let mut batch = sealed(compression, 40);
            let before = batch.bytes();
            assert_eq!(RawBatch::try_from(before.clone()).expect("whole").verify_crc(), Ok(()), "{compression}");
            batch.stamp(77, 3, 1234);
            let after = RawBatch::try_from(batch.bytes()).expect("whole");
            assert_eq!(after.verify_crc(), Ok(()), "{compression}");
            assert_eq!(after.header, *batch.header());
            let unstamped = BatchHeader { producer_id: -1, producer_epoch: -1, base_sequence: -1, ..after.header };
            let first = BatchHeader::parse(&before).expect("whole");
            assert_eq!(BatchHeader { crc: first.crc, ..unstamped }, first);
            assert_eq!(before[HEADER_LEN..], after.bytes[HEADER_LEN..]);
            assert!(after.header.is_transactional());
        }
    }

    #[test]
    fn bytes_that_were_handed_out_stay_as_they_were() {
        let mut batch = sealed(Compression::None, 3);
        batch.stamp(1, 0, 0);
        let sent = batch.bytes();
        assert_eq!(sent.as_ptr(), batch.bytes().as_ptr(), "a retry copies nothing");
        let copy = sent.to_vec();
        batch.stamp(2, 1, 50);
        assert_eq!(sent, copy);
        assert_ne!(batch.bytes(), copy);
        drop(sent);
        let at = batch.bytes().as_ptr();
        batch.stamp(3, 1, 50);
        assert_eq!(batch.bytes().as_ptr(), at, "stamped in place when nobody holds it");
    }

    #[test]
    fn the_halves_of_a_batch_hold_all_records_in_order() {
        for compression in Compression::ALL {
            let whole = sealed(compression, 25);
            for at in [1, 12, 24] {
                let halves = whole.divide(|index| Some(usize::from(index >= at))).expect("valid");
                let [first, second] = halves.try_into().expect("two");
                assert_eq!((first.count(), second.count()), (at as i32, 25 - at as i32), "{compression}");
                assert_eq!([rows(&first), rows(&second)].concat(), rows(&whole), "{compression} at {at}");
                for half in [first, second] {
                    assert_eq!(half.header().compression(), Ok(compression));
                    assert!(half.header().is_transactional());
                    assert_eq!(half.header().last_offset_delta, half.count() - 1);
                    assert_eq!(RawBatch::try_from(half.bytes()).expect("whole").verify_crc(), Ok(()));
                }
            }
        }
    }

    #[test]
    fn refused_records_are_left_out_and_empty_parts_do_not_exist() {
        let whole = sealed(Compression::Zstd, 5);
        let rest = whole.divide(|index| (index % 2 == 0).then_some(7)).expect("valid");
        let [rest] = rest.try_into().expect("one");
        let expected: Vec<Row> = rows(&whole).into_iter().step_by(2).collect();
        assert_eq!(rows(&rest), expected);
        assert!(whole.divide(|_| None).expect("valid").is_empty());
    }
}
