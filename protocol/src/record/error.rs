//! Why a batch could not be read or built.

use super::codec::Compression;
use crate::wire::WireError;

/// Why a batch could not be read or built. `offset` is the batch's base offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Message formats 0 and 1 are older than Kafka 0.11; Kafka 4 brokers do not serve them (KIP-724).
    #[error("batch at offset {offset}: message format {magic} is not supported, only 2")]
    UnsupportedMagic { offset: i64, magic: i8 },
    /// The length field is negative or below that of a batch header.
    #[error("batch at offset {offset}: its length is given as {length}")]
    BadLength { offset: i64, length: i32 },
    /// A negative last offset delta, a negative record count or more records than offsets.
    #[error("batch at offset {offset}: {field} is {value}")]
    BadHeader { offset: i64, field: &'static str, value: i32 },
    /// The header itself is cut; only where a whole batch was promised.
    #[error("batch header")]
    Header(#[source] WireError),
    /// The bytes are not those that the producer or the broker wrote.
    #[error("batch at offset {offset}: CRC-32C is {actual:08x}, the header says {expected:08x}")]
    Crc { offset: i64, expected: u32, actual: u32 },
    /// Attribute bits that name no codec.
    #[error("batch at offset {offset}: unknown compression {code}")]
    UnknownCompression { offset: i64, code: i16 },
    /// The compressed bytes are not valid.
    #[error("batch at offset {offset}: {compression}: {reason}")]
    Decompress { offset: i64, compression: Compression, reason: String },
    /// Decompression would produce more than allowed; it was stopped there.
    #[error("batch at offset {offset}: {compression}: decompresses to more than {limit} bytes")]
    DecompressedTooLarge { offset: i64, compression: Compression, limit: usize },
    /// A record is cut or malformed.
    #[error("batch at offset {offset}: record {index} of {count}")]
    Record {
        offset: i64,
        index: i32,
        count: i32,
        #[source]
        source: WireError,
    },
    /// A record whose parts do not fill its length.
    #[error("batch at offset {offset}: record {index} has {extra} bytes after its last header")]
    RecordLength { offset: i64, index: i32, extra: usize },
    /// A record whose offset is not one of its batch's.
    #[error("batch at offset {offset}: record {index} is {delta} after the first, the last is {last} after it")]
    OffsetDelta { offset: i64, index: i32, delta: i32, last: i32 },
    /// Bytes after the last record that the header counts.
    #[error("batch at offset {offset}: {extra} bytes after its last record")]
    TrailingBytes { offset: i64, extra: usize },
    /// Base plus delta is beyond 64 bits.
    #[error("batch at offset {offset}: {field} {base} + {delta} overflows")]
    Overflow { offset: i64, field: &'static str, base: i64, delta: i64 },
    /// A control batch without a readable marker.
    #[error("batch at offset {offset}: not a control batch with a marker")]
    NoMarker { offset: i64 },

    /// A batch without records cannot be produced.
    #[error("the batch is empty")]
    Empty,
    /// The batch holds as much as its length fields can say.
    #[error("the batch is full: {bytes} bytes in {count} records")]
    Full { bytes: usize, count: i32 },
    /// The compressor failed.
    #[error("{compression}: {reason}")]
    Compress { compression: Compression, reason: String },
}
