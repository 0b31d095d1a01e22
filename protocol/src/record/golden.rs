//! Batches that others wrote: a codec that only meets itself is untested. How they were made: `golden/README.md`.

use bytes::Bytes;
use kafka_protocol::records as theirs;

use super::{
    AbortedTransactions, BatchBuilder, BatchError, Batches, Compression, ControlType, RawBatch, RecordView,
    codec::{self, CodecError},
};

macro_rules! golden {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!("golden/", $name)))
    };
}

/// All files that hold batches.
pub(super) fn all() -> Vec<(&'static str, Bytes)> {
    vec![
        ("none", golden!("java-none.bin")),
        ("gzip", golden!("java-gzip.bin")),
        ("snappy", golden!("java-snappy.bin")),
        ("lz4", golden!("java-lz4.bin")),
        ("zstd", golden!("java-zstd.bin")),
        ("log append time", golden!("java-log-append-time.bin")),
        ("transactions", golden!("java-transactions.bin")),
        ("compacted", golden!("java-compacted.bin")),
        ("magic 0", golden!("java-magic-0.bin")),
        ("magic 1", golden!("java-magic-1.bin")),
    ]
}

type Header = (&'static str, Option<&'static str>);

/// A record as the small batches were given it: timestamp, key, value, headers.
type Given = (i64, Option<&'static str>, Option<String>, Vec<Header>);

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl From<RecordView<'_>> for Row {
    fn from(record: RecordView<'_>) -> Self {
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        }
    }
}

/// What every small batch was given.
fn small() -> Vec<Given> {
    let text = |text: &str| Some(text.to_owned());
    vec![
        (1005, Some("key"), text("value"), vec![]),
        (1000, Some("tombstone"), None, vec![]),
        (1001, Some(""), text(""), vec![]),
        (1009, None, text("headers"), vec![("a", Some("1")), ("ä", None), ("a", Some("")), ("", Some("2"))]),
        (1002, None, None, vec![]),
        (1_700_000_000_000, Some("late"), Some("x".repeat(200)), vec![]),
    ]
}

fn small_rows(base_offset: i64) -> Vec<Row> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    (base_offset..)
        .zip(small())
        .map(|(offset, (timestamp, key, value, headers))| Row {
            offset,
            timestamp,
            key: key.map(bytes),
            value: value.map(String::into_bytes),
            headers: headers.into_iter().map(|(name, value)| (bytes(name), value.map(bytes))).collect(),
        })
        .collect()
}

fn large_value(i: i64) -> String {
    format!("record {i}, ").repeat(400)
}

fn batches(bytes: Bytes) -> Vec<RawBatch> {
    let batches: Vec<RawBatch> = Batches::new(bytes).map(|batch| batch.expect("valid")).collect();
    for batch in &batches {
        assert_eq!(batch.verify_crc(), Ok(()));
    }
    batches
}

fn rows(batch: &RawBatch) -> Vec<Row> {
    batch.records(1 << 20).expect("decompresses").iter().map(|record| record.expect("valid").into()).collect()
}

#[test]
fn small_batches_of_java_are_read_in_every_codec() {
    for (bytes, compression) in [
        (golden!("java-none.bin"), Compression::None),
        (golden!("java-gzip.bin"), Compression::Gzip),
        (golden!("java-snappy.bin"), Compression::Snappy),
        (golden!("java-lz4.bin"), Compression::Lz4),
        (golden!("java-zstd.bin"), Compression::Zstd),
    ] {
        let read = batches(bytes);
        assert_eq!(read.len(), 1);
        let header = &read[0].header;
        assert_eq!(header.compression(), Ok(compression));
        assert_eq!((header.base_offset, header.next_offset(), header.record_count), (100, 106, 6));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1005, 1_700_000_000_000));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 3, 1234));
        assert_eq!(header.partition_leader_epoch, 5);
        assert!(!header.is_transactional() && !header.is_control() && !header.is_log_append_time());
        assert_eq!(rows(&read[0]), small_rows(100), "{compression}");
    }
}

