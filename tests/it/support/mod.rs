//! What the tests stand on.

pub(crate) mod backend;
pub(crate) mod history;
pub(crate) mod kafka;
pub(crate) mod kcat;
pub(crate) mod member;
pub(crate) mod operator;
pub(crate) mod process;
