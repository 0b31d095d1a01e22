//! What a broker has on disk, as `DumpLogSegments` shows it: each batch with its codec, sequence numbers and CRC.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::support::kafka::Kafka;

/// One line of `DumpLogSegments` about a batch or a record: what stands behind each `name:`.
pub(crate) type Line = BTreeMap<String, String>;

/// A batch and its records.
pub(crate) struct StoredBatch {
    pub(crate) header: Line,
    pub(crate) records: Vec<Line>,
}

/// The batches of partitions of a one-node cluster, all from one run of the tool.
pub(crate) fn dump(kafka: &Kafka, partitions: &[(String, i32)]) -> Result<Vec<Vec<StoredBatch>>> {
    let files: Vec<PathBuf> = partitions
        .iter()
        .map(|(topic, partition)| kafka.log_directory(0, topic, *partition).join("00000000000000000000.log"))
        .collect();
    let class = if kafka.version().starts_with('3') {
        "kafka.tools.DumpLogSegments"
    } else {
        "org.apache.kafka.tools.DumpLogSegments"
    };
    let list: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let output = kafka.tool().args([class, "--deep-iteration", "--files", &list.join(",")]).output()?;
    let (text, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "DumpLogSegments failed: {text}{faults}");
    let mut dumped: BTreeMap<&str, Vec<StoredBatch>> = BTreeMap::new();
    let mut file = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Dumping ") {
            file = Some(name);
        } else if line.starts_with("baseOffset: ") {
            let batch = StoredBatch { header: fields(line)?, records: Vec::new() };
            dumped.entry(file.context("a batch before a file")?).or_default().push(batch);
        } else if let Some(record) = line.strip_prefix("| ") {
            let batches = dumped.get_mut(file.context("a record before a file")?).context("a record before a batch")?;
            batches.last_mut().context("a record before a batch")?.records.push(fields(record)?);
        } else {
            // Complaints would stand here: gaps, records that do not fit their batch.
            ensure!(line.starts_with("Log starting offset: ") || line.is_empty(), "DumpLogSegments says: {line}");
        }
    }
    list.iter().map(|name| dumped.remove(name.as_str()).with_context(|| format!("nothing of {name}: {text}"))).collect()
}

/// `name: value name: value …`. The header keys stand last and may hold anything.
fn fields(line: &str) -> Result<Line> {
    let mut found = Line::new();
    let (mut rest, mut last) = (line, None);
    if let Some((before, keys)) = line.split_once(" headerKeys: ") {
        (rest, last) = (before, Some(keys));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    for pair in words.chunks(2) {
        let [name, value] = pair else { anyhow::bail!("a name without a value: {line}") };
        found.insert(name.trim_end_matches(':').to_owned(), (*value).to_owned());
    }
    if let Some(keys) = last {
        found.insert("headerKeys".to_owned(), keys.to_owned());
    }
    Ok(found)
}
