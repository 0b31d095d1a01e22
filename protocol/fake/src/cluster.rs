//! The handle by which a program has a cluster: starts it, reaches it, looks into it, breaks it, stops it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use protocol::error_code::ErrorCode;
use protocol::record::BatchHeader;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::faults::FaultOn;
use crate::incoming::{Demands, Incoming};
use crate::listener::{Uptime, bind};
use crate::request_log::LoggedRequest;
use crate::settings::Builder;
use crate::shared::{Shared, wall_clock_ms};
use crate::state::{Node, State};
use crate::topic::{Partition, Topic, TopicConfig};

/// Bytes that an in-memory connection holds in each direction before the writer waits.
const DUPLEX_BYTES: usize = 256 << 10;
/// The port of every node that is reached in memory alone.
const FAKE_PORT: u16 = 9092;

/// A topic, partition, group or node that a test named is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fake cluster has no {what} {name}")]
pub struct NotThere {
    what: &'static str,
    name: String,
}

fn not_there(what: &'static str, name: impl ToString) -> NotThere {
    NotThere { what, name: name.to_string() }
}

/// A member of a group, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    pub member_id: String,
    pub client_id: String,
    /// What it said of itself for the protocol that the group chose.
    pub metadata: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A cluster of Kafka brokers in this process. Clones are the same cluster; when the last one is dropped its tasks end.
#[derive(Debug, Clone)]
pub struct FakeCluster {
    shared: Arc<Shared>,
    uptimes: Arc<Mutex<BTreeMap<i32, Arc<Uptime>>>>,
    addresses: Arc<BTreeMap<i32, SocketAddr>>,
    connections: Arc<AtomicU64>,
    _stop: Arc<DropGuard>,
}

impl Builder {
    /// Starts the cluster on the current runtime.
    ///
    /// # Errors
    /// When a port cannot be had; never without [`Builder::listen_tcp`].
    pub async fn start(self) -> io::Result<FakeCluster> {
        let settings = self.settings;
        let mut listeners = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for id in 1..=settings.nodes {
            let (mut host, mut port) = (format!("fake-{id}"), FAKE_PORT);
            if let Some(wanted) = &settings.tcp {
                let place = usize::try_from(id - 1).ok();
                let (listener, address) = bind(place.and_then(|place| wanted.get(place)).copied()).await?;
                (host, port) = (address.ip().to_string(), address.port());
                listeners.insert(id, listener);
                addresses.insert(id, address);
            }
            nodes.insert(id, Node { host, port, alive: true, sessions: Default::default() });
        }
        let mut state = State::new(settings.clone(), nodes);
        for (name, partitions) in &settings.topics {
            let invalid = |(_, message)| io::Error::new(io::ErrorKind::InvalidInput, message);
            let replicas = state.plan_topic(name, *partitions, state.default_replication()).map_err(invalid)?;
            state.add_topic(name, replicas, TopicConfig::default());
        }
        let shared = Arc::new(Shared::new(settings, state));
        let timers = shared.clone();
        shared.tasks.spawn(async move { timers.run_timers().await });
        let cluster = FakeCluster {
            uptimes: Arc::default(),
            addresses: Arc::new(addresses),
            connections: Arc::default(),
            _stop: Arc::new(shared.cancel.clone().drop_guard()),
            shared,
        };
        for id in 1..=cluster.shared.settings.nodes {
            let uptime = cluster.begin_uptime(id);
            if let Some(listener) = listeners.remove(&id) {
                uptime.listen(listener);
            }
        }
        Ok(cluster)
    }
}

/// Starting, reaching, stopping.
impl FakeCluster {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Host and port of every node, dead or alive.
    pub fn bootstrap(&self) -> Vec<(String, u16)> {
        self.shared.quietly(|state| state.nodes.values().map(|node| (node.host.clone(), node.port)).collect())
    }

    /// The same as `bootstrap.servers` has it.
    pub fn bootstrap_servers(&self) -> String {
        let pairs: Vec<String> = self.bootstrap().iter().map(|(host, port)| format!("{host}:{port}")).collect();
        pairs.join(",")
    }

