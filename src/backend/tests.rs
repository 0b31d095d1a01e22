use std::{path::PathBuf, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;

const TWO: &str = r#"[{"processed":true},{"processed":false}]"#;

fn settings(host: String, timeout: Duration) -> settings::Backend {
    settings::Backend { host, path: "/kafka/records".into(), timeout, connection_reset: false }
}

fn client() -> settings::Client {
    settings::Client {
        verify_hostname: true,
        ca_file: None,
        trust_store: None,
        trust_store_password: None,
        load_default_trust_store: false,
        http2: true,
        connect_timeout: Duration::from_secs(2),
    }
}

fn health(host: &str) -> settings::Health {
    settings::Health {
        enabled: true,
        use_json: false,
        timeout: Duration::from_millis(500),
        downstream_enabled: true,
        downstream_host: host.to_owned(),
        downstream_path: "/health".into(),
    }
}

/// With memory for every answer.
fn built(
    backend: &settings::Backend,
    client: &settings::Client,
    health: &settings::Health,
) -> Result<Backend, BackendError> {
    Backend::new(backend, client, health, Budget::new(100 << 20))
}

fn backend(host: String) -> Backend {
    let health = health(&host);
    built(&settings(host, Duration::from_secs(5)), &client(), &health).expect("http needs nothing")
}

fn call() -> Call {
    Call {
        topic: "t".into(),
        partition: 3,
        offsets: vec![5, 7],
        attempt: 2,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        own_connection: false,
        body: Bytes::from_static(b"[{},{}]"),
    }
}

/// Answers every connection once with `answer` (after reading head and body) and closes it; hands out what it read.
async fn one_shot(answer: impl Into<String>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let (requests, seen) = mpsc::unbounded_channel();
    let answer = answer.into();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                match socket.read(&mut buffer).await {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
                let text = String::from_utf8_lossy(&request);
                if text.starts_with("GET") && text.ends_with("\r\n\r\n") || text.ends_with("[{},{}]") {
                    break;
                }
            }
            let _ = requests.send(String::from_utf8_lossy(&request).into_owned());
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    (address, seen)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn every_kind_of_answer_is_told_apart() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[{\"pr\r\n";
    let huge = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}", "[".repeat(2 << 20));
    let refused = |status, retry_after| Answer::Refused { status, retry_after };
    let rows: Vec<(String, Answer)> = vec![
        (http("500 Oops", "at X"), refused(500, None)),
        (http("503 Busy\r\nretry-after: 7", ""), refused(503, Some(Duration::from_secs(7)))),
        (http("503 Busy\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT", ""), refused(503, Some(Duration::ZERO))),
        (http("503 Busy\r\nretry-after: soon", ""), refused(503, None)),
        (http("404 Not Found", ""), refused(404, None)),
        (
            http("302 Found\r\nlocation: http://127.0.0.1:9/", ""),
            Answer::Malformed("status 302 is no answer to a batch".into()),
        ),
        (http("200 OK", "[]"), Answer::Malformed("0 verdicts without a record for 2 records".into())),
        (http("200 OK", "<html>"), Answer::Malformed("the answer is no JSON array (line 1, column 1)".into())),
        (http("204 No Content", ""), Answer::Malformed("the answer is no JSON array (line 1, column 0)".into())),
        (huge, Answer::Malformed("the answer exceeds 1048632 bytes".into())),
        (String::new(), Answer::Lost(String::new())),
        (chunked.into(), Answer::Lost(String::new())),
        ("garbage\r\n\r\n".into(), Answer::Lost(String::new())),
    ];
    for (answer, expected) in rows {
        let (address, _seen) = one_shot(answer.clone()).await;
        let got = match backend(address).post(call()).await {
            Answer::Lost(reason) if !reason.is_empty() => Answer::Lost(String::new()),
            other => other,
        };
        assert_eq!(got, expected, "{:?}", &answer[..answer.len().min(80)]);
    }
}

#[tokio::test]
async fn verdicts_come_back_and_the_headers_say_what_was_sent() {
    let (address, mut seen) = one_shot(http("200 OK", TWO)).await;
    let Answer::Verdicts(verdicts) = backend(address).post(call()).await else { panic!("no verdicts") };
    assert_eq!(verdicts.iter().map(|verdict| verdict.processed).collect::<Vec<_>>(), [true, false]);
    let request = seen.recv().await.expect("one request");
    let (head, body) = request.split_once("\r\n\r\n").expect("head and body");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /kafka/records HTTP/1.1"));
    let mut sorted: Vec<_> = lines.filter(|line| !line.starts_with("host:")).collect();
    sorted.sort_unstable();
    let expected = [
        "accept: */*",
        "content-length: 7",
        "content-type: application/json",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-attempt: 2",
        "x-kafka-first-offset: 5",
        "x-kafka-last-offset: 7",
        "x-kafka-partition: 3",
        "x-kafka-topic: t",
    ];
    assert_eq!(sorted, expected);
    assert_eq!(body, "[{},{}]");
}

#[tokio::test]
async fn connection_reset_asks_the_backend_to_close() {
    let (address, mut seen) = one_shot(http("200 OK", TWO)).await;
    let settings = settings::Backend { connection_reset: true, ..settings(address.clone(), Duration::from_secs(5)) };
    let backend = built(&settings, &client(), &health(&address)).expect("a client");
    assert!(matches!(backend.post(call()).await, Answer::Verdicts(_)));
    assert!(seen.recv().await.expect("one request").contains("connection: close"));
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_nothing_was_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let backend = backend(format!("http://{free}"));
    assert!(matches!(backend.post(call()).await, Answer::Unreachable(reason) if !reason.is_empty()));
    assert!(backend.accepts().await.is_err());
    assert!(backend.healthy().await.is_err());
}

#[tokio::test]
async fn a_backend_that_hangs_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("http://{}", listener.local_addr().expect("bound"));
    let settings = settings(host.clone(), Duration::from_millis(50));
    let backend = built(&settings, &client(), &health(&host)).expect("a client");
    assert_eq!(backend.post(call()).await, Answer::Late);
}

#[tokio::test]
async fn the_health_path_counts_below_400() {
    for (status, healthy) in [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("503 Busy", false)] {
        let (address, mut seen) = one_shot(http(status, "")).await;
        let backend = backend(address);
        assert!(backend.accepts().await.is_ok());
        assert_eq!(backend.healthy().await.is_ok(), healthy, "{status}");
        // The connection of `accepts` sent nothing.
        assert_eq!(seen.recv().await.as_deref(), Some(""));
        assert!(seen.recv().await.expect("a request").starts_with("GET /health HTTP/1.1"));
    }
}

#[tokio::test]
async fn localhost_needs_no_resolver() {
    let (address, _seen) = one_shot(http("200 OK", TWO)).await;
    let backend = backend(address.replace("127.0.0.1", "localhost"));
    assert!(backend.accepts().await.is_ok());
    assert!(matches!(backend.post(call()).await, Answer::Verdicts(_)));
}

#[test]
fn addresses_that_cannot_be_called_are_refused() {
    for host in ["localhost:8444", "ftp://x", "http://", "", "/kafka"] {
        let refused = built(&settings(host.into(), Duration::from_secs(1)), &client(), &health("http://h"));
        assert!(matches!(refused, Err(BackendError::Address { key: "backendApiHost", .. })), "{host:?}");
    }
}

#[test]
fn https_without_any_trust_says_what_to_set() {
    let settings = settings("https://localhost:8444".into(), Duration::from_secs(1));
    let error = built(&settings, &client(), &health("http://localhost")).expect_err("no trust");
    assert!(matches!(error, BackendError::NoTrust) && error.to_string().contains("client.caFile"), "{error:?}");
}

/// A backend over TLS for one name, which answers one connection per call; ALPN as given.
struct TlsBackend {
    port: u16,
    ca: PathBuf,
    negotiated: std::sync::mpsc::Receiver<Option<Vec<u8>>>,
    _directory: tempfile::TempDir,
}

fn tls_backend(name: &str, alpn: &[&[u8]]) -> TlsBackend {
    let issued = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, issued.cert.pem()).expect("written");
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (told, negotiated) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut socket, _)) = listener.accept() {
            let Ok(mut tls) = rustls::ServerConnection::new(config.clone()) else { return };
            if tls.complete_io(&mut socket).is_err() {
                continue;
            }
            if told.send(tls.alpn_protocol().map(<[u8]>::to_vec)).is_err() {
                return;
            }
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            let mut buffer = [0; 4096];
            let mut request = Vec::new();
            while !request.ends_with(b"[{},{}]") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
                if request.starts_with(b"PRI * HTTP/2.0") {
                    break;
                }
            }
            let _ = stream.write_all(http("200 OK", TWO).as_bytes());
            tls.send_close_notify();
            let _ = tls.complete_io(&mut socket);
        }
    });
    TlsBackend { port, ca, negotiated, _directory: directory }
}

