//! Bytes: varints and bounded reads.
