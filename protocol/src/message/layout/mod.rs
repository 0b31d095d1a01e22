//! What every message that this client speaks looks like on the wire, as data.
//!
//! One [`Layout`] a message: its fields in the order of the wire, each with the versions that have it. The tables say
//! the same as Kafka's message schemas (`clients/src/main/resources/common/message`); the tests of the scan prove them
//! against the generated encoders, version by version. Nullability is that of the generated type, whatever the version.

use kafka_protocol::messages::ApiKey;

use super::error::Direction;

mod cluster;
mod configs;
mod embedded;
mod groups;
mod membership;
mod offsets;
mod records;
#[cfg(test)]
pub(super) mod sample;
mod session;
mod topics;
mod transactions;

pub(super) use embedded::{ASSIGNMENT, SUBSCRIPTION};

/// The first flexible version of a message that has none.
const NEVER: i16 = i16::MAX;

/// One message in one direction.
#[derive(Debug)]
pub(super) struct Layout {
    /// Kafka's name of the API.
    pub(super) message: &'static str,
    pub(super) direction: Direction,
    /// The oldest and newest version that the table describes.
    pub(super) min: i16,
    pub(super) max: i16,
    /// From this version on lengths are varints and structures end in tagged fields (KIP-482).
    pub(super) flexible: i16,
    pub(super) fields: &'static [Field],
}

/// One field of a structure.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    /// The number of a tagged field; it stands behind the plain ones and may be absent.
    pub(super) tag: Option<u32>,
}

/// How a field is encoded.
#[derive(Debug)]
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
    /// A byte that is 1 when the structure follows.
    NullStruct(&'static [Field]),
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, tag: None }
}

