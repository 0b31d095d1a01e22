//! The request and response types used: the generated ones of `kafka-protocol`, behind one bounded-decode door.
//!
//! Whatever comes from a peer goes through [`decode_response`] (or, in a broker of our own, [`decode_request`]): a walk by
//! the message's layout first, then the generated decoder. It knows no sockets.

mod layout;
mod scan;

use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use layout::Direction;

/// The highest versions of Produce and Fetch that name topics by name.
const LAST_BY_NAME: i16 = 12;

/// Bytes of a peer that are no valid message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} v{version} {direction}: {reason}")]
pub struct DecodeError {
    message: &'static str,
    version: i16,
    direction: Direction,
    reason: String,
}

impl DecodeError {
    fn new(message: &'static str, version: i16, direction: Direction, reason: String) -> Self {
        Self { message, version, direction, reason }
    }

    pub(crate) fn correlation(expected: i32, answered: i32) -> Self {
        let reason = format!("correlation id {answered} where {expected} was due");
        Self::new("header", 0, Direction::Response, reason)
    }
}

/// A message of ours that cannot be written down.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

impl EncodeError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Kafka's name of an API.
pub fn api_name(key: i16) -> &'static str {
    layout::api(key).map_or("unknown API", |api| api.request.message)
}

/// The versions of an API that this client speaks; None if it does not speak it.
pub fn supported(key: i16) -> Option<RangeInclusive<i16>> {
    let api = layout::api(key)?;
    // Lower versions lack what we rely on, and no broker since 2.1 needs them.
    let min = match api.key {
        ApiKey::Metadata => 1,
        ApiKey::JoinGroup => 2,
        ApiKey::ListOffsets => 1,
        _ => api.request.min,
    };
    let max = match api.key {
        // 18 is for followers only.
        ApiKey::Fetch => 17,
        _ => api.request.max,
    };
    Some(min..=max)
}

/// The highest version that both sides speak. Where the broker tells no topic ids, Produce and Fetch stay with names.
pub fn negotiate(key: i16, broker_min: i16, broker_max: i16, topic_ids: bool) -> Option<i16> {
    let ours = supported(key)?;
    let by_name_only = !topic_ids && (key == ApiKey::Produce as i16 || key == ApiKey::Fetch as i16);
    let max = if by_name_only { (*ours.end()).min(LAST_BY_NAME) } else { *ours.end() }.min(broker_max);
    (max >= broker_min && max >= *ours.start()).then_some(max)
}

/// Header and body, without the length in front.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<BytesMut, EncodeError> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let size = request.compute_size(version).map_err(EncodeError::new)?;
    let mut bytes = BytesMut::with_capacity(size + client_id.len() + 16);
    header.encode(&mut bytes, R::header_version(version)).map_err(EncodeError::new)?;
    request.encode(&mut bytes, version).map_err(EncodeError::new)?;
    Ok(bytes)
}

/// Takes the response header off; returns the correlation id.
pub fn decode_response_header(frame: &mut Bytes, header_version: i16) -> Result<i32, DecodeError> {
    let error = |reason: String| DecodeError::new("header", header_version, Direction::Response, reason);
    if header_version >= 1 {
        check_header_tags(frame.get(4..).unwrap_or_default()).map_err(|wire| error(wire.to_string()))?;
    }
    ResponseHeader::decode(frame, header_version)
        .map(|header| header.correlation_id)
        .map_err(|source| error(source.to_string()))
}

/// Takes the request header off.
pub fn decode_request_header(frame: &mut Bytes) -> Result<RequestHeader, DecodeError> {
    let error = |reason: String| DecodeError::new("header", 0, Direction::Request, reason);
    let (key, version) = match frame.first_chunk::<4>() {
        Some(&[a, b, c, d]) => (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d])),
        None => return Err(error(format!("{} bytes are no header", frame.len()))),
    };
    let api = ApiKey::try_from(key).map_err(|()| error(format!("API key {key} is not known")))?;
    RequestHeader::decode(frame, api.request_header_version(version)).map_err(|source| error(source.to_string()))
}

fn check_header_tags(bytes: &[u8]) -> Result<(), crate::wire::WireError> {
    let mut reader = crate::wire::Reader::new(bytes);
    for _ in 0..reader.uvarint("tagged fields")? {
        reader.uvarint("tag")?;
        let size = reader.uvarint("tag size")? as usize;
        reader.bytes(size, "tagged field")?;
    }
    Ok(())
}

/// The body of a response in `version`; bytes left over are an error.
pub fn decode_response<R: Request>(version: i16, body: Bytes) -> Result<R::Response, DecodeError> {
    let layout = layout::api(R::KEY).map(|api| api.response);
    decode::<R::Response>(layout, version, body)
}

/// The body of a request in `version`.
pub fn decode_request<R: Request>(version: i16, body: Bytes) -> Result<R, DecodeError> {
    decode::<R>(layout::api(R::KEY).map(|api| api.request), version, body)
}

fn decode<T: Decodable>(layout: Option<&layout::Layout>, version: i16, mut body: Bytes) -> Result<T, DecodeError> {
    let Some(layout) = layout else {
        return Err(DecodeError::new("message", version, Direction::Response, "its API is not spoken here".to_owned()));
    };
    scan::scan(layout, version, &body)?;
    T::decode(&mut body, version)
        .map_err(|error| DecodeError::new(layout.message, version, layout.direction, error.to_string()))
}

/// A member's subscription inside JoinGroup. A version newer than ours is read as ours: fields are only ever appended.
pub fn decode_subscription(blob: Bytes) -> Result<(i16, ConsumerProtocolSubscription), DecodeError> {
    decode_blob(&layout::SUBSCRIPTION, blob)
}

/// A member's assignment inside SyncGroup.
pub fn decode_assignment(blob: Bytes) -> Result<ConsumerProtocolAssignment, DecodeError> {
    decode_blob(&layout::ASSIGNMENT, blob).map(|(_, assignment)| assignment)
}

fn decode_blob<T: Decodable>(layout: &layout::Layout, mut blob: Bytes) -> Result<(i16, T), DecodeError> {
    let error = |version, reason| DecodeError::new(layout.message, version, layout.direction, reason);
    let claimed = blob.try_get_i16().map_err(|_| error(0, "no version".to_owned()))?;
    let version = claimed.clamp(0, layout.max);
    // What a newer version appends is left alone.
    match scan::scan(layout, version, &blob) {
        Err(fault) if claimed == version => return Err(fault),
        Err(fault) if !fault.reason.ends_with("bytes after its end") => return Err(fault),
        _ => {}
    }
    let decoded = T::decode(&mut blob, version).map_err(|source| error(version, source.to_string()))?;
    Ok((claimed, decoded))
}

/// A blob in `version`, behind its version number.
pub fn encode_blob<T: Encodable>(version: i16, blob: &T) -> Result<Bytes, EncodeError> {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&version.to_be_bytes());
    blob.encode(&mut bytes, version).map_err(EncodeError::new)?;
    Ok(bytes.freeze())
}
