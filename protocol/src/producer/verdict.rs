//! What a broker's answer means for a batch. Pure: each row of the produce error table is a line in a test.

use crate::error_code::ErrorCode;

/// What to do with a batch after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Written at the offset of the answer.
    Written,
    /// Written before; the broker no longer tells where.
    WrittenBefore,
    /// Send the same bytes again. `in_doubt`: this try may have been written; `refresh`: the leader may be elsewhere.
    Again {
        in_doubt: bool,
        refresh: bool,
    },
    /// Nobody knows the sequence before it any more and it was not written: a new epoch, sequences from 0, and again.
    NewEpoch,
    /// Divide it and send the parts.
    Divide,
    /// Some of its records are refused; send the others.
    WithoutCulprits,
    Failed,
}

/// What the table needs to know of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) code: ErrorCode,
    pub(super) idempotent: bool,
    /// acks=all: the leader appends it and answers when the others have it.
    pub(super) replicated: bool,
    /// No batch with a lower sequence number waits for its outcome.
    pub(super) is_first: bool,
    pub(super) records: usize,
    /// How many records the answer names as culprits (KIP-467).
    pub(super) culprits: usize,
}

pub(super) fn verdict(case: Case) -> Verdict {
    let again = |refresh| Verdict::Again { in_doubt: false, refresh };
    match case.code {
        ErrorCode::NONE => Verdict::Written,
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Verdict::WrittenBefore,
        // The timeout of the broker's own replication: the leader has it.
        ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND => {
            Verdict::Again { in_doubt: true, refresh: false }
        }
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
        | ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING
            if case.idempotent =>
        {
            if case.is_first {
                Verdict::NewEpoch
            } else {
                again(false)
            }
        }
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE if case.records > 1 => Verdict::Divide,
        ErrorCode::INVALID_RECORD if case.culprits > 0 && case.culprits < case.records => Verdict::WithoutCulprits,
        // Also of a leader that appended it and was deposed before the others had it: the next one may have it all the same.
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => {
            Verdict::Again { in_doubt: case.replicated, refresh: true }
        }
        ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID => again(true),
        code if code.retriable() => again(false),
        _ => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_produce_error_table() {
        let again = |in_doubt, refresh| Verdict::Again { in_doubt, refresh };
        let (code, idempotent, replicated, is_first) = (ErrorCode::NONE, true, true, true);
        let case = Case { code, idempotent, replicated, is_first, records: 3, culprits: 0 };
        for (case, expected) in [
            (case, Verdict::Written),
            (Case { code: ErrorCode::DUPLICATE_SEQUENCE_NUMBER, ..case }, Verdict::WrittenBefore),
            (Case { code: ErrorCode::REQUEST_TIMED_OUT, ..case }, again(true, false)),
            (Case { code: ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, ..case }, again(true, false)),
            (Case { code: ErrorCode::NOT_ENOUGH_REPLICAS, ..case }, again(false, false)),
            (Case { code: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ..case }, Verdict::NewEpoch),
            (Case { code: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, is_first: false, ..case }, again(false, false)),
            (Case { code: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, idempotent: false, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::UNKNOWN_PRODUCER_ID, ..case }, Verdict::NewEpoch),
            (Case { code: ErrorCode::INVALID_PRODUCER_EPOCH, ..case }, Verdict::NewEpoch),
            (Case { code: ErrorCode::MESSAGE_TOO_LARGE, ..case }, Verdict::Divide),
            (Case { code: ErrorCode::MESSAGE_TOO_LARGE, records: 1, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::INVALID_RECORD, culprits: 1, ..case }, Verdict::WithoutCulprits),
            (Case { code: ErrorCode::INVALID_RECORD, culprits: 3, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::INVALID_RECORD, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::NOT_LEADER_OR_FOLLOWER, ..case }, again(true, true)),
            (Case { code: ErrorCode::NOT_LEADER_OR_FOLLOWER, replicated: false, ..case }, again(false, true)),
            (Case { code: ErrorCode::LEADER_NOT_AVAILABLE, ..case }, again(false, true)),
            (Case { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ..case }, again(false, true)),
            (Case { code: ErrorCode::UNKNOWN_TOPIC_ID, ..case }, again(false, true)),
            (Case { code: ErrorCode::KAFKA_STORAGE_ERROR, ..case }, again(true, true)),
            (Case { code: ErrorCode::CORRUPT_MESSAGE, ..case }, again(false, false)),
            (Case { code: ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ..case }, again(false, false)),
            (Case { code: ErrorCode::TOPIC_AUTHORIZATION_FAILED, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ..case }, Verdict::Failed),
            (Case { code: ErrorCode::UNKNOWN_SERVER_ERROR, ..case }, Verdict::Failed),
        ] {
            assert_eq!(verdict(case), expected, "{case:?}");
        }
    }
}
