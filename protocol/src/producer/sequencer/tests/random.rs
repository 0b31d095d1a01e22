//! Whatever happens in whatever order, to a small cluster that checks sequences: what must never be.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{
    happening::{Happening, How, NODES, PARTITIONS, happening},
    log::{Id, Log, ids},
    *,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idempotent,
    /// Without idempotence, one batch of a partition in flight.
    Single,
    /// Without idempotence, several: only what strikes all that is in flight keeps the order.
    Several,
    /// acks=0.
    Unanswered,
}

impl Mode {
    fn config(self) -> ProducerConfig {
        let (acks, max_in_flight) = match self {
            Self::Idempotent => return config(),
            Self::Single => (Acks::Leader, 1),
            Self::Several => (Acks::Leader, 5),
            Self::Unanswered => (Acks::None, 1),
        };
        ProducerConfig { acks, max_in_flight, ..without_idempotence() }
    }
}

/// A record that was given to the sequencer.
struct Given {
    partition: usize,
    deadline: Instant,
    heard: Option<Heard>,
}

/// A request on its way; nobody waits for it any more if it has no number.
type Arriving = (Option<RequestId>, Vec<(Key, Bytes)>);

/// A sequencer in a disorderly world, and what was seen of it.
struct World {
    mode: Mode,
    sequencer: Sequencer,
    metadata: Metadata,
    now: Instant,
    leaders: [Option<NodeId>; PARTITIONS],
    logs: [Log; PARTITIONS],
    arriving: BTreeMap<NodeId, VecDeque<Arriving>>,
    answers: BTreeMap<NodeId, VecDeque<(RequestId, Option<Answers>)>>,
    /// Requests without an answer, and the partitions in them.
    flying: BTreeMap<RequestId, (NodeId, Vec<i32>)>,
    asked: bool,
    ids: i64,
    next_number: u64,
    given: BTreeMap<Id, Given>,
    /// By the records of a batch: how it was sent last.
    sent: BTreeMap<Vec<Id>, Bytes>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let Rig { sequencer, metadata, now, .. } = Rig::new(mode.config());
        Self {
            mode,
            sequencer,
            metadata,
            now,
            leaders: [Some(1); PARTITIONS],
            logs: Default::default(),
            arriving: BTreeMap::new(),
            answers: BTreeMap::new(),
            flying: BTreeMap::new(),
            asked: false,
            ids: 0,
            next_number: 0,
            given: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Seal { partition, records } => {
                self.next_number += 1;
                // Where only a sequence could keep the order, no batch is refused for what it is.
                let records = if self.mode == Mode::Several { 1 } else { records };
                let (number, deadline) = (self.next_number, self.now + TIMEOUT);
                for index in 0..records {
                    self.given.insert((number, index), Given { partition, deadline, heard: None });
                }
                let batch = batch(number, records, deadline);
                self.step([Event::Sealed(vec![(key(partition as i32), batch)])]);
            }
            Happening::Process { node, how } => self.process(node, how),
            Happening::Deliver { node, count } => {
                let answers = self.answers.entry(node).or_default();
                let ready: Vec<_> = answers.drain(..count.min(answers.len())).collect();
                self.tell(ready.into_iter().map(|(request, answer)| (request, Ok(answer))).collect());
            }
            Happening::Lose { node, arrived, left } => self.lose(node, arrived, left),
            Happening::Move { partition, leader } => {
                if self.mode == Mode::Several {
                    // What was sent before is refused, all of it, and that is known before more is sent.
                    self.leaders[partition] = None;
                    self.process_all();
                    self.deliver_all();
                }
                self.leaders[partition] = leader;
            }
            Happening::Learn => {
                let topic = self.metadata.topics.get_mut("t").expect("it is there");
                for (partition, leader) in topic.partitions.iter_mut().zip(self.leaders) {
                    partition.leader = leader;
                }
                self.step(None);
            }
            Happening::Identify(well) if self.asked => {
                self.asked = false;
                self.ids += 1;
                let no = NoId { code: Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS), text: String::new() };
                self.step([Event::ProducerId(if well { Ok((self.ids, 0)) } else { Err(no) })]);
            }
            Happening::Identify(_) => {}
            Happening::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
        }
    }

    fn process(&mut self, node: NodeId, how: How) {
        let Some((request, batches)) = self.arriving.get_mut(&node).and_then(VecDeque::pop_front) else { return };
        let how = if self.mode == Mode::Several { How::Honestly } else { how };
        let mut answers = Answers::new();
        for (key, bytes) in batches {
            let partition = key.1 as usize;
            let log = &mut self.logs[partition];
            let answer = if self.leaders[partition] != Some(node) {
                code(ErrorCode::NOT_LEADER_OR_FOLLOWER)
            } else {
                match how {
                    How::Honestly => log.take(&bytes),
                    How::Refuse(told) => code(told),
                    How::WriteAndDoubt(told) => match ErrorCode(log.take(&bytes).error_code) {
                        ErrorCode::NONE => code(told),
                        refused => code(refused),
                    },
                    How::LeaveOut => {
                        log.take(&bytes);
                        continue;
                    }
                }
            };
            answers.insert(key, answer);
        }
        if let Some(request) = request {
            let answer = Some(answers).filter(|_| self.mode != Mode::Unanswered);
            self.answers.entry(node).or_default().push_back((request, answer));
        }
    }

    fn process_all(&mut self) {
        for node in NODES {
            while self.arriving.get(&node).is_some_and(|queue| !queue.is_empty()) {
                self.process(node, How::Honestly);
            }
        }
    }

    fn deliver_all(&mut self) {
        for node in NODES {
            self.happen(Happening::Deliver { node, count: usize::MAX });
        }
    }

    fn lose(&mut self, node: NodeId, arrived: usize, left: bool) {
        let arriving = self.arriving.entry(node).or_default();
        let mut not_sent = BTreeSet::new();
        for (place, (request, _)) in arriving.iter_mut().enumerate() {
            if place >= arrived && !left {
                not_sent.extend(*request);
            }
            *request = None;
        }
        // Whoever reconnects does not overtake what arrived.
        arriving.truncate(arrived);
        self.answers.remove(&node);
        let lost_ones = self.flying.iter().filter(|(_, (to, _))| *to == node).map(|(request, _)| *request);
        let outcome = |request| if not_sent.contains(&request) { Outcome::NotSent } else { Outcome::Unknown };
        let ends: Vec<_> = lost_ones.map(|request| (request, Err(lost(outcome(request))))).collect();
        self.tell(ends);
    }

    fn tell(&mut self, ends: Vec<(RequestId, Result<Option<Answers>, RequestError>)>) {
        for (request, _) in &ends {
            self.flying.remove(request);
        }
        self.step(ends.into_iter().map(|(request, answer)| Event::Answered { request, answer }));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.sequencer.wake() <= until {
            self.now = self.sequencer.wake();
            self.step(None);
        }
        self.now = until;
    }

    fn step(&mut self, events: impl IntoIterator<Item = Event>) {
        for action in self.sequencer.step(events, &self.metadata, self.now) {
            match action {
                Action::AskForId => {
                    assert!(!std::mem::replace(&mut self.asked, true), "one question at a time");
                }
                Action::Send { request, leader, batches } => self.send(request, leader, batches),
                Action::Settle(settlement) => self.hear(settlement),
                Action::Watch(_) | Action::Refresh | Action::Forget(_) => {}
            }
        }
        let late = self.given.values().any(|given| given.heard.is_none() && given.deadline <= self.now);
        assert!(!late, "a record has no outcome within the delivery timeout");
        assert!(self.sequencer.closed || self.sequencer.wake() > self.now, "it asks for the same moment again");
    }

    fn send(&mut self, request: RequestId, leader: NodeId, batches: Vec<(Key, Bytes)>) {
        let max = self.sequencer.config.max_in_flight;
        for (key, bytes) in &batches {
            assert_eq!(self.metadata.leader(&key.0, key.1), Some(leader));
            let others = self.flying.values().filter(|(_, partitions)| partitions.contains(&key.1));
            let mut to = others.clone().map(|(node, _)| *node);
            assert!(others.clone().count() < max, "too many batches of one partition are in flight");
            assert!(to.all(|node| node == leader), "two leaders have batches of one partition");
            let stamp = |bytes: &Bytes| {
                let header = BatchHeader::parse(bytes).expect("whole");
                (header.producer_id, header.producer_epoch)
            };
            if let Some(before) = self.sent.insert(ids(bytes), bytes.clone()) {
                assert!(before == *bytes || stamp(bytes) > stamp(&before), "a repetition of other bytes");
            }
        }
        let partitions = batches.iter().map(|(key, _)| key.1).collect();
        self.flying.insert(request, (leader, partitions));
        assert!(self.flying.values().filter(|(to, _)| *to == leader).count() <= max, "too many requests to a broker");
        self.arriving.entry(leader).or_default().push_back((Some(request), batches));
    }

    fn hear(&mut self, settlement: Settlement) {
        let outcome = settlement.outcome.clone().map(|written| written.offset);
        let (number, indexes) = settlement.records();
        for (place, index) in indexes.into_iter().enumerate() {
            let heard = outcome.clone().map_err(|error| (error.outcome, error.kind));
            let heard = heard.map(|offset| offset.map(|first| first + place as i64));
            let given = self.given.get_mut(&(number, index)).expect("it was given");
            assert!(given.heard.replace(heard).is_none(), "one outcome each");
        }
    }

    /// Everybody answers well and at once, for a while.
    fn calm(&mut self) {
        for partition in 0..PARTITIONS {
            self.happen(Happening::Move { partition, leader: Some(2) });
        }
        for _ in 0..100 {
            self.happen(Happening::Learn);
            self.happen(Happening::Identify(true));
            self.process_all();
            self.deliver_all();
            self.pass(Duration::from_millis(200));
        }
    }

    /// What the logs hold is what was heard.
    fn examine(&self) {
        for (id, given) in &self.given {
            let log = &self.logs[given.partition].records;
            let times = log.iter().filter(|other| *other == id).count();
            match given.heard.as_ref().expect("everybody has heard") {
                Ok(offset) => {
                    assert!(times > 0 || self.mode == Mode::Unanswered, "{id:?} is lost");
                    let at = offset.map(|offset| log[offset as usize]);
                    assert!(at.is_none_or(|at| at == *id), "{id:?} is not where it is said to be");
                }
                Err((Outcome::NotSent | Outcome::Rejected, kind)) => {
                    assert_eq!(times, 0, "{id:?} is said not to be written: {kind}");
                }
                Err((Outcome::Unknown, _)) => {}
            }
            assert!(times <= 1 || self.mode != Mode::Idempotent, "{id:?} is there {times} times");
        }
        for log in &self.logs {
            // A repetition without idempotence does not change what was first.
            let mut seen = BTreeSet::new();
            let first: Vec<Id> = log.records.iter().filter(|id| seen.insert(**id)).copied().collect();
            assert!(first.is_sorted(), "out of order: {first:?}");
        }
    }
}

