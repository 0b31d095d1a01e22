//! The door against every message in every version, whole, cut off, and lying about its counts.

mod broker_seed;

use std::fmt::Debug;

use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Message, Request, StrBytes};

use super::layout::sample::{Sample, sample, with_greatest};
use super::{FetchResponse, RequestHeader, *};
use crate::seeds;

/// Runs a generic check for each API that this client speaks.
macro_rules! each_api {
    ($check:ident) => {
        each_api!($check: ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
            OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest
            SyncGroupRequest DescribeGroupsRequest ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest
            DeleteTopicsRequest DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
            AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest TxnOffsetCommitRequest DescribeConfigsRequest
            SaslAuthenticateRequest CreatePartitionsRequest DeleteGroupsRequest IncrementalAlterConfigsRequest
            OffsetDeleteRequest DescribeClusterRequest ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest)
    };
    ($check:ident: $($request:ident)*) => {
        [$($check::<$request>()),*]
    };
}

/// Every version of both directions of an API: its layout, the version, a sample, and the door as a function.
fn each_message<R>(
    mut check: impl FnMut(&'static Layout, i16, &Sample, &dyn Fn(Vec<u8>) -> Result<Vec<u8>, DecodeError>),
) where
    R: Request + PartialEq + Debug,
    R::Response: PartialEq + Debug,
{
    let (request, response) = layout::of(R::KEY).unwrap();
    assert_eq!((request.min, request.max), (R::VERSIONS.min, R::VERSIONS.max));
    assert_eq!((response.min, response.max), (<R::Response>::VERSIONS.min, <R::Response>::VERSIONS.max));
    for (version, nulls) in (request.min..=request.max).flat_map(|version| [(version, false), (version, true)]) {
        check(request, version, &sample(request, version, nulls), &|bytes| {
            rewrite(decode_request::<R>(version, bytes.into())?, version)
        });
    }
    for (version, nulls) in (response.min..=response.max).flat_map(|version| [(version, false), (version, true)]) {
        check(response, version, &sample(response, version, nulls), &|bytes| {
            rewrite(decode_response::<R>(version, bytes.into())?, version)
        });
    }
}

fn rewrite<M: Encodable>(message: M, version: i16) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes, version).unwrap();
    Ok(bytes)
}

#[test]
fn every_version_of_every_message_passes_the_door_and_is_written_again_byte_by_byte() {
    fn check<R: Request + PartialEq + Debug>() -> usize
    where
        R::Response: PartialEq + Debug,
    {
        let mut messages = 0;
        each_message::<R>(|layout, version, sample, door| {
            let again = door(sample.bytes.clone()).unwrap();
            assert_eq!(again, sample.bytes, "{} v{version} {}", layout.message, layout.direction);
            messages += 1;
        });
        messages
    }
    let messages: usize = each_api!(check).iter().sum();
    assert!(messages > 600, "{messages} messages");
    assert_eq!(each_api!(check).len(), SUPPORTED.len());
}

#[test]
fn a_message_cut_off_at_any_byte_or_with_one_too_many_is_refused() {
    fn check<R: Request + PartialEq + Debug>()
    where
        R::Response: PartialEq + Debug,
    {
        each_message::<R>(|layout, version, sample, door| {
            for cut in 0..sample.bytes.len() {
                let error = door(sample.bytes[..cut].to_vec()).unwrap_err();
                assert!(!matches!(error.reason, Reason::Refused(_)), "cut at {cut}: {error}");
                assert_eq!((error.api, error.version, error.direction), (layout.message, version, layout.direction));
            }
            let longer = [&sample.bytes[..], &[0]].concat();
            assert_eq!(door(longer).unwrap_err().reason, Reason::LeftOver(1));
        });
    }
    each_api!(check);
}

#[test]
fn no_count_and_no_length_is_believed() {
    fn check<R: Request + PartialEq + Debug>()
    where
        R::Response: PartialEq + Debug,
    {
        each_message::<R>(|_, _, sample, door| {
            for (place, is_count) in
                sample.counts.iter().map(|at| (*at, true)).chain(sample.lengths.iter().map(|at| (*at, false)))
            {
                let error = door(with_greatest(sample, place)).unwrap_err();
                let named = !error.field.is_empty();
                let by_claim = match error.reason {
                    Reason::Elements { .. } => is_count,
                    // A longer length inside a tagged field shifts the end of that field as well.
                    Reason::Truncated { .. } | Reason::Length { .. } => true,
                    _ => false,
                };
                assert!(named && by_claim, "{error}");
            }
        });
    }
    each_api!(check);
}

