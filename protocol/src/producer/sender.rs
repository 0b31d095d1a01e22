//! The task that sends a producer's batches.
//!
//! ```text
//! Queued -> InFlight -> Done
//!    ^_________/  again, in the order of sequence numbers, with the same bytes
//! ```
//! One request takes one batch of each ready partition of a broker; several requests are in flight per broker and
//! partition. After a try that has to be repeated, a partition sends nothing younger until what was in flight is answered,
//! and then what is repeated one by one, so order holds with and without idempotence.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, ProducerId, produce_response::PartitionProduceResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Acks, Outcome, ProduceErrorKind,
    accumulator::{Batch, Indexes, Key, Place, Shared, failure},
    answers::{self, Answers},
    completion::Written,
    verdict::{Case, Verdict, verdict},
};
use crate::{
    cluster::{Backoff, Call, Cluster, NodeId, Purpose},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
    message::{ProduceTopic, RawProduce},
};

/// One partition's way to its leader.
struct Lane {
    queue: VecDeque<Batch>,
    in_flight: Vec<Batch>,
    /// Where everything in flight was sent: a new leader gets nothing before the old one has answered, or a batch could be
    /// repeated after more than the five younger ones by which a broker still knows it.
    leader: Option<NodeId>,
    /// Producer id and epoch of what is stamped here: the producer's at first, later an epoch of its own.
    identity: Option<(i64, i16)>,
    next_sequence: i32,
    /// A batch of this epoch was written. Before that only one is in flight: a broker without a state for us takes any
    /// sequence number, so a second batch could overtake a first one that has to be repeated.
    settled: bool,
    /// Something is to be repeated: nothing younger goes out before everything in flight is answered.
    repeating: bool,
    backoff: Backoff,
    not_before: Instant,
}

impl Lane {
    /// Whether everything in flight has to be answered before more is sent. A repeated batch travels alone (as in Java): it
    /// may have been written, and a broker knows it again only while few are written after it.
    fn waits(&self) -> bool {
        let repeated = self.queue.front().is_some_and(|batch| batch.tries > 0);
        let repeating = self.repeating || repeated || self.in_flight.iter().any(|batch| batch.tries > 1);
        !self.in_flight.is_empty() && (repeating || !self.settled)
    }

    /// Into the queue, before what is younger.
    fn put_back(&mut self, batch: Batch) {
        let place = self.queue.partition_point(|other| other.place() < batch.place());
        self.queue.insert(place, batch);
    }
}

enum Done {
    ProducerId(Result<(i64, i16), String>),
    /// None: nothing is answered to acks=0.
    Produced {
        node: NodeId,
        sent: Vec<(Key, Place)>,
        answer: Result<Option<Answers>, RequestError>,
    },
}

pub(super) struct Sender {
    cluster: Cluster,
    shared: Arc<Shared>,
    lanes: BTreeMap<Key, Lane>,
    /// Requests in flight.
    brokers: BTreeMap<NodeId, usize>,
    requests: FuturesUnordered<BoxFuture<Done>>,
    /// Nothing is over its delivery timeout before.
    expires: Instant,
    producer_id: Option<(i64, i16)>,
    asking_for_id: bool,
    id_backoff: Backoff,
    id_not_before: Instant,
    id_fault: String,
}

