//! The record batch (magic 2, KIP-98): header view, borrowed record iterator, in-place builder, codecs.
//!
//! Reading goes [`Batches`] -> [`RawBatch`] -> [`Records`] -> [`RecordView`]: the header is enough to skip a batch and to
//! know the next offset, nothing is decompressed before [`RawBatch::records`], and a record is a view into the batch's
//! bytes. Writing goes [`BatchBuilder`] -> [`SealedBatch`]. No allocation is made by a length that the bytes claim.
//! It knows nothing of topics, partitions or requests.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod aborted;
mod batches;
mod builder;
mod checksum;
mod codec;
mod control;
mod error;
#[cfg(test)]
mod golden;
mod header;
#[cfg(test)]
mod hostile;
mod records;
mod sealed;

pub use aborted::AbortedTransactions;
pub use batches::{Batches, RawBatch};
pub use builder::BatchBuilder;
pub use codec::{Compression, UnknownCompression};
pub use control::{ControlType, control_batch};
pub use error::BatchError;
pub use header::{BatchHeader, HEADER_LEN, NO_PRODUCER_ID};
pub use records::{HeaderIter, Headers, Place, RecordIter, RecordView, Records};
pub use sealed::SealedBatch;
