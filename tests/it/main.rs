//! Integration tests: one binary.

mod client;
mod layers;
mod support;
