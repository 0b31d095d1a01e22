//! What the sidecar says of itself: structured logs, and metrics in Prometheus' text.
//!
//! It knows none of the parts that it measures: they hold the handles of [`metrics`], or implement [`samples::Source`].

pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod samples;
