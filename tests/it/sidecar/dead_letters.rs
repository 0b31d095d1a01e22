//! Dead letters on a real Kafka: the record as it was, with its story in headers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use protocol::producer::ProduceRecord;

use super::scene::{Reactive, committed};
use crate::support::{
    backend::{Backend, Reply},
    kafka::{self, Kafka, VERSIONS},
    operator::{self, Operator, PATIENCE},
    process::{complaints, entries},
    reading::Row,
};

/// The headers of a dead letter that the sidecar adds.
const ADDED: [&str; 9] = [
    "X-Correlation-Id",
    "X-Dead-Letter-Topic",
    "X-Dead-Letter-Partition",
    "X-Dead-Letter-Offset",
    "X-Dead-Letter-Group",
    "X-Dead-Letter-Reason",
    "X-Dead-Letter-Attempts",
    "StackTrace",
    "X-Traceability-Id",
];

/// A record with bytes that no format but binary can hold.
fn odd(topic: &str, partition: i32, value: Option<&'static [u8]>) -> ProduceRecord {
    ProduceRecord {
        topic: topic.into(),
        partition: Some(partition),
        key: Some(Bytes::from_static(b"\xffkey")),
        value: value.map(Bytes::from_static),
        headers: vec![
            (Bytes::from_static(b"h"), Some(Bytes::from_static(b"\xfe\x00"))),
            (Bytes::from_static(b"h"), None),
            (Bytes::from_static(b"\xfd"), Some(Bytes::new())),
        ],
        timestamp: Some(1_700_000_000_123),
    }
}

fn json(topic: &str, partition: i32, value: &'static str) -> ProduceRecord {
    ProduceRecord {
        topic: topic.into(),
        partition: Some(partition),
        value: Some(Bytes::from_static(value.as_bytes())),
        ..ProduceRecord::default()
    }
}

/// Waits until the topic holds so many records; them.
async fn letters(operator: &Operator, topic: &str, count: usize) -> Result<Vec<Row>> {
    tokio::time::timeout(PATIENCE, operator.read_so_many(topic, count)).await.context("no dead letters")?
}

