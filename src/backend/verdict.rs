//! The backend's answer: a JSON array with one verdict per record, matched to the records that were sent.
//!
//! It knows nothing of HTTP or of what a verdict leads to; errors name the index at fault and never repeat the body.
//! [`parse`] is the door.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::record::{TraceIds, Verdict};

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the answer is no JSON array (line {line}, column {column})")]
    NotAnArray { line: usize, column: usize },
    #[error("verdict {index} is no JSON object")]
    NotAVerdict { index: usize },
    #[error("verdict {index} has no `processed`")]
    NoProcessed { index: usize },
    #[error("verdict {index} names no record by topic, partition and offset")]
    Unnamed { index: usize },
    #[error("verdict {index} is of {topic}-{partition} offset {offset}, which was not sent")]
    Foreign { index: usize, topic: String, partition: i64, offset: i64 },
    #[error("verdict {index} is the second one of offset {offset}")]
    Duplicate { index: usize, offset: i64 },
    #[error("record {index} (offset {offset}) has no verdict")]
    Missing { index: usize, offset: i64 },
    #[error("{found} verdicts without a record for {sent} records")]
    Count { found: usize, sent: usize },
}

/// One entry of the answer. Fields that are not named here are ignored; one of an unexpected type counts as absent.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow, rename = "consumerRecord", alias = "consumer_record")]
    consumer_record: Option<&'a RawValue>,
    processed: Option<Value>,
    #[serde(alias = "stackTrace", alias = "stack_trace")]
    stacktrace: Option<Value>,
    #[serde(rename = "correlationId", alias = "correlation_id")]
    correlation_id: Option<Value>,
    #[serde(rename = "traceabilityId", alias = "traceability_id")]
    traceability_id: Option<Value>,
    key: Option<Value>,
    timestamp: Option<Value>,
}

#[derive(Deserialize)]
struct Name {
    topic: Option<Value>,
    partition: Option<Value>,
    offset: Option<Value>,
}

/// The verdicts in the order of `offsets`, which are ascending. Matched by (topic, partition, offset); only if no
/// verdict has a record and their number is right, by position.
pub(crate) fn parse(body: &[u8], topic: &str, partition: i32, offsets: &[i64]) -> Result<Vec<Verdict>, Malformed> {
    let entries: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Malformed::NotAnArray { line: error.line(), column: error.column() })?;
    let mut parsed = Vec::with_capacity(entries.len());
    for (index, raw) in entries.into_iter().enumerate() {
        let is_object = raw.get().starts_with('{');
        let entry: Entry<'_> = is_object
            .then(|| serde_json::from_str(raw.get()).ok())
            .flatten()
            .ok_or(Malformed::NotAVerdict { index })?;
        let processed = entry.processed.as_ref().and_then(boolean).ok_or(Malformed::NoProcessed { index })?;
        let record = entry.record.or(entry.consumer_record).filter(|raw| raw.get() != "null");
        let verdict = Verdict {
            processed,
            stacktrace: entry.stacktrace.and_then(text),
            ids: TraceIds {
                correlation_id: entry.correlation_id.and_then(text).filter(|id| !id.is_empty()),
                traceability_id: entry.traceability_id.and_then(text).filter(|id| !id.is_empty()),
            },
            key: entry.key.and_then(text),
            timestamp: entry.timestamp.as_ref().and_then(integer),
        };
        parsed.push((record, verdict));
    }
    if parsed.iter().all(|(record, _)| record.is_none()) {
        let found = parsed.len();
        if found != offsets.len() {
            return Err(Malformed::Count { found, sent: offsets.len() });
        }
        return Ok(parsed.into_iter().map(|(_, verdict)| verdict).collect());
    }
    let mut matched: Vec<Option<Verdict>> = offsets.iter().map(|_| None).collect();
    for (index, (record, verdict)) in parsed.into_iter().enumerate() {
        let name = record.and_then(|raw| serde_json::from_str::<Name>(raw.get()).ok()).and_then(named);
        let (named_topic, named_partition, offset) = name.ok_or(Malformed::Unnamed { index })?;
        let ours = named_topic == topic && named_partition == i64::from(partition);
        let place = offsets.binary_search(&offset).ok().filter(|_| ours).and_then(|place| matched.get_mut(place));
        match place {
            None => {
                return Err(Malformed::Foreign { index, topic: named_topic, partition: named_partition, offset });
            }
            Some(Some(_)) => return Err(Malformed::Duplicate { index, offset }),
            Some(place) => *place = Some(verdict),
        }
    }
    matched
        .into_iter()
        .zip(offsets)
        .enumerate()
        .map(|(index, (verdict, offset))| verdict.ok_or(Malformed::Missing { index, offset: *offset }))
        .collect()
}

