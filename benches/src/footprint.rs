//! The sidecar at rest and at its start: resident set, and how long until it is ready and until it has produced.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use axum::{Router, routing::any};
use clap::Args;

use crate::{
    kafka::{self, Kafka},
    report::spread,
    sidecar::{self, Sidecar},
    topic::Topics,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks: often enough for tenths of milliseconds, without taking a whole core from who is measured.
const LOOK: Duration = Duration::from_micros(200);
const PRODUCED: &str = "footprint-produced";
const CONSUMED: &str = "footprint-consumed";

#[derive(Args)]
pub(crate) struct Footprint {
    /// The sidecar's binary [default: target/release/kafka-sidecar of this repository]
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// Starts of which the time is taken
    #[arg(long, default_value_t = 21)]
    starts: usize,
    /// How long it idles before its memory is looked at
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
}

impl Footprint {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = sidecar::binary(self.sidecar.as_deref())?;
        let kafka = Kafka::start()?;
        let topics = Topics::new(kafka.address())?;
        topics.make(PRODUCED, 4)?;
        topics.make(CONSUMED, 4)?;
        let (mut ready, mut produced) = (Vec::new(), Vec::new());
        for start in 0..=self.starts {
            let (to_ready, to_produced) = time_a_start(&binary, kafka.address())?;
            // The first warms the broker up.
            if start > 0 {
                ready.push(to_ready.as_secs_f64() * 1000.0);
                produced.push(to_produced.as_secs_f64() * 1000.0);
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let backend = runtime.block_on(backend())?;
        let consuming = [
            ("kafka-consumer.topic", CONSUMED),
            ("kafka-consumer.group.id", "bench-footprint"),
            ("kafka-consumer.backendApiHost", &backend),
        ];
        let resting = self.resident(&binary, kafka.address(), &[])?;
        let with_consumer = self.resident(&binary, kafka.address(), &consuming)?;
        let size = std::fs::metadata(&binary)?.len() as f64;
        println!("\n### footprint of {}\n", binary.display());
        println!("| | measured | target |\n|---|---|---|");
        println!("| size of the binary | {:.1} MB | 15 MB |", size / 1e6);
        println!("| resident, idle, only producing | {:.1} MB | 12 MB |", resting / 1e6);
        println!("| resident, idle, with a consumer | {:.1} MB | 12 MB |", with_consumer / 1e6);
        println!("| start to /health/readiness OK, ms, median (least to most) | {} | 50 |", spread(ready, 1));
        println!("| start to the first record acknowledged, ms | {} | |", spread(produced, 1));
        Ok(())
    }

    /// Bytes in memory after it was ready and did nothing for a while.
    fn resident(&self, binary: &Path, brokers: &str, settings: &[(&str, &str)]) -> Result<f64> {
        let port = kafka::free_ports()?[0];
        let mut sidecar = Sidecar::start(binary, brokers, port, settings)?;
        until_ready(&mut sidecar, port)?;
        std::thread::sleep(Duration::from_secs(self.idle_seconds));
        ensure!(sidecar.ended()?.is_none(), "the sidecar ended");
        Ok(sidecar.status_kib("VmRSS")? as f64 * 1024.0)
    }
}

fn time_a_start(binary: &Path, brokers: &str) -> Result<(Duration, Duration)> {
    let port = kafka::free_ports()?[0];
    let start = Instant::now();
    let mut sidecar = Sidecar::start(binary, brokers, port, &[])?;
    until_ready(&mut sidecar, port)?;
    let ready = start.elapsed();
    let body = r#"{"records":[{"key":"k","value":{"n":1}}]}"#;
    let answer = ask(port, &format!("POST /producers/{PRODUCED}"), body).context("no answer to a produce")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "ready, and yet: {answer}");
    Ok((ready, start.elapsed()))
}

fn until_ready(sidecar: &mut Sidecar, port: u16) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask(port, "GET /health/readiness", "") {
            Some(answer) if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("OK") => return Ok(()),
            last if Instant::now() > until => bail!("not ready within {PATIENCE:?}: {last:?}"),
            _ => {}
        }
        if let Some(status) = sidecar.ended()? {
            bail!("the sidecar ended: {status}");
        }
        std::thread::sleep(LOOK);
    }
}

/// One request on a connection of its own; None if there is nobody who answers it.
fn ask(port: u16, what: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let head = format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Somebody whom the sidecar can reach; no record ever comes.
async fn backend() -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(any(async || "[]"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}