#[test]
fn large_batches_of_java_and_python_are_read_in_every_codec() {
    // Several blocks in each codec.
    let repeated: &[(&str, Option<&[u8]>)] = &[("h", Some(&[0xff, 0])), ("h", Some(&[]))];
    for (bytes, base_offset, headers) in [
        (golden!("java-large-gzip.bin"), 100, &[][..]),
        (golden!("java-large-snappy.bin"), 100, &[]),
        (golden!("java-large-lz4.bin"), 100, &[]),
        (golden!("java-large-zstd.bin"), 100, &[]),
        (golden!("python-gzip.bin"), 0, repeated),
        (golden!("python-lz4.bin"), 0, repeated),
        (golden!("python-zstd.bin"), 0, repeated),
    ] {
        let read = batches(bytes);
        assert_eq!(read.len(), 1);
        let batch = &read[0];
        let compression = batch.header.compression().expect("known");
        let records = batch.records(1 << 20).expect("decompresses");
        assert_eq!(records.iter().count(), 60);
        for (i, record) in (0..).zip(&records) {
            let record = record.expect("valid");
            assert_eq!((record.offset, record.timestamp), (base_offset + i, 2000 + i), "{compression}");
            assert_eq!(record.key, Some(format!("k{i}").as_bytes()));
            assert_eq!(record.value, Some(large_value(i).as_bytes()));
            let seen: Vec<_> = record.headers.iter().collect();
            let expected: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
            assert_eq!(seen, expected);
        }
        let size = records.len_bytes();
        assert!(batch.records(size).is_ok());
        assert_eq!(
            batch.records(size - 1).map(|_| ()),
            Err(BatchError::DecompressedTooLarge { offset: base_offset, compression, limit: size - 1 })
        );
    }
}

#[test]
fn frames_of_other_shapes_are_read() {
    let plain: String = (0..60).map(large_value).collect();
    for (compression, frame) in [
        (Compression::Lz4, golden!("python-linked.lz4")), // linked blocks, content size, every checksum
        (Compression::Zstd, golden!("python-level-19.zst")), // an eight-MiB window, no content size, a checksum
    ] {
        assert_eq!(
            codec::decompress(compression, &frame, plain.len()),
            Ok(Bytes::from(plain.clone())),
            "{compression}"
        );
        assert_eq!(
            codec::decompress(compression, &frame, plain.len() - 1),
            Err(CodecError::TooLarge { limit: plain.len() - 1 }),
            "{compression}"
        );
    }
}

#[test]
fn on_log_append_time_every_record_has_the_time_of_the_batch() {
    let read = batches(golden!("java-log-append-time.bin"));
    assert!(read[0].header.is_log_append_time());
    let expected: Vec<Row> = small_rows(100).into_iter().map(|row| Row { timestamp: 999_000, ..row }).collect();
    assert_eq!(rows(&read[0]), expected);
}

#[test]
fn after_compaction_the_offsets_have_gaps_and_the_next_offset_has_none() {
    let read = batches(golden!("java-compacted.bin"));
    assert_eq!(read.len(), 2);
    // The broker set a delete horizon, which moves the base timestamp; the records keep their times (KIP-534).
    assert_eq!((read[0].header.attributes & 0x40, read[0].header.base_timestamp), (0x40, 0));
    let expected: Vec<Row> = small_rows(100).into_iter().filter(|row| row.offset < 105 && row.offset != 102).collect();
    assert_eq!(rows(&read[0]), expected);
    assert_eq!(read[0].header.next_offset(), 106);
    assert_eq!((read[1].header.record_count, read[1].header.base_offset), (0, 106));
    assert_eq!(rows(&read[1]), []);
    assert_eq!(read[1].header.next_offset(), 112);
}

#[test]
fn an_aborted_transaction_is_left_out_and_a_committed_one_is_not() {
    let read = batches(golden!("java-transactions.bin"));
    let kinds: Vec<_> = read.iter().map(|batch| batch.control_type().ok()).collect();
    assert_eq!(kinds, [None, Some(ControlType::Abort), None, Some(ControlType::Commit)]);
    let mut aborted = AbortedTransactions::new([(77, 100)]);
    let seen: Vec<Row> = read.iter().filter(|batch| !aborted.skips(batch).expect("readable")).flat_map(rows).collect();
    assert_eq!(seen, small_rows(107));
    assert_eq!(read[3].header.next_offset(), 114);
}

