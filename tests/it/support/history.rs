//! What a backend saw, and what follows from it: deliveries, their order, what is finished and what is in flight.
//!
//! It knows neither HTTP nor Kafka. [`History`] is its main type.

use std::collections::{BTreeMap, BTreeSet};

use super::backend::Call;

/// Everything since the start of a backend.
#[derive(Debug, Default)]
pub(crate) struct History {
    calls: Vec<Seen>,
    /// Offsets that have a verdict, by partition.
    finished: BTreeMap<i32, BTreeSet<i64>>,
    /// Everything below has a verdict.
    lowest_unfinished: BTreeMap<i32, i64>,
    /// What should never be: two calls of one partition at once.
    pub(crate) overlaps: Vec<String>,
    pub(crate) handshakes_failed: Vec<String>,
    connections: usize,
}

/// One call and how far it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) call: Call,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    InFlight,
    /// Answered with a verdict for each record.
    Settled,
    /// Answered otherwise, or cut.
    Failed,
}

impl History {
    pub(super) fn began(&mut self, call: &Call) -> usize {
        let number = self.calls.len();
        let others = self.in_flight().filter(|seen| seen.call.partition == call.partition).map(|seen| seen.call.number);
        let others: Vec<usize> = others.collect();
        if !others.is_empty() {
            self.overlaps.push(format!("call {number} of partition {} began during {others:?}", call.partition));
        }
        self.calls.push(Seen { call: Call { number, ..call.clone() }, end: End::InFlight });
        number
    }

    pub(super) fn settled(&mut self, call: &Call) {
        self.calls[call.number].end = End::Settled;
        let finished = self.finished.entry(call.partition).or_default();
        finished.extend(&call.offsets);
        let lowest = self.lowest_unfinished.entry(call.partition).or_default();
        while finished.contains(lowest) {
            *lowest += 1;
        }
    }

    pub(super) fn failed(&mut self, call: &Call) {
        self.calls[call.number].end = End::Failed;
    }

    pub(super) fn connected(&mut self) {
        self.connections += 1;
    }

    pub(super) fn disconnected(&mut self) {
        self.connections -= 1;
    }

    /// Open ones.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn handshake_failed(&mut self, reason: String) {
        self.handshakes_failed.push(reason);
    }

    pub(crate) fn calls(&self) -> &[Seen] {
        &self.calls
    }

    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Seen> {
        self.calls.iter().filter(|seen| seen.end == End::InFlight)
    }

    /// The lowest offset of a partition without a verdict.
    pub(crate) fn lowest_unfinished(&self, partition: i32) -> i64 {
        self.lowest_unfinished.get(&partition).copied().unwrap_or(0)
    }

    /// Records with a verdict.
    pub(crate) fn finished(&self) -> usize {
        self.finished.values().map(BTreeSet::len).sum()
    }

    /// Offsets of a partition in the order of their deliveries, repetitions included.
    pub(crate) fn deliveries(&self, partition: i32) -> Vec<i64> {
        let calls = self.calls.iter().filter(|seen| seen.call.partition == partition);
        calls.flat_map(|seen| seen.call.offsets.iter().copied()).collect()
    }

    /// Offsets of a partition in the order in which they got their verdicts, repetitions included.
    pub(crate) fn verdicts(&self, partition: i32) -> Vec<i64> {
        let calls = self.calls.iter().filter(|seen| seen.call.partition == partition && seen.end == End::Settled);
        calls.flat_map(|seen| seen.call.offsets.iter().copied()).collect()
    }

    /// Each offset when it was delivered for the first time.
    pub(crate) fn first_deliveries(&self, partition: i32) -> Vec<i64> {
        let mut known = BTreeSet::new();
        self.deliveries(partition).into_iter().filter(|offset| known.insert(*offset)).collect()
    }

    pub(crate) fn partitions(&self) -> BTreeSet<i32> {
        self.calls.iter().map(|seen| seen.call.partition).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let partitions: Vec<String> = self
            .partitions()
            .into_iter()
            .map(|partition| {
                format!(
                    "partition {partition}: {} deliveries, lowest unfinished {}",
                    self.deliveries(partition).len(),
                    self.lowest_unfinished(partition)
                )
            })
            .collect();
        let last: Vec<String> = self
            .calls
            .iter()
            .rev()
            .take(5)
            .map(|seen| format!("{}: {:?} {:?}", seen.call.partition, seen.call.offsets, seen.end))
            .collect();
        format!("{} calls; {}; last calls {last:?}", self.calls.len(), partitions.join("; "))
    }
}
