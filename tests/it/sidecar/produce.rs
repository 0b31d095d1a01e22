//! `POST /producers/{topic}` through the binary to a real Kafka.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{ConsumerConfig, Event},
};
use serde_json::{Value, json};

use crate::support::{
    kafka::{self, Kafka, VERSIONS},
    process::Sidecar,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn http() -> Result<reqwest::Client> {
    // Plain HTTP only; the client still wants a provider to be installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(empty_tls()?).no_proxy().timeout(PATIENCE).build()?)
}

fn empty_tls() -> Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

pub(super) async fn post(url: &str, body: impl Into<reqwest::Body>) -> Result<(u16, Value)> {
    let answer =
        http()?.post(url).header("content-type", "application/json").body(body).send().await.context("the request")?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_slice(&answer.bytes().await?)?))
}

/// Keys and values of a topic, read by a consumer of our own.
pub(super) async fn read(kafka: &Kafka, topic: &str, count: usize) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let bootstrap = kafka.bootstrap().into_iter().filter_map(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    });
    let client = Client::new(ClusterConfig::new(bootstrap.collect()));
    let config = ConsumerConfig {
        group_id: format!("readers-of-{topic}"),
        topics: vec![topic.to_owned()],
        session_timeout: Duration::from_secs(6),
        ..ConsumerConfig::default()
    };
    let mut consumer = client.consumer(config, Budget::new(1 << 20));
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut read = BTreeMap::new();
    while read.len() < count {
        tokio::select! {
            event = consumer.next() => if let Some(Event::Assigned(streams)) = event {
                for mut stream in streams {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        while let Some(records) = stream.next().await {
                            for record in records.iter() {
                                let pair = (record.key.unwrap_or_default().to_vec(), record.value.map(<[u8]>::to_vec));
                                let _ = sender.send(pair);
                            }
                        }
                    });
                }
            },
            pair = receiver.recv() => {
                let (key, value) = pair.context("a sender is held here")?;
                read.insert(key, value);
            }
        }
    }
    client.close(PATIENCE).await;
    Ok(read)
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
