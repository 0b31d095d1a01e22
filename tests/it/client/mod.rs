//! The client on the fake, which sees every request and breaks what a test names.

mod producer;
mod request_log;
mod scene;
