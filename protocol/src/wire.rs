//! Bytes: varints, and reads that are checked against what is there.
//!
//! It knows the primitive types of Kafka's protocol guide and no message. [`Reader`] is its main type.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::BufMut;

/// The most bytes of a varint of 32 bits, and of 64.
const VARINT_BYTES: usize = 5;
const VARLONG_BYTES: usize = 10;

/// Bytes that are not what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{field}: {need} bytes needed, {have} left")]
    Truncated { field: &'static str, need: usize, have: usize },
    #[error("{field}: a variable-length integer that is too long")]
    VarintTooLong { field: &'static str },
    #[error("{field}: a length of {length}")]
    NegativeLength { field: &'static str, length: i64 },
}

/// Reads from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! fixed {
    ($($name:ident -> $type:ty),* $(,)?) => {
        $(#[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$type, WireError> {
            Ok(<$type>::from_be_bytes(self.array(field)?))
        })*
    };
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fixed!(u8 -> u8, i8 -> i8, i16 -> i16, i32 -> i32, u32 -> u32, i64 -> i64);

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(WireError::Truncated { field, need: N, have: self.rest.len() }),
        }
    }

    #[inline]
    pub fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(length) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(WireError::Truncated { field, need: length, have: self.rest.len() }),
        }
    }

    /// An unsigned varint of 32 bits.
    #[inline]
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, WireError> {
        if let Some((&first, tail)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = tail;
            return Ok(u32::from(first));
        }
        let value = self.long_varint(VARINT_BYTES, field)?;
        u32::try_from(value).map_err(|_| WireError::VarintTooLong { field })
    }

    /// A zigzag varint of 32 bits.
    #[inline]
    pub fn varint(&mut self, field: &'static str) -> Result<i32, WireError> {
        let raw = self.uvarint(field)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zigzag varint of 64 bits.
    #[inline]
    pub fn varlong(&mut self, field: &'static str) -> Result<i64, WireError> {
        let raw = match self.rest.split_first() {
            Some((&first, tail)) if first < 0x80 => {
                self.rest = tail;
                u64::from(first)
            }
            _ => self.long_varint(VARLONG_BYTES, field)?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn long_varint(&mut self, most: usize, field: &'static str) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(most).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if shift == 63 && bits > 1 {
                return Err(WireError::VarintTooLong { field });
            }
            value |= bits << shift;
            if byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        if self.rest.len() >= most {
            return Err(WireError::VarintTooLong { field });
        }
        Err(WireError::Truncated { field, need: self.rest.len() + 1, have: self.rest.len() })
    }

    /// Bytes behind a zigzag length, of which -1 is null.
    #[inline]
    pub fn varint_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        match self.varint(field)? {
            -1 => Ok(None),
            length @ 0.. => self.bytes(length as usize, field).map(Some),
            length => Err(WireError::NegativeLength { field, length: i64::from(length) }),
        }
    }
}

#[inline]
pub fn put_uvarint(buffer: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

#[inline]
pub fn put_varint(buffer: &mut impl BufMut, value: i32) {
    put_uvarint(buffer, ((value << 1) ^ (value >> 31)) as u32);
}

#[inline]
pub fn put_varlong(buffer: &mut impl BufMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        buffer.put_u8(raw as u8 | 0x80);
        raw >>= 7;
    }
    buffer.put_u8(raw as u8);
}

/// How many bytes [`put_varlong`] (and, for small values, [`put_varint`]) takes.
#[inline]
pub fn varlong_len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_are_those_of_the_protocol_guide() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8192, &[0xff, 0x7f]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer, bytes);
            assert_eq!(Reader::new(bytes).varint("x"), Ok(value));
        }
    }

    #[test]
    fn a_varint_that_goes_on_too_long_is_refused() {
        let too_long = Err(WireError::VarintTooLong { field: "x" });
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]).uvarint("x"), too_long);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint("x"), too_long);
        assert_eq!(Reader::new(&[0xff; 11]).varlong("x"), Err(WireError::VarintTooLong { field: "x" }));
        let last = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&last).varlong("x"), Err(WireError::VarintTooLong { field: "x" }));
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_with_its_field() {
        let mut reader = Reader::new(&[0, 0]);
        let error = reader.i32("partitions").expect_err("two bytes only");
        assert_eq!(error.to_string(), "partitions: 4 bytes needed, 2 left");
        assert_eq!(
            Reader::new(&[0x03, 1]).varint_bytes("key"),
            Err(WireError::NegativeLength { field: "key", length: -2 })
        );
        assert_eq!(Reader::new(&[0x01]).varint_bytes("key"), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(a: i32, b: i64, c: u32) {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, a);
            put_varlong(&mut buffer, b);
            put_uvarint(&mut buffer, c);
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!(reader.varint("a"), Ok(a));
            prop_assert_eq!(reader.varlong("b"), Ok(b));
            prop_assert_eq!(reader.uvarint("c"), Ok(c));
            let mut long = Vec::new();
            put_varlong(&mut long, b);
            prop_assert_eq!(long.len(), varlong_len(b));
        }
    }
}
