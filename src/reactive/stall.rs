//! Finds partitions that do not move: an unfinished record that is too old, a commit or a lag that stands still.
//!
//! It reads what the lanes tell anyway, costs nothing per record and decides nothing. [`Stalls`] is its main type;
//! [`Report::log`] is how operators hear of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

use super::observer::{PartitionStatus, Status};
use crate::record::TopicPartition;

/// A partition that has not moved for so long is named, and named again each time so much has passed.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Between looks.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// What has to come before a partition moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Answer,
    Backend,
    /// One of the requests that may be in flight at once.
    Turn,
    DeadLetter,
    Audit,
    Commit,
    Membership,
    Records,
    /// The record before which it stands has to go, or to become readable.
    Record,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "the backend's answer",
            Self::Backend => "the backend, which is away",
            Self::Turn => "its turn at the backend",
            Self::DeadLetter => "the broker's acknowledgement of its dead letter",
            Self::Audit => "its audit entry to be written",
            Self::Commit => "its commit",
            Self::Membership => "the group membership, which is in doubt",
            Self::Records => "records from the broker",
            Self::Record => "the record it stands before",
        })
    }
}

/// What is told of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Stalled { partition: TopicPartition, offset: Option<i64>, age: Duration, waits_for: WaitsFor },
    Moves { partition: TopicPartition, after: Duration },
}

impl Report {
    pub(crate) fn log(&self) {
        match self {
            Self::Stalled { partition: TopicPartition { topic, partition }, offset, age, waits_for } => tracing::warn!(
                %topic, partition, offset, age_seconds = age.as_secs(), %waits_for,
                "the partition does not move"
            ),
            Self::Moves { partition: TopicPartition { topic, partition }, after } => {
                tracing::info!(%topic, partition, after_seconds = after.as_secs(), "the partition moves again");
            }
        }
    }
}

/// Remembers what stood still at the last looks.
#[derive(Debug, Default)]
pub(crate) struct Stalls(BTreeMap<TopicPartition, Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The committed offset that something finished waits behind, and since which look.
    commit: Option<(Option<i64>, Instant)>,
    /// The position behind which there is something to read while nothing is in flight, and since which look.
    lag: Option<(Option<i64>, Instant)>,
    /// When the stall began that was reported and is not over.
    stalled_since: Option<Instant>,
    reported: Option<Instant>,
}

impl Stalls {
    pub(crate) fn look(&mut self, status: &Status, now: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut seen = BTreeMap::new();
        for partition in &status.partitions {
            let mut memory = self.0.remove(&partition.partition).unwrap_or_default();
            reports.extend(memory.look(partition, now));
            seen.insert(partition.partition.clone(), memory);
        }
        // Those that were given up are somebody else's.
        self.0 = seen;
        reports
    }
}

impl Memory {
    fn look(&mut self, status: &PartitionStatus, now: Instant) -> Option<Report> {
        let partition = status.partition.clone();
        let Some((offset, age, waits_for)) = self.stall(status, now) else {
            let since = self.stalled_since.take()?;
            return Some(Report::Moves { partition, after: now.saturating_duration_since(since) });
        };
        self.stalled_since.get_or_insert(now.checked_sub(age).unwrap_or(now));
        if self.reported.is_some_and(|reported| now.saturating_duration_since(reported) < STALLED_AFTER) {
            return None;
        }
        self.reported = Some(now);
        Some(Report::Stalled { partition, offset, age, waits_for })
    }

    /// Where it stands, for how long, and what it waits for.
    fn stall(&mut self, status: &PartitionStatus, now: Instant) -> Option<(Option<i64>, Duration, WaitsFor)> {
        let behind = |finished: &i64| status.committed.is_none_or(|committed| committed < *finished);
        let finished = status.finished.filter(behind);
        self.commit = still(self.commit, finished.map(|_| status.committed), now);
        let more = status.high_watermark.is_some_and(|end| status.position.is_none_or(|position| position < end));
        let lags = more && status.oldest_unfinished.is_none();
        self.lag = still(self.lag, lags.then_some(status.position), now);

        let since = |since: Instant| Some(now.saturating_duration_since(since)).filter(|age| *age >= STALLED_AFTER);
        if let Some((offset, age)) = status.oldest_unfinished.zip(status.oldest_unfinished_age)
            && age >= STALLED_AFTER
        {
            return Some((Some(offset), age, status.waits_for));
        }
        if let (Some(finished), Some((_, began))) = (finished, self.commit)
            && let Some(age) = since(began)
        {
            return Some((Some(finished), age, WaitsFor::Commit));
        }
        let (offset, began) = self.lag?;
        Some((offset, since(began)?, status.waits_for))
    }
}

