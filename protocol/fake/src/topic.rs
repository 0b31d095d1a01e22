//! A topic, its configuration and its partitions.

use std::collections::BTreeMap;

use protocol::error_code::ErrorCode;
use uuid::Uuid;

use crate::log::PartitionLog;

/// Kafka's limit to the length of a topic's name.
const MAX_NAME_LEN: usize = 249;
/// `message.timestamp.after.max.ms` unless the topic says otherwise.
const TIMESTAMP_AFTER_MAX: i64 = 3_600_000;

/// The keys that a topic may be configured by. Those that nothing is read from are kept and described.
const CONFIG_KEYS: &[&str] = &[
    "cleanup.policy",
    "compression.type",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// One partition: who leads it, and its log, which all replicas share.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    /// Replicas on nodes that are alive; the last one to die stays in it.
    pub(crate) in_sync: Vec<i32>,
    pub(crate) log: PartitionLog,
    /// What a test wants every request for it to be answered with.
    pub(crate) fault: Option<ErrorCode>,
}

impl Partition {
    pub(crate) fn check_fault(&self) -> Result<(), ErrorCode> {
        self.fault.map_or(Ok(()), Err)
    }

    /// Makes `leader` lead in a new epoch.
    pub(crate) fn lead(&mut self, leader: Option<i32>) {
        self.leader = leader;
        self.leader_epoch = self.leader_epoch.saturating_add(1);
        if leader.is_some() {
            self.log.epochs.begin(self.leader_epoch, self.log.end());
        }
    }

    /// What is wrong with a request that takes `epoch` for the current one; -1 takes none.
    pub(crate) fn check_epoch(&self, epoch: i32) -> Result<(), ErrorCode> {
        match epoch {
            -1 => Ok(()),
            epoch if epoch < self.leader_epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            epoch if epoch > self.leader_epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }

    /// What is wrong with asking `node` as the leader in `epoch`.
    pub(crate) fn check_leader(&self, node: i32, epoch: i32) -> Result<(), ErrorCode> {
        self.check_fault()?;
        if !self.replicas.contains(&node) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        self.check_epoch(epoch)?;
        if self.leader == Some(node) { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) config: TopicConfig,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn partition_mut(&mut self, index: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(index).ok()?)
    }
}

/// The configuration that a topic was given; what was not given has Kafka's default.
#[derive(Debug, Default, Clone)]
pub(crate) struct TopicConfig {
    given: BTreeMap<String, String>,
}

impl TopicConfig {
    /// Sets a key.
    ///
    /// # Errors
    /// A sentence, for an unknown key or a value that the fake cannot honour.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if !CONFIG_KEYS.contains(&key) {
            return Err(format!("Unknown topic config name: {key}"));
        }
        let valid = match key {
            "message.timestamp.type" => matches!(value, "CreateTime" | "LogAppendTime"),
            "compression.type" => value == "producer",
            "cleanup.policy" => value.split(',').all(|policy| matches!(policy.trim(), "delete" | "compact")),
            "unclean.leader.election.enable" | "preallocate" => matches!(value, "true" | "false"),
            "min.cleanable.dirty.ratio" => value.parse::<f64>().is_ok(),
            _ => value.parse::<i64>().is_ok(),
        };
        if !valid {
            return Err(format!("Invalid value {value} for configuration {key}"));
        }
        self.given.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// The keys that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.given.get(key)?.parse().ok()
    }

    pub(crate) fn max_message_bytes(&self, default: i32) -> i32 {
        self.number("max.message.bytes").map_or(default, |bytes| i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    pub(crate) fn min_in_sync(&self) -> usize {
        self.number("min.insync.replicas").map_or(1, |count| usize::try_from(count).unwrap_or(1))
    }

    pub(crate) fn log_append_time(&self) -> bool {
        self.given.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime")
    }

    pub(crate) fn compacted(&self) -> bool {
        self.given.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
    }

    pub(crate) fn timestamp_after_max(&self) -> i64 {
        self.number("message.timestamp.after.max.ms").unwrap_or(TIMESTAMP_AFTER_MAX)
    }

    /// The smaller of the topic's own limit and the cluster's, bytes per partition.
    pub(crate) fn retention_bytes(&self, cluster: Option<usize>) -> Option<usize> {
        let own = self.number("retention.bytes").and_then(|bytes| usize::try_from(bytes).ok());
        match (own, cluster) {
            (Some(own), Some(cluster)) => Some(own.min(cluster)),
            (own, cluster) => own.or(cluster),
        }
    }
}

/// Whether Kafka allows a topic of this name.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name != "." && name != ".." && name.len() <= MAX_NAME_LEN && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kafka_allows() {
        let long = "a".repeat(MAX_NAME_LEN + 1);
        let rows = [
            ("orders", true),
            ("a.b_c-1", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a b", false),
            ("ä", false),
        ];
        for (name, valid) in rows.into_iter().chain([(&long[1..], true), (&long[..], false)]) {
            assert_eq!(is_valid_name(name), valid, "{name:?}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_honoured_is_refused() {
        let mut config = TopicConfig::default();
        for (key, value, ok) in [
            ("message.timestamp.type", "LogAppendTime", true),
            ("message.timestamp.type", "Sometime", false),
            ("max.message.bytes", "1000", true),
            ("max.message.bytes", "many", false),
            ("compression.type", "gzip", false),
            ("no.such.key", "1", false),
        ] {
            assert_eq!(config.set(key, value).is_ok(), ok, "{key}={value}");
        }
        assert!(config.log_append_time());
        assert_eq!(config.max_message_bytes(5), 1000);
    }

    #[test]
    fn requests_are_checked_against_the_epoch_before_the_leader() {
        let partition = Partition {
            leader: Some(1),
            leader_epoch: 5,
            replicas: vec![1, 2],
            in_sync: vec![1, 2],
            log: PartitionLog::default(),
            fault: None,
        };
        let rows = [
            (1, -1, Ok(())),
            (1, 5, Ok(())),
            (1, 4, Err(ErrorCode::FENCED_LEADER_EPOCH)),
            (1, 6, Err(ErrorCode::UNKNOWN_LEADER_EPOCH)),
            (2, 4, Err(ErrorCode::FENCED_LEADER_EPOCH)),
            (2, 5, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
            (3, 4, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        ];
        for (node, epoch, expected) in rows {
            assert_eq!(partition.check_leader(node, epoch), expected, "node {node}, epoch {epoch}");
        }
    }
}
