//! The sockets, by broker and purpose.
//!
//! Brokers are known by their node id alone: two behind one address are two. A socket that failed is replaced at the next
//! request, after a back-off that counts the failures to open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Broker, NodeId, backoff::Backoff};
use crate::connection::{Connection, ConnectionConfig, Connector, Counted, Counters};

/// What a socket is for. A long poll or a join that the broker holds back must not stand in front of anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    Produce,
    /// Fetch requests; each number is a socket (and a fetch session) of its own.
    Fetch(u32),
    /// Heartbeats, commits, metadata, everything short.
    General,
    /// JoinGroup and SyncGroup of one group.
    Join(u32),
}

pub(super) struct Pool {
    connector: Arc<dyn Connector>,
    general: ConnectionConfig,
    fetch: ConnectionConfig,
    reconnect_backoff: Backoff,
    sockets: Mutex<BTreeMap<(NodeId, Purpose), Socket>>,
    pub(super) counters: Arc<Counters>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

struct Socket {
    broker: Broker,
    connection: Connection,
    backoff: Backoff,
}

impl Pool {
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        general: ConnectionConfig,
        max_fetch_bytes: usize,
        reconnect_backoff: (Duration, Duration),
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let fetch = ConnectionConfig { max_response_bytes: max_fetch_bytes, ..general.clone() };
        let reconnect_backoff = Backoff::new(reconnect_backoff.0, reconnect_backoff.1);
        Self {
            connector,
            general,
            fetch,
            reconnect_backoff,
            sockets: Mutex::default(),
            counters: Arc::default(),
            tracker,
            cancel,
        }
    }

    /// The socket for this purpose, opened if there is none, or another address stands behind the node now.
    pub(super) fn get(&self, node: NodeId, purpose: Purpose, broker: &Broker) -> Connection {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut delay = Duration::ZERO;
        let mut backoff = self.reconnect_backoff;
        if let Some(socket) = sockets.get(&(node, purpose)) {
            let same_place = socket.broker.host == broker.host && socket.broker.port == broker.port;
            if same_place && !socket.connection.is_closed() {
                return socket.connection.clone();
            }
            if same_place && socket.connection.failed_to_open() {
                backoff = socket.backoff;
                delay = backoff.next_delay();
            }
        }
        let config = if matches!(purpose, Purpose::Fetch(_)) { &self.fetch } else { &self.general };
        let connection = Connection::open(
            self.connector.clone(),
            (&broker.host, broker.port),
            delay,
            config.clone(),
            Counted::new(self.counters.clone(), node),
            &self.tracker,
            self.cancel.clone(),
        );
        sockets.insert((node, purpose), Socket { broker: broker.clone(), connection: connection.clone(), backoff });
        connection
    }

    /// Whether a general socket to this broker is open now.
    pub(super) fn is_open(&self, node: NodeId) -> bool {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.get(&(node, Purpose::General)).is_some_and(|socket| socket.connection.is_open())
    }

    /// Closes (once their answers have come) the sockets of nodes that `keep` refuses.
    pub(super) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|(node, _), _| keep(*node));
    }
}
