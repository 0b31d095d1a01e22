//! Bytes: varints and bounded reads.
//!
//! Nothing here allocates, and no read goes past the end: a length that the bytes claim is compared with the bytes that
//! are there before anything else. It does not know messages or records. [`Reader`] is the main type.
//!
//! Encodings: Kafka protocol guide, "Protocol Primitive Types".

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::BufMut;

/// Why bytes could not be read as what they should be; every variant names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes are left than the field takes or claims.
    #[error("{field}: needs {need} bytes, {have} left")]
    Truncated { field: &'static str, need: usize, have: usize },
    /// A varint with more bits than its type has.
    #[error("{field}: the varint does not fit its type")]
    VarintTooLong { field: &'static str },
    /// A negative length where null is not allowed, or one below the -1 of null.
    #[error("{field}: the length is {length}")]
    NegativeLength { field: &'static str, length: i64 },
    /// A null where the field must be there.
    #[error("{field}: is null")]
    Null { field: &'static str },
}

/// Reads from the front of a slice; each read takes the name of the field for the error. After an error the position is
/// unspecified (but never past the end).
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! big_endian {
    ($($name:ident $type:ty),*) => {
        $(#[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$type, WireError> {
            Ok(<$type>::from_be_bytes(self.array(field)?))
        })*
    };
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not read yet, without reading them.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    big_endian!(u8 u8, i8 i8, i16 i16, u32 u32, i32 i32, i64 i64);

    /// The next `N` bytes, such as the 16 of a UUID.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(truncated(field, N, self.rest.len())),
        }
    }

    /// The next `count` bytes, borrowed.
    #[inline]
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(truncated(field, count, self.rest.len())),
        }
    }

    /// Leaves out the next `count` bytes.
    #[inline]
    pub fn skip(&mut self, count: usize, field: &'static str) -> Result<(), WireError> {
        self.bytes(count, field).map(drop)
    }

    /// UNSIGNED_VARINT: at most five bytes, at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, WireError> {
        match self.short_uvarint() {
            Some(value) => Ok(value),
            None => {
                let (value, rest) = long_uvarint::<32>(self.rest, field)?;
                self.rest = rest;
                Ok(value as u32)
            }
        }
    }

    /// VARINT: zigzag, at most five bytes.
    #[inline]
    pub fn varint(&mut self, field: &'static str) -> Result<i32, WireError> {
        let raw = self.uvarint(field)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// VARLONG: zigzag, at most ten bytes, at most 64 bits.
    #[inline]
    pub fn varlong(&mut self, field: &'static str) -> Result<i64, WireError> {
        let raw = match self.short_uvarint() {
            Some(value) => u64::from(value),
            None => {
                let (value, rest) = long_uvarint::<64>(self.rest, field)?;
                self.rest = rest;
                value
            }
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Bytes behind a VARINT length; -1 is null. The form inside records.
    #[inline]
    pub fn varint_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        let length = self.varint(field)?;
        match usize::try_from(length) {
            Ok(length) => self.bytes(length, field).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(WireError::NegativeLength { field, length: i64::from(length) }),
        }
    }

    /// The fast path: nearly every varint of a record has one or two bytes. Reads nothing if this one has more.
    #[inline]
    fn short_uvarint(&mut self) -> Option<u32> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Some(u32::from(*first))
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.rest = rest;
                Some(u32::from(*first & 0x7f) | u32::from(*second) << 7)
            }
            _ => None,
        }
    }
}

// What is rare takes the slice by value: a reader whose address escapes would live in memory and not in registers, which
// costs more than reading a record.

/// A varint of at most `BITS` bits, in no more bytes than they need, and what follows it. Within these, padding (a last
/// byte of zero) is read as Java reads it.
#[inline(never)]
fn long_uvarint<'a, const BITS: u32>(bytes: &'a [u8], field: &'static str) -> Result<(u64, &'a [u8]), WireError> {
    let mut value = 0_u64;
    let mut rest = bytes;
    for shift in (0..BITS).step_by(7) {
        let Some((&byte, after)) = rest.split_first() else {
            return Err(truncated(field, bytes.len().saturating_add(1), bytes.len()));
        };
        rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift + 7 > BITS && bits >> (BITS - shift) != 0 {
            return Err(WireError::VarintTooLong { field });
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok((value, rest));
        }
    }
    Err(WireError::VarintTooLong { field })
}

#[cold]
fn truncated(field: &'static str, need: usize, have: usize) -> WireError {
    WireError::Truncated { field, need, have }
}

