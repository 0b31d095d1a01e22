//! What a group member asks of the cluster, in its own words; [`Link`] is how it asks.
//!
//! The membership knows nothing of versions, sockets and encodings; this file knows nothing of what the answers are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use tokio::{sync::watch, time::Duration};

use super::{
    super::{Assignor, ConsumerConfig},
    assignor::{Member, Plan, Slot},
    requests::{self, Committed, Offset},
};
use crate::{
    cluster::{Cluster, CoordinatorError, Metadata, NodeId, Purpose},
    connection::{BoxFuture, RequestError},
    error_code::ErrorCode,
    message::EncodeError,
};

/// A request to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Join {
        member_id: String,
        owned: Vec<Slot>,
        owned_generation: i32,
        rebalance_timeout: Duration,
        reason: &'static str,
    },
    Sync {
        member_id: String,
        generation: i32,
        protocol: Assignor,
        plan: Plan,
    },
    Heartbeat {
        member_id: String,
        generation: i32,
    },
    Commit {
        member_id: String,
        generation: i32,
        offsets: BTreeMap<Slot, Offset>,
    },
    FetchOffsets {
        slots: Vec<Slot>,
    },
    Leave {
        member_id: String,
    },
}

/// What the coordinator said; of the same kind as the [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Joined(Joined),
    Synced { code: ErrorCode, assigned: Result<Vec<Slot>, String> },
    Heartbeat(ErrorCode),
    Committed(BTreeMap<Slot, ErrorCode>),
    Offsets(Result<BTreeMap<Slot, Result<Committed, ErrorCode>>, ErrorCode>),
    Left(ErrorCode),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) code: ErrorCode,
    pub(super) member_id: String,
    pub(super) generation: i32,
    pub(super) protocol: String,
    /// The members, if we are to make the plan.
    pub(super) members: Option<Vec<Member>>,
}

/// No answer came, or none that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whether another try may succeed without anybody changing anything.
    pub(super) retriable: bool,
    pub(super) text: String,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self { retriable: error.retriable(), text: error.chain() }
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self { retriable: false, text: error.to_string() }
    }
}

/// Why no coordinator is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotFound {
    /// The broker's answer, if one answered.
    pub(super) code: Option<ErrorCode>,
    /// As of [`Failure`], where none answered.
    pub(super) retriable: bool,
    pub(super) text: String,
}

/// The cluster as a group member sees it. Futures may be dropped; what was sent is not taken back by that.
pub(super) trait Link: Send + 'static {
    fn find(&self) -> BoxFuture<Result<NodeId, NotFound>>;
    /// The coordinator that was found is none any more.
    fn forget(&self);
    /// Queued for sending, in the order of the calls, when this returns.
    fn call(&self, node: NodeId, call: Call, timeout: Duration) -> BoxFuture<Result<Answer, Failure>>;
    /// Keeps the metadata of these topics at hand, and no longer that of those of the last call.
    fn watch(&self, topics: &BTreeSet<Arc<str>>);
    /// How many partitions they have, as far as known; a topic that does not exist is left out.
    fn counts(&self, topics: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, i32>;
    /// Completes when what `counts` says was asked for after this call.
    fn refresh(&self) -> BoxFuture<()>;
    /// Completes when `counts` may say something new; false = never again. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = bool> + Send;
}

/// The real one.
pub(super) struct ClusterLink {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    slot: u32,
    changes: watch::Receiver<Arc<Metadata>>,
}

impl ClusterLink {
    pub(super) fn new(cluster: Cluster, config: ConsumerConfig, slot: u32) -> Self {
        let changes = cluster.metadata_changes();
        Self { cluster, config: Arc::new(config), slot, changes }
    }
}

fn failed(error: EncodeError) -> BoxFuture<Result<Answer, Failure>> {
    Box::pin(std::future::ready(Err(error.into())))
}

impl Link for ClusterLink {
    fn find(&self) -> BoxFuture<Result<NodeId, NotFound>> {
        let (cluster, config) = (self.cluster.clone(), self.config.clone());
        Box::pin(async move {
            cluster.coordinator(&config.group_id).await.map_err(|error| match error {
                CoordinatorError::Refused { code } => {
                    NotFound { code: Some(code), retriable: true, text: error.to_string() }
                }
                CoordinatorError::Unanswered(request) => {
                    NotFound { code: None, retriable: request.retriable(), text: request.chain() }
                }
            })
        })
    }

