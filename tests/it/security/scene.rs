//! A real broker with a listener for each way to be secure, shared by the tests of a version.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::authorities::Authorities;
use crate::{
    sidecar::produce::post,
    support::{
        kafka::{self, Kafka, VERSIONS},
        process::Sidecar,
    },
};

/// A password with everything that quoting and templates trip over.
pub(crate) const ODD_PASSWORD: &str = r#"p\a"s$ {w}='o;rd,"#;

pub(crate) struct Scene {
    pub(crate) kafka: Kafka,
    pub(crate) authorities: Authorities,
}

/// The scene of a version; None where there is no Java or no Maven.
pub(crate) fn shared(version: &'static str, test: &str) -> Option<&'static Scene> {
    static SHARED: [OnceLock<Scene>; VERSIONS.len()] = [const { OnceLock::new() }; VERSIONS.len()];
    if let Some(missing) = kafka::missing() {
        kafka::skip(test, missing, "openjdk-17-jdk-headless maven");
        return None;
    }
    let index = VERSIONS.iter().position(|known| *known == version).expect("a version of the list");
    let start = || start(version).unwrap_or_else(|error| panic!("no secure Kafka {version}: {error:#}"));
    Some(SHARED[index].get_or_init(start))
}

fn start(version: &'static str) -> Result<Scene> {
    let authorities = Authorities::new()?;
    let path = |name: &str| authorities.path(name).display().to_string();
    let escaped = ODD_PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
    // In a properties file a backslash escapes once more.
    let plain = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"alice-secret\" user_odd=\"{escaped}\";"
    )
    .replace('\\', "\\\\");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";";
    let mut more = vec![
        ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("ssl.keystore.location".to_owned(), path("broker.pem")),
        ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
        ("ssl.truststore.location".to_owned(), path("ca.pem")),
        ("listener.name.mutual.ssl.client.auth".to_owned(), "required".to_owned()),
        ("listener.name.expired.ssl.keystore.location".to_owned(), path("expired.pem")),
        ("listener.name.expired.ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("listener.name.elsewhere.ssl.keystore.location".to_owned(), path("elsewhere.pem")),
        ("listener.name.elsewhere.ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("sasl.enabled.mechanisms".to_owned(), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
    ];
    for listener in ["sasl", "sasltls", "short"] {
        for (mechanism, module) in
            [("plain", plain.as_str()), ("scram-sha-256", scram), ("scram-sha-512", scram), ("oauthbearer", oauth)]
        {
            more.push((format!("listener.name.{listener}.{mechanism}.sasl.jaas.config"), module.to_owned()));
            if listener == "short" {
                more.push((format!("listener.name.short.{mechanism}.connections.max.reauth.ms"), "1500".to_owned()));
            }
        }
    }
    let more: Vec<(&str, &str)> = more.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let listeners = [
        ("TLS", "SSL"),
        ("MUTUAL", "SSL"),
        ("EXPIRED", "SSL"),
        ("ELSEWHERE", "SSL"),
        ("SASL", "SASL_PLAINTEXT"),
        ("SASLTLS", "SASL_SSL"),
        ("SHORT", "SASL_PLAINTEXT"),
    ];
    let users = ["SCRAM-SHA-256=[name=bob,password=bob-secret]", "SCRAM-SHA-512=[name=bob,password=bob-secret]"];
    let kafka = Kafka::start_listening(version, 1, &listeners, &users, &more)?;
    Ok(Scene { kafka, authorities })
}

impl Scene {
    pub(crate) fn path(&self, name: &str) -> String {
        self.authorities.path(name).display().to_string()
    }

    /// Settings of a sidecar that only produces, by this listener.
    pub(crate) fn settings(&self, listener: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut settings = vec![
            ("kafka-producer.bootstrap.servers".to_owned(), self.kafka.listener(listener)),
            ("kafka-producer.auditEnabled".to_owned(), "false".to_owned()),
        ];
        settings.extend(more.iter().map(|(key, value)| (format!("kafka-producer.{key}"), (*value).to_owned())));
        settings
    }

    /// Starts a sidecar by this listener and produces one record; status and answer.
    pub(crate) async fn produce(&self, listener: &str, more: &[(&str, &str)]) -> Result<(u16, Value, Sidecar)> {
        let settings = self.settings(listener, more);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let sidecar = Sidecar::start(&settings)?;
        let (status, answer) = produce_one(&sidecar).await?;
        Ok((status, answer, sidecar))
    }
}

pub(crate) async fn produce_one(sidecar: &Sidecar) -> Result<(u16, Value)> {
    let body = json!({"records": [{"key": "k", "value": {"n": 1}}]}).to_string();
    post(&format!("{}/producers/secured", sidecar.url), body).await.context("producing")
}