impl Field {
    const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    const fn tag(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    pub(super) fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

impl Kind {
    /// The length of every value of this kind, in bytes, where there is one.
    pub(super) fn fixed_len(&self) -> Option<usize> {
        match self {
            Self::Bool | Self::I8 => Some(1),
            Self::I16 => Some(2),
            Self::I32 => Some(4),
            Self::I64 => Some(8),
            Self::Uuid => Some(16),
            _ => None,
        }
    }

    /// The length of the shortest value of this kind, in bytes.
    pub(super) fn min_len(&self, version: i16, flexible: bool) -> usize {
        match self {
            Self::Str | Self::NullStr => {
                if flexible {
                    1
                } else {
                    2
                }
            }
            Self::Bytes | Self::NullBytes | Self::Array(_) | Self::NullArray(_) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            Self::Struct(fields) => {
                let plain = fields.iter().filter(|field| field.tag.is_none() && field.is_in(version));
                plain.map(|field| field.kind.min_len(version, flexible)).sum::<usize>() + usize::from(flexible)
            }
            Self::NullStruct(_) => 1,
            fixed => fixed.fixed_len().unwrap_or(1),
        }
    }
}

/// The request's and the response's layout of an API, where this client speaks it.
pub(super) fn of(api_key: i16) -> Option<(&'static Layout, &'static Layout)> {
    Some(match ApiKey::try_from(api_key).ok()? {
        ApiKey::ApiVersions => (&session::API_VERSIONS_REQUEST, &session::API_VERSIONS_RESPONSE),
        ApiKey::SaslHandshake => (&session::SASL_HANDSHAKE_REQUEST, &session::SASL_HANDSHAKE_RESPONSE),
        ApiKey::SaslAuthenticate => (&session::SASL_AUTHENTICATE_REQUEST, &session::SASL_AUTHENTICATE_RESPONSE),
        ApiKey::Metadata => (&cluster::METADATA_REQUEST, &cluster::METADATA_RESPONSE),
        ApiKey::FindCoordinator => (&cluster::FIND_COORDINATOR_REQUEST, &cluster::FIND_COORDINATOR_RESPONSE),
        ApiKey::DescribeCluster => (&cluster::DESCRIBE_CLUSTER_REQUEST, &cluster::DESCRIBE_CLUSTER_RESPONSE),
        ApiKey::Produce => (&records::PRODUCE_REQUEST, &records::PRODUCE_RESPONSE),
        ApiKey::Fetch => (&records::FETCH_REQUEST, &records::FETCH_RESPONSE),
        ApiKey::ListOffsets => (&records::LIST_OFFSETS_REQUEST, &records::LIST_OFFSETS_RESPONSE),
        ApiKey::OffsetForLeaderEpoch => {
            (&records::OFFSET_FOR_LEADER_EPOCH_REQUEST, &records::OFFSET_FOR_LEADER_EPOCH_RESPONSE)
        }
        ApiKey::OffsetCommit => (&offsets::OFFSET_COMMIT_REQUEST, &offsets::OFFSET_COMMIT_RESPONSE),
        ApiKey::OffsetFetch => (&offsets::OFFSET_FETCH_REQUEST, &offsets::OFFSET_FETCH_RESPONSE),
        ApiKey::OffsetDelete => (&offsets::OFFSET_DELETE_REQUEST, &offsets::OFFSET_DELETE_RESPONSE),
        ApiKey::JoinGroup => (&membership::JOIN_GROUP_REQUEST, &membership::JOIN_GROUP_RESPONSE),
        ApiKey::Heartbeat => (&membership::HEARTBEAT_REQUEST, &membership::HEARTBEAT_RESPONSE),
        ApiKey::LeaveGroup => (&membership::LEAVE_GROUP_REQUEST, &membership::LEAVE_GROUP_RESPONSE),
        ApiKey::SyncGroup => (&membership::SYNC_GROUP_REQUEST, &membership::SYNC_GROUP_RESPONSE),
        ApiKey::ConsumerGroupHeartbeat => {
            (&membership::CONSUMER_GROUP_HEARTBEAT_REQUEST, &membership::CONSUMER_GROUP_HEARTBEAT_RESPONSE)
        }
        ApiKey::DescribeGroups => (&groups::DESCRIBE_GROUPS_REQUEST, &groups::DESCRIBE_GROUPS_RESPONSE),
        ApiKey::ListGroups => (&groups::LIST_GROUPS_REQUEST, &groups::LIST_GROUPS_RESPONSE),
        ApiKey::DeleteGroups => (&groups::DELETE_GROUPS_REQUEST, &groups::DELETE_GROUPS_RESPONSE),
        ApiKey::ConsumerGroupDescribe => {
            (&groups::CONSUMER_GROUP_DESCRIBE_REQUEST, &groups::CONSUMER_GROUP_DESCRIBE_RESPONSE)
        }
        ApiKey::CreateTopics => (&topics::CREATE_TOPICS_REQUEST, &topics::CREATE_TOPICS_RESPONSE),
        ApiKey::DeleteTopics => (&topics::DELETE_TOPICS_REQUEST, &topics::DELETE_TOPICS_RESPONSE),
        ApiKey::CreatePartitions => (&topics::CREATE_PARTITIONS_REQUEST, &topics::CREATE_PARTITIONS_RESPONSE),
        ApiKey::DeleteRecords => (&topics::DELETE_RECORDS_REQUEST, &topics::DELETE_RECORDS_RESPONSE),
        ApiKey::DescribeConfigs => (&configs::DESCRIBE_CONFIGS_REQUEST, &configs::DESCRIBE_CONFIGS_RESPONSE),
        ApiKey::IncrementalAlterConfigs => {
            (&configs::INCREMENTAL_ALTER_CONFIGS_REQUEST, &configs::INCREMENTAL_ALTER_CONFIGS_RESPONSE)
        }
        ApiKey::InitProducerId => (&transactions::INIT_PRODUCER_ID_REQUEST, &transactions::INIT_PRODUCER_ID_RESPONSE),
        ApiKey::AddPartitionsToTxn => {
            (&transactions::ADD_PARTITIONS_TO_TXN_REQUEST, &transactions::ADD_PARTITIONS_TO_TXN_RESPONSE)
        }
        ApiKey::AddOffsetsToTxn => {
            (&transactions::ADD_OFFSETS_TO_TXN_REQUEST, &transactions::ADD_OFFSETS_TO_TXN_RESPONSE)
        }
        ApiKey::EndTxn => (&transactions::END_TXN_REQUEST, &transactions::END_TXN_RESPONSE),
        ApiKey::TxnOffsetCommit => {
            (&transactions::TXN_OFFSET_COMMIT_REQUEST, &transactions::TXN_OFFSET_COMMIT_RESPONSE)
        }
        _ => return None,
    })
}

/// Kafka's name of an API that this client speaks.
pub(super) fn name(api_key: i16) -> &'static str {
    of(api_key).map_or("unknown API", |(request, _)| request.message)
}
