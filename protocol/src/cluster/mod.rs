//! The brokers, what they hold, and a way to ask each of them.
//!
//! [`Cluster`] is a handle: a metadata snapshot that never waits, sockets by broker and purpose, coordinators by group. One
//! task refreshes the metadata; everything else asks. It knows nothing of batches, positions or generations.

mod backoff;
mod coordinators;
mod metadata;
mod pool;
mod refresher;
mod throttled;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub use backoff::Backoff;
use bytes::BytesMut;
pub use coordinators::CoordinatorError;
use coordinators::Coordinators;
use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::{messages::FindCoordinatorRequest, protocol::Request};
pub use metadata::{Broker, Metadata, Partition, Topic};
use pool::Pool;
pub use pool::Purpose;
pub use throttled::Throttled;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    connection::{
        Answer, ApiVersions, BoxFuture, Connection, ConnectionConfig, Connector, Counters, Mechanism, RequestError,
        RequestErrorKind, frame,
    },
    message::{self, EncodeError},
};

/// So long one broker is waited for before the next is asked as well, where any will do.
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(1);

/// A broker's id. The bootstrap servers, before they are known by their ids, are -2, -3, …
pub type NodeId = i32;

/// What a client needs to reach and follow a cluster. Names as in Kafka's documentation.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// `bootstrap.servers` as host and port; tried in turn, resolved afresh each time.
    pub bootstrap: Vec<(String, u16)>,
    /// `client.id`.
    pub client_id: String,
    /// `metadata.max.age.ms`, 5 min.
    pub metadata_max_age: Duration,
    /// `request.timeout.ms` of metadata and coordinator requests, 30 s.
    pub request_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`, 10 s.
    pub connect_timeout: Duration,
    /// `retry.backoff.ms`, 100 ms: also the least time between two metadata requests.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`, 1 s.
    pub retry_backoff_max: Duration,
    /// `reconnect.backoff.ms`, 50 ms.
    pub reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`, 1 s.
    pub reconnect_backoff_max: Duration,
    /// `connections.max.idle.ms`, 9 min.
    pub max_idle: Duration,
    /// The largest answer to anything but a fetch, 32 MiB.
    pub max_response_bytes: usize,
    /// The largest answer to a fetch: what the byte budget can hold.
    pub max_fetch_response_bytes: usize,
    /// `sasl.mechanism` and what belongs to it; None without SASL.
    pub sasl: Option<Mechanism>,
}

impl ClusterConfig {
    pub fn new(bootstrap: Vec<(String, u16)>) -> Self {
        Self {
            bootstrap,
            client_id: "kafka-sidecar".to_owned(),
            metadata_max_age: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            max_idle: Duration::from_secs(540),
            max_response_bytes: 32 * 1024 * 1024,
            max_fetch_response_bytes: 64 * 1024 * 1024,
            sasl: None,
        }
    }
}

/// A handle on the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

pub(crate) struct Inner {
    config: ClusterConfig,
    client_id: Arc<str>,
    pool: Pool,
    metadata: watch::Sender<Arc<Metadata>>,
    /// Watched topics, by whomever.
    watched: Mutex<BTreeMap<Arc<str>, Interest>>,
    /// By group: what it watches for as long as it leads, and may not create.
    watched_by_groups: Mutex<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
    /// Addresses of coordinators that no metadata names (yet).
    extra_brokers: Mutex<BTreeMap<NodeId, Broker>>,
    coordinators: Coordinators,
    tickets: AtomicU64,
    refresh: Notify,
    /// A topic is watched that was never asked for: the next refresh is not put off.
    new_topic: AtomicBool,
    /// Where the next question to any broker starts, so that one broker does not get them all.
    turn: AtomicU64,
    trouble: watch::Sender<Option<Trouble>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Cluster {
    /// Starts following a cluster. Returns at once, whether or not any broker can be reached; tasks go to `tracker` and end
    /// with `cancel`.
    pub fn start(
        config: ClusterConfig,
        connector: Arc<dyn Connector>,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let client_id: Arc<str> = config.client_id.as_str().into();
        let general = ConnectionConfig {
            client_id: client_id.clone(),
            setup_timeout: config.connect_timeout,
            max_response_bytes: config.max_response_bytes,
            max_idle: config.max_idle,
            sasl: config.sasl.clone(),
        };
        let reconnect = (config.reconnect_backoff, config.reconnect_backoff_max);
        let pool =
            Pool::new(connector, general, config.max_fetch_response_bytes, reconnect, tracker.clone(), cancel.clone());
        let cluster = Self(Arc::new(Inner {
            config,
            client_id,
            pool,
            metadata: watch::Sender::new(Arc::default()),
            watched: Mutex::default(),
            watched_by_groups: Mutex::default(),
            extra_brokers: Mutex::default(),
            coordinators: Coordinators::default(),
            tickets: AtomicU64::new(0),
            refresh: Notify::new(),
            new_topic: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            trouble: watch::Sender::new(None),
            tracker: tracker.clone(),
            cancel: cancel.clone(),
        }));
        tracker.spawn(refresher::run(cluster.clone(), cancel));
        cluster
    }

    pub fn config(&self) -> &ClusterConfig {
        &self.0.config
    }

    /// What was asked of the brokers so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.pool.counters
    }

    /// Where tasks that belong to this client are counted.
    pub fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    pub fn cancel_token(&self) -> &CancellationToken {
        &self.0.cancel
    }

    /// The newest picture; never waits.
    pub fn metadata(&self) -> Arc<Metadata> {
        self.0.metadata.borrow().clone()
    }

    pub fn metadata_changes(&self) -> watch::Receiver<Arc<Metadata>> {
        self.0.metadata.subscribe()
    }

    /// Why the metadata cannot be refreshed at present, in a sentence; None while brokers answer.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.0.trouble.borrow().as_ref().map(|trouble| trouble.text.clone())
    }

    /// The same, if it is that the brokers do not take us for who we say we are: no waiting helps.
    pub fn authentication_fault(&self) -> Option<Arc<str>> {
        self.0.trouble.borrow().as_ref().filter(|trouble| trouble.authentication).map(|trouble| trouble.text.clone())
    }

    /// Adds topics to what refreshes ask for, for good, and asks if one of them is new.
    pub fn watch_topics(&self, names: &[String]) {
        self.watch(names.iter().map(String::as_str), Interest { may_create: false, lasting: true });
    }

    /// Adds a topic that is to be written to, until [`Cluster::forget_missing`].
    pub(crate) fn watch_to_produce(&self, name: &str, may_create: bool) {
        self.watch([name], Interest { may_create, lasting: false });
    }

    fn watch<'a>(&self, names: impl IntoIterator<Item = &'a str>, interest: Interest) {
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for name in names {
            match watched.get_mut(name) {
                Some(known) => {
                    known.may_create |= interest.may_create;
                    known.lasting |= interest.lasting;
                }
                None => {
                    watched.insert(name.into(), interest);
                    news = true;
                }
            }
        }
        drop(watched);
        self.ask_for_news(news);
    }

    /// Asks no more for a topic that is not there, if only producing wanted it: callers may name what they like.
    pub(crate) fn forget_missing(&self, name: &str) {
        let metadata = self.metadata();
        if metadata.topics.get(name).is_none_or(|topic| topic.partitions.is_empty()) {
            let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if watched.get(name).is_some_and(|interest| !interest.lasting) {
                watched.remove(name);
            }
        }
    }

    /// What a group watches besides, instead of what it watched before; asks if something in it is new.
    pub(crate) fn watch_for_group(&self, group: &str, topics: BTreeSet<Arc<str>>) {
        let known = self.watched();
        let news = topics.iter().any(|topic| !known.contains_key(topic));
        let mut groups = self.0.watched_by_groups.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.is_empty() {
            groups.remove(group);
        } else {
            groups.insert(group.into(), topics);
        }
        drop(groups);
        self.ask_for_news(news);
    }

    fn ask_for_news(&self, news: bool) {
        if news {
            self.0.new_topic.store(true, Ordering::Release);
            self.request_refresh();
        }
    }

    /// All watched topics, and whether asking for them may create them.
    fn watched(&self) -> BTreeMap<Arc<str>, bool> {
        let own = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<_, _> = own.iter().map(|(name, interest)| (name.clone(), interest.may_create)).collect();
        drop(own);
        for topic in self.0.watched_by_groups.lock().unwrap_or_else(PoisonError::into_inner).values().flatten() {
            all.entry(topic.clone()).or_insert(false);
        }
        all
    }

    /// Asks for a new picture soon. Many askers make one request, at least `retry.backoff.ms` after the last (at once where a
    /// topic is asked for the first time).
    pub fn request_refresh(&self) {
        self.0.tickets.fetch_add(1, Ordering::AcqRel);
        self.0.refresh.notify_one();
    }

    /// Waits for a picture that was asked for after this call. Dropping the future stops waiting, nothing else.
    pub async fn refresh(&self) -> Arc<Metadata> {
        let mut changes = self.metadata_changes();
        let ticket = self.0.tickets.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.refresh.notify_one();
        let seen = changes.wait_for(|metadata| metadata.ticket >= ticket).await.map(|metadata| metadata.clone());
        seen.unwrap_or_else(|_| self.metadata())
    }

    /// Sends a request and waits for its answer, of which the version is told beside it. The request is queued in call
    /// order when this is called, not when it is first polled. Dropping the future does not take the request back.
    pub fn call<R>(
        &self,
        node: NodeId,
        purpose: Purpose,
        timeout: Duration,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> BoxFuture<Result<(i16, R::Response), RequestError>>
    where
        R: Request + 'static,
        R::Response: Throttled + Send,
    {
        let encode = |version, client_id: &str| message::encode_request(&build(version), version, 0, client_id);
        let sent =
            self.send(node, purpose, timeout, Call { api_key: R::KEY, expects_answer: true, topic_ids: true }, encode);
        Box::pin(async move {
            let (connection, answer) = sent?;
            let answer = answer.await?.ok_or_else(|| connection.unanswered())?;
            decode::<R>(&connection, answer)
        })
    }

    /// Like [`Cluster::call`], for requests that are written and answers that are read elsewhere, or not given at all.
    pub(crate) fn call_raw(
        &self,
        node: NodeId,
        purpose: Purpose,
        timeout: Duration,
        call: Call,
        encode: impl FnOnce(i16, &str) -> Result<BytesMut, EncodeError> + Send + 'static,
    ) -> BoxFuture<Result<(Connection, Option<Answer>), RequestError>> {
        let sent = self.send(node, purpose, timeout, call, encode);
        Box::pin(async move {
            let (connection, answer) = sent?;
            let answer = answer.await?;
            Ok((connection, answer))
        })
    }

    /// `encode` is told the version and our client id; the correlation id is 0.
    fn send(
        &self,
        node: NodeId,
        purpose: Purpose,
        timeout: Duration,
        call: Call,
        encode: impl FnOnce(i16, &str) -> Result<BytesMut, EncodeError> + Send + 'static,
    ) -> Result<Sent, RequestError> {
        let broker = self.broker(node).ok_or_else(|| RequestError::not_sent(RequestErrorKind::UnknownBroker(node)))?;
        let connection = self.0.pool.get(node, purpose, &broker);
        let (client_id, address) = (self.0.client_id.clone(), connection.address().clone());
        let Call { api_key, expects_answer, topic_ids } = call;
        let build = Box::new(move |versions: &ApiVersions| {
            frame(versions, api_key, &address, expects_answer, topic_ids, |version| encode(version, &client_id))
        });
        let answer = connection.submit(message::api_name(api_key), timeout, build);
        Ok((connection, Box::pin(answer)))
    }

    /// Asks one broker after the other until one answers: those with an open socket first, then the other known ones, then
    /// the bootstrap servers, whose names are resolved afresh. One that hangs holds nothing up: the next is asked beside it.
    /// Only for requests that may be repeated.
    pub async fn call_any<R>(
        &self,
        timeout: Duration,
        build: impl Fn(i16) -> R + Clone + Send + 'static,
    ) -> Result<(i16, R::Response), RequestError>
    where
        R: Request + 'static,
        R::Response: Throttled + Send,
    {
        let mut last = RequestError::not_sent(RequestErrorKind::UnknownBroker(-1));
        let mut candidates = self.candidates().into_iter();
        let mut ask_next = || {
            let node = candidates.next()?;
            Some(self.call::<R>(node, Purpose::General, timeout, build.clone()))
        };
        let mut asked: FuturesUnordered<_> = ask_next().into_iter().collect();
        while !asked.is_empty() {
            match tokio::time::timeout(PATIENCE_WITH_ONE, asked.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(error))) if matches!(error.kind, RequestErrorKind::Shutdown) => return Err(error),
                Ok(Some(Err(error))) => last = error,
                Ok(None) | Err(_) => {}
            }
            asked.extend(ask_next());
        }
        Err(last)
    }

    fn candidates(&self) -> Vec<NodeId> {
        let metadata = self.metadata();
        let mut known: Vec<NodeId> = metadata.brokers.keys().copied().collect();
        if !known.is_empty() {
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) as usize % known.len();
            known.rotate_left(turn);
            known.sort_by_key(|node| !self.0.pool.is_open(*node));
        }
        known.extend((0..self.0.config.bootstrap.len()).map(bootstrap_node));
        known
    }

    fn broker(&self, node: NodeId) -> Option<Broker> {
        if let Some(index) = bootstrap_index(node) {
            let (host, port) = self.0.config.bootstrap.get(index)?;
            return Some(Broker { host: host.as_str().into(), port: *port, rack: None });
        }
        if let Some(broker) = self.0.metadata.borrow().brokers.get(&node) {
            return Some(broker.clone());
        }
        self.0.extra_brokers.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// The broker that coordinates a group; remembered until [`Cluster::forget_coordinator`].
    pub async fn coordinator(&self, group: &str) -> Result<NodeId, CoordinatorError> {
        if let Some(node) = self.0.coordinators.get(group) {
            return Ok(node);
        }
        let name = group.to_owned();
        let (version, answer) = self
            .call_any::<FindCoordinatorRequest>(self.0.config.request_timeout, move |version| {
                coordinators::request(&name, version)
            })
            .await
            .map_err(CoordinatorError::Unanswered)?;
        let (node, broker) = coordinators::read(version, &answer)?;
        self.0.extra_brokers.lock().unwrap_or_else(PoisonError::into_inner).insert(node, broker);
        self.0.coordinators.set(group, node);
        Ok(node)
    }

    /// To be called when a broker says that it is not the coordinator, or cannot be reached.
    pub fn forget_coordinator(&self, group: &str) {
        self.0.coordinators.forget(group);
    }

    /// Takes a new leader from a produce or fetch answer (KIP-951), if it is news.
    pub fn apply_leader_hint(
        &self,
        topic: &str,
        partition: i32,
        leader: NodeId,
        epoch: i32,
        endpoint: Option<(NodeId, Broker)>,
    ) {
        self.0.metadata.send_if_modified(|metadata| {
            match metadata.with_leader(topic, partition, leader, epoch, endpoint) {
                Some(next) => {
                    *metadata = Arc::new(next);
                    true
                }
                None => false,
            }
        });
    }
}

/// Why a topic is asked for.
#[derive(Clone, Copy)]
struct Interest {
    /// Asking for it may create it.
    may_create: bool,
    /// Also while it is not there.
    lasting: bool,
}

/// Why no metadata can be had.
struct Trouble {
    text: Arc<str>,
    authentication: bool,
}

/// What is to be known of a request before it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) api_key: i16,
    pub(crate) expects_answer: bool,
    /// The ids of all its topics are known (Produce and Fetch name topics by name where they are not).
    pub(crate) topic_ids: bool,
}

type Sent = (Connection, BoxFuture<Result<Option<Answer>, RequestError>>);

fn bootstrap_node(index: usize) -> NodeId {
    -2 - index as NodeId
}

fn bootstrap_index(node: NodeId) -> Option<usize> {
    usize::try_from(-2 - node).ok()
}

fn decode<R>(connection: &Connection, answer: Answer) -> Result<(i16, R::Response), RequestError>
where
    R: Request,
    R::Response: Throttled,
{
    let Answer { version, body } = answer;
    match message::decode_response::<R>(version, body) {
        Ok(answer) => {
            connection.throttle(answer.throttle_time_ms());
            Ok((version, answer))
        }
        Err(error) => Err(RequestError::undecodable(connection.address(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_servers_have_ids_that_no_broker_has() {
        for index in 0..3 {
            assert!(bootstrap_node(index) < -1);
            assert_eq!(bootstrap_index(bootstrap_node(index)), Some(index));
        }
        assert_eq!(bootstrap_index(-1), None);
        assert_eq!(bootstrap_index(0), None);
    }
}
