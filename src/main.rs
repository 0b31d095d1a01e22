//! The sidecar: Kafka for any backend that speaks HTTP and JSON.

mod app;
mod audit;
mod backend;
mod cli;
mod config;
mod dead_letter;
mod format;
mod health;
mod http;
mod produce;
mod reactive;
mod record;
mod telemetry;

/// musl's own allocator is several times slower across threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
