//! The sidecar as its users see it.

mod configuration;
mod demo;
mod produce;
mod reactive;