    /// Connects to a node in memory, by the host and port that the cluster calls it.
    ///
    /// # Errors
    /// `ConnectionRefused` when no node that is alive has this address, or it has too many connections.
    pub fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("no node listens at {host}:{port}"));
        let node = self.shared.quietly(|state| state.node_at(host, port)).ok_or_else(refused)?;
        let uptime = self.uptimes().get(&node).cloned().ok_or_else(refused)?;
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        if uptime.connect(theirs, "127.0.0.1".to_owned()) { Ok(ours) } else { Err(refused()) }
    }

    /// Ends all connections and tasks, and waits until they have ended. Dropping this future ends them all the same.
    pub async fn shutdown(&self) {
        self.shared.cancel.cancel();
        let uptimes = std::mem::take(&mut *self.uptimes());
        for uptime in uptimes.into_values() {
            uptime.end().await;
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn uptimes(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Uptime>>> {
        self.uptimes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_uptime(&self, node: i32) -> Arc<Uptime> {
        let uptime = Arc::new(Uptime::begin(&self.shared, node, self.connections.clone()));
        self.uptimes().insert(node, uptime.clone());
        uptime
    }
}

/// Breaking it.
impl FakeCluster {
    /// A fault for requests of this API.
    pub fn on(&self, api: ApiKey) -> FaultOn {
        FaultOn::new(self.shared.clone(), Some(api))
    }

    /// A fault for requests of any API.
    pub fn on_any(&self) -> FaultOn {
        FaultOn::new(self.shared.clone(), None)
    }

    /// Takes all faults back, but for those that hold something at this moment.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Every request for this partition (produce, fetch, list offsets, epochs) is answered with this error, or with none again.
    pub fn set_partition_error(&self, topic: &str, partition: i32, error: Option<ErrorCode>) -> Result<(), NotThere> {
        self.change_partition(topic, partition, |partition| partition.fault = error)
    }

    /// Another node leads the partition from now on, in a new epoch. Loses nothing.
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) -> Result<(), NotThere> {
        if !self.shared.quietly(|state| state.nodes.contains_key(&node)) {
            return Err(not_there("node", node));
        }
        self.change_partition(topic, partition, |partition| {
            for list in [&mut partition.replicas, &mut partition.in_sync] {
                if !list.contains(&node) {
                    list.push(node);
                }
            }
            partition.lead(Some(node));
        })
    }

    /// Nobody leads the partition until [`FakeCluster::move_leader`].
    pub fn take_leader(&self, topic: &str, partition: i32) -> Result<(), NotThere> {
        self.change_partition(topic, partition, |partition| partition.lead(None))
    }

    /// The partition loses everything from `offset` on, as by an unclean election: the leader stays, in a new epoch.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<(), NotThere> {
        self.change_partition(topic, partition, |partition| {
            partition.log.truncate(offset);
            partition.lead(partition.leader);
        })
    }

    /// Moves the start of the log up to `offset`, at most to its end.
    pub fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) -> Result<(), NotThere> {
        self.change_partition(topic, partition, |partition| partition.log.delete_before(offset))
    }

    /// Another node coordinates the group from now on. It knows the last generation that was complete, and all commits.
    pub fn move_coordinator(&self, group: &str, node: i32) -> Result<(), NotThere> {
        if !self.shared.quietly(|state| state.nodes.contains_key(&node)) {
            return Err(not_there("node", node));
        }
        self.shared.change(|state| state.move_coordinator(Instant::now(), group, node));
        Ok(())
    }

    /// Ends a member's session now, as if its heartbeats had not come.
    pub fn expire_member(&self, group: &str, member_id: &str) -> Result<(), NotThere> {
        self.shared.change(|state| {
            let rules = state.rules();
            let group = state.groups.get_mut(group).ok_or_else(|| not_there("group", group))?;
            let code = group.leave(Instant::now(), &rules, member_id);
            if code.is_none() { Ok(()) } else { Err(not_there("member", member_id)) }
        })
    }

    /// A node dies: its connections are closed, new ones refused, and other replicas lead what it led. Returns when that is done.
    /// Dropping this future leaves it dying.
    pub async fn kill(&self, node: i32) -> Result<(), NotThere> {
        let uptime = self.uptimes().remove(&node).ok_or_else(|| not_there("living node", node))?;
        // First the state, so that nobody is told that the node lives by a connection that outlives it.
        self.shared.change(|state| state.node_down(Instant::now(), node));
        uptime.end().await;
        Ok(())
    }

    /// A dead node is back at its old address, with what it had and what the others wrote since.
    ///
    /// # Errors
    /// When its port was taken meanwhile, or it is not dead.
    pub async fn revive(&self, node: i32) -> io::Result<()> {
        let dead = self.shared.quietly(|state| state.nodes.get(&node).is_some_and(|node| !node.alive));
        if !dead {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, not_there("dead node", node)));
        }
        let listener = match self.addresses.get(&node) {
            Some(address) => Some(bind(Some(*address)).await?),
            None => None,
        };
        let uptime = self.begin_uptime(node);
        if let Some((listener, _)) = listener {
            uptime.listen(listener);
        }
        self.shared.change(|state| state.node_up(Instant::now(), node));
        Ok(())
    }
}

