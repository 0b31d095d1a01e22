//! Control batches: the markers that end a transaction (KIP-98).
//!
//! A control batch holds one record, whose key is a version and a type; it never reaches an application.

use bytes::Bytes;

use super::{
    batches::RawBatch,
    builder::BatchBuilder,
    codec::Compression,
    error::BatchError,
    header::{BatchHeader, CONTROL_BIT, TRANSACTIONAL_BIT},
};
use crate::wire::Reader;

/// A marker takes some 20 bytes.
const MAX_MARKER_BYTES: usize = 4096;
const VERSION: i16 = 0;

/// What a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// Something else, such as those of the metadata quorum.
    Other(i16),
}

impl ControlType {
    pub const fn code(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::Other(code) => code,
        }
    }

    pub const fn from_code(code: i16) -> Self {
        match code {
            0 => Self::Abort,
            1 => Self::Commit,
            code => Self::Other(code),
        }
    }
}

impl RawBatch {
    /// The marker of a control batch.
    ///
    /// # Errors
    /// [`BatchError::NoMarker`] if it is not a control batch, was emptied, or its key is not a marker's.
    pub fn control_type(&self) -> Result<ControlType, BatchError> {
        let no_marker = || BatchError::NoMarker { offset: self.header.base_offset };
        if !self.header.is_control() {
            return Err(no_marker());
        }
        let records = self.records(MAX_MARKER_BYTES)?;
        let record = records.iter().next().ok_or_else(no_marker)??;
        let mut key = Reader::new(record.key.ok_or_else(no_marker)?);
        // Later versions may add fields behind these two.
        key.i16("control key version").map_err(|_| no_marker())?;
        key.i16("control key type").map(ControlType::from_code).map_err(|_| no_marker())
    }
}

/// The batch that a transaction coordinator has written: one marker of `kind` for this producer, at `base_offset`.
///
/// `timestamp` is in milliseconds since the epoch.
pub fn control_batch(
    kind: ControlType,
    base_offset: i64,
    timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    coordinator_epoch: i32,
) -> Result<RawBatch, BatchError> {
    let version = VERSION.to_be_bytes();
    let key = [version, kind.code().to_be_bytes()].concat();
    let value = [&version[..], &coordinator_epoch.to_be_bytes()].concat();
    let mut builder = BatchBuilder::new(Compression::None, None, 0);
    builder.append(timestamp, Some(&key), Some(&value), &[])?;
    let marker = RawBatch::try_from(builder.seal()?.bytes())?;
    let header = BatchHeader {
        base_offset,
        attributes: TRANSACTIONAL_BIT | CONTROL_BIT,
        producer_id,
        producer_epoch,
        ..marker.header
    };
    let payload: Bytes = marker.payload();
    RawBatch::assemble(header, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_as_they_were_written() {
        for kind in [ControlType::Abort, ControlType::Commit, ControlType::Other(5)] {
            let batch = control_batch(kind, 42, 1_700_000_000_000, 9, 3, 1).expect("small");
            assert_eq!(batch.verify_crc(), Ok(()));
            assert!(batch.header.is_control() && batch.header.is_transactional());
            assert_eq!((batch.header.base_offset, batch.header.next_offset()), (42, 43));
            assert_eq!((batch.header.producer_id, batch.header.producer_epoch), (9, 3));
            assert_eq!(batch.control_type(), Ok(kind));
        }
    }

    #[test]
    fn a_control_batch_without_a_marker_is_an_error_not_a_commit() {
        let control = BatchHeader { base_offset: 7, attributes: 0x30, ..BatchHeader::default() };
        let no_marker = Err(BatchError::NoMarker { offset: 7 });
        // Emptied by compaction.
        assert_eq!(RawBatch::assemble(control, &[]).expect("small").control_type(), no_marker);
        let one = BatchHeader { record_count: 1, ..control };
        for payload in [
            &[0x0c, 0, 0, 0, 0x01, 0x01, 0][..],      // a null key
            &[0x12, 0, 0, 0, 0x06, 0, 0, 0, 0x01, 0], // three bytes
        ] {
            assert_eq!(RawBatch::assemble(one, payload).expect("small").control_type(), no_marker, "{payload:?}");
        }
        // A data batch has none, whatever its key.
        let data = BatchHeader { attributes: 0, ..one };
        let payload = [0x14, 0, 0, 0, 0x08, 0, 0, 0, 0, 0x01, 0];
        assert_eq!(RawBatch::assemble(data, &payload).expect("small").control_type(), no_marker);
        assert_eq!(RawBatch::assemble(one, &payload).expect("small").control_type(), Ok(ControlType::Abort));
    }
}
