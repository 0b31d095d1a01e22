//! The request and response types used: the generated ones of `kafka-protocol`, behind one bounded-decode door.
//!
//! Whatever a peer sent comes in by [`decode_response`], [`decode_request`], [`decode_subscription`],
//! [`decode_assignment`] or [`FetchResponse::decode`]. Each checks every count and length against the bytes that are
//! there before anything is allocated by it, so hostile bytes cost an error that names the API, the version and the
//! field, and never memory or the process. A frame's own length is not this module's business: the connection bounds it
//! before it reads.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

use crate::error_code::ErrorCode;

mod cursor;
mod embedded;
mod error;
mod fetch_response;
mod header;
mod layout;
mod produce_request;
mod scan;
mod versions;

pub use embedded::{decode_assignment, decode_subscription, encode_assignment, encode_subscription};
pub use error::{DecodeError, Direction, EncodeError, Reason};
pub use fetch_response::{
    AbortedTransaction, CurrentLeader, DivergingEpoch, FetchResponse, FetchedPartition, NodeEndpoint, TopicKey,
};
pub use header::{RequestHeader, decode_request_header, decode_response_header};
pub use produce_request::{ProduceTopic, RawProduce};
pub use versions::{ApiSupport, SUPPORTED, negotiate, supported};

use layout::Layout;

/// Kafka's name of an API that this client speaks, `unknown API` for any other.
pub fn api_name(api_key: i16) -> &'static str {
    layout::name(api_key)
}

/// Writes a request's header and body, without the four bytes of length in front of a frame.
///
/// # Errors
/// When a field is set that `version` lacks, or a string is too long for its length field.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<BytesMut, EncodeError> {
    let fault = |reason| EncodeError { api: api_name(R::KEY), version, reason };
    let body_len = request.compute_size(version).map_err(|error| fault(format!("{error:#}")))?;
    let mut out = BytesMut::with_capacity(header::request_header_len(client_id) + body_len);
    header::put_request_header(&mut out, R::KEY, version, R::header_version(version), correlation_id, client_id)?;
    request.encode(&mut out, version).map_err(|error| fault(format!("{error:#}")))?;
    Ok(out)
}

/// Writes a response's header and body, without the four bytes of length in front of a frame: the broker's side.
///
/// # Errors
/// When a field is set that `version` lacks, or a string is too long for its length field.
pub fn encode_response<R: Request>(
    response: &R::Response,
    version: i16,
    correlation_id: i32,
) -> Result<BytesMut, EncodeError> {
    let fault = |reason| EncodeError { api: api_name(R::KEY), version, reason };
    let body_len = response.compute_size(version).map_err(|error| fault(format!("{error:#}")))?;
    let mut out = BytesMut::with_capacity(5 + body_len);
    header::put_response_header(&mut out, R::Response::header_version(version), correlation_id);
    response.encode(&mut out, version).map_err(|error| fault(format!("{error:#}")))?;
    Ok(out)
}

/// Reads the body of the response to a request `R` of this version; the header has been taken off by
/// [`decode_response_header`].
///
/// An ApiVersions answer that says `UNSUPPORTED_VERSION` is read in the format of version 0, whatever was asked
/// (KIP-511).
///
/// # Errors
/// When the bytes are not exactly such a response.
pub fn decode_response<R: Request>(version: i16, body: Bytes) -> Result<R::Response, DecodeError> {
    let (_, layout) = layout::of(R::KEY).ok_or_else(|| unknown_api(R::KEY, version, Direction::Response))?;
    if R::KEY == ApiKey::ApiVersions as i16
        && version > 0
        && body.first_chunk().map(|code| i16::from_be_bytes(*code)) == Some(ErrorCode::UNSUPPORTED_VERSION.0)
        && let Ok(response) = decode(layout, 0, body.clone())
    {
        return Ok(response);
    }
    decode(layout, version, body)
}

/// Reads the body of a request; the header has been taken off by [`decode_request_header`]. The broker's side.
///
/// # Errors
/// When the bytes are not exactly such a request.
pub fn decode_request<R: Request>(version: i16, body: Bytes) -> Result<R, DecodeError> {
    let (layout, _) = layout::of(R::KEY).ok_or_else(|| unknown_api(R::KEY, version, Direction::Request))?;
    decode(layout, version, body)
}

/// The door: scan, then the generated decode.
fn decode<T: Decodable>(layout: &'static Layout, version: i16, mut body: Bytes) -> Result<T, DecodeError> {
    scan::scan(layout, version, &body)?;
    let message = T::decode(&mut body, version)
        .map_err(|error| scan::whole(layout, version, Reason::Refused(format!("{error:#}"))))?;
    match body.len() {
        0 => Ok(message),
        left => Err(scan::whole(layout, version, Reason::LeftOver(left))),
    }
}

fn unknown_api(api_key: i16, version: i16, direction: Direction) -> DecodeError {
    let (api, reason) = (api_name(api_key), Reason::UnknownApi(api_key));
    DecodeError { api, version, direction, field: String::new(), reason }
}

#[cfg(test)]
mod tests;
