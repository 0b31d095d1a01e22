//! Two sidecars in one group: one joins and leaves under load, and what does not move does not notice.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::load::{Load, PARTITIONS, RECORDS};
use crate::support::{
    history::History,
    kafka::{self, Kafka, VERSIONS},
    operator::PATIENCE,
    process::complaints,
};

const ROUNDS: usize = 5;
const ASSIGNED: &str = "partitions assigned";
const GIVEN_UP: &str = "partitions are to be given up: what is in flight finishes first";

/// The partitions that a log entry names.
fn partitions(entry: &Value) -> Result<BTreeSet<i32>> {
    let names = entry["partitions"].as_str().context("names")?.split(", ");
    names.map(|name| Ok(name.rsplit('-').next().context("a number")?.parse()?)).collect()
}

/// Calls for a partition that came to a path.
fn calls(history: &History, partition: i32, path: &str) -> usize {
    history.calls().iter().filter(|seen| seen.call.partition == partition && seen.call.path == path).count()
}

/// Waits until each of the partitions has got so many more calls at this path.
async fn goes_on(load: &Load, partitions: &BTreeSet<i32>, path: &str, more: usize) -> Result<()> {
    let counts = |history: &History| -> Vec<usize> { partitions.iter().map(|p| calls(history, *p, path)).collect() };
    let before = counts(&load.backend.history());
    let went_on = |history: &History| counts(history).iter().zip(&before).all(|(now, then)| *now >= then + more);
    load.backend.until(&format!("{partitions:?} go on at {path}"), PATIENCE, went_on).await
}

async fn joins_and_leaves(kafka: &Kafka) -> Result<()> {
    let load = Load::start(kafka, "sharing", 30).await?;
    let sidecar =
        |path: &str| load.sidecar(kafka).consumer("batchMaxRecords", 2).consumer("backendApiPath", path).start();
    let everything: BTreeSet<i32> = (0..PARTITIONS).collect();
    let one = sidecar("/one")?;
    goes_on(&load, &everything, "/one", 3).await?;
    for round in 1..=ROUNDS {
        ensure!(!load.all_done(), "round {round}: there must be load to the end");
        // What is in flight is kept there, so that the hand-over takes as long as we like.
        everything.iter().for_each(|partition| load.backend.hold(*partition));
        let other = sidecar("/other")?;
        let moved = partitions(&one.logged(GIVEN_UP, round, PATIENCE).await?)?;
        let kept: BTreeSet<i32> = everything.difference(&moved).copied().collect();
        ensure!(moved.len() == 2 && kept.len() == 2, "round {round}: {moved:?} move, {kept:?} stay");
        kept.iter().for_each(|partition| load.backend.release(*partition));
        let during = goes_on(&load, &kept, "/one", 10).await;
        during.with_context(|| format!("round {round}, {moved:?} move: {:#?} {:#?}", one.log(), other.log()))?;
        ensure!(other.entries(ASSIGNED).is_empty(), "round {round}: what is not given up yet went to another");
        moved.iter().for_each(|partition| load.backend.release(*partition));
        goes_on(&load, &moved, "/other", 10).await.context("after the hand-over")?;
        goes_on(&load, &kept, "/one", 1).await?;

        moved.iter().for_each(|partition| load.backend.hold(*partition));
        other.terminate()?;
        other.logged(GIVEN_UP, 1, PATIENCE).await?;
        goes_on(&load, &kept, "/one", 10).await.context("while the other one leaves")?;
        moved.iter().for_each(|partition| load.backend.release(*partition));
        let (status, log) = other.ended().await?;
        ensure!(status.success() && complaints(&log).is_empty(), "round {round}: exit {status}: {log:#?}");
        goes_on(&load, &moved, "/one", 3).await.context("after the other one left")?;
        // What stayed was never assigned anew.
        let again = one.entries(ASSIGNED).iter().skip(1).map(partitions).collect::<Result<Vec<_>>>()?;
        ensure!(again.len() == round && again.last() == Some(&moved), "round {round}: {again:?}");
    }
    load.drained().await?;
    let log = one.stop()?;
    ensure!(complaints(&log).is_empty(), "{:#?}", complaints(&log));
    {
        let history = load.backend.history();
        ensure!(history.overlaps.is_empty(), "{:?}", history.overlaps);
        for partition in 0..PARTITIONS {
            ensure!(
                history.deliveries(partition) == (0..RECORDS).collect::<Vec<_>>(),
                "partition {partition}: each once"
            );
        }
    }
    load.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_joins_and_leaves_under_load_and_partitions_that_do_not_move_never_pause() -> Result<()> {
    let kafkas = VERSIONS.into_iter().filter_map(|version| kafka::shared(version, "one_joins_and_leaves_under_load"));
    try_join_all(kafkas.map(joins_and_leaves)).await.map(drop)
}
