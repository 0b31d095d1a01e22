//! Layouts of what describes a cluster: Metadata, FindCoordinator, DescribeCluster.

use super::Kind::{Array, Bool, I8, I16, I32, NullArray, NullStr, Str, Struct, Uuid};
use super::{Direction, Field, Layout, field};

const METADATA_REQUEST_TOPIC: &[Field] = &[field("topic_id", Uuid).since(10), field("name", NullStr)];

pub(super) static METADATA_REQUEST: Layout = Layout {
    message: "Metadata",
    direction: Direction::Request,
    min: 0,
    max: 13,
    flexible: 9,
    fields: &[
        field("topics", NullArray(&Struct(METADATA_REQUEST_TOPIC))),
        field("allow_auto_topic_creation", Bool).since(4),
        field("include_cluster_authorized_operations", Bool).since(8).until(10),
        field("include_topic_authorized_operations", Bool).since(8),
    ],
};

const METADATA_RESPONSE_TOPIC: &[Field] = &[
    field("error_code", I16),
    field("name", NullStr),
    field("topic_id", Uuid).since(10),
    field("is_internal", Bool).since(1),
    field("partitions", Array(&Struct(METADATA_RESPONSE_PARTITION))),
    field("topic_authorized_operations", I32).since(8),
];

const METADATA_RESPONSE_PARTITION: &[Field] = &[
    field("error_code", I16),
    field("partition_index", I32),
    field("leader_id", I32),
    field("leader_epoch", I32).since(7),
    field("replica_nodes", Array(&I32)),
    field("isr_nodes", Array(&I32)),
    field("offline_replicas", Array(&I32)).since(5),
];

const METADATA_RESPONSE_BROKER: &[Field] =
    &[field("node_id", I32), field("host", Str), field("port", I32), field("rack", NullStr).since(1)];

pub(super) static METADATA_RESPONSE: Layout = Layout {
    message: "Metadata",
    direction: Direction::Response,
    min: 0,
    max: 13,
    flexible: 9,
    fields: &[
        field("throttle_time_ms", I32).since(3),
        field("brokers", Array(&Struct(METADATA_RESPONSE_BROKER))),
        field("cluster_id", NullStr).since(2),
        field("controller_id", I32).since(1),
        field("topics", Array(&Struct(METADATA_RESPONSE_TOPIC))),
        field("cluster_authorized_operations", I32).since(8).until(10),
        field("error_code", I16).since(13),
    ],
};

pub(super) static FIND_COORDINATOR_REQUEST: Layout = Layout {
    message: "FindCoordinator",
    direction: Direction::Request,
    min: 0,
    max: 6,
    flexible: 3,
    fields: &[
        field("key", Str).until(3),
        field("key_type", I8).since(1),
        field("coordinator_keys", Array(&Str)).since(4),
    ],
};

const FIND_COORDINATOR_RESPONSE_COORDINATOR: &[Field] = &[
    field("key", Str).since(4),
    field("node_id", I32).since(4),
    field("host", Str).since(4),
    field("port", I32).since(4),
    field("error_code", I16).since(4),
    field("error_message", NullStr).since(4),
];

pub(super) static FIND_COORDINATOR_RESPONSE: Layout = Layout {
    message: "FindCoordinator",
    direction: Direction::Response,
    min: 0,
    max: 6,
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16).until(3),
        field("error_message", NullStr).since(1).until(3),
        field("node_id", I32).until(3),
        field("host", Str).until(3),
        field("port", I32).until(3),
        field("coordinators", Array(&Struct(FIND_COORDINATOR_RESPONSE_COORDINATOR))).since(4),
    ],
};

pub(super) static DESCRIBE_CLUSTER_REQUEST: Layout = Layout {
    message: "DescribeCluster",
    direction: Direction::Request,
    min: 0,
    max: 2,
    flexible: 0,
    fields: &[
        field("include_cluster_authorized_operations", Bool),
        field("endpoint_type", I8).since(1),
        field("include_fenced_brokers", Bool).since(2),
    ],
};

const DESCRIBE_CLUSTER_RESPONSE_BROKER: &[Field] = &[
    field("broker_id", I32),
    field("host", Str),
    field("port", I32),
    field("rack", NullStr),
    field("is_fenced", Bool).since(2),
];

pub(super) static DESCRIBE_CLUSTER_RESPONSE: Layout = Layout {
    message: "DescribeCluster",
    direction: Direction::Response,
    min: 0,
    max: 2,
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field("endpoint_type", I8).since(1),
        field("cluster_id", Str),
        field("controller_id", I32),
        field("brokers", Array(&Struct(DESCRIBE_CLUSTER_RESPONSE_BROKER))),
        field("cluster_authorized_operations", I32),
    ],
};
