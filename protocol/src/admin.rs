//! What the sidecar needs of the admin API: describe the cluster and topics, create a topic, offsets of topics and groups.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka_protocol::{
    messages::{
        CreateTopicsRequest, GroupId, OffsetFetchRequest, TopicName, create_topics_request::CreatableTopic,
        offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::StrBytes,
};

use crate::{
    cluster::{Cluster, CoordinatorError, Metadata, NodeId, Purpose, Topic},
    connection::RequestError,
    consumer::{
        Isolation,
        lookup::{self, EARLIEST, LATEST},
    },
    error_code::ErrorCode,
};

/// OffsetFetch asks for several groups from this version on.
const BATCHED_GROUPS: i16 = 8;

/// Why an admin request did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    #[error("no broker answered")]
    Unanswered(#[source] RequestError),
    #[error("no coordinator answered")]
    NoCoordinator(#[source] CoordinatorError),
    #[error("{}", message.as_deref().map_or_else(|| code.to_string(), |message| format!("{code}: {message}")))]
    Refused { code: ErrorCode, message: Option<String> },
    #[error("partition {partition} of {topic} has no leader")]
    NoLeader { topic: Arc<str>, partition: i32 },
}

impl AdminError {
    pub fn retriable(&self) -> bool {
        match self {
            Self::Unanswered(error) => error.retriable(),
            Self::NoCoordinator(error) => !error.fatal(),
            Self::Refused { code, .. } => code.retriable(),
            Self::NoLeader { .. } => true,
        }
    }
}

/// A partition, and the time that is asked for.
type Timestamp = ((Arc<str>, i32), i64);

/// Where a partition's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    pub earliest: i64,
    /// The high watermark.
    pub latest: i64,
}

/// Asks brokers. Cheap to clone. Every method may be dropped at any await: a request that was sent is not taken back.
#[derive(Clone)]
pub struct Admin {
    cluster: Cluster,
}

impl Admin {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster as a broker tells it now. Waits while no broker answers.
    pub async fn describe_cluster(&self) -> Arc<Metadata> {
        self.cluster.refresh().await
    }

    /// The topic as a broker tells it now (it is not created by asking); None if it does not exist.
    pub async fn describe_topic(&self, name: &str) -> Option<Topic> {
        self.cluster.watch_topics(&[name.to_owned()]);
        let metadata = self.cluster.refresh().await;
        metadata.topics.get(name).filter(|topic| !topic.partitions.is_empty()).cloned()
    }

    /// Creates a topic with the broker's default replication. A topic that exists already is a success.
    pub async fn create_topic(&self, name: &str, partitions: i32, timeout: Duration) -> Result<(), AdminError> {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let build =
            move |_| CreateTopicsRequest::default().with_topics(vec![topic.clone()]).with_timeout_ms(timeout_ms);
        let controller = self.cluster.metadata().controller;
        // Brokers of a KRaft cluster forward it; older ones want it sent to the controller.
        let (_, answer) = match controller {
            Some(node) => {
                let asked =
                    self.cluster.call::<CreateTopicsRequest>(node, Purpose::General, timeout, build.clone()).await;
                match asked {
                    Ok(answer) => answer,
                    Err(_) => self.cluster.call_any(timeout, build).await.map_err(AdminError::Unanswered)?,
                }
            }
            None => self.cluster.call_any(timeout, build).await.map_err(AdminError::Unanswered)?,
        };
        let topic = answer.topics.first();
        let code = topic.map_or(ErrorCode::NONE, |topic| ErrorCode(topic.error_code));
        if code.is_none() || code == ErrorCode::TOPIC_ALREADY_EXISTS {
            self.cluster.request_refresh();
            return Ok(());
        }
        let message = topic.and_then(|topic| topic.error_message.as_ref()).map(|message| message.to_string());
        Err(AdminError::Refused { code, message })
    }

