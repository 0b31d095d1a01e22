//! Integration tests: one binary.

mod behaviour;
mod client;
mod group;
mod layers;
mod sidecar;
mod support;
mod witness;
