//! The sidecar as its users see it.

mod configuration;
mod produce;
mod reactive;
