//! The words that every part of the sidecar uses.
//!
//! They know nothing of HTTP, JSON shapes or Kafka requests.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// The header that carries the correlation id, on records and on HTTP requests.
pub const CORRELATION_ID: &str = "X-Correlation-Id";
/// The header that carries the traceability id.
pub const TRACEABILITY_ID: &str = "X-Traceability-Id";
/// The dead letter's header with the backend's stack trace.
pub const STACK_TRACE: &str = "StackTrace";
/// The header with the producing service, if `injectCallerId` is on.
pub const CALLER_ID: &str = "caller_id";

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record's own ids, for dead letters and audit: the Kafka header as read, then the verdict's, then a generated one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceIds {
    pub correlation_id: Option<String>,
    pub traceability_id: Option<String>,
}

/// A record as it was read from Kafka, with bytes of its own: what a dead letter keeps unchanged.
#[derive(Debug, Clone)]
pub struct SourceRecord {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl SourceRecord {
    /// The last header of that name (names are compared without case), if its value is text.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, value)| value.as_deref())
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}
