//! What the tests stand on.

pub(crate) mod kafka;
pub(crate) mod member;
pub(crate) mod process;
