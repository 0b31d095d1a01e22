//! What an answer means for the records of a batch: a pure decision.
//!
//! It knows nothing of HTTP calls, brokers or clocks. [`plan`] is the door; the rows of its table stand in the tests.

use std::time::Duration;

use crate::{backend::Answer, record::Verdict};

/// Rollbacks of a batch where `maxRetries` is not set.
const ROLLBACKS: u32 = 3;
/// A smaller batch is never rolled back.
const ROLLBACK_MINIMUM: usize = 10;

/// What the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// None: for ever.
    pub(crate) max_retries: Option<u32>,
    /// Percent of refused records above which a batch is sent again as a whole.
    pub(crate) rollback_threshold: Option<u8>,
}

/// What is known of the batch that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// At least 1.
    pub(crate) records: usize,
    /// Deliveries that were charged so far; only a batch of one can have some.
    pub(crate) attempts: u32,
    /// How often it was rolled back.
    pub(crate) rollbacks: u32,
    /// Whether the backend answered other work or its health path while this batch was out, and is still there.
    pub(crate) backend_answered: bool,
    /// Whether it went out by a connection of its own. One that was kept may be closed by the backend, for its age, while
    /// a request comes: that says nothing about the request.
    pub(crate) own_connection: bool,
}

/// What becomes of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Processed(Verdict),
    /// A dead letter, where those are on. The verdict is empty unless the backend refused it.
    Failed {
        failure: Failure,
        verdict: Verdict,
        reason: String,
        attempts: u32,
    },
}

/// Why a record failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// `processed: false`.
    Refused,
    /// `maxRetries` is used up.
    Exhausted,
    /// It never went to the backend.
    Undecodable,
}

/// What becomes of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Every record has its fate, in the order of the batch.
    Finished(Vec<Fate>),
    /// The backend cannot take work now: again when it may be asked again. Nothing is charged.
    Unavailable { retry_after: Option<Duration>, reason: String },
    /// The same batch again after a back-off.
    Again { charged: bool, reason: String },
    /// The whole batch again after a back-off, since too much of it was refused.
    RolledBack { refused: usize },
    /// Its two halves, each on its own. Nothing is charged.
    Halved { reason: String },
}

/// Decides. A batch of several records is never charged: it is halved until the culprit stands alone.
pub(crate) fn plan(facts: Facts, answer: Answer, policy: Policy) -> Settlement {
    match answer {
        Answer::Verdicts(verdicts) => judged(facts, verdicts, policy),
        Answer::Unreachable(reason) => Settlement::Unavailable { retry_after: None, reason },
        Answer::Refused { status: status @ (408 | 425 | 429 | 502 | 503 | 504), retry_after } => {
            Settlement::Unavailable { retry_after, reason: format!("the backend answered {status}") }
        }
        Answer::Refused { status, .. } => failed(facts, format!("the backend answered {status}"), true, policy),
        Answer::Malformed(reason) => {
            failed(facts, format!("the backend's answer is malformed: {reason}"), true, policy)
        }
        Answer::Late => failed(facts, "the backend did not answer in time".into(), facts.backend_answered, policy),
        Answer::Lost(reason) => {
            let reason = format!("the connection to the backend was lost after sending: {reason}");
            failed(facts, reason, facts.backend_answered && facts.own_connection, policy)
        }
    }
}

fn judged(facts: Facts, verdicts: Vec<Verdict>, policy: Policy) -> Settlement {
    let refused = verdicts.iter().filter(|verdict| !verdict.processed).count();
    if let Some(percent) = policy.rollback_threshold
        && facts.records >= ROLLBACK_MINIMUM
        && refused * 100 > facts.records * usize::from(percent)
        && facts.rollbacks < policy.max_retries.unwrap_or(ROLLBACKS)
    {
        return Settlement::RolledBack { refused };
    }
    let attempts = facts.attempts.saturating_add(facts.rollbacks).saturating_add(1);
    let fates = verdicts.into_iter().map(|verdict| match verdict.processed {
        true => Fate::Processed(verdict),
        false => {
            let reason = "the backend refused the record".into();
            Fate::Failed { failure: Failure::Refused, verdict, reason, attempts }
        }
    });
    Settlement::Finished(fates.collect())
}