fn named(name: Name) -> Option<(String, i64, i64)> {
    let Value::String(mut topic) = name.topic? else { return None };
    // Topic names have at most 249 characters; what is longer is foreign and need not be repeated in full.
    let end = topic.char_indices().nth(249).map_or(topic.len(), |(at, _)| at);
    topic.truncate(end);
    Some((topic, integer(&name.partition?)?, integer(&name.offset?)?))
}

/// `41`, `41.0` and `"41"` are the same integer.
fn integer(value: &Value) -> Option<i64> {
    /// Above this a float no longer holds every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `true` and `"true"` are the same boolean.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A string as it is, anything else but null as its JSON text.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(body: &str) -> Result<Vec<bool>, Malformed> {
        parse(body.as_bytes(), "t", 0, &[5, 7]).map(|verdicts| verdicts.iter().map(|v| v.processed).collect())
    }

    #[test]
    fn verdicts_are_matched_by_topic_partition_and_offset() {
        let rows = [
            r#"[{"record":{"topic":"t","partition":0,"offset":5},"processed":true},{"record":{"topic":"t","partition":0,"offset":7},"processed":false}]"#,
            r#"[{"processed":"false","record":{"offset":7.0,"partition":0,"topic":"t","value":{"a":[1]},"new":1}},{"consumerRecord":{"topic":"t","partition":"0","offset":5},"processed":"true","other":{}}]"#,
            r#"[{"processed":true},{"processed":false,"record":null}]"#,
        ];
        for row in rows {
            assert_eq!(processed(row), Ok(vec![true, false]), "{row}");
        }
    }

    #[test]
    fn a_malformed_answer_names_the_index_at_fault() {
        use Malformed::*;
        let rows: [(&str, Malformed); 13] = [
            ("", NotAnArray { line: 1, column: 0 }),
            ("{}", NotAnArray { line: 1, column: 0 }),
            ("<html>", NotAnArray { line: 1, column: 1 }),
            ("[]", Count { found: 0, sent: 2 }),
            (r#"[{"processed":true}]"#, Count { found: 1, sent: 2 }),
            (r#"[{"processed":true},1]"#, NotAVerdict { index: 1 }),
            (r#"[{"processed":true},{"record":{}}]"#, NoProcessed { index: 1 }),
            (r#"[{"processed":null},{"processed":true}]"#, NoProcessed { index: 0 }),
            (r#"[{"processed":true,"record":{"topic":"t","partition":0}},{"processed":true}]"#, Unnamed { index: 0 }),
            (
                r#"[{"processed":true,"record":{"topic":"t","partition":0,"offset":5}},{"processed":true}]"#,
                Unnamed { index: 1 },
            ),
            (
                r#"[{"processed":true,"record":{"topic":"u","partition":0,"offset":5}}]"#,
                Foreign { index: 0, topic: "u".into(), partition: 0, offset: 5 },
            ),
            (
                r#"[{"processed":true,"record":{"topic":"t","partition":0,"offset":7}},{"processed":true,"record":{"topic":"t","partition":0,"offset":7}}]"#,
                Duplicate { index: 1, offset: 7 },
            ),
            (
                r#"[{"processed":true,"record":{"topic":"t","partition":0,"offset":7}}]"#,
                Missing { index: 0, offset: 5 },
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(processed(body), Err(expected), "{body}");
        }
    }

    #[test]
    fn what_the_backend_adds_is_kept() {
        let body = br#"[{"processed":false,"stacktrace":"at X","correlationId":"c","traceability_id":"tr","key":17,"timestamp":1730000000123}]"#;
        let verdict = parse(body, "t", 0, &[1]).expect("one verdict").remove(0);
        assert_eq!(verdict.stacktrace.as_deref(), Some("at X"));
        assert_eq!(verdict.ids.correlation_id.as_deref(), Some("c"));
        assert_eq!(verdict.ids.traceability_id.as_deref(), Some("tr"));
        assert_eq!(verdict.key.as_deref(), Some("17"));
        assert_eq!(verdict.timestamp, Some(1_730_000_000_123));
    }
}
