//! A topic full of records, a backend that works at it, and somebody who compares commits with verdicts all the time.
//!
//! [`Load`] is its main type.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use super::scene::Reactive;
use crate::support::{
    backend::{Backend, Reply},
    kafka::Kafka,
    operator::{Operator, PATIENCE},
};

pub(super) const PARTITIONS: i32 = 4;
/// Records of each partition.
pub(super) const RECORDS: i64 = 6000;

/// A topic full of records, a backend that works at it, and somebody who looks at the commits all the time.
pub(super) struct Load {
    pub(super) operator: Arc<Operator>,
    pub(super) backend: Arc<Backend>,
    pub(super) topic: String,
    looking: JoinHandle<Result<()>>,
    looks: Arc<AtomicUsize>,
    working: Arc<AtomicBool>,
}

impl Load {
    /// A call takes so many milliseconds, and up to 6 more, until [`Load::drained`].
    pub(super) async fn start(kafka: &Kafka, topic: &str, millis: u64) -> Result<Self> {
        let operator = Arc::new(Operator::of(kafka)?);
        let working = Arc::new(AtomicBool::new(true));
        let slow = working.clone();
        let work = move |number: usize| if slow.load(Ordering::SeqCst) { millis + number as u64 % 7 } else { 0 };
        let backend = Arc::new(Backend::start(move |call| Reply::Processed.after(work(call.number))).await?);
        operator.create(topic, PARTITIONS).await?;
        operator.fill(topic, PARTITIONS, RECORDS).await?;
        let looks = Arc::default();
        let looking = tokio::spawn(look(operator.clone(), backend.clone(), topic.to_owned(), Arc::clone(&looks)));
        Ok(Self { operator, backend, topic: topic.to_owned(), looking, looks, working })
    }

    pub(super) fn sidecar(&self, kafka: &Kafka) -> Reactive {
        Reactive::new(kafka, &self.topic, &self.backend.url())
            .consumer("batchMaxRecords", 10)
            .consumer("auditEnabled", true)
            .consumer("auditTopic", format!("{}-audit", self.topic))
    }

    /// A while of load: until so many more calls have begun.
    pub(super) async fn calls(&self, more: usize) -> Result<()> {
        let before = self.backend.history().calls().len();
        self.backend.until("the load goes on", PATIENCE, |history| history.calls().len() >= before + more).await
    }

    pub(super) fn all_done(&self) -> bool {
        let history = self.backend.history();
        (0..PARTITIONS).all(|partition| history.lowest_unfinished(partition) == RECORDS)
    }

    /// Waits for the rest, which takes no time any more.
    pub(super) async fn drained(&self) -> Result<()> {
        self.working.store(false, Ordering::SeqCst);
        let all = (RECORDS * i64::from(PARTITIONS)) as usize;
        self.backend.until("every record has a verdict", PATIENCE, |history| history.finished() == all).await
    }

    /// Nobody looked in vain, everything was delivered first in order, and everything is committed.
    pub(super) async fn finish(self) -> Result<()> {
        self.looking.abort();
        if let Ok(looked) = self.looking.await {
            looked?;
        }
        let looks = self.looks.load(Ordering::SeqCst);
        ensure!(looks >= 100, "only {looks} looks at the commits");
        for partition in 0..PARTITIONS {
            let first = self.backend.history().first_deliveries(partition);
            ensure!(first == (0..RECORDS).collect::<Vec<_>>(), "partition {partition}: first deliveries out of order");
        }
        let committed = self.operator.committed(&self.topic, &self.topic).await?;
        let expected: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, RECORDS)).collect();
        ensure!(committed == expected, "{committed:?}");
        Ok(())
    }
}

/// Compares what is committed with what has verdicts, after every event of the backend.
async fn look(operator: Arc<Operator>, backend: Arc<Backend>, topic: String, looks: Arc<AtomicUsize>) -> Result<()> {
    let mut events = backend.events();
    while events.changed().await.is_ok() {
        let committed = operator.committed(&topic, &topic).await?;
        // What has a verdict by now had perhaps none when the broker answered; what has none now had none then.
        let history = backend.history();
        for (partition, committed) in committed {
            let lowest = history.lowest_unfinished(partition);
            ensure!(committed <= lowest, "partition {partition}: {committed} is committed and {lowest} has no verdict");
        }
        looks.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}
