//! The commits of a group: what waits, what is on its way, who waits for it. Pure.
//!
//! One request is on its way at a time, because two sockets (or a retry) keep no order between two of them. A later offset
//! of a partition takes the place of an earlier one that still waits, and answers for it.
//!
//! **A lease never goes back**: an offset lower than one that was queued for the same lease before is refused. Where the
//! position itself went back ([`Lease::rewinds`]) offsets begin anew, and those of before are refused: they are of another log.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use super::{
    super::{CommitError, CommitOffset, Lease},
    assignor::Slot,
    requests::Offset,
    table::{self, Fix},
};
use crate::{cluster::Backoff, error_code::ErrorCode};

/// So often one offset is sent before whoever waits for it hears of the failure. A rebalance costs no try.
const TRIES: u32 = 20;
/// The same for a topic that does not exist: it may have been deleted, and must not hold up a hand-over.
const UNKNOWN_TOPIC_TRIES: u32 = 5;
/// So many commits may wait for their answers.
const MAX_WAITERS: usize = 4096;

pub(super) type WaiterId = u64;

/// An answer to somebody who waits.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) waiter: WaiterId,
    pub(super) result: Result<(), CommitError>,
}

struct Entry {
    lease: Lease,
    rewinds: u32,
    offset: Offset,
    tries: u32,
    waiters: Vec<WaiterId>,
}

impl Entry {
    /// Whether the position went back since it was admitted.
    fn is_rewound(&self) -> bool {
        self.rewinds != self.lease.rewinds()
    }
}

/// How far a lease has gone.
struct Floor {
    lease: Lease,
    rewinds: u32,
    offset: i64,
}

struct Waiter {
    /// Partitions without an answer yet.
    left: usize,
    failed: Option<CommitError>,
}

pub(super) struct CommitQueue {
    waiting: BTreeMap<Slot, Entry>,
    on_its_way: BTreeMap<Slot, Entry>,
    floors: BTreeMap<Slot, Floor>,
    waiters: BTreeMap<WaiterId, Waiter>,
    not_before: Instant,
    backoff: Backoff,
}

fn refused(slot: &Slot, code: Option<ErrorCode>, why: &str) -> CommitError {
    CommitError { code, reason: format!("{}-{}: {why}", slot.0, slot.1) }
}

const NOT_OURS: &str = "the partition is no longer ours";
const REWOUND: &str = "the position went back since";

