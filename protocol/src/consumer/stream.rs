//! The records of one assigned partition, on their way from the fetcher to whoever processes them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::{Fault, FaultKind, FetchMemory, FetchedRecords, Lease, fetcher::Command, position::Position};
use crate::{
    budget::Reservation,
    record::{BatchError, Compression, RawBatch, Records},
};

/// What is kept of each batch beside its bytes, roughly: what counts where batches hold one small record each.
pub(super) const BATCH_OVERHEAD: usize = 256;

/// A batch that was fetched and not yet unpacked.
pub(super) struct Chunk {
    /// None where there is nothing to see (control and aborted batches): only the position moves.
    pub(super) batch: Option<RawBatch>,
    pub(super) position: i64,
    pub(super) next_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) high_watermark: i64,
    /// The seek after which it was fetched.
    pub(super) seek: u64,
    /// As of [`FetchedRecords::rewinds`].
    pub(super) rewinds: u32,
    pub(super) bytes: usize,
    pub(super) memory: Option<Arc<Reservation>>,
}

/// What fetcher and stream share of one partition.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// Bytes that were fetched and not taken from the stream.
    pub(super) buffered: AtomicUsize,
    pub(super) paused: AtomicBool,
    /// Counts seeks; what was fetched before the last one is dropped.
    pub(super) seek: AtomicU64,
}

/// The stream's way back to the fetcher and to the owner of the consumer.
#[derive(Clone)]
pub(super) struct Back {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) wake: Arc<Notify>,
    pub(super) faults: mpsc::UnboundedSender<Fault>,
    pub(super) memory: FetchMemory,
}

impl Chunk {
    /// Says where reading goes on after a rewind.
    pub(super) fn begin(position: Position, seek: u64, rewinds: u32) -> Self {
        let Position { offset, epoch } = position;
        Self {
            batch: None,
            position: offset,
            next_offset: offset,
            leader_epoch: epoch,
            high_watermark: offset,
            seek,
            rewinds,
            bytes: 0,
            memory: None,
        }
    }
}

/// The records of one assigned partition. Reading it moves nothing in Kafka; only a commit does.
pub struct PartitionStream {
    lease: Lease,
    chunks: mpsc::UnboundedReceiver<Chunk>,
    /// A chunk that was taken and waits for memory.
    held: Option<Chunk>,
    /// After a batch that cannot be read: nothing of that log follows before a seek.
    standing: bool,
    /// What was handed out last: the offset after it, and its rewinds.
    next_offset: i64,
    rewinds: u32,
    feed: Arc<Feed>,
    back: Back,
}

impl PartitionStream {
    pub(super) fn new(lease: Lease, chunks: mpsc::UnboundedReceiver<Chunk>, feed: Arc<Feed>, back: Back) -> Self {
        Self { lease, chunks, held: None, standing: false, next_offset: 0, rewinds: 0, feed, back }
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The next records, in order; None once the lease is no longer Active or the consumer was closed. A batch that cannot
    /// be read is reported as a [`Fault`], and the stream waits until a seek passes it, its log is gone or the lease ends.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<FetchedRecords> {
        loop {
            if !self.lease.is_active() {
                return None;
            }
            if self.held.is_none() {
                let lease = self.lease.clone();
                tokio::select! {
                    biased;
                    () = lease.revoking() => return None,
                    chunk = self.chunks.recv() => self.held = Some(self.count_taken(chunk?)),
                }
            }
            let seek = self.feed.seek.load(Ordering::Acquire);
            let (standing, rewinds) = (self.standing, self.rewinds);
            self.held.take_if(|chunk| chunk.seek != seek || standing && chunk.rewinds == rewinds);
            let Some(chunk) = &self.held else { continue };
            let room = self.room_for(chunk).await;
            if !self.lease.is_active() {
                return None;
            }
            let Some(chunk) = self.held.take() else { continue };
            (self.standing, self.rewinds) = (false, chunk.rewinds);
            match self.unpack(chunk, room) {
                Ok(records) => {
                    self.next_offset = records.next_offset;
                    return Some(records);
                }
                Err((offset, kind)) => self.stand(offset, kind),
            }
        }
    }

