//! A Kafka cluster in this process that a test scripts and breaks.
//!
//! [`FakeCluster`] answers as Apache Kafka 4.x answers: idempotent produce, fetch sessions, leader epochs, classic groups, offsets,
//! several nodes. It is reached over TCP on the loopback address or, on tokio's paused clock, over in-memory streams
//! ([`FakeCluster::connect`]). What a real cluster does by bad luck, a test asks for in one line: [`FakeCluster::on`].
//!
//! It does not know: replication lag (a batch is on all replicas at once, so the high watermark is the end of the log), transactions
//! (their requests are refused; a log can be given finished ones, see [`FakeCluster::plant`]), compaction, authentication, the
//! consumer group protocol of KIP-848.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod api;
mod cluster;
mod connection;
mod connector;
mod epochs;
mod faults;
mod group;
mod incoming;
mod listener;
mod log;
mod names;
mod producer_state;
mod request_log;
mod sessions;
mod settings;
mod shared;
mod state;
mod topic;

pub use cluster::{FakeCluster, GroupMember, NotThere};
pub use faults::{Fault, FaultOn, Held};
pub use kafka_protocol::messages::ApiKey;
pub use request_log::LoggedRequest;
pub use settings::Builder;
