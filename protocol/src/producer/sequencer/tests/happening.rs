//! What may happen to a sequencer and its cluster, and how often.

use proptest::prelude::*;

use super::*;

pub(super) const PARTITIONS: usize = 2;
pub(super) const NODES: std::ops::RangeInclusive<NodeId> = 1..=3;

/// What may happen next.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Seal {
        partition: usize,
        records: usize,
    },
    /// A broker takes its oldest request, and does this with the batches in it.
    Process {
        node: NodeId,
        how: How,
    },
    /// Its oldest answers come.
    Deliver {
        node: NodeId,
        count: usize,
    },
    /// The connection is lost: so many requests arrived nevertheless; the others did not even leave, or may have.
    Lose {
        node: NodeId,
        arrived: usize,
        left: bool,
    },
    Move {
        partition: usize,
        leader: Option<NodeId>,
    },
    /// The picture of the cluster becomes the present one.
    Learn,
    Identify(bool),
    Pass(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Honestly,
    Refuse(ErrorCode),
    /// Written, and answered by an error that leaves it open.
    WriteAndDoubt(ErrorCode),
    LeaveOut,
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    let refusal = proptest::sample::select(&[
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ]);
    let doubt = proptest::sample::select(&[ErrorCode::REQUEST_TIMED_OUT, ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND]);
    let how = prop_oneof![
        8 => Just(How::Honestly),
        2 => refusal.prop_map(How::Refuse),
        1 => doubt.prop_map(How::WriteAndDoubt),
        1 => Just(How::LeaveOut),
    ];
    prop_oneof![
        20 => (0..PARTITIONS, 1..7usize).prop_map(|(partition, records)| Happening::Seal { partition, records }),
        20 => (NODES, how).prop_map(|(node, how)| Happening::Process { node, how }),
        15 => (NODES, 1..4usize).prop_map(|(node, count)| Happening::Deliver { node, count }),
        4 => (NODES, 0..4usize, any::<bool>()).prop_map(|(node, arrived, left)| Happening::Lose { node, arrived, left }),
        2 => (0..PARTITIONS, proptest::option::weighted(0.8, NODES))
            .prop_map(|(partition, leader)| Happening::Move { partition, leader }),
        3 => Just(Happening::Learn),
        4 => any::<bool>().prop_map(Happening::Identify),
        10 => prop_oneof![8 => 0..300u64, 3 => 300..5000u64, 1 => 5000..130_000u64].prop_map(Happening::Pass),
    ]
}