/// Looking into it.
impl FakeCluster {
    /// The requests that came in, the oldest first, as far as the log's bound lets them be kept.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.requests.all()
    }

    /// The bodies of all requests of one kind, the oldest first.
    pub fn requests_of<R: kafka_protocol::protocol::Request>(&self) -> Vec<(LoggedRequest, R)> {
        self.requests().into_iter().filter_map(|request| request.decode().map(|body| (request, body))).collect()
    }

    pub fn forget_requests(&self) {
        self.shared.requests.clear();
    }

    /// Waits until this is true of the request log. Dropping this future does nothing. It waits for ever if it never is: a test
    /// puts a timeout around it.
    pub async fn wait_for(&self, condition: impl FnMut(&[LoggedRequest]) -> bool) {
        let mut condition = condition;
        self.wait_until(|cluster| cluster.shared.requests.look(&mut condition)).await;
    }

    /// Waits until this is true of the cluster; it is asked after every change. As [`FakeCluster::wait_for`] otherwise.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changes = self.shared.changes();
        loop {
            changes.mark_unchanged();
            if condition(self) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Names of the topics that there are.
    pub fn topics(&self) -> Vec<String> {
        self.shared.quietly(|state| state.topics().map(|(name, _)| name.to_owned()).collect())
    }

    /// How many partitions a topic has; none if it is not there.
    pub fn partitions(&self, topic: &str) -> Option<i32> {
        let count = self.shared.quietly(|state| state.topic(topic).map(|topic| topic.partitions.len()))?;
        i32::try_from(count).ok()
    }

    pub fn topic_id(&self, topic: &str) -> Option<uuid::Uuid> {
        self.shared.quietly(|state| state.topic(topic).map(|topic| topic.id))
    }

    /// Who leads a partition, and in which epoch.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        self.look(topic, partition, |partition| Some((partition.leader?, partition.leader_epoch)))?
    }

    /// The first offset of a partition that can be read, and the one that the next record gets.
    pub fn offsets(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        self.look(topic, partition, |partition| (partition.log.start(), partition.log.end()))
    }

    /// The batches that a partition holds, as they would be fetched. Empty if there is no such partition.
    pub fn read(&self, topic: &str, partition: i32) -> Vec<Bytes> {
        let batches = |partition: &Partition| partition.log.batches().map(|batch| batch.bytes.clone()).collect();
        self.look(topic, partition, batches).unwrap_or_default()
    }

    /// What a group committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.shared.quietly(|state| Some(state.groups.get(group)?.committed(topic, partition)?.offset))
    }

    /// The members of a group. Empty if there is no such group.
    pub fn members(&self, group: &str) -> Vec<GroupMember> {
        self.shared.quietly(|state| {
            let Some(group) = state.groups.get(group) else {
                return Vec::new();
            };
            let members = group.members().iter().map(|(id, member)| GroupMember {
                member_id: id.clone(),
                client_id: member.profile.client_id.clone(),
                metadata: member.metadata(group.protocol()),
                assignment: member.profile.assignment.clone(),
            });
            members.collect()
        })
    }

    pub fn generation(&self, group: &str) -> Option<i32> {
        self.shared.quietly(|state| Some(state.groups.get(group)?.generation()))
    }

    /// `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`.
    pub fn group_state(&self, group: &str) -> Option<&'static str> {
        self.shared.quietly(|state| Some(state.groups.get(group)?.phase().name()))
    }

    /// The node that coordinates a group, whether or not the group is there.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.shared.quietly(|state| state.coordinator(group))
    }

    /// Fetch sessions that a node holds.
    pub fn fetch_sessions(&self, node: i32) -> usize {
        self.shared.quietly(|state| state.nodes.get(&node).map_or(0, |node| node.sessions.len()))
    }

    fn look<T>(&self, topic: &str, partition: i32, look: impl FnOnce(&Partition) -> T) -> Option<T> {
        self.shared.quietly(|state| Some(look(state.topic(topic)?.partition(partition)?)))
    }
}

