//! The client on a real Apache Kafka.

mod round_trip;
