//! Response bodies: API, version, body.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((chosen, body)) = fuzz::choices(input) {
        fuzz::api::check_response(chosen, body);
    }
});
