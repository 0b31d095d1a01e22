//! One audit entry for each produced and for each settled record, in a topic or in a file that rolls.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    produce::post,
    scene::{Reactive, committed},
};
use crate::support::{
    backend::{Backend, Reply},
    kafka::{self, Kafka, VERSIONS},
    operator::{Operator, PATIENCE},
    process::complaints,
};

const RECORDS: usize = 30;

/// Produces through the sidecar; the third record names a partition that is not there.
async fn produce(url: &str, topic: &str) -> Result<()> {
    let records: Vec<Value> = (0..RECORDS)
        .map(|n| match n {
            2 => json!({"value": n, "partition": 99, "correlationId": "c2"}),
            _ => json!({"value": n, "partition": 0, "correlationId": format!("c{n}"), "traceabilityId": "t"}),
        })
        .collect();
    let (status, answer) = post(&format!("{url}/producers/{topic}"), json!({ "records": records }).to_string()).await?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

/// What every audit has to hold: `RECORDS` produced, one of them in vain, and the others settled, one of them refused.
fn check(entries: &[Value], topic: &str) -> Result<()> {
    let of = |kind: &str, status: &str| -> Vec<&Value> {
        entries.iter().filter(|entry| entry["auditType"] == kind && entry["auditStatus"] == status).collect()
    };
    let counts = ["PRODUCER", "REACTIVE_CONSUMER"].map(|kind| (of(kind, "SUCCESS").len(), of(kind, "FAILURE").len()));
    ensure!(counts == [(RECORDS - 1, 1), (RECORDS - 2, 1)], "{counts:?} {entries:#?}");
    let unwritten = of("PRODUCER", "FAILURE")[0];
    ensure!(unwritten["correlationId"] == "c2" && unwritten["stacktrace"].is_string(), "{unwritten}");
    let refused = of("REACTIVE_CONSUMER", "FAILURE")[0];
    ensure!(refused["offset"] == 7 && refused["stacktrace"] == "at line 1", "{refused}");
    let mut ids = BTreeMap::new();
    for entry in entries {
        ensure!(entry["topic"] == topic && entry["serviceId"].is_string(), "{entry}");
        ensure!(entry["id"].as_str().is_some_and(|id| id.len() == 36), "{entry}");
        // The produced record and what became of it have one correlation id.
        ids.entry(entry["correlationId"].to_string()).or_insert_with(Vec::new).push(entry["offset"].clone());
    }
    ensure!(ids.len() == RECORDS, "{ids:?}");
    ensure!(ids.values().all(|offsets| offsets.iter().all(|offset| *offset == offsets[0])), "{ids:?}");
    Ok(())
}

fn refuses_the_eighth() -> impl Fn(&crate::support::backend::Call) -> Reply {
    |call| Reply::Refused(call.offsets.iter().copied().filter(|offset| *offset == 7).collect())
}

async fn to_a_topic(kafka: &Kafka) -> Result<()> {
    let (operator, topic, audit) = (Operator::of(kafka)?, "audited", "audited-audit");
    let backend = Backend::start(refuses_the_eighth()).await?;
    operator.create(topic, 1).await?;
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("auditEnabled", true)
        .consumer("auditTopic", audit)
        .with("kafka-producer.auditEnabled", true)
        .with("kafka-producer.auditTopic", audit)
        .start()?;
    produce(&sidecar.url, topic).await?;
    committed(&operator, &backend, topic, &[(0, RECORDS as i64 - 1)]).await?;
    let log = sidecar.stop()?;
    ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
    let stored = operator.read(audit).await?;
    let mut entries = Vec::new();
    for record in &stored {
        let entry: Value = serde_json::from_slice(record.value.as_deref().context("a value")?)?;
        ensure!(record.key.as_deref() == entry["correlationId"].as_str().map(str::as_bytes), "keyed by correlation id");
        ensure!(entry.as_object().is_some_and(|fields| fields.values().all(|value| !value.is_null())), "{entry}");
        entries.push(entry);
    }
    check(&entries, topic)?;
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_one_entry_for_each_produced_and_each_settled_record() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "a_topic_has_one_entry_for_each_record") else { continue };
        to_a_topic(kafka).await?;
    }
    Ok(())
}

