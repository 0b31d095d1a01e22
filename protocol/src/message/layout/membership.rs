//! Layouts of what a member of a group says: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, ConsumerGroupHeartbeat.

use super::Kind::{Array, Bool, Bytes, I16, I32, NullArray, NullStr, NullStruct, Str, Struct, Uuid};
use super::{Direction, Field, Layout, field};

const JOIN_GROUP_REQUEST_PROTOCOL: &[Field] = &[field("name", Str), field("metadata", Bytes)];

pub(super) static JOIN_GROUP_REQUEST: Layout = Layout {
    message: "JoinGroup",
    direction: Direction::Request,
    min: 0,
    max: 9,
    flexible: 6,
    fields: &[
        field("group_id", Str),
        field("session_timeout_ms", I32),
        field("rebalance_timeout_ms", I32).since(1),
        field("member_id", Str),
        field("group_instance_id", NullStr).since(5),
        field("protocol_type", Str),
        field("protocols", Array(&Struct(JOIN_GROUP_REQUEST_PROTOCOL))),
        field("reason", NullStr).since(8),
    ],
};

const JOIN_GROUP_RESPONSE_MEMBER: &[Field] =
    &[field("member_id", Str), field("group_instance_id", NullStr).since(5), field("metadata", Bytes)];

pub(super) static JOIN_GROUP_RESPONSE: Layout = Layout {
    message: "JoinGroup",
    direction: Direction::Response,
    min: 0,
    max: 9,
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).since(2),
        field("error_code", I16),
        field("generation_id", I32),
        field("protocol_type", NullStr).since(7),
        field("protocol_name", NullStr),
        field("leader", Str),
        field("skip_assignment", Bool).since(9),
        field("member_id", Str),
        field("members", Array(&Struct(JOIN_GROUP_RESPONSE_MEMBER))),
    ],
};

pub(super) static HEARTBEAT_REQUEST: Layout = Layout {
    message: "Heartbeat",
    direction: Direction::Request,
    min: 0,
    max: 4,
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("generation_id", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).since(3),
    ],
};

pub(super) static HEARTBEAT_RESPONSE: Layout = Layout {
    message: "Heartbeat",
    direction: Direction::Response,
    min: 0,
    max: 4,
    flexible: 4,
    fields: &[field("throttle_time_ms", I32).since(1), field("error_code", I16)],
};

const LEAVE_GROUP_REQUEST_MEMBER_IDENTITY: &[Field] = &[
    field("member_id", Str).since(3),
    field("group_instance_id", NullStr).since(3),
    field("reason", NullStr).since(5),
];

pub(super) static LEAVE_GROUP_REQUEST: Layout = Layout {
    message: "LeaveGroup",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("member_id", Str).until(2),
        field("members", Array(&Struct(LEAVE_GROUP_REQUEST_MEMBER_IDENTITY))).since(3),
    ],
};

const LEAVE_GROUP_RESPONSE_MEMBER_RESPONSE: &[Field] = &[
    field("member_id", Str).since(3),
    field("group_instance_id", NullStr).since(3),
    field("error_code", I16).since(3),
];

pub(super) static LEAVE_GROUP_RESPONSE: Layout = Layout {
    message: "LeaveGroup",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16),
        field("members", Array(&Struct(LEAVE_GROUP_RESPONSE_MEMBER_RESPONSE))).since(3),
    ],
};

const SYNC_GROUP_REQUEST_ASSIGNMENT: &[Field] = &[field("member_id", Str), field("assignment", Bytes)];

pub(super) static SYNC_GROUP_REQUEST: Layout = Layout {
    message: "SyncGroup",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("generation_id", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).since(3),
        field("protocol_type", NullStr).since(5),
        field("protocol_name", NullStr).since(5),
        field("assignments", Array(&Struct(SYNC_GROUP_REQUEST_ASSIGNMENT))),
    ],
};

pub(super) static SYNC_GROUP_RESPONSE: Layout = Layout {
    message: "SyncGroup",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16),
        field("protocol_type", NullStr).since(5),
        field("protocol_name", NullStr).since(5),
        field("assignment", Bytes),
    ],
};

const CONSUMER_GROUP_HEARTBEAT_REQUEST_TOPIC_PARTITIONS: &[Field] =
    &[field("topic_id", Uuid), field("partitions", Array(&I32))];

pub(super) static CONSUMER_GROUP_HEARTBEAT_REQUEST: Layout = Layout {
    message: "ConsumerGroupHeartbeat",
    direction: Direction::Request,
    min: 0,
    max: 1,
    flexible: 0,
    fields: &[
        field("group_id", Str),
        field("member_id", Str),
        field("member_epoch", I32),
        field("instance_id", NullStr),
        field("rack_id", NullStr),
        field("rebalance_timeout_ms", I32),
        field("subscribed_topic_names", NullArray(&Str)),
        field("subscribed_topic_regex", NullStr).since(1),
        field("server_assignor", NullStr),
        field("topic_partitions", NullArray(&Struct(CONSUMER_GROUP_HEARTBEAT_REQUEST_TOPIC_PARTITIONS))),
    ],
};

const CONSUMER_GROUP_HEARTBEAT_RESPONSE_TOPIC_PARTITIONS: &[Field] =
    &[field("topic_id", Uuid), field("partitions", Array(&I32))];

const CONSUMER_GROUP_HEARTBEAT_RESPONSE_ASSIGNMENT: &[Field] =
    &[field("topic_partitions", Array(&Struct(CONSUMER_GROUP_HEARTBEAT_RESPONSE_TOPIC_PARTITIONS)))];

pub(super) static CONSUMER_GROUP_HEARTBEAT_RESPONSE: Layout = Layout {
    message: "ConsumerGroupHeartbeat",
    direction: Direction::Response,
    min: 0,
    max: 1,
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field("member_id", NullStr),
        field("member_epoch", I32),
        field("heartbeat_interval_ms", I32),
        field("assignment", NullStruct(CONSUMER_GROUP_HEARTBEAT_RESPONSE_ASSIGNMENT)),
    ],
};
