//! The sidecar as its users see it.

mod audit;
mod backend_calls;
mod configuration;
mod dead_letters;
mod demo;
mod doors;
mod failures;
mod load;
pub(crate) mod produce;
mod reactive;
pub(crate) mod scene;
mod sharing;
mod signals;
mod slow;
mod witness;
