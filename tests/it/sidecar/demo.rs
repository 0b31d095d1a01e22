//! What a newcomer runs first: `demo`, and `dev` with a foreign Kafka client.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::produce::post;
use crate::support::kcat;

/// The issue's bound for the demo is 20 s on an idle machine; this only ends a hang.
const PATIENCE: Duration = Duration::from_secs(90);

fn sidecar(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-sidecar"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_demo_counts_nothing_lost_skipped_or_reordered_and_exits_0() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = sidecar(&["demo"]).current_dir(directory.path()).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let count = |row: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.trim_start().starts_with(row)).context("no such row")?;
        let numbers = line.trim_start().strip_prefix(row).context("a row")?;
        Ok(numbers.split_whitespace().next().context("a number")?.parse()?)
    };
    let (produced, delivered) = (count("produced")?, count("delivered")?);
    assert!(produced > 400 && delivered + 1 == produced, "{text}");
    assert_eq!(count("audited")?, 2 * produced, "{text}");
    assert!(count("redelivered")? > 0 && count("dead-lettered")? > 10, "{text}");
    for row in ["lost", "skipped", "out of order", "left behind"] {
        assert_eq!(count(row)?, 0, "{row}: {text}");
    }
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0, "it needs and leaves no file");
    Ok(())
}

/// A `dev` that runs; killed when it is dropped.
struct Dev {
    child: Child,
    http: String,
    kafka: String,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Dev {
    fn start(arguments: &[&str]) -> Result<Self> {
        let ports = ["--set", "server.httpPort=0", "--set", "sidecar.probesPort=0", "dev", "--kafka-port", "0"];
        let mut child = sidecar(&[&ports[..], arguments].concat()).stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let (mut http, mut kafka) = (None, None);
        while http.is_none() || kafka.is_none() {
            let line = lines.next().context("it ended")??;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["HTTP", url] => http = Some(url.to_owned()),
                ["Kafka", address, ..] => kafka = Some(address.to_owned()),
                _ => {}
            }
        }
        Ok(Self { child, http: http.context("HTTP")?, kafka: kafka.context("Kafka")?, lines })
    }

    /// SIGTERM; it must end with exit code 0.
    fn stop(mut self) -> Result<()> {
        ensure!(Command::new("kill").arg(self.child.id().to_string()).status()?.success(), "kill failed");
        let rest: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        let status = self.child.wait()?;
        ensure!(status.success(), "exit {status}: {rest:#?}");
        Ok(())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_backend_that_is_the_sidecar_itself_ends_dev_with_what_to_do() -> Result<()> {
    let output = sidecar(&["dev", "--kafka-port", "0", "--backend", "http://localhost:8080"]).output()?;
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("the sidecar's own listener; give the address of the backend"), "{text}");
    Ok(())
}

#[test]
fn a_kafka_port_that_is_taken_ends_dev_with_what_to_do() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let output = sidecar(&["dev", "--kafka-port", &port]).output()?;
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("--kafka-port"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_carries_records_from_http_to_kafka_to_the_backend() -> Result<()> {
    let (backend, mut batches) = super::reactive::backend().await?;
    let dev = Dev::start(&["--backend", &backend, "--topic", "trial"])?;
    let (status, answer) =
        post(&format!("{}/producers/trial", dev.http), r#"{"records":[{"key":"k","value":{"fit":true}}]}"#).await?;
    assert_eq!(status, 200, "{answer}");
    let batch = tokio::time::timeout(PATIENCE, batches.recv()).await?.context("the backend ended")?;
    assert_eq!((batch.len(), &batch[0]["key"]), (1, &serde_json::json!("k")), "{batch:?}");
    tokio::task::spawn_blocking(|| dev.stop()).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_produces_consumes_and_joins_a_group_through_dev_with_a_dead_first_address() -> Result<()> {
    if !kcat::is_there("kcat_produces_consumes_and_joins_a_group_through_dev") {
        return Ok(());
    }
    let dev = Dev::start(&["--topic", "trial"])?;
    let done = tokio::task::spawn_blocking(move || -> Result<()> {
        let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let brokers = format!("{dead},{}", dev.kafka);
        kcat::run(&["-b", &brokers, "-P", "-t", "trial", "-K", "=", "-H", "origin=kcat"], b"a=1\nb=2\nc=3\n")?;
        let read = kcat::run(&["-b", &brokers, "-C", "-t", "trial", "-e", "-q", "-f", "%k=%s %h\n"], b"")?;
        let read = String::from_utf8(read)?;
        let mut lines: Vec<&str> = read.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["a=1 origin=kcat", "b=2 origin=kcat", "c=3 origin=kcat"]);
        let grouped =
            ["-b", &brokers, "-G", "kcat-group", "-X", "auto.offset.reset=earliest", "-c", "3", "-q", "trial"];
        let read = String::from_utf8(kcat::run(&grouped, b"")?)?;
        let mut values: Vec<&str> = read.lines().collect();
        values.sort_unstable();
        assert_eq!(values, ["1", "2", "3"]);
        dev.stop()
    });
    tokio::time::timeout(PATIENCE, done).await.context("kcat hangs")??
}
