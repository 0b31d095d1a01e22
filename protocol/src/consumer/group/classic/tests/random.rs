//! Whatever happens in whatever order: what must never be.

use proptest::prelude::*;

use super::*;

/// What may happen next; indices choose among what is open, modulo its count.
#[derive(Debug, Clone)]
enum Happening {
    Answer { which: usize, how: Answering },
    Found(NodeId),
    NotFound(Option<ErrorCode>),
    Described(i32),
    Partitions(i32),
    Commit { partition: i32, more: i64 },
    Release(usize),
    Pass(u64),
    Leave,
}

#[derive(Debug, Clone)]
enum Answering {
    Well(BTreeSet<i32>),
    /// With `well` as leader.
    Leading,
    Code(ErrorCode),
    NotAtAll {
        retriable: bool,
    },
    Unreadable,
}

const CODES: [ErrorCode; 16] = [
    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode::COORDINATOR_NOT_AVAILABLE,
    ErrorCode::NOT_COORDINATOR,
    ErrorCode::REBALANCE_IN_PROGRESS,
    ErrorCode::ILLEGAL_GENERATION,
    ErrorCode::UNKNOWN_MEMBER_ID,
    ErrorCode::MEMBER_ID_REQUIRED,
    ErrorCode::FENCED_INSTANCE_ID,
    ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
    ErrorCode::GROUP_AUTHORIZATION_FAILED,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::UNSTABLE_OFFSET_COMMIT,
    ErrorCode::OFFSET_METADATA_TOO_LARGE,
    ErrorCode::UNKNOWN_SERVER_ERROR,
    ErrorCode(9999),
];

fn happening() -> impl Strategy<Value = Happening> {
    let code = proptest::sample::select(&CODES[..]);
    let answering = prop_oneof![
        8 => proptest::collection::btree_set(0..4i32, 0..4).prop_map(Answering::Well),
        1 => Just(Answering::Leading),
        3 => code.clone().prop_map(Answering::Code),
        1 => any::<bool>().prop_map(|retriable| Answering::NotAtAll { retriable }),
        1 => Just(Answering::Unreadable),
    ];
    prop_oneof![
        30 => (any::<usize>(), answering).prop_map(|(which, how)| Happening::Answer { which, how }),
        5 => (1..3i32).prop_map(Happening::Found),
        1 => proptest::option::of(code).prop_map(Happening::NotFound),
        3 => (0..4i32).prop_map(Happening::Described),
        1 => (0..4i32).prop_map(Happening::Partitions),
        10 => (0..4i32, 0..3i64).prop_map(|(partition, more)| Happening::Commit { partition, more }),
        4 => any::<usize>().prop_map(Happening::Release),
        8 => prop_oneof![0..50u64, 0..5000u64, 0..60_000u64].prop_map(Happening::Pass),
        1 => Just(Happening::Leave),
    ]
}

/// A member in a disorderly world, and what was seen of it.
struct World {
    membership: Membership,
    eager: bool,
    now: Instant,
    open: Vec<(CallId, Call)>,
    finding: bool,
    describing: Option<CallId>,
    announced: Vec<Lease>,
    revoking: Vec<RevocationId>,
    next_offset: i64,
    next_waiter: WaiterId,
    waiting: BTreeSet<WaiterId>,
    /// The last offset sent for each grant.
    sent: Vec<(Lease, i64)>,
    ended: bool,
}

