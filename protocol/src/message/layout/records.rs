//! Layouts of what touches a log: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch.

use super::Kind::{Array, I8, I16, I32, I64, NullArray, NullBytes, NullStr, Str, Struct, Uuid};
use super::{Direction, Field, Layout, field};

const PRODUCE_REQUEST_TOPIC_PRODUCE_DATA: &[Field] = &[
    field("name", Str).until(12),
    field("topic_id", Uuid).since(13),
    field("partition_data", Array(&Struct(PRODUCE_REQUEST_PARTITION_PRODUCE_DATA))),
];

const PRODUCE_REQUEST_PARTITION_PRODUCE_DATA: &[Field] = &[field("index", I32), field("records", NullBytes)];

pub(super) static PRODUCE_REQUEST: Layout = Layout {
    message: "Produce",
    direction: Direction::Request,
    min: 3,
    max: 13,
    flexible: 9,
    fields: &[
        field("transactional_id", NullStr),
        field("acks", I16),
        field("timeout_ms", I32),
        field("topic_data", Array(&Struct(PRODUCE_REQUEST_TOPIC_PRODUCE_DATA))),
    ],
};

const PRODUCE_RESPONSE_TOPIC_PRODUCE_RESPONSE: &[Field] = &[
    field("name", Str).until(12),
    field("topic_id", Uuid).since(13),
    field("partition_responses", Array(&Struct(PRODUCE_RESPONSE_PARTITION_PRODUCE_RESPONSE))),
];

const PRODUCE_RESPONSE_PARTITION_PRODUCE_RESPONSE: &[Field] = &[
    field("index", I32),
    field("error_code", I16),
    field("base_offset", I64),
    field("log_append_time_ms", I64),
    field("log_start_offset", I64).since(5),
    field("record_errors", Array(&Struct(PRODUCE_RESPONSE_BATCH_INDEX_AND_ERROR_MESSAGE))).since(8),
    field("error_message", NullStr).since(8),
    field("current_leader", Struct(PRODUCE_RESPONSE_LEADER_ID_AND_EPOCH)).since(10).tag(0),
];

const PRODUCE_RESPONSE_NODE_ENDPOINT: &[Field] = &[
    field("node_id", I32).since(10),
    field("host", Str).since(10),
    field("port", I32).since(10),
    field("rack", NullStr).since(10),
];

const PRODUCE_RESPONSE_LEADER_ID_AND_EPOCH: &[Field] =
    &[field("leader_id", I32).since(10), field("leader_epoch", I32).since(10)];

const PRODUCE_RESPONSE_BATCH_INDEX_AND_ERROR_MESSAGE: &[Field] =
    &[field("batch_index", I32).since(8), field("batch_index_error_message", NullStr).since(8)];

pub(super) static PRODUCE_RESPONSE: Layout = Layout {
    message: "Produce",
    direction: Direction::Response,
    min: 3,
    max: 13,
    flexible: 9,
    fields: &[
        field("responses", Array(&Struct(PRODUCE_RESPONSE_TOPIC_PRODUCE_RESPONSE))),
        field("throttle_time_ms", I32),
        field("node_endpoints", Array(&Struct(PRODUCE_RESPONSE_NODE_ENDPOINT))).since(10).tag(0),
    ],
};

const FETCH_REQUEST_REPLICA_STATE: &[Field] =
    &[field("replica_id", I32).since(15), field("replica_epoch", I64).since(15)];

const FETCH_REQUEST_FORGOTTEN_TOPIC: &[Field] = &[
    field("topic", Str).since(7).until(12),
    field("topic_id", Uuid).since(13),
    field("partitions", Array(&I32)).since(7),
];

const FETCH_REQUEST_TOPIC: &[Field] = &[
    field("topic", Str).until(12),
    field("topic_id", Uuid).since(13),
    field("partitions", Array(&Struct(FETCH_REQUEST_PARTITION))),
];

const FETCH_REQUEST_PARTITION: &[Field] = &[
    field("partition", I32),
    field("current_leader_epoch", I32).since(9),
    field("fetch_offset", I64),
    field("last_fetched_epoch", I32).since(12),
    field("log_start_offset", I64).since(5),
    field("partition_max_bytes", I32),
    field("replica_directory_id", Uuid).since(17).tag(0),
    field("high_watermark", I64).since(18).tag(1),
];

pub(super) static FETCH_REQUEST: Layout = Layout {
    message: "Fetch",
    direction: Direction::Request,
    min: 4,
    max: 18,
    flexible: 12,
    fields: &[
        field("replica_id", I32).until(14),
        field("max_wait_ms", I32),
        field("min_bytes", I32),
        field("max_bytes", I32),
        field("isolation_level", I8),
        field("session_id", I32).since(7),
        field("session_epoch", I32).since(7),
        field("topics", Array(&Struct(FETCH_REQUEST_TOPIC))),
        field("forgotten_topics_data", Array(&Struct(FETCH_REQUEST_FORGOTTEN_TOPIC))).since(7),
        field("rack_id", Str).since(11),
        field("cluster_id", NullStr).since(12).tag(0),
        field("replica_state", Struct(FETCH_REQUEST_REPLICA_STATE)).since(15).tag(1),
    ],
};

const FETCH_RESPONSE_SNAPSHOT_ID: &[Field] = &[field("end_offset", I64), field("epoch", I32)];

