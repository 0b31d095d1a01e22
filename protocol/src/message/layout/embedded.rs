//! Layouts of the two blobs inside JoinGroup and SyncGroup: ConsumerProtocolSubscription and ConsumerProtocolAssignment
//! (never flexible).

use super::Kind::{Array, I32, NullBytes, NullStr, Str, Struct};
use super::{Direction, Field, Layout, NEVER, field};

const SUBSCRIPTION_TOPIC_PARTITION: &[Field] =
    &[field("topic", Str).since(1), field("partitions", Array(&I32)).since(1)];

pub(in crate::message) static SUBSCRIPTION: Layout = Layout {
    message: "ConsumerProtocolSubscription",
    direction: Direction::Embedded,
    min: 0,
    max: 3,
    flexible: NEVER,
    fields: &[
        field("topics", Array(&Str)),
        field("user_data", NullBytes),
        field("owned_partitions", Array(&Struct(SUBSCRIPTION_TOPIC_PARTITION))).since(1),
        field("generation_id", I32).since(2),
        field("rack_id", NullStr).since(3),
    ],
};

const ASSIGNMENT_TOPIC_PARTITION: &[Field] = &[field("topic", Str), field("partitions", Array(&I32))];

pub(in crate::message) static ASSIGNMENT: Layout = Layout {
    message: "ConsumerProtocolAssignment",
    direction: Direction::Embedded,
    min: 0,
    max: 3,
    flexible: NEVER,
    fields: &[field("assigned_partitions", Array(&Struct(ASSIGNMENT_TOPIC_PARTITION))), field("user_data", NullBytes)],
};
