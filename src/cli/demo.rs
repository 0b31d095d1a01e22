//! `kafka-sidecar demo`: the main job from end to end, in one process, told as it happens and counted at the end.
//!
//! Everything that a user would have is there for real and reached over TCP: a Kafka cluster (the embedded one), a backend that
//! speaks HTTP only, and the sidecar with the settings that a user would give it. [`run`] is the whole command.

mod backend;
mod order;
mod producer;
mod reader;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use backend::{Backend, Delivery};
use producer::Producer;
use reader::Reader;
use tally::{Facts, Tally};

use super::{embedded::Embedded, instance::Instance};

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 4;
const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const INTRODUCTION: &str = "A backend that speaks only HTTP, a Kafka cluster, and kafka-sidecar between them: all in this process, over \
     local sockets.\nNothing is written to disk, and nothing leaves this machine.\n";
/// No step takes so long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the backend stays away.
const AWAY: Duration = Duration::from_millis(1500);
/// Orders of each part of the story.
const FIRST: u32 = 240;
const WHILE_AWAY: u32 = 120;
const LAST: u32 = 80;
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(25);

/// Shows the sidecar at work; exit code 1 if a count is off.
pub(super) async fn run() -> ExitCode {
    let story = Story { began: Instant::now() };
    let _ = writeln!(std::io::stdout(), "{INTRODUCTION}");
    match tokio::time::timeout(2 * PATIENCE, tell(&story)).await {
        Ok(Ok(tally)) => {
            let _ = write!(std::io::stdout(), "\n{tally}\n");
            let verdict = if tally.is_right() {
                "Nothing was lost, skipped or reordered."
            } else {
                "SOMETHING IS WRONG: see above."
            };
            story.tell("done", verdict);
            if tally.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Err(reason)) => {
            story.tell("FAILED", reason);
            ExitCode::FAILURE
        }
        Err(_) => {
            story.tell("FAILED", "it takes too long; kafka-sidecar demo --log debug tells more");
            ExitCode::FAILURE
        }
    }
}

/// Prints what happens.
struct Story {
    began: Instant,
}

impl Story {
    fn tell(&self, who: &str, what: impl Display) {
        // Where nobody reads any more, the exit code has to do.
        let _ = writeln!(std::io::stdout(), "{:6.2} s  {who:<10} {what}", self.began.elapsed().as_secs_f64());
    }
}

async fn tell(story: &Story) -> Result<Tally, String> {
    let embedded =
        Embedded::start(BROKERS, 0, TOPIC, PARTITIONS).await.map_err(|error| format!("the cluster: {error}"))?;
    story.tell(
        "kafka",
        format!("a cluster of {BROKERS} brokers in this process, at {}", embedded.addresses().join(", ")),
    );
    let mut backend = Backend::start().await.map_err(|error| format!("the backend: {error}"))?;
    story.tell(
        "backend",
        format!("listens at {}; it knows HTTP and no Kafka, and refuses orders with a negative total", backend.url()),
    );
    let first = start(&embedded, &backend, "/a").await?;
    story.tell(
        "sidecar A",
        format!("listens at http://{}; topic \"{TOPIC}\", {PARTITIONS} partitions, group \"{GROUP}\"", first.address()),
    );
    let mut producer = Producer::new(first.address(), TOPIC)?;
    let reader = Reader::new(&embedded.sockets());

    orders_flow(story, &backend, &mut producer).await?;
    an_undecodable_record(story, &reader, &mut producer).await?;
    the_backend_vanishes(story, &mut backend, &mut producer).await?;
    another_sidecar_comes_and_goes(story, &embedded, &backend, &mut producer).await?;

    until("all offsets to be committed", async || {
        Ok(reader.committed(GROUP, TOPIC).await? == reader.ends(TOPIC).await?)
    })
    .await?;
    story.tell("kafka", format!("the offsets of group \"{GROUP}\" stand at the end of all partitions"));
    first.stop().await?;
    story.tell("sidecar A", "told to stop: finished, left the group, flushed its audit, gone");

    let facts = read(story, &reader, &backend, &producer).await?;
    reader.close().await;
    embedded.stop().await;
    Ok(Tally::of(&facts))
}

async fn orders_flow(story: &Story, backend: &Backend, producer: &mut Producer) -> Result<(), String> {
    producer.orders(FIRST).await?;
    story.tell(
        "caller",
        format!("POST /producers/{TOPIC}: {FIRST} orders in requests of 10; each answered with partition and offset"),
    );
    within("the first orders", backend.wait_for(|log| distinct(log) >= FIRST as usize)).await?;
    let refused = backend.log().iter().filter(|delivery| delivery.processed == Some(false)).count();
    story.tell(
        "backend",
        format!("got all of them as POST requests, in order; it refused {refused}, which go to \"{TOPIC}.dlq\""),
    );
    Ok(())
}

async fn an_undecodable_record(story: &Story, reader: &Reader, producer: &mut Producer) -> Result<(), String> {
    producer.bytes_that_are_no_json().await?;
    until("the undecodable record's dead letter", async || {
        Ok(reader.ends(&format!("{TOPIC}.dlq")).await?.values().sum::<i64>() > i64::from(FIRST / 40))
    })
    .await?;
    story.tell(
        "sidecar A",
        "one record was no JSON: the backend never saw it, its bytes went to the dead letters, the rest went on",
    );
    Ok(())
}

