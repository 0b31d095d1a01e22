//! Layouts of what touches committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use super::Kind::{Array, Bool, I16, I32, I64, NullArray, NullStr, Str, Struct, Uuid};
use super::{Direction, Field, Layout, NEVER, field};

const OFFSET_COMMIT_REQUEST_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(OFFSET_COMMIT_REQUEST_PARTITION)))];

const OFFSET_COMMIT_REQUEST_PARTITION: &[Field] = &[
    field("partition_index", I32),
    field("committed_offset", I64),
    field("committed_leader_epoch", I32).since(6),
    field("committed_metadata", NullStr),
];

pub(super) static OFFSET_COMMIT_REQUEST: Layout = Layout {
    message: "OffsetCommit",
    direction: Direction::Request,
    min: 2,
    max: 9,
    flexible: 8,
    fields: &[
        field("group_id", Str),
        field("generation_id_or_member_epoch", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).since(7),
        field("retention_time_ms", I64).until(4),
        field("topics", Array(&Struct(OFFSET_COMMIT_REQUEST_TOPIC))),
    ],
};

const OFFSET_COMMIT_RESPONSE_TOPIC: &[Field] = &[
    field("name", Str).until(9),
    field("topic_id", Uuid).since(10),
    field("partitions", Array(&Struct(OFFSET_COMMIT_RESPONSE_PARTITION))),
];

const OFFSET_COMMIT_RESPONSE_PARTITION: &[Field] = &[field("partition_index", I32), field("error_code", I16)];

pub(super) static OFFSET_COMMIT_RESPONSE: Layout = Layout {
    message: "OffsetCommit",
    direction: Direction::Response,
    min: 2,
    max: 10,
    flexible: 8,
    fields: &[field("throttle_time_ms", I32).since(3), field("topics", Array(&Struct(OFFSET_COMMIT_RESPONSE_TOPIC)))],
};

const OFFSET_FETCH_REQUEST_TOPICS: &[Field] =
    &[field("name", Str).since(8), field("partition_indexes", Array(&I32)).since(8)];

const OFFSET_FETCH_REQUEST_TOPIC: &[Field] =
    &[field("name", Str).until(7), field("partition_indexes", Array(&I32)).until(7)];

const OFFSET_FETCH_REQUEST_GROUP: &[Field] = &[
    field("group_id", Str).since(8),
    field("member_id", NullStr).since(9),
    field("member_epoch", I32).since(9),
    field("topics", NullArray(&Struct(OFFSET_FETCH_REQUEST_TOPICS))).since(8),
];

pub(super) static OFFSET_FETCH_REQUEST: Layout = Layout {
    message: "OffsetFetch",
    direction: Direction::Request,
    min: 1,
    max: 9,
    flexible: 6,
    fields: &[
        field("group_id", Str).until(7),
        field("topics", NullArray(&Struct(OFFSET_FETCH_REQUEST_TOPIC))).until(7),
        field("groups", Array(&Struct(OFFSET_FETCH_REQUEST_GROUP))).since(8),
        field("require_stable", Bool).since(7),
    ],
};

const OFFSET_FETCH_RESPONSE_TOPICS: &[Field] = &[
    field("name", Str).since(8).until(9),
    field("topic_id", Uuid).since(10),
    field("partitions", Array(&Struct(OFFSET_FETCH_RESPONSE_PARTITIONS))).since(8),
];

const OFFSET_FETCH_RESPONSE_TOPIC: &[Field] =
    &[field("name", Str).until(7), field("partitions", Array(&Struct(OFFSET_FETCH_RESPONSE_PARTITION))).until(7)];

const OFFSET_FETCH_RESPONSE_PARTITIONS: &[Field] = &[
    field("partition_index", I32).since(8),
    field("committed_offset", I64).since(8),
    field("committed_leader_epoch", I32).since(8),
    field("metadata", NullStr).since(8),
    field("error_code", I16).since(8),
];

const OFFSET_FETCH_RESPONSE_PARTITION: &[Field] = &[
    field("partition_index", I32).until(7),
    field("committed_offset", I64).until(7),
    field("committed_leader_epoch", I32).since(5).until(7),
    field("metadata", NullStr).until(7),
    field("error_code", I16).until(7),
];

const OFFSET_FETCH_RESPONSE_GROUP: &[Field] = &[
    field("group_id", Str).since(8),
    field("topics", Array(&Struct(OFFSET_FETCH_RESPONSE_TOPICS))).since(8),
    field("error_code", I16).since(8),
];

pub(super) static OFFSET_FETCH_RESPONSE: Layout = Layout {
    message: "OffsetFetch",
    direction: Direction::Response,
    min: 1,
    max: 10,
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).since(3),
        field("topics", Array(&Struct(OFFSET_FETCH_RESPONSE_TOPIC))).until(7),
        field("error_code", I16).since(2).until(7),
        field("groups", Array(&Struct(OFFSET_FETCH_RESPONSE_GROUP))).since(8),
    ],
};

const OFFSET_DELETE_REQUEST_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(OFFSET_DELETE_REQUEST_PARTITION)))];

const OFFSET_DELETE_REQUEST_PARTITION: &[Field] = &[field("partition_index", I32)];

pub(super) static OFFSET_DELETE_REQUEST: Layout = Layout {
    message: "OffsetDelete",
    direction: Direction::Request,
    min: 0,
    max: 0,
    flexible: NEVER,
    fields: &[field("group_id", Str), field("topics", Array(&Struct(OFFSET_DELETE_REQUEST_TOPIC)))],
};

const OFFSET_DELETE_RESPONSE_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(OFFSET_DELETE_RESPONSE_PARTITION)))];

const OFFSET_DELETE_RESPONSE_PARTITION: &[Field] = &[field("partition_index", I32), field("error_code", I16)];

pub(super) static OFFSET_DELETE_RESPONSE: Layout = Layout {
    message: "OffsetDelete",
    direction: Direction::Response,
    min: 0,
    max: 0,
    flexible: NEVER,
    fields: &[
        field("error_code", I16),
        field("throttle_time_ms", I32),
        field("topics", Array(&Struct(OFFSET_DELETE_RESPONSE_TOPIC))),
    ],
};
