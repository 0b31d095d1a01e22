//! The sidecar as its users see it.

mod configuration;
mod demo;
mod failures;
mod produce;
mod reactive;
mod scene;
