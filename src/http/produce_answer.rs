//! From a produce report to its HTTP answer: one entry per record, and one status for the whole.
//!
//! 200 if any record was written (or none was asked for); else the kind of failure decides, and the body is a Status with the
//! entries added. [`response`] is the way in.

use axum::response::Response;
use protocol::{
    error_code::ErrorCode,
    outcome::Outcome,
    producer::{ProduceErrorKind, Receipt},
};
use serde::Serialize;

use super::problem::{Fault, Problem, json};
use crate::produce::RecordFailure;

/// The answer's entries and what belongs to them.
#[derive(Debug, Serialize)]
struct Entries {
    offsets: Vec<Entry>,
    #[serde(rename = "requestStatus")]
    request_status: &'static str,
}

/// One record: where it was written, or why not.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry {
    Written {
        partition: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
    },
    Failed {
        #[serde(rename = "errorCode")]
        error_code: u32,
        error: String,
        /// `not_sent`, `rejected` or `unknown`: whether sending it again can write it twice.
        outcome: &'static str,
    },
}

/// What a failure is about; the order is that of precedence where all records failed in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Authentication,
    Authorization,
    NoTopic,
    /// Room, brokers or time were missing: the same request may succeed later.
    Unavailable,
    TooLarge,
    Unfit,
    NoPartition,
    Refused,
}

/// The answer. `compatible` answers 200 and 400 as the system that this one replaces did.
pub(crate) fn response(report: &[Result<Receipt, RecordFailure>], compatible: bool) -> Response {
    let classes: Vec<Class> = report.iter().filter_map(|result| result.as_ref().err().map(class)).collect();
    let entries = Entries {
        offsets: report.iter().map(entry).collect(),
        request_status: if classes.contains(&Class::Authentication) {
            "UNAUTHORIZED"
        } else if classes.contains(&Class::Authorization) {
            "FORBIDDEN"
        } else {
            "OK"
        },
    };
    let first = report.iter().enumerate().find_map(|(index, result)| result.as_ref().err().map(|error| (index, error)));
    let (Some((index, error)), true) = (first, classes.len() == report.len()) else {
        return json(200, &entries);
    };
    let fault = verdict(&classes);
    if compatible && fault != Fault::Unfit {
        return json(200, &entries);
    }
    let description = match error {
        RecordFailure::Unfit(reason) => format!("no record was written; {reason}"),
        error if class(error) == Class::NoPartition => {
            format!("no record was written; records[{index}].partition: {error}")
        }
        error => format!("no record was written; records[{index}]: {error}"),
    };
    let problem = Problem::new(fault, description);
    let problem = if compatible { problem.with_status(400) } else { problem };
    problem.into_response_with(Some(entries))
}

/// The fault of a request of which nothing was written.
fn verdict(classes: &[Class]) -> Fault {
    let all = |class| classes.iter().all(|found| *found == class);
    match classes.iter().min() {
        Some(Class::Authentication) => Fault::KafkaAuthentication,
        Some(Class::Authorization) => Fault::KafkaAuthorization,
        Some(Class::NoTopic) => Fault::TopicNotFound,
        Some(Class::Unavailable) => Fault::KafkaUnavailable,
        Some(Class::TooLarge) if all(Class::TooLarge) => Fault::RecordTooLarge,
        Some(Class::Refused) => Fault::KafkaRefused,
        // Records that do not fit, in one way or another.
        Some(Class::TooLarge | Class::Unfit | Class::NoPartition) | None => Fault::Unfit,
    }
}

fn entry(result: &Result<Receipt, RecordFailure>) -> Entry {
    match result {
        Ok(receipt) => Entry::Written { partition: receipt.partition, offset: receipt.offset },
        Err(failure) => Entry::Failed {
            error_code: number(failure),
            error: failure.to_string(),
            outcome: match failure.outcome() {
                Outcome::NotSent => "not_sent",
                Outcome::Rejected => "rejected",
                Outcome::Unknown => "unknown",
            },
        },
    }
}

/// Kafka's error codes that say more than "refused" or "later".
mod kafka {
    pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
    pub(super) const INVALID_TOPIC_EXCEPTION: i16 = 17;
    pub(super) const RECORD_LIST_TOO_LARGE: i16 = 18;
    pub(super) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub(super) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub(super) const INVALID_TIMESTAMP: i16 = 32;
    pub(super) const POLICY_VIOLATION: i16 = 44;
    pub(super) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub(super) const SASL_AUTHENTICATION_FAILED: i16 = 58;
    pub(super) const INVALID_RECORD: i16 = 87;
}

fn class(failure: &RecordFailure) -> Class {
    let error = match failure {
        RecordFailure::Unfit(_) => return Class::Unfit,
        RecordFailure::NoRoom => return Class::Unavailable,
        RecordFailure::Producer(error) => error,
    };
    match &error.kind {
        ProduceErrorKind::UnknownTopic => Class::NoTopic,
        ProduceErrorKind::UnknownPartition { .. } => Class::NoPartition,
        ProduceErrorKind::TooLarge { .. } => Class::TooLarge,
        ProduceErrorKind::DeliveryTimeout { .. } | ProduceErrorKind::Closed => Class::Unavailable,
        ProduceErrorKind::Broker { code: ErrorCode(code), .. } => match *code {
            kafka::SASL_AUTHENTICATION_FAILED => Class::Authentication,
            kafka::TOPIC_AUTHORIZATION_FAILED
            | kafka::CLUSTER_AUTHORIZATION_FAILED
            | kafka::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Class::Authorization,
            kafka::UNKNOWN_TOPIC_OR_PARTITION | kafka::INVALID_TOPIC_EXCEPTION => Class::NoTopic,
            kafka::MESSAGE_TOO_LARGE | kafka::RECORD_LIST_TOO_LARGE => Class::TooLarge,
            kafka::INVALID_RECORD | kafka::INVALID_TIMESTAMP | kafka::POLICY_VIOLATION => Class::Unfit,
            _ if error.retriable() => Class::Unavailable,
            _ => Class::Refused,
        },
    }
}

/// The `errorCode` of an entry: the numbers of the system that this one replaces, and of the Kafka REST proxy that it came from.
fn number(failure: &RecordFailure) -> u32 {
    match class(failure) {
        Class::Authentication => 40101,
        Class::Authorization => 40301,
        Class::NoTopic => 40401,
        Class::NoPartition => 40402,
        Class::TooLarge => 41301,
        Class::Unfit => 42203,
        Class::Refused => 50002,
        Class::Unavailable if matches!(failure, RecordFailure::NoRoom) => 50302,
        Class::Unavailable => 50003,
    }
}

#[cfg(test)]
mod tests;
