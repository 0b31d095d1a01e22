//! What cannot work: the cause is named, in the broker's words where it has some, once, and without a secret.

use anyhow::{Context as _, Result, ensure};

use super::scene::shared;
use crate::support::{kafka::VERSIONS, operator::PATIENCE, process::Sidecar};

const COMPLAINT: &str = "no broker answers; trying again until one does";

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_names_its_cause_once_and_shows_no_secret() -> Result<()> {
    for version in VERSIONS {
        let Some(scene) = shared(version, "security::faults") else { return Ok(()) };
        let (ca, foreign) = (scene.path("ca.pem"), scene.path("foreign.pem"));
        let user: [(&str, &str); 2] = [("username", "alice"), ("password", "hush-hush")];
        let tls = |trust| [("security.protocol", "SSL"), ("ssl.truststore.location", trust)].to_vec();
        let sasl = |more: &[(&'static str, &'static str)]| {
            [&[("security.protocol", "SASL_PLAINTEXT")], &user[..], more].concat()
        };
        let http = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = http.local_addr()?.to_string();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            while let Ok((mut stream, _)) = http.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        for (listener, settings, expected) in [
            ("SASL", sasl(&[]), "Authentication failed: Invalid username or password"),
            (
                "SASL",
                sasl(&[("sasl.mechanism", "SCRAM-SHA-256")]),
                "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256",
            ),
            ("TLS", tls(foreign.as_str()), "the broker's certificate is not signed by anyone in the truststore"),
            ("EXPIRED", tls(ca.as_str()), "the broker's certificate has expired"),
            ("ELSEWHERE", tls(ca.as_str()), "the broker's certificate is for another host name"),
            ("MUTUAL", tls(ca.as_str()), "ssl.keystore"),
            ("TLS", vec![("security.protocol", "PLAINTEXT")], "speaks TLS"),
            ("SASL", tls(ca.as_str()), "is this a PLAINTEXT listener?"),
            ("SASL", vec![("security.protocol", "PLAINTEXT")], "a listener that wants SASL"),
            ("HTTP", vec![("security.protocol", "PLAINTEXT")], "it speaks HTTP"),
        ] {
            let mut all = if listener == "HTTP" {
                vec![("kafka-producer.bootstrap.servers".to_owned(), address.clone())]
            } else {
                scene.settings(listener, &[])
            };
            all.extend(settings.iter().map(|(key, value)| (format!("kafka-producer.{key}"), (*value).to_owned())));
            let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let sidecar = Sidecar::start(&all)?;
            let entry = sidecar.logged(COMPLAINT, 1, PATIENCE).await?;
            let error = entry["error"].as_str().context("a reason")?.to_owned();
            ensure!(error.contains(expected), "{listener} {settings:?}: {error}");
            let log = sidecar.kill()?;
            ensure!(!log.iter().any(|line| line.contains("hush-hush")), "the password stands in the log");
            ensure!(log.iter().filter(|line| line.contains(COMPLAINT)).count() == 1, "once: {log:#?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_hears_of_a_wrong_password_at_once() -> Result<()> {
    for version in VERSIONS {
        let Some(scene) = shared(version, "security::callers") else { return Ok(()) };
        let wrong = [("security.protocol", "SASL_PLAINTEXT"), ("username", "alice"), ("password", "hush-hush")];
        let (status, answer, sidecar) = scene.produce("SASL", &wrong).await?;
        ensure!(status == 401 && answer["code"] == "ERR12611", "{status} {answer}");
        ensure!(answer.to_string().contains("Invalid username or password"), "{answer}");
        sidecar.stop()?;
    }
    Ok(())
}
