//! Why bytes were refused, or a message could not be written.
//!
//! Knows nothing of sockets or retries: a [`DecodeError`] says which message, which version, which field and what is
//! wrong with it.

use std::fmt;

/// Which way a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Request,
    Response,
    /// Bytes inside another message (the consumer protocol's subscription and assignment).
    Embedded,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Embedded => "blob",
        })
    }
}

/// Bytes that are not the message they should be. The connection that they came by cannot be trusted any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Kafka's name of the API, such as `Metadata`.
    pub api: &'static str,
    pub version: i16,
    pub direction: Direction,
    /// The path of the field, such as `topics[3].partitions`; empty when the message as a whole is meant.
    pub field: String,
    pub reason: Reason,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} {}: ", self.api, self.version, self.direction)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for DecodeError {}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("needs {need} bytes, {left} left")]
    Truncated { need: usize, left: usize },
    #[error("claims {claimed} elements, {left} bytes left")]
    Elements { claimed: usize, left: usize },
    #[error("claims {claimed} bytes, {left} left")]
    Length { claimed: usize, left: usize },
    #[error("has the negative length {0}")]
    NegativeLength(i64),
    #[error("is null and may not be")]
    Null,
    #[error("has a varint longer than 32 bits")]
    VarintTooLong,
    #[error("is not UTF-8")]
    BadUtf8,
    #[error("has the tag {0}, beyond 31 bits")]
    Tag(u32),
    #[error("tag {tag} declares {declared} bytes and uses {used}")]
    TagSize { tag: u32, declared: usize, used: usize },
    #[error("{0} bytes left over")]
    LeftOver(usize),
    #[error("API key {0} is not one that this client speaks")]
    UnknownApi(i16),
    #[error("version is outside {min} to {max}")]
    UnknownVersion { min: i16, max: i16 },
    #[error("is {answered} where {expected} was due")]
    Correlation { expected: i32, answered: i32 },
    /// The bytes passed the scan and the generated decoder refused them all the same.
    #[error("{0}")]
    Refused(String),
}

/// A message that cannot be written in the version asked for: a field is set that the version lacks, or a string is too
/// long. No byte of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{api} v{version} cannot be written: {reason}")]
pub struct EncodeError {
    pub api: &'static str,
    pub version: i16,
    pub reason: String,
}
