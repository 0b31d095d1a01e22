//! The client on a real Apache Kafka.

mod java_group;
mod round_trip;
