//! A read position over one frame in either of the two encodings of lengths. Knows neither the message nor the field:
//! the caller adds the path to the [`Reason`]. Its bounds are those of [`Reader`].

use crate::wire::{Reader, WireError};

use super::error::Reason;

/// Reads from the front of a slice; what it has read is gone.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    reader: Reader<'a>,
}

/// The reader wants a name for the field; here the caller has the whole path and adds it.
const UNNAMED: &str = "";

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    pub(super) fn left(&self) -> usize {
        self.reader.remaining()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Reason> {
        Ok(self.reader.bytes(n, UNNAMED)?)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        Ok(self.reader.array(UNNAMED)?)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Reason> {
        Ok(self.reader.i8(UNNAMED)?)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Reason> {
        Ok(self.reader.i16(UNNAMED)?)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Reason> {
        Ok(self.reader.i32(UNNAMED)?)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Reason> {
        Ok(self.reader.i64(UNNAMED)?)
    }

    pub(super) fn uvarint(&mut self) -> Result<u32, Reason> {
        Ok(self.reader.uvarint(UNNAMED)?)
    }

    /// A string's or a byte field's length, `None` for null; `short` is the two-byte form of strings before flexible
    /// versions.
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
            Err(_) => Err(Reason::NegativeLength(i64::from(length))),
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

    /// The number of elements of an array, `None` for null. Refused when not even the smallest elements would fit into
    /// what is left.
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
            // Java has no greater ones, and the generated encoders leave them out of what they count.
            if i32::try_from(tag).is_err() {
                return Err(Reason::Tag(tag).into());
            }
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

impl From<WireError> for Reason {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated { need, have, .. } => Self::Truncated { need, left: have },
            WireError::VarintTooLong { .. } => Self::VarintTooLong,
            WireError::NegativeLength { length, .. } => Self::NegativeLength(length),
            WireError::Null { .. } => Self::Null,
        }
    }
}
