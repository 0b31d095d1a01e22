//! A record as a caller wants it, before and after its key and value became bytes.
//!
//! It knows nothing of HTTP. [`NewRecord`] keeps key and value as the JSON text that came in; [`Encoded`] holds bytes.

use std::sync::Arc;

use bytes::Bytes;
use protocol::producer::ProduceRecord;
use serde_json::value::RawValue;

use crate::{
    config::settings::Format,
    record::{CORRELATION_ID, TRACEABILITY_ID, new_correlation_id},
};

/// A record that was parsed and is fit to be encoded. Keys and values are raw JSON text, so that number text, duplicate keys and
/// key order survive; `None` is a field that was absent, a raw `null` is a null that was written down.
#[derive(Debug, Default)]
pub(crate) struct NewRecord<'a> {
    pub(crate) key: Option<&'a RawValue>,
    pub(crate) value: Option<&'a RawValue>,
    /// Not negative.
    pub(crate) partition: Option<i32>,
    /// Milliseconds since the epoch, positive.
    pub(crate) timestamp: Option<i64>,
    /// In the order of the request, each name once.
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) traceability_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

/// What a request says for all its records.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) topic: Arc<str>,
    pub(crate) key_format: Format,
    pub(crate) value_format: Format,
    /// Record headers that every record gets first.
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
    /// `traceparent` and `tracestate` of the request, for records without a `traceparent` header of their own.
    pub(crate) trace_context: Vec<(Bytes, Option<Bytes>)>,
    /// For records without one of their own.
    pub(crate) correlation_id: Option<String>,
    pub(crate) traceability_id: Option<String>,
}

/// A record in bytes, with what its audit entry will need.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) record: ProduceRecord,
    pub(crate) correlation_id: String,
    pub(crate) traceability_id: Option<String>,
}

/// JSON text to bytes in a format; `Ok(None)` is a null. The error is a sentence without the field's name.
pub(crate) type Encode = fn(Format, &RawValue) -> Result<Option<Bytes>, String>;

impl NewRecord<'_> {
    /// Bytes for key and value, and the headers in their order: the common ones, the traceability id, the correlation id, then the
    /// record's own without those two names. The error names the field.
    pub(crate) fn encode(self, common: &Common, encode: Encode) -> Result<Encoded, String> {
        let bytes = |field: &str, format, raw: Option<&RawValue>| match raw {
            None => Ok(None),
            Some(raw) => encode(format, raw).map_err(|reason| format!("{field}: {reason}")),
        };
        let key = bytes("key", common.key_format, self.key)?;
        let value = bytes("value", common.value_format, self.value)?;
        let correlation_id =
            self.correlation_id.or_else(|| common.correlation_id.clone()).unwrap_or_else(new_correlation_id);
        let traceability_id = self.traceability_id.or_else(|| common.traceability_id.clone());

        let mut headers = Vec::with_capacity(common.headers.len() + 4 + self.headers.len());
        headers.extend(common.headers.iter().cloned());
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent")) {
            headers.extend(common.trace_context.iter().cloned());
        }
        if let Some(id) = &traceability_id {
            headers.push((Bytes::from_static(TRACEABILITY_ID.as_bytes()), Some(Bytes::from(id.clone()))));
        }
        headers.push((Bytes::from_static(CORRELATION_ID.as_bytes()), Some(Bytes::from(correlation_id.clone()))));
        let own = self.headers.into_iter().filter(|(name, _)| {
            !name.eq_ignore_ascii_case(TRACEABILITY_ID) && !name.eq_ignore_ascii_case(CORRELATION_ID)
        });
        headers.extend(own.map(|(name, value)| (Bytes::from(name), value.map(Bytes::from))));

        Ok(Encoded {
            record: ProduceRecord {
                topic: common.topic.clone(),
                partition: self.partition,
                key,
                value,
                headers,
                timestamp: self.timestamp,
            },
            correlation_id,
            traceability_id,
        })
    }
}

/// Why a topic cannot have this name, by Kafka's rules; None if it can.
pub(crate) fn topic_name_fault(topic: &str) -> Option<&'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() {
        Some("a topic's name is not empty")
    } else if topic == "." || topic == ".." {
        Some("a topic's name is neither . nor ..")
    } else if topic.len() > 249 {
        Some("a topic's name has at most 249 characters")
    } else if !topic.bytes().all(legal) {
        Some("a topic's name has only letters, digits, dots, underscores and hyphens")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common() -> Common {
        Common {
            topic: "t".into(),
            key_format: Format::String,
            value_format: Format::Json,
            headers: vec![(Bytes::from_static(b"caller_id"), Some(Bytes::from_static(b"me")))],
            trace_context: Vec::new(),
            correlation_id: Some("request-c".into()),
            traceability_id: Some("request-t".into()),
        }
    }

    fn as_it_stands(_: Format, raw: &RawValue) -> Result<Option<Bytes>, String> {
        Ok((raw.get() != "null").then(|| Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    fn headers(encoded: &Encoded) -> Vec<(String, Option<String>)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        encoded.record.headers.iter().map(|(name, value)| (text(name), value.as_ref().map(text))).collect()
    }

    #[test]
    fn the_headers_come_in_their_order_and_the_ids_only_once() {
        let record = NewRecord {
            headers: vec![
                ("x-correlation-ID".into(), Some("no".into())),
                ("source".into(), Some("web".into())),
                ("X-TRACEABILITY-ID".into(), Some("no".into())),
                ("nothing".into(), None),
            ],
            traceability_id: Some("own-t".into()),
            ..NewRecord::default()
        };
        let encoded = record.encode(&common(), as_it_stands).expect("fit");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            headers(&encoded),
            [
                ("caller_id".to_owned(), some("me")),
                ("X-Traceability-Id".to_owned(), some("own-t")),
                ("X-Correlation-Id".to_owned(), some("request-c")),
                ("source".to_owned(), some("web")),
                ("nothing".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_record_without_any_id_gets_a_correlation_id_of_22_characters_and_no_traceability_id() {
        let common = Common { correlation_id: None, traceability_id: None, headers: Vec::new(), ..common() };
        let one = NewRecord::default().encode(&common, as_it_stands).expect("fit");
        let two = NewRecord::default().encode(&common, as_it_stands).expect("fit");
        assert_eq!(one.correlation_id.len(), 22);
        assert_ne!(one.correlation_id, two.correlation_id);
        assert_eq!(headers(&one).len(), 1);
    }

    #[test]
    fn a_record_s_own_trace_context_stands_instead_of_the_request_s() {
        let header = |name: &'static str| (Bytes::from_static(name.as_bytes()), Some(Bytes::from_static(b"request")));
        let common = Common { trace_context: vec![header("traceparent"), header("tracestate")], ..common() };
        let own = NewRecord { headers: vec![("Traceparent".into(), Some("own".into()))], ..NewRecord::default() };
        let names = |record: NewRecord<'_>| {
            let encoded = record.encode(&common, as_it_stands).expect("fit");
            headers(&encoded).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(own), ["caller_id", "X-Traceability-Id", "X-Correlation-Id", "Traceparent"]);
        assert_eq!(
            names(NewRecord::default()),
            ["caller_id", "traceparent", "tracestate", "X-Traceability-Id", "X-Correlation-Id"]
        );
    }

    #[test]
    fn topic_names_follow_kafka_s_rules() {
        for good in ["a", "test6", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(topic_name_fault(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ü", "a\0", &"x".repeat(250)] {
            assert!(topic_name_fault(bad).is_some(), "{bad}");
        }
    }
}
