//! How a cluster is to be: [`Builder`] collects it, [`Settings`] is what the rest reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;

/// What a cluster was started with; never changes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) nodes: i32,
    pub(crate) replication: i16,
    pub(crate) join_delay: Duration,
    pub(crate) min_session_timeout: Duration,
    pub(crate) max_session_timeout: Duration,
    pub(crate) default_partitions: i32,
    pub(crate) auto_create: bool,
    pub(crate) retention_bytes: Option<usize>,
    pub(crate) max_message_bytes: i32,
    pub(crate) max_frame_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) request_log_bytes: usize,
    pub(crate) cluster_id: String,
    pub(crate) seed: u64,
    /// The versions served where they are not the usual ones; none for an API that is not served at all.
    pub(crate) versions: BTreeMap<i16, Option<(i16, i16)>>,
    pub(crate) tcp: Option<Vec<SocketAddr>>,
    pub(crate) topics: Vec<(String, i32)>,
}

/// Collects the settings of a [`crate::FakeCluster`]; [`Builder::start`] starts it.
///
/// The defaults are Apache Kafka's own, but for the join delay, which is zero here.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    pub(crate) settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            settings: Settings {
                nodes: 1,
                replication: 3,
                join_delay: Duration::ZERO,
                min_session_timeout: Duration::from_secs(6),
                max_session_timeout: Duration::from_secs(30 * 60),
                default_partitions: 1,
                auto_create: true,
                retention_bytes: None,
                max_message_bytes: 1_048_588,
                max_frame_bytes: 100 << 20,
                max_connections: 1024,
                request_log_bytes: 64 << 20,
                cluster_id: "fake-cluster-0123456789".to_owned(),
                seed: 0,
                versions: BTreeMap::new(),
                tcp: None,
                topics: Vec::new(),
            },
        }
    }
}

impl Builder {
    /// Nodes, at least one; their ids count from 1.
    pub fn nodes(mut self, nodes: i32) -> Self {
        self.settings.nodes = nodes.max(1);
        self
    }

    /// Replicas of each new partition, at most as many as there are nodes. With 1 a dead node takes its partitions away, with more
    /// another one leads at once. 3 unless set.
    pub fn replication(mut self, replicas: i16) -> Self {
        self.settings.replication = replicas.max(1);
        self
    }

    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for further members. Zero unless set.
    pub fn join_delay(mut self, delay: Duration) -> Self {
        self.settings.join_delay = delay;
        self
    }

    /// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`. 6 s and 30 min unless set.
    pub fn session_timeout_bounds(mut self, min: Duration, max: Duration) -> Self {
        (self.settings.min_session_timeout, self.settings.max_session_timeout) = (min, max);
        self
    }

    /// `num.partitions`: of topics that are created without saying how many. 1 unless set.
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.settings.default_partitions = partitions.max(1);
        self
    }

    /// `auto.create.topics.enable`. On unless set.
    pub fn auto_create(mut self, on: bool) -> Self {
        self.settings.auto_create = on;
        self
    }

    /// Bytes of records that a partition keeps, the newest; what is older goes and the log start moves up. The newest batch always
    /// stays. Everything is kept unless set.
    pub fn retention_bytes(mut self, bytes: usize) -> Self {
        self.settings.retention_bytes = Some(bytes);
        self
    }

    /// `message.max.bytes`: the largest batch. 1,048,588 unless set; a topic may have its own.
    pub fn max_message_bytes(mut self, bytes: i32) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// `socket.request.max.bytes`: a request that claims more costs its connection. 100 MiB unless set.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_frame_bytes = bytes;
        self
    }

    /// Connections that a node keeps; one more is closed at once. 1,024 unless set.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.settings.max_connections = connections.max(1);
        self
    }

    /// Bytes of requests that [`crate::FakeCluster::requests`] remembers, the newest; zero remembers nothing. 64 MiB unless set.
    pub fn request_log_bytes(mut self, bytes: usize) -> Self {
        self.settings.request_log_bytes = bytes;
        self
    }

    /// From which topic ids, member ids and session ids are made: the same seed gives the same ones in the same order.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Serves only these versions of an API, as an older cluster would. Versions that the fake does not know are not added by it.
    pub fn versions(mut self, api: ApiKey, min: i16, max: i16) -> Self {
        self.settings.versions.insert(api as i16, Some((min, max)));
        self
    }

    /// Does not serve an API at all.
    pub fn without(mut self, api: ApiKey) -> Self {
        self.settings.versions.insert(api as i16, None);
        self
    }

    /// A topic that is there from the start.
    pub fn topic(mut self, name: &str, partitions: i32) -> Self {
        self.settings.topics.push((name.to_owned(), partitions));
        self
    }

    /// Listens on a free port of 127.0.0.1 for each node, and names those ports to clients. Without it the nodes are called
    /// `fake-1:9092`, `fake-2:9092`, … and reached by [`crate::FakeCluster::connect`] alone.
    pub fn listen_tcp(mut self) -> Self {
        self.settings.tcp = Some(Vec::new());
        self
    }

    /// As [`Builder::listen_tcp`], at these addresses, the first for node 1; nodes beyond them get a free port.
    pub fn listen_tcp_at(mut self, addresses: &[SocketAddr]) -> Self {
        self.settings.tcp = Some(addresses.to_vec());
        self
    }
}
