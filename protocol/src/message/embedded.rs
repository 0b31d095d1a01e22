//! The two blobs inside JoinGroup and SyncGroup, by which the members of a classic consumer group speak to each other.
//!
//! The broker does not look into them: whatever another member of the group wrote arrives here. A blob begins with its version; one
//! that is newer than known is read in the newest known format and the bytes behind it are left alone, as the protocol asks of every
//! member (`ConsumerProtocolSubscription.json`: fields are only ever added at the end).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::error::{DecodeError, EncodeError, Reason};
use super::layout::{ASSIGNMENT, Layout, SUBSCRIPTION};
use super::scan;

/// Reads what a member of the group subscribes to.
///
/// # Errors
/// When the bytes are not a subscription.
pub fn decode_subscription(blob: &Bytes) -> Result<ConsumerProtocolSubscription, DecodeError> {
    decode(&SUBSCRIPTION, blob)
}

/// Reads what a member of the group was assigned. No bytes at all are an empty assignment: the leader of the group left this member out.
///
/// # Errors
/// When the bytes are not an assignment.
pub fn decode_assignment(blob: &Bytes) -> Result<ConsumerProtocolAssignment, DecodeError> {
    if blob.is_empty() { Ok(ConsumerProtocolAssignment::default()) } else { decode(&ASSIGNMENT, blob) }
}

/// Writes a subscription, its version first.
///
/// # Errors
/// When a field is set that `version` lacks, or a string is too long.
pub fn encode_subscription(subscription: &ConsumerProtocolSubscription, version: i16) -> Result<Bytes, EncodeError> {
    encode(&SUBSCRIPTION, subscription, version)
}

/// Writes an assignment, its version first.
///
/// # Errors
/// When a string is too long.
pub fn encode_assignment(assignment: &ConsumerProtocolAssignment, version: i16) -> Result<Bytes, EncodeError> {
    encode(&ASSIGNMENT, assignment, version)
}

fn decode<T: Decodable>(layout: &'static Layout, blob: &Bytes) -> Result<T, DecodeError> {
    let version = blob.first_chunk().map(|version| i16::from_be_bytes(*version)).ok_or_else(|| {
        let fault = scan::whole(layout, layout.min, Reason::Truncated { need: 2, left: blob.len() });
        DecodeError { field: "version".to_owned(), ..fault }
    })?;
    let mut body = blob.clone();
    body.advance(2);
    let version = version.min(layout.max);
    scan::scan_prefix(layout, version, &body)?;
    T::decode(&mut body, version).map_err(|error| scan::whole(layout, version, Reason::Refused(format!("{error:#}"))))
}

fn encode<T: Encodable>(layout: &Layout, message: &T, version: i16) -> Result<Bytes, EncodeError> {
    let fault = |reason| EncodeError { api: layout.message, version, reason };
    let mut out = BytesMut::new();
    out.put_i16(version);
    message.encode(&mut out, version).map_err(|error| fault(format!("{error:#}")))?;
    Ok(out.freeze())
}
