//! The machine without sockets and clock: what comes in, what is to be done.

mod happening;
mod life;
mod log;
mod random;
mod rows;

use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use uuid::Uuid;

use super::*;
use crate::{
    cluster::{Partition, Topic},
    connection::RequestErrorKind,
    producer::{Acks, completion::Completion},
    record::{BatchBuilder, BatchHeader, Compression},
};

const TIMEOUT: Duration = Duration::from_secs(120);
/// Longer than any rest between two tries.
const REST: Duration = Duration::from_millis(1300);
const ID: i64 = 7;

fn config() -> ProducerConfig {
    ProducerConfig { delivery_timeout: TIMEOUT, ..ProducerConfig::default() }
}

fn without_idempotence() -> ProducerConfig {
    ProducerConfig { idempotence: false, acks: Acks::Leader, ..config() }
}

fn key(partition: i32) -> Key {
    ("t".into(), partition)
}

/// A batch of records that hold their index.
fn batch(number: u64, records: usize, deadline: Instant) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, None, 0);
    for index in 0..records {
        let value = format!("{number}.{index}");
        builder.append(0, None, Some(value.as_bytes()), &[]).expect("small");
    }
    let completion = Completion::new();
    completion.sealed(records);
    Batch::new(number, builder.seal().expect("not empty"), completion, records, deadline, None)
}

fn code(code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse::default().with_error_code(code.0)
}

fn written(offset: i64) -> PartitionProduceResponse {
    PartitionProduceResponse::default().with_base_offset(offset)
}

/// The connection was lost, before or after the request was written.
fn lost(outcome: Outcome) -> RequestError {
    RequestError { outcome, kind: RequestErrorKind::Closed { address: "b:1".into(), cause: "it was lost".into() } }
}

/// A request that is on its way.
struct Sent {
    request: RequestId,
    leader: NodeId,
    batches: Vec<(Key, Bytes)>,
}

impl Sent {
    /// Epoch, first sequence and records of its batch of this partition.
    fn stamp(&self, partition: i32) -> (i16, i32, i32) {
        let header = BatchHeader::parse(&self.bytes(partition)).expect("whole");
        assert_eq!(header.has_producer_id(), header.base_sequence >= 0);
        (header.producer_epoch, header.base_sequence, header.record_count)
    }

    fn bytes(&self, partition: i32) -> Bytes {
        self.batches.iter().find(|(key, _)| key.1 == partition).expect("it is in the request").1.clone()
    }
}

/// What the caller hears of some records: their offset, or why they failed.
type Heard = Result<Option<i64>, (Outcome, ProduceErrorKind)>;

/// A sequencer, the world it sees, and what it wanted.
struct Rig {
    sequencer: Sequencer,
    metadata: Metadata,
    now: Instant,
    /// Requests without an answer yet, oldest first.
    open: Vec<Sent>,
    /// By the batch's number and the records' indexes.
    heard: Vec<(u64, Vec<usize>, Heard)>,
    /// Whether an id is asked for.
    asked: bool,
    watched: Vec<Arc<str>>,
    forgotten: Vec<Arc<str>>,
    refreshes: usize,
    next_number: u64,
}

impl Rig {
    /// Node 1 leads four partitions; no id was asked for yet.
    fn new(config: ProducerConfig) -> Self {
        let now = Instant::now();
        let mut metadata = Metadata::default();
        let partition =
            |index| Partition { index, leader: Some(1), leader_epoch: 0, error: ErrorCode::NONE, replicas: Vec::new() };
        let partitions = (0..4).map(partition).collect();
        metadata.topics.insert("t".into(), Topic { id: Uuid::from_u128(1), error: ErrorCode::NONE, partitions });
        Self {
            sequencer: Sequencer::new(config, now),
            metadata,
            now,
            open: Vec::new(),
            heard: Vec::new(),
            asked: false,
            watched: Vec::new(),
            forgotten: Vec::new(),
            refreshes: 0,
            next_number: 0,
        }
    }