/// The lines of the file and of those that were zipped, oldest first.
fn lines(path: &Path) -> Result<(usize, Vec<String>)> {
    let mut text = String::new();
    let numbered = |number: usize| PathBuf::from(format!("{}.{number}.zip", path.display()));
    let rolled = (1..).take_while(|number| numbered(*number).exists()).count();
    for number in (1..=rolled).rev() {
        let mut archive = zip::ZipArchive::new(File::open(numbered(number))?)?;
        archive.by_index(0)?.read_to_string(&mut text)?;
    }
    text += &std::fs::read_to_string(path)?;
    Ok((rolled, text.lines().map(str::to_owned).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_line_for_each_record_and_rolls() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "a_file_has_one_line_for_each_record") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "audited-file");
    let backend = Backend::start(refuses_the_eighth()).await?;
    operator.create(topic, 1).await?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("log/audit.log");
    let mut settings = Reactive::new(kafka, topic, &backend.url());
    for file in ["kafka-producer", "kafka-consumer"] {
        settings = settings
            .with(&format!("{file}.auditEnabled"), true)
            .with(&format!("{file}.auditTarget"), "logfile")
            .with(&format!("{file}.auditFile"), path.display())
            .with(&format!("{file}.auditFileMaxBytes"), 4096)
            .with(&format!("{file}.auditFileMaxHistory"), 50);
    }
    let sidecar = settings.start()?;
    produce(&sidecar.url, topic).await?;
    committed(&operator, &backend, topic, &[(0, RECORDS as i64 - 1)]).await?;
    let log = sidecar.stop()?;
    ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
    let (rolled, lines) = lines(&path)?;
    ensure!(rolled >= 3, "about 250 bytes a line: {rolled} files were zipped");
    ensure!(std::fs::metadata(&path)?.len() <= 4096);
    let mut entries = Vec::new();
    for line in &lines {
        // 2021-06-18 18:11:20,581 {"id":…
        let (date, entry) = line.split_at(24);
        ensure!(date.as_bytes()[10] == b' ' && date.as_bytes()[19] == b',', "{line}");
        let entry: Value = serde_json::from_str(entry)?;
        ensure!(entry.as_object().is_some_and(|fields| fields.len() == 12), "nulls are written: {line}");
        entries.push(entry);
    }
    check(&entries, topic)?;
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_topic_that_cannot_be_made_holds_the_commits_and_names_the_settings() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "an_audit_topic_that_cannot_be_made") else { return Ok(()) };
    let (operator, topic, audit) = (Operator::of(kafka)?, "audit-missing", "audit-missing-audit");
    let backend = Backend::start(|_| Reply::Processed).await?;
    operator.create(topic, 1).await?;
    operator.fill(topic, 1, 20).await?;
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("auditEnabled", true)
        .consumer("auditTopic", audit)
        .consumer("deadLetterTopicCreate", false)
        .consumer("batchMaxRecords", 1)
        .start()?;
    let told = "audit entries cannot be written and are tried again; callers slow down, committed offsets wait \
                (settings: auditTopic, auditTarget, auditEnabled)";
    sidecar.logged(told, 1, PATIENCE).await?;
    backend.until("dispatch goes on", PATIENCE, |history| history.finished() == 20).await?;
    assert_eq!(operator.committed(topic, topic).await?, BTreeMap::new(), "no entry, no commit");
    operator.create(audit, 1).await?;
    committed(&operator, &backend, topic, &[(0, 20)]).await?;
    sidecar.stop()?;
    assert_eq!(operator.read(audit).await?.len(), 20);
    operator.close().await;
    Ok(())
}
