//! Every API that the client speaks, chosen by a number: its messages through the door and back.

use std::fmt::Debug;

use bytes::Bytes;
use kafka_protocol::{messages::*, protocol::Request};
use protocol::message::{self, SUPPORTED};

/// How many times its own bytes a message may take: an unknown tagged field of two bytes becomes a map of its own.
const TIMES: usize = 256;

/// A message read, written again and read again.
type Check = fn(i16, &[u8]);

macro_rules! checks {
    ($($request:ident)*) => {
        /// By API key: the check of its request and that of its response.
        const CHECKS: &[(i16, Check, Check)] = &[$((<$request as Request>::KEY, request::<$request>, response::<$request>)),*];
    };
}

checks! {
    ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
    FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest
    ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
    InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest
    TxnOffsetCommitRequest DescribeConfigsRequest SaslAuthenticateRequest CreatePartitionsRequest DeleteGroupsRequest
    IncrementalAlterConfigsRequest OffsetDeleteRequest DescribeClusterRequest ConsumerGroupHeartbeatRequest
    ConsumerGroupDescribeRequest
}

/// The request that two numbers choose: API and version.
pub fn check_request([api, version]: [u8; 2], body: &[u8]) {
    let (version, check, _) = choose(api, version);
    check(version, body);
}

/// The response that two numbers choose: API and version.
pub fn check_response([api, version]: [u8; 2], body: &[u8]) {
    let (version, _, check) = choose(api, version);
    check(version, body);
}

fn choose(api: u8, version: u8) -> (i16, Check, Check) {
    let support = &SUPPORTED[usize::from(api) % SUPPORTED.len()];
    let version = support.min + i16::from(version) % (support.max - support.min + 1);
    let key = support.api as i16;
    let (_, request, response) = CHECKS.iter().find(|row| row.0 == key).expect("every API that is spoken has its row");
    (version, *request, *response)
}

fn request<R: Request + PartialEq + Debug>(version: i16, body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let Ok(read) = crate::bounded(&body, TIMES, || message::decode_request::<R>(version, body.clone())) else { return };
    let mut frame = message::encode_request(&read, version, 7, "fuzz").expect("what was read can be written").freeze();
    let header = message::decode_request_header(&mut frame).expect("our own header");
    assert_eq!((header.api_key, header.version, header.correlation_id), (R::KEY, version, 7));
    assert_eq!(message::decode_request::<R>(version, frame).expect("our own bytes"), read);
}

fn response<R: Request>(version: i16, body: &[u8])
where
    R::Response: PartialEq + Debug,
{
    let body = Bytes::copy_from_slice(body);
    let Ok(read) = crate::bounded(&body, TIMES, || message::decode_response::<R>(version, body.clone())) else {
        return;
    };
    // Such an answer to ApiVersions was read in version 0 and cannot be told from one when it is written in another.
    if R::KEY == ApiKey::ApiVersions as i16 && body.starts_with(&[0, 35]) {
        return;
    }
    let mut frame = message::encode_response::<R>(&read, version, 7).expect("what was read can be written").freeze();
    assert_eq!(message::decode_response_header(R::KEY, version, &mut frame), Ok(7));
    assert_eq!(message::decode_response::<R>(version, frame).expect("our own bytes"), read);
}
