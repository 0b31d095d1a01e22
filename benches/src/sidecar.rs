//! The sidecar's binary, as users run it: configured by `--set`, without an environment.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kafka;

/// A running one; killed when it is dropped.
pub(crate) struct Sidecar(Child);

impl Sidecar {
    /// Starts it with `settings` and the addresses of `brokers`; it has no listener but the data listener, on `port`.
    pub(crate) fn start(binary: &Path, brokers: &str, port: u16, settings: &[(&str, &str)]) -> Result<Self> {
        let port = port.to_string();
        let own = [
            ("server.httpPort", port.as_str()),
            ("sidecar.probesPort", "0"),
            ("kafka-producer.bootstrap.servers", brokers),
            ("kafka-consumer.bootstrap.servers", brokers),
            ("kafka-admin.bootstrap.servers", brokers),
        ];
        let mut command = Command::new(binary);
        for (key, value) in own.iter().chain(settings) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Ok(Self(command.spawn().context("starting the sidecar")?))
    }

    /// A field of `/proc/PID/status` that is in kB.
    pub(crate) fn status_kib(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| *name == field).with_context(|| format!("no {field}"))?;
        Ok(value.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// User and system time of all its threads, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name before may hold spaces, but ends with the last bracket.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let mut ticks = 0;
        // utime and stime are fields 14 and 15; the first after the name is field 3.
        for field in fields.split_whitespace().skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
        // To user space a tick is 10 ms on every architecture that there is a binary for.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.0.id().try_into()?), Signal::SIGTERM)?;
        Ok(self.0.wait()?)
    }

    /// None while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The given binary, else the repository's release build.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let binary = given.map_or_else(|| kafka::repository().join("target/release/kafka-sidecar"), Path::to_owned);
    ensure!(binary.exists(), "{} is not there: cargo build --release, or --sidecar", binary.display());
    Ok(binary)
}
