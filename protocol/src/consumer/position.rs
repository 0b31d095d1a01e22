//! Where a partition is read from, and what an answer means for that. Pure.
//!
//! ```text
//! Resetting -> Fetching <-> Validating
//!                 \-> Standing (until a seek, or the lease ends)
//! ```

use super::OffsetReset;
use crate::error_code::ErrorCode;

/// A place in a log: an offset, and the leader epoch of the record before it (KIP-320).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    /// -1 = unknown.
    pub(super) epoch: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No position: ask for the end that the policy names.
    Resetting(OffsetReset),
    /// A position from before a change of leader, or from a commit: ask whether its log is still this one.
    Validating(Position),
    Fetching(Position),
    /// Nothing to be done without an operator: a corrupt batch, no position, a batch beyond the budget.
    Standing(Position),
}

impl Phase {
    /// The start of a partition that was just assigned.
    pub(super) fn start(committed: Option<(i64, i32)>, reset: OffsetReset) -> Self {
        match committed {
            Some((offset, epoch)) if epoch >= 0 => Self::Validating(Position { offset, epoch }),
            Some((offset, epoch)) => Self::Fetching(Position { offset, epoch }),
            None => Self::Resetting(reset),
        }
    }

    /// Where it is; -1 while that is asked for.
    pub(super) fn position(self) -> Position {
        match self {
            Self::Fetching(position) | Self::Validating(position) | Self::Standing(position) => position,
            Self::Resetting(_) => Position { offset: -1, epoch: -1 },
        }
    }

    /// The partition has another leader epoch than when it was last fetched.
    pub(super) fn leader_changed(self) -> Self {
        match self {
            Self::Fetching(position) if position.epoch >= 0 => Self::Validating(position),
            other => other,
        }
    }
}

/// What to do about an error of one partition in a fetch answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchError {
    /// The leader is not where we thought: new metadata, and back off this partition alone.
    Refresh,
    /// It passes by itself: back off.
    BackOff,
    /// The offset is not in the log.
    OutOfRange,
    /// Our position is of another history: validate it.
    Validate,
    /// The bytes on the broker's disk are broken: refetching gives the same.
    Corrupt,
    /// We may not: report, and back off for long.
    Refused,
}

/// The fetch error table.
pub(super) fn on_fetch_error(code: ErrorCode) -> FetchError {
    match code {
        ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::REPLICA_NOT_AVAILABLE
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::OFFSET_NOT_AVAILABLE
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::INCONSISTENT_TOPIC_ID
        | ErrorCode::LEADER_NOT_AVAILABLE => FetchError::Refresh,
        ErrorCode::FENCED_LEADER_EPOCH => FetchError::Validate,
        ErrorCode::UNKNOWN_LEADER_EPOCH => FetchError::BackOff,
        ErrorCode::OFFSET_OUT_OF_RANGE => FetchError::OutOfRange,
        ErrorCode::CORRUPT_MESSAGE => FetchError::Corrupt,
        code if code.retriable() => FetchError::BackOff,
        _ => FetchError::Refused,
    }
}

/// What the leader's answer to OffsetForLeaderEpoch says of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validation {
    Valid,
    /// The log was cut below the position: it ends here now (for that epoch).
    Truncated {
        end: i64,
    },
    Again {
        refresh: bool,
    },
    Refused,
}

/// The OffsetForLeaderEpoch error table; `end` is the end offset of the position's epoch, -1 = the leader cannot tell
/// (which is no loss of data).
pub(super) fn on_validation(code: ErrorCode, position: Position, end: i64) -> Validation {
    match code {
        ErrorCode::NONE if end < 0 || end >= position.offset => Validation::Valid,
        ErrorCode::NONE => Validation::Truncated { end },
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => Validation::Refused,
        ErrorCode::UNKNOWN_LEADER_EPOCH => Validation::Again { refresh: false },
        _ => Validation::Again { refresh: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_fetch_error_table() {
        for (code, expected) in [
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, FetchError::Refresh),
            (ErrorCode::REPLICA_NOT_AVAILABLE, FetchError::Refresh),
            (ErrorCode::KAFKA_STORAGE_ERROR, FetchError::Refresh),
            (ErrorCode::FENCED_LEADER_EPOCH, FetchError::Validate),
            (ErrorCode::OFFSET_NOT_AVAILABLE, FetchError::Refresh),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, FetchError::Refresh),
            (ErrorCode::UNKNOWN_TOPIC_ID, FetchError::Refresh),
            (ErrorCode::INCONSISTENT_TOPIC_ID, FetchError::Refresh),
            (ErrorCode::OFFSET_OUT_OF_RANGE, FetchError::OutOfRange),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, FetchError::Refused),
            (ErrorCode::CORRUPT_MESSAGE, FetchError::Corrupt),
            (ErrorCode::UNKNOWN_LEADER_EPOCH, FetchError::BackOff),
            (ErrorCode::REQUEST_TIMED_OUT, FetchError::BackOff),
            (ErrorCode(-1), FetchError::Refused),
        ] {
            assert_eq!(on_fetch_error(code), expected, "{code}");
        }
    }

    #[test]
    fn a_committed_offset_with_an_epoch_is_validated_before_it_is_fetched() {
        let position = Position { offset: 5, epoch: 3 };
        assert_eq!(Phase::start(Some((5, 3)), OffsetReset::Earliest), Phase::Validating(position));
        let unknown = Position { offset: 5, epoch: -1 };
        assert_eq!(Phase::start(Some((5, -1)), OffsetReset::Earliest), Phase::Fetching(unknown));
        assert_eq!(Phase::start(None, OffsetReset::Latest), Phase::Resetting(OffsetReset::Latest));
        assert_eq!(Phase::Fetching(position).leader_changed(), Phase::Validating(position));
        assert_eq!(Phase::Fetching(unknown).leader_changed(), Phase::Fetching(unknown));
        assert_eq!(Phase::Standing(position).leader_changed(), Phase::Standing(position));
    }

    #[test]
    fn each_row_of_the_validation_table() {
        let position = Position { offset: 10, epoch: 2 };
        for (code, end, expected) in [
            (ErrorCode::NONE, 10, Validation::Valid),
            (ErrorCode::NONE, 12, Validation::Valid),
            (ErrorCode::NONE, -1, Validation::Valid),
            (ErrorCode::NONE, 9, Validation::Truncated { end: 9 }),
            (ErrorCode::FENCED_LEADER_EPOCH, -1, Validation::Again { refresh: true }),
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1, Validation::Again { refresh: true }),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1, Validation::Again { refresh: true }),
            (ErrorCode::UNKNOWN_LEADER_EPOCH, -1, Validation::Again { refresh: false }),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, -1, Validation::Refused),
        ] {
            assert_eq!(on_validation(code, position, end), expected, "{code}");
        }
    }
}
