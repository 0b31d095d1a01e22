//! Counts and lengths that lie, under a memory ceiling: what a stranger claims is never allocated.
//!
//! The counting allocator is that of the whole process, so the tests of this file take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kafka_protocol::{messages::*, protocol::Request};
use peak_alloc::PeakAlloc;
use protocol::{
    message::{self, FetchResponse, SUPPORTED},
    record::{BatchBuilder, BatchError, BatchHeader, Batches, Compression, RawBatch},
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::new(());

/// The ceiling of everything below that does not say another: far below any of the lies.
const CEILING: usize = 64 * 1024;

/// Held through each test.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it took at the most at one time.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = run();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

#[track_caller]
fn refused<T, E: std::fmt::Display>(ceiling: usize, read: impl FnOnce() -> Result<T, E>) -> E {
    let (result, peak) = peak_of(read);
    let error = result.err().expect("it must be refused");
    assert!(peak <= ceiling, "{peak} bytes were taken before it was refused: {error}");
    error
}

/// Bodies that claim the most at every place where a count or a length can stand first.
fn lies() -> Vec<Bytes> {
    let mut lies = vec![
        Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]),
        Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for zeros in 0..24 {
        for claim in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            lies.push([&vec![0; zeros][..], claim, &[0; 8]].concat().into());
        }
    }
    lies
}

#[test]
fn the_few_bytes_that_asked_for_hundreds_of_gigabytes_are_refused() {
    let _turn = turn();
    let cases = [(1, &[0x7f, 0xff, 0xff, 0xff][..]), (12, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f])];
    for (version, body) in cases {
        let error = refused(CEILING, || message::decode_response::<MetadataRequest>(version, Bytes::from_static(body)));
        assert!(error.to_string().starts_with(&format!("Metadata v{version} response: brokers: ")), "{error}");
    }
}

#[test]
fn no_message_of_any_api_allocates_what_it_claims() {
    let _turn = turn();
    fn check<R: Request>() -> usize {
        let support = SUPPORTED.iter().find(|support| support.api as i16 == R::KEY).expect("an API that is spoken");
        let mut refused = 0;
        for version in support.min..=support.max {
            for body in lies() {
                // Some of these bytes are a message with nothing in it; that costs no more either.
                let (request, peak) = peak_of(|| message::decode_request::<R>(version, body.clone()).is_ok());
                assert!(peak <= CEILING, "{:?} v{version} request: {peak} bytes for {body:?}", support.api);
                let (response, peak) = peak_of(|| message::decode_response::<R>(version, body.clone()).is_ok());
                assert!(peak <= CEILING, "{:?} v{version} response: {peak} bytes for {body:?}", support.api);
                refused += usize::from(!request) + usize::from(!response);
            }
        }
        refused
    }
    let refused = [
        check::<ProduceRequest>(),
        check::<FetchRequest>(),
        check::<ListOffsetsRequest>(),
        check::<MetadataRequest>(),
        check::<OffsetCommitRequest>(),
        check::<OffsetFetchRequest>(),
        check::<FindCoordinatorRequest>(),
        check::<JoinGroupRequest>(),
        check::<HeartbeatRequest>(),
        check::<LeaveGroupRequest>(),
        check::<SyncGroupRequest>(),
        check::<DescribeGroupsRequest>(),
        check::<ListGroupsRequest>(),
        check::<SaslHandshakeRequest>(),
        check::<ApiVersionsRequest>(),
        check::<CreateTopicsRequest>(),
        check::<DeleteTopicsRequest>(),
        check::<DeleteRecordsRequest>(),
        check::<InitProducerIdRequest>(),
        check::<OffsetForLeaderEpochRequest>(),
        check::<AddPartitionsToTxnRequest>(),
        check::<AddOffsetsToTxnRequest>(),
        check::<EndTxnRequest>(),
        check::<TxnOffsetCommitRequest>(),
        check::<DescribeConfigsRequest>(),
        check::<SaslAuthenticateRequest>(),
        check::<CreatePartitionsRequest>(),
        check::<DeleteGroupsRequest>(),
        check::<IncrementalAlterConfigsRequest>(),
        check::<OffsetDeleteRequest>(),
        check::<DescribeClusterRequest>(),
        check::<ConsumerGroupHeartbeatRequest>(),
        check::<ConsumerGroupDescribeRequest>(),
    ];
    assert_eq!(refused.len(), SUPPORTED.len());
    assert!(refused.iter().all(|refused| *refused > 0), "{refused:?}");
}

