//! Sessions that end while records flow (KIP-368), and certificates that are renewed while the process runs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use protocol::{
    client::Client,
    cluster::ClusterConfig,
    connection::{Mechanism, Password, ScramHash, TcpConnector},
    consumer::Event,
    producer::ProducerConfig,
};

use super::scene::{produce_one, shared};
use crate::support::{
    client::{PATIENCE, member, producer, send_values},
    kafka::VERSIONS,
    process::{Sidecar, complaints},
};

/// Longer than several sessions of the listener SHORT.
const WHILE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_renewed_while_records_flow() -> Result<()> {
    for version in VERSIONS {
        let Some(scene) = shared(version, "security::sessions") else { return Ok(()) };
        let address = scene.kafka.listener("SHORT");
        let (host, port) = address.rsplit_once(':').context("an address")?;
        let mut config = ClusterConfig::new(vec![(host.to_owned(), port.parse()?)]);
        let password = Password { username: "bob".to_owned(), password: "bob-secret".to_owned() };
        config.sasl = Some(Mechanism::Scram(ScramHash::Sha256, password));
        let client = Client::with_connector(config, std::sync::Arc::new(TcpConnector));
        let topic = "renewed-sessions";
        let sender = producer(&client, ProducerConfig::default())?;
        let mut consumer = member(&client, topic, topic);
        let (read, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let reading = tokio::spawn(async move {
            while let Some(event) = consumer.next().await {
                let Event::Assigned(streams) = event else { continue };
                for mut stream in streams {
                    let read = read.clone();
                    tokio::spawn(async move {
                        while let Some(records) = stream.next().await {
                            for _ in records.iter() {
                                let _ = read.send(());
                            }
                        }
                    });
                }
            }
        });
        let until = Instant::now() + WHILE;
        let mut sent = 0;
        while Instant::now() < until {
            // A session that the broker ends would lose the answer; every one is asked for.
            send_values(&sender, topic, None, sent..sent + 5).await?;
            sent += 5;
        }
        for _ in 0..sent {
            tokio::time::timeout(PATIENCE, seen.recv()).await.context("a record did not come")?;
        }
        reading.abort();
        ensure!(sender.close(PATIENCE).await == 0);
        // One for each purpose; a session that ended would have taken its socket with it, each second and a half.
        let sockets: Vec<_> = client.cluster().counters().brokers();
        let opened: u64 = sockets.iter().map(|(_, sockets)| sockets.opened).sum();
        ensure!(opened <= 8, "{sockets:?}");
        client.close(PATIENCE).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_trust_store_counts_without_a_restart() -> Result<()> {
    let Some(scene) = shared(VERSIONS[0], "security::reload") else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("trust.pem");
    std::fs::copy(scene.path("foreign.pem"), &store)?;
    let shown = store.display().to_string();
    let settings = scene.settings("TLS", &[("security.protocol", "SSL"), ("ssl.truststore.location", &shown)]);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let sidecar = Sidecar::start(&settings)?;
    sidecar.logged("no broker answers; trying again until one does", 1, PATIENCE).await?;
    std::fs::write(&store, format!("{}{}", scene.authorities.text("foreign.pem")?, scene.authorities.text("ca.pem")?))?;
    sidecar.logged("the brokers answer again", 1, PATIENCE).await?;
    let (status, answer) = produce_one(&sidecar).await?;
    ensure!(status == 200, "{status} {answer}");
    let log = sidecar.stop()?;
    ensure!(
        complaints(&log).iter().all(|line| line.contains("truststore") || line.contains("does not work")),
        "{log:#?}"
    );
    Ok(())
}
