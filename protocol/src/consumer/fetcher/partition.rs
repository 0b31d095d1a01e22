//! What the fetcher knows of one partition.

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use crate::{
    cluster::{Backoff, NodeId},
    consumer::{
        Lease,
        position::{Phase, Position},
        stream::{Chunk, Feed},
    },
};

pub(super) struct Partition {
    pub(super) lease: Lease,
    pub(super) feed: Arc<Feed>,
    pub(super) chunks: mpsc::UnboundedSender<Chunk>,
    pub(super) phase: Phase,
    /// A lookup or a fetch that names it is on its way.
    pub(super) busy: bool,
    pub(super) backoff: Backoff,
    pub(super) not_before: Instant,
    /// The leader (and its epoch) that it was last asked of.
    pub(super) leader: Option<(NodeId, i32)>,
    /// Of the topic that the position belongs to; nil = not known yet.
    pub(super) topic_id: Uuid,
    /// Where the last rewind went to; None before one, or until that is known.
    pub(super) begins: Option<Position>,
    /// There was nothing to read when it was asked for last.
    pub(super) at_end: bool,
    /// Asked alone after an answer that was too large, to find the batch that is.
    pub(super) alone: bool,
    pub(super) refusal_told: bool,
}

impl Partition {
    /// Whether the topic was deleted and made anew since its position was found; takes the new one's id.
    pub(super) fn is_of_another(&mut self, topic_id: Uuid) -> bool {
        if topic_id.is_nil() {
            return false;
        }
        let known = std::mem::replace(&mut self.topic_id, topic_id);
        !known.is_nil() && known != topic_id
    }

    /// What was read so far is of a log that is gone: none of it is committed any more.
    pub(super) fn rewind(&mut self, phase: Phase) {
        self.lease.rewind();
        self.begins = None;
        self.phase = phase;
    }

    /// Reads on from `position`; after a rewind the stream is told so first.
    pub(super) fn begin(&mut self, position: Position, seek: u64) {
        self.phase = Phase::Fetching(position);
        self.backoff.reset();
        let rewinds = self.lease.rewinds();
        if rewinds > 0 {
            self.begins = Some(position);
            // Whoever dropped the stream does not want to know.
            let _ = self.chunks.send(Chunk::begin(position, seek, rewinds));
        }
    }
}
