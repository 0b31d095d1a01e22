//! What the demo comes to: the counts, from what was answered, logged and read, and which of them are off.
//!
//! It is pure: a table of facts in, [`Tally`] out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::backend::Delivery;

/// A record of the topic.
pub(super) type Place = (i32, i64);

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Acknowledged by an HTTP answer.
    pub(super) acknowledged: BTreeSet<Place>,
    /// Sent as bytes that are no JSON: they cannot be delivered.
    pub(super) undecodable: BTreeSet<Place>,
    /// The backend's log.
    pub(super) deliveries: Vec<Delivery>,
    /// Read from the topic.
    pub(super) stored: BTreeSet<Place>,
    /// Read from the dead letter topic: where each came from.
    pub(super) dead_letters: Vec<Place>,
    /// Read from the audit topic: entries of produced and of consumed records.
    pub(super) audited_produced: usize,
    pub(super) audited_consumed: usize,
    /// What the group has committed, by partition.
    pub(super) committed: BTreeMap<i32, i64>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) count: usize,
    pub(super) meaning: String,
    /// What it should have been.
    pub(super) fault: Option<String>,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally(pub(super) Vec<Row>);

impl Tally {
    pub(super) fn of(facts: &Facts) -> Self {
        let delivered: BTreeSet<Place> = facts.deliveries.iter().map(place).collect();
        let unanswered = facts.deliveries.iter().filter(|delivery| delivery.processed.is_none()).count();
        let redelivered = facts.deliveries.len() - delivered.len();
        let refused: BTreeSet<Place> =
            facts.deliveries.iter().filter(|delivery| delivery.processed == Some(false)).map(place).collect();
        let dead: BTreeSet<Place> = facts.dead_letters.iter().copied().collect();
        let due: BTreeSet<Place> = refused.union(&facts.undecodable).copied().collect();
        let missing: usize = facts.acknowledged.difference(&facts.stored).count();
        let skipped = facts
            .stored
            .iter()
            .filter(|place| facts.committed.get(&place.0).is_some_and(|committed| place.1 < *committed))
            .filter(|place| !delivered.contains(place) && !dead.contains(place))
            .count();
        let uncommitted = facts
            .stored
            .iter()
            .filter(|place| facts.committed.get(&place.0).is_none_or(|committed| place.1 >= *committed))
            .count();
        let row = |name, count, meaning: String, fault: Option<String>| Row { name, count, meaning, fault };
        Self(vec![
            row(
                "produced",
                facts.acknowledged.len(),
                "acknowledged by an HTTP answer with partition and offset".to_owned(),
                off(facts.stored.len() != facts.acknowledged.len(), || {
                    format!("the topic holds {}", facts.stored.len())
                }),
            ),
            row(
                "delivered",
                delivered.len(),
                "different records that reached the backend".to_owned(),
                off(delivered.len() + facts.undecodable.len() != facts.stored.len(), || {
                    format!("{} were to reach it", facts.stored.len() - facts.undecodable.len())
                }),
            ),
            row(
                "redelivered",
                redelivered,
                "brought again, because the backend vanished before it answered".to_owned(),
                off(redelivered > unanswered, || format!("at most {unanswered} had no answer")),
            ),
            row(
                "dead-lettered",
                facts.dead_letters.len(),
                format!(
                    "{} refused by the backend, {} undecodable; as they were read, with the reason in their headers",
                    refused.len(),
                    facts.undecodable.len()
                ),
                off(dead != due || facts.dead_letters.len() != due.len(), || format!("{} were due", due.len())),
            ),
            row(
                "audited",
                facts.audited_produced + facts.audited_consumed,
                "one entry for each produced and one for each finished record".to_owned(),
                off(
                    (facts.audited_produced, facts.audited_consumed) != (facts.stored.len(), facts.stored.len()),
                    || {
                        format!(
                            "{} and {} entries for {} records",
                            facts.audited_produced,
                            facts.audited_consumed,
                            facts.stored.len()
                        )
                    },
                ),
            ),
            row(
                "lost",
                missing,
                "acknowledged, and not in the topic".to_owned(),
                off(missing > 0, || "none may be".to_owned()),
            ),
            row(
                "skipped",
                skipped,
                "committed, and neither delivered nor dead-lettered".to_owned(),
                off(skipped > 0, || "none may be".to_owned()),
            ),
            row(
                "out of order",
                out_of_order(&facts.deliveries),
                "reached the backend after a later record of its partition".to_owned(),
                off(out_of_order(&facts.deliveries) > 0, || "none may be".to_owned()),
            ),
            row(
                "left behind",
                uncommitted,
                "in the topic, and not committed at the end".to_owned(),
                off(uncommitted > 0, || "none may be".to_owned()),
            ),
        ])
    }

