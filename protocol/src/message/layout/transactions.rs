//! Layouts of what a transactional producer says: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn,
//! TxnOffsetCommit.

use super::Kind::{Array, Bool, I16, I32, I64, NullStr, Str, Struct};
use super::{Direction, Field, Layout, field};

pub(super) static INIT_PRODUCER_ID_REQUEST: Layout = Layout {
    message: "InitProducerId",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 2,
    fields: &[
        field("transactional_id", NullStr),
        field("transaction_timeout_ms", I32),
        field("producer_id", I64).since(3),
        field("producer_epoch", I16).since(3),
    ],
};

pub(super) static INIT_PRODUCER_ID_RESPONSE: Layout = Layout {
    message: "InitProducerId",
    direction: Direction::Response,
    min: 0,
    max: 6,
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("ongoing_txn_producer_id", I64).since(6),
        field("ongoing_txn_producer_epoch", I16).since(6),
    ],
};

const ADD_PARTITIONS_TO_TXN_REQUEST_TRANSACTION: &[Field] = &[
    field("transactional_id", Str).since(4),
    field("producer_id", I64).since(4),
    field("producer_epoch", I16).since(4),
    field("verify_only", Bool).since(4),
    field("topics", Array(&Struct(ADD_PARTITIONS_TO_TXN_REQUEST_TOPIC))).since(4),
];

const ADD_PARTITIONS_TO_TXN_REQUEST_TOPIC: &[Field] = &[field("name", Str), field("partitions", Array(&I32))];

pub(super) static ADD_PARTITIONS_TO_TXN_REQUEST: Layout = Layout {
    message: "AddPartitionsToTxn",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("transactions", Array(&Struct(ADD_PARTITIONS_TO_TXN_REQUEST_TRANSACTION))).since(4),
        field("v3_and_below_transactional_id", Str).until(3),
        field("v3_and_below_producer_id", I64).until(3),
        field("v3_and_below_producer_epoch", I16).until(3),
        field("v3_and_below_topics", Array(&Struct(ADD_PARTITIONS_TO_TXN_REQUEST_TOPIC))).until(3),
    ],
};

const ADD_PARTITIONS_TO_TXN_RESPONSE_TOPIC_RESULT: &[Field] = &[
    field("name", Str),
    field("results_by_partition", Array(&Struct(ADD_PARTITIONS_TO_TXN_RESPONSE_PARTITION_RESULT))),
];

const ADD_PARTITIONS_TO_TXN_RESPONSE_RESULT: &[Field] = &[
    field("transactional_id", Str).since(4),
    field("topic_results", Array(&Struct(ADD_PARTITIONS_TO_TXN_RESPONSE_TOPIC_RESULT))).since(4),
];

const ADD_PARTITIONS_TO_TXN_RESPONSE_PARTITION_RESULT: &[Field] =
    &[field("partition_index", I32), field("partition_error_code", I16)];

pub(super) static ADD_PARTITIONS_TO_TXN_RESPONSE: Layout = Layout {
    message: "AddPartitionsToTxn",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).since(4),
        field("results_by_transaction", Array(&Struct(ADD_PARTITIONS_TO_TXN_RESPONSE_RESULT))).since(4),
        field("results_by_topic_v3_and_below", Array(&Struct(ADD_PARTITIONS_TO_TXN_RESPONSE_TOPIC_RESULT))).until(3),
    ],
};

pub(super) static ADD_OFFSETS_TO_TXN_REQUEST: Layout = Layout {
    message: "AddOffsetsToTxn",
    direction: Direction::Request,
    min: 0,
    max: 4,
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("group_id", Str),
    ],
};

pub(super) static ADD_OFFSETS_TO_TXN_RESPONSE: Layout = Layout {
    message: "AddOffsetsToTxn",
    direction: Direction::Response,
    min: 0,
    max: 4,
    flexible: 3,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16)],
};

pub(super) static END_TXN_REQUEST: Layout = Layout {
    message: "EndTxn",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("committed", Bool),
    ],
};

pub(super) static END_TXN_RESPONSE: Layout = Layout {
    message: "EndTxn",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("producer_id", I64).since(5),
        field("producer_epoch", I16).since(5),
    ],
};

const TXN_OFFSET_COMMIT_REQUEST_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(TXN_OFFSET_COMMIT_REQUEST_PARTITION)))];

const TXN_OFFSET_COMMIT_REQUEST_PARTITION: &[Field] = &[
    field("partition_index", I32),
    field("committed_offset", I64),
    field("committed_leader_epoch", I32).since(2),
    field("committed_metadata", NullStr),
];

pub(super) static TXN_OFFSET_COMMIT_REQUEST: Layout = Layout {
    message: "TxnOffsetCommit",
    direction: Direction::Request,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("group_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("generation_id", I32).since(3),
        field("member_id", Str).since(3),
        field("group_instance_id", NullStr).since(3),
        field("topics", Array(&Struct(TXN_OFFSET_COMMIT_REQUEST_TOPIC))),
    ],
};

const TXN_OFFSET_COMMIT_RESPONSE_TOPIC: &[Field] =
    &[field("name", Str), field("partitions", Array(&Struct(TXN_OFFSET_COMMIT_RESPONSE_PARTITION)))];

const TXN_OFFSET_COMMIT_RESPONSE_PARTITION: &[Field] = &[field("partition_index", I32), field("error_code", I16)];

pub(super) static TXN_OFFSET_COMMIT_RESPONSE: Layout = Layout {
    message: "TxnOffsetCommit",
    direction: Direction::Response,
    min: 0,
    max: 5,
    flexible: 3,
    fields: &[field("throttle_time_ms", I32), field("topics", Array(&Struct(TXN_OFFSET_COMMIT_RESPONSE_TOPIC)))],
};
