//! What became of a request that did not succeed.

use std::fmt;

/// The three things that can be known of a failed request. Kept apart from the socket up to the HTTP answer.
/// The greatest of several tries is what is known of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// No byte of it reached a broker: sending it again cannot repeat an effect.
    NotSent,
    /// A broker answered with an error: it had no effect.
    Rejected,
    /// It was sent and no answer came: it may or may not have had its effect.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSent => "not sent",
            Self::Rejected => "rejected",
            Self::Unknown => "outcome unknown",
        })
    }
}