async fn refused_records_are_kept_as_they_were(kafka: &Kafka) -> Result<()> {
    let (operator, topic) = (Operator::of(kafka)?, "dead-kept");
    let backend = Backend::start(|call| match call.partition {
        4 => Reply::Refused(call.offsets.clone()),
        _ => Reply::Processed,
    });
    let backend = backend.await?;
    operator.create(topic, 5).await?;
    for (partition, value) in [(4, Some(&b"\x80\x00value"[..])), (4, None), (3, Some(b"fine"))] {
        operator.write(odd(topic, partition, value)).await?;
    }
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("keyFormat", "binary")
        .consumer("valueFormat", "binary")
        .start()?;
    committed(&operator, &backend, topic, &[(3, 1), (4, 2)]).await?;
    let log = sidecar.stop()?;
    ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));

    let sizes = operator.sizes("dead-kept.dlq").await?.context("the dead-letter topic")?;
    assert_eq!(sizes, BTreeMap::from([(0, 0), (1, 0), (2, 0), (3, 0), (4, 2)]), "as many partitions as the source");
    assert_eq!(entries(&log, "created a missing topic").len(), 1, "{log:#?}");
    let sources: Vec<Row> = operator.read(topic).await?.into_iter().filter(|record| record.partition == 4).collect();
    for (letter, source) in operator.read("dead-kept.dlq").await?.iter().zip(&sources) {
        assert_eq!((&letter.key, &letter.value), (&source.key, &source.value));
        assert_eq!(letter.timestamp, 1_700_000_000_123);
        assert_eq!(letter.headers[..3], source.headers[..], "what was there stands first and unchanged");
        let added: Vec<_> =
            letter.headers[3..].iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        ensure!(added.iter().all(|name| ADDED.contains(&name.as_str())), "{added:?}");
        let offset = source.offset.to_string();
        for (name, value) in [
            ("X-Dead-Letter-Topic", topic),
            ("X-Dead-Letter-Partition", "4"),
            ("X-Dead-Letter-Offset", offset.as_str()),
            ("X-Dead-Letter-Group", topic),
            ("X-Dead-Letter-Reason", "the backend refused the record"),
            ("X-Dead-Letter-Attempts", "1"),
            ("StackTrace", "at line 1"),
        ] {
            assert_eq!(letter.header(name), Some(value), "{name}");
        }
        ensure!(letter.header("X-Correlation-Id").is_some_and(|id| id.len() == 22), "{:?}", letter.headers);
    }
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_kept_byte_for_byte_with_its_story_in_headers() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "a_refused_record_is_kept_byte_for_byte") else { continue };
        refused_records_are_kept_as_they_were(kafka).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_by_key_where_its_topic_has_fewer_partitions() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "a_dead_letter_goes_by_key") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "dead-narrow");
    let backend = Backend::start(|call| Reply::Refused(call.offsets.clone())).await?;
    operator.create(topic, 4).await?;
    operator.create("dead-narrow.dlq", 2).await?;
    for partition in 0..4 {
        let key = Some(Bytes::from_static(b"one key"));
        operator.write(ProduceRecord { key, ..json(topic, partition, "1") }).await?;
    }
    let sidecar = Reactive::new(kafka, topic, &backend.url()).start()?;
    committed(&operator, &backend, topic, &[(0, 1), (1, 1), (2, 1), (3, 1)]).await?;
    sidecar.stop()?;
    let places = operator.read("dead-narrow.dlq").await?;
    let place = |from: &str| places.iter().find(|letter| letter.header("X-Dead-Letter-Partition") == Some(from));
    let partition = |from: &str| Ok::<_, anyhow::Error>(place(from).context("a dead letter")?.partition);
    assert_eq!((partition("0")?, partition("1")?), (0, 1), "its own number where there is one");
    assert_eq!(partition("2")?, partition("3")?, "else where its key belongs");
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dead_letters_a_refused_record_is_logged_audited_and_finished() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "without_dead_letters_a_refused_record") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "dead-off");
    let backend = Backend::start(|call| Reply::Refused(call.offsets.clone())).await?;
    operator.create(topic, 1).await?;
    operator.write(json(topic, 0, "1")).await?;
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("deadLetterEnabled", false)
        .consumer("auditEnabled", true)
        .consumer("auditTopic", "dead-off-audit")
        .start()?;
    committed(&operator, &backend, topic, &[(0, 1)]).await?;
    let log = sidecar.stop()?;
    let said = entries(&log, "the record failed and dead letters are off (deadLetterEnabled): it is finished");
    ensure!(said.len() == 1 && said[0]["offset"] == 0 && said[0]["topic"] == topic, "{log:#?}");
    let audit = operator.read("dead-off-audit").await?;
    let entry: serde_json::Value = serde_json::from_slice(audit[0].value.as_deref().context("a value")?)?;
    ensure!(audit.len() == 1 && entry["auditStatus"] == "FAILURE" && entry["stacktrace"] == "at line 1", "{entry}");
    assert_eq!(operator.sizes("dead-off.dlq").await?, None);
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_written_holds_its_record_and_nobody_elses() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "a_dead_letter_that_cannot_be_written") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "dead-held");
    let backend = Backend::start(|call| match call.partition {
        0 => Reply::Refused(call.offsets.iter().copied().filter(|offset| *offset == 1).collect()),
        _ => Reply::Processed,
    });
    let backend = backend.await?;
    operator.create(topic, 2).await?;
    operator.fill(topic, 2, 4).await?;
    // Nobody makes the topic, the broker neither, though it makes what is asked for.
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("deadLetterTopicCreate", false)
        .consumer("batchMaxRecords", 1)
        .start()?;
    let reason = "the dead letter could not be written; the record is held and it is tried again";
    let told = sidecar.logged(reason, 1, PATIENCE).await?;
    ensure!(told["topic"] == topic && told["partition"] == 0 && told["offset"] == 1, "{told}");
    committed(&operator, &backend, topic, &[(0, 1), (1, 4)]).await?;
    operator.create("dead-held.dlq", 2).await?;
    committed(&operator, &backend, topic, &[(0, 4), (1, 4)]).await?;
    sidecar.stop()?;
    let letters = letters(&operator, "dead-held.dlq", 1).await?;
    assert_eq!(letters[0].header("X-Dead-Letter-Offset"), Some("1"));
    assert_eq!(operator.read("dead-held.dlq").await?.len(), 1);
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_record_is_dead_lettered_skipped_or_stops_its_partition() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "an_undecodable_record_is_dead_lettered") else { continue };
        let operator = Operator::of(kafka)?;
        for policy in ["deadLetter", "skip", "stop"] {
            let topic = format!("undecodable-{policy}").to_lowercase();
            let dead = format!("{topic}.dlq");
            let backend = Backend::start(|_| Reply::Processed).await?;
            operator.create(&topic, 2).await?;
            for (partition, value) in [(0, "1"), (0, "{no json"), (0, "3"), (1, "1"), (1, "2")] {
                operator.write(json(&topic, partition, value)).await?;
            }
            let settings = Reactive::new(kafka, &topic, &backend.url()).consumer("badRecordPolicy", policy);
            let sidecar = settings.start()?;
            if policy == "stop" {
                let stands = "the partition stands before a record that cannot be decoded (badRecordPolicy: stop)";
                let told = sidecar.logged(stands, 1, PATIENCE).await?;
                ensure!(told["topic"] == topic && told["partition"] == 0 && told["offset"] == 1, "{told}");
                committed(&operator, &backend, &topic, &[(0, 1), (1, 2)]).await?;
                // Retention takes it: the partition goes on by itself.
                operator::delete_before(kafka, &topic, 0, 2).await?;
                sidecar.logged("the record is gone: the partition goes on", 1, PATIENCE).await?;
            }
            committed(&operator, &backend, &topic, &[(0, 3), (1, 2)]).await?;
            sidecar.stop()?;
            assert_eq!(backend.history().deliveries(0), [0, 2], "{policy}: it never goes to the backend");
            assert_eq!(backend.history().deliveries(1), [0, 1]);
            if policy == "deadLetter" {
                let letters = operator.read(&dead).await?;
                assert_eq!(letters.len(), 1);
                assert_eq!(letters[0].value.as_deref(), Some(&b"{no json"[..]), "the bytes as they are");
                let reason = letters[0].header("X-Dead-Letter-Reason").unwrap_or_default();
                ensure!(reason.starts_with("the value cannot be decoded"), "{reason}");
                assert_eq!(letters[0].header("X-Dead-Letter-Attempts"), Some("0"), "it was never delivered");
            } else {
                assert_eq!(operator.sizes(&dead).await?, None, "{policy}");
            }
        }
        operator.close().await;
    }
    Ok(())
}
