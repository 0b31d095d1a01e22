//! Slow clients: they are cut, and meanwhile the others are served.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::support::{
    kafka::free_ports,
    operator::PATIENCE,
    process::Sidecar,
    raw::{self, address, exchange},
};

const LIVENESS: &[u8] = b"GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A sidecar that waits half a second for slow clients, and where its probes are.
fn impatient(more: &[(&str, &str)]) -> Result<(Sidecar, String)> {
    let probes = free_ports(1)?.first().context("a port")?.to_string();
    let mut settings = vec![
        ("kafka-producer.bootstrap.servers", "127.0.0.1:1"),
        ("kafka-producer.auditEnabled", "false"),
        ("sidecar.probesIp", "127.0.0.1"),
        ("sidecar.probesPort", &probes),
        ("sidecar.headerTimeoutMs", "500"),
        ("sidecar.bodyTimeoutMs", "500"),
    ];
    settings.extend_from_slice(more);
    Ok((Sidecar::start(&settings)?, format!("127.0.0.1:{probes}")))
}

/// Asks the probes listener until its metrics have this line.
async fn metric(probes: &str, line: &str) -> Result<()> {
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let shown = async {
        loop {
            let metrics = exchange(probes, request).await?;
            if metrics.body.lines().any(|found| found == line) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.with_context(|| format!("no {line}"))?
}

/// A head that never ends, a byte at a time, until the server has had enough, and says so.
async fn drip(socket: TcpStream) -> Result<()> {
    let (mut read, mut write) = socket.into_split();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut told = Vec::new();
    let head = b"GET /health/liveness HTTP/1.1\r\nX-Drip: ";
    let dripping = async {
        for byte in head.iter().chain(std::iter::repeat(&b'x')) {
            pace.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    // Its own half ends with a reset once the server has closed: it goes on all the same.
    let (_, ended) = tokio::join!(dripping, read.read_to_end(&mut told));
    ensure!(ended.is_ok() && raw::answer(&told)?.status == 408, "{}", String::from_utf8_lossy(&told));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowloris_is_cut_and_the_others_are_served() -> Result<()> {
    let (sidecar, probes) = impatient(&[("sidecar.maxConnections", "8"), ("sidecar.headerTimeoutMs", "3000")])?;
    let data = address(&sidecar.url).to_owned();
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..8 {
        slow.spawn(drip(TcpStream::connect(&data).await?));
    }
    metric(&probes, "http_server_connections{listener=\"data\"} 8").await?;
    // All places are taken: this one waits, and is served when the first of them is cut.
    let answer = exchange(&data, LIVENESS).await?;
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    while let Some(ended) = tokio::time::timeout(PATIENCE, slow.join_next()).await.context("never cut")? {
        ended??;
    }
    metric(&probes, "http_server_refused_total{reason=\"slow_head\"} 8").await?;
    let log = sidecar.stop()?;
    let full = log.iter().filter(|line| line.contains("as many connections as allowed are open")).count();
    assert_eq!(full, 1, "said once and not for every connection: {log:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_408_and_one_connection_that_says_nothing_is_cut() -> Result<()> {
    let (sidecar, probes) = impatient(&[])?;
    let data = address(&sidecar.url).to_owned();
    let head =
        "POST /producers/t HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = exchange(&data, head.as_bytes()).await?;
    assert_eq!((answer.status, &answer.json()?["code"]), (408, &"ERR12603".into()), "{answer:?}");
    let mut silent = TcpStream::connect(&data).await?;
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await.context("never cut")?;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    metric(&probes, "http_server_refused_total{reason=\"slow_head\"} 1").await?;
    sidecar.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_cut() -> Result<()> {
    let more = [("sidecar.maxRecordsPerRequest", "200000"), ("server.maxTransferFileSize", "10000000")];
    let (sidecar, probes) = impatient(&more)?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut client = socket.connect(address(&sidecar.url).parse()?).await?;
    // None fits its format, so no broker is needed; the answer has a sentence for each and is larger than any socket's buffer.
    let body =
        format!("{{\"valueFormat\":\"string\",\"records\":[{}{{\"value\":1}}]}}", "{\"value\":1},".repeat(150_000));
    let head = format!(
        "POST /producers/t HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    metric(&probes, "http_server_refused_total{reason=\"slow_reader\"} 1").await?;
    metric(&probes, "http_server_connections{listener=\"data\"} 0").await?;
    let mut begun = Vec::new();
    // The rest was thrown away with the connection.
    let _ = client.read_to_end(&mut begun).await;
    assert!(
        begun.starts_with(b"HTTP/1.1 422 ") && raw::answer(&begun)?.json().is_err(),
        "it was cut within the answer"
    );
    sidecar.stop()?;
    Ok(())
}
