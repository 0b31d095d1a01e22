//! Batches that lie: whatever the bytes say, reading them ends with an error or with records, never with a panic, and
//! never with more bytes than were allowed.

use bytes::Bytes;
use proptest::prelude::*;

use super::{AbortedTransactions, BatchBuilder, BatchError, BatchHeader, Batches, Compression, RawBatch, golden};

const LIMIT: usize = 1 << 16;

/// Reads everything that can be read, without asking the CRC first. Returns how many records came out.
fn read_all(bytes: Bytes) -> usize {
    let mut records_seen = 0;
    let mut aborted = AbortedTransactions::new([(77, 0)]);
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else { break };
        let _ = batch.verify_crc();
        let _ = aborted.skips(&batch);
        let _ = batch.control_type();
        assert!(batch.header.next_offset() > batch.header.base_offset);
        let Ok(records) = batch.records(LIMIT) else { continue };
        let limit = if batch.header.compression() == Ok(Compression::None) { batch.bytes.len() } else { LIMIT };
        assert!(records.len_bytes() <= limit);
        let most = records.iter().size_hint().1.expect("bounded by the bytes");
        let mut seen = 0;
        for record in records.iter() {
            let Ok(record) = record else { break };
            seen += 1;
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
        assert!(seen <= most && most <= records.len_bytes() / 7 + 1);
        records_seen += seen;
    }
    records_seen
}

#[test]
fn cut_at_every_byte_nothing_panics_and_no_record_is_made_up() {
    for (name, whole) in golden::all() {
        let all = read_all(whole.clone());
        for cut in 0..whole.len() {
            assert!(read_all(whole.slice(..cut)) <= all, "{name} cut at {cut}");
        }
    }
}

#[test]
fn with_every_byte_changed_nothing_panics() {
    for (_, whole) in golden::all() {
        for at in 0..whole.len() {
            for changed in [0x00, 0x01, 0x7f, 0x80, 0xff, whole[at] ^ 0x01, whole[at] ^ 0x80] {
                let mut bytes = whole.to_vec();
                bytes[at] = changed;
                read_all(bytes.into());
            }
        }
    }
}

#[test]
fn a_record_count_of_two_billion_yields_the_records_that_are_there() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, None, 0);
        for i in 0..10 {
            builder.append(i, None, Some(b"value"), &[]).expect("room");
        }
        let good = RawBatch::try_from(builder.seal().expect("some").bytes()).expect("whole");
        let header = BatchHeader { record_count: i32::MAX, ..good.header };
        let bad = RawBatch::assemble(header, &good.payload()).expect("small");
        let records = bad.records(LIMIT).expect("decompresses");
        assert!(records.iter().size_hint().1.expect("bounded") < 100);
        let results: Vec<_> = records.iter().collect();
        assert_eq!(results.len(), 11, "{compression}");
        assert!(matches!(results[10], Err(BatchError::Record { index: 10, count: i32::MAX, .. })), "{compression}");
    }
}

#[test]
fn a_bomb_in_a_batch_is_stopped_at_the_limit_and_named() {
    let value = vec![0_u8; 8 << 20];
    for compression in Compression::ALL.into_iter().skip(1) {
        let mut builder = BatchBuilder::new(compression, None, 0);
        builder.append(0, None, Some(&value), &[]).expect("room");
        let sealed = builder.seal().expect("one");
        let batch = RawBatch::try_from(sealed.bytes()).expect("whole");
        let error = batch.records(LIMIT).map(|_| ()).expect_err("too large");
        assert_eq!(error, BatchError::DecompressedTooLarge { offset: 0, compression, limit: LIMIT });
        assert_eq!(
            error.to_string(),
            format!("batch at offset 0: {compression}: decompresses to more than 65536 bytes")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn junk_behind_a_good_header_does_not_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..400),
        attributes in 0..0x80_i16,
        record_count in prop_oneof![Just(1), Just(i32::MAX), 0..20_i32],
        base_offset: i64,
        base_timestamp: i64,
    ) {
        let header = BatchHeader { attributes, record_count, base_offset, base_timestamp, producer_id: 77, ..BatchHeader::default() };
        read_all(RawBatch::assemble(header, &junk).expect("small").bytes);
    }

    #[test]
    fn junk_is_not_a_batch(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(junk.into());
    }
}
