//! The records of one batch, as borrowed views.
//!
//! Layout: Kafka documentation, "Record". Every length is checked against the record it stands in, and headers are walked
//! when the record is parsed, so that iterating them later cannot fail. Keys, values and headers are bytes here.
//! [`Records`] is the main type.

use std::fmt;

use bytes::Bytes;

use super::{error::BatchError, header::BatchHeader};
use crate::wire::{Reader, WireError};

/// The records of one batch, decompressed, as bytes; iterate to get borrowed [`RecordView`]s. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    header: BatchHeader,
    bytes: Bytes,
}

impl Records {
    pub(super) fn new(header: BatchHeader, bytes: Bytes) -> Self {
        Self { header, bytes }
    }

    /// The header of the batch that they came in.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes held, decompressed. Uncompressed records share the fetched bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// From the first record on. Ends at the first error, which names the record; what came before it is valid.
    #[inline]
    pub fn iter(&self) -> RecordIter<'_> {
        self.iter_from(Place::default())
    }

    /// From a place on that an iterator of the same records told, without a walk over what is before it.
    #[inline]
    pub fn iter_from(&self, place: Place) -> RecordIter<'_> {
        let header = &self.header;
        let rest = self.bytes.get(place.byte..).unwrap_or_default();
        let left = header.record_count.saturating_sub(place.index);
        RecordIter { header, reader: Reader::new(rest), end: self.bytes.len(), index: place.index, left }
    }
}

/// Where a record begins among those of its batch. The default is the place of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub byte: usize,
    pub index: i32,
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Record contents never reach a log.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("header", &self.header).field("len_bytes", &self.bytes.len()).finish()
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub offset: i64,
    /// Milliseconds since the epoch; the batch's max timestamp on a LogAppendTime topic.
    pub timestamp: i64,
    /// None is null, which is not empty.
    pub key: Option<&'a [u8]>,
    /// None is a tombstone, which is not empty.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// Sizes only: record contents never reach a log.
impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordView")
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key_len", &self.key.map(<[u8]>::len))
            .field("value_len", &self.value.map(<[u8]>::len))
            .field("headers", &self.headers.len())
            .finish()
    }
}

/// Iterates the records of a batch; see [`Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    reader: Reader<'a>,
    /// Bytes of all records.
    end: usize,
    index: i32,
    left: i32,
}

impl<'a> RecordIter<'a> {
    /// The place of the record that comes next.
    #[inline]
    pub fn place(&self) -> Place {
        Place { byte: self.end.saturating_sub(self.reader.remaining()), index: self.index }
    }

    // Inlined by force, with all that it calls: as a call it costs half as much again.
    #[inline(always)]
    fn record(&mut self) -> Result<RecordView<'a>, BatchError> {
        let header = self.header;
        let (body, rest) = match parse(self.reader) {
            Ok(parsed) => parsed,
            Err(source) => return Err(self.malformed(source)),
        };
        self.reader = rest;
        if body.extra != 0 {
            return Err(BatchError::RecordLength { offset: header.base_offset, index: self.index, extra: body.extra });
        }
        if !(0..=header.last_offset_delta).contains(&body.offset_delta) {
            return Err(self.outside(body.offset_delta));
        }
        let Some(offset) = header.base_offset.checked_add(i64::from(body.offset_delta)) else {
            return Err(overflow(header, "offset", header.base_offset, i64::from(body.offset_delta)));
        };
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp
        } else {
            match header.base_timestamp.checked_add(body.timestamp_delta) {
                Some(timestamp) => timestamp,
                None => return Err(overflow(header, "timestamp", header.base_timestamp, body.timestamp_delta)),
            }
        };
        self.index = self.index.saturating_add(1);
        self.left -= 1;
        Ok(RecordView { offset, timestamp, key: body.key, value: body.value, headers: body.headers })
    }

    #[cold]
    fn outside(&self, delta: i32) -> BatchError {
        let BatchHeader { base_offset: offset, last_offset_delta: last, .. } = *self.header;
        BatchError::OffsetDelta { offset, index: self.index, delta, last }
    }

    #[cold]
    fn malformed(&self, source: WireError) -> BatchError {
        BatchError::Record {
            offset: self.header.base_offset,
            index: self.index,
            count: self.header.record_count,
            source,
        }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let extra = self.reader.remaining();
            if extra == 0 {
                return None;
            }
            // Said once: the rest is dropped.
            self.reader = Reader::new(&[]);
            return Some(Err(BatchError::TrailingBytes { offset: self.header.base_offset, extra }));
        }
        let record = self.record();
        if record.is_err() {
            self.left = 0;
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }

    /// The claimed count is bounded by the bytes: a record takes at least seven.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.reader.remaining() / LEAST_RECORD + 1))
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

