//! Our own record batch (magic 2): header view, borrowed record iterator, in-place builder, codecs.
//!
//! Reading never allocates by a number that stands in the bytes, and what decompression may produce is bounded by the
//! caller. It knows nothing of topics or brokers. Source: Kafka's "Record Batch" documentation, KIP-98, KIP-110.

mod aborted;
mod batches;
mod builder;
mod codec;
mod header;
mod view;

use std::{fmt, str::FromStr};

pub use aborted::{AbortedTransaction, AbortedTransactions};
pub use batches::{Batches, ControlType, RawBatch};
pub use builder::{BatchBuilder, SealedBatch};
pub use header::{BatchHeader, HEADER_BYTES};
pub use view::{Headers, RecordIter, RecordView, Records};

use crate::wire::WireError;

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The lowest three bits of a batch's attributes.
    fn id(self) -> i16 {
        self as i16
    }

    fn from_id(id: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| format!("{text:?} is none of none, gzip, snappy, lz4, zstd"))
    }
}

/// Why a batch cannot be read (or made).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("offset {offset}: message format {magic} is older than Kafka 0.11's and is not supported")]
    UnsupportedMagic { offset: i64, magic: i8 },
    #[error("offset {offset}: a batch length of {length} is impossible")]
    Length { offset: i64, length: i32 },
    #[error(
        "offset {offset}: the checksum does not match (the batch says {expected:#010x}, its bytes give {actual:#010x})"
    )]
    Crc { offset: i64, expected: u32, actual: u32 },
    #[error("offset {offset}: compression codec {id} is not known")]
    UnknownCodec { offset: i64, id: i16 },
    #[error("offset {offset}: not valid {codec}: {reason}")]
    Codec { offset: i64, codec: Compression, reason: String },
    #[error("unpacked, the batch takes more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("offset {offset}: a batch of {count} records whose last offset is {last_offset_delta} after its first")]
    Count { offset: i64, count: i32, last_offset_delta: i32 },
    #[error("offset {offset}: {0}", offset = .1)]
    Record(#[source] WireError, i64),
    #[error("offset {offset}: {what} is out of range")]
    Overflow { offset: i64, what: &'static str },
    #[error("offset {offset}: {extra} bytes after the last record")]
    TrailingBytes { offset: i64, extra: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_have_kafkas_names_and_numbers() {
        for (codec, name, id) in [
            (Compression::None, "none", 0),
            (Compression::Gzip, "gzip", 1),
            (Compression::Snappy, "snappy", 2),
            (Compression::Lz4, "lz4", 3),
            (Compression::Zstd, "zstd", 4),
        ] {
            assert_eq!(name.parse(), Ok(codec));
            assert_eq!((codec.id(), Compression::from_id(id)), (id, Some(codec)));
        }
        assert!("brotli".parse::<Compression>().is_err());
        assert_eq!(Compression::from_id(5), None);
    }
}
