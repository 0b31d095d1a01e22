//! How the backend is reached: connections that are kept or not, and TLS with a certificate authority of one's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use anyhow::{Result, ensure};
use axum::http::Version;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::{Value, json};

use super::scene::{Reactive, committed};
use crate::support::{
    backend::{Backend, Reply},
    kafka::{self, VERSIONS},
    operator::{Operator, PATIENCE},
    process::complaints,
};

const RECORDS: i64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_unless_the_backend_wants_them_reset() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "connections_are_kept_unless") else { return Ok(()) };
    let operator = Operator::of(kafka)?;
    for (topic, reset) in [("kept-connections", false), ("reset-connections", true)] {
        let backend = Backend::start(|_| Reply::Processed).await?;
        operator.create(topic, 1).await?;
        operator.fill(topic, 1, RECORDS).await?;
        let sidecar = Reactive::new(kafka, topic, &backend.url())
            .consumer("batchMaxRecords", 1)
            .consumer("backendConnectionReset", reset)
            .start()?;
        committed(&operator, &backend, topic, &[(0, RECORDS)]).await?;
        let log = sidecar.stop()?;
        ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
        let history = backend.history();
        let connections: BTreeSet<u64> = history.calls().iter().map(|seen| seen.call.connection).collect();
        assert_eq!(connections.len(), if reset { RECORDS as usize } else { 1 }, "reset: {reset}");
        let said =
            history.calls().iter().filter(|seen| seen.call.headers.get("connection").is_some_and(|c| c == "close"));
        assert_eq!(said.count(), if reset { RECORDS as usize } else { 0 }, "reset: {reset}");
    }
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_what_it_carries() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "a_call_says_what_it_carries") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "carries");
    let backend = Backend::start(|call| match call.number {
        0 => Reply::Literal(503, String::new()),
        _ => Reply::Processed,
    });
    let backend = backend.await?;
    operator.create(topic, 1).await?;
    operator.fill(topic, 1, RECORDS).await?;
    let sidecar = Reactive::new(kafka, topic, &backend.url()).consumer("batchMaxRecords", 5).start()?;
    committed(&operator, &backend, topic, &[(0, RECORDS)]).await?;
    sidecar.stop()?;
    let said = |number: usize| -> BTreeMap<String, String> {
        let headers = backend.history().calls()[number].call.headers.clone();
        headers.into_iter().filter(|(name, _)| name.starts_with("x-")).collect()
    };
    for (number, first, last, attempt) in
        [(0, "0", "4", "1"), (1, "0", "4", "2"), (2, "5", "9", "1"), (3, "10", "11", "1")]
    {
        let expected = [
            ("x-attempt", attempt),
            ("x-kafka-first-offset", first),
            ("x-kafka-last-offset", last),
            ("x-kafka-partition", "0"),
            ("x-kafka-topic", topic),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(said(number), expected, "call {number}");
        ensure!(backend.history().calls()[number].call.headers.contains_key("traceparent"));
    }
    operator.close().await;
    Ok(())
}

type Versions = Arc<Mutex<BTreeMap<i64, Version>>>;

/// A backend behind TLS that speaks HTTP/1.1 and HTTP/2: its address, and by what each offset came.
async fn https(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<(String, Versions)> {
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
    let mut tls = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let versions = Versions::default();
    let seen = versions.clone();
    let answer = move |request: axum::extract::Request| {
        let seen = seen.clone();
        async move {
            let version = request.version();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
            let records: Vec<Value> = serde_json::from_slice(&body).unwrap_or_default();
            let verdicts = records.iter().map(|record| {
                seen.lock().expect("not poisoned").insert(record["offset"].as_i64().unwrap_or(-1), version);
                json!({"record": record, "processed": true})
            });
            Value::from_iter(verdicts).to_string()
        }
    };
    let router = axum::Router::new().route("/kafka/records", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                // A peer that only looks whether a connection is accepted ends here.
                let Ok(socket) = tls.accept(socket).await else { return };
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // It ends when the peer goes.
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok((url, versions))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_backend_is_trusted_by_its_own_authority_and_called_by_http2() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "an_https_backend_is_trusted") else { return Ok(()) };
    let operator = Operator::of(kafka)?;
    let nobody = Backend::start(|_| Reply::Processed).await?;
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let directory = tempfile::tempdir()?;
    let authority = directory.path().join("ca.pem");
    std::fs::write(&authority, certificate.cert.pem())?;
    for (topic, http2, version) in [("https-2", true, Version::HTTP_2), ("https-1", false, Version::HTTP_11)] {
        let (url, versions) = https(&certificate).await?;
        operator.create(topic, 1).await?;
        operator.fill(topic, 1, RECORDS).await?;
        let sidecar = Reactive::new(kafka, topic, &url)
            .consumer("batchMaxRecords", 1)
            .with("client.caFile", authority.display())
            .with("client.enableHttp2", http2)
            .start()?;
        committed(&operator, &nobody, topic, &[(0, RECORDS)]).await?;
        let log = sidecar.stop()?;
        ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
        let expected: BTreeMap<i64, Version> = (0..RECORDS).map(|offset| (offset, version)).collect();
        assert_eq!(*versions.lock().expect("not poisoned"), expected);
    }
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_backend_of_another_authority_gets_nothing_and_no_record_pays_for_it() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "an_https_backend_of_another_authority") else { return Ok(()) };
    let (operator, topic) = (Operator::of(kafka)?, "https-foreign");
    let foreign = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let directory = tempfile::tempdir()?;
    let authority = directory.path().join("ca.pem");
    std::fs::write(&authority, rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?.cert.pem())?;
    let (url, versions) = https(&foreign).await?;
    operator.create(topic, 1).await?;
    operator.fill(topic, 1, RECORDS).await?;
    let sidecar = Reactive::new(kafka, topic, &url)
        .consumer("maxRetries", 0)
        .with("client.caFile", authority.display())
        .start()?;
    let told = sidecar.logged("the backend is away; records wait, none is charged", 1, PATIENCE).await?;
    ensure!(told["reason"].as_str().is_some_and(|reason| reason.contains("certificate")), "{told}");
    sidecar.stop()?;
    ensure!(versions.lock().expect("not poisoned").is_empty());
    assert_eq!(operator.committed(topic, topic).await?, BTreeMap::new());
    assert_eq!(operator.sizes("https-foreign.dlq").await?, None);
    operator.close().await;
    Ok(())
}
