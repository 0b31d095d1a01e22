//! The whole line: HTTP produce, Kafka, HTTP call to a backend, verdicts, dead letter, commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::produce::{PATIENCE, post, read};
use crate::support::{
    kafka::{self, VERSIONS},
    process::Sidecar,
};

/// A backend that refuses the records whose value says so; tells each batch it gets.
pub(super) async fn backend() -> Result<(String, tokio::sync::mpsc::UnboundedReceiver<Vec<Value>>)> {
    let (sender, batches) = tokio::sync::mpsc::unbounded_channel();
    let answer = move |body: String| {
        let sender = sender.clone();
        async move {
            let records: Vec<Value> = serde_json::from_str(&body).unwrap_or_default();
            let verdicts: Vec<Value> = records
                .iter()
                .map(|record| json!({"record": record, "processed": record["value"]["fit"], "stacktrace": "at line 1"}))
                .collect();
            let _ = sender.send(records);
            Value::from(verdicts).to_string()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = axum::Router::new().route("/kafka/records", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((url, batches))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_reaches_the_backend_in_order_and_what_it_refuses_the_dead_letters() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_is_produced_reaches_the_backend") else { continue };
        let (host, mut batches) = backend().await?;
        let servers = kafka.bootstrap_servers();
        let sidecar = Sidecar::start(&[
            ("kafka-producer.bootstrap.servers", &servers),
            ("kafka-consumer.bootstrap.servers", &servers),
            ("kafka-admin.bootstrap.servers", &servers),
            ("kafka-consumer.session.timeout.ms", "6000"),
            ("kafka-consumer.topic", "whole-line"),
            ("kafka-consumer.group.id", "whole-line-backend"),
            ("kafka-consumer.backendApiHost", &host),
        ])?;
        let records: Vec<Value> =
            (0..50).map(|n| json!({"key": format!("k{}", n % 5), "value": {"n": n, "fit": n % 10 != 3}})).collect();
        let body = json!({ "records": records }).to_string();
        let (status, answer) = post(&format!("{}/producers/whole-line", sidecar.url), body).await?;
        assert_eq!(status, 200, "{answer}");
        let seen: Arc<Mutex<BTreeMap<i64, Vec<i64>>>> = Arc::default();
        let mut count = 0;
        while count < 50 {
            let batch = tokio::time::timeout(PATIENCE, batches.recv()).await.context("no batch")?.context("gone")?;
            for record in batch {
                let mut seen = seen.lock().expect("not poisoned");
                let partition = record["partition"].as_i64().context("a partition")?;
                seen.entry(partition).or_default().push(record["offset"].as_i64().context("an offset")?);
                count += 1;
            }
        }
        for (partition, offsets) in seen.lock().expect("not poisoned").iter() {
            let expected: Vec<i64> = (0..offsets.len() as i64).collect();
            assert_eq!(*offsets, expected, "partition {partition} on {version}: none lost, none twice, in order");
        }
        // Five were refused, with keys k3 only.
        let dead = tokio::time::timeout(PATIENCE, read(kafka, "whole-line.dlq", 1)).await.context("dead letters")??;
        assert_eq!(dead.keys().collect::<Vec<_>>(), [b"k3"]);
        sidecar.stop()?;
        let again = Sidecar::start(&[
            ("kafka-producer.bootstrap.servers", &servers),
            ("kafka-consumer.bootstrap.servers", &servers),
            ("kafka-admin.bootstrap.servers", &servers),
            ("kafka-consumer.session.timeout.ms", "6000"),
            ("kafka-consumer.topic", "whole-line"),
            ("kafka-consumer.group.id", "whole-line-backend"),
            ("kafka-consumer.backendApiHost", &host),
        ])?;
        let one = json!({"records": [{"key": "k0", "value": {"n": 50, "fit": true}}]}).to_string();
        let (status, _) = post(&format!("{}/producers/whole-line", again.url), one).await?;
        assert_eq!(status, 200);
        let batch = tokio::time::timeout(PATIENCE, batches.recv()).await.context("no batch")?.context("gone")?;
        let numbers: Vec<i64> = batch.iter().filter_map(|record| record["value"]["n"].as_i64()).collect();
        assert_eq!(numbers, [50], "on {version}: everything before was committed at SIGTERM");
        again.stop()?;
    }
    Ok(())
}
