//! What a broker checks of the records that a produce request brings for one partition, before it looks at the log.

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use protocol::record::{BatchError, Batches, Compression, RawBatch};

/// Bytes that the records of a batch may have decompressed.
const MAX_DECOMPRESSED: usize = 128 << 20;

/// A refusal as the answer to a produce request gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
    /// Indexes of the records at fault, with the reason (KIP-467).
    pub(crate) records: Vec<(i32, &'static str)>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), records: Vec::new() }
    }

    pub(crate) fn bare(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }
}

/// What the records themselves say, found before the log is locked.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// Indexes of records without a key, which a compacted topic refuses.
    keyless: Vec<i32>,
    /// The largest timestamp in the records, milliseconds since the epoch.
    pub(crate) max_timestamp: i64,
}

/// A batch as it came, with the verdict on its contents where the order of the checks wants that verdict last.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) batch: RawBatch,
    contents: Result<Contents, Refusal>,
}

/// What the topic asks of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    pub(crate) max_message_bytes: i32,
    pub(crate) compacted: bool,
    pub(crate) log_append_time: bool,
    /// The broker's clock, milliseconds since the epoch.
    pub(crate) now: i64,
    /// How far a record's time may be ahead of that clock, milliseconds.
    pub(crate) timestamp_after_max: i64,
}

