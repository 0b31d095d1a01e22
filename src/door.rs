//! The doors that a stranger's bytes come through, one function each, for the fuzz targets.
//!
//! They answer what the process would answer, as text, and do nothing else: no socket, no file, no environment.

use std::collections::BTreeMap;

use crate::{
    config::{self, Sources},
    http,
};

/// `sidecar.maxRecordsPerRequest` as shipped.
const MAX_RECORDS: usize = 10_000;

/// One configuration file in memory, above the built-in defaults: the effective values as `kafka-sidecar config` prints them.
///
/// # Errors
/// Every fault, as the process prints them before exit code 64.
pub fn configuration(file: &str, bytes: &[u8]) -> Result<String, String> {
    let files = BTreeMap::from([(file.to_owned(), bytes.to_vec())]);
    let loaded = config::load(Sources { files, ..Sources::default() }).map_err(|faults| faults.to_string())?;
    Ok(config::render_effective(&loaded))
}

/// A body of `POST /producers/{topic}`, parsed and encoded: how many records there are, and how many of them fit their formats.
///
/// # Errors
/// The HTTP status and the description of the answer.
pub fn produce_body(bytes: &[u8]) -> Result<(usize, usize), (u16, String)> {
    let records = http::read_produce_body(bytes, MAX_RECORDS)?;
    Ok((records.len(), records.iter().filter(|record| record.is_ok()).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_answers_its_effective_values_or_its_faults() {
        let effective = configuration("values.yml", b"server.httpPort: 8099").expect("fine");
        assert!(effective.contains("8099"), "{effective}");
        let faults = configuration("kafka-producer.yml", b"properties: {lingr.ms: 5}").expect_err("misspelt");
        assert!(faults.contains("linger.ms"), "{faults}");
    }

    #[test]
    fn a_body_answers_how_many_records_fit_or_the_field_at_fault() {
        assert_eq!(produce_body(br#"{"records":[{"key":"a","value":1},{"key":2}]}"#), Ok((2, 1)));
        let (status, description) = produce_body(br#"{"records":[{"partition":-1}]}"#).expect_err("no partition");
        assert!(status == 400 && description.starts_with("records[0].partition"), "{status} {description}");
    }
}
