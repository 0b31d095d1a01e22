//! The fetcher's questions about positions: where a log begins or ends, and whether a position is still in it.
//!
//! What is asked and what an answer means stand in `lookup` and `position`; here it becomes the phase of a partition.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::{Done, Fetcher};
use crate::{
    cluster::NodeId,
    connection::RequestError,
    consumer::{
        FaultKind,
        lookup::{self, Found, ToCheck},
        position::{self, Phase, Position, Validation},
        session::Key,
    },
    error_code::ErrorCode,
};

impl Fetcher {
    fn mark_busy(&mut self, keys: impl Iterator<Item = Key>) -> Vec<(Key, u64)> {
        let mut asked = Vec::new();
        for key in keys {
            if let Some(partition) = self.partitions.get_mut(&key) {
                partition.busy = true;
                asked.push((key, partition.feed.seek.load(Ordering::Acquire)));
            }
        }
        asked
    }

    pub(super) fn ask_ends(&mut self, leader: NodeId, timestamps: Vec<(Key, i64)>) {
        let asked = self.mark_busy(timestamps.iter().map(|(key, _)| key.clone()));
        let (cluster, isolation) = (self.cluster.clone(), self.config.isolation);
        self.requests.push(Box::pin(async move {
            Done::Ends { asked, answer: lookup::list_offsets(&cluster, leader, isolation, timestamps).await }
        }));
    }

    pub(super) fn ask_epochs(&mut self, leader: NodeId, positions: Vec<ToCheck>) {
        let asked = self.mark_busy(positions.iter().map(|(key, _)| key.clone()));
        let cluster = self.cluster.clone();
        self.requests.push(Box::pin(async move {
            Done::Epochs { asked, answer: lookup::epoch_ends(&cluster, leader, positions).await }
        }));
    }

    pub(super) fn take_lookup(
        &mut self,
        asked: Vec<(Key, u64)>,
        answer: Result<Vec<Found>, RequestError>,
        take: fn(&mut Self, Found, u64),
    ) {
        let mut open: BTreeMap<Key, u64> = BTreeMap::new();
        for (key, seek) in asked {
            let Some(partition) = self.partitions.get_mut(&key) else { continue };
            if partition.feed.seek.load(Ordering::Acquire) == seek {
                partition.busy = false;
                open.insert(key, seek);
            }
        }
        match answer {
            Ok(found) => {
                for found in found {
                    if let Some(seek) = open.remove(&found.key) {
                        take(self, found, seek);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "asking for offsets failed; trying again");
                self.cluster.request_refresh();
            }
        }
        // Whatever the answer left out is asked again later.
        for key in open.into_keys() {
            self.back_off(&key);
        }
    }

    pub(super) fn take_end(&mut self, found: Found, seek: u64) {
        let Found { key, code, offset, epoch } = found;
        match code {
            ErrorCode::NONE if offset >= 0 => {
                if let Some(partition) = self.partitions.get_mut(&key) {
                    tracing::debug!(topic = %key.0, partition = key.1, offset, "no committed offset: starting by auto.offset.reset");
                    partition.begin(Position { offset, epoch }, seek);
                }
            }
            code if code.retriable() || code.is_none() => {
                self.cluster.request_refresh();
                self.back_off(&key);
            }
            code => self.refuse(&key, code),
        }
    }

    pub(super) fn take_epoch(&mut self, found: Found, seek: u64) {
        let Some(Phase::Validating(position)) = self.partitions.get(&found.key).map(|partition| partition.phase) else {
            return;
        };
        match position::on_validation(found.code, position, found.offset) {
            Validation::Valid => {
                if let Some(partition) = self.partitions.get_mut(&found.key) {
                    partition.phase = Phase::Fetching(position);
                    partition.backoff.reset();
                }
            }
            Validation::Truncated { end } => {
                self.truncated(&found.key, position, Position { offset: end, epoch: found.epoch }, seek);
            }
            Validation::Again { refresh } => {
                if refresh {
                    self.cluster.request_refresh();
                }
                self.back_off(&found.key);
            }
            Validation::Refused => self.refuse(&found.key, found.code),
        }
    }

    pub(super) fn truncated(&mut self, key: &Key, position: Position, end: Position, seek: u64) {
        self.report(key, position.offset, FaultKind::Truncated { position: position.offset, end: end.offset });
        if let Some(partition) = self.partitions.get_mut(key) {
            // Commits go back with the log.
            partition.rewind(Phase::Fetching(end));
            partition.begin(end, seek);
        }
    }
}
