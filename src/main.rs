//! The sidecar: Kafka for any backend that speaks HTTP and JSON.

mod backend;
mod config;
mod format;
mod record;

fn main() {}