async fn the_backend_vanishes(story: &Story, backend: &mut Backend, producer: &mut Producer) -> Result<(), String> {
    let before = backend.log().len();
    let (vanished, produced) =
        tokio::join!(within("a request to die over", backend.vanish()), producer.orders(WHILE_AWAY));
    vanished?;
    produced?;
    let unanswered = backend.log().len() - before;
    story.tell(
        "backend",
        format!(
            "dies in the middle of a request with {unanswered} records; {WHILE_AWAY} orders are produced meanwhile"
        ),
    );
    tokio::time::sleep(AWAY).await;
    story.tell(
        "sidecar A",
        "keeps its partitions and heartbeats, commits nothing more, and tries the backend again and again",
    );
    backend.come_back().await.map_err(|error| format!("the backend cannot come back: {error}"))?;
    let due = (FIRST + WHILE_AWAY) as usize;
    within("the held orders", backend.wait_for(|log| distinct(log) >= due)).await?;
    story.tell("backend", "is back and has everything: nothing became a dead letter for its absence");
    Ok(())
}

async fn another_sidecar_comes_and_goes(
    story: &Story,
    embedded: &Embedded,
    backend: &Backend,
    producer: &mut Producer,
) -> Result<(), String> {
    let began = Instant::now();
    let second = start(embedded, backend, "/b").await?;
    story.tell("sidecar B", format!("joins the group at http://{}, while orders keep coming", second.address()));
    let by_second = |log: &[Delivery]| -> BTreeSet<i32> {
        log.iter().filter(|delivery| delivery.path == "/b").map(|delivery| delivery.partition).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    let share = usize::try_from(PARTITIONS / 2).unwrap_or_default();
    while by_second(&backend.log()).len() < share {
        if Instant::now() > deadline {
            return Err("sidecar B did not get its share of the partitions".to_owned());
        }
        producer.orders(10).await?;
        tokio::time::sleep(LOOK).await;
    }
    let log: Vec<Delivery> = backend.log().into_iter().filter(|delivery| delivery.at >= began).collect();
    let moved = by_second(&log);
    let (of_moved, of_others): (Vec<Delivery>, Vec<Delivery>) =
        log.into_iter().partition(|delivery| moved.contains(&delivery.partition));
    story.tell(
        "sidecar B",
        format!(
            "took over partitions {moved:?}, each as soon as A had finished what it held of it: they waited {} ms at most, the others {} ms",
            longest_pause(&of_moved).as_millis(),
            longest_pause(&of_others).as_millis()
        ),
    );
    let (stopped, produced) = tokio::join!(second.stop(), producer.orders(LAST));
    stopped?;
    produced?;
    story.tell(
        "sidecar B",
        "told to stop under load: finished what it held, committed, left; A takes its partitions back",
    );
    Ok(())
}

/// The longest time in which one of these partitions brought nothing.
fn longest_pause(log: &[Delivery]) -> Duration {
    let mut last: BTreeMap<i32, Instant> = BTreeMap::new();
    let pauses = log.iter().filter_map(|delivery| {
        last.insert(delivery.partition, delivery.at).map(|before| delivery.at.duration_since(before))
    });
    pauses.max().unwrap_or_default()
}

/// What the topics hold, read by somebody else.
async fn read(story: &Story, reader: &Reader, backend: &Backend, producer: &Producer) -> Result<Facts, String> {
    let dead_letters = format!("{TOPIC}.dlq");
    let topics = [TOPIC, &dead_letters, "sidecar-audit"];
    let mut read = Vec::new();
    for topic in topics {
        read.push(within("a topic to be read", reader.read(topic)).await??);
    }
    let [stored, dead, audit] = read.try_into().map_err(|_| "three topics were read".to_owned())?;
    story.tell(
        "reader",
        format!("another consumer read {}, to count", topics.map(|topic| format!("\"{topic}\"")).join(", ")),
    );
    let mut facts = Facts {
        acknowledged: producer.acknowledged().clone(),
        undecodable: producer.undecodable().clone(),
        deliveries: backend.log(),
        stored: stored.iter().map(|record| record.place).collect(),
        dead_letters: dead.iter().map(reader::origin).collect::<Result<_, _>>()?,
        committed: reader.committed(GROUP, TOPIC).await?,
        ..Facts::default()
    };
    for entry in &audit {
        if reader::is_of_produced(entry)? {
            facts.audited_produced += 1;
        } else {
            facts.audited_consumed += 1;
        }
    }
    Ok(facts)
}

async fn start(embedded: &Embedded, backend: &Backend, path: &str) -> Result<Instance, String> {
    let own = [
        ("server.httpPort", "0"),
        ("sidecar.probesPort", "0"),
        ("kafka-consumer.topic", TOPIC),
        ("kafka-consumer.group.id", GROUP),
        ("kafka-consumer.backendApiHost", &backend.url()),
        ("kafka-consumer.backendApiPath", path),
        // So that joining and leaving show within seconds.
        ("kafka-consumer.session.timeout.ms", "6000"),
        ("kafka-consumer.heartbeat.interval.ms", "500"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let settings = embedded.bootstrap_settings().into_iter().chain(own).collect();
    Instance::start(settings).await
}

fn distinct(log: &[Delivery]) -> usize {
    let places: BTreeSet<_> = log
        .iter()
        .filter(|delivery| delivery.processed.is_some())
        .map(|delivery| (delivery.partition, delivery.offset))
        .collect();
    places.len()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| format!("waited {PATIENCE:?} for {what}"))
}

/// Looks until it has come about.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool, String>) -> Result<(), String> {
    within(what, async {
        while !condition().await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })
    .await?
}
