//! The words that every part of the sidecar uses.
//!
//! They know nothing of HTTP, JSON shapes or Kafka requests.

#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod sink;
pub(crate) mod target_topics;

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use uuid::Uuid;

/// The header that carries the correlation id, on records and on HTTP requests.
pub(crate) const CORRELATION_ID: &str = "X-Correlation-Id";
/// The header that carries the traceability id.
pub(crate) const TRACEABILITY_ID: &str = "X-Traceability-Id";
/// The dead letter's header with the backend's stack trace.
pub(crate) const STACK_TRACE: &str = "StackTrace";
/// The header with the producing service, if `injectCallerId` is on.
pub(crate) const CALLER_ID: &str = "caller_id";
/// The W3C trace context's header, on records and on HTTP requests.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A correlation id for a record that has none: a UUIDv7 as 22 characters of base64url.
pub(crate) fn new_correlation_id() -> String {
    URL_SAFE_NO_PAD.encode(Uuid::now_v7().as_bytes())
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
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
pub(crate) struct TraceIds {
    pub correlation_id: Option<String>,
    pub traceability_id: Option<String>,
}

/// A record as it was read from Kafka, with bytes of its own: what a dead letter keeps unchanged.
#[derive(Debug, Clone)]
pub(crate) struct SourceRecord {
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
    pub(crate) fn header_text(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, value)| value.as_deref())
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// What the backend says of one record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// true: done; false: refused, a dead letter.
    pub processed: bool,
    /// Why it was refused, in the backend's words.
    pub stacktrace: Option<String>,
    /// Ids for a record whose headers have none.
    pub ids: TraceIds,
    /// A readable business key, for the audit.
    pub key: Option<String>,
    /// When the backend processed it, in milliseconds since the epoch, for the audit.
    pub timestamp: Option<i64>,
}

impl Verdict {
    /// Bytes of all its text.
    pub(crate) fn text_bytes(&self) -> usize {
        let Self { stacktrace, ids: TraceIds { correlation_id, traceability_id }, key, .. } = self;
        [stacktrace, correlation_id, traceability_id, key].into_iter().flatten().map(String::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_correlation_id_has_22_characters_and_is_unique() {
        let (one, other) = (new_correlation_id(), new_correlation_id());
        assert_eq!(one.len(), 22);
        assert_ne!(one, other);
    }

    #[test]
    fn the_last_header_of_a_name_counts_whatever_its_case() {
        let record = SourceRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp: 0,
            key: None,
            value: None,
            headers: vec![
                ("X-Correlation-Id".into(), Some("a".into())),
                ("x-correlation-id".into(), Some("b".into())),
                ("other".into(), None),
            ],
        };
        assert_eq!(record.header_text(CORRELATION_ID), Some("b"));
        assert_eq!(record.header_text("other"), None);
    }
}
