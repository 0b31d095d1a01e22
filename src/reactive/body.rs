//! The request to the backend: one JSON object per record, and the trace context.
//!
//! It knows nothing of HTTP or batches. Field names and order are those that backends of the earlier system know.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::consumer::Lease;
use uuid::Uuid;

use super::source::RawRecord;
use crate::{
    config::settings::Format,
    format::{self, Undecodable, write_string},
    record::{CORRELATION_ID, TRACEPARENT},
};

/// How keys and values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formats {
    pub(crate) key: Format,
    pub(crate) value: Format,
}

/// A key or value that is not of its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("the key cannot be decoded: {0}")]
    Key(Undecodable),
    #[error("the value cannot be decoded: {0}")]
    Value(Undecodable),
}

/// Appends the record as a JSON object; returns how many bytes its key and value took. A null key or value is left out. On
/// an error `out` is as it was. `correlation_id` is for a record whose headers have none.
pub(crate) fn write_record(
    formats: Formats,
    lease: &Lease,
    record: &RawRecord<'_>,
    correlation_id: &str,
    out: &mut Vec<u8>,
) -> Result<usize, BadRecord> {
    let start = out.len();
    let written = write_key_and_value(formats, lease, record, out);
    match written {
        Ok(bytes) => {
            out.extend_from_slice(b",\"headers\":");
            write_headers(record, correlation_id, out);
            let rest = format!(
                ",\"partition\":{},\"offset\":{},\"timestamp\":{}}}",
                lease.partition(),
                record.offset,
                record.timestamp
            );
            out.extend_from_slice(rest.as_bytes());
            Ok(bytes)
        }
        Err(bad) => {
            out.truncate(start);
            Err(bad)
        }
    }
}

fn write_key_and_value(
    formats: Formats,
    lease: &Lease,
    record: &RawRecord<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, BadRecord> {
    out.extend_from_slice(b"{\"topic\":");
    write_string(lease.topic(), out);
    let mut bytes = 0;
    if let Some(key) = record.key {
        out.extend_from_slice(b",\"key\":");
        let start = out.len();
        format::decode(formats.key, Some(key), out).map_err(BadRecord::Key)?;
        bytes += out.len() - start;
    }
    if let Some(value) = record.value {
        out.extend_from_slice(b",\"value\":");
        let start = out.len();
        format::decode(formats.value, Some(value), out).map_err(BadRecord::Value)?;
        bytes += out.len() - start;
    }
    Ok(bytes)
}

/// A map from name to text: of repeated names the last one counts, null stays null, what is no UTF-8 is shown as far as
/// it is. In the order of the names.
fn write_headers(record: &RawRecord<'_>, correlation_id: &str, out: &mut Vec<u8>) {
    let mut headers: BTreeMap<Cow<'_, str>, Option<Cow<'_, str>>> = record
        .headers
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name), value.map(String::from_utf8_lossy)))
        .collect();
    if record.header_text(CORRELATION_ID).is_none() {
        headers.insert(CORRELATION_ID.into(), Some(correlation_id.into()));
    }
    out.push(b'{');
    for (index, (name, value)) in headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        match value {
            Some(value) => write_string(value, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// The record's own trace context if it is valid (W3C Trace Context, version 00), else a new one.
pub(crate) fn traceparent(record: &RawRecord<'_>) -> String {
    match record.header_text(TRACEPARENT) {
        Some(own) if is_traceparent(own) => own.to_owned(),
        _ => format!("00-{}-{:016x}-01", Uuid::new_v4().simple(), fastrand::u64(1..)),
    }
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    match text.split('-').collect::<Vec<_>>()[..] {
        ["00", trace, parent, flags] => {
            hex(trace, 32) && !zero(trace) && hex(parent, 16) && !zero(parent) && hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRING_JSON: Formats = Formats { key: Format::String, value: Format::Json };

    fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> RawRecord<'a> {
        RawRecord {
            offset: 41,
            place: protocol::record::Place::default(),
            timestamp: 1_730_000_000_000,
            key,
            value,
            headers: Vec::new(),
        }
    }

    fn written(record: &RawRecord<'_>) -> Result<(usize, String), BadRecord> {
        let mut out = b"[".to_vec();
        let lease = Lease::new("orders".into(), 3, 1);
        let written = write_record(STRING_JSON, &lease, record, "generated", &mut out);
        let text = String::from_utf8(out).expect("UTF-8").split_off(1);
        assert!(written.is_ok() || text.is_empty(), "an error must leave nothing behind");
        written.map(|bytes| (bytes, text))
    }

    #[test]
    fn a_record_has_the_fields_that_backends_know() {
        let own = record(Some(b"c-17"), Some(br#"{"total":3.10}"#));
        let own = RawRecord { headers: vec![(b"x-correlation-id", Some(b"mine"))], ..own };
        let rest = r#""partition":3,"offset":41,"timestamp":1730000000000}"#;
        let rows = [
            (
                own,
                r#"{"topic":"orders","key":"c-17","value":{"total":3.10},"headers":{"x-correlation-id":"mine"},"#,
                20,
            ),
            (
                record(None, Some(b"null")),
                r#"{"topic":"orders","value":null,"headers":{"X-Correlation-Id":"generated"},"#,
                4,
            ),
            (record(Some(b""), None), r#"{"topic":"orders","key":"","headers":{"X-Correlation-Id":"generated"},"#, 2),
        ];
        for (record, expected, bytes) in rows {
            assert_eq!(written(&record), Ok((bytes, format!("{expected}{rest}"))));
        }
    }

    #[test]
    fn of_repeated_headers_the_last_counts_and_null_stays_null() {
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"b", Some(b"1")),
            (b"a", None),
            (b"b", Some(b"2")),
            (b"\xff", Some(b"\xfe\"")),
            (b"X-Correlation-Id", None),
        ];
        let (_, text) = written(&RawRecord { headers, ..record(None, None) }).expect("decodable");
        let expected = "{\"X-Correlation-Id\":\"generated\",\"a\":null,\"b\":\"2\",\"\u{fffd}\":\"\u{fffd}\\\"\"}";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn an_undecodable_key_or_value_is_named() {
        let bad = written(&record(Some(b"\xff"), Some(b"1"))).expect_err("no text");
        assert_eq!(bad.to_string(), "the key cannot be decoded: it is no UTF-8 text (byte 0)");
        let bad = written(&record(None, Some(b"{"))).expect_err("no JSON");
        assert_eq!(bad.to_string(), "the value cannot be decoded: it is no JSON (line 1, column 1)");
    }

    #[test]
    fn a_valid_trace_context_goes_on_and_another_is_replaced() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let with = |value: &'static str| RawRecord {
            headers: vec![(b"traceparent", Some(value.as_bytes()))],
            ..record(None, None)
        };
        assert_eq!(traceparent(&with(valid)), valid);
        for invalid in ["", "00", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-é-b7ad6b7169203331-01"]
        {
            let made = traceparent(&with(invalid));
            assert!(made != invalid && is_traceparent(&made), "{made}");
        }
    }
}
