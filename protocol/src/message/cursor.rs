//! A bounded read position over one frame. Knows Kafka's primitive encodings, not which field it reads: the caller adds the path.

use super::error::Reason;

/// Reads from the front of a slice; what it has read is gone.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Reason> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Reason::Truncated { need: n, left: self.left() })?;
        self.rest = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(Reason::Truncated { need: N, left: self.left() })?;
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Reason> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Reason> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Reason> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Reason> {
        self.array().map(i64::from_be_bytes)
    }

    /// An unsigned varint of at most 32 bits in at most five bytes.
    pub(super) fn uvarint(&mut self) -> Result<u32, Reason> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Reason::VarintTooLong);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Reason::VarintTooLong)
    }

    /// A string's or a byte field's length, `None` for null; `short` is the two-byte form of strings before flexible versions.
    fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>, Reason> {
        let length = if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        } else if short {
            i32::from(self.i16()?)
        } else {
            self.i32()?
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(Reason::NegativeLength(length)),
        }
    }

    /// A byte field, `None` for null.
    pub(super) fn bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Reason> {
        match self.length(flexible, false)? {
            Some(claimed) => self.claimed(claimed).map(Some),
            None => Ok(None),
        }
    }

    /// A string, `None` for null. UTF-8 is checked.
    pub(super) fn string(&mut self, flexible: bool) -> Result<Option<&'a str>, Reason> {
        match self.length(flexible, true)? {
            Some(claimed) => std::str::from_utf8(self.claimed(claimed)?).map(Some).map_err(|_| Reason::BadUtf8),
            None => Ok(None),
        }
    }

    /// The number of elements of an array, `None` for null. Refused when not even the smallest elements would fit into what is left.
    pub(super) fn count(&mut self, flexible: bool, min_element_len: usize) -> Result<Option<usize>, Reason> {
        let count = self.length(flexible, false)?;
        if let Some(claimed) = count
            && claimed.saturating_mul(min_element_len.max(1)) > self.left()
        {
            return Err(Reason::Elements { claimed, left: self.left() });
        }
        Ok(count)
    }

    /// The tagged fields at the end of a structure of a flexible version: each tag with exactly the bytes it declares.
    pub(super) fn tagged<E: From<Reason>>(
        &mut self,
        mut each: impl FnMut(u32, &'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let count = self.uvarint()? as usize;
        // A tag and its size take a byte each at least.
        if count.saturating_mul(2) > self.left() {
            return Err(Reason::Elements { claimed: count, left: self.left() }.into());
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            each(tag, self.claimed(size)?)?;
        }
        Ok(())
    }

    fn claimed(&mut self, claimed: usize) -> Result<&'a [u8], Reason> {
        let left = self.left();
        self.take(claimed).map_err(|_| Reason::Length { claimed, left })
    }
}
