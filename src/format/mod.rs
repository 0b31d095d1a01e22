//! Bytes in Kafka to raw JSON text and back, for the formats that need no schema: binary, json and string.
//!
//! JSON travels as text in both directions, never through a number or a map: number text, duplicate keys and key order
//! survive. It knows nothing of topics, registries or who is told about a fault. [`decode`] and [`encode`] are the doors.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::config::settings::Format;

/// Standard base64: padded when written, the padding optional when read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key or value in Kafka is no value of its format. Never repeats the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecodable {
    #[error("it is no UTF-8 text (byte {at})")]
    NotUtf8 { at: usize },
    #[error("it is no JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    #[error("format {0:?} needs a schema registry, which is not built yet")]
    NotBuilt(Format),
}

/// Why a JSON key or value cannot be written in its format. Never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnfitReason {
    #[error("format {format} takes a JSON string, this is {found}")]
    NotAString { format: &'static str, found: &'static str },
    #[error("the string has half of a surrogate pair, which UTF-8 cannot hold")]
    NotUtf8,
    #[error("the string is no standard base64")]
    NotBase64,
    #[error("format {0:?} needs a schema registry, which is not built yet")]
    NotBuilt(Format),
}

/// Appends the JSON text of `bytes` to `out`; a null key or value becomes `null`. On an error `out` is as it was.
pub(crate) fn decode(format: Format, bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Undecodable> {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    match format {
        Format::Binary => {
            out.push(b'"');
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.push(b'"');
            Ok(())
        }
        Format::Json => {
            let raw: &RawValue = serde_json::from_slice(bytes).map_err(|error| match std::str::from_utf8(bytes) {
                Err(utf8) => Undecodable::NotUtf8 { at: utf8.valid_up_to() },
                Ok(_) => Undecodable::NotJson { line: error.line(), column: error.column() },
            })?;
            out.extend_from_slice(raw.get().as_bytes());
            Ok(())
        }
        Format::String => {
            let text = std::str::from_utf8(bytes).map_err(|utf8| Undecodable::NotUtf8 { at: utf8.valid_up_to() })?;
            write_string(text, out);
            Ok(())
        }
        Format::Avro | Format::JsonSchema | Format::Protobuf => Err(Undecodable::NotBuilt(format)),
    }
}

/// The bytes that Kafka holds for a JSON value; `null` is None, a tombstone, in every format.
pub(crate) fn encode(format: Format, value: &RawValue) -> Result<Option<Bytes>, UnfitReason> {
    let text = value.get();
    if matches!(format, Format::Avro | Format::JsonSchema | Format::Protobuf) {
        return Err(UnfitReason::NotBuilt(format));
    }
    if text == "null" {
        return Ok(None);
    }
    let bytes = match format {
        Format::Binary => {
            let encoded = string(text, "binary")?;
            BASE64.decode(encoded).map(Bytes::from).map_err(|_| UnfitReason::NotBase64)?
        }
        Format::String => Bytes::from(string(text, "string")?),
        _ => Bytes::copy_from_slice(text.as_bytes()),
    };
    Ok(Some(bytes))
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control @ 0..0x20 => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(b"\\u00");
                out.push(digit(control >> 4));
                out.push(digit(control & 15));
            }
            other => out.push(other),
        }
    }
    out.push(b'"');
}