    pub(super) fn is_right(&self) -> bool {
        self.0.iter().all(|row| row.fault.is_none())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { name, count, meaning, fault } in &self.0 {
            write!(f, "  {name:<14} {count:>6}   {meaning}")?;
            match fault {
                Some(fault) => writeln!(f, "   <-- WRONG: {fault}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn off(wrong: bool, expected: impl FnOnce() -> String) -> Option<String> {
    wrong.then(expected)
}

fn place(delivery: &Delivery) -> Place {
    (delivery.partition, delivery.offset)
}

/// How many records were seen for the first time after a later one of their partition.
fn out_of_order(deliveries: &[Delivery]) -> usize {
    let mut seen = BTreeSet::new();
    let mut highest: BTreeMap<i32, i64> = BTreeMap::new();
    let mut count = 0;
    for delivery in deliveries {
        let first = seen.insert(place(delivery));
        let highest = highest.entry(delivery.partition).or_insert(-1);
        if first && delivery.offset < *highest {
            count += 1;
        }
        *highest = (*highest).max(delivery.offset);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(partition: i32, offset: i64, processed: Option<bool>) -> Delivery {
        Delivery { path: "/a".to_owned(), partition, offset, processed, at: std::time::Instant::now() }
    }

    /// Four records in two partitions: one refused, one undecodable, one brought twice.
    fn right() -> Facts {
        let stored = BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]);
        Facts {
            acknowledged: stored.clone(),
            undecodable: BTreeSet::from([(1, 1)]),
            deliveries: vec![
                delivery(0, 0, None),
                delivery(1, 0, Some(false)),
                delivery(0, 0, Some(true)),
                delivery(0, 1, Some(true)),
            ],
            stored,
            dead_letters: vec![(1, 0), (1, 1)],
            audited_produced: 4,
            audited_consumed: 4,
            committed: BTreeMap::from([(0, 2), (1, 2)]),
        }
    }

    fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = right();
        change(&mut facts);
        Tally::of(&facts).0.iter().filter(|row| row.fault.is_some()).map(|row| row.name).collect()
    }

    #[test]
    fn what_is_right_is_counted() {
        let tally = Tally::of(&right());
        assert!(tally.is_right(), "{tally}");
        let counts: Vec<_> = tally.0.iter().map(|row| row.count).collect();
        assert_eq!(counts, [4, 3, 1, 2, 8, 0, 0, 0, 0]);
    }

    #[test]
    fn each_way_to_be_wrong_is_seen() {
        assert_eq!(
            wrong(|facts| {
                facts.acknowledged.insert((5, 5));
            }),
            ["produced", "lost"]
        );
        assert_eq!(
            wrong(|facts| {
                facts.deliveries.pop();
            }),
            ["delivered", "skipped"]
        );
        assert_eq!(wrong(|facts| facts.deliveries.push(delivery(0, 1, Some(true)))), ["redelivered"]);
        assert_eq!(
            wrong(|facts| {
                facts.dead_letters.pop();
            }),
            ["dead-lettered", "skipped"]
        );
        assert_eq!(wrong(|facts| facts.dead_letters.push((1, 1))), ["dead-lettered"]);
        assert_eq!(wrong(|facts| facts.audited_produced = 3), ["audited"]);
        assert_eq!(wrong(|facts| facts.deliveries.swap(2, 3)), Vec::<&str>::new());
        assert_eq!(wrong(|facts| facts.deliveries.swap(0, 3)), ["out of order"]);
        assert_eq!(
            wrong(|facts| {
                facts.committed.insert(0, 1);
            }),
            ["left behind"]
        );
    }
}
