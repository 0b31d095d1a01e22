//! The headers in front of every request and every response.
//!
//! Request header v1 is key, version, correlation id, client id; v2 adds tagged fields. Response header v0 is the
//! correlation id; v1 adds tagged fields. The client id never became a compact string, and an ApiVersions response has
//! header v0 in every version, so that a client can read it before it knows what the broker speaks (KIP-511).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;

use super::cursor::Cursor;
use super::error::{DecodeError, Direction, EncodeError, Reason};
use super::layout;

/// The header of a request, as a broker reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

/// Reads the header of a response to a request of this API and version, and leaves the body in `frame`.
///
/// # Errors
/// When the frame is too short, its tagged fields claim more bytes than there are, or the API is unknown. `frame` is
/// then untouched.
pub fn decode_response_header(api_key: i16, version: i16, frame: &mut Bytes) -> Result<i32, DecodeError> {
    let fault = |field, reason| fault(layout::name(api_key), version, Direction::Response, field, reason);
    let api = ApiKey::try_from(api_key).map_err(|()| fault("", Reason::UnknownApi(api_key)))?;
    let mut cursor = Cursor::new(frame);
    let correlation_id = cursor.i32().map_err(|reason| fault("correlation_id", reason))?;
    if api.response_header_version(version) >= 1 {
        skip_tagged(&mut cursor).map_err(|reason| fault("header.tagged_fields", reason))?;
    }
    let left = cursor.left();
    frame.advance(frame.len() - left);
    Ok(correlation_id)
}

/// Reads the header of a request, and leaves the body in `frame`.
///
/// # Errors
/// When the frame is too short or the API key is unknown. `frame` is then untouched.
pub fn decode_request_header(frame: &mut Bytes) -> Result<RequestHeader, DecodeError> {
    let mut cursor = Cursor::new(frame);
    let unknown = |field, reason| fault("RequestHeader", 1, Direction::Request, field, reason);
    let api_key = cursor.i16().map_err(|reason| unknown("api_key", reason))?;
    let version = cursor.i16().map_err(|reason| unknown("api_version", reason))?;
    let fault = |field, reason| fault(layout::name(api_key), version, Direction::Request, field, reason);
    let api = ApiKey::try_from(api_key).map_err(|()| fault("", Reason::UnknownApi(api_key)))?;
    let correlation_id = cursor.i32().map_err(|reason| fault("correlation_id", reason))?;
    let client_id = cursor.string(false).map_err(|reason| fault("client_id", reason))?.map(str::to_owned);
    if api.request_header_version(version) >= 2 {
        skip_tagged(&mut cursor).map_err(|reason| fault("header.tagged_fields", reason))?;
    }
    let left = cursor.left();
    frame.advance(frame.len() - left);
    Ok(RequestHeader { api_key, version, correlation_id, client_id })
}

/// The length of what [`put_request_header`] writes, at most.
pub(super) fn request_header_len(client_id: &str) -> usize {
    2 + 2 + 4 + 2 + client_id.len() + 1
}

pub(super) fn put_request_header(
    out: &mut BytesMut,
    api_key: i16,
    version: i16,
    header_version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<(), EncodeError> {
    let client_id_len = i16::try_from(client_id.len()).map_err(|_| EncodeError {
        api: layout::name(api_key),
        version,
        reason: format!("the client id has {} bytes, at most 32767 can be sent", client_id.len()),
    })?;
    out.put_i16(api_key);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_i16(client_id_len);
    out.put_slice(client_id.as_bytes());
    if header_version >= 2 {
        out.put_u8(0);
    }
    Ok(())
}

pub(super) fn put_response_header(out: &mut BytesMut, header_version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if header_version >= 1 {
        out.put_u8(0);
    }
}

fn skip_tagged(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    cursor.tagged(|_, _| Ok(()))
}

fn fault(api: &'static str, version: i16, direction: Direction, field: &str, reason: Reason) -> DecodeError {
    DecodeError { api, version, direction, field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_header_has_tagged_fields_in_flexible_versions_but_not_for_api_versions() {
        let cases: [(i16, i16, &'static [u8], &'static [u8]); 4] = [
            (3, 8, &[0, 0, 0, 7, 9], &[9]),
            (3, 9, &[0, 0, 0, 7, 0, 9], &[9]),
            (3, 9, &[0, 0, 0, 7, 1, 5, 2, 8, 8, 9], &[9]),
            (18, 4, &[0, 0, 0, 7, 9], &[9]),
        ];
        for (api, version, frame, body) in cases {
            let mut frame = Bytes::from_static(frame);
            assert_eq!(decode_response_header(api, version, &mut frame).unwrap(), 7);
            assert_eq!(frame, body, "{api} v{version}");
        }
    }

    #[test]
    fn a_header_that_lies_is_refused_and_its_frame_left_alone() {
        let cases: [(i16, &'static [u8], &str); 4] = [
            (3, &[0, 0, 7], "Metadata v9 response: correlation_id: needs 4 bytes, 3 left"),
            (
                3,
                &[0, 0, 0, 7, 200, 1, 1],
                "Metadata v9 response: header.tagged_fields: claims 200 elements, 1 bytes left",
            ),
            (3, &[0, 0, 0, 7, 1, 5, 99, 8], "Metadata v9 response: header.tagged_fields: claims 99 bytes, 1 left"),
            (999, &[0, 0, 0, 7], "unknown API v9 response: API key 999 is not one that this client speaks"),
        ];
        for (api, bytes, expected) in cases {
            let mut frame = Bytes::from_static(bytes);
            assert_eq!(decode_response_header(api, 9, &mut frame).unwrap_err().to_string(), expected);
            assert_eq!(frame, bytes);
        }
    }

    #[test]
    fn a_request_header_may_have_no_client_id() {
        let mut frame = Bytes::from_static(&[0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff]);
        let header = RequestHeader { api_key: 18, version: 0, correlation_id: 5, client_id: None };
        assert_eq!(decode_request_header(&mut frame).unwrap(), header);
        assert!(frame.is_empty());
    }

    #[test]
    fn the_header_of_an_api_versions_request_is_read_in_versions_still_to_come() {
        let mut frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0, 1, b'c', 0, 1, 2, 3]);
        assert_eq!(decode_request_header(&mut frame).unwrap().version, 99);
        assert_eq!(frame, &[1, 2, 3][..]);
    }

    #[test]
    fn a_request_header_cut_off_at_any_byte_is_refused() {
        let whole: &'static [u8] = &[0, 3, 0, 9, 0, 0, 0, 5, 0, 1, b'c', 1, 4, 1, 7];
        for cut in 0..whole.len() {
            let mut frame = Bytes::from_static(&whole[..cut]);
            assert!(decode_request_header(&mut frame).is_err(), "cut at {cut}");
        }
        assert!(decode_request_header(&mut Bytes::from_static(whole)).is_ok());
    }
}
