//! The bytes around a message: a request with its header, an answer without.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{ApiVersions, Frame, RequestErrorKind};
use crate::message::{self, DecodeError, Direction, EncodeError, Reason};

/// It stands behind API key and version in every request header.
pub(super) fn set_correlation_id(request: &mut BytesMut, correlation_id: i32) {
    if let Some(place) = request.get_mut(4..8) {
        place.copy_from_slice(&correlation_id.to_be_bytes());
    }
}

/// The body behind a response header; whose answer it is was looked at before.
pub(super) fn strip_header(mut frame: Bytes, api_key: i16, version: i16) -> Result<Bytes, DecodeError> {
    message::decode_response_header(api_key, version, &mut frame)?;
    Ok(frame)
}

pub(super) fn foreign(api_key: i16, version: i16, correlation_id: i32, answered: i32) -> DecodeError {
    DecodeError {
        api: message::api_name(api_key),
        version,
        direction: Direction::Response,
        field: "correlation_id".to_owned(),
        reason: Reason::Correlation { expected: correlation_id, answered },
    }
}

/// The bytes of a request in the highest common version, which `encode` writes. `topic_ids`: the ids of all its topics are
/// known.
pub(crate) fn frame(
    versions: &ApiVersions,
    api_key: i16,
    address: &Arc<str>,
    expects_answer: bool,
    topic_ids: bool,
    encode: impl FnOnce(i16) -> Result<BytesMut, EncodeError>,
) -> Result<Frame, RequestErrorKind> {
    let api = message::api_name(api_key);
    let version = versions
        .pick(api_key, topic_ids)
        .ok_or_else(|| RequestErrorKind::UnsupportedVersion { api, address: address.clone() })?;
    let bytes = encode(version).map_err(|error| RequestErrorKind::Encode { api, cause: error.reason.into() })?;
    Ok(Frame { api_key, version, bytes, expects_answer })
}
