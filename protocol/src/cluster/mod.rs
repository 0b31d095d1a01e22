//! The brokers, the metadata, the coordinators.
