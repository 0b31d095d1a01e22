//! The ids that a request carries: correlation, traceability, and the W3C trace context.
//!
//! It knows no record; [`RequestIds`] is what the flows are given.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

/// What the headers of a request say of where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RequestIds {
    pub(crate) correlation_id: Option<String>,
    pub(crate) traceability_id: Option<String>,
    /// `traceparent` and, with it, `tracestate`, as record headers.
    pub(crate) trace_context: Vec<(Bytes, Option<Bytes>)>,
}

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEABILITY: HeaderName = HeaderName::from_static("x-traceability-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// W3C: vendors may cut a longer `tracestate`.
const MAX_TRACESTATE_BYTES: usize = 512;

impl RequestIds {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let mut trace_context = Vec::new();
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        // Two parents are none.
        if let (Some(parent), None) = (parents.next(), parents.next())
            && is_traceparent(parent.as_bytes())
        {
            let bytes = |value: &[u8]| Some(Bytes::copy_from_slice(value));
            trace_context.push((Bytes::from_static(b"traceparent"), bytes(parent.as_bytes())));
            let states: Vec<&[u8]> = headers.get_all(&TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
            let state = states.join(&b","[..]);
            if !state.is_empty() && state.len() <= MAX_TRACESTATE_BYTES {
                trace_context.push((Bytes::from_static(b"tracestate"), bytes(&state)));
            }
        }
        Self { correlation_id: text(&CORRELATION), traceability_id: text(&TRACEABILITY), trace_context }
    }

    /// The header that is sent back as it came.
    pub(crate) fn echo(headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
        headers.get(&TRACEABILITY).map(|value| (TRACEABILITY, value.clone()))
    }
}

/// `version-trace-parent-flags` in lower-case hex, neither id all zero; later versions may be longer.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8], len: usize| {
        part.len() == len && part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let nonzero = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let ids = hex(trace, 32) && nonzero(trace) && hex(parent, 16) && nonzero(parent) && hex(flags, 2);
    let version_fits = match (version, parts.next()) {
        (b"ff", _) | (b"00", Some(_)) => false,
        (version, _) => hex(version, 2),
    };
    ids && version_fits && value.len() <= 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_context_is_taken() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for (value, taken) in [
            (format!("00-{trace}-b7ad6b7169203331-01"), true),
            (format!("cc-{trace}-b7ad6b7169203331-01-what-comes-later"), true),
            (format!("00-{trace}-b7ad6b7169203331-01-more"), false),
            (format!("ff-{trace}-b7ad6b7169203331-01"), false),
            (format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()), false),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{trace}"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), taken, "{value}");
        }
    }

    #[test]
    fn a_tracestate_goes_only_with_its_traceparent() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        assert_eq!(RequestIds::of(&headers), RequestIds::default());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
        headers.insert(CORRELATION, HeaderValue::from_static("c"));
        headers.insert(TRACEABILITY, HeaderValue::from_static(""));
        let ids = RequestIds::of(&headers);
        assert_eq!(ids.trace_context.len(), 2);
        headers.append(TRACESTATE, HeaderValue::from_static("c=d"));
        let ids = RequestIds::of(&headers);
        assert_eq!(ids.trace_context.last().and_then(|(_, state)| state.as_deref()), Some(&b"a=b,c=d"[..]));
        assert_eq!((ids.correlation_id.as_deref(), ids.traceability_id), (Some("c"), None));
        headers.append(TRACEPARENT, HeaderValue::from_static(parent));
        assert_eq!(RequestIds::of(&headers).trace_context, [], "nobody can say which of two parents counts");
    }
}
