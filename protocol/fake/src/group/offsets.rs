//! Committed offsets, and who may commit.

use protocol::error_code::ErrorCode;
use tokio::time::Instant;

use super::{Group, Phase};

/// `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4096;
/// Partitions for which a group may have offsets.
const MAX_OFFSETS: usize = 100_000;

/// What was committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// Of the last record consumed; -1 if it was not said.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// Who commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) generation: i32,
}

impl Group {
    /// Whether this commit may be taken. One of a member prolongs its session.
    pub(crate) fn may_commit(&mut self, now: Instant, commit: &Commit<'_>) -> Result<(), ErrorCode> {
        if commit.generation < 0 && self.phase == Phase::Empty {
            // From outside: a tool, or a consumer that assigns partitions to itself.
            return Ok(());
        }
        if commit.generation < 0 && commit.member_id.is_empty() {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if !self.members.contains_key(commit.member_id) {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if commit.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        match self.phase {
            // The member knows the generation already, but not yet what it will own.
            Phase::CompletingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Phase::PreparingRebalance { .. } | Phase::Stable => {
                self.prolong(now, commit.member_id);
                Ok(())
            }
        }
    }

    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) -> ErrorCode {
        if committed.metadata.len() > MAX_METADATA_BYTES {
            return ErrorCode::OFFSET_METADATA_TOO_LARGE;
        }
        let key = (topic.to_owned(), partition);
        if self.offsets.len() >= MAX_OFFSETS && !self.offsets.contains_key(&key) {
            return ErrorCode::INVALID_COMMIT_OFFSET_SIZE;
        }
        self.offsets.insert(key, committed);
        ErrorCode::NONE
    }

    pub(crate) fn committed(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.offsets.get(&(topic.to_owned(), partition))
    }

    /// All committed offsets, by topic and partition.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.offsets.iter().map(|((topic, partition), committed)| (topic.as_str(), *partition, committed))
    }

    /// A topic is gone, and with it what was committed for it.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|(name, _), _| name != topic);
    }
}