impl Sender {
    pub(super) fn new(cluster: Cluster, shared: Arc<Shared>) -> Self {
        let id_backoff = Backoff::new(shared.config.retry_backoff, shared.config.retry_backoff_max);
        let now = Instant::now();
        Self {
            expires: now + shared.config.delivery_timeout,
            cluster,
            shared,
            lanes: BTreeMap::new(),
            brokers: BTreeMap::new(),
            requests: FuturesUnordered::new(),
            producer_id: None,
            asking_for_id: false,
            id_backoff,
            id_not_before: now,
            id_fault: "it has no producer id yet".to_owned(),
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut metadata = self.cluster.metadata_changes();
        loop {
            let now = Instant::now();
            if cancel.is_cancelled() {
                self.shared.end();
            }
            // Looked at first: from its end on nothing is taken, and everything is sealed.
            let ended = self.shared.has_ended();
            let (fresh, lingers) = self.shared.drain(now, |topic, partition| self.is_busy(topic, partition));
            let nothing_new = fresh.is_empty();
            for (key, batch) in fresh {
                self.expires = self.expires.min(batch.deadline);
                self.lane(&key).queue.push_back(batch);
            }
            if ended {
                self.fail_everything();
                return;
            }
            if self.expires <= now {
                self.expire(now);
            }
            let again = self.send_what_is_ready(now);
            if !nothing_new {
                // What was sent made room for what was held back.
                continue;
            }
            let next = lingers.into_iter().chain(again).fold(self.expires, Instant::min);
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                Some(done) = self.requests.next() => self.take(done),
                () = self.shared.wake.notified() => {}
                changed = metadata.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Whether a batch of this partition would have to wait for others.
    fn is_busy(&self, topic: &Arc<str>, partition: i32) -> bool {
        let full = |lane: &Lane| !lane.queue.is_empty() || lane.in_flight.len() >= self.shared.config.max_in_flight;
        self.lanes.get(&(topic.clone(), partition)).is_some_and(|lane| full(lane) || lane.waits())
    }

    fn lane(&mut self, key: &Key) -> &mut Lane {
        let config = &self.shared.config;
        self.lanes.entry(key.clone()).or_insert_with(|| {
            // Its leader is to be followed, also if it was known because somebody else watched the topic.
            self.cluster.watch_topics(&[key.0.to_string()], config.allow_auto_create_topics);
            Lane {
                queue: VecDeque::new(),
                in_flight: Vec::new(),
                leader: None,
                identity: None,
                next_sequence: 0,
                settled: false,
                repeating: false,
                backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
                not_before: Instant::now(),
            }
        })
    }

    /// Fails what is over its delivery timeout, in whatever state, and finds out when the next will be.
    fn expire(&mut self, now: Instant) {
        let mut next = now + self.shared.config.delivery_timeout;
        let id_fault = self.producer_id.is_none().then(|| self.id_fault.clone());
        for (key, lane) in &mut self.lanes {
            // What waits is taken out. What is in flight keeps its place in the sequence; only its records hear of it.
            let (late, queue): (VecDeque<_>, VecDeque<_>) = lane.queue.drain(..).partition(|b| b.deadline <= now);
            lane.queue = queue;
            for batch in late {
                let last = id_fault.clone().filter(|_| batch.tries == 0).unwrap_or_else(|| batch.last_fault.clone());
                fail(&self.shared, key, &batch, batch.outcome, ProduceErrorKind::DeliveryTimeout { last });
            }
            for batch in &lane.in_flight {
                if batch.deadline <= now && !batch.completion.is_done() {
                    let kind = ProduceErrorKind::DeliveryTimeout { last: "the broker has not answered".to_owned() };
                    fail(&self.shared, key, batch, Outcome::Unknown, kind);
                }
            }
            let waiting = lane.queue.iter().map(|batch| batch.deadline);
            let flying = lane.in_flight.iter().filter(|batch| !batch.completion.is_done()).map(|batch| batch.deadline);
            next = waiting.chain(flying).fold(next, Instant::min);
        }
        self.expires = next;
    }

    /// Sends every request that can be sent now; returns when to look again.
    fn send_what_is_ready(&mut self, now: Instant) -> Option<Instant> {
        if self.lanes.values().all(|lane| lane.queue.is_empty()) {
            return None;
        }
        if self.shared.config.idempotence && self.producer_id.is_none() {
            return self.ask_for_id(now);
        }
        let metadata = self.cluster.metadata();
        let (mut next, mut leaderless) = (None, false);
        loop {
            let mut ready: BTreeMap<NodeId, Vec<Key>> = BTreeMap::new();
            for (key, lane) in &mut self.lanes {
                if lane.queue.is_empty() || lane.waits() || lane.in_flight.len() >= self.shared.config.max_in_flight {
                    continue;
                }
                lane.repeating = false;
                if lane.not_before > now {
                    next = next.into_iter().chain([lane.not_before]).min();
                    continue;
                }
                let Some(leader) = metadata.leader(&key.0, key.1) else {
                    leaderless = true;
                    lane.not_before = now + lane.backoff.next_delay();
                    next = next.into_iter().chain([lane.not_before]).min();
                    if let Some(batch) = lane.queue.front_mut() {
                        batch.last_fault = "its partition has no leader".to_owned();
                    }
                    continue;
                };
                if !lane.in_flight.is_empty() && lane.leader != Some(leader) {
                    continue;
                }
                if self.brokers.get(&leader).copied().unwrap_or(0) < self.shared.config.max_in_flight {
                    ready.entry(leader).or_default().push(key.clone());
                }
            }
            if ready.is_empty() {
                break;
            }
            for (leader, keys) in ready {
                self.send(leader, keys);
            }
        }
        if leaderless {
            self.cluster.request_refresh();
        }
        next
    }

    fn ask_for_id(&mut self, now: Instant) -> Option<Instant> {
        if self.asking_for_id {
            return None;
        }
        if self.id_not_before > now {
            return Some(self.id_not_before);
        }
        self.asking_for_id = true;
        let (cluster, timeout) = (self.cluster.clone(), self.shared.config.request_timeout);
        self.requests.push(Box::pin(async move {
            let build = |_| {
                InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(i32::MAX)
                    .with_producer_id(ProducerId(-1))
                    .with_producer_epoch(-1)
            };
            Done::ProducerId(match cluster.call_any::<InitProducerIdRequest>(timeout, build).await {
                Ok((_, answer)) => match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => Ok((answer.producer_id.0, answer.producer_epoch)),
                    code => Err(format!("InitProducerId: {code}")),
                },
                Err(error) => Err(error.chain()),
            })
        }));
        None
    }

    /// One request with one batch of each of these partitions.
    fn send(&mut self, leader: NodeId, keys: Vec<Key>) {
        let config = &self.shared.config;
        let metadata = self.cluster.metadata();
        let (mut sent, mut topics) = (Vec::new(), Vec::<ProduceTopic>::new());
        for key in keys {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            let Some(mut batch) = lane.queue.pop_front() else { continue };
            if let (true, Some(id)) = (config.idempotence, self.producer_id) {
                let (producer_id, epoch) = *lane.identity.get_or_insert(id);
                if batch.stamp.is_none() {
                    batch.sealed.stamp(producer_id, epoch, lane.next_sequence);
                    batch.stamp = Some((producer_id, epoch, lane.next_sequence));
                    lane.next_sequence = advance(lane.next_sequence, batch.sealed.count());
                }
            }
            batch.tries += 1;
            sent.push((key.clone(), batch.place()));
            let partition = (key.1, batch.sealed.bytes());
            match topics.last_mut() {
                Some(topic) if topic.name == key.0 => topic.partitions.push(partition),
                _ => {
                    let id = metadata.topics.get(&key.0).map(|topic| topic.id).unwrap_or_default();
                    topics.push(ProduceTopic { name: key.0.clone(), id, partitions: vec![partition] });
                }
            }
            lane.leader = Some(leader);
            lane.in_flight.push(batch);
        }
        let acks = match config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let timeout_ms = i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let names: Vec<(uuid::Uuid, Arc<str>)> = topics.iter().map(|topic| (topic.id, topic.name.clone())).collect();
        let call = Call {
            api_key: ApiKey::Produce as i16,
            expects_answer: acks != 0,
            topic_ids: topics.iter().all(|topic| !topic.id.is_nil()),
        };
        let request = RawProduce { acks, timeout_ms, transactional_id: None, topics };
        let encode = move |version, client_id: &str| request.encode(version, 0, client_id);
        *self.brokers.entry(leader).or_default() += 1;
        let cluster = self.cluster.clone();
        let raw = self.cluster.call_raw(leader, Purpose::Produce, config.request_timeout, call, encode);
        self.requests.push(Box::pin(async move {
            let answer = match raw.await {
                Ok((_, None)) => Ok(None),
                Ok((connection, Some(answer))) => answers::read(&cluster, &connection, answer, &names).map(Some),
                Err(error) => Err(error),
            };
            Done::Produced { node: leader, sent, answer }
        }));
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::ProducerId(answer) => {
                self.asking_for_id = false;
                match answer {
                    Ok(id) => {
                        tracing::debug!(producer_id = id.0, epoch = id.1, "got a producer id");
                        self.producer_id = Some(id);
                        self.id_backoff.reset();
                    }
                    Err(fault) => {
                        tracing::debug!(%fault, "no producer id yet");
                        self.id_fault = fault;
                        self.id_not_before = Instant::now() + self.id_backoff.next_delay();
                    }
                }
            }
            Done::Produced { node, sent, answer } => {
                if let Some(count) = self.brokers.get_mut(&node) {
                    *count = count.saturating_sub(1);
                }
                for (key, place) in sent {
                    let Some(lane) = self.lanes.get_mut(&key) else { continue };
                    let found = lane.in_flight.iter().position(|batch| batch.place() == place);
                    let Some(position) = found else { continue };
                    let batch = lane.in_flight.remove(position);
                    match &answer {
                        Ok(None) => self.written(&key, batch, None, -1),
                        Ok(Some(answers)) => self.answered(&key, batch, answers.get(&key)),
                        Err(error) => self.unanswered(&key, batch, error),
                    }
                }
            }
        }
    }

    fn written(&mut self, key: &Key, batch: Batch, base_offset: Option<i64>, append_time: i64) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.backoff.reset();
            lane.settled = true;
        }
        let append_time = Some(append_time).filter(|time| *time >= 0);
        batch.settle(Ok(Written { partition: key.1, offset: base_offset, append_time }));
        if batch.completion.is_done() {
            self.shared.finished(batch.number);
        }
    }

    fn unanswered(&mut self, key: &Key, mut batch: Batch, error: &RequestError) {
        tracing::debug!(topic = %key.0, partition = key.1, error = %error.chain(), "a batch got no answer");
        batch.tried(error.outcome);
        batch.last_fault = error.chain();
        self.cluster.request_refresh();
        if error.retriable() {
            self.again(key, batch);
        } else {
            let kind = ProduceErrorKind::DeliveryTimeout { last: error.chain() };
            fail(&self.shared, key, &batch, batch.outcome, kind);
        }
    }

    fn answered(&mut self, key: &Key, mut batch: Batch, answer: Option<&PartitionProduceResponse>) {
        let Some(answer) = answer else {
            batch.tried(Outcome::Unknown);
            batch.last_fault = "the broker's answer left the partition out".to_owned();
            self.again(key, batch);
            return;
        };
        let code = ErrorCode(answer.error_code);
        let is_first = self.lanes.get(key).is_none_or(|lane| {
            let older = |other: &Batch| other.place() < batch.place();
            !lane.in_flight.iter().any(older) && !lane.queue.iter().any(older)
        });
        let case = Case {
            code,
            idempotent: self.shared.config.idempotence,
            replicated: self.shared.config.acks == Acks::All,
            is_first,
            records: batch.indexes.len(),
            culprits: answer.record_errors.len(),
        };
        let message = answer.error_message.as_ref().map(|message| message.to_string());
        match verdict(case) {
            Verdict::Written => self.written(key, batch, Some(answer.base_offset), answer.log_append_time_ms),
            Verdict::WrittenBefore => self.written(key, batch, None, answer.log_append_time_ms),
            Verdict::Again { in_doubt, refresh } => {
                tracing::debug!(topic = %key.0, partition = key.1, %code, "sending a batch again");
                batch.tried(if in_doubt { Outcome::Unknown } else { Outcome::Rejected });
                batch.last_fault = code.to_string();
                if refresh {
                    let leader = &answer.current_leader;
                    if leader.leader_id.0 < 0 {
                        self.cluster.request_refresh();
                    }
                }
                self.again(key, batch);
            }
            Verdict::NewEpoch => {
                tracing::info!(topic = %key.0, partition = key.1, %code, "beginning a new producer epoch for the partition");
                batch.tried(Outcome::Rejected);
                batch.last_fault = code.to_string();
                self.new_epoch(key, batch);
            }
            Verdict::Divide => {
                let half = batch.indexes.len().div_ceil(2);
                self.divide(key, batch, |place| Some(usize::from(place >= half)));
            }
            Verdict::WithoutCulprits => {
                let culprits: Vec<usize> =
                    answer.record_errors.iter().filter_map(|e| usize::try_from(e.batch_index).ok()).collect();
                for error in &answer.record_errors {
                    let Some(index) = usize::try_from(error.batch_index).ok().and_then(|p| batch.indexes.get(p)) else {
                        continue;
                    };
                    let message =
                        error.batch_index_error_message.as_ref().map(|m| m.to_string()).or_else(|| message.clone());
                    let kind = ProduceErrorKind::Broker { code, message };
                    batch.completion.set([(index, Err(failure(key, Outcome::Rejected, kind)))].into_iter());
                }
                self.divide(key, batch, |place| (!culprits.contains(&place)).then_some(0));
            }
            Verdict::Failed => {
                let kind = match code {
                    ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                        ProduceErrorKind::TooLarge { size: batch.sealed.len(), limit: None }
                    }
                    code => ProduceErrorKind::Broker { code, message },
                };
                // An earlier try of it may have been written.
                batch.tried(Outcome::Rejected);
                fail(&self.shared, key, &batch, batch.outcome, kind);
            }
        }
    }

    /// Puts a batch back in its place.
    fn again(&mut self, key: &Key, mut batch: Batch) {
        if batch.completion.is_done() {
            // Its records were given up at the delivery timeout; a gap in the sequence is healed by a new epoch.
            self.shared.finished(batch.number);
            return;
        }
        if let Some(retries) = self.shared.config.retries
            && batch.tries > retries
        {
            let last = format!("{} after {} tries (retries={retries})", batch.last_fault, batch.tries);
            fail(&self.shared, key, &batch, batch.outcome, ProduceErrorKind::DeliveryTimeout { last });
            return;
        }
        let lane = self.lane(key);
        if batch.identity() != lane.identity {
            // Its epoch ended while it was in flight.
            batch.stamp = None;
        }
        lane.repeating = true;
        lane.not_before = Instant::now() + lane.backoff.next_delay();
        lane.put_back(batch);
    }

    /// This partition goes on with the next epoch, sequences from 0 (KIP-360, done locally as no transaction is involved).
    /// A batch of an epoch that was given up already only takes its place in the one that is.
    fn new_epoch(&mut self, key: &Key, batch: Batch) {
        let lane = self.lane(key);
        if let Some((id, epoch)) = lane.identity
            && batch.identity() == Some((id, epoch))
        {
            lane.identity = epoch.checked_add(1).map(|epoch| (id, epoch));
            lane.next_sequence = 0;
            lane.settled = false;
            for batch in &mut lane.queue {
                batch.stamp = None;
            }
            if lane.identity.is_none() {
                // No epoch is left. Other partitions keep the id that they have.
                self.producer_id = None;
            }
        }
        self.again(key, batch);
    }

    /// Sends parts of a batch that was refused as a whole. They take over its sequence numbers, as far as they go.
    fn divide(&mut self, key: &Key, batch: Batch, part: impl Fn(usize) -> Option<usize>) {
        let parts = match batch.sealed.divide(&part) {
            Ok(parts) => parts,
            Err(error) => {
                let kind = ProduceErrorKind::DeliveryTimeout { last: error.to_string() };
                fail(&self.shared, key, &batch, Outcome::Rejected, kind);
                return;
            }
        };
        let mut sequence = batch.stamp;
        let places: Vec<Option<usize>> = (0..batch.indexes.len()).map(part).collect();
        let mut divided = Vec::new();
        for (number, mut sealed) in parts.into_iter().enumerate() {
            let of_part = |(place, index): (usize, usize)| (places[place] == Some(number)).then_some(index);
            let indexes = Indexes::Part(batch.indexes.iter().filter_map(of_part).collect());
            let stamp = sequence;
            if let Some((id, epoch, first)) = stamp {
                sealed.stamp(id, epoch, first);
                sequence = Some((id, epoch, advance(first, sealed.count())));
            }
            divided.push(Batch {
                number: batch.number,
                sealed,
                completion: batch.completion.clone(),
                indexes,
                deadline: batch.deadline,
                stamp,
                outcome: Outcome::Rejected,
                tries: batch.tries,
                last_fault: batch.last_fault.clone(),
                _memory: batch._memory.clone(),
            });
        }
        let lane = self.lane(key);
        lane.repeating = true;
        for part in divided {
            lane.put_back(part);
        }
    }

    fn fail_everything(&mut self) {
        for (key, lane) in &mut self.lanes {
            for batch in lane.queue.drain(..) {
                fail(&self.shared, key, &batch, batch.outcome, ProduceErrorKind::Closed);
            }
            for batch in lane.in_flight.drain(..) {
                fail(&self.shared, key, &batch, Outcome::Unknown, ProduceErrorKind::Closed);
            }
        }
    }
}

/// Sequence numbers wrap to 0 after the largest.
fn advance(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

fn fail(shared: &Shared, key: &Key, batch: &Batch, outcome: Outcome, kind: ProduceErrorKind) {
    let error = failure(key, outcome, kind);
    batch.settle(Err(error));
    if batch.completion.is_done() {
        shared.finished(batch.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX - 1, 3), 1);
    }
}
