//! What a caller is told when something is wrong: one table from faults to Status bodies.
//!
//! It knows no flow and no route. [`Problem`] is its main type; every fault of the HTTP side is named once, in [`Fault`].

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

/// Everything that can be wrong with a request, or with its processing.
///
/// Codes up to `ERR12218` are those of the system that this one replaces; `ERR126xx` are our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    UnknownPath,
    MethodNotAllowed,
    MalformedRequest,
    Internal,
    NotJson,
    MediaType,
    Schema,
    MissingBody,
    InvalidFormat,
    Unfit,
    NoRegistry,
    ProducerNotEnabled,
    InvalidTopicName,
    BodyTooLarge,
    HeadersTooLarge,
    BodyTimeout,
    HeadTimeout,
    TooManyRecords,
    TooManyRequests,
    NoMemory,
    AtomicNotAvailable,
    KafkaAuthentication,
    KafkaAuthorization,
    TopicNotFound,
    RecordTooLarge,
    KafkaUnavailable,
    KafkaRefused,
}

/// One row: HTTP status, code, message.
type Row = (u16, &'static str, &'static str);

impl Fault {
    const fn row(self) -> Row {
        match self {
            Self::UnknownPath => (404, "ERR10007", "INVALID_REQUEST_PATH"),
            Self::MethodNotAllowed => (405, "ERR10008", "METHOD_NOT_ALLOWED"),
            Self::MalformedRequest => (400, "ERR12608", "MALFORMED_REQUEST"),
            Self::Internal => (500, "ERR10010", "RUNTIME_EXCEPTION"),
            Self::NotJson => (400, "ERR10015", "CONTENT_TYPE_MISMATCH"),
            Self::MediaType => (415, "ERR10015", "CONTENT_TYPE_MISMATCH"),
            Self::Schema => (400, "ERR11004", "VALIDATOR_SCHEMA"),
            Self::MissingBody => (400, "ERR11014", "VALIDATOR_REQUEST_BODY_MISSING"),
            Self::InvalidFormat => (400, "ERR12203", "INVALID_EMBEDDED_FORMAT"),
            Self::Unfit => (422, "ERR12206", "SERIALIZE_SCHEMA_EXCEPTION"),
            Self::NoRegistry => (400, "ERR12208", "FAILED_TO_GET_SCHEMA"),
            Self::ProducerNotEnabled => (400, "ERR12216", "PRODUCER_NOT_ENABLED"),
            Self::InvalidTopicName => (400, "ERR30001", "INVALID_TOPIC_NAME"),
            Self::BodyTooLarge => (413, "ERR12601", "REQUEST_BODY_TOO_LARGE"),
            Self::HeadersTooLarge => (431, "ERR12602", "REQUEST_HEADERS_TOO_LARGE"),
            Self::BodyTimeout => (408, "ERR12603", "REQUEST_BODY_TIMEOUT"),
            Self::HeadTimeout => (408, "ERR12609", "REQUEST_HEAD_TIMEOUT"),
            Self::TooManyRecords => (413, "ERR12604", "TOO_MANY_RECORDS"),
            Self::TooManyRequests => (503, "ERR12605", "TOO_MANY_REQUESTS_IN_FLIGHT"),
            Self::NoMemory => (503, "ERR12606", "NO_ROOM_FOR_REQUEST"),
            Self::AtomicNotAvailable => (400, "ERR12607", "ATOMIC_NOT_AVAILABLE"),
            Self::KafkaAuthentication => (401, "ERR12611", "KAFKA_AUTHENTICATION_FAILED"),
            Self::KafkaAuthorization => (403, "ERR12612", "KAFKA_AUTHORIZATION_FAILED"),
            Self::TopicNotFound => (404, "ERR12613", "TOPIC_NOT_FOUND"),
            Self::RecordTooLarge => (413, "ERR12614", "RECORD_TOO_LARGE"),
            Self::KafkaUnavailable => (503, "ERR12615", "KAFKA_UNAVAILABLE"),
            Self::KafkaRefused => (500, "ERR12616", "KAFKA_REFUSED"),
        }
    }

    pub(crate) const fn status(self) -> u16 {
        self.row().0
    }

    #[cfg(test)]
    pub(crate) const fn code(self) -> &'static str {
        self.row().1
    }

    /// Seconds after which the same request may succeed, for `Retry-After`.
    const fn retry_after(self) -> Option<u32> {
        match self {
            Self::TooManyRequests | Self::NoMemory => Some(1),
            Self::KafkaUnavailable => Some(2),
            _ => None,
        }
    }
}

/// A fault with the sentence that explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    pub(crate) description: String,
    /// Instead of the table's status, where compatibility asks for another.
    status: Option<u16>,
    /// The connection cannot be used for another request.
    closes: bool,
}

/// The Status body.
#[derive(Serialize)]
struct Status<'a, T> {
    #[serde(rename = "statusCode")]
    status_code: u16,
    code: &'a str,
    message: &'a str,
    description: &'a str,
    severity: &'a str,
    #[serde(flatten)]
    extra: Option<T>,
}

impl Problem {
    pub(crate) fn new(fault: Fault, description: impl Into<String>) -> Self {
        Self { fault, description: description.into(), status: None, closes: false }
    }

    /// The same problem under another HTTP status.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Tells the caller to open another connection: this one stands in the middle of a body that nobody reads.
    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The Status object alone, under the table's status.
    pub(crate) fn status_text(&self) -> Bytes {
        let (status_code, code, message) = self.fault.row();
        let status =
            Status::<()> { status_code, code, message, description: &self.description, severity: "ERROR", extra: None };
        serde_json::to_vec(&status).unwrap_or_default().into()
    }

    /// The answer, with the fields of `extra` (a struct or a map) added to the Status object.
    pub(crate) fn into_response_with<T: Serialize>(self, extra: Option<T>) -> Response {
        let (table_status, code, message) = self.fault.row();
        let status_code = self.status.unwrap_or(table_status);
        let body = Status { status_code, code, message, description: &self.description, severity: "ERROR", extra };
        let mut response = json(status_code, &body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.fault.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An answer with a JSON body.
pub(crate) fn json(status: u16, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_response_with(None::<()>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_status_is_one_json_object_whatever_the_description_holds() {
        let response = Problem::new(Fault::Schema, "records[0].key: \"a\\b\"\nnext line").into_response();
        assert_eq!(response.status(), 400);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("body");
        let text = std::str::from_utf8(&body).expect("text");
        assert_eq!(
            text,
            "{\"statusCode\":400,\"code\":\"ERR11004\",\"message\":\"VALIDATOR_SCHEMA\",\"description\":\"records[0].key: \\\"a\\\\b\\\"\\nnext line\",\"severity\":\"ERROR\"}"
        );
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for fault in [Fault::TooManyRequests, Fault::NoMemory, Fault::KafkaUnavailable] {
            let response = Problem::new(fault, "").into_response();
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"), "{fault:?}");
        }
    }

    #[test]
    fn another_status_changes_the_line_and_the_body() {
        let response = Problem::new(Fault::Unfit, "").with_status(400).into_response();
        assert_eq!(response.status(), 400);
    }
}
