//! Integration tests: one binary.

mod behaviour;
mod client;
mod layers;
mod sidecar;
mod support;
mod witness;