    /// The first and the next offset of each partition of a topic.
    pub async fn log_ends(&self, topic: &str) -> Result<BTreeMap<i32, LogEnds>, AdminError> {
        let (first, next) = (self.offsets(topic, EARLIEST).await?, self.offsets(topic, LATEST).await?);
        let both = |(partition, earliest)| Some((partition, LogEnds { earliest, latest: *next.get(&partition)? }));
        Ok(first.into_iter().filter_map(both).collect())
    }

    /// What each leader says for `timestamp`, all partitions of a leader in one request.
    async fn offsets(&self, topic: &str, timestamp: i64) -> Result<BTreeMap<i32, i64>, AdminError> {
        let described = self.describe_topic(topic).await.ok_or_else(|| AdminError::Refused {
            code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            message: Some(format!("topic {topic} does not exist")),
        })?;
        let topic: Arc<str> = topic.into();
        let mut asked: BTreeMap<NodeId, Vec<Timestamp>> = BTreeMap::new();
        for partition in &described.partitions {
            let no_leader = || AdminError::NoLeader { topic: topic.clone(), partition: partition.index };
            let leader = partition.leader.ok_or_else(no_leader)?;
            asked.entry(leader).or_default().push(((topic.clone(), partition.index), timestamp));
        }
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in asked {
            let found = lookup::list_offsets(&self.cluster, leader, Isolation::ReadUncommitted, partitions);
            for found in found.await.map_err(AdminError::Unanswered)? {
                if !found.code.is_none() {
                    return Err(AdminError::Refused { code: found.code, message: None });
                }
                offsets.insert(found.key.1, found.offset);
            }
        }
        Ok(offsets)
    }

    /// For each partition of a topic the offset of its first record that is not older than `timestamp` (milliseconds since
    /// the epoch); None where there is no such record.
    pub async fn offsets_since(&self, topic: &str, timestamp: i64) -> Result<BTreeMap<i32, Option<i64>>, AdminError> {
        let found = self.offsets(topic, timestamp.max(0)).await?;
        Ok(found
            .into_iter()
            .map(|(partition, offset)| (partition, Some(offset).filter(|offset| *offset >= 0)))
            .collect())
    }

    /// What a group has committed, by topic and partition; partitions without a commit are left out.
    pub async fn committed(&self, group: &str) -> Result<BTreeMap<(Arc<str>, i32), i64>, AdminError> {
        let node = self.cluster.coordinator(group).await.map_err(AdminError::NoCoordinator)?;
        let id = GroupId(StrBytes::from_string(group.to_owned()));
        let build = move |version| {
            if version >= BATCHED_GROUPS {
                let group = OffsetFetchRequestGroup::default().with_group_id(id).with_topics(None);
                OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true)
            } else {
                OffsetFetchRequest::default().with_group_id(id).with_topics(None).with_require_stable(version >= 7)
            }
        };
        let timeout = self.cluster.config().request_timeout;
        let asked = self.cluster.call::<OffsetFetchRequest>(node, Purpose::General, timeout, build).await;
        let (version, answer) = asked.map_err(|error| {
            self.cluster.forget_coordinator(group);
            AdminError::Unanswered(error)
        })?;
        let mut committed = BTreeMap::new();
        let mut keep = |topic: &str, partition: i32, offset: i64| {
            if offset >= 0 {
                committed.insert((Arc::from(topic), partition), offset);
            }
        };
        let code = if version >= BATCHED_GROUPS {
            let group = answer.groups.first();
            for topic in group.into_iter().flat_map(|group| &group.topics) {
                topic.partitions.iter().for_each(|p| keep(&topic.name, p.partition_index, p.committed_offset));
            }
            group.map_or(ErrorCode::NONE, |group| ErrorCode(group.error_code))
        } else {
            for topic in &answer.topics {
                topic.partitions.iter().for_each(|p| keep(&topic.name, p.partition_index, p.committed_offset));
            }
            ErrorCode(answer.error_code)
        };
        if code.is_none() {
            return Ok(committed);
        }
        self.cluster.forget_coordinator(group);
        Err(AdminError::Refused { code, message: None })
    }
}