#[test]
fn a_fetch_answer_that_claims_two_billion_of_anything_is_refused() {
    let _turn = turn();
    for version in 4..=18 {
        for body in lies() {
            let (result, peak) = peak_of(|| FetchResponse::decode(version, &body));
            assert!(peak <= CEILING, "v{version}: {peak} bytes for {body:?}");
            assert!(result.is_err() || result.is_ok_and(|response| response.partitions.is_empty()));
        }
    }
}

#[test]
fn a_member_that_claims_two_billion_topics_is_refused() {
    let _turn = turn();
    for version in 0..4_u8 {
        let blob = Bytes::from(vec![0, version, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let error = refused(CEILING, || message::decode_subscription(&blob));
        assert!(error.to_string().contains("topics: claims 2147483647 elements"), "{error}");
        let error = refused(CEILING, || message::decode_assignment(&blob));
        assert!(error.to_string().contains("claims 2147483647 elements"), "{error}");
    }
}

/// A batch with a valid CRC whose header counts more than is there.
fn batch(compression: Compression, payload: &[u8], record_count: i32) -> Bytes {
    let header = BatchHeader {
        attributes: compression.code(),
        last_offset_delta: i32::MAX,
        record_count,
        ..BatchHeader::default()
    };
    RawBatch::assemble(header, payload).expect("small").bytes
}

fn payload(compression: Compression, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None, 0);
    for value in values {
        builder.append(0, None, Some(value), &[]).expect("room");
    }
    RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole").payload()
}

/// Reads all records and their headers.
fn read(bytes: Bytes, limit: usize) -> Result<(), BatchError> {
    let batch = Batches::new(bytes).next().expect("one")?;
    batch.verify_crc()?;
    batch
        .records(limit)?
        .iter()
        .try_for_each(|record| record.map(|record| assert_eq!(record.headers.iter().count(), record.headers.len())))
}

#[test]
fn a_batch_that_claims_two_billion_records_costs_what_is_there() {
    let _turn = turn();
    for compression in Compression::ALL {
        let bytes = batch(compression, &payload(compression, &[&b"value"[..]; 10]), i32::MAX);
        // The codecs' own windows are no claim of the batch's.
        let error = refused(512 * 1024, || read(bytes, 1 << 20));
        assert!(matches!(error, BatchError::Record { index: 10, count: i32::MAX, .. }), "{compression}: {error}");
    }
}

#[test]
fn a_record_that_claims_two_billion_headers_costs_what_is_there() {
    let _turn = turn();
    let record = [0x14, 0, 0, 0, 0x01, 0x01, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let bytes = batch(Compression::None, &record, 1);
    let error = refused(CEILING, || read(bytes, 1 << 20));
    assert!(matches!(error, BatchError::Record { index: 0, .. }), "{error}");
}

#[test]
fn a_bomb_of_a_gigabyte_stops_at_the_limit_in_every_codec() {
    let _turn = turn();
    const LIMIT: usize = 1 << 20;
    for compression in Compression::ALL.into_iter().skip(1) {
        // Packed by pieces, so that the bomb itself does not take the gigabyte: frames and streams may follow each other.
        let bomb = payload(compression, &[&vec![0; 8 << 20]]).repeat(128);
        let bytes = batch(compression, &bomb, 1);
        // Twice the limit (a buffer and its growth), and the codecs' own windows.
        let error = refused(4 * LIMIT, || read(bytes, LIMIT));
        assert!(matches!(error, BatchError::DecompressedTooLarge { limit: LIMIT, .. }), "{compression}: {error}");
    }
}

#[test]
fn a_snappy_or_zstd_header_alone_reserves_nothing() {
    let _turn = turn();
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1_u64 << 40).to_le_bytes(), &[0x09, 0, 0, b'x']].concat();
    for (compression, claim) in [(Compression::Snappy, &snappy[..]), (Compression::Zstd, &zstd)] {
        let bytes = batch(compression, claim, 1);
        let error = refused(CEILING, || read(bytes, usize::MAX));
        assert!(matches!(error, BatchError::Decompress { .. }), "{compression}: {error}");
    }
}
