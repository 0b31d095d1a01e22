//! A running sidecar: the whole of `kafka-sidecar` without a command, and a part of `dev` and `demo`.
//!
//! It decides nothing: [`crate::app`] does the work. [`Instance`] is its main type.

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use crate::{
    app::{self, Budgets, End, Sidecar, Stop},
    config::{self, Loaded, Sources},
    telemetry::{logs::chain, metrics::Metrics},
};

/// A running sidecar.
pub(super) struct Instance {
    address: SocketAddr,
    stop: Stop,
    task: JoinHandle<End>,
}

impl Instance {
    /// Starts with these settings over the built-in defaults; neither files nor environment are read.
    pub(super) async fn start(set: Vec<(String, String)>) -> Result<Self, String> {
        let loaded = config::load(Sources { set, ..Sources::default() }).map_err(|faults| faults.to_string())?;
        Self::start_loaded(&loaded, Stop::default()).await
    }

    /// Starts what was loaded; `stop` stops it.
    pub(super) async fn start_loaded(loaded: &Loaded, stop: Stop) -> Result<Self, String> {
        let settings = &loaded.settings;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            service = settings.server.service_id,
            environment = settings.server.environment,
            producer = settings.parts.producer,
            reactive = settings.parts.reactive,
            "starting"
        );
        let parts =
            app::compose(settings, Budgets::new(settings.sidecar.memory_budget)).map_err(|error| chain(&error))?;
        let sidecar = Sidecar::start(settings, parts, Metrics::new()).await.map_err(|error| chain(&error))?;
        let address = sidecar.data_address();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { sidecar.run(&stop).await }
        });
        Ok(Self { address, stop, task })
    }

    /// Where its data listener listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does what SIGTERM does, and waits for the end.
    pub(super) async fn stop(self) -> Result<(), String> {
        self.stop.drain.cancel();
        self.ended().await
    }

    /// Waits until it ends. How it ended is in the log too.
    pub(super) async fn ended(self) -> Result<(), String> {
        match self.task.await {
            Ok(End::Completed) => Ok(()),
            Ok(End::Left(left)) => Err(format!("the sidecar left this behind: {}", left.join("; "))),
            Ok(End::Crashed { task, reason }) => Err(format!("the sidecar's {task} crashed: {reason}")),
            Err(error) => {
                tracing::error!(%error, "the sidecar crashed");
                Err(format!("the sidecar crashed: {error}"))
            }
        }
    }
}