async fn call_tls(server: &TlsBackend, client: settings::Client) -> Answer {
    let host = format!("https://localhost:{}", server.port);
    let backend = built(&settings(host, Duration::from_secs(5)), &client, &health("http://localhost"));
    backend.expect("a client").post(call()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_backend_is_trusted_by_its_ca_and_name() {
    let right = tls_backend("localhost", &[]);
    let trusting = |server: &TlsBackend| settings::Client { ca_file: Some(server.ca.clone()), ..client() };
    assert!(matches!(call_tls(&right, trusting(&right)).await, Answer::Verdicts(_)));
    // The wrong name is refused, unless names are not to be checked; the wrong CA always.
    let named = tls_backend("backend.example", &[]);
    assert!(matches!(call_tls(&named, trusting(&named)).await, Answer::Unreachable(_)));
    let nameless = settings::Client { verify_hostname: false, ..trusting(&named) };
    assert!(matches!(call_tls(&named, nameless).await, Answer::Verdicts(_)));
    let foreign = settings::Client { verify_hostname: false, ..trusting(&right) };
    assert!(matches!(call_tls(&named, foreign).await, Answer::Unreachable(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_offered_by_alpn_unless_it_is_switched_off() {
    let server = tls_backend("localhost", &[b"h2", b"http/1.1"]);
    let trusting = settings::Client { ca_file: Some(server.ca.clone()), ..client() };
    // The server here speaks no HTTP/2: only what was agreed is of interest.
    let _ = call_tls(&server, trusting.clone()).await;
    assert_eq!(server.negotiated.recv().expect("one handshake").as_deref(), Some(&b"h2"[..]));
    let off = settings::Client { http2: false, ..trusting.clone() };
    assert!(matches!(call_tls(&server, off).await, Answer::Verdicts(_)));
    assert_ne!(server.negotiated.recv().expect("one handshake").as_deref(), Some(&b"h2"[..]));
    let host = format!("https://localhost:{}", server.port);
    let reset = settings::Backend { connection_reset: true, ..settings(host, Duration::from_secs(5)) };
    let backend = built(&reset, &trusting, &health("http://localhost")).expect("a client");
    assert!(matches!(backend.post(call()).await, Answer::Verdicts(_)));
}