fn string(text: &str, format: &'static str) -> Result<String, UnfitReason> {
    let found = match text.bytes().next() {
        Some(b'"') => return serde_json::from_str(text).map_err(|_| UnfitReason::NotUtf8),
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    };
    Err(UnfitReason::NotAString { format, found })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(format: Format, bytes: Option<&[u8]>) -> Result<String, Undecodable> {
        let mut out = b">".to_vec();
        let result = decode(format, bytes, &mut out);
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let text = text.strip_prefix('>').expect("appended only").to_owned();
        result.map(|()| text.clone()).inspect_err(|_| assert_eq!(text, "", "an error must leave nothing behind"))
    }

    fn encoded(format: Format, json: &str) -> Result<Option<Bytes>, UnfitReason> {
        encode(format, &RawValue::from_string(json.to_owned()).expect("test JSON"))
    }

    #[test]
    fn bytes_become_json_text() {
        use Format::{Binary, Json, String};
        let rows: &[(Format, Option<&[u8]>, &str)] = &[
            (Binary, None, "null"),
            (Binary, Some(b""), r#""""#),
            (Binary, Some(b"\xff\xfe\xfd\xfc"), r#""//79/A==""#),
            (String, Some(b""), r#""""#),
            (String, Some("a\"b\\\n\u{1}\u{7f}é".as_bytes()), "\"a\\\"b\\\\\\n\\u0001\u{7f}é\""),
            (Json, None, "null"),
            (Json, Some(b"null"), "null"),
            (Json, Some(b" 1.10 "), "1.10"),
            (Json, Some(b"123456789012345678901234567890"), "123456789012345678901234567890"),
            (Json, Some(br#"{"b":1,"a":0.1000,"b":2}"#), r#"{"b":1,"a":0.1000,"b":2}"#),
        ];
        for (format, bytes, expected) in rows {
            assert_eq!(decoded(*format, *bytes).as_deref(), Ok(*expected), "{format:?} {bytes:?}");
        }
    }

    #[test]
    fn undecodable_bytes_are_data_with_a_reason() {
        use Format::{Avro, Json, String};
        let rows: &[(Format, &[u8], Undecodable)] = &[
            (String, b"ab\xff", Undecodable::NotUtf8 { at: 2 }),
            (Json, b"", Undecodable::NotJson { line: 1, column: 0 }),
            (Json, b"{\"a\":}", Undecodable::NotJson { line: 1, column: 6 }),
            (Json, b"1 2", Undecodable::NotJson { line: 1, column: 3 }),
            (Json, b"\"\xff\"", Undecodable::NotUtf8 { at: 1 }),
            (Avro, b"\0", Undecodable::NotBuilt(Avro)),
        ];
        for (format, bytes, expected) in rows {
            assert_eq!(decoded(*format, Some(bytes)).as_ref(), Err(expected), "{format:?} {bytes:?}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
        assert_eq!(decoded(Format::Json, Some(&deep)).map(|text| text.len()), Ok(400_000));
        assert!(decoded(Format::Json, Some(&deep[..300_000])).is_err());
    }

    #[test]
    fn json_becomes_bytes() {
        use Format::{Binary, Json, Protobuf, String};
        type Encoded = Result<Option<&'static [u8]>, UnfitReason>;
        let rows: &[(Format, &str, Encoded)] = &[
            (Json, "null", Ok(None)),
            (String, "null", Ok(None)),
            (Binary, "null", Ok(None)),
            (Json, "0", Ok(Some(b"0"))),
            (Json, "false", Ok(Some(b"false"))),
            (Json, r#""""#, Ok(Some(b"\"\""))),
            (Json, "{}", Ok(Some(b"{}"))),
            (Json, r#"{"b":1e2,"b":1.0}"#, Ok(Some(br#"{"b":1e2,"b":1.0}"#))),
            (String, r#""""#, Ok(Some(b""))),
            (String, r#""a\u00e9\n""#, Ok(Some("aé\n".as_bytes()))),
            (String, r#""\ud800""#, Err(UnfitReason::NotUtf8)),
            (String, "1", Err(UnfitReason::NotAString { format: "string", found: "a number" })),
            (Binary, r#""//79/A==""#, Ok(Some(b"\xff\xfe\xfd\xfc"))),
            (Binary, r#""//79/A""#, Ok(Some(b"\xff\xfe\xfd\xfc"))),
            (Binary, r#""-_""#, Err(UnfitReason::NotBase64)),
            (Binary, "{}", Err(UnfitReason::NotAString { format: "binary", found: "an object" })),
            (Protobuf, "null", Err(UnfitReason::NotBuilt(Protobuf))),
        ];
        for (format, json, expected) in rows {
            let expected = expected.clone().map(|bytes| bytes.map(Bytes::copy_from_slice));
            assert_eq!(encoded(*format, json), expected, "{format:?} {json}");
        }
    }

    proptest! {
        #[test]
        fn what_was_decoded_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,32}") {
            let json = decoded(Format::Binary, Some(&bytes)).expect("any bytes");
            prop_assert_eq!(encoded(Format::Binary, &json), Ok(Some(Bytes::from(bytes))));
            let json = decoded(Format::String, Some(text.as_bytes())).expect("any text");
            prop_assert_eq!(encoded(Format::String, &json), Ok(Some(Bytes::from(text))));
        }
    }
}