/// Changing its contents.
impl FakeCluster {
    /// # Errors
    /// What a broker would answer.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), ErrorCode> {
        self.create_topic_with(name, partitions, &[])
    }

    /// With a configuration, such as `message.timestamp.type=LogAppendTime`.
    ///
    /// # Errors
    /// What a broker would answer.
    pub fn create_topic_with(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<(), ErrorCode> {
        self.shared.change(|state| {
            let replicas = state.plan_topic(name, partitions, state.default_replication()).map_err(|(code, _)| code)?;
            let mut given = TopicConfig::default();
            for (key, value) in config {
                given.set(key, value).map_err(|_| ErrorCode::INVALID_CONFIG)?;
            }
            state.add_topic(name, replicas, given);
            Ok(())
        })
    }

    /// Deletes a topic, and what was committed for it.
    pub fn delete_topic(&self, name: &str) -> Result<(), NotThere> {
        let gone = self.shared.change(|state| state.delete_topic(name));
        if gone { Ok(()) } else { Err(not_there("topic", name)) }
    }

    /// Gives a topic so many partitions more.
    ///
    /// # Errors
    /// What a broker would answer.
    pub fn add_partitions(&self, name: &str, more: i32) -> Result<(), ErrorCode> {
        self.shared.change(|state| {
            let topic = state.topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            let first = topic.partitions.first().map_or(1, |first| first.replicas.len());
            let replication = i16::try_from(first).unwrap_or(1);
            let replicas =
                state.plan_partitions(topic.partitions.len(), more, replication).map_err(|(code, _)| code)?;
            state.add_partitions(name, replicas);
            Ok(())
        })
    }

    /// Appends one batch, checked as one that came by a produce request with acks=all; its offset.
    ///
    /// # Errors
    /// What a broker would answer.
    pub fn produce_raw(&self, topic: &str, partition: i32, batch: Bytes) -> Result<i64, ErrorCode> {
        let incoming = Incoming::parse(i16::MAX, Some(batch)).map_err(|refusal| refusal.code)?;
        self.shared.change(|state| {
            let (max_message_bytes, retention) = (state.settings.max_message_bytes, state.settings.retention_bytes);
            let topic = state.topic_mut(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            let config = topic.config.clone();
            let partition = topic.partition_mut(partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            let demands = Demands {
                max_message_bytes: config.max_message_bytes(max_message_bytes),
                compacted: config.compacted(),
                log_append_time: config.log_append_time(),
                now: wall_clock_ms(),
                timestamp_after_max: config.timestamp_after_max(),
            };
            let contents = incoming.check(&demands).map_err(|refusal| refusal.code)?;
            let time = demands.log_append_time.then_some(demands.now);
            let (epoch, newest) = (partition.leader_epoch, contents.max_timestamp);
            let appended = partition.log.append(&incoming.batch, epoch, time, newest)?;
            if let Some(bytes) = config.retention_bytes(retention) {
                partition.log.retain_bytes(bytes);
            }
            Ok(appended.base_offset)
        })
    }

    /// Stores bytes without any check, as the next batch of a partition: a broken one, one of an old format, one of a transaction,
    /// a marker. Its base offset and leader epoch are set, nothing else; it takes as many offsets as its header says, or one if it
    /// has none that can be read. Its first offset is returned.
    pub fn plant(&self, topic: &str, partition: i32, bytes: &[u8]) -> Result<i64, NotThere> {
        let mut header = BatchHeader::parse(bytes).ok().filter(|header| header.magic == 2).unwrap_or_default();
        header.last_offset_delta = header.last_offset_delta.max(0);
        let bytes = bytes.to_vec();
        self.change_partition(topic, partition, |partition| {
            header.base_offset = partition.log.end();
            header.partition_leader_epoch = partition.leader_epoch;
            partition.log.plant(header, bytes);
            header.base_offset
        })
    }

    fn change_partition<T>(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, NotThere> {
        self.shared.change(|state| {
            let found: Option<&mut Topic> = state.topic_mut(topic);
            let found = found.ok_or_else(|| not_there("topic", topic))?.partition_mut(partition);
            Ok(change(found.ok_or_else(|| not_there("partition", format!("{topic}-{partition}")))?))
        })
    }
}