#[test]
fn bytes_changed_at_random_never_panic() {
    fn check<R: Request + PartialEq + Debug>()
    where
        R::Response: PartialEq + Debug,
    {
        let mut random = fastrand::Rng::with_seed(7);
        each_message::<R>(|_, _, sample, door| {
            for _ in 0..50 {
                let mut bytes = sample.bytes.clone();
                for _ in 0..random.usize(1..4) {
                    if let Some(byte) = bytes.get_mut(random.usize(..sample.bytes.len().max(1))) {
                        *byte = *random.choice(&[0x00, 0x01, 0x7f, 0x80, 0xff, random.clone().u8(..)]).unwrap();
                    }
                }
                let _ = door(bytes);
            }
        });
    }
    each_api!(check);
}

#[test]
fn an_http_server_is_told_from_a_broker() {
    fn check<R: Request>()
    where
        R::Response: Debug,
    {
        let (_, layout) = layout::of(R::KEY).unwrap();
        let answer =
            Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400");
        for version in layout.min..=layout.max {
            let mut frame = answer.clone();
            let error = match decode_response_header(R::KEY, version, &mut frame) {
                Ok(_) => decode_response::<R>(version, frame).unwrap_err(),
                Err(error) => error,
            };
            assert_eq!((error.api, error.version), (layout.message, version), "{error}");
        }
    }
    each_api!(check);
}

#[test]
fn an_error_names_the_message_the_version_and_the_path_of_the_field() {
    let topic = |name: &'static str| {
        metadata_response::MetadataResponseTopic::default().with_name(Some(StrBytes::from_static_str(name).into()))
    };
    let response = MetadataResponse::default().with_topics(["a", "b", "c", "d"].map(topic).to_vec());
    let mut bytes = rewrite(response, 12).unwrap();
    // Behind the last count: four bytes of authorized operations, a byte of tagged fields for the topic and one for the
    // whole.
    let at = bytes.len() - 7;
    assert_eq!(bytes[at], 1);
    bytes.splice(at..=at, [0x80, 0x80, 0x80, 0x80, 0x08]);
    bytes.extend([0; 8]);
    assert_eq!(
        decode_response::<MetadataRequest>(12, bytes.into()).unwrap_err().to_string(),
        "Metadata v12 response: topics[3].partitions: claims 2147483647 elements, 14 bytes left"
    );
}

#[test]
fn the_door_refuses_what_the_layout_does_not_allow() {
    let bad_name: &'static [u8] = &[0, 0, 0, 1, 0, 1, 0xff, 0, 0];
    let cases: [(&str, Result<MetadataRequest, DecodeError>); 8] = [
        (
            "Metadata v9 request: tagged_fields: has the tag 2147483648, beyond 31 bits",
            decode_request(9, [0, 1, 1, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x08, 0].to_vec().into()),
        ),
        ("Metadata v14 request: version is outside 0 to 13", decode_request(14, Bytes::new())),
        ("Metadata v-1 request: version is outside 0 to 13", decode_request(-1, Bytes::new())),
        (
            "Metadata v1 request: topics: has the negative length -2",
            decode_request(1, [0xff, 0xff, 0xff, 0xfe].to_vec().into()),
        ),
        ("Metadata v4 request: topics[0].name: is not UTF-8", decode_request(4, bad_name.into())),
        ("Metadata v9 request: topics: has a varint longer than 32 bits", decode_request(9, [0xff; 9].to_vec().into())),
        (
            "Metadata v9 request: tagged_fields: claims 9 elements, 0 bytes left",
            decode_request(9, [0, 1, 1, 1, 9].to_vec().into()),
        ),
        (
            "Metadata v9 request: tagged_fields: claims 5 bytes, 1 left",
            decode_request(9, [0, 1, 1, 1, 1, 0, 5, 1].to_vec().into()),
        ),
    ];
    for (expected, result) in cases {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_known_tagged_field_uses_the_bytes_that_it_declares() {
    // Fetch v16 response, no topics, tag 0 (node_endpoints) of three bytes: no endpoints, and two bytes too many.
    let body = [&[0; 10][..], &[1, 1, 0, 3, 1, 0, 0]].concat();
    let expected = "Fetch v16 response: node_endpoints: tag 0 declares 3 bytes and uses 1";
    assert_eq!(decode_response::<FetchRequest>(16, body.clone().into()).unwrap_err().to_string(), expected);
    assert_eq!(FetchResponse::decode(16, &body.into()).unwrap_err().to_string(), expected);
}

#[test]
fn an_unsupported_version_is_read_in_the_format_of_version_0() {
    let body = Bytes::from_static(&[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3]);
    let response = decode_response::<ApiVersionsRequest>(4, body.clone()).unwrap();
    assert_eq!(response.error_code, 35);
    let range = &response.api_keys[0];
    assert_eq!((range.api_key, range.min_version, range.max_version), (18, 0, 3));
    // Some brokers answer the same error in the version that was asked for.
    let same = encode_response::<ApiVersionsRequest>(&response, 3, 1).unwrap().freeze().slice(4..);
    assert_eq!(decode_response::<ApiVersionsRequest>(3, same).unwrap(), response);
    // Any other error stands in the version that was asked for.
    let other = [&[0, 41], &body[2..]].concat();
    assert!(decode_response::<ApiVersionsRequest>(3, other.into()).is_err());
}

#[test]
fn a_request_and_its_response_cross_the_wire() {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("orders")]);
    let mut frame = encode_request(&request, 4, 17, "sidecar").unwrap().freeze();
    let header = decode_request_header(&mut frame).unwrap();
    let client_id = Some("sidecar".to_owned());
    assert_eq!(header, RequestHeader { api_key: 10, version: 4, correlation_id: 17, client_id });
    assert_eq!(decode_request::<FindCoordinatorRequest>(4, frame).unwrap(), request);

    let response = FindCoordinatorResponse::default().with_throttle_time_ms(9);
    let mut frame = encode_response::<FindCoordinatorRequest>(&response, 4, 17).unwrap().freeze();
    assert_eq!(decode_response_header(10, 4, &mut frame).unwrap(), 17);
    assert_eq!(decode_response::<FindCoordinatorRequest>(4, frame).unwrap(), response);
}

