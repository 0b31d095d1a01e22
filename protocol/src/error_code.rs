//! Kafka's error table as data: name, number, retriable.
//!
//! The rows are those of Kafka 4.1's `org.apache.kafka.common.protocol.Errors`; a code is retriable where the exception
//! that Java makes of it is a `RetriableException`. What a caller does about an error is not said here.
//! [`ErrorCode`] is the main type.

use std::fmt;

/// A Kafka error code as it stands on the wire; codes that we do not know are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ErrorCode(pub i16);

macro_rules! error_table {
    ($($code:literal $name:ident $kind:ident,)*) => {
        impl ErrorCode {
            $(pub const $name: Self = Self($code);)*
        }

        /// Every code that Kafka defines, by number.
        pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

        /// Name and kind of a known code.
        const fn row(code: ErrorCode) -> Option<(&'static str, Kind)> {
            match code.0 {
                $($code => Some((stringify!($name), Kind::$kind)),)*
                _ => None,
            }
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retriable,
    Final,
}

impl ErrorCode {
    /// Whether there was no error.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Kafka's name of it; None for a code that Kafka 4.1 does not define.
    pub const fn name(self) -> Option<&'static str> {
        match row(self) {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// Whether Kafka's own table calls it retriable. NONE and unknown codes are not.
    pub const fn retriable(self) -> bool {
        matches!(row(self), Some((_, Kind::Retriable)))
    }
}

/// `NOT_LEADER_OR_FOLLOWER (6)`; an unknown code is `error 999`.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self(code)
    }
}

error_table! {
    -1 UNKNOWN_SERVER_ERROR Final,
    0 NONE Final,
    1 OFFSET_OUT_OF_RANGE Final,
    2 CORRUPT_MESSAGE Retriable,
    3 UNKNOWN_TOPIC_OR_PARTITION Retriable,
    4 INVALID_FETCH_SIZE Final,
    5 LEADER_NOT_AVAILABLE Retriable,
    6 NOT_LEADER_OR_FOLLOWER Retriable,
    7 REQUEST_TIMED_OUT Retriable,
    8 BROKER_NOT_AVAILABLE Final,
    9 REPLICA_NOT_AVAILABLE Retriable,
    10 MESSAGE_TOO_LARGE Final,
    11 STALE_CONTROLLER_EPOCH Final,
    12 OFFSET_METADATA_TOO_LARGE Final,
    13 NETWORK_EXCEPTION Retriable,
    14 COORDINATOR_LOAD_IN_PROGRESS Retriable,
    15 COORDINATOR_NOT_AVAILABLE Retriable,
    16 NOT_COORDINATOR Retriable,
    17 INVALID_TOPIC_EXCEPTION Final,
    18 RECORD_LIST_TOO_LARGE Final,
    19 NOT_ENOUGH_REPLICAS Retriable,
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Retriable,
    21 INVALID_REQUIRED_ACKS Final,
    22 ILLEGAL_GENERATION Final,
    23 INCONSISTENT_GROUP_PROTOCOL Final,
    24 INVALID_GROUP_ID Final,
    25 UNKNOWN_MEMBER_ID Final,
    26 INVALID_SESSION_TIMEOUT Final,
    27 REBALANCE_IN_PROGRESS Final,
    28 INVALID_COMMIT_OFFSET_SIZE Final,
    29 TOPIC_AUTHORIZATION_FAILED Final,
    30 GROUP_AUTHORIZATION_FAILED Final,
    31 CLUSTER_AUTHORIZATION_FAILED Final,
    32 INVALID_TIMESTAMP Final,
    33 UNSUPPORTED_SASL_MECHANISM Final,
    34 ILLEGAL_SASL_STATE Final,
    35 UNSUPPORTED_VERSION Final,
    36 TOPIC_ALREADY_EXISTS Final,
    37 INVALID_PARTITIONS Final,
    38 INVALID_REPLICATION_FACTOR Final,
    39 INVALID_REPLICA_ASSIGNMENT Final,
    40 INVALID_CONFIG Final,
    41 NOT_CONTROLLER Retriable,
    42 INVALID_REQUEST Final,
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT Final,
    44 POLICY_VIOLATION Final,
    45 OUT_OF_ORDER_SEQUENCE_NUMBER Final,
    46 DUPLICATE_SEQUENCE_NUMBER Final,
    47 INVALID_PRODUCER_EPOCH Final,
    48 INVALID_TXN_STATE Final,
    49 INVALID_PRODUCER_ID_MAPPING Final,
    50 INVALID_TRANSACTION_TIMEOUT Final,
    51 CONCURRENT_TRANSACTIONS Retriable,
    52 TRANSACTION_COORDINATOR_FENCED Final,
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED Final,
    54 SECURITY_DISABLED Final,
    55 OPERATION_NOT_ATTEMPTED Final,
    56 KAFKA_STORAGE_ERROR Retriable,
    57 LOG_DIR_NOT_FOUND Final,
    58 SASL_AUTHENTICATION_FAILED Final,
    59 UNKNOWN_PRODUCER_ID Final,
    60 REASSIGNMENT_IN_PROGRESS Final,
    61 DELEGATION_TOKEN_AUTH_DISABLED Final,
    62 DELEGATION_TOKEN_NOT_FOUND Final,
    63 DELEGATION_TOKEN_OWNER_MISMATCH Final,
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED Final,
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED Final,
    66 DELEGATION_TOKEN_EXPIRED Final,
    67 INVALID_PRINCIPAL_TYPE Final,
    68 NON_EMPTY_GROUP Final,
    69 GROUP_ID_NOT_FOUND Final,
    70 FETCH_SESSION_ID_NOT_FOUND Retriable,
    71 INVALID_FETCH_SESSION_EPOCH Retriable,
    72 LISTENER_NOT_FOUND Retriable,
    73 TOPIC_DELETION_DISABLED Final,
    74 FENCED_LEADER_EPOCH Retriable,
    75 UNKNOWN_LEADER_EPOCH Retriable,
    76 UNSUPPORTED_COMPRESSION_TYPE Final,
    77 STALE_BROKER_EPOCH Final,
    78 OFFSET_NOT_AVAILABLE Retriable,
    79 MEMBER_ID_REQUIRED Final,
    80 PREFERRED_LEADER_NOT_AVAILABLE Retriable,
    81 GROUP_MAX_SIZE_REACHED Final,
    82 FENCED_INSTANCE_ID Final,
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE Retriable,
    84 ELECTION_NOT_NEEDED Retriable,
    85 NO_REASSIGNMENT_IN_PROGRESS Final,
    86 GROUP_SUBSCRIBED_TO_TOPIC Final,
    87 INVALID_RECORD Final,
    88 UNSTABLE_OFFSET_COMMIT Retriable,
    89 THROTTLING_QUOTA_EXCEEDED Retriable,
    90 PRODUCER_FENCED Final,
    91 RESOURCE_NOT_FOUND Final,
    92 DUPLICATE_RESOURCE Final,
    93 UNACCEPTABLE_CREDENTIAL Final,
    94 INCONSISTENT_VOTER_SET Final,
    95 INVALID_UPDATE_VERSION Final,
    96 FEATURE_UPDATE_FAILED Final,
    97 PRINCIPAL_DESERIALIZATION_FAILURE Final,
    98 SNAPSHOT_NOT_FOUND Final,
    99 POSITION_OUT_OF_RANGE Final,
    100 UNKNOWN_TOPIC_ID Retriable,
    101 DUPLICATE_BROKER_REGISTRATION Final,
    102 BROKER_ID_NOT_REGISTERED Final,
    103 INCONSISTENT_TOPIC_ID Retriable,
    104 INCONSISTENT_CLUSTER_ID Final,
    105 TRANSACTIONAL_ID_NOT_FOUND Final,
    106 FETCH_SESSION_TOPIC_ID_ERROR Retriable,
    107 INELIGIBLE_REPLICA Final,
    108 NEW_LEADER_ELECTED Final,
    109 OFFSET_MOVED_TO_TIERED_STORAGE Final,
    110 FENCED_MEMBER_EPOCH Final,
    111 UNRELEASED_INSTANCE_ID Final,
    112 UNSUPPORTED_ASSIGNOR Final,
    113 STALE_MEMBER_EPOCH Final,
    114 MISMATCHED_ENDPOINT_TYPE Final,
    115 UNSUPPORTED_ENDPOINT_TYPE Final,
    116 UNKNOWN_CONTROLLER_ID Final,
    117 UNKNOWN_SUBSCRIPTION_ID Final,
    118 TELEMETRY_TOO_LARGE Final,
    119 INVALID_REGISTRATION Final,
    120 TRANSACTION_ABORTABLE Final,
    121 INVALID_RECORD_STATE Final,
    122 SHARE_SESSION_NOT_FOUND Retriable,
    123 INVALID_SHARE_SESSION_EPOCH Retriable,
    124 FENCED_STATE_EPOCH Final,
    125 INVALID_VOTER_KEY Final,
    126 DUPLICATE_VOTER Final,
    127 VOTER_NOT_FOUND Final,
    128 INVALID_REGULAR_EXPRESSION Final,
    129 REBOOTSTRAP_REQUIRED Final,
    130 STREAMS_INVALID_TOPOLOGY Final,
    131 STREAMS_INVALID_TOPOLOGY_EPOCH Final,
    132 STREAMS_TOPOLOGY_FENCED Final,
    133 SHARE_SESSION_LIMIT_REACHED Retriable,
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;

    use super::*;

    #[test]
    fn a_code_shows_its_name_and_number() {
        let cases = [
            (ErrorCode::NONE, "NONE (0)"),
            (ErrorCode::UNKNOWN_SERVER_ERROR, "UNKNOWN_SERVER_ERROR (-1)"),
            (ErrorCode(6), "NOT_LEADER_OR_FOLLOWER (6)"),
            (ErrorCode(999), "error 999"),
            (ErrorCode(-7), "error -7"),
        ];
        for (code, shown) in cases {
            assert_eq!(code.to_string(), shown);
        }
    }

    #[test]
    fn the_retriable_codes_are_those_of_java() {
        // Printed by kafka-clients 4.1.0: every value of Errors whose exception is a RetriableException.
        let java = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89, 100, 103,
            106, 122, 123, 133,
        ];
        let ours: Vec<i16> = ALL.iter().filter(|code| code.retriable()).map(|code| code.0).collect();
        assert_eq!(ours, java);
        assert!(!ErrorCode::NONE.retriable());
        assert!(!ErrorCode(999).retriable());
    }

    #[test]
    fn the_numbers_run_without_a_gap_and_agree_with_the_generated_crate() {
        let numbers: Vec<i16> = ALL.iter().map(|code| code.0).collect();
        assert_eq!(numbers, (-1..=133).collect::<Vec<i16>>());
        for code in ALL {
            let name = code.name().expect("a row");
            let Some(theirs) = ResponseError::try_from_code(code.0) else {
                assert!(code.is_none());
                continue;
            };
            // NotLeaderOrFollower -> NOT_LEADER_OR_FOLLOWER
            let mut snake = String::new();
            for letter in theirs.to_string().chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_uppercase());
            }
            assert_eq!(snake, name, "code {}", code.0);
            // The generated table is older than Kafka 3.7, which made CONCURRENT_TRANSACTIONS retriable.
            if *code != ErrorCode::CONCURRENT_TRANSACTIONS {
                assert_eq!(theirs.is_retriable(), code.retriable(), "{code}");
            }
        }
    }
}
