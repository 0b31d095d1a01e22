//! Configuration: files and environment in, checked [`settings::Settings`] out.

pub mod settings;
