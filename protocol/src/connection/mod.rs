//! One socket to a broker.
