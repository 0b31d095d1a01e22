//! What each message looks like on the wire, version by version, as data. Source: Kafka's message definitions.

mod cluster;
mod configs;
mod embedded;
mod groups;
mod membership;
mod offsets;
mod records;
mod session;
mod topics;
mod transactions;

use std::fmt;

pub(in crate::message) use embedded::{ASSIGNMENT, SUBSCRIPTION};
use kafka_protocol::messages::ApiKey;

/// The flexible version of a message that has none.
pub(super) const NEVER: i16 = i16::MAX;

/// The type of a field. Strings, bytes and arrays are compact in flexible versions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Uuid,
    Str,
    NullStr,
    Bytes,
    NullBytes,
    Array(&'static Kind),
    NullArray(&'static Kind),
    Struct(&'static [Field]),
    NullStruct(&'static [Field]),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    /// Tagged fields stand at the end of their struct, behind their number.
    pub(super) tag: Option<u32>,
}

pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, tag: None }
}

impl Field {
    const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    const fn tag(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self
    }

    pub(super) fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
    /// Inside another message.
    Blob,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Blob => "blob",
        })
    }
}

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) message: &'static str,
    pub(super) direction: Direction,
    pub(super) min: i16,
    pub(super) max: i16,
    /// The first flexible version (KIP-482).
    pub(super) flexible: i16,
    pub(super) fields: &'static [Field],
}

/// An API that we speak: the layouts of its request and its response.
pub(super) struct Api {
    pub(super) key: ApiKey,
    pub(super) request: &'static Layout,
    pub(super) response: &'static Layout,
}

macro_rules! apis {
    ($($key:ident $module:ident $request:ident $response:ident),* $(,)?) => {
        pub(super) const APIS: &[Api] = &[$(Api {
            key: ApiKey::$key,
            request: &$module::$request,
            response: &$module::$response,
        }),*];
    };
}

apis! {
    Produce records PRODUCE_REQUEST PRODUCE_RESPONSE,
    Fetch records FETCH_REQUEST FETCH_RESPONSE,
    ListOffsets records LIST_OFFSETS_REQUEST LIST_OFFSETS_RESPONSE,
    OffsetForLeaderEpoch records OFFSET_FOR_LEADER_EPOCH_REQUEST OFFSET_FOR_LEADER_EPOCH_RESPONSE,
    Metadata cluster METADATA_REQUEST METADATA_RESPONSE,
    FindCoordinator cluster FIND_COORDINATOR_REQUEST FIND_COORDINATOR_RESPONSE,
    DescribeCluster cluster DESCRIBE_CLUSTER_REQUEST DESCRIBE_CLUSTER_RESPONSE,
    OffsetCommit offsets OFFSET_COMMIT_REQUEST OFFSET_COMMIT_RESPONSE,
    OffsetFetch offsets OFFSET_FETCH_REQUEST OFFSET_FETCH_RESPONSE,
    OffsetDelete offsets OFFSET_DELETE_REQUEST OFFSET_DELETE_RESPONSE,
    JoinGroup membership JOIN_GROUP_REQUEST JOIN_GROUP_RESPONSE,
    SyncGroup membership SYNC_GROUP_REQUEST SYNC_GROUP_RESPONSE,
    Heartbeat membership HEARTBEAT_REQUEST HEARTBEAT_RESPONSE,
    LeaveGroup membership LEAVE_GROUP_REQUEST LEAVE_GROUP_RESPONSE,
    ConsumerGroupHeartbeat membership CONSUMER_GROUP_HEARTBEAT_REQUEST CONSUMER_GROUP_HEARTBEAT_RESPONSE,
    DescribeGroups groups DESCRIBE_GROUPS_REQUEST DESCRIBE_GROUPS_RESPONSE,
    ListGroups groups LIST_GROUPS_REQUEST LIST_GROUPS_RESPONSE,
    DeleteGroups groups DELETE_GROUPS_REQUEST DELETE_GROUPS_RESPONSE,
    ConsumerGroupDescribe groups CONSUMER_GROUP_DESCRIBE_REQUEST CONSUMER_GROUP_DESCRIBE_RESPONSE,
    ApiVersions session API_VERSIONS_REQUEST API_VERSIONS_RESPONSE,
    SaslHandshake session SASL_HANDSHAKE_REQUEST SASL_HANDSHAKE_RESPONSE,
    SaslAuthenticate session SASL_AUTHENTICATE_REQUEST SASL_AUTHENTICATE_RESPONSE,
    CreateTopics topics CREATE_TOPICS_REQUEST CREATE_TOPICS_RESPONSE,
    DeleteTopics topics DELETE_TOPICS_REQUEST DELETE_TOPICS_RESPONSE,
    CreatePartitions topics CREATE_PARTITIONS_REQUEST CREATE_PARTITIONS_RESPONSE,
    DeleteRecords topics DELETE_RECORDS_REQUEST DELETE_RECORDS_RESPONSE,
    DescribeConfigs configs DESCRIBE_CONFIGS_REQUEST DESCRIBE_CONFIGS_RESPONSE,
    IncrementalAlterConfigs configs INCREMENTAL_ALTER_CONFIGS_REQUEST INCREMENTAL_ALTER_CONFIGS_RESPONSE,
    InitProducerId transactions INIT_PRODUCER_ID_REQUEST INIT_PRODUCER_ID_RESPONSE,
    AddPartitionsToTxn transactions ADD_PARTITIONS_TO_TXN_REQUEST ADD_PARTITIONS_TO_TXN_RESPONSE,
    AddOffsetsToTxn transactions ADD_OFFSETS_TO_TXN_REQUEST ADD_OFFSETS_TO_TXN_RESPONSE,
    EndTxn transactions END_TXN_REQUEST END_TXN_RESPONSE,
    TxnOffsetCommit transactions TXN_OFFSET_COMMIT_REQUEST TXN_OFFSET_COMMIT_RESPONSE,
}

pub(super) fn api(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}
