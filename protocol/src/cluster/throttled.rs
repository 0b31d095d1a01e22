//! Which answers carry a throttle time (KIP-219).

use kafka_protocol::messages::*;

/// An answer that may ask us to stop writing for a while.
pub trait Throttled {
    /// Milliseconds; 0 = not throttled.
    fn throttle_time_ms(&self) -> i32;
}

macro_rules! throttled {
    ($($answer:ty),* $(,)?) => {
        $(impl Throttled for $answer {
            fn throttle_time_ms(&self) -> i32 {
                self.throttle_time_ms
            }
        })*
    };
}

throttled!(
    CreateTopicsResponse,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
    DescribeGroupsResponse,
    FindCoordinatorResponse,
    HeartbeatResponse,
    InitProducerIdResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    ListGroupsResponse,
    ListOffsetsResponse,
    MetadataResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    OffsetForLeaderEpochResponse,
    SyncGroupResponse,
);
