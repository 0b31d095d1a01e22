//! Each codec with bytes that a stranger calls compressed, and with what it compressed itself: which, bytes.
#![no_main]

use bytes::Bytes;
use protocol::record::{BatchBuilder, BatchError, BatchHeader, Compression, RawBatch};

/// What the bytes may become.
const LIMIT: usize = 128 * 1024;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some(([which], bytes)) = fuzz::choices(input) else { return };
    let compression = Compression::ALL[1 + usize::from(which) % 4];
    let header = BatchHeader { attributes: compression.code(), record_count: 1, ..BatchHeader::default() };
    let batch = RawBatch::assemble(header, bytes).expect("small");
    match fuzz::bounded(bytes, 2, || batch.records(LIMIT)) {
        Ok(records) => assert!(records.len_bytes() <= LIMIT),
        Err(BatchError::DecompressedTooLarge { limit, .. }) => assert_eq!(limit, LIMIT),
        Err(BatchError::Decompress { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let mut builder = BatchBuilder::new(compression, None, bytes.len());
    builder.append(0, None, Some(bytes), &[]).expect("small");
    let sealed = RawBatch::try_from(builder.seal().expect("a record").bytes()).expect("our own bytes");
    let records = sealed.records(bytes.len() + 64).expect("our own records");
    let record = records.iter().next().expect("one").expect("our own record");
    assert_eq!(record.value, Some(&Bytes::copy_from_slice(bytes)[..]));
});
