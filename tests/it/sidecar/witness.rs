//! Java's clients as witnesses of the sidecar: what HTTP produces they read, what they write a backend is told, exactly.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::record::Compression;
use serde::{Deserialize, Deserializer};
use serde_json::{json, value::RawValue};
use tokio::sync::mpsc;

use super::{produce::post, scene::Reactive};
use crate::{
    support::{
        kafka::{self, Kafka, VERSIONS},
        process::complaints,
    },
    witness::{
        jvm::Witness,
        ours::{self, Logs, PATIENCE, assert_same, numbered},
        samples::{self, Sample},
    },
};

/// JSON values of which each is another, as text.
const JSON: [&str; 12] = [
    "0",
    "false",
    "\"\"",
    "{}",
    "[]",
    "3.10",
    "1E+2",
    "-0.0",
    "12345678901234567890123",
    r#"{"b":1,"a":2,"b":3}"#,
    r#""Zürich \u0000 \/ 🎈""#,
    r#"{"nested":[{"deep":[null,true]}]}"#,
];

fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

/// The rows that a JSON body can hold: names are text and stand once, values are text, times are positive.
fn rows_for_http() -> Vec<Sample> {
    let told = |row: &Sample| {
        let names: BTreeSet<&Vec<u8>> = row.headers.iter().map(|(name, _)| name).collect();
        let texts = row.headers.iter().filter_map(|(_, value)| value.as_ref()).all(|v| std::str::from_utf8(v).is_ok());
        row.has_text_names() && names.len() == row.headers.len() && texts && row.timestamp > 0
    };
    let rows: Vec<Sample> = samples::table().into_iter().filter(told).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    rows
}

/// One record of the request, written by hand: headers must keep their order.
fn record_for_http(row: &Sample, number: usize) -> Result<String> {
    let binary = |bytes: &Option<Vec<u8>>| json!(bytes.as_ref().map(|bytes| STANDARD.encode(bytes)));
    let headers = row.headers.iter().map(|(name, value)| {
        let value = value.as_deref().map(std::str::from_utf8).transpose()?;
        Ok(format!("{}:{}", json!(std::str::from_utf8(name)?), json!(value)))
    });
    let headers: Vec<String> = headers.collect::<Result<_>>()?;
    Ok(format!(
        r#"{{"partition":0,"timestamp":{},"correlationId":"c-{number}","key":{},"value":{},"headers":{{{}}}}}"#,
        row.timestamp,
        binary(&row.key),
        binary(&row.value),
        headers.join(",")
    ))
}

