//! kcat, a foreign Kafka client on librdkafka.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Whether it is there; if not, says that the test did not run. With `CI=true` that is a failure.
pub(crate) fn is_there(test: &str) -> bool {
    let there = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        super::kafka::skip(test, "kcat", "kcat");
    }
    there
}

/// Runs it to its end with `input` on standard input; its standard output.
pub(crate) fn run(arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("kcat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kcat")?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