impl World {
    fn new(eager: bool) -> Self {
        let now = Instant::now();
        let assignors = if eager { vec![Assignor::Range] } else { vec![Assignor::CooperativeSticky] };
        Self {
            membership: Membership::new(config(&assignors), BACKOFF, now),
            eager,
            now,
            open: Vec::new(),
            finding: false,
            describing: None,
            announced: Vec::new(),
            revoking: Vec::new(),
            next_offset: 0,
            next_waiter: 0,
            waiting: BTreeSet::new(),
            sent: Vec::new(),
            ended: false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if self.ended {
            return;
        }
        match happening {
            Happening::Answer { which, how } if !self.open.is_empty() => {
                let (call, request) = self.open.remove(which % self.open.len());
                let answer = self.answer(&request, how);
                self.step(Event::Answered { call, answer });
            }
            Happening::Found(node) if self.finding => {
                self.finding = false;
                self.step(Event::Found(Ok(node)));
            }
            Happening::NotFound(code) if self.finding => {
                self.finding = false;
                self.step(Event::Found(Err(NotFound { code, retriable: true, text: String::new() })));
            }
            Happening::Described(count) => {
                if let Some(call) = self.describing.take() {
                    self.step(Event::Described { call, counts: BTreeMap::from([("t".into(), count)]) });
                }
            }
            Happening::Partitions(count) => self.step(Event::Partitions(BTreeMap::from([("t".into(), count)]))),
            Happening::Commit { partition, more } => {
                // Any grant that there ever was, lost ones too.
                let Some(lease) = self.announced.iter().rev().find(|lease| lease.partition() == partition) else {
                    return;
                };
                self.next_offset += more;
                self.next_waiter += 1;
                self.waiting.insert(self.next_waiter);
                let lease = lease.clone();
                let (rewinds, offset) = (lease.rewinds(), self.next_offset);
                let commit = CommitOffset { lease, rewinds, offset, leader_epoch: 0, metadata: String::new() };
                self.step(Event::Commit { waiter: self.next_waiter, offsets: vec![commit] });
            }
            Happening::Release(which) if !self.revoking.is_empty() => {
                let revocation = self.revoking.remove(which % self.revoking.len());
                self.step(Event::Released(revocation));
            }
            Happening::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
            Happening::Leave => self.step(Event::Leave),
            _ => {}
        }
    }

    fn answer(&self, request: &Call, how: Answering) -> Result<Answer, Failure> {
        let (code, partitions) = match how {
            Answering::NotAtAll { retriable } => return Err(Failure { retriable, text: String::new() }),
            Answering::Unreadable if is_sync(request) => {
                return Ok(Answer::Synced { code: ErrorCode::NONE, assigned: Err(String::new()) });
            }
            Answering::Unreadable | Answering::Leading => (ErrorCode::NONE, BTreeSet::from([0, 1])),
            Answering::Code(code) => (code, BTreeSet::new()),
            Answering::Well(ref partitions) => (ErrorCode::NONE, partitions.clone()),
        };
        let all = |slots: Vec<Slot>| slots.into_iter().map(|slot| (slot, code)).collect();
        Ok(match request {
            Call::Join { .. } if !code.is_none() => {
                join_refused(code, if code == ErrorCode::MEMBER_ID_REQUIRED { "given" } else { "" })
            }
            Call::Join { .. } => {
                let members = matches!(how, Answering::Leading)
                    .then(|| vec![Member { id: "m".into(), topics: vec!["t".into()], ..Member::default() }]);
                let Answer::Joined(joined) = joined(self.membership.generation.max(0) + 1, members) else {
                    unreachable!("it is what the function gives")
                };
                let protocol = if self.eager { "range" } else { "cooperative-sticky" };
                Answer::Joined(Joined { protocol: protocol.into(), ..joined })
            }
            Call::Sync { .. } => Answer::Synced { code, assigned: Ok(partitions.into_iter().map(slot).collect()) },
            Call::Heartbeat { .. } => Answer::Heartbeat(code),
            Call::Commit { offsets, .. } => Answer::Committed(all(offsets.keys().cloned().collect())),
            Call::FetchOffsets { slots } if code.is_none() => {
                Answer::Offsets(Ok(slots.iter().map(|slot| (slot.clone(), Ok(None))).collect()))
            }
            Call::FetchOffsets { .. } => Answer::Offsets(Err(code)),
            Call::Leave { .. } => Answer::Left(code),
        })
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(wake) = self.membership.wake().filter(|wake| *wake <= until && !self.ended) {
            self.now = wake;
            self.step(Event::Tick);
        }
        self.now = until;
    }

    fn step(&mut self, event: Event) {
        for action in self.membership.step(event, self.now) {
            assert!(!self.ended, "nothing is done after the end");
            self.take(action);
        }
        self.examine();
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Find => {
                assert!(!self.finding, "one search at a time");
                self.finding = true;
            }
            Action::Send { call, request, .. } => {
                self.examine_request(&request);
                self.open.push((call, request));
            }
            Action::Unwatch => {}
            Action::Describe { call, .. } => self.describing = Some(call),
            Action::Assigned(assigned) => {
                for lease in assigned.into_iter().map(|one| one.lease) {
                    assert!(lease.is_active());
                    let mut rivals = self.announced.iter().filter(|old| old.partition() == lease.partition());
                    assert!(rivals.all(Lease::is_lost), "two grants of one partition");
                    self.announced.push(lease);
                }
            }
            Action::Revoke { revocation, leases, deadline } => {
                assert!(!leases.is_empty() && deadline > self.now);
                assert!(leases.iter().all(|lease| !lease.is_active()));
                self.revoking.push(revocation);
            }
            Action::Lost(leases) => assert!(leases.iter().all(Lease::is_lost)),
            Action::Reply(reply) => assert!(self.waiting.remove(&reply.waiter), "one answer each"),
            Action::End => self.ended = true,
            Action::Forget | Action::Fault { .. } => {}
        }
    }

