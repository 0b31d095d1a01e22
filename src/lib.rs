//! The sidecar: Kafka for any backend that speaks HTTP and JSON.
//!
//! A library only so that the binary and the fuzz targets share it; [`run`] is the process, [`door`] what the fuzz targets see.

mod app;
mod audit;
mod backend;
mod cli;
mod config;
mod dead_letter;
pub mod door;
mod format;
mod health;
mod http;
mod produce;
mod reactive;
mod record;
mod telemetry;
mod tls;
mod token;

pub use cli::run;