/// Length, attributes, two deltas, null key, null value, no headers.
const LEAST_RECORD: usize = 7;

#[cold]
fn overflow(header: &BatchHeader, field: &'static str, base: i64, delta: i64) -> BatchError {
    BatchError::Overflow { offset: header.base_offset, field, base, delta }
}

/// What stands in a record, before base offset and base timestamp are added.
struct Body<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
    /// Bytes of the record after its last header.
    extra: usize,
}

#[inline(always)]
fn parse(mut reader: Reader<'_>) -> Result<(Body<'_>, Reader<'_>), WireError> {
    let length = reader.varint("record length")?;
    let Ok(length) = usize::try_from(length) else {
        return Err(WireError::NegativeLength { field: "record length", length: i64::from(length) });
    };
    let mut body = Reader::new(reader.bytes(length, "record")?);
    // No attribute bit of a record is in use.
    body.u8("record attributes")?;
    let timestamp_delta = body.varlong("timestamp delta")?;
    let offset_delta = body.varint("offset delta")?;
    let key = body.varint_bytes("key")?;
    let value = body.varint_bytes("value")?;
    let headers = Headers::parse(&mut body)?;
    Ok((Body { timestamp_delta, offset_delta, key, value, headers, extra: body.remaining() }, reader))
}

/// The headers of a record: an ordered multimap; names need not be UTF-8, values may be null.
/// Iterates as `(&'a [u8], Option<&'a [u8]>)`. The default has none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    count: u32,
    /// Exactly `count` headers, walked once already.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    #[inline(always)]
    fn parse(body: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = body.varint("header count")?;
        if count == 0 {
            return Ok(Self::default());
        }
        let Ok(count) = u32::try_from(count) else {
            return Err(WireError::NegativeLength { field: "header count", length: i64::from(count) });
        };
        let after = Self::walk(count, *body)?;
        let walked = body.remaining() - after.remaining();
        Ok(Self { count, bytes: body.bytes(walked, "headers")? })
    }

    /// Where `count` headers end. Each takes at least two bytes, so a false count ends with the bytes.
    #[inline(never)]
    fn walk(count: u32, mut body: Reader<'a>) -> Result<Reader<'a>, WireError> {
        for _ in 0..count {
            header(&mut body)?;
        }
        Ok(body)
    }

    pub fn len(&self) -> usize {
        crate::wire::to_usize(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> HeaderIter<'a> {
        HeaderIter { left: self.count, reader: Reader::new(self.bytes) }
    }

    /// The value of the last header of this name, as Kafka's `lastHeader`; the inner None is a null value.
    pub fn last(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    }
}

#[inline]
fn header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), WireError> {
    let Some(key) = reader.varint_bytes("header key")? else {
        return Err(WireError::Null { field: "header key" });
    };
    Ok((key, reader.varint_bytes("header value")?))
}

