//! Every row of the error tables: in which state, which answer, what then.

use super::*;

/// What an answer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    join: Join,
    /// Whether the partitions that were held still are.
    keeps: bool,
    member_id: &'static str,
    /// Whether the coordinator has to be found again.
    finds: bool,
    fault: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    /// As it was: none is needed, or the one on its way stays.
    Unchanged,
    AtOnce,
    /// After a back-off.
    Soon,
    /// After somebody had time to mend something.
    Late,
}

/// Nothing happens to the membership.
const NOTHING: Outcome = Outcome { join: Join::Unchanged, keeps: true, member_id: "m", finds: false, fault: false };
const AGAIN: Outcome = Outcome { join: Join::Soon, ..NOTHING };
const ELSEWHERE: Outcome = Outcome { join: Join::Soon, finds: true, ..NOTHING };
const FIND: Outcome = Outcome { finds: true, ..NOTHING };
const REJOIN: Outcome = Outcome { join: Join::AtOnce, ..NOTHING };
const LOST_KEEP_ID: Outcome = Outcome { join: Join::AtOnce, keeps: false, ..NOTHING };
const LOST_NEW_ID: Outcome = Outcome { member_id: "", ..LOST_KEEP_ID };
const FATAL: Outcome = Outcome { join: Join::Late, keeps: false, fault: true, ..NOTHING };
const FENCED: Outcome = Outcome { member_id: "", ..FATAL };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A member that holds a partition joins again.
    Joining,
    Syncing,
    /// A heartbeat is on its way.
    Beating,
    /// The same, while a join is on its way.
    BeatingInJoin,
    Committing,
    /// The commit was sent before the join that is on its way.
    CommittingInJoin,
    /// The offsets of a partition that was added are asked for.
    FetchingOffsets,
}

impl State {
    fn rig(self) -> Rig {
        let mut rig = Rig::stable(&[0]);
        match self {
            Self::Beating => rig.pass(HEARTBEAT),
            Self::Committing => rig.commit(1, 0, 20),
            Self::CommittingInJoin => {
                rig.pass(HEARTBEAT);
                rig.commit(1, 0, 20);
                rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
            }
            Self::Joining | Self::Syncing | Self::BeatingInJoin | Self::FetchingOffsets => {
                rig.pass(HEARTBEAT);
                rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
                if self == Self::BeatingInJoin {
                    rig.pass(HEARTBEAT);
                }
                if matches!(self, Self::Syncing | Self::FetchingOffsets) {
                    rig.answer(is_join, Ok(joined(2, None)));
                }
                if self == Self::FetchingOffsets {
                    rig.answer(is_sync, Ok(synced(&[0, 1])));
                }
            }
        }
        rig
    }

    fn answer(self, code: ErrorCode) -> Answer {
        let all = |slots: &[i32]| slots.iter().map(|partition| (slot(*partition), code)).collect();
        match self {
            Self::Joining => join_refused(code, if code == ErrorCode::MEMBER_ID_REQUIRED { "given" } else { "" }),
            Self::Syncing => Answer::Synced { code, assigned: Ok(Vec::new()) },
            Self::Beating | Self::BeatingInJoin => Answer::Heartbeat(code),
            Self::Committing | Self::CommittingInJoin => Answer::Committed(all(&[0])),
            Self::FetchingOffsets => Answer::Offsets(Ok(BTreeMap::from([(slot(1), Err(code))]))),
        }
    }

    fn asked(self) -> fn(&Call) -> bool {
        match self {
            Self::Joining => is_join,
            Self::Syncing => is_sync,
            Self::Beating | Self::BeatingInJoin => is_heartbeat,
            Self::Committing | Self::CommittingInJoin => is_commit,
            Self::FetchingOffsets => is_offset_fetch,
        }
    }
}

fn outcome(rig: &mut Rig, state: State, answer: Result<Answer, Failure>) -> Outcome {
    let kept: Vec<i32> = rig.held();
    let joining = rig.find(is_join).map(|(call, _)| call);
    let lease = rig.leases[&0].clone();
    rig.answer(state.asked(), answer);
    let keeps = rig.held() == kept && lease.is_active();
    assert_eq!(lease.is_lost(), !keeps, "what is not kept is lost, all of it");
    assert_eq!(rig.lost, if keeps { vec![] } else { vec![0] });
    let finds = rig.membership.coordinator.is_none();
    let now = rig.now;
    let join = match rig.membership.phase {
        Phase::Due(at) if at <= now => Join::AtOnce,
        Phase::Due(at) if at <= now + BACKOFF.1 * 2 => Join::Soon,
        Phase::Due(at) if at >= now + FATAL_DELAY => Join::Late,
        Phase::Joining(call) if Some(call) != joining => Join::AtOnce,
        _ => Join::Unchanged,
    };
    let member_id = match rig.membership.member_id.as_str() {
        "" => "",
        "m" => "m",
        "given" => "given",
        other => panic!("a member id from nowhere: {other}"),
    };
    Outcome { join, keeps, member_id, finds, fault: !rig.faults.is_empty() }
}

