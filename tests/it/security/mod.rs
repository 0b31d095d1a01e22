//! TLS and SASL on real brokers of both versions: what must work, and what must name its cause.

mod authorities;
mod refused;
mod scene;
mod sessions;
mod works;
