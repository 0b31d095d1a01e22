//! The records of an unpacked batch, borrowed.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::Bytes;

use super::{BatchError, BatchHeader};
use crate::wire::{Reader, WireError};

/// The least bytes of a record: length, attributes, two deltas, two lengths and a header count.
const LEAST_RECORD: usize = 7;

/// The records of one batch, unpacked, as bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    bytes: Bytes,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    pub offset: i64,
    /// Milliseconds since the epoch; the batch's max timestamp on a LogAppendTime topic.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// None is a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of a record: an ordered multimap; names need not be UTF-8, values may be null. They were checked when the
/// record was read.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl Records {
    pub(super) fn new(header: BatchHeader, bytes: Bytes) -> Result<Self, BatchError> {
        let fits = usize::try_from(header.record_count).is_ok_and(|count| count <= bytes.len() / LEAST_RECORD);
        // An emptied batch keeps its header after compaction; records are never more than the offsets they stand for.
        let dense = i64::from(header.record_count) <= i64::from(header.last_offset_delta) + 1;
        if fits && dense {
            return Ok(Self { header, bytes });
        }
        let BatchHeader { base_offset: offset, record_count: count, last_offset_delta, .. } = header;
        Err(BatchError::Count { offset, count, last_offset_delta })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of all records.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { header: &self.header, reader: Reader::new(&self.bytes), left: self.header.record_count }
    }
}

/// Iterates the records in order. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    reader: Reader<'a>,
    left: i32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let extra = self.reader.remaining();
            if extra == 0 {
                return None;
            }
            self.reader = Reader::new(&[]);
            return Some(Err(BatchError::TrailingBytes { offset: self.header.base_offset, extra }));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

impl<'a> RecordIter<'a> {
    #[inline]
    fn read(&mut self) -> Result<RecordView<'a>, BatchError> {
        let base = self.header.base_offset;
        let bad = |error: WireError| BatchError::Record(error, base);
        let length = self.reader.varint("record length").map_err(bad)?;
        let length = usize::try_from(length)
            .map_err(|_| bad(WireError::NegativeLength { field: "record length", length: i64::from(length) }))?;
        let mut body = Reader::new(self.reader.bytes(length, "record").map_err(bad)?);
        body.i8("record attributes").map_err(bad)?;
        let timestamp_delta = body.varlong("timestamp delta").map_err(bad)?;
        let offset_delta = body.varint("offset delta").map_err(bad)?;
        let key = body.varint_bytes("record key").map_err(bad)?;
        let value = body.varint_bytes("record value").map_err(bad)?;
        let headers = Headers::read(&mut body).map_err(bad)?;
        if offset_delta < 0 || offset_delta > self.header.last_offset_delta {
            return Err(BatchError::Overflow { offset: base, what: "an offset delta" });
        }
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            let overflow = BatchError::Overflow { offset: base, what: "a timestamp" };
            self.header.base_timestamp.checked_add(timestamp_delta).ok_or(overflow)?
        };
        // In range: the header's last offset is, and this one is not beyond it.
        let offset = base.saturating_add(i64::from(offset_delta));
        Ok(RecordView { offset, timestamp, key, value, headers })
    }
}

impl<'a> Headers<'a> {
    /// Checks all headers and that nothing follows them.
    #[inline]
    fn read(body: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = body.varint("header count")?;
        let bytes = body.rest();
        if count == 0 && bytes.is_empty() {
            return Ok(Self { count: 0, bytes });
        }
        let count = usize::try_from(count)
            .map_err(|_| WireError::NegativeLength { field: "header count", length: i64::from(count) })?;
        // Each takes two bytes at least.
        if count > bytes.len() / 2 {
            return Err(WireError::Truncated { field: "headers", need: count.saturating_mul(2), have: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        for _ in 0..count {
            if reader.varint_bytes("header key")?.is_none() {
                return Err(WireError::NegativeLength { field: "header key", length: -1 });
            }
            reader.varint_bytes("header value")?;
        }
        if reader.is_empty() {
            return Ok(Self { count, bytes });
        }
        Err(WireError::NegativeLength { field: "bytes after the headers", length: -(reader.remaining() as i64) })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| {
            let name = reader.varint_bytes("header key").ok()??;
            Some((name, reader.varint_bytes("header value").ok()?))
        })
    }
}