/// The count only: header values never reach a log.
impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({})", self.count)
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// Iterates headers in order.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        header(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = crate::wire::to_usize(self.left);
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}
impl std::iter::FusedIterator for HeaderIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, Compression, RawBatch};

    fn records(header: BatchHeader, payload: &[u8]) -> Records {
        Records::new(header, Bytes::copy_from_slice(payload))
    }

    fn header(record_count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: 100,
            last_offset_delta: 9,
            base_timestamp: 1000,
            max_timestamp: 999_000,
            record_count,
            ..BatchHeader::default()
        }
    }

    /// A record without headers, key k, value v, at delta 1.
    const PLAIN: &[u8] = &[0x10, 0, 0x0a, 0x02, 0x02, b'k', 0x02, b'v', 0];

    #[test]
    fn offsets_and_timestamps_are_base_plus_delta() {
        let records = records(header(1), PLAIN);
        let record = records.iter().next().expect("one").expect("valid");
        assert_eq!((record.offset, record.timestamp), (101, 1005));
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert!(record.headers.is_empty());
        assert_eq!(records.iter().count(), 1);
    }

    #[test]
    fn log_append_time_is_the_batch_max_timestamp() {
        let mut with = header(1);
        with.set_log_append_time(true);
        let records = records(with, PLAIN);
        assert_eq!(records.iter().next().expect("one").expect("valid").timestamp, 999_000);
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        let payload = [&[0x0c, 0, 0, 0, 0x01, 0x01, 0][..], &[0x0c, 0, 0, 2, 0x00, 0x00, 0]].concat();
        let records = records(header(2), &payload);
        let seen: Vec<_> = records.iter().map(|record| record.map(|r| (r.key, r.value)).expect("valid")).collect();
        assert_eq!(seen, [(None, None), (Some(&[][..]), Some(&[][..]))]);
    }

    #[test]
    fn headers_keep_order_repeats_nulls_and_odd_names() {
        let mut builder = BatchBuilder::new(Compression::None, None, 0);
        let headers: Vec<(Bytes, Option<Bytes>)> = vec![
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
            (Bytes::from_static(&[0xff, 0x00]), None),
            (Bytes::from_static(b"a"), Some(Bytes::new())),
            (Bytes::new(), Some(Bytes::from_static(&[0xc3, 0x28]))),
            (Bytes::from_static(b"a"), None),
        ];
        builder.append(0, None, None, &headers).expect("room");
        let batch = RawBatch::try_from(builder.seal().expect("one").bytes()).expect("whole");
        let records = batch.records(0).expect("plain");
        let record = records.iter().next().expect("one").expect("valid");
        assert_eq!(record.headers.len(), 5);
        let seen: Vec<_> = record.headers.into_iter().collect();
        let expected: Vec<_> = headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        assert_eq!(seen, expected);
        assert_eq!(record.headers.last(b"a"), Some(None));
        assert_eq!(record.headers.last(b"b"), None);
    }

    #[test]
    fn malformed_records_are_named_and_end_the_iteration() {
        let wire = |index: i32, count: i32, source: WireError| BatchError::Record { offset: 100, index, count, source };
        let truncated = |field, need, have| WireError::Truncated { field, need, have };
        let cases: Vec<(&str, Vec<u8>, i32, BatchError)> = vec![
            ("no bytes", vec![], 1, wire(0, 1, truncated("record length", 1, 0))),
            (
                "the count is beyond the bytes",
                PLAIN.to_vec(),
                i32::MAX,
                wire(1, i32::MAX, truncated("record length", 1, 0)),
            ),
            (
                "negative length",
                vec![0x01],
                1,
                wire(0, 1, WireError::NegativeLength { field: "record length", length: -1 }),
            ),
            ("length beyond the bytes", vec![0x14, 0], 1, wire(0, 1, truncated("record", 10, 1))),
            ("empty record", vec![0x00], 1, wire(0, 1, truncated("record attributes", 1, 0))),
            (
                "key beyond the record, not beyond the batch",
                [&[0x0c, 0, 0, 0, 0x06, b'k', 0x01][..], &[0; 20]].concat(),
                1,
                wire(0, 1, truncated("key", 3, 2)),
            ),
            (
                "a key length of -2",
                vec![0x0c, 0, 0, 0, 0x03, 0x01, 0],
                1,
                wire(0, 1, WireError::NegativeLength { field: "key", length: -2 }),
            ),
            (
                "a header count of i32::MAX",
                vec![0x14, 0, 0, 0, 0x01, 0x01, 0xfe, 0xff, 0xff, 0xff, 0x0f],
                1,
                wire(0, 1, truncated("header key", 1, 0)),
            ),
            (
                "a header count of -1",
                vec![0x0c, 0, 0, 0, 0x01, 0x01, 0x01],
                1,
                wire(0, 1, WireError::NegativeLength { field: "header count", length: -1 }),
            ),
            (
                "a null header key",
                vec![0x10, 0, 0, 0, 0x01, 0x01, 0x02, 0x01, 0x01],
                1,
                wire(0, 1, WireError::Null { field: "header key" }),
            ),
            (
                "bytes after the last header",
                vec![0x0e, 0, 0, 0, 0x01, 0x01, 0, 0xaa],
                1,
                BatchError::RecordLength { offset: 100, index: 0, extra: 1 },
            ),
            (
                "bytes after the last record",
                [PLAIN, b"xyz"].concat(),
                1,
                BatchError::TrailingBytes { offset: 100, extra: 3 },
            ),
        ];
        for (name, payload, count, expected) in cases {
            let records = records(header(count), &payload);
            let mut iter = records.iter();
            let failure = iter.by_ref().find_map(Result::err);
            assert_eq!(failure, Some(expected), "{name}");
            assert!(iter.next().is_none(), "{name}: ended");
        }
    }

    #[test]
    fn offsets_and_timestamps_beyond_64_bits_are_errors() {
        let far = BatchHeader { base_timestamp: i64::MAX - 4, ..header(1) };
        let error = records(far, PLAIN).iter().next().expect("one").expect_err("overflow");
        assert_eq!(error, BatchError::Overflow { offset: 100, field: "timestamp", base: i64::MAX - 4, delta: 5 });
        let far = BatchHeader { base_offset: i64::MAX, ..header(1) };
        let error = records(far, PLAIN).iter().next().expect("one").expect_err("overflow");
        assert!(matches!(error, BatchError::Overflow { field: "offset", .. }));
    }

    #[test]
    fn an_offset_outside_its_batch_is_refused() {
        for (encoded, delta) in [(0x01, -1), (0x14, 10)] {
            let mut payload = PLAIN.to_vec();
            payload[3] = encoded;
            let error = records(header(1), &payload).iter().next().expect("one").expect_err("outside");
            assert_eq!(error, BatchError::OffsetDelta { offset: 100, index: 0, delta, last: 9 });
        }
        let mut payload = PLAIN.to_vec();
        payload[3] = 0x12;
        assert_eq!(records(header(1), &payload).iter().next().expect("one").expect("the last").offset, 109);
    }

    #[test]
    fn an_iterator_goes_on_from_any_place() {
        let records =
            records(header(3), &[PLAIN, &[0x0c, 0, 0, 4, 0x01, 0x01, 0], &[0x0c, 0, 0, 6, 0x01, 0x01, 0]].concat());
        let offsets = |iter: RecordIter<'_>| iter.map(|record| record.expect("valid").offset).collect::<Vec<_>>();
        let mut iter = records.iter();
        for taken in 0..=3 {
            let from = records.iter_from(iter.place());
            assert_eq!(offsets(from), offsets(records.iter())[taken..]);
            assert_eq!(iter.next().is_some(), taken < 3);
        }
        // A place that is none of these records' gives errors or nothing.
        let foreign = Place { byte: usize::MAX, index: i32::MAX };
        assert_eq!(records.iter_from(foreign).count(), 0);
    }

    #[test]
    fn contents_do_not_show_in_debug() {
        let records = records(header(1), PLAIN);
        let record = records.iter().next().expect("one").expect("valid");
        let shown = format!("{records:?} {record:?} {:?}", record.headers);
        assert!(!shown.contains("107") && !shown.contains("118"), "{shown}");
    }
}
