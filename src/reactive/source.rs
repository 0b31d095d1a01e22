//! Where records come from, as the lanes see it: a membership that hands out streams, and streams of batches.
//!
//! It knows nothing of backends. The traits are implemented for the Kafka consumer here and by a script in tests.

use std::{future::Future, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use protocol::{
    consumer::{CommitError, CommitOffset, Committer, Consumer, Event, Fault, FetchedRecords, Lease, PartitionStream},
    record::Place,
};
use tokio::time::Instant;

use crate::record::SourceRecord;

/// One record, borrowed from its batch.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: i64,
    /// Where it begins in its batch.
    pub(crate) place: Place,
    /// Milliseconds since the epoch.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl RawRecord<'_> {
    /// The last header of that name (names are compared without case), if its value is text.
    pub(crate) fn header_text(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        found.and_then(|(_, value)| *value).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// With bytes of its own.
    pub(crate) fn to_source(&self, lease: &Lease) -> SourceRecord {
        SourceRecord {
            topic: lease.topic().clone(),
            partition: lease.partition(),
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)))
                .collect(),
        }
    }
}

/// Records of one partition as they were fetched. Holds their memory until it is dropped.
pub(crate) trait RecordBatch: Send + Sync + 'static {
    /// The offset after the last record, removed ones included.
    fn next_offset(&self) -> i64;
    /// For commits (KIP-320).
    fn leader_epoch(&self) -> i32;
    /// The end of what can be read, as of the fetch.
    fn high_watermark(&self) -> i64;
    /// The first offset that is due.
    fn position(&self) -> i64;
    /// How often the position went back before it was fetched: offsets of different numbers are those of different logs.
    fn rewinds(&self) -> u32;
    /// Shows the records from `from` on, in order, until told to break.
    fn visit(&self, from: Place, visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>);
}

/// The batches of one assigned partition.
pub(crate) trait Stream: Send + Sync + 'static {
    fn lease(&self) -> &Lease;
    /// The next batch; None once the lease is no longer Active. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Arc<dyn RecordBatch>>> + Send;
    /// Goes on from `offset`; what was fetched is dropped.
    fn seek(&mut self, offset: i64);
    fn pause(&self);
    fn resume(&self);
}

/// Commits offsets.
pub(crate) trait Commit: Clone + Send + Sync + 'static {
    /// Commits and waits for the answer.
    fn commit(&self, offset: CommitOffset) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// What a membership tells.
pub(crate) enum Change<S> {
    Assigned(Vec<S>),
    Revoking(Handover),
    Lost(Vec<Lease>),
    Fault(Fault),
}

/// Partitions to be given up; `release` says that they are drained.
pub(crate) struct Handover {
    pub(crate) leases: Vec<Lease>,
    pub(crate) deadline: Instant,
    pub(crate) release: Box<dyn FnOnce() + Send>,
}

/// Membership in a group.
pub(crate) trait Membership: Send + 'static {
    type Stream: Stream;
    type Commit: Commit;
    /// The next change; None once the group was left. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Change<Self::Stream>>> + Send;
    fn committer(&self) -> Self::Commit;
    /// Gives everything up (which is told by [`Change::Revoking`]) and then leaves the group.
    fn close(&self);
}

impl RecordBatch for FetchedRecords {
    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn rewinds(&self) -> u32 {
        self.rewinds
    }

    fn visit(&self, from: Place, visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>) {
        for (place, record) in self.iter_from(from) {
            let raw = RawRecord {
                offset: record.offset,
                place,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
                headers: record.headers.iter().collect(),
            };
            if visit(raw).is_break() {
                return;
            }
        }
    }
}

impl Stream for PartitionStream {
    fn lease(&self) -> &Lease {
        PartitionStream::lease(self)
    }

    async fn next(&mut self) -> Option<Arc<dyn RecordBatch>> {
        PartitionStream::next(self).await.map(|records| Arc::new(records) as Arc<dyn RecordBatch>)
    }

    fn seek(&mut self, offset: i64) {
        PartitionStream::seek(self, offset);
    }

    fn pause(&self) {
        PartitionStream::pause(self);
    }

    fn resume(&self) {
        PartitionStream::resume(self);
    }
}

impl Commit for Committer {
    async fn commit(&self, offset: CommitOffset) -> Result<(), CommitError> {
        Committer::commit(self, vec![offset]).await
    }
}

impl Membership for Consumer {
    type Stream = PartitionStream;
    type Commit = Committer;

    async fn next(&mut self) -> Option<Change<PartitionStream>> {
        Some(match Consumer::next(self).await? {
            Event::Assigned(streams) => Change::Assigned(streams),
            Event::Revoking(revocation) => Change::Revoking(Handover {
                leases: revocation.leases.clone(),
                deadline: revocation.deadline,
                release: Box::new(move || revocation.released()),
            }),
            Event::Lost(leases) => Change::Lost(leases),
            Event::Fault(fault) => Change::Fault(fault),
        })
    }

    fn committer(&self) -> Committer {
        Consumer::committer(self)
    }

    fn close(&self) {
        Consumer::close(self);
    }
}
