//! What the answers to fetch requests do to the partitions that were asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::{Asked, Fetcher};
use crate::{
    budget::Reservation,
    cluster::NodeId,
    connection::{RequestError, RequestErrorKind},
    consumer::{
        FaultKind, Isolation, OffsetReset,
        fetch::FetchAnswer,
        position::{self, FetchError, Phase, Position},
        session::Key,
        stream::BATCH_OVERHEAD,
        walk::Walk,
    },
    error_code::ErrorCode,
    message::{DivergingEpoch, FetchedPartition},
    record::{AbortedTransactions, Batches},
};

impl Fetcher {
    pub(super) fn take_records(
        &mut self,
        node: NodeId,
        source: usize,
        mut asked: BTreeMap<Key, Asked>,
        mut memory: Reservation,
        answer: Result<FetchAnswer, RequestError>,
    ) {
        let sources = self.brokers.entry(node).or_default();
        sources[source].polls_until = None;
        let session = &mut sources[source].session;
        // What was sought away, taken from us or given anew meanwhile is none of this answer's business.
        asked.retain(|key, asked| {
            self.partitions.get_mut(key).is_some_and(|partition| {
                let current =
                    partition.lease.same(&asked.lease) && partition.feed.seek.load(Ordering::Acquire) == asked.seek;
                if current {
                    partition.busy = false;
                }
                current
            })
        });
        let answer = match answer {
            Ok(answer) if answer.error.is_none() => {
                session.answered(answer.session_id);
                answer
            }
            Ok(answer) => {
                tracing::debug!(code = %answer.error, node, "the fetch session has to start afresh");
                session.refused(answer.error);
                self.after_refused_fetch(&asked, answer.error);
                return;
            }
            Err(error) => {
                session.reset();
                drop(memory);
                self.after_lost_fetch(node, &asked, &error);
                return;
            }
        };
        for (topic, partition, leader, epoch, endpoint) in answer.leader_hints() {
            self.cluster.apply_leader_hint(&topic, partition, leader, epoch, endpoint);
        }
        let whole = answer.bytes;
        if whole > memory.bytes() {
            memory = self.budget.charge(whole);
        } else {
            memory.shrink(whole);
        }
        // A session's answer leaves out those that have nothing.
        for key in asked.keys() {
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.at_end = true;
            }
        }
        for (key, fetched) in answer.partitions {
            if let Some(Asked { seek, .. }) = asked.get(&key) {
                self.take_partition((node, source), key, *seek, fetched, whole, &mut memory);
            }
        }
    }

    fn after_refused_fetch(&mut self, asked: &BTreeMap<Key, Asked>, code: ErrorCode) {
        let of_the_session = matches!(
            code,
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
                | ErrorCode::INVALID_FETCH_SESSION_EPOCH
                | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
        );
        if !of_the_session {
            self.cluster.request_refresh();
            for key in asked.keys() {
                self.back_off(key);
            }
        }
    }

    fn after_lost_fetch(&mut self, node: NodeId, asked: &BTreeMap<Key, Asked>, error: &RequestError) {
        tracing::debug!(node, error = %error.chain(), "a fetch failed; trying again");
        let too_large = match &error.kind {
            RequestErrorKind::FrameTooLarge { size, limit, .. } => Some((*size, *limit)),
            _ => None,
        };
        if too_large.is_none() {
            self.cluster.request_refresh();
        }
        for (key, asked) in asked {
            // Among several it is not known whose it is: each is asked alone next.
            let alone = self.partitions.get(key).is_some_and(|partition| partition.alone);
            match too_large {
                Some((size, limit)) if alone => {
                    self.report(key, asked.wanted.offset, FaultKind::BeyondBudget { size, limit });
                    self.stand(key);
                }
                Some(_) => {
                    if let Some(partition) = self.partitions.get_mut(key) {
                        partition.alone = true;
                    }
                }
                None => self.back_off(key),
            }
        }
    }

    pub(super) fn take_partition(
        &mut self,
        from: (NodeId, usize),
        key: Key,
        seek: u64,
        fetched: FetchedPartition,
        whole: usize,
        memory: &mut Reservation,
    ) {
        let Some(Phase::Fetching(position)) = self.partitions.get(&key).map(|partition| partition.phase) else {
            return;
        };
        if let Some(DivergingEpoch { epoch, end_offset }) = fetched.diverging_epoch {
            self.truncated(&key, position, Position { offset: end_offset, epoch }, seek);
            return;
        }
        if !fetched.error.is_none() {
            self.fetch_failed(from, &key, position, fetched.error);
            return;
        }
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.backoff.reset();
        partition.refusal_told = false;
        // Whoever has nothing is not the one that is too large.
        partition.alone = false;
        partition.at_end = fetched.records.is_empty();
        if partition.at_end {
            return;
        }
        // A small part of a large answer is copied out, so that it does not keep the whole answer in memory.
        let size = fetched.records.len();
        let (records, share) = if size * 2 < whole {
            (bytes::Bytes::copy_from_slice(&fetched.records), memory.take(size))
        } else {
            (fetched.records.clone(), memory.take(whole))
        };
        let mut share = if share.bytes() < size { self.budget.charge(size) } else { share };
        share.absorb(self.budget.charge(Batches::new(records.clone()).count() * BATCH_OVERHEAD));
        let mut walk = Walk {
            aborted: AbortedTransactions::new(
                fetched.aborted_transactions.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)),
            ),
            read_committed: matches!(self.config.isolation, Isolation::ReadCommitted),
            check_crcs: self.config.check_crcs,
            end: if matches!(self.config.isolation, Isolation::ReadCommitted) {
                fetched.last_stable_offset
            } else {
                fetched.high_watermark
            },
            memory: Arc::new(share),
            position,
            seek,
            rewinds: partition.lease.rewinds(),
        };
        let fault = walk.deliver(records, &partition.feed, &partition.chunks);
        partition.phase = Phase::Fetching(walk.position);
        if let Some((offset, kind)) = fault {
            self.report(&key, offset, kind);
            self.stand(&key);
        }
    }

    fn fetch_failed(&mut self, (node, source): (NodeId, usize), key: &Key, position: Position, code: ErrorCode) {
        tracing::debug!(topic = %key.0, partition = key.1, offset = position.offset, %code, "a partition's fetch failed");
        match position::on_fetch_error(code) {
            FetchError::Refresh => {
                self.cluster.request_refresh();
                self.back_off(key);
            }
            FetchError::BackOff => self.back_off(key),
            FetchError::Validate => {
                self.cluster.request_refresh();
                if let Some(partition) = self.partitions.get_mut(key) {
                    partition.phase = partition.phase.leader_changed();
                }
                self.back_off(key);
            }
            FetchError::OutOfRange => match self.config.offset_reset {
                OffsetReset::None => {
                    self.report(key, position.offset, FaultKind::NoPosition);
                    self.stand(key);
                }
                reset => {
                    tracing::warn!(topic = %key.0, partition = key.1, offset = position.offset, ?reset,
                        "the offset is no longer in the log (retention?): going on by auto.offset.reset");
                    if let Some(partition) = self.partitions.get_mut(key) {
                        partition.rewind(Phase::Resetting(reset));
                    }
                }
            },
            FetchError::Corrupt => {
                self.report(key, position.offset, FaultKind::CorruptBatch(code.to_string()));
                self.stand(key);
            }
            FetchError::Refused => self.refuse(key, code),
        }
        if let Some(sources) = self.brokers.get_mut(&node) {
            sources[source].session.name_again(key);
        }
    }
}
