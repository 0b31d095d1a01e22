//! `POST /producers/{topic}` through the binary to a real Kafka.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::support::{
    kafka::{self, Kafka, VERSIONS},
    operator::Operator,
    process::Sidecar,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn http() -> Result<reqwest::Client> {
    // Plain HTTP only; the client still wants a provider to be installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(empty_tls()?).no_proxy().timeout(PATIENCE).build()?)
}

fn empty_tls() -> Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

pub(crate) async fn post(url: &str, body: impl Into<reqwest::Body>) -> Result<(u16, Value)> {
    let answer =
        http()?.post(url).header("content-type", "application/json").body(body).send().await.context("the request")?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_slice(&answer.bytes().await?)?))
}

/// Keys and values of a topic, read by a consumer of our own.
pub(super) async fn read(kafka: &Kafka, topic: &str, count: usize) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let operator = Operator::of(kafka)?;
    let rows = operator.read_so_many(topic, count).await?;
    operator.close().await;
    Ok(rows.into_iter().map(|row| (row.key.unwrap_or_default(), row.value)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_the_users_page_reach_the_topic_byte_for_byte() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "the_requests_of_the_users_page") else { continue };
        let cases = [
            (
                "string",
                "binary",
                r#"{"records":[{"key":"alice","value":"YWJj"},{"key":"john","value":"ZGVm"},{"key":"alex","value":"eHl6"}]}"#,
            ),
            (
                "binary",
                "string",
                r#"{"records":[{"key":"YWxpY2U=","value":"abc"},{"key":"am9obg==","value":"def"},{"key":"YWxleA==","value":"xyz"}]}"#,
            ),
        ];
        for (key_format, value_format, body) in cases {
            let servers = kafka.bootstrap_servers();
            let sidecar = Sidecar::start(&[
                ("kafka-producer.bootstrap.servers", &servers),
                ("kafka-admin.bootstrap.servers", &servers),
                ("kafka-producer.auditEnabled", "false"),
                ("kafka-producer.keyFormat", key_format),
                ("kafka-producer.valueFormat", value_format),
            ])?;
            // The topic is made by asking for it, as with Java's producer.
            let topic = format!("test6-{key_format}-{value_format}");
            let (status, answer) = post(&format!("{}/producers/{topic}", sidecar.url), body).await?;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["requestStatus"], "OK");
            let offsets = answer["offsets"].as_array().context("offsets")?;
            assert!(offsets.len() == 3 && offsets.iter().all(|entry| entry["offset"].is_u64()), "{answer}");
            let read = tokio::time::timeout(PATIENCE, read(kafka, &topic, 3)).await.context("reading")??;
            let expected = [("alex", "xyz"), ("alice", "abc"), ("john", "def")];
            let expected = expected.map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
            assert_eq!(read, BTreeMap::from(expected), "on {version}");
            let log = sidecar.stop()?;
            assert!(log.last().is_some_and(|line| line.contains("shutdown completed")), "{log:#?}");
            let bad = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
            assert_eq!(log.iter().find(bad), None);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_status_with_the_place_at_fault() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "bad_input_gets_its_status") else { return Ok(()) };
    let servers = kafka.bootstrap_servers();
    let sidecar = Sidecar::start(&[
        ("kafka-producer.bootstrap.servers", &servers),
        ("kafka-admin.bootstrap.servers", &servers),
        ("kafka-producer.auditEnabled", "false"),
    ])?;
    let url = format!("{}/producers/bad-input", sidecar.url);
    let (status, answer) = post(&url, json!({"records": [{"partition": "x"}]}).to_string()).await?;
    assert_eq!((status, answer["code"].as_str()), (400, Some("ERR11004")), "{answer}");
    assert!(answer["description"].as_str().is_some_and(|text| text.contains("records[0].partition")), "{answer}");
    let (status, _) = post(&url, json!({"records": [], "atomic": true}).to_string()).await?;
    assert_eq!(status, 400);
    let (status, answer) = post(&format!("{}/nowhere", sidecar.url), "{}").await?;
    assert_eq!((status, answer["code"].as_str()), (404, Some("ERR10007")), "{answer}");
    sidecar.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn json_text_ids_and_trace_context_reach_kafka_unchanged() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "json_text_ids_and_trace_context") else { continue };
        let servers = kafka.bootstrap_servers();
        let sidecar = Sidecar::start(&[
            ("kafka-producer.bootstrap.servers", &servers),
            ("kafka-producer.auditEnabled", "false"),
            ("kafka-producer.keyFormat", "json"),
            ("kafka-producer.injectCallerId", "true"),
            ("server.serviceId", "orders-backend"),
        ])?;
        let texts = [
            "null",
            "0",
            "false",
            "\"\"",
            "{}",
            "9007199254740993",
            "1.10",
            "1e400",
            "{\"b\":1, \"a\":2,\"b\":3}",
            "[ 1 ,2]",
            "\"\\u00e9\\/\"",
        ];
        let record = |text: &&str| format!("{{\"partition\":\"0\",\"key\":{text},\"value\":{text}}}");
        let own = r#"{"partition":0.0,"value":1,"correlation_id":"own-c","traceabilityId":"own-t","timestamp":"1970-01-01T00:00:01.5Z","headers":{"n":1.50,"x-correlation-id":"no","none":null}}"#;
        let body = format!("{{\"records\":[{},{own}]}}", texts.iter().map(record).collect::<Vec<_>>().join(","));
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let answer = http()?
            .post(format!("{}/producers/exact-text", sidecar.url))
            .header("content-type", "application/json")
            .header("x-correlation-id", "request-c")
            .header("x-traceability-id", "request-t")
            .header("authorization", "Bearer hush")
            .header("traceparent", trace)
            .header("tracestate", "a=1")
            .body(body)
            .send()
            .await?;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers().get("x-traceability-id").context("the echo")?, "request-t");
        let operator = Operator::of(kafka)?;
        let stored = operator.read_so_many("exact-text", texts.len() + 1).await?;
        for (record, text) in stored.iter().zip(texts) {
            let expected = (text != "null").then(|| text.as_bytes().to_vec());
            assert_eq!((&record.key, &record.value), (&expected, &expected), "{text} on {version}");
        }
        let headers = |record: &crate::support::reading::Row| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pairs = record
                .headers
                .iter()
                .map(|(name, value)| format!("{}={}", text(name), value.as_deref().map_or("null".to_owned(), text)));
            pairs.collect::<Vec<_>>()
        };
        let common =
            ["caller_id=orders-backend".to_owned(), format!("traceparent={trace}"), "tracestate=a=1".to_owned()];
        let with = |more: &[&str]| [&common[..], &more.iter().map(ToString::to_string).collect::<Vec<_>>()].concat();
        for record in stored.iter().take(texts.len()) {
            assert_eq!(headers(record), with(&["X-Traceability-Id=request-t", "X-Correlation-Id=request-c"]));
        }
        let last = stored.last().context("the last")?;
        let own = ["X-Traceability-Id=own-t", "X-Correlation-Id=own-c", "n=1.50", "none=null"];
        assert_eq!((headers(last), last.timestamp), (with(&own), 1500));
        operator.close().await;
        let log = sidecar.stop()?;
        assert!(!log.iter().any(|line| line.contains("hush")), "a token reached the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_written_has_a_status_for_each_reason() -> Result<()> {
    if let Some(missing) = kafka::missing() {
        kafka::skip("nothing_written_has_a_status", missing, "openjdk-17-jdk-headless maven");
        return Ok(());
    }
    let kafka = Kafka::start_with(VERSIONS[0], 1, &[("auto.create.topics.enable", "false")])?;
    let servers = kafka.bootstrap_servers();
    let sidecar = Sidecar::start(&[
        ("kafka-producer.bootstrap.servers", &servers),
        ("kafka-producer.auditEnabled", "false"),
        ("kafka-producer.max.request.size", "2000"),
    ])?;
    let operator = Operator::of(&kafka)?;
    operator.create("there", 1).await?;
    let url = |topic: &str| format!("{}/producers/{topic}", sidecar.url);
    let large = json!({"records": [{"value": "x".repeat(3000)}]}).to_string();
    let mixed = json!({"records": [{"value": "x".repeat(3000)}, {"partition": 9, "value": 1}]}).to_string();
    for (topic, body, status, code, entry) in [
        ("away", r#"{"records":[{"value":1}]}"#, 404, "ERR12613", 40401),
        ("there", large.as_str(), 413, "ERR12614", 41301),
        ("there", r#"{"records":[{"partition":9,"value":1}]}"#, 422, "ERR12206", 40402),
        ("there", r#"{"valueFormat":"binary","records":[{"value":"?"}]}"#, 422, "ERR12206", 42203),
        ("there", mixed.as_str(), 422, "ERR12206", 41301),
    ] {
        let (found, answer) = post(&url(topic), body.to_owned()).await?;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{answer}");
        assert_eq!(answer["offsets"][0]["errorCode"], entry, "{answer}");
    }
    let (status, answer) = post(&url("there"), r#"{"atomic":"true","records":[{"value":1}]}"#).await?;
    assert_eq!((status, answer["code"].as_str()), (400, Some("ERR12607")), "{answer}");
    assert_eq!(operator.sizes("there").await?, Some(BTreeMap::from([(0, 0)])), "nothing was written");
    // One that fits is written beside others that do not.
    let one = json!({"records": [{"partition": 9, "value": 1}, {"value": 2}, {"value": "x".repeat(3000)}]});
    let (status, answer) = post(&url("there"), one.to_string()).await?;
    assert_eq!((status, answer["offsets"][1]["offset"].as_i64()), (200, Some(0)), "{answer}");
    // A topic that is made while the request waits is a topic.
    let soon = url("soon");
    let (posted, created) = tokio::join!(post(&soon, r#"{"records":[{"value":1}]}"#), operator.create("soon", 1));
    created?;
    assert_eq!(posted?.0, 200);
    operator.close().await;
    sidecar.stop()?;
    Ok(())
}