fn check(state: State, code: ErrorCode, expected: Outcome) {
    let mut rig = state.rig();
    assert_eq!(outcome(&mut rig, state, Ok(state.answer(code))), expected, "{state:?}: {code}");
}

#[test]
fn each_row_of_the_join_table() {
    let with_id = Outcome { join: Join::AtOnce, member_id: "given", ..NOTHING };
    for (code, expected) in [
        (ErrorCode::MEMBER_ID_REQUIRED, with_id),
        (ErrorCode::UNKNOWN_MEMBER_ID, LOST_NEW_ID),
        (ErrorCode::ILLEGAL_GENERATION, LOST_KEEP_ID),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, AGAIN),
        (ErrorCode::REBALANCE_IN_PROGRESS, AGAIN),
        (ErrorCode::UNKNOWN_SERVER_ERROR, AGAIN),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, ELSEWHERE),
        (ErrorCode::NOT_COORDINATOR, ELSEWHERE),
        (ErrorCode::FENCED_INSTANCE_ID, FENCED),
        (ErrorCode::INCONSISTENT_GROUP_PROTOCOL, FATAL),
        (ErrorCode::INVALID_SESSION_TIMEOUT, FATAL),
        (ErrorCode::INVALID_GROUP_ID, FATAL),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, FATAL),
        (ErrorCode::GROUP_MAX_SIZE_REACHED, FATAL),
        (ErrorCode::UNSUPPORTED_VERSION, FATAL),
    ] {
        check(State::Joining, code, expected);
    }
}

#[test]
fn each_row_of_the_sync_table() {
    for (code, expected) in [
        (ErrorCode::REBALANCE_IN_PROGRESS, REJOIN),
        (ErrorCode::UNKNOWN_MEMBER_ID, LOST_NEW_ID),
        (ErrorCode::ILLEGAL_GENERATION, LOST_KEEP_ID),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, REJOIN),
        (ErrorCode::UNKNOWN_SERVER_ERROR, AGAIN),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, ELSEWHERE),
        (ErrorCode::NOT_COORDINATOR, ELSEWHERE),
        (ErrorCode::FENCED_INSTANCE_ID, FENCED),
        (ErrorCode::INCONSISTENT_GROUP_PROTOCOL, FATAL),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, FATAL),
    ] {
        check(State::Syncing, code, expected);
    }
}

#[test]
fn each_row_of_the_heartbeat_table() {
    for (code, stable, joining) in [
        (ErrorCode::NONE, NOTHING, NOTHING),
        (ErrorCode::REBALANCE_IN_PROGRESS, REJOIN, NOTHING),
        // While a join is on its way it is for its answer to say so.
        (ErrorCode::ILLEGAL_GENERATION, LOST_KEEP_ID, NOTHING),
        (ErrorCode::UNKNOWN_MEMBER_ID, LOST_NEW_ID, NOTHING),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, NOTHING, NOTHING),
        (ErrorCode::UNKNOWN_SERVER_ERROR, NOTHING, NOTHING),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, FIND, FIND),
        (ErrorCode::NOT_COORDINATOR, FIND, FIND),
        (ErrorCode::FENCED_INSTANCE_ID, FENCED, FENCED),
        (ErrorCode::INVALID_GROUP_ID, FATAL, FATAL),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, FATAL, FATAL),
    ] {
        check(State::Beating, code, stable);
        check(State::BeatingInJoin, code, joining);
    }
}

/// What whoever waits for the commit hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    Error,
    /// Nothing yet: it goes out again.
    Waits,
}

fn check_commit(state: State, code: ErrorCode, expected: Outcome, told: Told) {
    let mut rig = state.rig();
    assert_eq!(outcome(&mut rig, state, Ok(state.answer(code))), expected, "{state:?}: {code}");
    let heard = match rig.replies.get(&1) {
        None => Told::Waits,
        Some(Ok(())) => Told::Done,
        Some(Err(error)) => {
            assert_eq!(error.code, Some(code));
            Told::Error
        }
    };
    assert_eq!(heard, told, "{state:?}: {code}");
}

#[test]
fn each_row_of_the_commit_table() {
    for (code, stable, told, joining, told_in_join) in [
        (ErrorCode::NONE, NOTHING, Told::Done, NOTHING, Told::Done),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, NOTHING, Told::Waits, NOTHING, Told::Waits),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, NOTHING, Told::Waits, NOTHING, Told::Waits),
        (ErrorCode::UNKNOWN_SERVER_ERROR, NOTHING, Told::Waits, NOTHING, Told::Waits),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, FIND, Told::Waits, FIND, Told::Waits),
        (ErrorCode::NOT_COORDINATOR, FIND, Told::Waits, FIND, Told::Waits),
        (ErrorCode::REQUEST_TIMED_OUT, FIND, Told::Waits, FIND, Told::Waits),
        (ErrorCode::REBALANCE_IN_PROGRESS, REJOIN, Told::Waits, NOTHING, Told::Waits),
        // In a rebalance the generation moved on: no news, and no reason to take anything for lost.
        (ErrorCode::ILLEGAL_GENERATION, LOST_KEEP_ID, Told::Error, NOTHING, Told::Waits),
        (ErrorCode::UNKNOWN_MEMBER_ID, LOST_NEW_ID, Told::Error, NOTHING, Told::Waits),
        (ErrorCode::OFFSET_METADATA_TOO_LARGE, NOTHING, Told::Error, NOTHING, Told::Error),
        (ErrorCode::INVALID_COMMIT_OFFSET_SIZE, NOTHING, Told::Error, NOTHING, Told::Error),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, NOTHING, Told::Error, NOTHING, Told::Error),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, NOTHING, Told::Error, NOTHING, Told::Error),
        (ErrorCode::FENCED_INSTANCE_ID, FENCED, Told::Error, FENCED, Told::Error),
    ] {
        check_commit(State::Committing, code, stable, told);
        check_commit(State::CommittingInJoin, code, joining, told_in_join);
    }
}

