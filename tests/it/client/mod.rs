//! The client by itself: on the fake, which sees every request and breaks what a test names, and beside Java in one group.

mod consumer;
mod counters;
mod hanging;
mod java_group;
mod oversized;
mod producer;
mod request_log;
mod scene;
