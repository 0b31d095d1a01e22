//! The sidecar: Kafka for any backend that speaks HTTP and JSON.

mod config;
mod health;
mod http;
mod produce;
mod record;
mod telemetry;

fn main() {}