impl Incoming {
    /// Exactly one batch of format 2, as the produce request of this version may carry it.
    pub(crate) fn parse(version: i16, records: Option<Bytes>) -> Result<Self, Refusal> {
        let invalid = |what: &str| Refusal::new(ErrorCode::INVALID_RECORD, format!("Produce requests {what}"));
        let bytes = records.unwrap_or_default();
        let mut batches = Batches::new(bytes);
        let batch = match batches.next() {
            None => return Err(invalid("must have one record batch per partition")),
            Some(Ok(batch)) => batch,
            Some(Err(BatchError::UnsupportedMagic { magic: 0 | 1, .. })) => {
                return Err(invalid("may only contain batches of format 2"));
            }
            Some(Err(
                error @ (BatchError::UnsupportedMagic { .. } | BatchError::BadLength { .. } | BatchError::Header(_)),
            )) => return Err(Refusal::new(ErrorCode::CORRUPT_MESSAGE, error.to_string())),
            Some(Err(error)) => return Err(Refusal::new(ErrorCode::INVALID_RECORD, error.to_string())),
        };
        if version < 7 && batch.header.compression() == Ok(Compression::Zstd) {
            let message = "Produce requests below version 7 may not be compressed by zstd";
            return Err(Refusal::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        match batches.next() {
            None => {}
            Some(Ok(_)) => return Err(invalid("may contain only one record batch per partition")),
            Some(Err(error)) => return Err(Refusal::new(ErrorCode::CORRUPT_MESSAGE, error.to_string())),
        }
        let contents = contents(&batch);
        Ok(Self { batch, contents })
    }

    /// The remaining checks, in the order in which a broker makes them.
    pub(crate) fn check(&self, demands: &Demands) -> Result<&Contents, Refusal> {
        let header = &self.batch.header;
        if header.base_offset != 0 {
            let message = format!("The base offset of the record batch should be 0, but it is {}", header.base_offset);
            return Err(Refusal::new(ErrorCode::INVALID_RECORD, message));
        }
        let size = self.batch.bytes.len();
        if i64::try_from(size).unwrap_or(i64::MAX) > i64::from(demands.max_message_bytes) {
            let message = format!("The record batch size is {size} bytes, which exceeds {}", demands.max_message_bytes);
            return Err(Refusal::new(ErrorCode::MESSAGE_TOO_LARGE, message));
        }
        let contents = self.contents.as_ref().map_err(Clone::clone)?;
        if demands.compacted && !contents.keyless.is_empty() {
            let reason = "Compacted topic cannot accept message without key";
            return Err(rejected(ErrorCode::INVALID_RECORD, contents.keyless.iter().map(|index| (*index, reason))));
        }
        let latest = demands.now.saturating_add(demands.timestamp_after_max);
        if !demands.log_append_time && contents.max_timestamp > latest {
            let reason = "Timestamp is too far in the future";
            return Err(rejected(ErrorCode::INVALID_TIMESTAMP, std::iter::once((0, reason))));
        }
        Ok(contents)
    }
}

fn rejected(code: ErrorCode, records: impl Iterator<Item = (i32, &'static str)>) -> Refusal {
    let message = "One or more records have been rejected".to_owned();
    Refusal { code, message: Some(message), records: records.collect() }
}

fn contents(batch: &RawBatch) -> Result<Contents, Refusal> {
    if let Err(error) = batch.verify_crc() {
        return Err(Refusal::new(ErrorCode::CORRUPT_MESSAGE, error.to_string()));
    }
    let header = &batch.header;
    let invalid = |message: String| Refusal::new(ErrorCode::INVALID_RECORD, message);
    if header.record_count <= 0 || i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        let (count, last) = (header.record_count, header.last_offset_delta);
        return Err(invalid(format!("Inconsistent batch: {count} records, last offset delta {last}")));
    }
    if header.is_control() {
        return Err(invalid("Clients are not allowed to write control records".to_owned()));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(invalid(format!("Invalid sequence number {} in record batch", header.base_sequence)));
    }
    let unreadable = |error: BatchError| match error {
        // A broker that cannot decompress throws, and says no more than that.
        BatchError::UnknownCompression { .. }
        | BatchError::Decompress { .. }
        | BatchError::DecompressedTooLarge { .. } => Refusal::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string()),
        error => invalid(error.to_string()),
    };
    let records = batch.records(MAX_DECOMPRESSED).map_err(unreadable)?;
    let mut contents = Contents { keyless: Vec::new(), max_timestamp: -1 };
    for (index, record) in (0..).zip(&records) {
        let record = record.map_err(unreadable)?;
        if record.offset != i64::from(index) {
            return Err(invalid(format!("Record {index} has offset delta {}", record.offset)));
        }
        if record.key.is_none() {
            contents.keyless.push(index);
        }
        contents.max_timestamp = contents.max_timestamp.max(record.timestamp);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use protocol::record::{BatchBuilder, BatchHeader};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const DEMANDS: Demands = Demands {
        max_message_bytes: 1000,
        compacted: false,
        log_append_time: false,
        now: NOW,
        timestamp_after_max: 3_600_000,
    };

    fn batch(keys: &[Option<&[u8]>], timestamp: i64) -> RawBatch {
        let mut builder = BatchBuilder::new(Compression::None, None, 0);
        for key in keys {
            builder.append(timestamp, *key, Some(b"value"), &[]).expect("room");
        }
        RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole")
    }

    /// The same records under another header, with a CRC that fits.
    fn with(batch: &RawBatch, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let mut header = batch.header;
        change(&mut header);
        RawBatch::assemble(header, &batch.payload()).expect("small").bytes
    }

    fn verdict(version: i16, bytes: Bytes, demands: Demands) -> Result<(), (ErrorCode, Vec<i32>)> {
        let refused = |refusal: Refusal| (refusal.code, refusal.records.iter().map(|(index, _)| *index).collect());
        Incoming::parse(version, Some(bytes)).map_err(refused)?.check(&demands).map(|_| ()).map_err(refused)
    }

    #[test]
    fn batches_are_refused_with_kafkas_codes() {
        let good = batch(&[Some(b"a"), None, None], NOW);
        let mut flipped = good.bytes.to_vec();
        *flipped.last_mut().expect("not empty") ^= 1;
        let mut old = good.bytes.to_vec();
        old[16] = 1;
        let mut short = good.bytes.to_vec();
        short[11] = 5;
        let refuse = |code| Err((code, vec![]));
        let compacted = Demands { compacted: true, ..DEMANDS };
        let rows = [
            ("good", 9, good.bytes.clone(), DEMANDS, Ok(())),
            ("nothing", 9, Bytes::new(), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            ("half of one", 9, good.bytes.slice(..70), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            (
                "two",
                9,
                [good.bytes.clone(), good.bytes.clone()].concat().into(),
                DEMANDS,
                refuse(ErrorCode::INVALID_RECORD),
            ),
            ("format 1", 9, old.into(), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            ("a flipped bit", 9, flipped.into(), DEMANDS, refuse(ErrorCode::CORRUPT_MESSAGE)),
            ("a length below a header's", 9, short.into(), DEMANDS, refuse(ErrorCode::CORRUPT_MESSAGE)),
            (
                "too large",
                9,
                good.bytes.clone(),
                Demands { max_message_bytes: 60, ..DEMANDS },
                refuse(ErrorCode::MESSAGE_TOO_LARGE),
            ),
            ("offset 5", 9, with(&good, |h| h.base_offset = 5), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            ("control", 9, with(&good, |h| h.attributes |= 0x20), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            (
                "a count that is wrong",
                9,
                with(&good, |h| h.record_count = 2),
                DEMANDS,
                refuse(ErrorCode::INVALID_RECORD),
            ),
            (
                "a huge count",
                9,
                with(&good, |h| (h.record_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1)),
                DEMANDS,
                refuse(ErrorCode::INVALID_RECORD),
            ),
            ("no sequence", 9, with(&good, |h| h.producer_id = 1), DEMANDS, refuse(ErrorCode::INVALID_RECORD)),
            ("no key", 9, good.bytes.clone(), compacted, Err((ErrorCode::INVALID_RECORD, vec![1, 2]))),
            (
                "tomorrow",
                9,
                batch(&[None], NOW + 86_400_000).bytes,
                DEMANDS,
                Err((ErrorCode::INVALID_TIMESTAMP, vec![0])),
            ),
            (
                "tomorrow, where the broker's time counts",
                9,
                batch(&[None], NOW + 86_400_000).bytes,
                Demands { log_append_time: true, ..DEMANDS },
                Ok(()),
            ),
            (
                "zstd in version 6",
                6,
                with(&good, |h| h.attributes |= 4),
                DEMANDS,
                refuse(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE),
            ),
            ("not zstd", 7, with(&good, |h| h.attributes |= 4), DEMANDS, refuse(ErrorCode::UNKNOWN_SERVER_ERROR)),
        ];
        for (name, version, bytes, demands, expected) in rows {
            assert_eq!(verdict(version, bytes, demands), expected, "{name}");
        }
    }
}
