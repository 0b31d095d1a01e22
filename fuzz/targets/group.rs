//! The blobs by which members of a classic group speak to each other: which of the two, blob.
#![no_main]

use bytes::Bytes;
use protocol::message::{decode_assignment, decode_subscription, encode_assignment, encode_subscription};

/// The newest version that both are written in.
const VERSION: i16 = 3;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some(([which], blob)) = fuzz::choices(input) else { return };
    let blob = Bytes::copy_from_slice(blob);
    if which % 2 == 0 {
        if let Ok(read) = fuzz::bounded(&blob, 64, || decode_subscription(&blob)) {
            let written = encode_subscription(&read, VERSION).expect("what was read can be written");
            assert_eq!(decode_subscription(&written).expect("our own bytes"), read);
        }
    } else if let Ok(read) = fuzz::bounded(&blob, 64, || decode_assignment(&blob)) {
        let written = encode_assignment(&read, VERSION).expect("what was read can be written");
        assert_eq!(decode_assignment(&written).expect("our own bytes"), read);
    }
});
