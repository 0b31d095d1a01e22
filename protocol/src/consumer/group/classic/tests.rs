//! The machine without sockets and clock: what comes in, what is to be done.

mod life;
mod random;
mod rows;

use super::*;
use crate::consumer::{CommitError, group::link::Joined};

const HEARTBEAT: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(45);
const DRAIN: Duration = Duration::from_secs(25);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// The node that coordinates the group at first.
const FIRST: NodeId = 1;

fn config(assignors: &[Assignor]) -> ConsumerConfig {
    ConsumerConfig {
        group_id: "g".into(),
        topics: vec!["t".into()],
        assignors: assignors.to_vec(),
        session_timeout: SESSION,
        heartbeat_interval: HEARTBEAT,
        drain_timeout: DRAIN,
        ..ConsumerConfig::default()
    }
}

fn slot(partition: i32) -> Slot {
    ("t".into(), partition)
}

fn slots(partitions: &[i32]) -> Vec<Slot> {
    partitions.iter().map(|partition| slot(*partition)).collect()
}

fn joined(generation: i32, members: Option<Vec<Member>>) -> Answer {
    Answer::Joined(Joined {
        code: ErrorCode::NONE,
        member_id: "m".into(),
        generation,
        protocol: "cooperative-sticky".into(),
        members,
    })
}

fn join_refused(code: ErrorCode, member_id: &str) -> Answer {
    Answer::Joined(Joined { code, member_id: member_id.into(), generation: -1, protocol: String::new(), members: None })
}

fn synced(partitions: &[i32]) -> Answer {
    Answer::Synced { code: ErrorCode::NONE, assigned: Ok(slots(partitions)) }
}

fn no_answer() -> Failure {
    Failure { retriable: true, text: "the connection was lost".into() }
}

/// A membership, the time it lives in, and what it wanted.
struct Rig {
    membership: Membership,
    now: Instant,
    /// Requests without an answer yet, oldest first.
    open: Vec<(CallId, NodeId, Call)>,
    /// Leases by partition, as they were announced.
    leases: BTreeMap<i32, Lease>,
    revocations: Vec<(RevocationId, Vec<i32>)>,
    replies: BTreeMap<WaiterId, Result<(), CommitError>>,
    lost: Vec<i32>,
    faults: Vec<ErrorCode>,
    finds: usize,
    ended: bool,
}

impl Rig {
    fn new(assignors: &[Assignor]) -> Self {
        let now = Instant::now();
        let mut rig = Self {
            membership: Membership::new(config(assignors), BACKOFF, now),
            now,
            open: Vec::new(),
            leases: BTreeMap::new(),
            revocations: Vec::new(),
            replies: BTreeMap::new(),
            lost: Vec::new(),
            faults: Vec::new(),
            finds: 0,
            ended: false,
        };
        rig.step(Event::Tick);
        rig
    }

    /// A cooperative member that holds these partitions, announced, with nothing on its way.
    fn stable(partitions: &[i32]) -> Self {
        let mut rig = Self::new(&[Assignor::CooperativeSticky]);
        rig.step(Event::Found(Ok(FIRST)));
        rig.join_round(1, partitions);
        rig.answer_heartbeat(ErrorCode::NONE);
        rig
    }

    fn step(&mut self, event: Event) {
        assert!(!self.ended, "nothing happens after the end");
        for action in self.membership.step(event, self.now) {
            match action {
                Action::Find => self.finds += 1,
                Action::Forget | Action::Describe { .. } | Action::Unwatch => {}
                Action::Send { call, node, request, .. } => self.open.push((call, node, request)),
                Action::Assigned(assigned) => {
                    self.leases.extend(assigned.into_iter().map(|one| (one.lease.partition(), one.lease)));
                }
                Action::Revoke { revocation, leases, .. } => {
                    self.revocations.push((revocation, leases.iter().map(Lease::partition).collect()));
                }
                Action::Lost(leases) => self.lost.extend(leases.iter().map(Lease::partition)),
                Action::Fault { code, .. } => self.faults.push(code),
                Action::Reply(reply) => {
                    assert!(self.replies.insert(reply.waiter, reply.result).is_none(), "one answer each");
                }
                Action::End => self.ended = true,
            }
        }
    }

    /// Time passes, with whatever is due meanwhile.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(wake) = self.membership.wake().filter(|wake| *wake <= until && !self.ended) {
            assert!(wake > self.now, "it wants to be asked again at once");
            self.now = wake;
            self.step(Event::Tick);
        }
        self.now = until;
    }

    /// The oldest open request of a kind.
    fn find(&self, kind: impl Fn(&Call) -> bool) -> Option<(CallId, Call)> {
        self.open.iter().find(|(_, _, request)| kind(request)).map(|(call, _, request)| (*call, request.clone()))
    }

    fn answer(&mut self, kind: impl Fn(&Call) -> bool, answer: Result<Answer, Failure>) -> Call {
        let (call, request) = self.find(kind).expect("such a request is open");
        self.open.retain(|(open, _, _)| *open != call);
        self.step(Event::Answered { call, answer });
        request
    }

    fn answer_heartbeat(&mut self, code: ErrorCode) {
        self.answer(is_heartbeat, Ok(Answer::Heartbeat(code)));
    }

    /// JoinGroup, SyncGroup and OffsetFetch, all answered well.
    fn join_round(&mut self, generation: i32, partitions: &[i32]) {
        self.answer(is_join, Ok(joined(generation, None)));
        self.answer(is_sync, Ok(synced(partitions)));
        self.fetch_offsets();
    }

    fn fetch_offsets(&mut self) {
        while let Some((_, Call::FetchOffsets { slots })) = self.find(is_offset_fetch) {
            let offsets = slots.into_iter().map(|slot| (slot, Ok(Some((10, 3))))).collect();
            self.answer(is_offset_fetch, Ok(Answer::Offsets(Ok(offsets))));
        }
    }

    fn commit(&mut self, waiter: WaiterId, partition: i32, offset: i64) {
        let lease = self.leases[&partition].clone();
        let offsets = vec![CommitOffset { lease, rewinds: 0, offset, leader_epoch: 3, metadata: String::new() }];
        self.step(Event::Commit { waiter, offsets });
    }

    fn answer_commit(&mut self, code: ErrorCode) -> Call {
        let Some((_, Call::Commit { offsets, .. })) = self.find(is_commit) else { panic!("no commit is open") };
        let codes = offsets.keys().map(|slot| (slot.clone(), code)).collect();
        self.answer(is_commit, Ok(Answer::Committed(codes)))
    }

    /// The owner says that what was revoked last is drained.
    fn release(&mut self) {
        let (revocation, _) = self.revocations.last().expect("something is revoked");
        self.step(Event::Released(*revocation));
    }

    fn held(&self) -> Vec<i32> {
        self.membership.held.keys().map(|slot| slot.1).collect()
    }
}

fn is_join(request: &Call) -> bool {
    matches!(request, Call::Join { .. })
}

fn is_sync(request: &Call) -> bool {
    matches!(request, Call::Sync { .. })
}

fn is_heartbeat(request: &Call) -> bool {
    matches!(request, Call::Heartbeat { .. })
}

fn is_commit(request: &Call) -> bool {
    matches!(request, Call::Commit { .. })
}

fn is_offset_fetch(request: &Call) -> bool {
    matches!(request, Call::FetchOffsets { .. })
}

fn is_leave(request: &Call) -> bool {
    matches!(request, Call::Leave { .. })
}
