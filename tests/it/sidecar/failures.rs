//! A backend that fails in every way there is: nothing is lost, skipped or reordered, and nobody pays for another.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Reactive;
use crate::support::{
    backend::{Backend, Call, Reply},
    kafka::{self, Kafka, VERSIONS},
    operator::{Operator, PATIENCE},
    process::{Sidecar, complaints},
};

const PARTITIONS: i32 = 2;
/// Records of each partition.
const RECORDS: i64 = 40;

/// Every record of `fill` has its verdict, was judged once and in order, and is committed; and the sidecar stops well.
async fn all_settled_in_order(
    operator: &Operator,
    topic: &str,
    backend: &Backend,
    sidecar: Sidecar,
) -> Result<Vec<String>> {
    let all = (RECORDS * i64::from(PARTITIONS)) as usize;
    backend.until("all records have verdicts", PATIENCE, |history| history.finished() >= all).await?;
    let log = sidecar.stop()?;
    ensure!(log.last().is_some_and(|line| line.contains("shutdown completed")), "{log:#?}");
    {
        let history = backend.history();
        for partition in 0..PARTITIONS {
            let expected: Vec<i64> = (0..RECORDS).collect();
            assert_eq!(history.verdicts(partition), expected, "{topic}-{partition}: each once, in order");
            assert_eq!(history.first_deliveries(partition), expected, "{topic}-{partition}: none is passed over");
        }
        assert_eq!(history.overlaps, [""; 0]);
    }
    let committed = operator.committed(topic, topic).await?;
    assert_eq!(committed.into_iter().collect::<Vec<_>>(), [(0, RECORDS), (1, RECORDS)], "{topic}");
    assert_eq!(operator.sizes(&format!("{topic}.dlq")).await?, None, "{topic}: no dead letter");
    Ok(log)
}

/// The verdicts of a call, to be made worse.
fn verdicts(call: &Call) -> Vec<Value> {
    call.records.iter().map(|record| json!({"record": record, "processed": true})).collect()
}

fn answer(verdicts: &[Value]) -> Reply {
    Reply::Literal(200, Value::from(verdicts).to_string())
}

fn too_few(call: &Call) -> Reply {
    answer(&verdicts(call)[1..])
}

fn foreign(call: &Call) -> Reply {
    let mut verdicts = verdicts(call);
    verdicts[0]["record"]["offset"] = json!(1_000_000);
    answer(&verdicts)
}

fn duplicate(call: &Call) -> Reply {
    let mut verdicts = verdicts(call);
    verdicts.push(verdicts[0].clone());
    answer(&verdicts)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_backend_answers_for_a_while_nothing_is_lost_skipped_or_reordered() -> Result<()> {
    type Fault = fn(&Call) -> Reply;
    let faults: [(&str, Fault); 8] = [
        ("failing-error-500", |_| Reply::Literal(500, "at X".into())),
        ("failing-busy-503", |_| Reply::Literal(503, String::new())),
        ("failing-garbage", |_| Reply::Literal(200, "<html>it works</html>".into())),
        ("failing-too-few", too_few),
        ("failing-foreign", foreign),
        ("failing-duplicate", duplicate),
        ("failing-closed-after-reading", |_| Reply::Close),
        ("failing-cut-before-reading", |_| Reply::Processed),
    ];
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "whatever_the_backend_answers_for_a_while") else { continue };
        let operator = Operator::of(kafka)?;
        for (name, fault) in faults {
            let backend = Backend::start(move |call| if call.number < 12 { fault(call) } else { Reply::Processed });
            let backend = backend.await?;
            if name == "failing-cut-before-reading" {
                backend.cut(12);
            }
            operator.create(name, PARTITIONS).await?;
            operator.fill(name, PARTITIONS, RECORDS).await?;
            let sidecar = Reactive::new(kafka, name, &backend.url()).consumer("batchMaxRecords", 10).start()?;
            all_settled_in_order(&operator, name, &backend, sidecar).await?;
        }
        operator.close().await;
    }
    Ok(())
}

