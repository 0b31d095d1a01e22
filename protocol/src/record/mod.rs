//! The record batch: header view, borrowed record iterator, in-place builder, codecs.

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

/// The records of one batch, decompressed, as bytes; iterate to get borrowed [`RecordView`]s. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records(());

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    pub offset: i64,
    /// Milliseconds since the epoch; the batch's max timestamp on a LogAppendTime topic.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of a record: an ordered multimap; names need not be UTF-8, values may be null.
/// Iterates as `(&'a [u8], Option<&'a [u8]>)`.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a>(std::marker::PhantomData<&'a ()>);
