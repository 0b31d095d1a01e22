//! Somebody who writes numbers all the time, one to each partition in turn, and keeps what became of each.
//!
//! [`Writer`] is the main type.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use protocol::{
    client::Client,
    outcome::Outcome,
    producer::{ProduceError, ProduceErrorKind, ProduceRecord, Producer, ProducerConfig, Receipt},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::scene::{PARTITIONS, Scene};
use crate::support::client;

/// A record to each partition so often.
const PACE: Duration = Duration::from_millis(10);
/// Until a cluster that lost nodes takes records again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a record.
#[derive(Debug)]
enum Fate {
    Open,
    Written(Receipt),
    Failed(ProduceError),
}

/// By partition, and in it by the number that was written.
type Fates = BTreeMap<i32, Vec<Fate>>;

pub(super) struct Writer {
    topic: String,
    fates: Arc<watch::Sender<Fates>>,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
    delivery_timeout: Duration,
}

type Outcomes = FuturesUnordered<Pin<Box<dyn Future<Output = (i32, usize, Result<Receipt, ProduceError>)> + Send>>>;

impl Writer {
    pub(super) fn start(client: &Client, config: ProducerConfig, topic: &str) -> Result<Self> {
        let delivery_timeout = config.delivery_timeout;
        let producer = client::producer(client, config)?;
        let fates = Arc::new(watch::Sender::new((0..PARTITIONS).map(|partition| (partition, Vec::new())).collect()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(producer, topic.into(), fates.clone(), stop.clone()));
        Ok(Self { topic: topic.to_owned(), fates, stop, task, delivery_timeout })
    }

    /// Waits until this holds of the number of records that are written, by partition.
    async fn wait(&self, what: &str, holds: impl Fn(&Fates) -> bool) -> Result<()> {
        let mut fates = self.fates.subscribe();
        let waited = tokio::time::timeout(PATIENCE, fates.wait_for(|fates| holds(fates))).await;
        if waited.is_err() {
            bail!("{what} does not come: {}", summary(&self.fates.borrow()));
        }
        Ok(())
    }

    /// Waits until so many records that are sent from now on are written to each partition.
    pub(super) async fn more(&self, count: usize) -> Result<()> {
        let from: BTreeMap<i32, usize> = self.fates.borrow().iter().map(|(key, fates)| (*key, fates.len())).collect();
        let since = Instant::now();
        let written = |fates: &[Fate]| fates.iter().filter(|fate| matches!(fate, Fate::Written(_))).count();
        let enough = |fates: &Fates| {
            fates.iter().all(|(partition, fates)| fates.get(from[partition]..).is_some_and(|new| written(new) >= count))
        };
        self.wait("more", enough).await?;
        eprintln!("  {count} more records to each partition after {:?}", since.elapsed());
        Ok(())
    }

    /// Waits until a record that was sent from now on was given up, on each partition.
    pub(super) async fn given_up(&self) -> Result<()> {
        let from: BTreeMap<i32, usize> = self.fates.borrow().iter().map(|(key, fates)| (*key, fates.len())).collect();
        let failed = |fates: &Fates| {
            let any = |fates: &[Fate]| fates.iter().any(|fate| matches!(fate, Fate::Failed(_)));
            fates.iter().all(|(partition, fates)| fates.get(from[partition]..).is_some_and(any))
        };
        self.wait("a failure", failed).await
    }

    /// Writes no more, and waits for every outcome.
    pub(super) async fn finish(self) -> Result<Written> {
        self.stop.cancel();
        let ended = tokio::time::timeout(self.delivery_timeout + PATIENCE, self.task).await;
        ended.with_context(|| format!("it hangs: {}", summary(&self.fates.borrow())))???;
        Ok(Written { topic: self.topic, fates: self.fates.send_replace(Fates::new()) })
    }
}

async fn write(
    producer: Producer,
    topic: Arc<str>,
    fates: Arc<watch::Sender<Fates>>,
    stop: CancellationToken,
) -> Result<()> {
    let mut outcomes = Outcomes::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some((partition, number, outcome)) = outcomes.next() => settle(&fates, partition, number, outcome)?,
            _ = pace.tick() => {
                for partition in 0..PARTITIONS {
                    let value = Some(Bytes::from(number.to_string()));
                    let record =
                        ProduceRecord { topic: topic.clone(), partition: Some(partition), value, ..Default::default() };
                    fates.send_if_modified(|fates| {
                        fates.entry(partition).or_default().push(Fate::Open);
                        false
                    });
                    match producer.send(record).await {
                        Ok(delivery) => outcomes.push(delivery.map(move |outcome| (partition, number, outcome)).boxed()),
                        Err(error) => settle(&fates, partition, number, Err(error))?,
                    }
                }
                number += 1;
            }
        }
    }
    while let Some((partition, number, outcome)) = outcomes.next().await {
        settle(&fates, partition, number, outcome)?;
    }
    ensure!(producer.close(PATIENCE).await == 0, "what is settled is not left");
    Ok(())
}

