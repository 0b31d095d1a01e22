//! A Kafka client in pure Rust that knows nothing of HTTP.
//!
//! Floors, lowest first; a module names only lower floors:
//!
//! | floor | modules |
//! |---|---|
//! | P0 | [`wire`], [`error_code`], [`budget`], [`outcome`] |
//! | P1 | [`message`], [`record`] |
//! | P2 | [`connection`] |
//! | P3 | [`cluster`] |
//! | P4 | [`producer`], [`consumer`], [`admin`] |
//! | P5 | [`client`] |

pub mod admin;
pub mod budget;
pub mod client;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error_code;
pub mod message;
pub mod outcome;
pub mod producer;
pub mod record;
pub mod wire;

#[cfg(test)]
mod seeds;
