//! Between the program's strings and the wire's.

use kafka_protocol::messages::{BrokerId, GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;

pub(crate) fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn group_id(id: &str) -> GroupId {
    GroupId(text(id))
}

/// A node id as the wire says it; -1 where there is none.
pub(crate) fn broker_id(node: Option<i32>) -> BrokerId {
    BrokerId(node.unwrap_or(-1))
}
