//! What the cluster is at this moment: nodes, topics, groups. Everything that changes is in here, behind one lock.

use std::collections::BTreeMap;

use protocol::error_code::ErrorCode;
use tokio::time::Instant;
use uuid::Uuid;

use crate::group::{Group, Rules};
use crate::log::PartitionLog;
use crate::sessions::{FetchSessions, TopicRef};
use crate::settings::Settings;
use crate::topic::{Partition, Topic, TopicConfig, is_valid_name};

/// Partitions in the cluster, at most.
const MAX_PARTITIONS: usize = 100_000;
/// Groups in the cluster, at most.
const MAX_GROUPS: usize = 10_000;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) alive: bool,
    pub(crate) sessions: FetchSessions,
}

/// Makes ids: the same seed, the same ids in the same order.
#[derive(Debug)]
struct Ids {
    seed: u64,
    next: u64,
    next_producer: i64,
}

impl Ids {
    fn uuid(&mut self) -> Uuid {
        self.next += 1;
        // Spread over all bits, so that nobody comes to rely on their order; version and variant as of a random UUID.
        let spread = |n: u64| {
            let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let (high, low) = (spread(self.seed ^ spread(self.next)), spread(self.next.wrapping_add(self.seed << 1)));
        uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
    }
}

/// The cluster at this moment.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) nodes: BTreeMap<i32, Node>,
    topics: BTreeMap<String, Topic>,
    names: BTreeMap<Uuid, String>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// Coordinators that were moved by hand.
    coordinators: BTreeMap<String, i32>,
    ids: Ids,
    next_session: i32,
}

impl State {
    pub(crate) fn new(settings: Settings, nodes: BTreeMap<i32, Node>) -> Self {
        let ids = Ids { seed: settings.seed, next: 0, next_producer: 0 };
        Self {
            settings,
            nodes,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            groups: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            ids,
            next_session: 0,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            join_delay: self.settings.join_delay,
            min_session_timeout: self.settings.min_session_timeout,
            max_session_timeout: self.settings.max_session_timeout,
        }
    }

    // Nodes.

