//! The Fetch walker against the generated decoder, which must take and refuse the same bytes: version, body.
#![no_main]

use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use protocol::message::{self, DecodeError, FetchResponse, Reason};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some(([version], body)) = fuzz::choices(input) else { return };
    let version = 4 + i16::from(version) % 15;
    let too_new = format!("is not valid for version {version}");
    let body = Bytes::copy_from_slice(body);
    let walked = fuzz::bounded(&body, 64, || FetchResponse::decode(version, &body));
    let generated = message::decode_response::<FetchRequest>(version, body.clone());
    match (walked, generated) {
        (Ok(walked), Ok(generated)) => {
            assert_eq!(walked.session_id, generated.session_id);
            let partitions = generated.responses.iter().flat_map(|topic| &topic.partitions);
            assert_eq!(walked.partitions.len(), partitions.clone().count());
            for (walked, generated) in walked.partitions.iter().zip(partitions) {
                assert_eq!(walked.partition, generated.partition_index);
                assert_eq!(walked.records, generated.records.clone().unwrap_or_default());
                let aborted = generated.aborted_transactions.as_ref().map_or(0, Vec::len);
                assert_eq!(walked.aborted_transactions.len(), aborted);
            }
        }
        (Err(_), Err(_)) => {}
        // A field of a later version: the walker leaves it out as any other that it does not know (KIP-482).
        (Ok(_), Err(DecodeError { reason: Reason::Refused(reason), .. })) if reason.ends_with(&too_new) => {}
        (walked, generated) => panic!("{walked:?} where the generated decoder says {generated:?}"),
    }
});
