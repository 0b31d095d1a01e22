//! One configuration file above the built-in defaults: which, its text.
#![no_main]

use kafka_sidecar::door;

const FILES: [&str; 10] = [
    "values.yml",
    "kafka-producer.yml",
    "kafka-consumer.yml",
    "kafka-admin.yml",
    "sidecar.yml",
    "server.yml",
    "client.yml",
    "health.yml",
    "security.yml",
    "service.yml",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some(([which], text)) = fuzz::choices(input) else { return };
    let file = FILES[usize::from(which) % FILES.len()];
    match fuzz::bounded(text, 1024, || door::configuration(file, text)) {
        Ok(effective) => assert!(!effective.is_empty()),
        Err(faults) => assert!(!faults.trim().is_empty(), "refused without a word"),
    }
});