    /// Ids of the nodes that are up, ascending.
    pub(crate) fn alive(&self) -> impl Iterator<Item = i32> {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| *id)
    }

    pub(crate) fn is_alive(&self, node: i32) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.alive)
    }

    /// The node that such an address leads to, if it is up.
    pub(crate) fn node_at(&self, host: &str, port: u16) -> Option<i32> {
        let found = self.nodes.iter().find(|(_, node)| node.host == host && node.port == port && node.alive);
        found.map(|(id, _)| *id)
    }

    /// A node dies: others lead what it led, and coordinate the groups that it coordinated.
    pub(crate) fn node_down(&mut self, now: Instant, id: i32) {
        let before = self.coordinators_now();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.alive = false;
            node.sessions.clear();
        }
        let alive: Vec<i32> = self.alive().collect();
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.in_sync.len() > 1 {
                partition.in_sync.retain(|replica| *replica != id);
            }
            if partition.leader == Some(id) {
                partition.lead(partition.replicas.iter().copied().find(|replica| alive.contains(replica)));
            }
        }
        self.coordinators.retain(|_, node| *node != id);
        self.groups_moved(now, &before);
    }

    /// A node is back: it replicates again, and leads what nobody led.
    pub(crate) fn node_up(&mut self, now: Instant, id: i32) {
        let before = self.coordinators_now();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.alive = true;
        }
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            if !partition.replicas.contains(&id) {
                continue;
            }
            if !partition.in_sync.contains(&id) {
                partition.in_sync.push(id);
            }
            if partition.leader.is_none() {
                partition.lead(Some(id));
            }
        }
        self.groups_moved(now, &before);
    }

    // Topics.

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(crate) fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// The topic, or the error that says that there is none of this name or id.
    pub(crate) fn resolve(&self, topic: &TopicRef) -> Result<&Topic, ErrorCode> {
        match topic {
            TopicRef::Name(name) => self.topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            TopicRef::Id(id) => {
                self.names.get(id).and_then(|name| self.topics.get(name)).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
            }
        }
    }

    pub(crate) fn resolve_mut(&mut self, topic: &TopicRef) -> Result<&mut Topic, ErrorCode> {
        match topic {
            TopicRef::Name(name) => self.topics.get_mut(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            TopicRef::Id(id) => {
                self.names.get(id).and_then(|name| self.topics.get_mut(name)).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
            }
        }
    }

    /// Whether a topic could be created so; the replicas of each partition if it could.
    pub(crate) fn plan_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: i16,
    ) -> Result<Vec<Vec<i32>>, (ErrorCode, String)> {
        if !is_valid_name(name) {
            return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name {name:?} is invalid")));
        }
        if self.topics.contains_key(name) {
            return Err((ErrorCode::TOPIC_ALREADY_EXISTS, format!("Topic '{name}' already exists.")));
        }
        self.plan_partitions(0, partitions, replication)
    }

    /// The replicas of `count` partitions after the first `existing`: leaders go round the nodes.
    pub(crate) fn plan_partitions(
        &self,
        existing: usize,
        count: i32,
        replication: i16,
    ) -> Result<Vec<Vec<i32>>, (ErrorCode, String)> {
        let count = usize::try_from(count).unwrap_or(0);
        let total: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        if count == 0 || total + count > MAX_PARTITIONS {
            let message = format!("Number of partitions must be larger than 0 and at most {MAX_PARTITIONS} in all");
            return Err((ErrorCode::INVALID_PARTITIONS, message));
        }
        let nodes: Vec<i32> = self.nodes.keys().copied().collect();
        let replicas = usize::try_from(replication).unwrap_or(0);
        if replicas == 0 || replicas > nodes.len() {
            let message = format!("Replication factor {replication} does not fit {} brokers", nodes.len());
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, message));
        }
        let of = |index: usize| nodes.iter().copied().cycle().skip(index % nodes.len()).take(replicas).collect();
        Ok((existing..existing + count).map(of).collect())
    }

    /// How many replicas a topic gets that does not say.
    pub(crate) fn default_replication(&self) -> i16 {
        self.settings.replication.min(i16::try_from(self.nodes.len()).unwrap_or(i16::MAX))
    }

    fn partition(&self, replicas: Vec<i32>) -> Partition {
        let in_sync: Vec<i32> = replicas.iter().copied().filter(|node| self.is_alive(*node)).collect();
        let mut log = PartitionLog::default();
        log.epochs.begin(0, 0);
        Partition { leader: in_sync.first().copied(), leader_epoch: 0, replicas, in_sync, log, fault: None }
    }

    pub(crate) fn add_topic(&mut self, name: &str, replicas: Vec<Vec<i32>>, config: TopicConfig) -> Uuid {
        let id = self.ids.uuid();
        let partitions = replicas.into_iter().map(|replicas| self.partition(replicas)).collect();
        self.topics.insert(name.to_owned(), Topic { id, partitions, config });
        self.names.insert(id, name.to_owned());
        id
    }

    pub(crate) fn add_partitions(&mut self, name: &str, replicas: Vec<Vec<i32>>) {
        let partitions: Vec<Partition> = replicas.into_iter().map(|replicas| self.partition(replicas)).collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(partitions);
        }
    }

    /// False if there is no such topic.
    pub(crate) fn delete_topic(&mut self, name: &str) -> bool {
        let Some(topic) = self.topics.remove(name) else {
            return false;
        };
        self.names.remove(&topic.id);
        for group in self.groups.values_mut() {
            group.forget_topic(name);
        }
        true
    }

    // Groups.

    /// The node that coordinates a group; none if no node is up.
    pub(crate) fn coordinator(&self, group: &str) -> Option<i32> {
        if let Some(node) = self.coordinators.get(group) {
            return Some(*node);
        }
        let alive: Vec<i32> = self.alive().collect();
        // As Java's String.hashCode, so that groups spread and stay where they are.
        let hash = group.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
        let place = usize::try_from(hash & 0x7fff_ffff).unwrap_or(0).checked_rem(alive.len())?;
        alive.get(place).copied()
    }

    pub(crate) fn move_coordinator(&mut self, now: Instant, group: &str, node: i32) {
        let before = self.coordinators_now();
        self.coordinators.insert(group.to_owned(), node);
        self.groups_moved(now, &before);
    }

    fn coordinators_now(&self) -> BTreeMap<String, Option<i32>> {
        self.groups.keys().map(|group| (group.clone(), self.coordinator(group))).collect()
    }

    fn groups_moved(&mut self, now: Instant, before: &BTreeMap<String, Option<i32>>) {
        let after = self.coordinators_now();
        for (id, group) in &mut self.groups {
            if before.get(id) != after.get(id) {
                group.move_coordinator(now);
            }
        }
    }

    /// The group, for a request to its coordinator.
    pub(crate) fn group_at(&mut self, node: i32, id: &str) -> Result<Option<&mut Group>, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        if self.coordinator(id) != Some(node) {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        Ok(self.groups.get_mut(id))
    }

    /// As [`State::group_at`], but the group comes to be if it is not there.
    pub(crate) fn group_at_or_new(&mut self, node: i32, id: &str) -> Result<&mut Group, ErrorCode> {
        self.group_at(node, id)?;
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(id) {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        Ok(self.groups.entry(id.to_owned()).or_insert_with(Group::new))
    }

    /// The next moment at which a group has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.groups.values().filter_map(Group::deadline).min()
    }

    /// Does in all groups what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        let rules = self.rules();
        for group in self.groups.values_mut() {
            if group.deadline().is_some_and(|deadline| deadline <= now) {
                group.tick(now, &rules);
            }
        }
    }

    // Ids.

    pub(crate) fn new_member_id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{}", self.ids.uuid())
    }

    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.ids.next_producer;
        self.ids.next_producer += 1;
        id
    }

    pub(crate) fn new_session_id(&mut self) -> i32 {
        self.next_session = self.next_session.checked_add(1).unwrap_or(1);
        self.next_session
    }
}
