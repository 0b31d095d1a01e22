//! The two blobs inside JoinGroup and SyncGroup, by which the members of a classic consumer group speak to each other.
//!
//! The broker does not look into them: whatever another member of the group wrote arrives here. A blob begins with its
//! version; one that is newer than known is read in the newest known format and the bytes behind it are left alone, as
//! the protocol asks of every member (`ConsumerProtocolSubscription.json`: fields are only ever added at the end).

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

/// Reads what a member of the group was assigned. No bytes at all are an empty assignment: the leader of the group left
/// this member out.
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

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::consumer_protocol_assignment;
    use kafka_protocol::protocol::StrBytes;

    use super::super::layout::sample::{sample, with_greatest};
    use super::*;

    #[test]
    fn every_version_of_both_blobs_is_read_and_written_again_byte_by_byte() {
        for version in 0..=3 {
            for nulls in [false, true] {
                let blob = blob(version, sample(&SUBSCRIPTION, version, nulls).bytes);
                assert_eq!(encode_subscription(&decode_subscription(&blob).unwrap(), version).unwrap(), blob);
                let blob = self::blob(version, sample(&ASSIGNMENT, version, nulls).bytes);
                assert_eq!(encode_assignment(&decode_assignment(&blob).unwrap(), version).unwrap(), blob);
            }
        }
    }

    #[test]
    fn a_newer_version_is_read_as_the_newest_known() {
        let known = sample(&SUBSCRIPTION, 3, false).bytes;
        let newer = blob(9, [known.clone(), b"a field of tomorrow".to_vec()].concat());
        assert_eq!(decode_subscription(&newer).unwrap(), decode_subscription(&blob(3, known)).unwrap());
        let known = sample(&ASSIGNMENT, 3, false).bytes;
        let newer = blob(i16::MAX, [known.clone(), vec![1, 2, 3]].concat());
        assert_eq!(decode_assignment(&newer).unwrap(), decode_assignment(&blob(3, known)).unwrap());
    }

    #[test]
    fn no_claim_in_a_blob_is_believed() {
        for version in 0..=3 {
            for layout in [&SUBSCRIPTION, &ASSIGNMENT] {
                let sample = sample(layout, version, false);
                let cut = (0..sample.bytes.len()).map(|cut| sample.bytes[..cut].to_vec());
                let lies = sample.counts.iter().chain(&sample.lengths).map(|place| with_greatest(&sample, *place));
                for bytes in cut.chain(lies) {
                    let error = match layout.message {
                        "ConsumerProtocolSubscription" => decode_subscription(&blob(version, bytes)).map(drop),
                        _ => decode_assignment(&blob(version, bytes)).map(drop),
                    };
                    assert_eq!(error.unwrap_err().api, layout.message);
                }
            }
        }
    }

    #[test]
    fn a_blob_without_a_version_is_refused() {
        let cases: [(&'static [u8], &str); 3] = [
            (&[], "ConsumerProtocolSubscription v0 blob: version: needs 2 bytes, 0 left"),
            (&[0], "ConsumerProtocolSubscription v0 blob: version: needs 2 bytes, 1 left"),
            (&[0xff, 0xff, 0, 0, 0, 0], "ConsumerProtocolSubscription v-1 blob: version is outside 0 to 3"),
        ];
        for (blob, expected) in cases {
            assert_eq!(decode_subscription(&Bytes::from_static(blob)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_member_that_the_leader_left_out_has_an_empty_assignment() {
        assert_eq!(decode_assignment(&Bytes::new()).unwrap(), ConsumerProtocolAssignment::default());
    }

    /// Bytes as `ConsumerProtocol.serializeAssignment` of the Java client lays them out.
    #[test]
    fn an_assignment_is_laid_out_as_the_java_client_does() {
        let topic = consumer_protocol_assignment::TopicPartition::default()
            .with_topic(StrBytes::from_static_str("t").into())
            .with_partitions(vec![0, 2]);
        let assignment =
            ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]).with_user_data(None);
        let expected: &[u8] =
            &[0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(encode_assignment(&assignment, 1).unwrap(), expected);
    }

    fn blob(version: i16, body: Vec<u8>) -> Bytes {
        [&version.to_be_bytes()[..], &body].concat().into()
    }
}
