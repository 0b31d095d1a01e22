//! `kafka-sidecar` without a command: logging, the runtime, signals, and the exit code.
//!
//! It knows neither HTTP nor Kafka; [`crate::app`] does the work. [`run`] is the whole command.

use std::{process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::{complain, instance::Instance};
use crate::{app::Stop, config::Loaded, telemetry::logs};

/// Threads that do the work, on machines that have more processors than a sidecar should use.
const MAX_WORKERS: usize = 4;
/// What is given to blocking work that is still under way when everything else has ended.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

pub(crate) fn run(loaded: Loaded) -> ExitCode {
    if let Err(error) = logs::start(&loaded.settings.logging) {
        complain(&logs::chain(&error));
        return ExitCode::from(super::WRONG_CONFIGURATION);
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    block_on(serve(loaded))
}

/// Runs a command on the process' runtime.
pub(super) fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    let workers = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_WORKERS));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).thread_name("sidecar").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(command);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    code
}

async fn serve(loaded: Loaded) -> ExitCode {
    let stop = Stop::default();
    if let Err(error) = listen_for_signals(&stop) {
        tracing::error!(%error, "signals cannot be listened for");
        return ExitCode::FAILURE;
    }
    match Instance::start_loaded(&loaded, stop).await {
        Ok(instance) => match instance.ended().await {
            Ok(()) => ExitCode::SUCCESS,
            // The log has said why.
            Err(_) => ExitCode::FAILURE,
        },
        Err(reason) => {
            // Even where the log is switched off.
            if !tracing::enabled!(tracing::Level::ERROR) {
                complain(&format!("cannot start: {reason}"));
            }
            tracing::error!(%reason, "cannot start");
            ExitCode::FAILURE
        }
    }
}

/// The first SIGTERM or SIGINT drains, the second one cuts.
pub(super) fn listen_for_signals(stop: &Stop) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        for token in [&stop.drain, &stop.cut] {
            let name = tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "signal received");
            token.cancel();
        }
    });
    Ok(())
}