/// What is so now, and since which look it has been so.
fn still<T: PartialEq>(before: Option<(T, Instant)>, now_so: Option<T>, now: Instant) -> Option<(T, Instant)> {
    let now_so = now_so?;
    let since = before.filter(|(before, _)| *before == now_so).map_or(now, |(_, since)| since);
    Some((now_so, since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactive::{BackendState, PartitionState};

    /// A partition whose first five records are finished and committed; more are there.
    fn partition() -> PartitionStatus {
        PartitionStatus {
            partition: TopicPartition { topic: "t".into(), partition: 0 },
            position: Some(9),
            finished: Some(5),
            committed: Some(5),
            high_watermark: Some(9),
            in_flight: 0,
            oldest_unfinished: None,
            oldest_unfinished_age: None,
            waits_for: WaitsFor::Answer,
            state: PartitionState::Running,
        }
    }

    fn look(stalls: &mut Stalls, partition: &PartitionStatus, begin: Instant, second: u64) -> Vec<Report> {
        let status = Status { backend: BackendState::Up, fault: None, partitions: vec![partition.clone()] };
        stalls.look(&status, begin + Duration::from_secs(second))
    }

    fn stalled(offset: Option<i64>, age: u64, waits_for: WaitsFor) -> Vec<Report> {
        let (partition, age) = (partition().partition, Duration::from_secs(age));
        vec![Report::Stalled { partition, offset, age, waits_for }]
    }

    #[test]
    fn an_old_unfinished_record_is_named_once_a_minute_and_its_end_once() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        let mut named = Vec::new();
        for second in (0..=150).step_by(10) {
            let age = Some(Duration::from_secs(second));
            let old = PartitionStatus { oldest_unfinished: Some(5), oldest_unfinished_age: age, ..partition() };
            let reports = look(&mut stalls, &old, begin, second);
            if !reports.is_empty() {
                assert_eq!(reports, stalled(Some(5), second, WaitsFor::Answer));
                named.push(second);
            }
        }
        assert_eq!(named, [60, 120]);
        let after = Duration::from_secs(160);
        let moves = Report::Moves { partition: partition().partition, after };
        assert_eq!(look(&mut stalls, &partition(), begin, 160), [moves]);
        assert_eq!(look(&mut stalls, &partition(), begin, 170), []);
    }

    #[test]
    fn a_commit_that_does_not_come_is_named_and_an_idle_partition_is_not() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        let idle = PartitionStatus { finished: Some(9), committed: Some(9), ..partition() };
        assert_eq!(look(&mut stalls, &idle, begin, 0), []);
        assert_eq!(look(&mut stalls, &idle, begin, 600), []);
        let uncommitted = PartitionStatus { finished: Some(9), ..partition() };
        assert_eq!(look(&mut stalls, &uncommitted, begin, 610), [], "it has just become so");
        let later = PartitionStatus { finished: Some(8), ..uncommitted };
        assert_eq!(look(&mut stalls, &later, begin, 670), stalled(Some(8), 60, WaitsFor::Commit));
    }

    #[test]
    fn a_lag_is_named_only_where_the_position_stands_still() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        for position in 10..20 {
            let lag = PartitionStatus { position: Some(position), high_watermark: Some(99), ..partition() };
            assert_eq!(look(&mut stalls, &lag, begin, position as u64 * 60), []);
        }
        let lag = PartitionStatus { position: None, high_watermark: Some(99), ..partition() };
        let lag = PartitionStatus { waits_for: WaitsFor::Records, ..lag };
        assert_eq!(look(&mut stalls, &lag, begin, 2000), []);
        assert_eq!(look(&mut stalls, &lag, begin, 2060), stalled(None, 60, WaitsFor::Records));
    }

    #[test]
    fn a_partition_that_was_given_up_is_forgotten() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        let old =
            PartitionStatus { oldest_unfinished: Some(5), oldest_unfinished_age: Some(STALLED_AFTER), ..partition() };
        assert_eq!(look(&mut stalls, &old, begin, 0).len(), 1);
        let none = Status { backend: BackendState::Up, fault: None, partitions: Vec::new() };
        assert_eq!(stalls.look(&none, begin + Duration::from_secs(10)), []);
        assert_eq!(look(&mut stalls, &partition(), begin, 20), []);
    }
}
