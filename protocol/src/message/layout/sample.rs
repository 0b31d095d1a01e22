//! Messages written by their layout, for the tests: every field set, every array with two elements, every structure
//! with an unknown tagged field. The generated decoder reads them and the generated encoder writes them again, which
//! proves the layout.

use super::{Field, Kind, Layout};

/// A message and where in it a length or a count stands.
pub(in crate::message) struct Sample {
    pub(in crate::message) bytes: Vec<u8>,
    /// Position and width in bytes.
    pub(in crate::message) counts: Vec<(usize, usize)>,
    pub(in crate::message) lengths: Vec<(usize, usize)>,
    version: i16,
    flexible: bool,
    nulls: bool,
    next: u8,
}

/// Writes a message of this version; with `nulls`, all that may be null is.
pub(in crate::message) fn sample(layout: &Layout, version: i16, nulls: bool) -> Sample {
    let mut sample = Sample::new(version, version >= layout.flexible, nulls, 1);
    sample.fields(layout.fields);
    sample
}

impl Sample {
    fn new(version: i16, flexible: bool, nulls: bool, next: u8) -> Self {
        Self { bytes: Vec::new(), counts: Vec::new(), lengths: Vec::new(), version, flexible, nulls, next }
    }

    fn fields(&mut self, fields: &[Field]) {
        let version = self.version;
        let (tagged, plain): (Vec<&Field>, Vec<&Field>) =
            fields.iter().filter(|field| field.is_in(version)).partition(|field| field.tag.is_some());
        for field in plain {
            self.value(&field.kind);
        }
        if self.flexible {
            self.uvarint(tagged.len() + 1);
            for field in tagged {
                self.tagged(field);
            }
            self.uvarint(77);
            self.uvarint(3);
            self.fixed(3);
        }
    }

    fn tagged(&mut self, field: &Field) {
        let mut inner =
            Self::new(self.version, self.flexible, self.nulls && !matches!(field.kind, Kind::NullStr), self.next);
        inner.value(&field.kind);
        self.next = inner.next;
        self.uvarint(field.tag.unwrap_or_default() as usize);
        self.uvarint(inner.bytes.len());
        let base = self.bytes.len();
        self.bytes.extend(inner.bytes);
        self.counts.extend(inner.counts.iter().map(|(at, width)| (at + base, *width)));
        self.lengths.extend(inner.lengths.iter().map(|(at, width)| (at + base, *width)));
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            Kind::Bool => self.bytes.push(1),
            Kind::NullStr | Kind::NullBytes | Kind::NullArray(_) if self.nulls && self.flexible => self.bytes.push(0),
            Kind::NullStr if self.nulls => self.bytes.extend([0xff; 2]),
            Kind::NullBytes | Kind::NullArray(_) if self.nulls => self.bytes.extend([0xff; 4]),
            Kind::NullStruct(_) if self.nulls => self.bytes.push(0xff),
            Kind::Str | Kind::NullStr => {
                let at = self.length(5, 2);
                self.lengths.push(at);
                self.next = self.next.wrapping_add(1);
                self.bytes.extend(format!("s{:04}", self.next).bytes());
            }
            Kind::Bytes | Kind::NullBytes => {
                let at = self.length(9, 4);
                self.lengths.push(at);
                self.fixed(9);
            }
            Kind::Array(element) | Kind::NullArray(element) => {
                let at = self.length(2, 4);
                self.counts.push(at);
                self.value(element);
                self.value(element);
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullStruct(fields) => {
                self.bytes.push(1);
                self.fields(fields);
            }
            fixed => self.fixed(fixed.fixed_len().unwrap()),
        }
    }

    fn length(&mut self, length: usize, width: usize) -> (usize, usize) {
        let at = self.bytes.len();
        if self.flexible {
            self.uvarint(length + 1);
            return (at, 1);
        }
        self.bytes.extend(&(length as u32).to_be_bytes()[4 - width..]);
        (at, width)
    }

    fn fixed(&mut self, len: usize) {
        for _ in 0..len {
            self.next = self.next % 100 + 1;
            self.bytes.push(self.next);
        }
    }

    fn uvarint(&mut self, value: usize) {
        crate::wire::put_uvarint(&mut self.bytes, value as u32);
    }
}

/// The message with the count or length at this place replaced by the greatest that the encoding has.
pub(in crate::message) fn with_greatest(sample: &Sample, (at, width): (usize, usize)) -> Vec<u8> {
    let mut bytes = sample.bytes[..at].to_vec();
    match width {
        1 => crate::wire::put_uvarint(&mut bytes, i32::MAX as u32 + 1),
        2 => bytes.extend(i16::MAX.to_be_bytes()),
        _ => bytes.extend(i32::MAX.to_be_bytes()),
    }
    bytes.extend(&sample.bytes[at + width..]);
    bytes
}