const FETCH_RESPONSE_PARTITION_DATA: &[Field] = &[
    field("partition_index", I32),
    field("error_code", I16),
    field("high_watermark", I64),
    field("last_stable_offset", I64),
    field("log_start_offset", I64).since(5),
    field("aborted_transactions", NullArray(&Struct(FETCH_RESPONSE_ABORTED_TRANSACTION))),
    field("preferred_read_replica", I32).since(11),
    field("records", NullBytes),
    field("diverging_epoch", Struct(FETCH_RESPONSE_EPOCH_END_OFFSET)).since(12).tag(0),
    field("current_leader", Struct(FETCH_RESPONSE_LEADER_ID_AND_EPOCH)).since(12).tag(1),
    field("snapshot_id", Struct(FETCH_RESPONSE_SNAPSHOT_ID)).since(12).tag(2),
];

const FETCH_RESPONSE_NODE_ENDPOINT: &[Field] = &[
    field("node_id", I32).since(16),
    field("host", Str).since(16),
    field("port", I32).since(16),
    field("rack", NullStr).since(16),
];

const FETCH_RESPONSE_LEADER_ID_AND_EPOCH: &[Field] =
    &[field("leader_id", I32).since(12), field("leader_epoch", I32).since(12)];

const FETCH_RESPONSE_FETCHABLE_TOPIC_RESPONSE: &[Field] = &[
    field("topic", Str).until(12),
    field("topic_id", Uuid).since(13),
    field("partitions", Array(&Struct(FETCH_RESPONSE_PARTITION_DATA))),
];

const FETCH_RESPONSE_EPOCH_END_OFFSET: &[Field] = &[field("epoch", I32).since(12), field("end_offset", I64).since(12)];

const FETCH_RESPONSE_ABORTED_TRANSACTION: &[Field] = &[field("producer_id", I64), field("first_offset", I64)];

pub(super) static FETCH_RESPONSE: Layout = Layout {
    message: "Fetch",
    direction: Direction::Response,
    min: 4,
    max: 18,
    flexible: 12,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).since(7),
        field("session_id", I32).since(7),
        field("responses", Array(&Struct(FETCH_RESPONSE_FETCHABLE_TOPIC_RESPONSE))),
        field("node_endpoints", Array(&Struct(FETCH_RESPONSE_NODE_ENDPOINT))).since(16).tag(0),
    ],
};

const LIST_OFFSETS_REQUEST_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(LIST_OFFSETS_REQUEST_PARTITION)))];

const LIST_OFFSETS_REQUEST_PARTITION: &[Field] =
    &[field("partition_index", I32), field("current_leader_epoch", I32).since(4), field("timestamp", I64)];

pub(super) static LIST_OFFSETS_REQUEST: Layout = Layout {
    message: "ListOffsets",
    direction: Direction::Request,
    min: 1,
    max: 10,
    flexible: 6,
    fields: &[
        field("replica_id", I32),
        field("isolation_level", I8).since(2),
        field("topics", Array(&Struct(LIST_OFFSETS_REQUEST_TOPIC))),
        field("timeout_ms", I32).since(10),
    ],
};

const LIST_OFFSETS_RESPONSE_TOPIC_RESPONSE: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(LIST_OFFSETS_RESPONSE_PARTITION_RESPONSE)))];

const LIST_OFFSETS_RESPONSE_PARTITION_RESPONSE: &[Field] = &[
    field("partition_index", I32),
    field("error_code", I16),
    field("timestamp", I64),
    field("offset", I64),
    field("leader_epoch", I32).since(4),
];

pub(super) static LIST_OFFSETS_RESPONSE: Layout = Layout {
    message: "ListOffsets",
    direction: Direction::Response,
    min: 1,
    max: 10,
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).since(2),
        field("topics", Array(&Struct(LIST_OFFSETS_RESPONSE_TOPIC_RESPONSE))),
    ],
};

const OFFSET_FOR_LEADER_EPOCH_REQUEST_OFFSET_FOR_LEADER_TOPIC: &[Field] = &[
    field("topic", Str),
    field("partitions", Array(&Struct(OFFSET_FOR_LEADER_EPOCH_REQUEST_OFFSET_FOR_LEADER_PARTITION))),
];

const OFFSET_FOR_LEADER_EPOCH_REQUEST_OFFSET_FOR_LEADER_PARTITION: &[Field] =
    &[field("partition", I32), field("current_leader_epoch", I32), field("leader_epoch", I32)];

pub(super) static OFFSET_FOR_LEADER_EPOCH_REQUEST: Layout = Layout {
    message: "OffsetForLeaderEpoch",
    direction: Direction::Request,
    min: 2,
    max: 4,
    flexible: 4,
    fields: &[
        field("replica_id", I32).since(3),
        field("topics", Array(&Struct(OFFSET_FOR_LEADER_EPOCH_REQUEST_OFFSET_FOR_LEADER_TOPIC))),
    ],
};

const OFFSET_FOR_LEADER_EPOCH_RESPONSE_OFFSET_FOR_LEADER_TOPIC_RESULT: &[Field] =
    &[field("topic", Str), field("partitions", Array(&Struct(OFFSET_FOR_LEADER_EPOCH_RESPONSE_EPOCH_END_OFFSET)))];

const OFFSET_FOR_LEADER_EPOCH_RESPONSE_EPOCH_END_OFFSET: &[Field] =
    &[field("error_code", I16), field("partition", I32), field("leader_epoch", I32), field("end_offset", I64)];

pub(super) static OFFSET_FOR_LEADER_EPOCH_RESPONSE: Layout = Layout {
    message: "OffsetForLeaderEpoch",
    direction: Direction::Response,
    min: 2,
    max: 4,
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32),
        field("topics", Array(&Struct(OFFSET_FOR_LEADER_EPOCH_RESPONSE_OFFSET_FOR_LEADER_TOPIC_RESULT))),
    ],
};