    /// One that has its id, and whose first batch on partition 0, of ten records, is written.
    fn settled(config: ProducerConfig) -> Self {
        let mut rig = Self::new(config);
        rig.seal(0, 10);
        if rig.asked {
            rig.identify((ID, 0));
        }
        rig.answer(0, written(0));
        rig.heard.clear();
        rig
    }

    fn lead(&mut self, partition: i32, leader: Option<NodeId>) {
        let topic = self.metadata.topics.get_mut("t").expect("it is there");
        topic.partitions[partition as usize].leader = leader;
        self.step(None);
    }

    fn make_anew(&mut self, id: u128) {
        self.metadata.topics.get_mut("t").expect("it is there").id = Uuid::from_u128(id);
        self.step(None);
    }

    fn step(&mut self, events: impl IntoIterator<Item = Event>) {
        for action in self.sequencer.step(events, &self.metadata, self.now) {
            match action {
                Action::Watch(topic) => self.watched.push(topic),
                Action::Forget(topic) => self.forgotten.push(topic),
                Action::Refresh => self.refreshes += 1,
                Action::AskForId => {
                    assert!(!self.asked, "one question at a time");
                    self.asked = true;
                }
                Action::Send { request, leader, batches } => self.open.push(Sent { request, leader, batches }),
                Action::Settle(settlement) => {
                    let outcome = settlement.outcome.clone().map(|written| written.offset);
                    let (number, records) = settlement.records();
                    self.heard.push((number, records, outcome.map_err(|error| (error.outcome, error.kind))));
                    settlement.tell();
                }
            }
        }
        assert!(self.sequencer.closed || self.sequencer.wake() > self.now, "it asks for the same moment again");
    }

    /// Time passes, with whatever is due meanwhile.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.sequencer.wake() <= until && !self.sequencer.closed {
            self.now = self.sequencer.wake();
            self.step(None);
        }
        self.now = until;
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A new batch; returns its number.
    fn seal(&mut self, partition: i32, records: usize) -> u64 {
        let number = self.number();
        self.step([Event::Sealed(vec![(key(partition), batch(number, records, self.now + TIMEOUT))])]);
        number
    }

    /// New batches of partition 0, one after the other; returns their numbers.
    fn seal_many(&mut self, batches: usize, records: usize) -> Vec<u64> {
        (0..batches).map(|_| self.seal(0, records)).collect()
    }

    fn identify(&mut self, identity: Identity) {
        assert!(std::mem::take(&mut self.asked), "nobody asked");
        self.step([Event::ProducerId(Ok(identity))]);
    }

    fn refuse_id(&mut self, code: ErrorCode) {
        assert!(std::mem::take(&mut self.asked), "nobody asked");
        self.step([Event::ProducerId(Err(NoId { code: Some(code), text: format!("InitProducerId: {code}") }))]);
    }

    /// The same answer for each batch of the oldest open request that has one of this partition.
    fn answer(&mut self, partition: i32, answer: PartitionProduceResponse) -> Sent {
        self.end(partition, |sent| {
            Ok(Some(sent.batches.iter().map(|(key, _)| (key.clone(), answer.clone())).collect()))
        })
    }

    /// The oldest open request that has a batch of this partition ends.
    fn end(&mut self, partition: i32, how: impl FnOnce(&Sent) -> Result<Option<Answers>, RequestError>) -> Sent {
        let named = |sent: &Sent| sent.batches.iter().any(|(key, _)| key.1 == partition);
        let position = self.open.iter().position(named).expect("such a request is open");
        let sent = self.open.remove(position);
        let answer = how(&sent);
        self.step([Event::Answered { request: sent.request, answer }]);
        sent
    }

    /// Epoch, first sequence and records of what is on its way, of partition 0.
    fn on_their_way(&self) -> Vec<(i16, i32, i32)> {
        self.open.iter().map(|sent| sent.stamp(0)).collect()
    }

    /// What was heard since the last look.
    fn heard(&mut self) -> Vec<(u64, Vec<usize>, Heard)> {
        std::mem::take(&mut self.heard)
    }
}