#[test]
fn messages_of_the_old_formats_are_named() {
    for (bytes, magic) in [(golden!("java-magic-0.bin"), 0), (golden!("java-magic-1.bin"), 1)] {
        let read: Vec<_> = Batches::new(bytes).collect();
        assert_eq!(read, [Err(BatchError::UnsupportedMagic { offset: 42, magic })]);
    }
}

fn build(compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, None, 0);
    for (timestamp, key, value, headers) in small() {
        let headers: Vec<(Bytes, Option<Bytes>)> =
            headers.iter().map(|(name, value)| (Bytes::from(*name), value.map(Bytes::from))).collect();
        builder.append(timestamp, key.map(str::as_bytes), value.as_deref().map(str::as_bytes), &headers).expect("room");
    }
    builder
}

#[test]
fn what_is_built_is_what_java_builds_byte_for_byte() {
    let mut sealed = build(Compression::None).seal().expect("some");
    sealed.stamp(77, 3, 1234);
    let java = golden!("java-none.bin");
    // Java's builder was told base offset and leader epoch, which a producer leaves to the broker; the CRC covers neither.
    let broker = RawBatch::try_from(java.clone()).expect("whole");
    let ours = RawBatch::try_from(sealed.bytes()).expect("whole");
    assert_eq!(ours.header.crc, broker.header.crc);
    assert_eq!(ours.bytes[16..], java[16..]);
    assert_eq!(ours.bytes[8..12], java[8..12]);
}

#[test]
fn the_generated_crate_reads_what_is_built_and_the_other_way_round() {
    let mut builder = BatchBuilder::new(Compression::None, None, 0);
    for (timestamp, key, value, headers) in small() {
        // Its headers are a map: no repeats.
        let headers: Vec<(Bytes, Option<Bytes>)> =
            headers.iter().skip(1).map(|(name, value)| (Bytes::from(*name), value.map(Bytes::from))).collect();
        builder.append(timestamp, key.map(str::as_bytes), value.as_deref().map(str::as_bytes), &headers).expect("room");
    }
    let mut sealed = builder.seal().expect("some");
    sealed.stamp(77, 3, 1234);
    let ours = RawBatch::try_from(sealed.bytes()).expect("whole");

    let decoded = theirs::RecordBatchDecoder::decode(&mut sealed.bytes()).expect("they read it").records;
    let seen: Vec<Row> = decoded
        .iter()
        .map(|record| Row {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_ref().map(|key| key.to_vec()),
            value: record.value.as_ref().map(|value| value.to_vec()),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_ref().map(|value| value.to_vec())))
                .collect(),
        })
        .collect();
    assert_eq!(seen, rows(&ours));
    assert!(decoded.iter().all(|record| (record.producer_id, record.producer_epoch) == (77, 3)));

    let mut encoded = bytes::BytesMut::new();
    let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    theirs::RecordBatchEncoder::encode(&mut encoded, &decoded, &options).expect("they write it");
    let back = batches(encoded.freeze());
    assert_eq!(back.iter().flat_map(rows).collect::<Vec<Row>>(), seen);
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_batches_of_java() {
    for (name, bytes) in all() {
        crate::seeds::check("batch", &name.replace(' ', "-"), &bytes);
        for batch in Batches::new(bytes).flatten() {
            let which = Compression::ALL.iter().position(|codec| Ok(*codec) == batch.header.compression());
            if let Some(which @ 1..) = which {
                let seed = [&[which as u8 - 1][..], &batch.payload()].concat();
                crate::seeds::check("codec", name, &seed);
            }
        }
    }
    for (name, which, frame) in
        [("lz4-linked", 2, golden!("python-linked.lz4")), ("zstd-level-19", 3, golden!("python-level-19.zst"))]
    {
        crate::seeds::check("codec", name, &[&[which][..], &frame].concat());
    }
}