    fn forget(&self) {
        self.cluster.forget_coordinator(&self.config.group_id);
    }

    fn call(&self, node: NodeId, call: Call, timeout: Duration) -> BoxFuture<Result<Answer, Failure>> {
        let (config, cluster) = (&*self.config, &self.cluster);
        // What the broker may hold open for minutes goes by a socket of its own.
        let held = Purpose::Join(self.slot);
        match call {
            Call::Join { member_id, owned, owned_generation, rebalance_timeout, reason } => {
                let build =
                    match requests::join(config, &member_id, &owned, owned_generation, rebalance_timeout, reason) {
                        Ok(build) => build,
                        Err(error) => return failed(error),
                    };
                let answer = cluster.call::<JoinGroupRequest>(node, held, timeout, build);
                Box::pin(async move {
                    let (_, answer) = answer.await?;
                    let leads = answer.leader == answer.member_id && !answer.skip_assignment;
                    Ok(Answer::Joined(Joined {
                        code: ErrorCode(answer.error_code),
                        member_id: answer.member_id.to_string(),
                        generation: answer.generation_id,
                        protocol: answer.protocol_name.as_ref().map(|name| name.to_string()).unwrap_or_default(),
                        members: leads.then(|| requests::members(&answer)),
                    }))
                })
            }
            Call::Sync { member_id, generation, protocol, plan } => {
                let build = match requests::sync(config, &member_id, generation, protocol, &plan) {
                    Ok(build) => build,
                    Err(error) => return failed(error),
                };
                let answer = cluster.call::<SyncGroupRequest>(node, held, timeout, build);
                Box::pin(async move {
                    let (_, answer) = answer.await?;
                    let assigned = requests::assigned(&answer.assignment).map_err(|error| error.to_string());
                    Ok(Answer::Synced { code: ErrorCode(answer.error_code), assigned })
                })
            }
            Call::Heartbeat { member_id, generation } => {
                let build = requests::heartbeat(config, &member_id, generation);
                let answer = cluster.call::<HeartbeatRequest>(node, Purpose::General, timeout, build);
                Box::pin(async move { Ok(Answer::Heartbeat(ErrorCode(answer.await?.1.error_code))) })
            }
            Call::Commit { member_id, generation, offsets } => {
                let build = requests::commit(config, &member_id, generation, &offsets);
                let answer = cluster.call::<OffsetCommitRequest>(node, Purpose::General, timeout, build);
                Box::pin(async move { Ok(Answer::Committed(requests::committed(&answer.await?.1))) })
            }
            Call::FetchOffsets { slots } => {
                let build = requests::offset_fetch(config, &slots);
                let answer = cluster.call::<OffsetFetchRequest>(node, Purpose::General, timeout, build);
                Box::pin(async move {
                    let (version, answer) = answer.await?;
                    Ok(Answer::Offsets(requests::fetched(version, &answer)))
                })
            }
            Call::Leave { member_id } => {
                let build = requests::leave(config, &member_id);
                let answer = cluster.call::<LeaveGroupRequest>(node, Purpose::General, timeout, build);
                Box::pin(async move { Ok(Answer::Left(requests::left(&answer.await?.1))) })
            }
        }
    }

    fn watch(&self, topics: &BTreeSet<Arc<str>>) {
        self.cluster.watch_for_group(&self.config.group_id, topics.clone());
    }

    fn counts(&self, topics: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, i32> {
        let metadata = self.cluster.metadata();
        let count = |topic: &Arc<str>| {
            let partitions = metadata.topics.get(topic)?.partitions.len();
            Some((topic.clone(), i32::try_from(partitions).ok().filter(|count| *count > 0)?))
        };
        topics.iter().filter_map(count).collect()
    }

    fn refresh(&self) -> BoxFuture<()> {
        let cluster = self.cluster.clone();
        Box::pin(async move {
            cluster.refresh().await;
        })
    }

    async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}
