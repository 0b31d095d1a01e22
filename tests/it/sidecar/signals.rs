//! SIGKILL and SIGTERM under load, twenty times each: every record is delivered, commits never run ahead, and what comes
//! twice is only what was under way.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;

use super::load::{Load, PARTITIONS};
use crate::support::{
    backend::Backend,
    kafka::{self, Kafka, VERSIONS},
    operator::PATIENCE,
    process::{Sidecar, complaints},
};

const SIGNALS: usize = 20;

type Offsets = BTreeMap<i32, BTreeSet<i64>>;

/// What was delivered so far.
fn delivered(backend: &Backend) -> Offsets {
    let history = backend.history();
    (0..PARTITIONS).map(|partition| (partition, history.deliveries(partition).into_iter().collect())).collect()
}

/// What was delivered since so many calls were there, each record at most once, of what came before only what is in `may`.
fn only_what_was_under_way_came_again(backend: &Backend, since: usize, before: &Offsets, may: &Offsets) -> Result<()> {
    let mut came = Offsets::new();
    for seen in &backend.history().calls()[since..] {
        let partition = seen.call.partition;
        for offset in &seen.call.offsets {
            let first = came.entry(partition).or_default().insert(*offset);
            ensure!(first, "{partition}@{offset} came twice to one process: {seen:?}");
            let known = before.get(&partition).is_some_and(|known| known.contains(offset));
            let allowed = may.get(&partition).is_some_and(|may| may.contains(offset));
            ensure!(!known || allowed, "{partition}@{offset} was finished and committed, and came again");
        }
    }
    Ok(())
}

/// Kills a sidecar in the midst of its work, and says what may come again: what was in flight, and what was finished and
/// not committed.
async fn kill(load: &Load, sidecar: Sidecar) -> Result<Offsets> {
    sidecar.kill()?;
    load.backend.until("its connections are gone", PATIENCE, |history| history.connections() == 0).await?;
    // Nobody commits any more.
    let committed = load.operator.committed(&load.topic, &load.topic).await?;
    let mut may = delivered(&load.backend);
    for (partition, offsets) in &mut may {
        let committed = committed.get(partition).copied().unwrap_or(0);
        offsets.retain(|offset| *offset >= committed);
    }
    Ok(may)
}

async fn sigkill(kafka: &Kafka) -> Result<()> {
    let load = Load::start(kafka, "sigkill", 5).await?;
    // A killed member is waited for until its session is over.
    let settings = load.sidecar(kafka).consumer("session.timeout.ms", 2000).consumer("heartbeat.interval.ms", 300);
    let mut random = fastrand::Rng::with_seed(4);
    let mut may = Offsets::new();
    let (mut most, mut commits) = (0, BTreeSet::new());
    for round in 0..=SIGNALS {
        let (before, since) = (delivered(&load.backend), load.backend.history().calls().len());
        let sidecar = settings.start()?;
        if round < SIGNALS {
            load.calls(1 + random.usize(..100))
                .await
                .with_context(|| format!("round {round}: {:#?}", sidecar.log()))?;
            ensure!(!load.all_done(), "round {round}: there must be load to the end");
            let killed = kill(&load, sidecar).await?;
            only_what_was_under_way_came_again(&load.backend, since, &before, &may)
                .with_context(|| format!("round {round}"))?;
            may = killed;
            most = most.max(may.values().map(BTreeSet::len).sum());
            commits.insert(load.operator.committed(&load.topic, &load.topic).await?.values().sum::<i64>());
        } else {
            load.drained().await.with_context(|| format!("{:#?}", sidecar.log()))?;
            sidecar.stop()?;
            only_what_was_under_way_came_again(&load.backend, since, &before, &may).context("the last round")?;
        }
    }
    eprintln!("SIGKILL {SIGNALS} times: at most {most} records were under way");
    ensure!(commits.len() > SIGNALS / 4, "the commits must move under load: {commits:?}");
    load.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_under_load_it_loses_nothing_and_repeats_only_what_was_under_way() -> Result<()> {
    let kafkas = VERSIONS.into_iter().filter_map(|version| kafka::shared(version, "killed_twenty_times_under_load"));
    try_join_all(kafkas.map(sigkill)).await.map(drop)
}

async fn sigterm(kafka: &Kafka) -> Result<()> {
    let load = Load::start(kafka, "sigterm", 5).await?;
    let settings = load.sidecar(kafka);
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..=SIGNALS {
        let sidecar = settings.start()?;
        if round < SIGNALS {
            load.calls(1 + random.usize(..100))
                .await
                .with_context(|| format!("round {round}: {:#?}", sidecar.log()))?;
            ensure!(!load.all_done(), "round {round}: there must be load to the end");
        } else {
            load.drained().await.with_context(|| format!("{:#?}", sidecar.log()))?;
        }
        sidecar.terminate()?;
        let (status, log) = sidecar.ended().await?;
        ensure!(status.success(), "round {round}: exit {status}: {log:#?}");
        ensure!(log.last().is_some_and(|line| line.contains("shutdown completed")), "round {round}: {log:#?}");
        ensure!(complaints(&log).is_empty(), "round {round}: {:#?}", complaints(&log));
        for partition in 0..PARTITIONS {
            let deliveries = load.backend.history().deliveries(partition);
            let each_once: Vec<i64> = (0..deliveries.len() as i64).collect();
            ensure!(deliveries == each_once, "round {round}: partition {partition}: {deliveries:?}");
        }
    }
    load.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_twenty_times_under_load_it_ends_in_order_and_repeats_nothing() -> Result<()> {
    let kafkas = VERSIONS.into_iter().filter_map(|version| kafka::shared(version, "stopped_twenty_times_under_load"));
    try_join_all(kafkas.map(sigterm)).await.map(drop)
}
