//! Kafka's error table as data: name, number, retriable.

use std::fmt;

/// A Kafka error code as it stands on the wire; codes that we do not know are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    pub const NONE: Self = Self(0);

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Whether Kafka's own table calls it retriable.
    pub fn retriable(self) -> bool {
        unimplemented!("contract stub")
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