/// Saturates where `usize` is narrower than 32 bits.
#[inline]
pub(crate) fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[inline]
const fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn zigzag_long(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// UNSIGNED_VARINT, one to five bytes.
#[inline]
pub fn put_uvarint(buffer: &mut impl BufMut, value: u32) {
    put_uvarlong(buffer, u64::from(value));
}

/// VARINT (zigzag), one to five bytes.
#[inline]
pub fn put_varint(buffer: &mut impl BufMut, value: i32) {
    put_uvarlong(buffer, u64::from(zigzag(value)));
}

/// VARLONG (zigzag), one to ten bytes.
#[inline]
pub fn put_varlong(buffer: &mut impl BufMut, value: i64) {
    put_uvarlong(buffer, zigzag_long(value));
}

#[inline]
fn put_uvarlong(buffer: &mut impl BufMut, mut value: u64) {
    // As for reading: nearly all have one or two bytes.
    if value < 0x80 {
        return buffer.put_u8(value as u8);
    }
    if value < 0x4000 {
        return buffer.put_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    }
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// Bytes of a VARINT.
#[inline]
pub const fn varint_len(value: i32) -> usize {
    uvarlong_len(zigzag(value) as u64)
}

/// Bytes of a VARLONG.
#[inline]
pub const fn varlong_len(value: i64) -> usize {
    uvarlong_len(zigzag_long(value))
}

#[inline]
const fn uvarlong_len(value: u64) -> usize {
    // One byte for every seven bits, at least one.
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_are_written_as_kafka_writes_them() {
        // Kafka protocol guide and ByteUtilsTest of kafka-clients.
        let cases: &[(i32, &[u8])] = &[
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for &(value, encoded) in cases {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer, encoded, "{value}");
            assert_eq!(varint_len(value), encoded.len(), "{value}");
            let mut reader = Reader::new(encoded);
            assert_eq!(reader.varint("v"), Ok(value));
            assert!(reader.is_empty());
        }
        let mut longest = Vec::new();
        put_varlong(&mut longest, i64::MIN);
        assert_eq!(longest, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(varlong_len(i64::MIN), 10);
        assert_eq!(Reader::new(&longest).varlong("v"), Ok(i64::MIN));
    }

    #[test]
    fn a_varint_beyond_its_type_is_refused() {
        let too_long = Err(WireError::VarintTooLong { field: "v" });
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 0x1f][..],               // a 33rd bit
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],             // a fifth byte that goes on
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // 56 bits
        ] {
            assert_eq!(Reader::new(bytes).uvarint("v"), too_long, "{bytes:?}");
        }
        let nine = [0xff; 9];
        for last in [&[0x02][..], &[0x81, 0x00]] {
            let bytes = [&nine[..], last].concat();
            assert_eq!(Reader::new(&bytes).varlong("v"), Err(WireError::VarintTooLong { field: "v" }), "{bytes:?}");
        }
    }

    #[test]
    fn a_cut_varint_is_truncated_and_names_its_field() {
        for bytes in [&[][..], &[0x80], &[0xff, 0xff, 0xff, 0xff]] {
            let error = Reader::new(bytes).uvarint("topics").expect_err("cut");
            assert_eq!(error, WireError::Truncated { field: "topics", need: bytes.len() + 1, have: bytes.len() });
        }
        assert_eq!(
            Reader::new(&[0, 1]).i32("throttle_time_ms").expect_err("cut").to_string(),
            "throttle_time_ms: needs 4 bytes, 2 left"
        );
    }

    #[test]
    fn null_and_negative_lengths_are_told_apart() {
        assert_eq!(Reader::new(&[0x01]).varint_bytes("k"), Ok(None));
        assert_eq!(Reader::new(&[0x00]).varint_bytes("k"), Ok(Some(&[][..])));
        assert_eq!(Reader::new(&[0x03]).varint_bytes("k"), Err(WireError::NegativeLength { field: "k", length: -2 }));
        assert_eq!(
            Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 1]).varint_bytes("b"),
            Err(WireError::Truncated { field: "b", need: 0x7fff_ffff, have: 1 })
        );
    }

    proptest! {
        #[test]
        fn what_was_put_is_read(int: i32, long: i64, unsigned: u32) {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, int);
            put_varlong(&mut buffer, long);
            prop_assert_eq!(buffer.len(), varint_len(int) + varlong_len(long));
            put_uvarint(&mut buffer, unsigned);
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!(reader.varint("int"), Ok(int));
            prop_assert_eq!(reader.varlong("long"), Ok(long));
            prop_assert_eq!(reader.uvarint("unsigned"), Ok(unsigned));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.varint_bytes("a").is_ok() && reader.varlong("b").is_ok() && reader.uvarint("c").is_ok() {}
            prop_assert!(reader.remaining() <= bytes.len());
        }
    }
}