    /// Fetches from `offset` on; what was fetched before is dropped. Also ends the standing still after a bad batch. Below
    /// what was handed out it counts as a rewind. Where the log was truncated or made anew and the records that say so were
    /// not handed out yet, the offset is one of a log that is gone: reading goes on where the new one does.
    pub fn seek(&mut self, offset: i64) {
        let seek = self.feed.seek.fetch_add(1, Ordering::AcqRel) + 1;
        self.held = None;
        self.standing = false;
        let (rewinds, back) = (self.rewinds, offset < self.next_offset);
        let _ = self.back.commands.send(Command::Seek { lease: self.lease.clone(), offset, seek, rewinds, back });
    }

    /// Stops fetching; what was fetched already stays and is still handed out by `next`.
    pub fn pause(&self) {
        self.feed.paused.store(true, Ordering::Release);
    }

    pub fn resume(&self) {
        self.feed.paused.store(false, Ordering::Release);
        self.back.wake.notify_one();
    }

    fn count_taken(&self, chunk: Chunk) -> Chunk {
        self.feed.buffered.fetch_sub(chunk.bytes, Ordering::AcqRel);
        self.back.wake.notify_one();
        chunk
    }

    /// Memory for the unpacked batch: a guess, put right when it is unpacked.
    async fn room_for(&self, chunk: &Chunk) -> Option<Reservation> {
        let batch = chunk.batch.as_ref()?;
        match batch.header.compression() {
            Ok(Compression::None) | Err(_) => None,
            Ok(_) => {
                let unpacked = &self.back.memory.unpacked;
                let guess = batch.bytes.len().saturating_mul(4).min(unpacked.limit());
                tokio::select! {
                    biased;
                    () = self.lease.revoking() => None,
                    room = unpacked.reserve(guess) => Some(room),
                }
            }
        }
    }

    fn unpack(&self, chunk: Chunk, room: Option<Reservation>) -> Result<FetchedRecords, (i64, FaultKind)> {
        let mut memory = chunk.memory;
        let records = match chunk.batch {
            None => None,
            Some(batch) => {
                let offset = chunk.position.max(batch.header.base_offset);
                let limit = self.back.memory.largest();
                let records = batch.records(limit).and_then(check_all).map_err(|error| (offset, fault(error)))?;
                if let Some(mut room) = room {
                    room.resize(records.len_bytes() + BATCH_OVERHEAD);
                    memory = Some(Arc::new(room));
                }
                Some(records)
            }
        };
        Ok(FetchedRecords {
            lease: self.lease.clone(),
            records,
            position: chunk.position,
            next_offset: chunk.next_offset,
            leader_epoch: chunk.leader_epoch,
            high_watermark: chunk.high_watermark,
            rewinds: chunk.rewinds,
            _memory: memory,
        })
    }

    fn stand(&mut self, offset: i64, kind: FaultKind) {
        self.standing = true;
        let _ = self.back.commands.send(Command::Stand { lease: self.lease.clone(), offset, rewinds: self.rewinds });
        let _ = self.back.faults.send(Fault {
            topic: Some(self.lease.topic().clone()),
            partition: Some(self.lease.partition()),
            offset: Some(offset),
            kind,
        });
    }
}

/// Walks all records once, so that whoever gets them meets no broken one half-way.
fn check_all(records: Records) -> Result<Records, BatchError> {
    for record in &records {
        record?;
    }
    Ok(records)
}

fn fault(error: BatchError) -> FaultKind {
    match error {
        BatchError::DecompressedTooLarge { limit, .. } => {
            FaultKind::BeyondBudget { size: limit.saturating_add(1), limit }
        }
        error => FaultKind::CorruptBatch(error.to_string()),
    }
}
