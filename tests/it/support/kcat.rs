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
pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("kcat")
        .args(arguments)
        // No configuration file of whoever runs the tests.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kcat")?;
    let (mut pipe, input) = (child.stdin.take().context("a pipe")?, input.to_vec());
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output()?;
    let said = || format!("kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), said());
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?.with_context(said)?;
    Ok(output.stdout)
}
