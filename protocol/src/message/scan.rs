//! Walks a message by its layout before anything is decoded: every count and length that it claims must fit into the bytes
//! that are there. The generated decoders allocate by those counts; behind this walk they cannot be made to allocate more
//! than the message is worth.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use super::{
    DecodeError,
    layout::{Field, Kind, Layout},
};
use crate::wire::{Reader, WireError};

/// A count or a length that was claimed, and what is left for it.
struct Claim {
    count: usize,
    left: usize,
}

enum Fault {
    Wire(WireError),
    Claim(Claim),
    /// A tagged field of another size than it says.
    TagSize,
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

struct Scan<'a> {
    version: i16,
    flexible: bool,
    reader: Reader<'a>,
    /// Where we are: field names and indexes, outermost first.
    path: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Index(usize),
}

/// Checks that `bytes` are exactly one message of this layout.
pub(super) fn scan(layout: &Layout, version: i16, bytes: &[u8]) -> Result<(), DecodeError> {
    let error = |reason: String| DecodeError::new(layout.message, version, layout.direction, reason);
    if version < layout.min || version > layout.max {
        return Err(error(format!("only versions {} to {} are known", layout.min, layout.max)));
    }
    let mut scan = Scan { version, flexible: version >= layout.flexible, reader: Reader::new(bytes), path: Vec::new() };
    match scan.fields(layout.fields) {
        Ok(()) if scan.reader.is_empty() => Ok(()),
        Ok(()) => Err(error(format!("{} bytes after its end", scan.reader.remaining()))),
        Err(fault) => Err(error(format!("{}: {}", scan.place(), say(fault)))),
    }
}

fn say(fault: Fault) -> String {
    match fault {
        Fault::Wire(WireError::Truncated { need, have, .. }) => format!("{need} bytes needed, {have} left"),
        Fault::Wire(WireError::VarintTooLong { .. }) => "a variable-length integer that is too long".to_owned(),
        Fault::Wire(WireError::NegativeLength { length, .. }) => format!("a length of {length}"),
        Fault::Claim(Claim { count, left }) => format!("claims {count} elements, {left} bytes left"),
        Fault::TagSize => "a tagged field of another size than it says".to_owned(),
    }
}

impl Scan<'_> {
    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if place.is_empty() => place.push_str(name),
                Step::Field(name) => {
                    place.push('.');
                    place.push_str(name);
                }
                Step::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }

    /// The path keeps what went wrong: it is only popped after a success.
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Fault> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.path.push(Step::Field(field.name));
            self.value(field.kind)?;
            self.path.pop();
        }
        if self.flexible {
            self.tags(fields)?;
        }
        Ok(())
    }

    fn tags(&mut self, fields: &'static [Field]) -> Result<(), Fault> {
        self.path.push(Step::Field("tagged fields"));
        let count = self.reader.uvarint("count")? as usize;
        self.fits(count, 2)?;
        for _ in 0..count {
            let tag = self.reader.uvarint("tag")?;
            let size = self.reader.uvarint("size")? as usize;
            let known = fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version));
            match known {
                None => {
                    self.reader.bytes(size, "value")?;
                }
                Some(field) => {
                    let before = self.reader.remaining();
                    self.path.push(Step::Field(field.name));
                    self.value(field.kind)?;
                    if before - self.reader.remaining() != size {
                        return Err(Fault::TagSize);
                    }
                    self.path.pop();
                }
            }
        }
        self.path.pop();
        Ok(())
    }

    fn value(&mut self, kind: Kind) -> Result<(), Fault> {
        match kind {
            Kind::Bool | Kind::I8 => self.skip(1),
            Kind::I16 => self.skip(2),
            Kind::I32 => self.skip(4),
            Kind::I64 => self.skip(8),
            Kind::Uuid => self.skip(16),
            Kind::Str | Kind::NullStr => {
                let length =
                    if self.flexible { self.compact()? } else { length(i64::from(self.reader.i16("length")?))? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Bytes | Kind::NullBytes => {
                let length = self.long_length()?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Array(element) | Kind::NullArray(element) => {
                let count = self.long_length()?.unwrap_or(0);
                self.fits(count, self.least(*element))?;
                for index in 0..count {
                    self.path.push(Step::Index(index));
                    self.value(*element)?;
                    self.path.pop();
                }
                Ok(())
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullStruct(fields) => match self.reader.i8("presence")? {
                0.. => self.fields(fields),
                _ => Ok(()),
            },
        }
    }

    fn skip(&mut self, length: usize) -> Result<(), Fault> {
        self.reader.bytes(length, "value")?;
        Ok(())
    }

    fn long_length(&mut self) -> Result<Option<usize>, Fault> {
        if self.flexible { self.compact() } else { length(i64::from(self.reader.i32("length")?)) }
    }

    /// A compact length: one more than it is, 0 = null.
    fn compact(&mut self) -> Result<Option<usize>, Fault> {
        Ok((self.reader.uvarint("length")? as usize).checked_sub(1))
    }

    fn fits(&self, count: usize, least: usize) -> Result<(), Fault> {
        let left = self.reader.remaining();
        if count.saturating_mul(least) > left { Err(Fault::Claim(Claim { count, left })) } else { Ok(()) }
    }

    /// The least bytes that an element takes.
    fn least(&self, kind: Kind) -> usize {
        match kind {
            Kind::Bool | Kind::I8 | Kind::NullStruct(_) => 1,
            Kind::I16 => 2,
            Kind::I32 => 4,
            Kind::I64 => 8,
            Kind::Uuid => 16,
            Kind::Str | Kind::NullStr => {
                if self.flexible {
                    1
                } else {
                    2
                }
            }
            Kind::Bytes | Kind::NullBytes | Kind::Array(_) | Kind::NullArray(_) => {
                if self.flexible {
                    1
                } else {
                    4
                }
            }
            Kind::Struct(fields) => {
                let fields = fields.iter().filter(|field| field.tag.is_none() && field.is_in(self.version));
                let own: usize = fields.map(|field| self.least(field.kind)).sum();
                (own + usize::from(self.flexible)).max(1)
            }
        }
    }
}

/// A length of which -1 is null.
fn length(length: i64) -> Result<Option<usize>, Fault> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| Fault::Wire(WireError::NegativeLength { field: "length", length })),
    }
}
