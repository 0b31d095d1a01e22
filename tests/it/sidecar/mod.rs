//! The sidecar as its users see it.

mod audit;
mod backend_calls;
mod configuration;
mod dead_letters;
mod demo;
mod doors;
mod failures;
mod load;
mod produce;
mod reactive;
mod scene;
mod sharing;
mod signals;
mod slow;
mod witness;
