//! The group on a clock that the test turns.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

struct Bench {
    group: Group,
    now: Instant,
    rules: Rules,
    ids: usize,
}

type Waiting<T> = oneshot::Receiver<T>;

fn bench(join_delay: Duration) -> Bench {
    let rules =
        Rules { join_delay, min_session_timeout: Duration::from_secs(6), max_session_timeout: Duration::from_secs(60) };
    Bench { group: Group::new(), now: Instant::now(), rules, ids: 0 }
}

fn request(id: &str) -> Join {
    Join {
        member_id: id.to_owned(),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        id_first: true,
    }
}

impl Bench {
    fn ask(&mut self, join: &Join) -> Waiting<Joined> {
        let (reply, waiting) = oneshot::channel();
        self.ids += 1;
        self.group.join(self.now, &self.rules, format!("m{}", self.ids), join, reply);
        waiting
    }

    /// A new member asks for its id and joins with it.
    fn enter(&mut self) -> (String, Waiting<Joined>) {
        let told = given(&mut self.ask(&request("")));
        assert_eq!(told.error, ErrorCode::MEMBER_ID_REQUIRED);
        let waiting = self.ask(&request(&told.member_id));
        (told.member_id, waiting)
    }

    fn sync(&mut self, id: &str, generation: i32, given: &[(&str, &'static [u8])]) -> Waiting<Synced> {
        let (reply, waiting) = oneshot::channel();
        let given: BTreeMap<String, Bytes> =
            given.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes))).collect();
        self.group.sync(self.now, id, generation, (Some("consumer"), Some("range")), given, reply);
        waiting
    }

    fn heartbeat(&mut self, id: &str, generation: i32) -> ErrorCode {
        self.group.heartbeat(self.now, id, generation)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now, &self.rules);
    }

    fn may_commit(&mut self, member_id: &str, generation: i32) -> Result<(), ErrorCode> {
        self.group.may_commit(self.now, &Commit { member_id, generation })
    }

    /// Two members, stable, in generation 2; the first one leads.
    fn pair(&mut self) -> (String, String) {
        let (first, mut joined) = self.enter();
        self.pass(Duration::ZERO);
        assert_eq!(given(&mut joined).generation, 1);
        given(&mut self.sync(&first, 1, &[(&first, b"all")]));
        let (second, mut joined_second) = self.enter();
        let mut joined_first = self.ask(&request(&first));
        assert_eq!((given(&mut joined_first).generation, given(&mut joined_second).generation), (2, 2));
        let mut waiting = self.sync(&second, 2, &[]);
        assert!(waits(&mut waiting), "a follower waits for the leader's word");
        given(&mut self.sync(&first, 2, &[(&first, b"a"), (&second, b"b")]));
        assert_eq!(given(&mut waiting).assignment, &b"b"[..]);
        (first, second)
    }
}

fn given<T: std::fmt::Debug>(waiting: &mut Waiting<T>) -> T {
    waiting.try_recv().expect("an answer")
}

fn waits<T: std::fmt::Debug>(waiting: &mut Waiting<T>) -> bool {
    matches!(waiting.try_recv(), Err(TryRecvError::Empty))
}

#[test]
fn an_empty_group_waits_for_more_members_and_longer_if_some_come() {
    let mut bench = bench(Duration::from_secs(3));
    let (_, mut first) = bench.enter();
    bench.pass(Duration::from_secs(2));
    let (_, mut second) = bench.enter();
    bench.pass(Duration::from_secs(1));
    assert!(waits(&mut first), "one came in the first three seconds, so there are three more");
    bench.pass(Duration::from_secs(3));
    let (first, second) = (given(&mut first), given(&mut second));
    assert_eq!((first.generation, first.members.len()), (1, 2), "the leader is told of both");
    assert_eq!((second.leader, second.members.len()), (first.member_id, 0));
}

#[test]
fn members_are_told_to_join_again_and_the_generation_is_complete_when_all_did() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    let (third, mut joined_third) = bench.enter();
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::REBALANCE_IN_PROGRESS);
    let mut joined_first = bench.ask(&request(&first));
    assert!(waits(&mut joined_first) && waits(&mut joined_third));
    let mut joined_second = bench.ask(&request(&second));
    for joined in [&mut joined_first, &mut joined_second, &mut joined_third] {
        assert_eq!(given(joined).generation, 3);
    }
    assert_eq!(bench.heartbeat(&third, 3), ErrorCode::NONE, "also before the leader's word");
    assert_eq!(bench.may_commit(&third, 3), Err(ErrorCode::REBALANCE_IN_PROGRESS));
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_out() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    let (_, mut joined_third) = bench.enter();
    let mut joined_first = bench.ask(&request(&first));
    for _ in 0..12 {
        bench.heartbeat(&second, 2);
        bench.pass(Duration::from_secs(5));
    }
    assert_eq!((given(&mut joined_first).generation, given(&mut joined_third).generation), (3, 3));
    assert_eq!(bench.heartbeat(&second, 2), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_session_ends_without_heartbeats_and_the_others_share_anew() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    bench.pass(SESSION / 2);
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::NONE);
    bench.pass(SESSION / 2);
    assert_eq!(bench.heartbeat(&second, 2), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::REBALANCE_IN_PROGRESS);
    let joined = given(&mut bench.ask(&request(&first)));
    assert_eq!((joined.generation, joined.members.len()), (3, 1));
}

