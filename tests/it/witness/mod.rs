//! Foreign clients as witnesses, on real brokers: what we write they read, what they write we read, byte for byte.
//!
//! Every direction takes its records from the one table in [`samples`].

mod disk;
mod java;
pub(crate) mod jvm;
mod kcat;
pub(crate) mod ours;
pub(crate) mod samples;
mod tools;
