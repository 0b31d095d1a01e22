//! Fetch sessions (KIP-227): what a node remembers of a consumer's partitions, so that a request names only what changed and an
//! answer only what there is to say. [`FetchSessions`] is the main type.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use uuid::Uuid;

use crate::epochs::{NO_EPOCH, NO_OFFSET};
use crate::log::Aborted;

/// `max.incremental.fetch.session.cache.slots`: beyond it a consumer is served without a session.
const MAX_SESSIONS: usize = 1000;
/// The epoch of a request that opens a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants none, or no longer.
const FINAL_EPOCH: i32 = -1;
/// The id that stands for "no session".
const NO_SESSION: i32 = 0;

/// A topic as the request names it: by id from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicRef {
    Name(String),
    Id(Uuid),
}

/// What a consumer wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The leader epoch that the consumer knows; -1 if none.
    pub(crate) leader_epoch: i32,
    /// The epoch of the last record that it has; -1 if none.
    pub(crate) fetched_epoch: i32,
    pub(crate) max_bytes: i32,
}

/// What was found of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// The epoch and offset up to which the consumer's log is the leader's, if they part.
    pub(crate) diverging: Option<(i32, i64)>,
    /// Leader and epoch, for a request that came to the wrong node (KIP-951).
    pub(crate) leader: Option<(i32, i32)>,
    pub(crate) aborted: Option<Vec<Aborted>>,
    pub(crate) records: Vec<Bytes>,
}

impl Found {
    pub(crate) fn error(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: NO_OFFSET,
            last_stable: NO_OFFSET,
            log_start: NO_OFFSET,
            diverging: None,
            leader: None,
            aborted: None,
            records: Vec::new(),
        }
    }

    fn has_records(&self) -> bool {
        !self.records.is_empty()
    }
}

/// What a request says about sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionRequest {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// Whether the request names topics by id.
    pub(crate) by_id: bool,
}

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In full, and nothing is remembered.
    Sessionless,
    /// In full, and a session begins.
    Open { by_id: bool },
    /// Only what changed in this session.
    Incremental(i32),
}

#[derive(Debug)]
struct Remembered {
    wanted: Wanted,
    high_watermark: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Session {
    /// Of the next request.
    epoch: i32,
    by_id: bool,
    /// In the order in which they are served; one that brought records goes to the end.
    partitions: BTreeMap<u64, Remembered>,
    places: BTreeMap<(TopicRef, i32), u64>,
    next_place: u64,
}

impl Session {
    fn put(&mut self, wanted: Wanted) {
        let key = (wanted.topic.clone(), wanted.partition);
        if let Some(known) = self.places.get(&key).and_then(|place| self.partitions.get_mut(place)) {
            known.wanted = wanted;
            return;
        }
        self.places.insert(key, self.next_place);
        self.partitions.insert(self.next_place, Remembered { wanted, high_watermark: NO_OFFSET, log_start: NO_OFFSET });
        self.next_place += 1;
    }

    fn forget(&mut self, key: &(TopicRef, i32)) {
        if let Some(place) = self.places.remove(key) {
            self.partitions.remove(&place);
        }
    }

    /// Whether the consumer has to be told, and remembers that it was.
    fn tell(&mut self, wanted: &Wanted, found: &Found) -> bool {
        let key = (wanted.topic.clone(), wanted.partition);
        let Some((place, known)) =
            self.places.get(&key).and_then(|place| Some((*place, self.partitions.get_mut(place)?)))
        else {
            return false;
        };
        let news = found.has_records()
            || !found.error.is_none()
            || found.diverging.is_some()
            || known.high_watermark != found.high_watermark
            || known.log_start != found.log_start;
        // After an error the next success is news, whatever it says.
        known.high_watermark = if found.error.is_none() { found.high_watermark } else { NO_OFFSET };
        known.log_start = found.log_start;
        if found.has_records()
            && let Some(known) = self.partitions.remove(&place)
        {
            self.partitions.insert(self.next_place, known);
            self.places.insert(key, self.next_place);
            self.next_place += 1;
        }
        news
    }
}

/// The sessions of one node.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
}