#[test]
fn members_that_joined_and_never_sync_are_out() {
    let mut bench = bench(Duration::ZERO);
    let (first, mut joined) = bench.enter();
    bench.pass(Duration::ZERO);
    given(&mut joined);
    let (second, mut joined_second) = bench.enter();
    let mut again = bench.ask(&request(&first));
    assert_eq!((given(&mut again).generation, given(&mut joined_second).generation), (2, 2));
    let mut synced = bench.sync(&second, 2, &[]);
    for _ in 0..12 {
        bench.heartbeat(&first, 2);
        bench.pass(Duration::from_secs(5));
    }
    assert_eq!(given(&mut synced).error, ErrorCode::REBALANCE_IN_PROGRESS, "the leader never spoke");
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::UNKNOWN_MEMBER_ID);
    let joined = given(&mut bench.ask(&request(&second)));
    assert_eq!((joined.leader, joined.generation), (second, 3));
}

#[test]
fn what_does_not_fit_the_generation_is_refused() {
    let mut bench = bench(Duration::ZERO);
    let (first, _) = bench.pair();
    assert_eq!(bench.heartbeat("nobody", 2), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(given(&mut bench.sync("nobody", 2, &[])).error, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(given(&mut bench.sync(&first, 1, &[])).error, ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(given(&mut bench.sync(&first, 2, &[])).assignment, &b"a"[..], "again, after it was lost");
    for (member, generation, expected) in [
        (first.as_str(), 2, Ok(())),
        (first.as_str(), 1, Err(ErrorCode::ILLEGAL_GENERATION)),
        ("nobody", 2, Err(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("", -1, Err(ErrorCode::UNKNOWN_MEMBER_ID)),
    ] {
        assert_eq!(bench.may_commit(member, generation), expected, "{member} in {generation}");
    }
    let other = Join { protocols: vec![("sticky".to_owned(), Bytes::new())], ..request("") };
    assert_eq!(given(&mut bench.ask(&other)).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let hasty = Join { session_timeout: Duration::from_secs(1), ..request("") };
    assert_eq!(given(&mut bench.ask(&hasty)).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    assert_eq!(given(&mut bench.ask(&request("nobody"))).error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_follower_that_joins_again_without_news_disturbs_nobody_but_the_leader_does() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    let joined = given(&mut bench.ask(&request(&second)));
    assert_eq!((joined.generation, bench.group.phase()), (2, Phase::Stable));
    assert!(waits(&mut bench.ask(&request(&first))));
    assert_eq!(bench.group.phase(), Phase::PreparingRebalance { initial: false });
}

#[test]
fn the_last_one_to_leave_empties_the_group_and_what_was_committed_stays() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    let committed = Committed { offset: 7, leader_epoch: -1, metadata: String::new() };
    assert_eq!(bench.group.commit("t", 0, committed), ErrorCode::NONE);
    assert_eq!(bench.group.leave(bench.now, &bench.rules, &first), ErrorCode::NONE);
    assert_eq!(bench.group.leave(bench.now, &bench.rules, &first), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.group.leave(bench.now, &bench.rules, &second), ErrorCode::NONE);
    assert_eq!((bench.group.phase(), bench.group.generation()), (Phase::Empty, 3));
    assert_eq!(bench.group.committed("t", 0).map(|committed| committed.offset), Some(7));
    assert_eq!(bench.may_commit("", -1), Ok(()), "anybody may commit for an empty group");
}

#[test]
fn another_coordinator_knows_the_last_complete_generation_alone() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    let (_, mut joined_third) = bench.enter();
    bench.group.move_coordinator(bench.now);
    assert_eq!(given(&mut joined_third).error, ErrorCode::NOT_COORDINATOR);
    assert_eq!((bench.group.phase(), bench.group.generation()), (Phase::Stable, 2));
    for member in [&first, &second] {
        assert_eq!(bench.heartbeat(member, 2), ErrorCode::NONE);
    }
    bench.pass(SESSION);
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::UNKNOWN_MEMBER_ID, "their sessions began anew and ended");
}

#[test]
fn a_connection_that_is_gone_does_not_hold_the_others() {
    let mut bench = bench(Duration::ZERO);
    let (first, second) = bench.pair();
    drop(bench.ask(&request(&first)));
    let mut joined = bench.ask(&request(&second));
    assert_eq!(given(&mut joined).generation, 3, "its join counts all the same");
}

#[test]
fn an_id_that_was_given_and_never_joined_with_lapses() {
    let mut bench = bench(Duration::ZERO);
    let (first, _) = bench.pair();
    given(&mut bench.ask(&request("")));
    let mut joined = bench.ask(&request(&first));
    assert!(waits(&mut joined), "the other member and the id are awaited");
    bench.pass(SESSION);
    assert_eq!(given(&mut joined).members.len(), 1, "neither came");
}
