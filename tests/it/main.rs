//! Integration tests: one binary.

mod client;
mod layers;
mod sidecar;
mod support;
mod witness;
