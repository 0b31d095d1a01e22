//! The sidecar: Kafka for any backend that speaks HTTP and JSON.

mod audit;
mod backend;
mod config;
mod dead_letter;
mod format;
mod reactive;
mod record;

fn main() {}
