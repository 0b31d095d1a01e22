//! The sidecar's binary, as users run it: configured by `--set`, without an environment.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

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

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// None while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
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
