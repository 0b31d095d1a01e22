//! A member of ours and one of librdkafka in one group, whoever came first: they share the partitions, and nothing is lost,
//! read twice or out of order when one comes or leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::{
    budget::Budget,
    client::Client,
    consumer::{Assignor, Committer, Consumer, ConsumerConfig, Event, PartitionStream},
    producer::ProducerConfig,
};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    librdkafka,
    support::kafka::{self, Kafka, VERSIONS},
    witness::{
        ours::{self, PATIENCE},
        samples::Sample,
    },
};

const PARTITIONS: i32 = 6;
/// Written each time that the group has come to rest.
const ROUND: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Us,
    Librdkafka,
}

/// What both members have seen and what each of them holds.
#[derive(Debug, Default)]
struct Seen {
    /// By partition the offsets in the order in which they came, and to whom.
    records: BTreeMap<i32, Vec<(i64, Who)>>,
    ours: BTreeSet<i32>,
    theirs: BTreeSet<i32>,
}

impl Seen {
    fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
}

#[derive(Clone)]
struct Ledger(Arc<watch::Sender<Seen>>);

impl Ledger {
    async fn wait_until(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut seen = self.0.subscribe();
        let reached = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| holds(seen))).await;
        if reached.is_err() {
            let seen = self.0.borrow();
            bail!("{what} was not reached: {} records; ours {:?}, theirs {:?}", seen.count(), seen.ours, seen.theirs);
        }
        Ok(())
    }

    fn record(&self, partition: i32, offset: i64, who: Who) {
        self.0.send_modify(|seen| seen.records.entry(partition).or_default().push((offset, who)));
    }
}

/// Our member: one task per partition reads, tells the ledger and commits. It leaves when it is told to.
async fn our_member(mut consumer: Consumer, leave: Arc<Notify>, ledger: Ledger) -> Result<()> {
    let committer = consumer.committer();
    let mut lanes: BTreeMap<i32, JoinHandle<Result<()>>> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = consumer.next() => event,
            () = leave.notified() => {
                consumer.close();
                continue;
            }
        };
        match event {
            None => break,
            Some(Event::Assigned(streams)) => {
                for stream in streams {
                    let partition = stream.lease().partition();
                    ledger.0.send_if_modified(|seen| seen.ours.insert(partition));
                    lanes.insert(partition, tokio::spawn(lane(stream, committer.clone(), ledger.clone())));
                }
            }
            Some(Event::Revoking(revocation)) => {
                for lease in &revocation.leases {
                    lanes.remove(&lease.partition()).context("a partition that we held")?.await??;
                    ledger.0.send_if_modified(|seen| seen.ours.remove(&lease.partition()));
                }
                revocation.released();
            }
            Some(Event::Lost(leases)) => bail!("lost {leases:?}"),
            Some(Event::Fault(fault)) => bail!("{fault:?}"),
        }
    }
    ensure!(lanes.is_empty(), "the end comes after the last revocation");
    Ok(())
}

async fn lane(mut stream: PartitionStream, committer: Committer, ledger: Ledger) -> Result<()> {
    while let Some(records) = stream.next().await {
        for record in records.iter() {
            ledger.record(records.lease.partition(), record.offset, Who::Us);
        }
        committer.commit(vec![records.end()]).await?;
    }
    Ok(())
}

/// librdkafka's member; it leaves the group when it is told to stop.
struct Theirs {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Theirs {
    fn start(kafka: &Kafka, topic: &str, group: &str, strategy: &str, ledger: Ledger) -> Result<Self> {
        let settings = [
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", strategy),
        ];
        let consumer: BaseConsumer = librdkafka::config(kafka, &settings).create()?;
        consumer.subscribe(&[topic])?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                    let message = message?;
                    ledger.record(message.partition(), message.offset(), Who::Librdkafka);
                }
                let held: BTreeSet<i32> = consumer.assignment()?.elements().iter().map(|p| p.partition()).collect();
                ledger.0.send_if_modified(|seen| std::mem::replace(&mut seen.theirs, held.clone()) != held);
            }
            drop(consumer);
            ledger.0.send_modify(|seen| seen.theirs.clear());
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    fn leave(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("librdkafka's thread panicked"))?
    }
}

