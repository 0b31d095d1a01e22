//! The scan in front of the generated decoders.
//!
//! The generated decoders reserve room for as many elements as the wire claims, so a hostile count aborts the process.
//! The scan walks the bytes by a [`Layout`] first and checks every count and length against the bytes that are there.
//! It allocates nothing but the text of an error, and its depth is that of the layout. What passes decodes into memory
//! proportional to the bytes scanned: some thirty times as much for empty strings, up to about a hundred times for
//! structures that each carry one unknown tagged field. The bound on a frame bounds both.

use super::cursor::Cursor;
use super::error::{DecodeError, Reason};
use super::layout::{Field, Kind, Layout};

/// Checks that `bytes` are exactly one message of this layout.
pub(super) fn scan(layout: &'static Layout, version: i16, bytes: &[u8]) -> Result<(), DecodeError> {
    match scan_prefix(layout, version, bytes)? {
        0 => Ok(()),
        left => Err(whole(layout, version, Reason::LeftOver(left))),
    }
}

/// Checks that `bytes` begin with one message of this layout; says how many bytes follow it.
pub(super) fn scan_prefix(layout: &'static Layout, version: i16, bytes: &[u8]) -> Result<usize, DecodeError> {
    if version < layout.min || version > layout.max {
        return Err(whole(layout, version, Reason::UnknownVersion { min: layout.min, max: layout.max }));
    }
    let mut scan = Scan { cursor: Cursor::new(bytes), version, flexible: version >= layout.flexible };
    scan.fields(layout.fields, None).map_err(|fault| DecodeError {
        api: layout.message,
        version,
        direction: layout.direction,
        field: fault.field,
        reason: fault.reason,
    })?;
    Ok(scan.cursor.left())
}

/// An error about a message as a whole.
pub(super) fn whole(layout: &Layout, version: i16, reason: Reason) -> DecodeError {
    DecodeError { api: layout.message, version, direction: layout.direction, field: String::new(), reason }
}

struct Scan<'a> {
    cursor: Cursor<'a>,
    version: i16,
    flexible: bool,
}

struct Fault {
    field: String,
    reason: Reason,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self { field: String::new(), reason }
    }
}

/// Where the scan stands: a list on the stack, written out only when something is wrong.
#[derive(Clone, Copy)]
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Element(usize),
}

impl Path<'_> {
    fn fault(&self, reason: Reason) -> Fault {
        let mut field = String::new();
        self.write(&mut field);
        Fault { field, reason }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Element(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }
}

impl Scan<'_> {
    fn fields(&mut self, fields: &'static [Field], parent: Option<&Path<'_>>) -> Result<(), Fault> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.value(&field.kind, &Path { parent, step: Step::Field(field.name) })?;
        }
        if self.flexible { self.tagged_fields(fields, parent) } else { Ok(()) }
    }

    fn value(&mut self, kind: &'static Kind, path: &Path<'_>) -> Result<(), Fault> {
        let flexible = self.flexible;
        let at = |reason| path.fault(reason);
        match kind {
            Kind::Str => self.cursor.string(flexible).and_then(|value| value.ok_or(Reason::Null)).map(drop).map_err(at),
            Kind::NullStr => self.cursor.string(flexible).map(drop).map_err(at),
            Kind::Bytes => {
                self.cursor.bytes(flexible).and_then(|value| value.ok_or(Reason::Null)).map(drop).map_err(at)
            }
            Kind::NullBytes => self.cursor.bytes(flexible).map(drop).map_err(at),
            Kind::Array(element) => {
                let count = self.count(element).and_then(|count| count.ok_or(Reason::Null)).map_err(at)?;
                self.elements(element, count, path)
            }
            Kind::NullArray(element) => {
                let count = self.count(element).map_err(at)?;
                self.elements(element, count.unwrap_or(0), path)
            }
            Kind::Struct(fields) => self.fields(fields, Some(path)),
            Kind::NullStruct(fields) => match self.cursor.i8().map_err(at)? {
                1 => self.fields(fields, Some(path)),
                _ => Ok(()),
            },
            fixed => self.cursor.take(fixed.fixed_len().unwrap_or(1)).map(drop).map_err(at),
        }
    }

    fn count(&mut self, element: &Kind) -> Result<Option<usize>, Reason> {
        self.cursor.count(self.flexible, element.min_len(self.version, self.flexible))
    }

    fn elements(&mut self, element: &'static Kind, count: usize, path: &Path<'_>) -> Result<(), Fault> {
        if let Some(len) = element.fixed_len() {
            return self.cursor.take(count.saturating_mul(len)).map(drop).map_err(|reason| path.fault(reason));
        }
        for index in 0..count {
            self.value(element, &Path { parent: Some(path), step: Step::Element(index) })?;
        }
        Ok(())
    }

    /// Known tags are scanned and must use exactly the bytes they declare; unknown ones are skipped.
    fn tagged_fields(&mut self, fields: &'static [Field], parent: Option<&Path<'_>>) -> Result<(), Fault> {
        let (version, flexible) = (self.version, self.flexible);
        let result = self.cursor.tagged(|tag, bytes| {
            let Some(field) = fields.iter().find(|field| field.tag == Some(tag) && field.is_in(version)) else {
                return Ok(());
            };
            let path = Path { parent, step: Step::Field(field.name) };
            let mut inner = Scan { cursor: Cursor::new(bytes), version, flexible };
            inner.value(&field.kind, &path)?;
            match inner.cursor.left() {
                0 => Ok(()),
                left => Err(path.fault(Reason::TagSize { tag, declared: bytes.len(), used: bytes.len() - left })),
            }
        });
        // A fault without a path is one of the tag section itself.
        result.map_err(|fault: Fault| match fault.field.is_empty() {
            true => Path { parent, step: Step::Field("tagged_fields") }.fault(fault.reason),
            false => fault,
        })
    }
}
