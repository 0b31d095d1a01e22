//! Every protocol, mechanism and form of store through the binary: a record goes out and its receipt comes back.

use anyhow::{Result, ensure};

use super::scene::{ODD_PASSWORD, Scene, shared};
use crate::support::kafka::VERSIONS;

const TEMPLATE: &str =
    "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"odd\" password=\"PASSWORD\";";

async fn works(scene: &Scene, listener: &str, settings: &[(&str, &str)]) -> Result<()> {
    let (status, answer, sidecar) = scene.produce(listener, settings).await?;
    ensure!(status == 200, "{listener} {settings:?}: {status} {answer} {:#?}", sidecar.log());
    let log = sidecar.stop()?;
    for (key, value) in settings.iter().filter(|(key, _)| key.contains("password")) {
        ensure!(!log.iter().any(|line| line.contains(value)), "{key} stands in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_store_is_read_and_a_client_shows_its_whole_chain() -> Result<()> {
    for version in VERSIONS {
        let Some(scene) = shared(version, "security::stores") else { return Ok(()) };
        let (ca, chain) = (scene.authorities.text("ca.pem")?, scene.authorities.text("client.pem")?);
        let (key, certificates) = chain.split_at(chain.find("-----BEGIN CERTIFICATE").expect("a certificate"));
        let one_line = ca.replace('\n', "\\n");
        let password = super::authorities::STORE_PASSWORD;
        let path = |name: &str| scene.path(name);
        for trust in ["ca.pem", "ca.p12", "ca.jks"] {
            let store = path(trust);
            works(
                scene,
                "TLS",
                &[
                    ("security.protocol", "SSL"),
                    ("ssl.truststore.location", &store),
                    ("ssl.truststore.password", password),
                ],
            )
            .await?;
        }
        works(scene, "TLS", &[("security.protocol", "SSL"), ("ssl.truststore.certificates", &one_line)]).await?;
        works(
            scene,
            "ELSEWHERE",
            &[
                ("security.protocol", "SSL"),
                ("ssl.truststore.certificates", &ca),
                ("ssl.endpoint.identification.algorithm", ""),
            ],
        )
        .await?;
        for identity in ["client.pem", "client.p12", "client.jks"] {
            let (trust, store) = (path("ca.pem"), path(identity));
            works(
                scene,
                "MUTUAL",
                &[
                    ("security.protocol", "SSL"),
                    ("ssl.truststore.location", &trust),
                    ("ssl.keystore.location", &store),
                    ("ssl.keystore.password", password),
                ],
            )
            .await?;
        }
        works(
            scene,
            "MUTUAL",
            &[
                ("security.protocol", "SSL"),
                ("ssl.truststore.certificates", &ca),
                ("ssl.keystore.key", key),
                ("ssl.keystore.certificate.chain", certificates),
            ],
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_logs_in_with_and_without_tls() -> Result<()> {
    for version in VERSIONS {
        let Some(scene) = shared(version, "security::mechanisms") else { return Ok(()) };
        let trust = scene.path("ca.pem");
        let escaped = ODD_PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
        let jaas = TEMPLATE.replace("PASSWORD", &escaped);
        // What a template makes of it, without any escape.
        let raw = TEMPLATE.replace("PASSWORD", ODD_PASSWORD);
        let token = scene.path("token");
        std::fs::write(&token, unsecured_token())?;
        let file = format!("file://{token}");
        let logins: [&[(&str, &str)]; 6] = [
            &[("username", "alice"), ("password", "alice-secret")],
            &[("sasl.jaas.config", &jaas)],
            &[("sasl.jaas.config", &raw), ("username", "odd"), ("password", ODD_PASSWORD)],
            &[("sasl.mechanism", "SCRAM-SHA-256"), ("username", "bob"), ("password", "bob-secret")],
            &[("sasl.mechanism", "SCRAM-SHA-512"), ("username", "bob"), ("password", "bob-secret")],
            &[("sasl.mechanism", "OAUTHBEARER"), ("sasl.oauthbearer.token.endpoint.url", &file)],
        ];
        for login in logins {
            works(scene, "SASL", &[&[("security.protocol", "SASL_PLAINTEXT")], login].concat()).await?;
            // SASL_SSL need not be said where a trust store and a user are.
            works(scene, "SASLTLS", &[&[("ssl.truststore.location", trust.as_str())], login].concat()).await?;
        }
    }
    Ok(())
}

/// What Kafka takes for a token where nobody has told it a key: RFC 7515 without a signature.
pub(crate) fn unsecured_token() -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = serde_json::json!({"sub": "carol", "iat": now, "exp": now + 3600});
    format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims.to_string()))
}
