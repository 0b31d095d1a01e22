//! The task that sends a producer's batches: it does what [`Sequencer`] wants done and tells it what comes back.
//!
//! Nothing is decided here.

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, ProducerId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Acks,
    accumulator::Shared,
    answers,
    batch::Key,
    sequencer::{Action, Event, NoId, RequestId, Sequencer},
};
use crate::{
    cluster::{Call, Cluster, Metadata, NodeId, Purpose},
    connection::BoxFuture,
    error_code::ErrorCode,
    message::{ProduceTopic, RawProduce},
};

pub(super) struct Sender {
    cluster: Cluster,
    shared: Arc<Shared>,
    sequencer: Sequencer,
    requests: FuturesUnordered<BoxFuture<Event>>,
}

impl Sender {
    pub(super) fn new(cluster: Cluster, shared: Arc<Shared>) -> Self {
        let sequencer = Sequencer::new(shared.config.clone(), Instant::now());
        Self { cluster, shared, sequencer, requests: FuturesUnordered::new() }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut changes = self.cluster.metadata_changes();
        let mut answered = None;
        loop {
            if cancel.is_cancelled() {
                self.shared.end();
            }
            // Looked at before the last records are drained: what is taken after them is none.
            let ending = self.shared.has_ended();
            let now = Instant::now();
            let (sealed, lingers) = self.shared.drain(now, |topic, partition| self.sequencer.is_busy(topic, partition));
            let sealed = (!sealed.is_empty()).then_some(Event::Sealed(sealed));
            let made_room = answered.is_some() || sealed.is_some();
            let events = [answered.take(), sealed, ending.then_some(Event::Close)];
            let metadata = changes.borrow_and_update().clone();
            for action in self.sequencer.step(events.into_iter().flatten(), &metadata, now) {
                self.act(action, &metadata);
            }
            if ending {
                return;
            }
            if made_room {
                // What was answered or sent made room for what was held back.
                continue;
            }
            let wake = lingers.into_iter().fold(self.sequencer.wake(), Instant::min);
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                event = self.requests.next(), if !self.requests.is_empty() => answered = event,
                () = self.shared.wake.notified() => {}
                // It ends with the cluster, which is held here.
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn act(&mut self, action: Action, metadata: &Metadata) {
        match action {
            Action::Watch(topic) => {
                self.cluster.watch_to_produce(&topic, self.shared.config.allow_auto_create_topics);
            }
            Action::Refresh => self.cluster.request_refresh(),
            Action::AskForId => self.ask_for_id(),
            Action::Send { request, leader, batches } => self.send(request, leader, batches, metadata),
            Action::Settle(settlement) => {
                if let Some(number) = settlement.tell() {
                    self.shared.finished(number);
                }
            }
            Action::Forget(topic) => {
                self.cluster.forget_missing(&topic);
                self.shared.forget(&topic);
            }
        }
    }

    fn ask_for_id(&mut self) {
        let (cluster, timeout) = (self.cluster.clone(), self.shared.config.request_timeout);
        self.requests.push(Box::pin(async move {
            let build = |_| {
                InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(i32::MAX)
                    .with_producer_id(ProducerId(-1))
                    .with_producer_epoch(-1)
            };
            Event::ProducerId(match cluster.call_any::<InitProducerIdRequest>(timeout, build).await {
                Ok((_, answer)) => match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => Ok((answer.producer_id.0, answer.producer_epoch)),
                    code => Err(NoId { code: Some(code), text: format!("InitProducerId: {code}") }),
                },
                Err(error) => Err(NoId { code: None, text: error.chain() }),
            })
        }));
    }

    fn send(&mut self, request: RequestId, leader: NodeId, batches: Vec<(Key, bytes::Bytes)>, metadata: &Metadata) {
        let config = &self.shared.config;
        let mut topics = Vec::<ProduceTopic>::new();
        for ((name, index), bytes) in batches {
            match topics.last_mut() {
                Some(topic) if topic.name == name => topic.partitions.push((index, bytes)),
                _ => {
                    let id = metadata.topics.get(&name).map(|topic| topic.id).unwrap_or_default();
                    topics.push(ProduceTopic { name, id, partitions: vec![(index, bytes)] });
                }
            }
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
        let produce = RawProduce { acks, timeout_ms, transactional_id: None, topics };
        let encode = move |version, client_id: &str| produce.encode(version, 0, client_id);
        let cluster = self.cluster.clone();
        let raw = self.cluster.call_raw(leader, Purpose::Produce, config.request_timeout, call, encode);
        self.requests.push(Box::pin(async move {
            let answer = match raw.await {
                Ok((_, None)) => Ok(None),
                Ok((connection, Some(answer))) => answers::read(&cluster, &connection, answer, &names).map(Some),
                Err(error) => Err(error),
            };
            Event::Answered { request, answer }
        }));
    }
}
