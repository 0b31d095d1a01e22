//! Integration tests: one binary.

mod behaviour;
mod client;
mod cluster;
mod group;
mod layers;
mod security;
mod sidecar;
mod support;
mod witness;
