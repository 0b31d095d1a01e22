//! A body of `POST /producers/{topic}`.
#![no_main]

use kafka_sidecar::door;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    match fuzz::bounded(body, 256, || door::produce_body(body)) {
        Ok((records, fit)) => assert!(fit <= records),
        Err((status, description)) => {
            assert!((400..500).contains(&status), "{status} for a bad body");
            assert!(!description.is_empty());
        }
    }
});