fn failed(facts: Facts, reason: String, charged: bool, policy: Policy) -> Settlement {
    if facts.records > 1 {
        return Settlement::Halved { reason };
    }
    let attempts = facts.attempts.saturating_add(u32::from(charged));
    if charged && policy.max_retries.is_some_and(|retries| attempts > retries) {
        let (failure, verdict) = (Failure::Exhausted, Verdict::default());
        return Settlement::Finished(vec![Fate::Failed { failure, verdict, reason, attempts }]);
    }
    Settlement::Again { charged, reason }
}

/// The delay before a failed batch or an absent backend is tried again: `first`, doubling with each failure up to `max`,
/// less up to half of it by chance. `failures` counts from 1.
pub(crate) fn delay(failures: u32, first: Duration, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let full = first.saturating_mul(1 << doublings).min(max);
    full.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: Policy = Policy { max_retries: None, rollback_threshold: None };

    fn retries(max_retries: u32) -> Policy {
        Policy { max_retries: Some(max_retries), ..FOR_EVER }
    }

    fn facts(records: usize) -> Facts {
        Facts { records, attempts: 0, rollbacks: 0, backend_answered: false, own_connection: false }
    }

    fn charged(attempts: u32) -> Facts {
        Facts { attempts, ..facts(1) }
    }

    fn answered(facts: Facts) -> Facts {
        Facts { backend_answered: true, ..facts }
    }

    fn own(facts: Facts) -> Facts {
        Facts { own_connection: true, ..facts }
    }

    fn status(status: u16) -> Answer {
        Answer::Refused { status, retry_after: None }
    }

    fn verdicts(processed: &[bool]) -> Answer {
        Answer::Verdicts(
            processed.iter().map(|processed| Verdict { processed: *processed, ..Verdict::default() }).collect(),
        )
    }

    /// `Finished` as one letter per record (p = processed, or f with the attempts), the rest as a word.
    fn shown(settlement: &Settlement) -> String {
        match settlement {
            Settlement::Finished(fates) => fates
                .iter()
                .map(|fate| match fate {
                    Fate::Processed(_) => "p".to_owned(),
                    Fate::Failed { attempts, .. } => format!("f{attempts}"),
                })
                .collect(),
            Settlement::Unavailable { retry_after: Some(after), .. } => format!("unavailable {}", after.as_secs()),
            Settlement::Unavailable { retry_after: None, .. } => "unavailable".into(),
            Settlement::Again { charged: true, .. } => "again, charged".into(),
            Settlement::Again { charged: false, .. } => "again".into(),
            Settlement::RolledBack { refused } => format!("rolled back {refused}"),
            Settlement::Halved { .. } => "halved".into(),
        }
    }

    #[test]
    fn the_failure_table() {
        let lost = || Answer::Lost("reset".into());
        let malformed = || Answer::Malformed("x".into());
        let unreachable = || Answer::Unreachable("refused".into());
        let rows = [
            // It speaks about the backend: nobody is charged, nothing is halved, however often.
            (facts(4), unreachable(), retries(0), "unavailable"),
            (charged(9), unreachable(), retries(0), "unavailable"),
            (facts(4), status(408), retries(0), "unavailable"),
            (facts(1), status(425), retries(0), "unavailable"),
            (facts(1), status(429), retries(0), "unavailable"),
            (facts(1), status(502), retries(0), "unavailable"),
            (facts(1), status(503), retries(0), "unavailable"),
            (facts(1), status(504), retries(0), "unavailable"),
            (
                facts(4),
                Answer::Refused { status: 503, retry_after: Some(Duration::from_secs(7)) },
                FOR_EVER,
                "unavailable 7",
            ),
            // Another status or a malformed answer: halved, and the culprit alone is charged.
            (facts(4), status(500), retries(0), "halved"),
            (facts(2), status(400), retries(0), "halved"),
            (facts(2), malformed(), retries(0), "halved"),
            (charged(0), status(500), FOR_EVER, "again, charged"),
            (charged(1000), status(500), FOR_EVER, "again, charged"),
            (charged(0), status(500), retries(0), "f1"),
            (charged(0), status(404), retries(2), "again, charged"),
            (charged(1), malformed(), retries(2), "again, charged"),
            (charged(2), malformed(), retries(2), "f3"),
            // No reply, or lost after sending: charged only alone, and only if the backend answered something meanwhile;
            // lost, only if the connection was not an old one.
            (facts(3), Answer::Late, retries(0), "halved"),
            (answered(facts(3)), Answer::Late, retries(0), "halved"),
            (facts(3), lost(), retries(0), "halved"),
            (charged(0), Answer::Late, retries(0), "again"),
            (charged(9), lost(), retries(0), "again"),
            (answered(charged(0)), Answer::Late, retries(1), "again, charged"),
            (answered(charged(1)), Answer::Late, retries(1), "f2"),
            (answered(charged(1)), lost(), retries(1), "again"),
            (own(charged(1)), lost(), retries(1), "again"),
            (own(answered(charged(1))), lost(), retries(1), "f2"),
            (own(answered(charged(7))), lost(), FOR_EVER, "again, charged"),
            // Each verdict is about its record only.
            (facts(3), verdicts(&[true, false, true]), retries(5), "pf1p"),
            (charged(2), verdicts(&[true]), retries(2), "p"),
            (charged(2), verdicts(&[false]), FOR_EVER, "f3"),
        ];
        for (facts, answer, policy, expected) in rows {
            let settlement = plan(facts, answer.clone(), policy);
            assert_eq!(shown(&settlement), expected, "{facts:?} {answer:?} {policy:?}");
        }
    }

    #[test]
    fn a_batch_above_the_threshold_is_rolled_back_and_then_judged() {
        let policy = |max_retries| Policy { max_retries, rollback_threshold: Some(30) };
        let refused = |refused: usize, of: usize| {
            let verdicts: Vec<bool> = (0..of).map(|index| index >= refused).collect();
            (of, self::verdicts(&verdicts))
        };
        let rows = [
            (refused(3, 10), 0, None, "f1f1f1ppppppp"),
            (refused(4, 10), 0, None, "rolled back 4"),
            (refused(4, 10), 2, None, "rolled back 4"),
            (refused(4, 10), 3, None, "f4f4f4f4pppppp"),
            (refused(4, 10), 1, Some(1), "f2f2f2f2pppppp"),
            (refused(4, 10), 0, Some(0), "f1f1f1f1pppppp"),
            (refused(10, 10), 4, Some(5), "rolled back 10"),
            (refused(9, 9), 0, None, "f1f1f1f1f1f1f1f1f1"),
        ];
        for ((records, answer), rollbacks, max_retries, expected) in rows {
            let facts = Facts { rollbacks, ..facts(records) };
            assert_eq!(shown(&plan(facts, answer, policy(max_retries))), expected, "{records} {rollbacks}");
        }
        let (_, all_refused) = refused(10, 10);
        let settled = plan(facts(10), all_refused, FOR_EVER);
        assert!(matches!(settled, Settlement::Finished(_)), "off unless it is set");
        let (_, answer) = refused(10, 10);
        let never = Policy { rollback_threshold: Some(100), ..FOR_EVER };
        assert!(matches!(plan(facts(10), answer, never), Settlement::Finished(_)), "more than 100 % cannot fail");
    }

    #[test]
    fn delays_double_up_to_their_bound() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (u32::MAX, 2000)] {
            for _ in 0..100 {
                let full = Duration::from_millis(full);
                let delay = delay(failures, first, max);
                assert!(delay <= full && delay >= full / 2, "{failures}: {delay:?}");
            }
        }
        assert!(delay(1, Duration::from_secs(60), max) <= max);
    }
}