    fn examine_request(&mut self, request: &Call) {
        match request {
            Call::Join { owned, .. } if self.eager => assert!(owned.is_empty()),
            Call::Join { owned, .. } => {
                // Whatever somebody may be working on is claimed.
                let working = self.announced.iter().filter(|lease| !lease.is_lost());
                for lease in working {
                    assert!(owned.contains(&slot(lease.partition())), "{lease:?} is not claimed");
                }
            }
            Call::Commit { generation, offsets, member_id } => {
                assert!(*generation >= 0 && !member_id.is_empty());
                for (slot, offset) in offsets {
                    let lease = self.announced.iter().rev().find(|lease| lease.partition() == slot.1);
                    let lease = lease.expect("it was announced").clone();
                    let drained = lease.is_lost() && self.is_flushing(slot);
                    assert!(!lease.is_lost() || drained, "{lease:?} is lost");
                    match self.sent.iter_mut().find(|(known, _)| known.same(&lease)) {
                        Some((_, last)) => {
                            assert!(offset.offset >= *last, "commits go backwards");
                            *last = offset.offset;
                        }
                        None => self.sent.push((lease, offset.offset)),
                    }
                }
            }
            _ => {}
        }
    }

    fn is_flushing(&self, slot: &Slot) -> bool {
        let mut revocations = self.membership.revocations.values();
        revocations.any(|one| matches!(one.stage, Stage::Flushing { .. }) && one.slots.contains(slot))
    }

    /// What holds after every step.
    fn examine(&self) {
        let membership = &self.membership;
        let asked = |kind: fn(&Asked) -> bool| membership.asked.values().filter(|(_, asked)| kind(asked)).count();
        assert!(asked(|asked| matches!(asked, Asked::Join { .. } | Asked::Sync)) <= 1, "two joins");
        assert!(asked(|asked| matches!(asked, Asked::Commit { .. })) <= 1, "two commits");
        assert!(asked(|asked| matches!(asked, Asked::FetchOffsets(_))) <= 1, "two offset fetches");
        for (slot, held) in &membership.held {
            assert!(membership.generation >= 0, "{slot:?} is held without a generation");
            assert!(!held.lease.is_lost() || self.is_flushing(slot), "{slot:?} is held without a lease");
        }
        for lease in self.announced.iter().filter(|lease| !lease.is_lost()) {
            let held = membership.held.get(&slot(lease.partition()));
            assert!(held.is_some_and(|held| held.lease.same(lease)), "{lease:?} is not held");
        }
        assert!(
            self.ended || membership.wake().is_none_or(|wake| wake > self.now),
            "it asks for the same moment again"
        );
        assert!(!self.ended || self.waiting.is_empty(), "everybody who waits is answered at the end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_gives_two_joins_or_a_commit_of_what_is_lost_or_a_partition_without_a_lease(
        eager in any::<bool>(), happenings in proptest::collection::vec(happening(), 1..150),
    ) {
        let mut world = World::new(eager);
        world.step(Event::Tick);
        for happening in happenings {
            world.happen(happening);
        }
        // However it stands, it leaves in time, though nobody answers any more.
        world.happen(Happening::Leave);
        world.pass(DRAIN + FLUSH_BUDGET + PART_BUDGET);
        prop_assert!(world.ended);
        prop_assert!(world.announced.iter().all(Lease::is_lost));
    }

    #[test]
    fn a_world_that_answers_well_again_always_leads_back_to_a_stable_member(
        eager in any::<bool>(), happenings in proptest::collection::vec(happening(), 1..80),
    ) {
        let mut world = World::new(eager);
        world.step(Event::Tick);
        for happening in happenings.into_iter().filter(|one| !matches!(one, Happening::Leave)) {
            world.happen(happening);
        }
        for round in 0..300 {
            while let Some((call, request)) = world.open.pop() {
                let unrest = round < 150 && is_heartbeat(&request);
                let answer = if unrest {
                    Ok(Answer::Heartbeat(ErrorCode::REBALANCE_IN_PROGRESS))
                } else {
                    world.answer(&request, Answering::Well(BTreeSet::from([2, 3])))
                };
                world.step(Event::Answered { call, answer });
            }
            world.happen(Happening::Found(1));
            world.happen(Happening::Described(4));
            world.happen(Happening::Release(0));
            world.pass(Duration::from_millis(200));
        }
        let active: BTreeSet<i32> =
            world.announced.iter().filter(|lease| lease.is_active()).map(Lease::partition).collect();
        prop_assert_eq!(active, BTreeSet::from([2, 3]));
        prop_assert!(matches!(world.membership.phase, Phase::Stable) && !world.membership.in_doubt);
    }
}
