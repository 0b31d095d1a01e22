//! A fetch session (KIP-227): what one request has to say, given what the broker already knows.
//!
//! Pure: no IO, no clock. A session that the broker gives no id stays a series of full requests.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::error_code::ErrorCode;

/// A partition within one consumer.
pub(super) type Key = (Arc<str>, i32);

/// What is asked of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic_id: Uuid,
    pub(super) offset: i64,
    /// Of the leader we ask, as we know it; -1 = unknown.
    pub(super) leader_epoch: i32,
    /// Of the last record before `offset`; -1 = unknown. Lets the leader find a diverging log (KIP-595).
    pub(super) last_fetched_epoch: i32,
    pub(super) max_bytes: i32,
}

/// One request of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) session_id: i32,
    pub(super) session_epoch: i32,
    /// Partitions that the broker does not know so.
    pub(super) send: Vec<(Key, Wanted)>,
    /// Partitions that it is to forget.
    pub(super) forget: Vec<(Key, Uuid)>,
}

/// The client's side of one session. At most one request of it is in flight.
#[derive(Debug, Default)]
pub(super) struct FetchSession {
    id: i32,
    epoch: i32,
    known: BTreeMap<Key, Wanted>,
}

/// The epoch that opens a session (or replaces one).
const OPENING: i32 = 0;

impl FetchSession {
    /// The next request; assumes that it will be answered, see [`FetchSession::reset`].
    pub(super) fn plan(&mut self, wanted: BTreeMap<Key, Wanted>) -> Plan {
        let full = self.id == 0 || self.epoch == OPENING;
        let (mut send, mut forget) = (Vec::new(), Vec::new());
        for (key, want) in &wanted {
            match self.known.get(key).filter(|_| !full) {
                Some(known) if known == want => {}
                Some(known) => {
                    if known.topic_id != want.topic_id {
                        forget.push((key.clone(), known.topic_id));
                    }
                    send.push((key.clone(), want.clone()));
                }
                None => send.push((key.clone(), want.clone())),
            }
        }
        if !full {
            let gone = self.known.iter().filter(|(key, _)| !wanted.contains_key(*key));
            forget.extend(gone.map(|(key, known)| (key.clone(), known.topic_id)));
        }
        self.known = wanted;
        Plan { session_id: self.id, session_epoch: self.epoch, send, forget }
    }

    /// The request was answered, in this session (0 = the broker keeps none).
    pub(super) fn answered(&mut self, session_id: i32) {
        if session_id == 0 {
            self.reset();
            return;
        }
        self.epoch = if session_id == self.id { next(self.epoch) } else { next(OPENING) };
        self.id = session_id;
    }

    /// The request got no answer, or one that says that the broker's session is not ours: the next request is full.
    /// What the broker may still keep for us is replaced by it, or expires there.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The answer had an error for the whole request.
    pub(super) fn refused(&mut self, code: ErrorCode) {
        match code {
            // The broker has the session, at another epoch: replace it.
            ErrorCode::INVALID_FETCH_SESSION_EPOCH => {
                self.epoch = OPENING;
                self.known.clear();
            }
            _ => self.reset(),
        }
    }

    /// Forgets what a partition is known as, so that the next request names it again.
    pub(super) fn name_again(&mut self, key: &Key) {
        if let Some(known) = self.known.get_mut(key) {
            known.offset = -1;
        }
    }
}

fn next(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(offset: i64) -> Wanted {
        Wanted { topic_id: Uuid::nil(), offset, leader_epoch: 0, last_fetched_epoch: -1, max_bytes: 100 }
    }

    fn wants(partitions: &[(i32, i64)]) -> BTreeMap<Key, Wanted> {
        partitions.iter().map(|(partition, offset)| (("t".into(), *partition), want(*offset))).collect()
    }

    fn shape(plan: &Plan) -> (i32, i32, Vec<i32>, Vec<i32>) {
        let send = plan.send.iter().map(|((_, partition), _)| *partition).collect();
        let forget = plan.forget.iter().map(|((_, partition), _)| *partition).collect();
        (plan.session_id, plan.session_epoch, send, forget)
    }

    #[test]
    fn only_what_changed_is_named_once_a_session_is_open() {
        let mut session = FetchSession::default();
        assert_eq!(shape(&session.plan(wants(&[(0, 0), (1, 0)]))), (0, 0, vec![0, 1], vec![]));
        session.answered(7);
        assert_eq!(shape(&session.plan(wants(&[(0, 0), (1, 0)]))), (7, 1, vec![], vec![]));
        session.answered(7);
        assert_eq!(shape(&session.plan(wants(&[(0, 5), (2, 0)]))), (7, 2, vec![0, 2], vec![1]));
    }

    #[test]
    fn a_thousand_idle_partitions_are_named_once() {
        let idle: Vec<(i32, i64)> = (0..1000).map(|partition| (partition, 0)).collect();
        let mut session = FetchSession::default();
        assert_eq!(session.plan(wants(&idle)).send.len(), 1000);
        session.answered(1);
        assert_eq!(session.plan(wants(&idle)).send.len(), 0);
    }

    #[test]
    fn faults_of_a_session_lead_to_a_full_request() {
        for (code, id) in [
            (ErrorCode::FETCH_SESSION_ID_NOT_FOUND, 0),
            (ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR, 0),
            (ErrorCode::INVALID_FETCH_SESSION_EPOCH, 7),
        ] {
            let mut session = FetchSession::default();
            session.plan(wants(&[(0, 0)]));
            session.answered(7);
            session.plan(wants(&[(0, 0)]));
            session.refused(code);
            assert_eq!(shape(&session.plan(wants(&[(0, 0)]))), (id, 0, vec![0], vec![]), "{code}");
        }
    }

    #[test]
    fn without_a_session_each_request_is_full() {
        let mut session = FetchSession::default();
        for _ in 0..3 {
            assert_eq!(shape(&session.plan(wants(&[(0, 0)]))), (0, 0, vec![0], vec![]));
            session.answered(0);
        }
    }

    #[test]
    fn a_topic_of_another_id_is_another_topic() {
        let mut session = FetchSession::default();
        session.plan(wants(&[(0, 0)]));
        session.answered(1);
        let mut again = wants(&[(0, 0)]);
        for want in again.values_mut() {
            want.topic_id = Uuid::from_u128(9);
        }
        assert_eq!(shape(&session.plan(again)), (1, 1, vec![0], vec![0]));
    }

    #[test]
    fn epochs_wrap_to_one() {
        assert_eq!(next(i32::MAX), 1);
    }
}
