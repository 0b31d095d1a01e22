//! Comparisons of the `protocol` client with librdkafka, and of the sidecar with its targets, on a real Kafka.
//!
//! The parent starts the broker and alternates the sides; each measurement runs in a child process of its own (this binary
//! again), so that CPU time and memory belong to one side. What is measured stands in `README.md`.

mod backlog;
mod child;
mod consume;
mod footprint;
mod kafka;
mod latency;
mod meter;
mod produce;
mod reactive;
mod record;
mod report;
mod round;
mod settings;
mod sidecar;
mod topic;

use anyhow::Result;
use clap::{Parser, Subcommand};
use settings::Settings;

/// Every allocation of a child that runs our client is counted. librdkafka's own go past it, to malloc.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(name = "bench", about = "Our Kafka client beside librdkafka on a real broker, alternating")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Records per second, CPU and allocations per record of the producers
    Produce(Settings),
    /// Records per second, CPU and allocations per record of the consumers
    Consume(Settings),
    /// From the intended send to the acknowledgement and to the consumer, at a steady rate
    Latency {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        pace: latency::Pace,
    },
    /// From the producer's send to the sidecar's call of the backend, at a steady rate
    Reactive(reactive::Reactive),
    /// Memory and rate of the sidecar with a backlog behind a backend that hangs, then answers
    Backlog(backlog::Backlog),
    /// Resident set at rest, and the time from the start until it is ready
    Footprint(footprint::Footprint),
    /// Starts a broker, prints its address, and keeps it until standard input ends
    Broker,
    #[command(hide = true)]
    Child { job: String },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Produce(settings) => produce::compare(&settings),
        Command::Consume(settings) => consume::compare(&settings),
        Command::Latency { settings, pace } => latency::compare(&settings, pace),
        Command::Reactive(reactive) => reactive.run(),
        Command::Backlog(backlog) => backlog.run(),
        Command::Footprint(footprint) => footprint.run(),
        Command::Broker => kafka::keep(),
        Command::Child { job } => child::run(&job),
    }
}
