//! Foreign clients as witnesses, on real brokers: what we write they read, what they write we read, byte for byte.
//!
//! Every direction takes its records from the one table in [`samples`].

mod disk;
mod java;
mod jvm;
mod kcat;
mod ours;
mod samples;
mod tools;