impl FetchSessions {
    /// Takes a request in: what to look at, in which order, and how to answer.
    pub(crate) fn begin(
        &mut self,
        request: SessionRequest,
        wanted: Vec<Wanted>,
        forgotten: &[(TopicRef, i32)],
    ) -> Result<(Mode, Vec<Wanted>), ErrorCode> {
        if request.epoch == INITIAL_EPOCH || request.epoch == FINAL_EPOCH {
            self.sessions.remove(&request.id);
            let full = request.epoch == INITIAL_EPOCH;
            return Ok((if full { Mode::Open { by_id: request.by_id } } else { Mode::Sessionless }, wanted));
        }
        let session = self.sessions.get_mut(&request.id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != request.epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        for wanted in wanted {
            session.put(wanted);
        }
        for key in forgotten {
            session.forget(key);
        }
        if session.partitions.is_empty() {
            self.sessions.remove(&request.id);
            return Ok((Mode::Sessionless, Vec::new()));
        }
        session.epoch = next_epoch(session.epoch);
        let wanted = session.partitions.values().map(|known| known.wanted.clone()).collect();
        Ok((Mode::Incremental(request.id), wanted))
    }

    /// Ends a request: the session id for the answer, and which of the partitions belong into it.
    ///
    /// `new_id` is for a session that begins now.
    pub(crate) fn finish(&mut self, mode: Mode, new_id: i32, found: &[(Wanted, Found)]) -> (i32, Vec<bool>) {
        let all = vec![true; found.len()];
        match mode {
            Mode::Sessionless => (NO_SESSION, all),
            Mode::Open { .. } if self.sessions.len() >= MAX_SESSIONS => (NO_SESSION, all),
            Mode::Open { by_id } => {
                let mut session = Session {
                    epoch: next_epoch(INITIAL_EPOCH),
                    by_id,
                    partitions: BTreeMap::new(),
                    places: BTreeMap::new(),
                    next_place: 0,
                };
                for (wanted, found) in found {
                    session.put(wanted.clone());
                    session.tell(wanted, found);
                }
                self.sessions.insert(new_id, session);
                (new_id, all)
            }
            Mode::Incremental(id) => match self.sessions.get_mut(&id) {
                Some(session) => (id, found.iter().map(|(wanted, found)| session.tell(wanted, found)).collect()),
                None => (NO_SESSION, all),
            },
        }
    }

    /// Forgets all, as a node does that dies.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// Whether a consumer says which epoch its last record has.
pub(crate) fn knows_its_epoch(wanted: &Wanted) -> bool {
    wanted.fetched_epoch != NO_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32, offset: i64) -> Wanted {
        let topic = TopicRef::Name("t".to_owned());
        Wanted { topic, partition, offset, leader_epoch: -1, fetched_epoch: -1, max_bytes: 100 }
    }

    fn found(high_watermark: i64, records: &'static [u8]) -> Found {
        let records = if records.is_empty() { vec![] } else { vec![Bytes::from_static(records)] };
        Found { high_watermark, log_start: 0, records, ..Found::error(ErrorCode::NONE) }
    }

    fn request(id: i32, epoch: i32) -> SessionRequest {
        SessionRequest { id, epoch, by_id: false }
    }

    /// Runs one request to its end: partitions looked at, session id, partitions answered.
    fn fetch(
        sessions: &mut FetchSessions,
        request: SessionRequest,
        wanted: Vec<Wanted>,
        look: impl Fn(i32) -> Found,
    ) -> Result<(Vec<i32>, i32, Vec<i32>), ErrorCode> {
        let (mode, wanted) = sessions.begin(request, wanted, &[])?;
        let found: Vec<_> = wanted.into_iter().map(|wanted| (wanted.clone(), look(wanted.partition))).collect();
        let (id, told) = sessions.finish(mode, 77, &found);
        let looked = found.iter().map(|(wanted, _)| wanted.partition).collect::<Vec<_>>();
        let answered = looked.iter().zip(told).filter(|(_, told)| *told).map(|(partition, _)| *partition).collect();
        Ok((looked, id, answered))
    }

    fn opened() -> FetchSessions {
        let mut sessions = FetchSessions::default();
        let all = vec![wanted(0, 5), wanted(1, 5), wanted(2, 5)];
        let answer = fetch(&mut sessions, request(0, 0), all, |_| found(5, b""));
        assert_eq!(answer, Ok((vec![0, 1, 2], 77, vec![0, 1, 2])), "a full fetch names everything");
        sessions
    }

    #[test]
    fn an_idle_session_names_nobody() {
        let mut sessions = opened();
        assert_eq!(fetch(&mut sessions, request(77, 1), vec![], |_| found(5, b"")), Ok((vec![0, 1, 2], 77, vec![])));
        assert_eq!(fetch(&mut sessions, request(77, 2), vec![], |_| found(5, b"")), Ok((vec![0, 1, 2], 77, vec![])));
    }

    #[test]
    fn what_brought_records_is_served_last_next_time() {
        let mut sessions = opened();
        let busy = |partition| if partition == 0 { found(6, b"x") } else { found(5, b"") };
        assert_eq!(fetch(&mut sessions, request(77, 1), vec![], busy), Ok((vec![0, 1, 2], 77, vec![0])));
        let next = fetch(&mut sessions, request(77, 2), vec![wanted(0, 6)], |p| found(if p == 0 { 6 } else { 5 }, b""));
        assert_eq!(next, Ok((vec![1, 2, 0], 77, vec![])));
    }

    #[test]
    fn watermarks_starts_errors_and_recoveries_are_news() {
        let mut sessions = opened();
        let only = |which: Found| move |partition| if partition == 1 { which.clone() } else { found(5, b"") };
        let rows = [
            ("a higher watermark", found(6, b""), vec![1]),
            ("the same again", found(6, b""), vec![]),
            ("another log start", Found { log_start: 3, ..found(6, b"") }, vec![1]),
            ("an error", Found::error(ErrorCode::NOT_LEADER_OR_FOLLOWER), vec![1]),
            ("the error again", Found::error(ErrorCode::NOT_LEADER_OR_FOLLOWER), vec![1]),
            ("recovered", Found { log_start: 3, ..found(6, b"") }, vec![1]),
            ("divergence", Found { log_start: 3, diverging: Some((1, 2)), ..found(6, b"") }, vec![1]),
        ];
        for (epoch, (name, which, expected)) in (1..).zip(rows) {
            let answer = fetch(&mut sessions, request(77, epoch), vec![], only(which)).expect("in session");
            assert_eq!(answer.2, expected, "{name}");
        }
    }

    #[test]
    fn a_request_outside_its_session_is_an_error() {
        let by_id = SessionRequest { by_id: true, ..request(77, 1) };
        let rows = [
            ("an unknown id", request(78, 1), ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            ("no id", request(0, 1), ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            ("an epoch ahead", request(77, 2), ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            ("topics named otherwise", by_id, ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR),
        ];
        for (name, request, code) in rows {
            assert_eq!(fetch(&mut opened(), request, vec![], |_| found(5, b"")), Err(code), "{name}");
        }
        let mut sessions = opened();
        fetch(&mut sessions, request(77, 1), vec![], |_| found(5, b"")).expect("in session");
        let again = fetch(&mut sessions, request(77, 1), vec![], |_| found(5, b""));
        assert_eq!(again, Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH), "the same epoch twice");
    }

    #[test]
    fn forgetting_the_last_partition_ends_the_session() {
        let mut sessions = opened();
        let key = |partition| (TopicRef::Name("t".to_owned()), partition);
        let (mode, left) = sessions.begin(request(77, 1), vec![], &[key(0), key(2)]).expect("in session");
        assert_eq!((mode, left), (Mode::Incremental(77), vec![wanted(1, 5)]));
        let (mode, left) = sessions.begin(request(77, 2), vec![], &[key(1)]).expect("in session");
        assert_eq!((mode, left), (Mode::Sessionless, vec![]));
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn a_final_epoch_closes_and_a_first_one_replaces() {
        let mut sessions = opened();
        fetch(&mut sessions, request(77, -1), vec![wanted(0, 5)], |_| found(5, b"")).expect("sessionless");
        assert_eq!(sessions.len(), 0);
        let mut sessions = opened();
        fetch(&mut sessions, request(77, 0), vec![wanted(0, 5)], |_| found(5, b"")).expect("full");
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn epochs_go_on_at_one_after_the_largest() {
        assert_eq!((next_epoch(1), next_epoch(i32::MAX)), (2, 1));
    }
}
