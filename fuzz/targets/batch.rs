//! The records field of a fetch answer: batches, markers, records, and the batches built of them again.
#![no_main]

use bytes::Bytes;
use protocol::record::{AbortedTransactions, BatchBuilder, Batches, RawBatch, Records};

/// What one batch may become.
const LIMIT: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let mut aborted = AbortedTransactions::new([(77, 0), (1, 3)]);
    let mut batches = Batches::new(bytes.clone());
    let mut walked = 0;
    for batch in batches.by_ref() {
        let Ok(batch) = batch else { return };
        walked += batch.bytes.len();
        assert!(batch.header.next_offset() > batch.header.base_offset);
        let _ = batch.verify_crc();
        let _ = aborted.skips(&batch);
        let read = fuzz::bounded(&batch.bytes, 0, || {
            // What the limit allows is allowed twice: in the buffer of the thread, and in the result.
            batch.records(LIMIT / 4)
        });
        if let Ok(records) = read {
            build_again(&batch, &records);
        }
    }
    assert_eq!(walked + batches.remaining(), bytes.len());
});

/// Records that can be read can be written, and are the same when they are read again.
fn build_again(batch: &RawBatch, records: &Records) {
    let Ok(compression) = batch.header.compression() else { return };
    let mut builder = BatchBuilder::new(compression, None, 0);
    let mut count = 0;
    for record in records {
        let Ok(record) = record else { break };
        assert!(record.offset >= batch.header.base_offset && record.offset < batch.header.next_offset());
        if builder.append_record(&record).is_err() {
            break;
        }
        count += 1;
    }
    let Ok(sealed) = builder.seal() else {
        assert_eq!(count, 0, "some records cannot be sealed");
        return;
    };
    let again = RawBatch::try_from(sealed.bytes()).expect("our own bytes");
    again.verify_crc().expect("our own checksum");
    let again = again.records(LIMIT).expect("our own records");
    let mut pairs = records.iter().take(count).zip(again.iter());
    assert!(pairs.all(|(one, other)| {
        let (one, other) = (one.expect("read before"), other.expect("our own record"));
        one.timestamp == other.timestamp
            && (one.key, one.value) == (other.key, other.value)
            && one.headers.iter().eq(other.headers.iter())
    }));
    assert_eq!(again.iter().count(), count);
}
