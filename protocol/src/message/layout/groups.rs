//! Layouts of what an operator asks of groups: DescribeGroups, ListGroups, DeleteGroups, ConsumerGroupDescribe.

use super::Kind::{Array, Bool, Bytes, I8, I16, I32, NullStr, Str, Struct, Uuid};
use super::{Direction, Field, Layout, field};

pub(super) static DESCRIBE_GROUPS_REQUEST: Layout = Layout {
    message: "DescribeGroups",
    direction: Direction::Request,
    min: 0,
    max: 6,
    flexible: 5,
    fields: &[field("groups", Array(&Str)), field("include_authorized_operations", Bool).since(3)],
};

const DESCRIBE_GROUPS_RESPONSE_DESCRIBED_GROUP_MEMBER: &[Field] = &[
    field("member_id", Str),
    field("group_instance_id", NullStr).since(4),
    field("client_id", Str),
    field("client_host", Str),
    field("member_metadata", Bytes),
    field("member_assignment", Bytes),
];

const DESCRIBE_GROUPS_RESPONSE_DESCRIBED_GROUP: &[Field] = &[
    field("error_code", I16),
    field("error_message", NullStr).since(6),
    field("group_id", Str),
    field("group_state", Str),
    field("protocol_type", Str),
    field("protocol_data", Str),
    field("members", Array(&Struct(DESCRIBE_GROUPS_RESPONSE_DESCRIBED_GROUP_MEMBER))),
    field("authorized_operations", I32).since(3),
];

pub(super) static DESCRIBE_GROUPS_RESPONSE: Layout = Layout {
    message: "DescribeGroups",
    direction: Direction::Response,
    min: 0,
    max: 6,
    flexible: 5,
    fields: &[
        field("throttle_time_ms", I32).since(1),
        field("groups", Array(&Struct(DESCRIBE_GROUPS_RESPONSE_DESCRIBED_GROUP))),
    ],
};

pub(super) static LIST_GROUPS_REQUEST: Layout = Layout {
    message: "ListGroups",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[field("states_filter", Array(&Str)).since(4), field("types_filter", Array(&Str)).since(5)],
};

const LIST_GROUPS_RESPONSE_LISTED_GROUP: &[Field] = &[
    field("group_id", Str),
    field("protocol_type", Str),
    field("group_state", Str).since(4),
    field("group_type", Str).since(5),
];

pub(super) static LIST_GROUPS_RESPONSE: Layout = Layout {
    message: "ListGroups",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16),
        field("groups", Array(&Struct(LIST_GROUPS_RESPONSE_LISTED_GROUP))),
    ],
};

pub(super) static DELETE_GROUPS_REQUEST: Layout = Layout {
    message: "DeleteGroups",
    direction: Direction::Request,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[field("groups_names", Array(&Str))],
};

const DELETE_GROUPS_RESPONSE_DELETABLE_GROUP_RESULT: &[Field] = &[field("group_id", Str), field("error_code", I16)];

pub(super) static DELETE_GROUPS_RESPONSE: Layout = Layout {
    message: "DeleteGroups",
    direction: Direction::Response,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("results", Array(&Struct(DELETE_GROUPS_RESPONSE_DELETABLE_GROUP_RESULT))),
    ],
};

pub(super) static CONSUMER_GROUP_DESCRIBE_REQUEST: Layout = Layout {
    message: "ConsumerGroupDescribe",
    direction: Direction::Request,
    min: 0,
    max: 1,
    flexible: 0,
    fields: &[field("group_ids", Array(&Str)), field("include_authorized_operations", Bool)],
};

const CONSUMER_GROUP_DESCRIBE_RESPONSE_TOPIC_PARTITIONS: &[Field] =
    &[field("topic_id", Uuid), field("topic_name", Str), field("partitions", Array(&I32))];

const CONSUMER_GROUP_DESCRIBE_RESPONSE_MEMBER: &[Field] = &[
    field("member_id", Str),
    field("instance_id", NullStr),
    field("rack_id", NullStr),
    field("member_epoch", I32),
    field("client_id", Str),
    field("client_host", Str),
    field("subscribed_topic_names", Array(&Str)),
    field("subscribed_topic_regex", NullStr),
    field("assignment", Struct(CONSUMER_GROUP_DESCRIBE_RESPONSE_ASSIGNMENT)),
    field("target_assignment", Struct(CONSUMER_GROUP_DESCRIBE_RESPONSE_ASSIGNMENT)),
    field("member_type", I8).since(1),
];

const CONSUMER_GROUP_DESCRIBE_RESPONSE_DESCRIBED_GROUP: &[Field] = &[
    field("error_code", I16),
    field("error_message", NullStr),
    field("group_id", Str),
    field("group_state", Str),
    field("group_epoch", I32),
    field("assignment_epoch", I32),
    field("assignor_name", Str),
    field("members", Array(&Struct(CONSUMER_GROUP_DESCRIBE_RESPONSE_MEMBER))),
    field("authorized_operations", I32),
];

const CONSUMER_GROUP_DESCRIBE_RESPONSE_ASSIGNMENT: &[Field] =
    &[field("topic_partitions", Array(&Struct(CONSUMER_GROUP_DESCRIBE_RESPONSE_TOPIC_PARTITIONS)))];

pub(super) static CONSUMER_GROUP_DESCRIBE_RESPONSE: Layout = Layout {
    message: "ConsumerGroupDescribe",
    direction: Direction::Response,
    min: 0,
    max: 1,
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("groups", Array(&Struct(CONSUMER_GROUP_DESCRIBE_RESPONSE_DESCRIBED_GROUP))),
    ],
};
