//! Opens the others.
