//! The error tables of a classic group. Pure: each row is a line in a test.

use crate::error_code::ErrorCode;

/// What to do about an error of a group request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fix {
    /// Back off and send it again.
    Retry,
    /// The coordinator is elsewhere: find it, then send it again.
    Refind,
    /// Join with the member id that the answer gave (KIP-394).
    JoinWithId,
    /// The group rebalances: join, and keep what we have.
    Rejoin,
    /// Our generation is over: everything is lost; join with the member id that we have.
    LostKeepId,
    /// The coordinator does not know us: everything is lost; join as a new member.
    LostNewId,
    /// Report it and try again after a long time: somebody has to change something.
    Fatal,
}

pub(super) fn on_find(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::GROUP_AUTHORIZATION_FAILED | ErrorCode::INVALID_GROUP_ID => Fix::Fatal,
        // Whatever else it is, without a coordinator there is nothing to do but to ask again.
        _ => Fix::Retry,
    }
}

pub(super) fn on_join(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::MEMBER_ID_REQUIRED => Fix::JoinWithId,
        ErrorCode::UNKNOWN_MEMBER_ID => Fix::LostNewId,
        ErrorCode::ILLEGAL_GENERATION => Fix::LostKeepId,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS | ErrorCode::REBALANCE_IN_PROGRESS => Fix::Retry,
        ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => Fix::Refind,
        code if code.retriable() => Fix::Retry,
        _ => Fix::Fatal,
    }
}

pub(super) fn on_sync(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::REBALANCE_IN_PROGRESS => Fix::Rejoin,
        ErrorCode::UNKNOWN_MEMBER_ID => Fix::LostNewId,
        ErrorCode::ILLEGAL_GENERATION => Fix::LostKeepId,
        ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => Fix::Refind,
        code if code.retriable() => Fix::Rejoin,
        _ => Fix::Fatal,
    }
}

pub(super) fn on_heartbeat(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::REBALANCE_IN_PROGRESS => Fix::Rejoin,
        ErrorCode::ILLEGAL_GENERATION => Fix::LostKeepId,
        ErrorCode::UNKNOWN_MEMBER_ID => Fix::LostNewId,
        ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => Fix::Refind,
        code if code.retriable() => Fix::Retry,
        _ => Fix::Fatal,
    }
}

/// `rebalancing`: a join was sent that no assignment has followed yet, or the generation moved since the commit was sent, so
/// that an old generation is no news.
pub(super) fn on_commit(code: ErrorCode, rebalancing: bool) -> Fix {
    match code {
        ErrorCode::REBALANCE_IN_PROGRESS => Fix::Rejoin,
        ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID if rebalancing => Fix::Retry,
        ErrorCode::ILLEGAL_GENERATION => Fix::LostKeepId,
        ErrorCode::UNKNOWN_MEMBER_ID => Fix::LostNewId,
        ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR | ErrorCode::REQUEST_TIMED_OUT => Fix::Refind,
        code if code.retriable() => Fix::Retry,
        _ => Fix::Fatal,
    }
}

pub(super) fn on_offset_fetch(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => Fix::Refind,
        ErrorCode::UNSTABLE_OFFSET_COMMIT | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Fix::Retry,
        code if code.retriable() => Fix::Retry,
        _ => Fix::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_find_table() {
        for (code, fix) in [
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, Fix::Retry),
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, Fix::Retry),
            (ErrorCode::UNKNOWN_SERVER_ERROR, Fix::Retry),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, Fix::Fatal),
            (ErrorCode::INVALID_GROUP_ID, Fix::Fatal),
        ] {
            assert_eq!(on_find(code), fix, "{code}");
        }
    }

    #[test]
    fn each_row_of_the_join_table() {
        for (code, fix) in [
            (ErrorCode::MEMBER_ID_REQUIRED, Fix::JoinWithId),
            (ErrorCode::UNKNOWN_MEMBER_ID, Fix::LostNewId),
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, Fix::Retry),
            (ErrorCode::REBALANCE_IN_PROGRESS, Fix::Retry),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, Fix::Refind),
            (ErrorCode::NOT_COORDINATOR, Fix::Refind),
            (ErrorCode::FENCED_INSTANCE_ID, Fix::Fatal),
            (ErrorCode::INCONSISTENT_GROUP_PROTOCOL, Fix::Fatal),
            (ErrorCode::INVALID_SESSION_TIMEOUT, Fix::Fatal),
            (ErrorCode::INVALID_GROUP_ID, Fix::Fatal),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, Fix::Fatal),
            (ErrorCode::GROUP_MAX_SIZE_REACHED, Fix::Fatal),
        ] {
            assert_eq!(on_join(code), fix, "{code}");
        }
    }

    #[test]
    fn each_row_of_the_sync_and_heartbeat_tables() {
        for (code, sync, heartbeat) in [
            (ErrorCode::REBALANCE_IN_PROGRESS, Fix::Rejoin, Fix::Rejoin),
            (ErrorCode::UNKNOWN_MEMBER_ID, Fix::LostNewId, Fix::LostNewId),
            (ErrorCode::ILLEGAL_GENERATION, Fix::LostKeepId, Fix::LostKeepId),
            (ErrorCode::FENCED_INSTANCE_ID, Fix::Fatal, Fix::Fatal),
            (ErrorCode::NOT_COORDINATOR, Fix::Refind, Fix::Refind),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, Fix::Refind, Fix::Refind),
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, Fix::Rejoin, Fix::Retry),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, Fix::Fatal, Fix::Fatal),
        ] {
            assert_eq!((on_sync(code), on_heartbeat(code)), (sync, heartbeat), "{code}");
        }
    }

    #[test]
    fn each_row_of_the_commit_and_offset_fetch_tables() {
        for (code, rebalancing, fix) in [
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false, Fix::Retry),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false, Fix::Retry),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, false, Fix::Refind),
            (ErrorCode::NOT_COORDINATOR, false, Fix::Refind),
            (ErrorCode::REQUEST_TIMED_OUT, false, Fix::Refind),
            (ErrorCode::REBALANCE_IN_PROGRESS, false, Fix::Rejoin),
            (ErrorCode::ILLEGAL_GENERATION, false, Fix::LostKeepId),
            (ErrorCode::ILLEGAL_GENERATION, true, Fix::Retry),
            (ErrorCode::UNKNOWN_MEMBER_ID, false, Fix::LostNewId),
            (ErrorCode::OFFSET_METADATA_TOO_LARGE, false, Fix::Fatal),
            (ErrorCode::INVALID_COMMIT_OFFSET_SIZE, false, Fix::Fatal),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, false, Fix::Fatal),
            (ErrorCode::FENCED_INSTANCE_ID, false, Fix::Fatal),
        ] {
            assert_eq!(on_commit(code, rebalancing), fix, "{code}");
        }
        for (code, fix) in [
            (ErrorCode::UNSTABLE_OFFSET_COMMIT, Fix::Retry),
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, Fix::Retry),
            (ErrorCode::NOT_COORDINATOR, Fix::Refind),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, Fix::Fatal),
        ] {
            assert_eq!(on_offset_fetch(code), fix, "{code}");
        }
    }
}