async fn write_round(client: &Client, topic: &str) -> Result<()> {
    let row = |number: usize| Sample {
        key: Some(format!("key-{number}").into_bytes()),
        value: Some(format!("value {number}").into_bytes()),
        headers: Vec::new(),
        timestamp: 1_700_000_000_000 + number as i64,
    };
    let rows: Vec<Sample> = (0..ROUND).map(row).collect();
    ours::write(client, ProducerConfig::default(), topic, None, &rows).await.map(drop)
}

async fn they_share(kafka: &Kafka, assignor: Assignor, first: Who) -> Result<()> {
    let strategy = match assignor {
        Assignor::Range => "range",
        Assignor::CooperativeSticky => "cooperative-sticky",
    };
    let topic = format!("one-group-{strategy}-{first:?}").to_lowercase();
    let client = ours::client(&kafka.bootstrap())?;
    client.admin().create_topic(&topic, PARTITIONS, PATIENCE).await?;
    write_round(&client, &topic).await?;
    let ledger = Ledger(Arc::new(watch::Sender::new(Seen::default())));
    let config = ConsumerConfig { assignors: vec![assignor], ..ours::member(&topic, std::slice::from_ref(&topic)) };
    let leave = Arc::new(Notify::new());
    let join_theirs = || Theirs::start(kafka, &topic, &topic, strategy, ledger.clone());
    let join_ours = || {
        let consumer = client.consumer(config.clone(), Budget::new(4 << 20));
        tokio::spawn(our_member(consumer, leave.clone(), ledger.clone()))
    };
    let all = PARTITIONS as usize;
    let shared =
        |seen: &Seen| (seen.ours.len(), seen.theirs.len()) == (all / 2, all / 2) && seen.ours.is_disjoint(&seen.theirs);
    let (ours, theirs) = match first {
        Who::Us => {
            let ours = join_ours();
            ledger.wait_until("all ours", |seen| seen.ours.len() == all).await?;
            (ours, join_theirs()?)
        }
        Who::Librdkafka => {
            let theirs = join_theirs()?;
            ledger.wait_until("all theirs", |seen| seen.theirs.len() == all).await?;
            (join_ours(), theirs)
        }
    };
    ledger.wait_until("a half for each", shared).await?;
    write_round(&client, &topic).await?;
    ledger.wait_until("two rounds", |seen| seen.count() >= 2 * ROUND).await?;
    crate::blocking(|| theirs.leave())?;
    ledger.wait_until("all ours again", |seen| seen.ours.len() == all).await?;
    write_round(&client, &topic).await?;
    ledger.wait_until("three rounds", |seen| seen.count() >= 3 * ROUND).await?;
    leave.notify_one();
    ours.await??;
    let (committed, ends) = (client.admin().committed(&topic).await?, client.admin().log_ends(&topic).await?);
    let seen = ledger.0.send_replace(Seen::default());
    let mut readers = Vec::new();
    for (partition, end) in ends {
        let records = &seen.records[&partition];
        let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..end.latest).collect::<Vec<_>>(), "partition {partition}: {records:?}");
        assert_eq!(committed.get(&(topic.as_str().into(), partition)), Some(&end.latest), "partition {partition}");
        readers.extend(records.iter().map(|(_, who)| *who));
    }
    assert_eq!(readers.len(), 3 * ROUND);
    assert!(readers.contains(&Who::Us) && readers.contains(&Who::Librdkafka));
    assert!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn we_and_librdkafka_share_a_group_by_either_strategy_whoever_leads() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "we_and_librdkafka_share_a_group") else { continue };
        for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
            for first in [Who::Us, Who::Librdkafka] {
                they_share(kafka, assignor, first)
                    .await
                    .with_context(|| format!("{assignor:?}, first {first:?}, on {version}"))?;
            }
        }
    }
    Ok(())
}
