//! The sidecar as users run it: the binary, configured by `--set`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// A running sidecar; killed when it is dropped.
pub(crate) struct Sidecar {
    child: Child,
    /// `http://host:port` of the data listener.
    pub(crate) url: String,
    log: std::thread::JoinHandle<Vec<String>>,
}

impl Sidecar {
    /// Starts it on a free port, without a probes listener, and waits until the data listener is open.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-sidecar"));
        let own = [("server.httpPort", "0"), ("sidecar.probesPort", "0"), ("sidecar.logFormat", "json")];
        for (key, value) in own.iter().chain(settings) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let mut child = command.env_clear().stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut log = Vec::new();
        let url = loop {
            let Some(line) = lines.next().transpose()? else { bail!("the sidecar ended: {log:#?}") };
            let entry: serde_json::Value = serde_json::from_str(&line)?;
            log.push(line);
            if entry["message"] == "data listener open" {
                break format!("http://{}", entry["address"].as_str().context("an address")?);
            }
        };
        let log = std::thread::spawn(move || {
            log.extend(lines.map_while(Result::ok));
            log
        });
        Ok(Self { child, url, log })
    }

    /// Sends SIGTERM and waits; returns the log. It must end with exit code 0.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(killed.success(), "kill failed");
        let status = self.child.wait()?;
        let log = std::mem::replace(&mut self.log, std::thread::spawn(Vec::new));
        let log = log.join().map_err(|_| anyhow::anyhow!("the log reader panicked"))?;
        anyhow::ensure!(status.success(), "exit {status}: {log:#?}");
        Ok(log)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
