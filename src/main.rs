//! The sidecar: Kafka for any backend that speaks HTTP and JSON.

mod config;
mod record;

fn main() {}