fn live(mode: Mode, happenings: Vec<Happening>) -> World {
    // The jitter of the back-off, so that what was found is found again.
    fastrand::seed(7);
    let mut world = World::new(mode);
    for happening in happenings {
        world.happen(happening);
    }
    world
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Idempotent), 1 => Just(Mode::Single), 1 => Just(Mode::Several), 1 => Just(Mode::Unanswered)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_loses_doubles_or_reorders_a_record_or_leaves_one_without_its_one_outcome(
        mode in mode(), happenings in proptest::collection::vec(happening(), 1..200),
    ) {
        let mut world = live(mode, happenings);
        world.calm();
        let before = world.next_number;
        for partition in 0..PARTITIONS {
            world.happen(Happening::Seal { partition, records: 1 });
        }
        world.calm();
        world.examine();
        let new = world.given.range((before + 1, 0)..).all(|(_, given)| matches!(given.heard, Some(Ok(_))));
        prop_assert!(new, "in a world that answers well everything is written");
    }

    #[test]
    fn whenever_it_is_closed_everybody_hears_what_is_true(
        mode in mode(), happenings in proptest::collection::vec(happening(), 1..100),
    ) {
        let mut world = live(mode, happenings);
        world.step([Event::Close]);
        // What was sent may still arrive.
        world.process_all();
        world.examine();
    }
}
