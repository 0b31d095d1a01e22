use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

use super::*;

const LIMITS: ListenerLimits = ListenerLimits {
    connections: 8,
    deadlines: Deadlines {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
    },
    header_bytes: 8192,
};

fn server(router: Router) -> Server {
    Server::new("test", LIMITS, router, HttpMetrics::default(), CancellationToken::new())
}

/// A server on one end of a pipe that holds `capacity` bytes.
fn serve(router: Router, capacity: usize) -> (DuplexStream, tokio::task::JoinHandle<()>, CancellationToken) {
    let (client, socket) = tokio::io::duplex(capacity);
    let server = server(router);
    let stop = server.stop.clone();
    (client, tokio::spawn(async move { server.connection(socket).await }), stop)
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn answer(client: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).ends_with(end) {
        let mut chunk = [0; 1024];
        let read = client.read(&mut chunk).await.expect("read");
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(text).expect("text")
}

#[tokio::test(start_paused = true)]
async fn a_slowloris_is_told_where_it_understands_and_cut_however_steadily_it_drips() {
    for (head, told) in [
        ("GET / HTTP/1.1\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", false),
        ("", false),
    ] {
        let (client, served, _stop) = serve(hello(), 1024);
        let (mut read, mut write) = tokio::io::split(client);
        let started = Instant::now();
        let drip = async {
            for byte in head.bytes() {
                if write.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = served => ended.expect("no panic"),
            () = drip => {}
        }
        // A second more for a peer that was told and does not go.
        assert_eq!(started.elapsed().as_secs(), if told { 11 } else { 10 }, "{head:?}");
        let mut text = String::new();
        read.read_to_string(&mut text).await.expect("text");
        assert_eq!(text.starts_with("HTTP/1.1 408 "), told, "{text}");
        assert!(
            !told || text.contains("\"code\":\"ERR12609\"") && text.contains("(sidecar.headerTimeoutMs)"),
            "{text}"
        );
        assert!(told || !text.contains("HTTP/1.1"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_the_same_deadline_and_an_idle_connection_a_longer_one() {
    let (mut client, served, _stop) = serve(hello(), 1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    answer(&mut client, "hello").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("still open");
    answer(&mut client, "hello").await;
    client.write_all(b"G").await.expect("write");
    let started = Instant::now();
    assert!(answer(&mut client, "}").await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 10);
    drop(client);
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 10, "it went by itself");

    let (mut client, served, _stop) = serve(hello(), 1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    answer(&mut client, "hello").await;
    let started = Instant::now();
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    let large = Router::new().route("/", get(|| async { "x".repeat(1_000_000) }));
    let (mut client, served, _stop) = serve(large, 64);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let started = Instant::now();
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_http_2_client_that_takes_no_answer_is_cut_even_if_it_reads() {
    use http_body_util::Empty;

    let (client, served, _stop) = serve(hello(), 65_536);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) =
        builder.initial_stream_window_size(0).handshake(TokioIo::new(client)).await.expect("handshake");
    let connection = tokio::spawn(connection);
    let request = Request::get("http://x/").body(Empty::<bytes::Bytes>::new()).expect("request");
    let response = sender.send_request(request).await.expect("the head of an answer");
    let started = Instant::now();
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 30);
    drop(response);
    connection.abort();
}

#[tokio::test]
async fn a_head_that_cannot_be_read_gets_its_status() {
    let headers: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    for (request, status, code) in [
        ("hello\r\n\r\n", 400, "ERR12608"),
        ("GET / HTTP/9.9\r\n\r\n", 400, "ERR12608"),
        ("GET /\r\n\r\n", 400, "ERR12608"),
        ("GET / HTTP/1.1\r\nHo st: x\r\n\r\n", 400, "ERR12608"),
        ("GET / HTTP/1.1\r\nHost: \0\r\n\r\n", 400, "ERR12608"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "ERR12608"),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "ERR12608"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}", 400, "ERR12608"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n", 400, "ERR12608"),
        (&format!("GET / HTTP/1.1\r\n{headers}\r\n"), 431, "ERR12602"),
        (&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1_000_000)), 431, "ERR12602"),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1_000_000)), 431, "ERR12602"),
    ] {
        let (client, served, _stop) = serve(hello(), 1024);
        let (mut read, mut write) = tokio::io::split(client);
        let mut text = String::new();
        let sent = async {
            write.write_all(request.as_bytes()).await.expect("what is sent in vain is taken all the same");
            write.shutdown().await.expect("open");
        };
        let (_, answer) = tokio::join!(sent, read.read_to_string(&mut text));
        answer.expect("text");
        let start = &request[..request.len().min(60)];
        let refusal = &text[text.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer to {start:?}"))..];
        assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {refusal}");
        let (_, body) = refusal.split_once("\r\n\r\n").expect("a body");
        let body: serde_json::Value = serde_json::from_str(body).expect("a Status");
        assert_eq!(
            (body["statusCode"].as_u64(), &body["code"]),
            (Some(status), &serde_json::Value::from(code)),
            "{start:?}"
        );
        served.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_may_take_as_long_as_it_likes_and_a_stop_waits_for_it() {
    let begun = Arc::new(Notify::new());
    let slow = Router::new().route(
        "/",
        get({
            let begun = begun.clone();
            move || async move {
                begun.notify_one();
                tokio::time::sleep(Duration::from_secs(1000)).await;
                "done"
            }
        }),
    );
    let (mut client, served, stop) = serve(slow, 1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    begun.notified().await;
    stop.cancel();
    assert!(answer(&mut client, "done").await.starts_with("HTTP/1.1 200"));
    served.await.expect("closed after the answer");
}

#[tokio::test]
async fn http_2_without_tls_is_understood() {
    use http_body_util::{BodyExt as _, Empty};

    let (client, _served, _stop) = serve(hello(), 65_536);
    let io = TokioIo::new(client);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("handshake");
    let connection = tokio::spawn(connection);
    let request = Request::get("http://x/").body(Empty::<bytes::Bytes>::new()).expect("request");
    let response = sender.send_request(request).await.expect("answer");
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.expect("body").to_bytes(), "hello");
    connection.abort();
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_closes() {
    let limits = ListenerLimits { connections: 1, ..LIMITS };
    let metrics = crate::telemetry::metrics::Metrics::new();
    let listener =
        Listener::bind("test", ([127, 0, 0, 1], 0).into(), limits, metrics.http.clone()).await.expect("bind");
    let address = listener.address().expect("address");
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let served = tokio::spawn(listener.serve(hello(), stop.clone(), cut));

    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut buffer = [0; 1024];
    let mut first = TcpStream::connect(address).await.expect("connect");
    first.write_all(request).await.expect("write");
    assert!(first.read(&mut buffer).await.expect("read") > 0);

    let mut second = TcpStream::connect(address).await.expect("the system accepts it");
    second.write_all(request).await.expect("write");
    while !metrics.render().contains("http_server_refused_total{reason=\"connections\"} 1") {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.try_read(&mut buffer).expect_err("no answer yet").kind(), io::ErrorKind::WouldBlock);
    drop(first);
    assert!(second.read(&mut buffer).await.expect("read") > 0);

    stop.cancel();
    assert_eq!(served.await.expect("no panic"), 0, "idle connections close by themselves");
    assert!(metrics.render().contains("http_server_connections{listener=\"test\"} 0"));
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_counted() {
    let begun = Arc::new(Notify::new());
    let hanging = Router::new().route(
        "/",
        get({
            let begun = begun.clone();
            move || async move {
                begun.notify_one();
                std::future::pending::<&'static str>().await
            }
        }),
    );
    let listener =
        Listener::bind("test", ([127, 0, 0, 1], 0).into(), LIMITS, HttpMetrics::default()).await.expect("bind");
    let address = listener.address().expect("address");
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let served = tokio::spawn(listener.serve(hanging, stop.clone(), cut.clone()));
    let mut client = TcpStream::connect(address).await.expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    begun.notified().await;
    stop.cancel();
    cut.cancel();
    assert_eq!(served.await.expect("no panic"), 1);
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let bind = |address| Listener::bind("data", address, LIMITS, HttpMetrics::default());
    let first = bind(([127, 0, 0, 1], 0).into()).await.expect("bind");
    let address = first.address().expect("address");
    let error = bind(address).await.err().expect("taken");
    assert_eq!(error.to_string(), format!("the data listener cannot be opened on {address} (server.httpPort)"));
}