/// Nothing but one membership from the start to the end.
fn no_rebalance(log: &[String]) {
    let joined = log.iter().filter(|line| line.contains("joined the group")).count();
    assert_eq!(joined, 1, "one generation: {log:#?}");
    assert!(!log.iter().any(|line| line.contains("lost")), "{log:#?}");
    assert_eq!(complaints(log), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_beyond_the_session_timeout_costs_no_rebalance_and_no_redelivery() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "a_backend_that_hangs_beyond_the_session_timeout") else { continue };
        let operator = Operator::of(kafka)?;
        // Two and a half session timeouts.
        let backend =
            Backend::start(|call| Reply::Processed.after(if call.offsets[0] == 0 { 15_000 } else { 0 })).await?;
        operator.create("failing-hang", PARTITIONS).await?;
        operator.fill("failing-hang", PARTITIONS, RECORDS).await?;
        let sidecar = Reactive::new(kafka, "failing-hang", &backend.url()).consumer("batchMaxRecords", 10).start()?;
        let log = all_settled_in_order(&operator, "failing-hang", &backend, sidecar).await?;
        no_rebalance(&log);
        for partition in 0..PARTITIONS {
            assert_eq!(backend.history().deliveries(partition), (0..RECORDS).collect::<Vec<_>>(), "each once");
        }
        operator.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_goes_and_returns_costs_no_record_an_attempt() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "a_backend_that_goes_and_returns") else { continue };
        let operator = Operator::of(kafka)?;
        let backend = Backend::start(|_| Reply::Processed.after(20)).await?;
        operator.create("failing-gone", PARTITIONS).await?;
        operator.fill("failing-gone", PARTITIONS, RECORDS).await?;
        let sidecar = Reactive::new(kafka, "failing-gone", &backend.url())
            .consumer("batchMaxRecords", 1)
            .consumer("maxRetries", 0)
            .start()?;
        for times in 1..=5 {
            let before = backend.history().finished();
            backend.until("work goes on", PATIENCE, |history| history.finished() >= before + 5).await?;
            backend.go().await;
            sidecar.logged("the backend is away; records wait, none is charged", times, PATIENCE).await?;
            backend.come_back().await?;
        }
        all_settled_in_order(&operator, "failing-gone", &backend, sidecar).await?;
        operator.close().await;
    }
    Ok(())
}

/// The record that cannot be digested.
const POISON: i64 = 23;

async fn poison(kafka: &Kafka, topic: &str, digest: fn(&Call) -> Reply, reason: &str) -> Result<()> {
    let operator = Operator::of(kafka)?;
    let backend = Backend::start(digest).await?;
    operator.create(topic, PARTITIONS).await?;
    operator.fill(topic, PARTITIONS, RECORDS).await?;
    let sidecar = Reactive::new(kafka, topic, &backend.url())
        .consumer("batchMaxRecords", 10)
        .consumer("maxRetries", 2)
        .consumer("retryDelayMs", 10)
        .start()?;
    let dead = format!("{topic}.dlq");
    let all = (RECORDS * i64::from(PARTITIONS) - 1) as usize;
    backend.until("all others have verdicts", PATIENCE, |history| history.finished() == all).await?;
    sidecar.stop()?;
    let letters = operator.read(&dead).await?;
    ensure!(letters.len() == 1, "one dead letter: {letters:?}");
    let letter = &letters[0];
    assert_eq!((letter.partition, letter.header("X-Dead-Letter-Offset")), (1, Some("23")));
    assert_eq!(letter.header("X-Dead-Letter-Attempts"), Some("3"), "the first and two more");
    let why = letter.header("X-Dead-Letter-Reason").unwrap_or_default();
    ensure!(why.contains(reason), "{why}");
    let committed = operator.committed(topic, topic).await?;
    assert_eq!(committed.into_iter().collect::<Vec<_>>(), [(0, RECORDS), (1, RECORDS)]);
    {
        let history = backend.history();
        let others: Vec<i64> = (0..RECORDS).filter(|offset| *offset != POISON).collect();
        assert_eq!(history.verdicts(1), others, "in order");
        let alone = history.calls().iter().filter(|seen| seen.call.partition == 1 && seen.call.offsets == [POISON]);
        assert_eq!(alone.count(), 3, "the neighbours only ever failed in its company");
    }
    operator.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_is_the_only_dead_letter_and_its_neighbours_are_not_charged() -> Result<()> {
    fn poisoned(call: &Call) -> bool {
        call.partition == 1 && call.offsets.contains(&POISON)
    }
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "a_poison_record_is_the_only_dead_letter") else { continue };
        poison(
            kafka,
            "failing-poison-500",
            |call| if poisoned(call) { Reply::Literal(500, "at X".into()) } else { Reply::Processed },
            "the backend answered 500",
        )
        .await?;
        poison(
            kafka,
            "failing-poison-garbage",
            |call| if poisoned(call) { Reply::Literal(200, "[".into()) } else { Reply::Processed },
            "malformed",
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hanging_partition_leaves_its_neighbour_alone() -> Result<()> {
    let Some(kafka) = kafka::shared(VERSIONS[0], "one_hanging_partition_leaves_its_neighbour_alone") else {
        return Ok(());
    };
    let operator = Operator::of(kafka)?;
    let backend = Backend::start(|_| Reply::Processed).await?;
    backend.hold(1);
    operator.create("failing-neighbour", PARTITIONS).await?;
    operator.fill("failing-neighbour", PARTITIONS, RECORDS).await?;
    let sidecar = Reactive::new(kafka, "failing-neighbour", &backend.url()).consumer("batchMaxRecords", 1).start()?;
    let done =
        |partition| move |history: &crate::support::history::History| history.lowest_unfinished(partition) == RECORDS;
    backend.until("the neighbour is done", PATIENCE, done(0)).await?;
    assert_eq!(backend.history().lowest_unfinished(1), 0);
    backend.release(1);
    backend.until("the held one is done", PATIENCE, done(1)).await?;
    all_settled_in_order(&operator, "failing-neighbour", &backend, sidecar).await?;
    operator.close().await;
    Ok(())
}