#[test]
fn a_field_that_the_version_lacks_is_not_dropped_silently() {
    let request = JoinGroupRequest::default().with_group_instance_id(Some(StrBytes::from_static_str("a")));
    let error = encode_request(&request, 4, 1, "c").unwrap_err().to_string();
    assert!(error.starts_with("JoinGroup v4 cannot be written: "), "{error}");
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_the_newest_version_of_every_message() {
    for (index, support) in SUPPORTED.iter().enumerate() {
        let (request, response) = layout::of(support.api as i16).unwrap();
        let chosen = [index as u8, (support.max - support.min) as u8];
        for (target, layout) in [("request", request), ("response", response)] {
            let seed = [&chosen[..], &sample(layout, support.max, false).bytes].concat();
            seeds::check(target, &format!("{:?}", support.api), &seed);
        }
    }
    let (_, fetch) = layout::of(ApiKey::Fetch as i16).unwrap();
    for version in [4, 11, 12, 18] {
        let seed = [&[version as u8 - 4][..], &sample(fetch, version, false).bytes].concat();
        seeds::check("fetch", &format!("v{version}"), &seed);
    }
    for (which, layout) in [&layout::SUBSCRIPTION, &layout::ASSIGNMENT].into_iter().enumerate() {
        for version in [0, 3] {
            let seed = [&[which as u8, 0, version as u8][..], &sample(layout, version, false).bytes].concat();
            seeds::check("group", &format!("{}-v{version}", layout.message), &seed);
        }
    }
}

#[test]
fn the_seeds_of_the_fuzz_targets_open_a_connection() {
    let versions = SUPPORTED.iter().map(|support| {
        let (key, min, max) = (support.api as i16, support.min, support.max);
        api_versions_response::ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
    });
    let versions = ApiVersionsResponse::default().with_api_keys(versions.collect());
    let unsupported = ApiVersionsResponse::default().with_error_code(ErrorCode::UNSUPPORTED_VERSION.0);
    let (_, metadata) = layout::of(ApiKey::Metadata as i16).unwrap();
    // A connection gives its negotiation the correlation ids below 3.
    let metadata = [&[0, 0, 0, 3, 0][..], &sample(metadata, 13, false).bytes].concat();
    let open = encode_response::<ApiVersionsRequest>(&versions, 4, 0).unwrap();
    let again = encode_response::<ApiVersionsRequest>(&unsupported, 0, 0).unwrap();
    let older = encode_response::<ApiVersionsRequest>(&versions, 0, 1).unwrap();
    let cases = [
        ("metadata", vec![&open[..], &metadata]),
        ("negotiated-again", vec![&again[..], &older, &metadata]),
        ("http", vec![b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
    ];
    for (name, frames) in cases {
        let mut seed = Vec::new();
        for frame in frames {
            let length = if name == "http" { Vec::new() } else { (frame.len() as u32).to_be_bytes().to_vec() };
            seed.extend(((length.len() + frame.len()) as u16).to_be_bytes());
            seed.extend(length);
            seed.extend_from_slice(frame);
        }
        seeds::check("frame", name, &seed);
    }
}