#[test]
fn each_row_of_the_offset_fetch_table() {
    let refused = Outcome { fault: true, ..NOTHING };
    for (code, expected, again) in [
        (ErrorCode::UNSTABLE_OFFSET_COMMIT, NOTHING, BACKOFF.1),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, NOTHING, BACKOFF.1),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, NOTHING, BACKOFF.1),
        (ErrorCode::UNKNOWN_SERVER_ERROR, NOTHING, BACKOFF.1),
        (ErrorCode::NOT_COORDINATOR, FIND, BACKOFF.1),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, FIND, BACKOFF.1),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, refused, FATAL_DELAY),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, refused, FATAL_DELAY),
    ] {
        for of_the_whole in [false, true] {
            let (mut rig, state) = (State::FetchingOffsets.rig(), State::FetchingOffsets);
            let answer = if of_the_whole { Answer::Offsets(Err(code)) } else { state.answer(code) };
            assert_eq!(outcome(&mut rig, state, Ok(answer)), expected, "{code}");
            assert!(!rig.leases.contains_key(&1), "{code} is not \"no offset\"");
            if rig.membership.coordinator.is_none() {
                rig.pass(BACKOFF.1);
                rig.step(Event::Found(Ok(2)));
            }
            rig.pass(again * 2);
            rig.fetch_offsets();
            assert!(rig.leases[&1].is_active(), "{code}: it was asked again");
        }
    }
}

#[test]
fn each_row_of_the_find_table() {
    for (code, fault) in [
        (Some(ErrorCode::COORDINATOR_NOT_AVAILABLE), false),
        (Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS), false),
        (Some(ErrorCode::UNKNOWN_SERVER_ERROR), false),
        (None, false),
        (Some(ErrorCode::GROUP_AUTHORIZATION_FAILED), true),
        (Some(ErrorCode::INVALID_GROUP_ID), true),
    ] {
        let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
        rig.step(Event::Found(Err(NotFound { code, retriable: true, text: String::new() })));
        rig.pass(BACKOFF.1 * 2);
        assert_eq!((rig.finds, rig.faults.len()), if fault { (1, 1) } else { (2, 0) }, "{code:?}");
        rig.pass(FATAL_DELAY);
        assert_eq!(rig.finds, 2, "{code:?}");
    }
}

#[test]
fn each_row_of_the_leave_table() {
    for (code, again) in [
        (ErrorCode::NONE, false),
        (ErrorCode::UNKNOWN_MEMBER_ID, false),
        (ErrorCode::FENCED_INSTANCE_ID, false),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, false),
        (ErrorCode::INVALID_GROUP_ID, false),
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, true),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, true),
        (ErrorCode::NOT_COORDINATOR, true),
    ] {
        let mut rig = Rig::stable(&[]);
        rig.step(Event::Leave);
        rig.answer(is_leave, Ok(Answer::Left(code)));
        assert_eq!(rig.ended, !again, "{code}");
        if again {
            rig.pass(BACKOFF.1);
            rig.step(Event::Found(Ok(2)));
            rig.answer(is_leave, Ok(Answer::Left(ErrorCode::NONE)));
            assert!(rig.ended, "{code}");
        }
    }
}

#[test]
fn no_answer_means_to_look_for_the_coordinator_again() {
    for (state, expected) in [
        (State::Joining, ELSEWHERE),
        (State::Syncing, ELSEWHERE),
        (State::Beating, FIND),
        (State::BeatingInJoin, FIND),
        (State::Committing, FIND),
        (State::CommittingInJoin, FIND),
        (State::FetchingOffsets, FIND),
    ] {
        let mut rig = state.rig();
        assert_eq!(outcome(&mut rig, state, Err(no_answer())), expected, "{state:?}");
    }
}

#[test]
fn a_request_that_cannot_be_sent_at_all_is_a_fault_and_loses_nothing() {
    for (state, join) in
        [(State::Joining, Join::Late), (State::Syncing, Join::Late), (State::FetchingOffsets, Join::Unchanged)]
    {
        let mut rig = state.rig();
        let failure = Failure { retriable: false, text: "no version in common".into() };
        let expected = Outcome { join, fault: true, ..NOTHING };
        assert_eq!(outcome(&mut rig, state, Err(failure)), expected, "{state:?}");
    }
}
