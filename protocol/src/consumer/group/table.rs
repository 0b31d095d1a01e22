//! The error tables of a classic group. Pure; each row is a line in the machine's tests.

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
        ErrorCode::UNKNOWN_SERVER_ERROR => Fix::Retry,
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
        // A coordinator that could not write the assignment down says so.
        ErrorCode::UNKNOWN_SERVER_ERROR => Fix::Retry,
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
        // A fault inside the broker says nothing of our membership.
        code if code.retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR => Fix::Retry,
        _ => Fix::Fatal,
    }
}

/// Whether LeaveGroup is to be sent again. Whatever else its answer says, we are no member any more, or none from when the
/// session ends.
pub(super) fn leave_again(code: ErrorCode) -> bool {
    code.retriable()
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
        code if code.retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR => Fix::Retry,
        _ => Fix::Fatal,
    }
}

pub(super) fn on_offset_fetch(code: ErrorCode) -> Fix {
    match code {
        ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => Fix::Refind,
        // UNSTABLE_OFFSET_COMMIT among them: never to be read as "no offset".
        code if code.retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR => Fix::Retry,
        _ => Fix::Fatal,
    }
}
