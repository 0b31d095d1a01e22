//! Layouts of what an operator asks of topics: CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords.

use super::Kind::{Array, Bool, I8, I16, I32, I64, NullArray, NullStr, Str, Struct, Uuid};
use super::{Direction, Field, Layout, field};

const CREATE_TOPICS_REQUEST_CREATABLE_TOPIC_CONFIG: &[Field] = &[field("name", Str), field("value", NullStr)];

const CREATE_TOPICS_REQUEST_CREATABLE_TOPIC: &[Field] = &[
    field("name", Str),
    field("num_partitions", I32),
    field("replication_factor", I16),
    field("assignments", Array(&Struct(CREATE_TOPICS_REQUEST_CREATABLE_REPLICA_ASSIGNMENT))),
    field("configs", Array(&Struct(CREATE_TOPICS_REQUEST_CREATABLE_TOPIC_CONFIG))),
];

const CREATE_TOPICS_REQUEST_CREATABLE_REPLICA_ASSIGNMENT: &[Field] =
    &[field("partition_index", I32), field("broker_ids", Array(&I32))];

pub(super) static CREATE_TOPICS_REQUEST: Layout = Layout {
    message: "CreateTopics",
    direction: Direction::Request,
    min: 2,
    max: 7,
    flexible: 5,
    fields: &[
        field("topics", Array(&Struct(CREATE_TOPICS_REQUEST_CREATABLE_TOPIC))),
        field("timeout_ms", I32),
        field("validate_only", Bool),
    ],
};

const CREATE_TOPICS_RESPONSE_CREATABLE_TOPIC_RESULT: &[Field] = &[
    field("name", Str),
    field("topic_id", Uuid).since(7),
    field("error_code", I16),
    field("error_message", NullStr),
    field("num_partitions", I32).since(5),
    field("replication_factor", I16).since(5),
    field("configs", NullArray(&Struct(CREATE_TOPICS_RESPONSE_CREATABLE_TOPIC_CONFIGS))).since(5),
    field("topic_config_error_code", I16).since(5).tag(0),
];

const CREATE_TOPICS_RESPONSE_CREATABLE_TOPIC_CONFIGS: &[Field] = &[
    field("name", Str).since(5),
    field("value", NullStr).since(5),
    field("read_only", Bool).since(5),
    field("config_source", I8).since(5),
    field("is_sensitive", Bool).since(5),
];

pub(super) static CREATE_TOPICS_RESPONSE: Layout = Layout {
    message: "CreateTopics",
    direction: Direction::Response,
    min: 2,
    max: 7,
    flexible: 5,
    fields: &[
        field("throttle_time_ms", I32),
        field("topics", Array(&Struct(CREATE_TOPICS_RESPONSE_CREATABLE_TOPIC_RESULT))),
    ],
};

const DELETE_TOPICS_REQUEST_DELETE_TOPIC_STATE: &[Field] =
    &[field("name", NullStr).since(6), field("topic_id", Uuid).since(6)];

pub(super) static DELETE_TOPICS_REQUEST: Layout = Layout {
    message: "DeleteTopics",
    direction: Direction::Request,
    min: 1,
    max: 6,
    flexible: 4,
    fields: &[
        field("topics", Array(&Struct(DELETE_TOPICS_REQUEST_DELETE_TOPIC_STATE))).since(6),
        field("topic_names", Array(&Str)).until(5),
        field("timeout_ms", I32),
    ],
};

const DELETE_TOPICS_RESPONSE_DELETABLE_TOPIC_RESULT: &[Field] = &[
    field("name", NullStr),
    field("topic_id", Uuid).since(6),
    field("error_code", I16),
    field("error_message", NullStr).since(5),
];

pub(super) static DELETE_TOPICS_RESPONSE: Layout = Layout {
    message: "DeleteTopics",
    direction: Direction::Response,
    min: 1,
    max: 6,
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32),
        field("responses", Array(&Struct(DELETE_TOPICS_RESPONSE_DELETABLE_TOPIC_RESULT))),
    ],
};

const CREATE_PARTITIONS_REQUEST_TOPIC: &[Field] = &[
    field("name", Str),
    field("count", I32),
    field("assignments", NullArray(&Struct(CREATE_PARTITIONS_REQUEST_ASSIGNMENT))),
];

const CREATE_PARTITIONS_REQUEST_ASSIGNMENT: &[Field] = &[field("broker_ids", Array(&I32))];

pub(super) static CREATE_PARTITIONS_REQUEST: Layout = Layout {
    message: "CreatePartitions",
    direction: Direction::Request,
    min: 0,
    max: 3,
    flexible: 2,
    fields: &[
        field("topics", Array(&Struct(CREATE_PARTITIONS_REQUEST_TOPIC))),
        field("timeout_ms", I32),
        field("validate_only", Bool),
    ],
};

const CREATE_PARTITIONS_RESPONSE_TOPIC_RESULT: &[Field] =
    &[field("name", Str), field("error_code", I16), field("error_message", NullStr)];

pub(super) static CREATE_PARTITIONS_RESPONSE: Layout = Layout {
    message: "CreatePartitions",
    direction: Direction::Response,
    min: 0,
    max: 3,
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("results", Array(&Struct(CREATE_PARTITIONS_RESPONSE_TOPIC_RESULT))),
    ],
};

const DELETE_RECORDS_REQUEST_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(DELETE_RECORDS_REQUEST_PARTITION)))];

const DELETE_RECORDS_REQUEST_PARTITION: &[Field] = &[field("partition_index", I32), field("offset", I64)];

pub(super) static DELETE_RECORDS_REQUEST: Layout = Layout {
    message: "DeleteRecords",
    direction: Direction::Request,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[field("topics", Array(&Struct(DELETE_RECORDS_REQUEST_TOPIC))), field("timeout_ms", I32)],
};

const DELETE_RECORDS_RESPONSE_TOPIC_RESULT: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(DELETE_RECORDS_RESPONSE_PARTITION_RESULT)))];

const DELETE_RECORDS_RESPONSE_PARTITION_RESULT: &[Field] =
    &[field("partition_index", I32), field("low_watermark", I64), field("error_code", I16)];

pub(super) static DELETE_RECORDS_RESPONSE: Layout = Layout {
    message: "DeleteRecords",
    direction: Direction::Response,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[field("throttle_time_ms", I32), field("topics", Array(&Struct(DELETE_RECORDS_RESPONSE_TOPIC_RESULT)))],
};