fn with_correlation_id(row: &Sample, number: usize) -> Sample {
    let mut row = row.clone();
    row.headers.insert(0, (b"X-Correlation-Id".to_vec(), Some(format!("c-{number}").into_bytes())));
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_produces_java_reads_exactly() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_http_produces_java_reads_exactly") else { continue };
        let codec = if version.starts_with('3') { "gzip" } else { "zstd" };
        let (binary, text) = ("http-binary".to_owned(), "http-json".to_owned());
        let sidecar = producing(kafka).with("kafka-producer.compression.type", codec).start()?;
        let rows = rows_for_http();
        let mut expected = Vec::new();
        for rows in rows.chunks(20) {
            let records = rows.iter().enumerate().map(|(index, row)| record_for_http(row, expected.len() + index));
            let records = records.collect::<Result<Vec<_>>>()?.join(",");
            let body = format!(r#"{{"keyFormat":"binary","valueFormat":"binary","records":[{records}]}}"#);
            let (status, answer) = post(&format!("{}/producers/{binary}", sidecar.url), body).await?;
            ensure!(status == 200, "{answer}");
            let offsets: Vec<Option<i64>> =
                answer["offsets"].as_array().context("offsets")?.iter().map(|entry| entry["offset"].as_i64()).collect();
            let first = expected.len() as i64;
            assert_eq!(offsets, (first..first + rows.len() as i64).map(Some).collect::<Vec<_>>(), "{answer}");
            for row in rows {
                expected.push(with_correlation_id(row, expected.len()));
            }
        }
        // JSON travels as text.
        let records: Vec<String> = JSON
            .iter()
            .chain(&["null"])
            .enumerate()
            .map(|(number, value)| {
                format!(r#"{{"partition":0,"timestamp":"{number}1","correlationId":"c-{number}","key":"k","value": {value} }}"#)
            })
            .collect();
        let body = format!(r#"{{"records":[{}]}}"#, records.join(",\n"));
        let (status, answer) = post(&format!("{}/producers/{text}", sidecar.url), body).await?;
        ensure!(status == 200, "{answer}");
        let values = JSON.iter().map(|value| Some(value.as_bytes().to_vec())).chain([None]);
        let values = values.enumerate().map(|(number, value)| {
            let row =
                Sample { key: Some(b"k".to_vec()), value, headers: Vec::new(), timestamp: number as i64 * 10 + 1 };
            with_correlation_id(&row, number)
        });
        let values: Vec<Sample> = values.collect();
        let found = blocking(|| Witness::of(kafka).read(&json!({}), &[binary.clone(), text.clone()]))?;
        let expected = Logs::from([((binary, 0), numbered(&expected)), ((text, 0), numbered(&values))]);
        assert_same(&found, &expected, version);
        let log = sidecar.stop()?;
        ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
    }
    Ok(())
}

/// A sidecar that only produces.
fn producing(kafka: &Kafka) -> Reactive {
    let servers = kafka.bootstrap_servers();
    Reactive::bare()
        .with("kafka-producer.bootstrap.servers", &servers)
        .with("kafka-admin.bootstrap.servers", &servers)
        .with("kafka-producer.auditEnabled", false)
}

/// A record as a backend is told it. A field that is absent is None; a null that stands there is raw `null`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    topic: String,
    #[serde(default, deserialize_with = "present")]
    key: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
    headers: BTreeMap<String, Option<String>>,
    partition: i32,
    offset: i64,
    timestamp: i64,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Refuses one of ten, by its offset.
fn refused(offset: i64) -> bool {
    offset % 10 == 7
}

/// A backend that hands on each record as it was told.
async fn backend() -> Result<(String, mpsc::UnboundedReceiver<Result<Told>>)> {
    let (sender, told) = mpsc::unbounded_channel();
    let answer = move |body: String| {
        let sender = sender.clone();
        async move {
            let records: Vec<&RawValue> = serde_json::from_str(&body).unwrap_or_default();
            let verdicts = records.iter().map(|raw| {
                let record = serde_json::from_str::<Told>(raw.get());
                let processed = record.as_ref().is_ok_and(|record| !refused(record.offset));
                let _ = sender.send(record.with_context(|| raw.get().chars().take(300).collect::<String>()));
                format!(r#"{{"record":{},"processed":{processed}}}"#, raw.get())
            });
            let verdicts: Vec<String> = verdicts.collect();
            format!("[{}]", verdicts.join(","))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = axum::Router::new().route("/kafka/records", axum::routing::post(answer));
    let router = router.layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((url, told))
}

async fn all_told(told: &mut mpsc::UnboundedReceiver<Result<Told>>, count: usize) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(PATIENCE, told.recv()).await;
        let next = next.with_context(|| format!("{} of {count} records came", all.len()))?;
        all.push(next.context("the backend is gone")??);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_writes_a_backend_is_told_exactly_and_what_it_refuses_java_reads_again() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_java_writes_a_backend_is_told_exactly") else { continue };
        let witness = Witness::of(kafka);
        let topic = "javas-for-a-backend".to_owned();
        blocking(|| witness.create_topic(&topic, Compression::ALL.len() as i32, &json!({})))?;
        let rows: Vec<Sample> = samples::table().into_iter().filter(Sample::has_text_names).collect();
        for (partition, codec) in (0..).zip(Compression::ALL) {
            let settings = json!({"compression.type": codec.name(), "linger.ms": 500, "max.request.size": 2 << 20});
            blocking(|| witness.write(&settings, &topic, Some(partition), &rows))?;
        }
        let (host, mut told) = backend().await?;
        let sidecar = Reactive::new(kafka, &topic, &host)
            .consumer("keyFormat", "binary")
            .consumer("valueFormat", "binary")
            .start()?;
        let mut seen: BTreeMap<i32, Vec<Told>> = BTreeMap::new();
        for record in all_told(&mut told, rows.len() * Compression::ALL.len()).await? {
            seen.entry(record.partition).or_default().push(record);
        }
        let log = sidecar.stop()?;
        ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
        let mut ids = BTreeMap::new();
        for (partition, records) in seen {
            assert_eq!(records.len(), rows.len(), "partition {partition} on {version}");
            for ((offset, row), record) in numbered(&rows).into_iter().zip(records) {
                let what = format!("partition {partition} on {version}: {row:?}");
                let id = assert_told(&record, &topic, offset, &row, &what);
                ids.insert((partition, offset), id);
            }
        }
        // The dead letter is the record as it was, and its origin.
        let letters = format!("{topic}.dlq");
        let found = blocking(|| witness.read(&json!({}), std::slice::from_ref(&letters)))?;
        let mut expected = Logs::new();
        for partition in 0..Compression::ALL.len() as i32 {
            let refused = numbered(&rows).into_iter().filter(|(offset, _)| refused(*offset));
            let letters_of = refused.map(|(offset, mut row)| {
                let (partition_text, offset_text) = (partition.to_string(), offset.to_string());
                let origin = [
                    ("X-Correlation-Id", ids[&(partition, offset)].as_str()),
                    ("X-Dead-Letter-Topic", &topic),
                    ("X-Dead-Letter-Partition", &partition_text),
                    ("X-Dead-Letter-Offset", &offset_text),
                    ("X-Dead-Letter-Group", &topic),
                ];
                let origin = origin.map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
                row.headers.extend(origin);
                row
            });
            expected.insert((letters.clone(), partition), numbered(&letters_of.collect::<Vec<_>>()));
        }
        assert_same(&without_cause(found), &expected, &format!("dead letters on {version}"));
        let client = ours::client(&kafka.bootstrap())?;
        let committed = client.admin().committed(&topic).await?;
        assert!(committed.len() == Compression::ALL.len(), "{committed:?}");
        assert!(committed.values().all(|offset| *offset == rows.len() as i64), "{committed:?}");
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

/// The letters without what stands behind their origin: reason, attempts and stack trace.
fn without_cause(mut letters: Logs) -> Logs {
    for (_, letter) in letters.values_mut().flatten() {
        let reason = letter.headers.iter().position(|(name, _)| name == b"X-Dead-Letter-Reason");
        letter.headers.truncate(reason.unwrap_or(letter.headers.len()));
    }
    letters
}

/// Compares all that the backend was told; returns the correlation id, which was made for the record.
fn assert_told(record: &Told, topic: &str, offset: i64, row: &Sample, what: &str) -> String {
    assert_eq!((record.topic.as_str(), record.offset, record.timestamp), (topic, offset, row.timestamp), "{what}");
    let binary = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| json!(STANDARD.encode(bytes)).to_string());
    let raw = |told: &Option<Box<RawValue>>| told.as_ref().map(|raw| raw.get().to_owned());
    assert_eq!(raw(&record.key), binary(&row.key), "{what}");
    assert_eq!(raw(&record.value), binary(&row.value), "{what}");
    let mut headers = record.headers.clone();
    let id = headers.remove("X-Correlation-Id").flatten().unwrap_or_else(|| panic!("{what}: no id was made"));
    assert_eq!(id.len(), 22, "{what}: {id}");
    // Of a name that stands twice the last value counts; null is null, and bytes are shown as far as they are text.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let expected = row.headers.iter().map(|(name, value)| (text(name), value.as_deref().map(text)));
    assert_eq!(headers, expected.collect::<BTreeMap<_, _>>(), "{what}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_java_writes_reaches_a_backend_as_the_same_text() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "json_that_java_writes_reaches_a_backend") else { continue };
        let witness = Witness::of(kafka);
        let topic = "javas-json";
        blocking(|| witness.create_topic(topic, 1, &json!({})))?;
        let keys = ["", "Zürich", "\"quoted\\\"\n\t\u{1}", "null"];
        // A tombstone and the text `null` are two things.
        let values = JSON.iter().chain(&["null"]).copied().map(Some).chain([None]);
        let rows = values.enumerate().map(|(number, value)| Sample {
            key: (number % 5 < 4).then(|| keys[number % 5].as_bytes().to_vec()),
            value: value.map(|text| text.as_bytes().to_vec()),
            headers: vec![(b"X-Correlation-Id".to_vec(), Some(format!("own-{number}").into_bytes()))],
            timestamp: 1_700_000_000_000 + number as i64,
        });
        let rows: Vec<Sample> = rows.collect();
        blocking(|| witness.write(&json!({"compression.type": "lz4"}), topic, Some(0), &rows))?;
        let (host, mut told) = backend().await?;
        let sidecar = Reactive::new(kafka, topic, &host)
            .consumer("keyFormat", "string")
            .consumer("valueFormat", "json")
            .start()?;
        for ((offset, row), record) in numbered(&rows).into_iter().zip(all_told(&mut told, rows.len()).await?) {
            let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(String::from_utf8_lossy).map(String::from);
            assert_eq!((record.offset, record.timestamp), (offset, row.timestamp), "{row:?} on {version}");
            let key = record.key.as_ref().map(|raw| serde_json::from_str::<String>(raw.get())).transpose()?;
            assert_eq!(key, text(&row.key), "{row:?} on {version}");
            assert_eq!(record.value.map(|raw| raw.get().to_owned()), text(&row.value), "{row:?} on {version}");
            let own = Some(format!("own-{offset}"));
            assert_eq!(record.headers, BTreeMap::from([("X-Correlation-Id".to_owned(), own)]), "{row:?} on {version}");
        }
        let log = sidecar.stop()?;
        ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
    }
    Ok(())
}
