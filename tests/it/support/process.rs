//! The sidecar as users run it: the binary, configured by `--set`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::sync::watch;

/// A running sidecar; killed when it is dropped.
pub(crate) struct Sidecar {
    child: Child,
    /// `http://host:port` of the data listener.
    pub(crate) url: String,
    log: Arc<Log>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// Its log as it comes.
struct Log {
    lines: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().expect("not poisoned").push(line);
        self.count.send_modify(|count| *count += 1);
    }
}

impl Sidecar {
    /// Starts it on a free port, without a probes listener, and waits until the data listener is open.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-sidecar"));
        let own = [
            ("server.httpPort", "0"),
            ("sidecar.probesPort", "0"),
            ("sidecar.logFormat", "json"),
            // The shipped 200 ms are short where JVMs and compilers share two processors.
            ("kafka-admin.request.timeout.ms", "10000"),
        ];
        for (key, value) in own.iter().chain(settings) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let mut child = command.env_clear().stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let log = Arc::new(Log { lines: Mutex::default(), count: watch::Sender::new(0) });
        let url = loop {
            let Some(line) = lines.next().transpose()? else {
                bail!("the sidecar ended: {:#?}", log.lines.lock().expect("not poisoned"))
            };
            let entry: Value = serde_json::from_str(&line)?;
            log.push(line);
            if entry["message"] == "data listener open" {
                break format!("http://{}", entry["address"].as_str().context("an address")?);
            }
        };
        let further = log.clone();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| further.push(line)));
        Ok(Self { child, url, log, reader: Some(reader) })
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("not poisoned").clone()
    }

    /// Entries of the log so far with this message.
    pub(crate) fn entries(&self, message: &str) -> Vec<Value> {
        entries(&self.log(), message)
    }

    /// Waits until the log has so many entries with this message; the last of them.
    pub(crate) async fn logged(&self, message: &str, times: usize, patience: Duration) -> Result<Value> {
        let mut count = self.log.count.subscribe();
        let enough = count.wait_for(|_| self.entries(message).len() >= times);
        match tokio::time::timeout(patience, enough).await {
            Ok(waited) => drop(waited?),
            Err(_) => bail!("{message:?} was not logged {times} times: {:#?}", self.log()),
        }
        self.entries(message).pop().context("one at least")
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<()> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(killed.success(), "kill failed");
        Ok(())
    }

    /// SIGKILL; returns the log once the process is gone.
    pub(crate) fn kill(mut self) -> Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.rest())
    }

    /// Waits for its end, away from the threads of the runtime.
    pub(crate) async fn ended(mut self) -> Result<(ExitStatus, Vec<String>)> {
        let waiting = tokio::task::spawn_blocking(move || {
            let status = self.child.wait()?;
            Ok((status, self.rest()))
        });
        waiting.await?
    }

    /// Sends SIGTERM and waits; returns the log. It must end with exit code 0.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        self.terminate()?;
        let status = self.child.wait()?;
        let log = self.rest();
        ensure!(status.success(), "exit {status}: {log:#?}");
        Ok(log)
    }

    fn rest(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log reader does not panic");
        }
        self.log()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Entries of a log with this message.
pub(crate) fn entries(log: &[String], message: &str) -> Vec<Value> {
    let parsed = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|entry| entry["message"] == message).collect()
}

/// Lines of a log that are warnings or errors. That a broker takes more than 200 ms speaks about a busy machine.
pub(crate) fn complaints(log: &[String]) -> Vec<&String> {
    let complains = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    log.iter().filter(complains).filter(|line| !line.contains("no broker answered within 200 ms")).collect()
}
