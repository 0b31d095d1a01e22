//! Small JSON values as callers write them: numbers in strings, booleans in strings, formats by name or ordinal.
//!
//! It knows no entity; each function takes the raw text and the path that its complaint names.

use serde_json::value::RawValue;

use super::problem::{Fault, Problem};
use crate::config::settings::Format;

/// The formats in the order of their ordinals.
const FORMATS: [(&str, Format); 6] = [
    ("binary", Format::Binary),
    ("json", Format::Json),
    ("avro", Format::Avro),
    ("jsonschema", Format::JsonSchema),
    ("protobuf", Format::Protobuf),
    ("string", Format::String),
];

/// A complaint about the value at `path`.
pub(crate) fn expected(path: &str, what: &str, got: &str) -> Problem {
    Problem::new(Fault::Schema, format!("{path}: expected {what}, got {}", shortened(got)))
}

/// At most 60 characters of a caller's own text.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// The content of a JSON string; None if it is none, or names no Unicode text.
fn unquoted(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// An integer as `41`, `41.0`, `"41"` or `4.1e1`; None for null.
pub(crate) fn integer(raw: &RawValue, path: &str) -> Result<Option<i64>, Problem> {
    if is_null(raw) {
        return Ok(None);
    }
    let quoted = unquoted(raw);
    let text = quoted.as_deref().unwrap_or(raw.get()).trim();
    match parse_integer(text) {
        Some(number) => Ok(Some(number)),
        None => Err(expected(path, "an integer", raw.get())),
    }
}

fn parse_integer(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    // JSON's own number grammar only: neither "inf" nor "nan".
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    let number = plain.then(|| text.parse::<f64>().ok()).flatten()?;
    // Up to 2^53 every integer has a float of its own.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// Text as a string, a number or a boolean; None for null.
pub(crate) fn text(raw: &RawValue, path: &str) -> Result<Option<String>, Problem> {
    match raw.get().as_bytes().first() {
        _ if is_null(raw) => Ok(None),
        Some(b'"') => match unquoted(raw) {
            Some(text) => Ok(Some(text)),
            None => Err(expected(path, "a string of Unicode characters", raw.get())),
        },
        Some(b'{' | b'[') | None => Err(expected(path, "a string", raw.get())),
        Some(_) => Ok(Some(raw.get().to_owned())),
    }
}

/// A boolean as `true` or `"true"`; None for null.
pub(crate) fn boolean(raw: &RawValue, path: &str) -> Result<Option<bool>, Problem> {
    if is_null(raw) {
        return Ok(None);
    }
    let quoted = unquoted(raw);
    match quoted.as_deref().unwrap_or(raw.get()).trim().to_ascii_lowercase().as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(expected(path, "true or false", raw.get())),
    }
}

/// Milliseconds since the epoch, from milliseconds, milliseconds in a string, or RFC 3339; None for null.
pub(crate) fn timestamp(raw: &RawValue, path: &str) -> Result<Option<i64>, Problem> {
    if let Ok(number) = integer(raw, path) {
        return Ok(number);
    }
    let date = unquoted(raw)
        .and_then(|text| time::OffsetDateTime::parse(text.trim(), &time::format_description::well_known::Rfc3339).ok());
    let milliseconds = date.and_then(|date| i64::try_from(date.unix_timestamp_nanos().div_euclid(1_000_000)).ok());
    match milliseconds {
        Some(milliseconds) => Ok(Some(milliseconds)),
        None => Err(expected(path, "milliseconds or an RFC 3339 time", raw.get())),
    }
}

/// A format by name in any case, by ordinal, or by ordinal in a string; None for null.
pub(crate) fn format(raw: &RawValue, path: &str) -> Result<Option<Format>, Problem> {
    if is_null(raw) {
        return Ok(None);
    }
    let quoted = unquoted(raw);
    let text = quoted.as_deref().unwrap_or(raw.get()).trim();
    let by_name = quoted.as_deref().and_then(|_| FORMATS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)));
    let by_ordinal = || FORMATS.get(usize::try_from(parse_integer(text)?).ok()?);
    match by_name.or_else(by_ordinal) {
        Some((_, format)) => Ok(Some(*format)),
        None => Err(Problem::new(
            Fault::InvalidFormat,
            format!(
                "{path}: expected one of binary, json, avro, jsonschema, protobuf, string or their ordinals 0 to 5, got {}",
                shortened(raw.get())
            ),
        )),
    }
}

/// What a format is called in configuration and requests.
pub(crate) fn format_name(format: Format) -> &'static str {
    FORMATS.iter().find(|(_, known)| *known == format).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    #[test]
    fn integers_are_read_however_they_are_written_and_never_rounded() {
        for (text, expected) in [
            ("41", Some(Some(41))),
            ("41.0", Some(Some(41))),
            ("\"41\"", Some(Some(41))),
            ("4.1e1", Some(Some(41))),
            ("-1", Some(Some(-1))),
            ("9223372036854775807", Some(Some(i64::MAX))),
            ("null", Some(None)),
            ("41.5", None),
            ("9223372036854775808", None),
            ("1e300", None),
            ("\"x\"", None),
            ("\"inf\"", None),
            ("\"\"", None),
            ("true", None),
            ("[1]", None),
        ] {
            assert_eq!(integer(&raw(text), "p").ok(), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_are_milliseconds_or_rfc_3339() {
        for (text, expected) in [
            ("1730000000000", Some(Some(1_730_000_000_000))),
            ("\"1730000000000\"", Some(Some(1_730_000_000_000))),
            ("\"2024-10-27T03:33:20Z\"", Some(Some(1_730_000_000_000))),
            ("\"2024-10-27T04:33:20.123456+01:00\"", Some(Some(1_730_000_000_123))),
            ("\"1969-12-31T23:59:59.9995Z\"", Some(Some(-1))),
            ("null", Some(None)),
            ("\"yesterday\"", None),
            ("\"2024-10-27\"", None),
            ("{}", None),
        ] {
            assert_eq!(timestamp(&raw(text), "p").ok(), expected, "{text}");
        }
    }

    #[test]
    fn formats_are_names_in_any_case_or_ordinals() {
        for (text, expected) in [
            ("\"string\"", Some(Some(Format::String))),
            ("\"BINARY\"", Some(Some(Format::Binary))),
            ("\"JsonSchema\"", Some(Some(Format::JsonSchema))),
            ("0", Some(Some(Format::Binary))),
            ("\"2\"", Some(Some(Format::Avro))),
            ("5.0", Some(Some(Format::String))),
            ("null", Some(None)),
            ("6", None),
            ("-1", None),
            ("\"xml\"", None),
            ("{}", None),
        ] {
            let found = format(&raw(text), "keyFormat");
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{text}");
            if let Err(problem) = found {
                assert_eq!(problem.fault, Fault::InvalidFormat);
            }
        }
    }

    #[test]
    fn text_takes_scalars_as_they_stand() {
        for (json, expected) in [
            ("\"a\\nb\"", Some(Some("a\nb"))),
            ("1.50", Some(Some("1.50"))),
            ("true", Some(Some("true"))),
            ("null", Some(None)),
            ("\"\\ud800\"", None),
            ("{}", None),
            ("[]", None),
        ] {
            assert_eq!(text(&raw(json), "p").ok(), expected.map(|text| text.map(str::to_owned)), "{json}");
        }
    }

    #[test]
    fn a_complaint_quotes_no_more_than_a_line() {
        let problem = integer(&raw(&format!("\"{}\"", "ü".repeat(500))), "p").expect_err("no integer");
        assert!(problem.description.chars().count() < 100, "{}", problem.description);
    }
}