impl CommitQueue {
    pub(super) fn new(backoff: (Duration, Duration), now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            on_its_way: BTreeMap::new(),
            floors: BTreeMap::new(),
            waiters: BTreeMap::new(),
            not_before: now,
            backoff: Backoff::new(backoff.0, backoff.1),
        }
    }

    /// Takes offsets in. What may not be committed is answered with an error; the rest is committed all the same, and the
    /// waiter hears of both when all of it is answered.
    pub(super) fn admit<'a>(
        &mut self,
        waiter: WaiterId,
        offsets: Vec<CommitOffset>,
        ours: impl Fn(&Slot) -> Option<&'a Lease>,
        replies: &mut Vec<Reply>,
    ) {
        if self.waiters.len() >= MAX_WAITERS {
            let reason = format!("{MAX_WAITERS} commits wait for an answer already");
            replies.push(Reply { waiter, result: Err(CommitError { code: None, reason }) });
            return;
        }
        let mut failed = None;
        let mut slots = BTreeSet::new();
        for commit in offsets {
            let slot = (commit.lease.topic().clone(), commit.lease.partition());
            if self.waiting.get(&slot).is_some_and(Entry::is_rewound)
                && let Some(entry) = self.waiting.remove(&slot)
            {
                self.settle(entry.waiters, Some(refused(&slot, None, REWOUND)), replies);
            }
            let held = ours(&slot).is_some_and(|lease| lease.same(&commit.lease) && !lease.is_lost());
            match held.then(|| self.admit_one(&slot, commit)) {
                Some(Ok(())) => {
                    slots.insert(slot);
                }
                Some(Err(error)) => failed = failed.or(Some(error)),
                None => failed = failed.or_else(|| Some(refused(&slot, None, NOT_OURS))),
            }
        }
        for slot in &slots {
            if let Some(entry) = self.waiting.get_mut(slot) {
                entry.waiters.push(waiter);
            }
        }
        if slots.is_empty() {
            replies.push(Reply { waiter, result: failed.map_or(Ok(()), Err) });
        } else {
            self.waiters.insert(waiter, Waiter { left: slots.len(), failed });
        }
    }

    fn admit_one(&mut self, slot: &Slot, commit: CommitOffset) -> Result<(), CommitError> {
        let CommitOffset { lease, rewinds, offset, leader_epoch, metadata } = commit;
        if rewinds != lease.rewinds() {
            return Err(refused(slot, None, REWOUND));
        }
        let floor = self.floors.get(slot).filter(|floor| floor.lease.same(&lease) && floor.rewinds == rewinds);
        let lowest = floor.map_or(0, |floor| floor.offset);
        if offset < lowest {
            let why = format!("offset {offset} is behind {lowest}, to which this partition was committed already");
            return Err(refused(slot, None, &why));
        }
        self.floors.insert(slot.clone(), Floor { lease: lease.clone(), rewinds, offset });
        let offset = Offset { offset, leader_epoch, metadata };
        match self.waiting.get_mut(slot) {
            Some(entry) => entry.offset = offset,
            None => {
                self.waiting.insert(slot.clone(), Entry { lease, rewinds, offset, tries: 0, waiters: Vec::new() });
            }
        }
        Ok(())
    }

    /// When the next request may go; None if there is nothing to send or one is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.on_its_way.is_empty() && !self.waiting.is_empty()).then_some(self.not_before)
    }

    /// What to send next; only when it is [`CommitQueue::due`]. Nothing, if all that waited is of before a rewind.
    pub(super) fn take(&mut self, replies: &mut Vec<Reply>) -> BTreeMap<Slot, Offset> {
        for (slot, entry) in std::mem::take(&mut self.waiting) {
            if entry.is_rewound() {
                self.settle(entry.waiters, Some(refused(&slot, None, REWOUND)), replies);
            } else {
                self.on_its_way.insert(slot, entry);
            }
        }
        self.on_its_way.iter().map(|(slot, entry)| (slot.clone(), entry.offset.clone())).collect()
    }

    /// The answer to what was taken last; None = no answer came. Returns the errors in it, each once, for the membership.
    pub(super) fn answered(
        &mut self,
        answer: Option<&BTreeMap<Slot, ErrorCode>>,
        rebalancing: bool,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> BTreeSet<ErrorCode> {
        let mut errors = BTreeSet::new();
        let mut retried = false;
        for (slot, mut entry) in std::mem::take(&mut self.on_its_way) {
            let code = answer.and_then(|codes| codes.get(&slot)).copied();
            if code == Some(ErrorCode::NONE) {
                self.settle(entry.waiters, None, replies);
                continue;
            }
            errors.extend(code);
            // No answer, or none for this partition: it may or may not have happened, and sending it again does no harm.
            let fix = code.map_or(Fix::Retry, |code| table::on_commit(code, rebalancing));
            let moved =
                rebalancing && matches!(code, Some(ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID));
            let limit = if code == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) { UNKNOWN_TOPIC_TRIES } else { TRIES };
            entry.tries += u32::from(fix != Fix::Rejoin && !moved);
            let again = matches!(fix, Fix::Retry | Fix::Refind | Fix::Rejoin);
            if again && entry.tries < limit && !entry.is_rewound() && !self.is_abandoned(&slot, &entry) {
                retried = true;
                match self.waiting.get_mut(&slot) {
                    Some(later) => {
                        later.tries = entry.tries;
                        later.waiters.append(&mut entry.waiters);
                    }
                    None => {
                        self.waiting.insert(slot, entry);
                    }
                }
                continue;
            }
            let why = match code {
                Some(code) => code.to_string(),
                None => "the coordinator does not answer".to_owned(),
            };
            self.settle(entry.waiters, Some(refused(&slot, code, &why)), replies);
        }
        if retried {
            self.not_before = now + self.backoff.next_delay();
        } else {
            self.backoff.reset();
            self.not_before = now;
        }
        errors
    }

    /// Whether it was given up while its request was on its way.
    fn is_abandoned(&self, slot: &Slot, entry: &Entry) -> bool {
        !self.floors.get(slot).is_some_and(|floor| floor.lease.same(&entry.lease))
    }

    fn settle(&mut self, waiters: Vec<WaiterId>, error: Option<CommitError>, replies: &mut Vec<Reply>) {
        for id in waiters {
            let Some(waiter) = self.waiters.get_mut(&id) else { continue };
            waiter.left = waiter.left.saturating_sub(1);
            if waiter.failed.is_none() {
                waiter.failed.clone_from(&error);
            }
            if waiter.left == 0
                && let Some(Waiter { failed, .. }) = self.waiters.remove(&id)
            {
                replies.push(Reply { waiter: id, result: failed.map_or(Ok(()), Err) });
            }
        }
    }

    /// Whether anything of these partitions waits or is on its way.
    pub(super) fn has_any<'a>(&self, mut slots: impl Iterator<Item = &'a Slot>) -> bool {
        slots.any(|slot| self.waiting.contains_key(slot) || self.on_its_way.contains_key(slot))
    }

    /// These partitions are not ours any more. What is on its way is answered as the broker answers it, but not sent again.
    pub(super) fn abandon<'a>(&mut self, slots: impl Iterator<Item = &'a Slot>, replies: &mut Vec<Reply>) {
        for slot in slots {
            self.floors.remove(slot);
            if let Some(entry) = self.waiting.remove(slot) {
                self.settle(entry.waiters, Some(refused(slot, None, NOT_OURS)), replies);
            }
        }
    }

    /// Nothing is committed any more.
    pub(super) fn close(&mut self, replies: &mut Vec<Reply>) {
        self.waiting.clear();
        self.on_its_way.clear();
        self.floors.clear();
        for (waiter, _) in std::mem::take(&mut self.waiters) {
            let result = Err(CommitError { code: None, reason: "the group was left".to_owned() });
            replies.push(Reply { waiter, result });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

    struct Rig {
        queue: CommitQueue,
        leases: Vec<Lease>,
        now: Instant,
        replies: Vec<Reply>,
    }

    impl Rig {
        fn new() -> Self {
            let now = Instant::now();
            let leases = (0..3).map(|partition| Lease::new("t".into(), partition, 1)).collect();
            Self { queue: CommitQueue::new(BACKOFF, now), leases, now, replies: Vec::new() }
        }

        fn commit(&mut self, waiter: WaiterId, offsets: &[(usize, i64)]) {
            let offsets = offsets.iter().map(|(partition, offset)| CommitOffset {
                lease: self.leases[*partition].clone(),
                rewinds: self.leases[*partition].rewinds(),
                offset: *offset,
                leader_epoch: 7,
                metadata: String::new(),
            });
            let leases = &self.leases;
            let ours = |slot: &Slot| leases.get(slot.1 as usize);
            self.queue.admit(waiter, offsets.collect(), ours, &mut self.replies);
        }

        /// Sends, and answers each partition with its code; those without one are left out of the answer.
        fn round(&mut self, codes: &[(i32, ErrorCode)], rebalancing: bool) -> Vec<(i32, i64)> {
            self.now = self.queue.due().expect("something is due").max(self.now);
            let sent =
                self.queue.take(&mut self.replies).into_iter().map(|(slot, offset)| (slot.1, offset.offset)).collect();
            self.answer(codes, rebalancing);
            sent
        }

        fn answer(&mut self, codes: &[(i32, ErrorCode)], rebalancing: bool) {
            let codes = codes.iter().map(|(partition, code)| (("t".into(), *partition), *code)).collect();
            self.queue.answered(Some(&codes), rebalancing, self.now, &mut self.replies);
        }

        fn replies(&mut self) -> Vec<(WaiterId, Result<(), Option<ErrorCode>>)> {
            let replies = self.replies.drain(..);
            replies.map(|reply| (reply.waiter, reply.result.map_err(|error| error.code))).collect()
        }
    }

    const OK: ErrorCode = ErrorCode::NONE;

    #[test]
    fn later_offsets_replace_those_that_wait_and_everybody_gets_an_answer() {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 5), (1, 5)]);
        rig.commit(2, &[(0, 6)]);
        assert_eq!(rig.round(&[(0, OK), (1, OK)], false), [(0, 6), (1, 5)]);
        let mut replies = rig.replies();
        replies.sort_by_key(|reply| reply.0);
        assert_eq!(replies, [(1, Ok(())), (2, Ok(()))]);
        assert_eq!(rig.queue.due(), None);
    }

    #[test]
    fn one_is_on_its_way_and_the_next_is_due_as_soon_as_it_is_answered() {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 5)]);
        rig.queue.take(&mut rig.replies);
        rig.commit(2, &[(0, 6)]);
        assert_eq!(rig.queue.due(), None);
        rig.answer(&[(0, OK)], false);
        assert_eq!(rig.replies(), [(1, Ok(()))]);
        assert_eq!(rig.queue.due(), Some(rig.now));
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 6)]);
        assert_eq!(rig.replies(), [(2, Ok(()))]);
    }

    #[test]
    fn a_commit_that_is_sent_again_does_not_undo_a_later_one() {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 5)]);
        rig.queue.take(&mut rig.replies);
        rig.commit(2, &[(0, 9)]);
        rig.answer(&[(0, ErrorCode::NOT_COORDINATOR)], false);
        assert!(rig.queue.due().expect("due") > rig.now, "after a back-off");
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 9)]);
        let mut replies = rig.replies();
        replies.sort_by_key(|reply| reply.0);
        assert_eq!(replies, [(1, Ok(())), (2, Ok(()))]);
    }

    #[test]
    fn a_lease_never_goes_back_unless_its_position_does() {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 9)]);
        rig.commit(2, &[(0, 8), (1, 3)]);
        assert_eq!(rig.round(&[(0, OK), (1, OK)], false), [(0, 9), (1, 3)]);
        rig.commit(3, &[(0, 8)]);
        rig.commit(4, &[(0, -1)]);
        rig.commit(5, &[(0, 9)]);
        rig.round(&[(0, OK)], false);
        let mut replies = rig.replies();
        replies.sort_by_key(|reply| reply.0);
        assert_eq!(replies, [(1, Ok(())), (2, Err(None)), (3, Err(None)), (4, Err(None)), (5, Ok(()))]);
        rig.leases[0].rewind();
        rig.commit(6, &[(0, 2)]);
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 2)]);
        assert_eq!(rig.replies(), [(6, Ok(()))]);
        // A new lease of the same partition starts where its owner says.
        rig.commit(7, &[(0, 6)]);
        rig.round(&[(0, OK)], false);
        rig.leases[0] = Lease::new("t".into(), 0, 2);
        rig.commit(8, &[(0, 1)]);
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 1)]);
    }

    #[test]
    fn what_was_read_before_the_position_went_back_is_committed_no_more() {
        let mut rig = Rig::new();
        let of = |rig: &Rig, rewinds, offset| CommitOffset {
            lease: rig.leases[0].clone(),
            rewinds,
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        // On its way, waiting, and late.
        rig.commit(1, &[(0, 8)]);
        rig.queue.take(&mut rig.replies);
        rig.commit(2, &[(0, 9), (1, 5)]);
        rig.leases[0].rewind();
        rig.answer(&[(0, ErrorCode::NOT_COORDINATOR)], false);
        let late = of(&rig, 0, 10);
        let leases = rig.leases.clone();
        rig.queue.admit(3, vec![late], |slot| leases.get(slot.1 as usize), &mut rig.replies);
        assert_eq!(rig.replies(), [(1, Err(Some(ErrorCode::NOT_COORDINATOR))), (3, Err(None))]);
        assert_eq!(rig.round(&[(1, OK)], false), [(1, 5)]);
        assert_eq!(rig.replies(), [(2, Err(None))]);
        // None of them is a floor for the new log.
        rig.commit(4, &[(0, 1)]);
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 1)]);
        // All that waited is of before: nothing to send, and nothing that is awaited.
        rig.commit(5, &[(0, 2)]);
        rig.leases[0].rewind();
        assert_eq!(rig.queue.take(&mut rig.replies), BTreeMap::new());
        rig.commit(6, &[(0, 3)]);
        rig.leases[0].rewind();
        rig.commit(7, &[(0, 1)]);
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 1)]);
        assert_eq!(rig.replies(), [(4, Ok(())), (5, Err(None)), (6, Err(None)), (7, Ok(()))]);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_the_rest_is_committed() {
        let mut rig = Rig::new();
        let old = std::mem::replace(&mut rig.leases[0], Lease::new("t".into(), 0, 2));
        let stale = CommitOffset { lease: old, rewinds: 0, offset: 4, leader_epoch: -1, metadata: String::new() };
        let good = CommitOffset { lease: rig.leases[1].clone(), ..stale.clone() };
        rig.leases[2].lose();
        let leases = rig.leases.clone();
        rig.queue.admit(1, vec![stale, good], |slot| leases.get(slot.1 as usize), &mut rig.replies);
        rig.commit(2, &[(2, 1)]);
        assert_eq!(rig.replies(), [(2, Err(None))]);
        assert_eq!(rig.round(&[(1, OK)], false), [(1, 4)]);
        assert_eq!(rig.replies(), [(1, Err(None))]);
    }

    #[test]
    fn each_error_is_retried_so_often() {
        let often = TRIES as usize;
        for (code, rebalancing, tries) in [
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false, often),
            (ErrorCode::NOT_COORDINATOR, false, often),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, false, often),
            (ErrorCode::REQUEST_TIMED_OUT, false, often),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false, UNKNOWN_TOPIC_TRIES as usize),
            (ErrorCode::OFFSET_METADATA_TOO_LARGE, false, 1),
            (ErrorCode::INVALID_COMMIT_OFFSET_SIZE, false, 1),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, false, 1),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, false, 1),
            (ErrorCode::FENCED_INSTANCE_ID, false, 1),
            (ErrorCode::ILLEGAL_GENERATION, false, 1),
            (ErrorCode::UNKNOWN_MEMBER_ID, false, 1),
        ] {
            let mut rig = Rig::new();
            rig.commit(1, &[(0, 5), (1, 5)]);
            for round in 1..=tries {
                assert!(rig.replies.is_empty(), "{code} round {round}");
                assert_eq!(rig.round(&[(0, code), (1, OK)], rebalancing)[0], (0, 5));
            }
            assert_eq!(rig.replies(), [(1, Err(Some(code)))], "{code}");
            assert_eq!(rig.queue.due(), None);
        }
    }

    #[test]
    fn a_rebalance_costs_no_try() {
        for code in [ErrorCode::REBALANCE_IN_PROGRESS, ErrorCode::ILLEGAL_GENERATION, ErrorCode::UNKNOWN_MEMBER_ID] {
            let mut rig = Rig::new();
            rig.commit(1, &[(0, 5)]);
            for _ in 0..TRIES * 2 {
                rig.round(&[(0, code)], true);
            }
            assert_eq!(rig.replies(), []);
            rig.round(&[(0, OK)], false);
            assert_eq!(rig.replies(), [(1, Ok(()))]);
        }
    }

    #[test]
    fn no_answer_is_another_try() {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 5)]);
        rig.queue.take(&mut rig.replies);
        rig.queue.answered(None, false, rig.now, &mut rig.replies);
        rig.round(&[], false);
        assert_eq!(rig.round(&[(0, OK)], false), [(0, 5)]);
        assert_eq!(rig.replies(), [(1, Ok(()))]);
    }

    #[test]
    fn what_is_abandoned_is_not_sent_again() {
        let mut rig = Rig::new();
        let slots: [Slot; 2] = [("t".into(), 0), ("t".into(), 1)];
        rig.commit(1, &[(0, 5)]);
        rig.queue.take(&mut rig.replies);
        rig.commit(2, &[(1, 5)]);
        assert!(rig.queue.has_any(slots.iter()));
        rig.queue.abandon(slots.iter(), &mut rig.replies);
        assert_eq!(rig.replies(), [(2, Err(None))]);
        rig.answer(&[(0, ErrorCode::NOT_COORDINATOR)], false);
        assert_eq!(rig.replies(), [(1, Err(Some(ErrorCode::NOT_COORDINATOR)))]);
        assert!(!rig.queue.has_any(slots.iter()));
    }

    #[test]
    fn there_is_a_bound_on_those_who_wait() {
        let mut rig = Rig::new();
        for waiter in 0..=MAX_WAITERS as u64 {
            rig.commit(waiter, &[(0, waiter as i64)]);
        }
        assert_eq!(rig.replies(), [(MAX_WAITERS as u64, Err(None))]);
        rig.queue.close(&mut rig.replies);
        assert_eq!(rig.replies().len(), MAX_WAITERS);
    }
}
