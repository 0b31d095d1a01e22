//! One audit entry and its two texts: JSON without nulls for a topic, a dated line with nulls for a file.
//!
//! It holds metadata only, never a record's key or value bytes.

use std::sync::Arc;

use serde::{Serialize, Serializer, ser::SerializeMap};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use uuid::Uuid;

/// A stack trace is cut to so many bytes, at a character's boundary.
const STACK_TRACE_BYTES: usize = 8 << 10;
/// Likewise ids and business keys: callers and foreign producers choose them, and an entry that no broker takes would hold back
/// commits for ever.
const ID_BYTES: usize = 1 << 10;
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");

/// Which part handled the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditType {
    Producer,
    ReactiveConsumer,
}

impl AuditType {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "PRODUCER",
            Self::ReactiveConsumer => "REACTIVE_CONSUMER",
        }
    }
}

/// What became of one record.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    pub(crate) audit_type: AuditType,
    pub(crate) topic: Arc<str>,
    /// None: it was not written anywhere.
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    /// Also the key in the audit topic.
    pub(crate) correlation_id: String,
    pub(crate) traceability_id: Option<String>,
    /// A readable business key, not the record's key.
    pub(crate) key: Option<String>,
    pub(crate) success: bool,
    pub(crate) stacktrace: Option<String>,
    /// When it was processed, in milliseconds since the epoch.
    pub(crate) timestamp: Option<i64>,
}

impl AuditEntry {
    /// The JSON for a topic: nulls are left out.
    pub(super) fn json(&self, service_id: &str) -> Vec<u8> {
        self.text(service_id, false, Vec::new())
    }

    /// The key in a topic.
    pub(super) fn key(&self) -> &[u8] {
        cut(&self.correlation_id, ID_BYTES).as_bytes()
    }

    /// The line for a file: UTC date, a space, JSON with nulls, a line feed.
    pub(super) fn line(&self, service_id: &str) -> Vec<u8> {
        self.line_at(service_id, OffsetDateTime::now_utc())
    }

    fn line_at(&self, service_id: &str, now: OffsetDateTime) -> Vec<u8> {
        let mut line = now.format(DATE).unwrap_or_default().into_bytes();
        line.push(b' ');
        let mut line = self.text(service_id, true, line);
        line.push(b'\n');
        line
    }

    fn text(&self, service_id: &str, nulls: bool, mut out: Vec<u8>) -> Vec<u8> {
        let shape = Shape { entry: self, service_id, nulls };
        // Strings and numbers into memory: there is nothing that could fail.
        let _ = serde_json::to_writer(&mut out, &shape);
        out
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

struct Shape<'a> {
    entry: &'a AuditEntry,
    service_id: &'a str,
    nulls: bool,
}

impl Serialize for Shape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.entry;
        let stacktrace = entry.stacktrace.as_deref().map(|text| cut(text, STACK_TRACE_BYTES));
        let [traceability_id, key] =
            [&entry.traceability_id, &entry.key].map(|text| text.as_deref().map(|text| cut(text, ID_BYTES)));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Uuid::new_v4().hyphenated().to_string())?;
        map.serialize_entry("serviceId", self.service_id)?;
        map.serialize_entry("auditType", entry.audit_type.name())?;
        map.serialize_entry("topic", &*entry.topic)?;
        self.optional(&mut map, "partition", entry.partition)?;
        self.optional(&mut map, "offset", entry.offset)?;
        map.serialize_entry("correlationId", cut(&entry.correlation_id, ID_BYTES))?;
        self.optional(&mut map, "traceabilityId", traceability_id)?;
        self.optional(&mut map, "key", key)?;
        map.serialize_entry("auditStatus", if entry.success { "SUCCESS" } else { "FAILURE" })?;
        self.optional(&mut map, "stacktrace", stacktrace)?;
        self.optional(&mut map, "timestamp", entry.timestamp)?;
        map.end()
    }
}

impl Shape<'_> {
    fn optional<M: SerializeMap>(
        &self,
        map: &mut M,
        name: &str,
        value: Option<impl Serialize>,
    ) -> Result<(), M::Error> {
        if value.is_some() || self.nulls { map.serialize_entry(name, &value) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            audit_type: AuditType::ReactiveConsumer,
            topic: "test1".into(),
            partition: Some(0),
            offset: Some(496_453),
            correlation_id: "GMDC3LeXSLuRV0Hz5KfVHg".into(),
            traceability_id: None,
            key: None,
            success: true,
            stacktrace: None,
            timestamp: None,
        }
    }

    fn without_id(text: Vec<u8>) -> String {
        let text = String::from_utf8(text).expect("UTF-8");
        let start = text.find(r#""id":""#).expect("an id") + 6;
        let (id, rest) = (text[start..start + 36].to_owned(), &text[start + 36..]);
        assert_eq!(Uuid::parse_str(&id).map(|id| id.get_version_num()), Ok(4));
        format!("{}{rest}", &text[..start])
    }

    #[test]
    fn a_line_has_the_date_and_the_nulls() {
        let line = entry().line_at("com.networknt.kafka-sidecar-1.0.0", datetime!(2021-06-18 18:11:20.581 UTC));
        let expected = r#"2021-06-18 18:11:20,581 {"id":"","serviceId":"com.networknt.kafka-sidecar-1.0.0","auditType":"REACTIVE_CONSUMER","topic":"test1","partition":0,"offset":496453,"correlationId":"GMDC3LeXSLuRV0Hz5KfVHg","traceabilityId":null,"key":null,"auditStatus":"SUCCESS","stacktrace":null,"timestamp":null}"#;
        assert_eq!(without_id(line), format!("{expected}\n"));
    }

    #[test]
    fn a_topic_entry_leaves_nulls_out() {
        let failure = AuditEntry {
            audit_type: AuditType::Producer,
            partition: None,
            offset: None,
            success: false,
            stacktrace: Some("line 1\nline 2".into()),
            timestamp: Some(5),
            ..entry()
        };
        let expected = r#"{"id":"","serviceId":"s","auditType":"PRODUCER","topic":"test1","correlationId":"GMDC3LeXSLuRV0Hz5KfVHg","auditStatus":"FAILURE","stacktrace":"line 1\nline 2","timestamp":5}"#;
        assert_eq!(without_id(failure.json("s")), expected);
    }

    #[test]
    fn whatever_ids_callers_choose_an_entry_stays_small() {
        let long = "é".repeat(300_000);
        let entry = AuditEntry {
            correlation_id: long.clone(),
            traceability_id: Some(long.clone()),
            key: Some(long.clone()),
            stacktrace: Some(long),
            ..entry()
        };
        assert_eq!(entry.key().len(), ID_BYTES);
        let value: serde_json::Value = serde_json::from_slice(&entry.json("s")).expect("JSON");
        assert_eq!(value["correlationId"].as_str().map(str::as_bytes), Some(entry.key()));
        for (field, bytes) in [("traceabilityId", ID_BYTES), ("key", ID_BYTES), ("stacktrace", STACK_TRACE_BYTES)] {
            assert_eq!(value[field].as_str().map(str::len), Some(bytes), "{field}");
        }
    }
}