fn settle(
    fates: &watch::Sender<Fates>,
    partition: i32,
    number: usize,
    outcome: Result<Receipt, ProduceError>,
) -> Result<()> {
    let fate = match outcome {
        Ok(receipt) => Fate::Written(receipt),
        Err(error) => Fate::Failed(error),
    };
    let mut place = Err(anyhow::anyhow!("partition {partition} has no record {number}"));
    fates.send_modify(|fates| {
        if let Some(open) = fates.get_mut(&partition).and_then(|fates| fates.get_mut(number)) {
            *open = fate;
            place = Ok(());
        }
    });
    place
}

fn summary(fates: &Fates) -> String {
    let of = |(partition, fates): (&i32, &Vec<Fate>)| {
        let open = fates.iter().filter(|fate| matches!(fate, Fate::Open)).count();
        let last = fates.iter().rev().find(|fate| !matches!(fate, Fate::Open));
        format!("partition {partition}: {open} of {} open, last outcome {last:?}", fates.len())
    };
    fates.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// All that was written, and what became of it.
pub(super) struct Written {
    topic: String,
    fates: Fates,
}

impl Written {
    pub(super) fn failures(&self) -> impl Iterator<Item = &ProduceError> {
        self.fates.values().flatten().filter_map(|fate| if let Fate::Failed(error) = fate { Some(error) } else { None })
    }

    pub(super) fn all_succeeded(&self) -> Result<()> {
        match self.failures().next() {
            Some(error) => bail!("{} records failed, the first: {error}", self.failures().count()),
            None => Ok(()),
        }
    }

    /// Every outcome was true: what was acknowledged stands there once, where its receipt says; what was refused or not sent
    /// stands nowhere; of what is in doubt nothing stands twice. And all in order. The end of each partition.
    pub(super) fn is_what_stands_there(&self, scene: &Scene) -> Result<BTreeMap<i32, i64>> {
        let mut logs = scene.read(&self.topic)?;
        let mut ends = BTreeMap::new();
        let (mut unknown_offsets, mut in_doubt, mut in_doubt_written) = (0, 0, 0);
        for (partition, fates) in &self.fates {
            let log = logs.remove(&(self.topic.clone(), *partition)).unwrap_or_default();
            ends.insert(*partition, log.last().map_or(0, |(offset, _)| offset + 1));
            let mut offsets = BTreeMap::new();
            let mut last = None;
            for (offset, sample) in &log {
                let value = sample.value.as_deref().context("a value")?;
                let number: usize = std::str::from_utf8(value)?.parse()?;
                let twice = offsets.insert(number, *offset);
                ensure!(twice.is_none(), "{partition}: {number} stands at {twice:?} and at {offset}");
                ensure!(last < Some(number), "{partition}: {number} stands behind {last:?}");
                last = Some(number);
            }
            for (number, fate) in fates.iter().enumerate() {
                let stands = offsets.get(&number).copied();
                let true_word = match fate {
                    Fate::Open => false,
                    Fate::Written(receipt) => match receipt.offset {
                        Some(offset) => stands == Some(offset),
                        None => {
                            unknown_offsets += 1;
                            stands.is_some()
                        }
                    },
                    Fate::Failed(error) if error.outcome == Outcome::Unknown => {
                        in_doubt += 1;
                        in_doubt_written += usize::from(stands.is_some());
                        true
                    }
                    Fate::Failed(_) => stands.is_none(),
                };
                ensure!(true_word, "{partition}: {number} stands at {stands:?}; it was told {fate:?}");
            }
        }
        eprintln!(
            "  of {} records {} failed ({in_doubt} in doubt, of which {in_doubt_written} were written); \
             {unknown_offsets} receipts without an offset",
            self.fates.values().map(Vec::len).sum::<usize>(),
            self.failures().count()
        );
        Ok(ends)
    }

    /// Nothing but the delivery timeout ended a record.
    pub(super) fn failed_by_time_only(&self) -> Result<()> {
        for error in self.failures() {
            ensure!(matches!(error.kind, ProduceErrorKind::DeliveryTimeout { .. }), "{error}");
        }
        Ok(())
    }
}
