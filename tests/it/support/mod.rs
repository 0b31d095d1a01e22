//! What the tests stand on.

pub(crate) mod kafka;
pub(crate) mod kcat;
pub(crate) mod process;
