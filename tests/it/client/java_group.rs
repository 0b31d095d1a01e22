//! Our members and Java's in one group, under load, coming and going: the test that finds what assignors and protocol have
//! got wrong. Java's are `kafka-tools`' VerifiableConsumer, which says on stdout what it gets and reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{Assignor, ConsumerConfig},
    producer::{ProduceRecord, ProducerConfig},
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    kafka::{self, Kafka, VERSIONS},
    member::{History, Member, Seen},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// Not to be shared evenly by two or four.
const PARTITIONS: i32 = 7;

/// A Java member; it leaves the group when it is dropped.
struct Java {
    shell: Option<Child>,
    reader: Option<std::thread::JoinHandle<()>>,
    _settings: tempfile::NamedTempFile,
}

impl Java {
    fn start(kafka: &Kafka, group: &Group, name: &str, history: &History) -> Result<Self> {
        let settings = tempfile::NamedTempFile::new()?;
        std::fs::write(settings.path(), "heartbeat.interval.ms=500\nauto.commit.interval.ms=100\n")?;
        let tool = kafka.tool();
        // When our end of its input closes, for whatever reason, it leaves.
        let script = r#""$@" </dev/null & jvm=$!; cat >/dev/null; kill $jvm; wait"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "java"]).arg(tool.get_program()).args(tool.get_args());
        command.args(["org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", &kafka.bootstrap_servers()]);
        command.args(["--topic", &group.topic, "--group-id", &group.name, "--session-timeout", "6000"]);
        command.args(["--assignment-strategy", group.java_assignor(), "--consumer.config"]).arg(settings.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().context("starting a Java member")?;
        let lines = BufReader::new(shell.stdout.take().context("a pipe")?).lines();
        let (name, history) = (name.to_owned(), history.clone());
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str::<Value>(&line) {
                    take(&event, &name, &history);
                }
            }
        });
        Ok(Self { shell: Some(shell), reader: Some(reader), _settings: settings })
    }

    /// Closes its consumer, which gives everything up and leaves the group, and waits for the end of it.
    async fn leave(mut self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.end()).await?;
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes what a Java member says into the history.
fn take(event: &Value, name: &str, history: &History) {
    let number = |value: &Value| value.as_i64().unwrap_or(-1);
    let partitions = || event["partitions"].as_array().cloned().unwrap_or_default();
    let of = |partitions: Vec<Value>| partitions.iter().map(|one| number(&one["partition"]) as i32).collect::<Vec<_>>();
    let at = event["timestamp"].as_u64().unwrap_or_default();
    match event["name"].as_str() {
        Some("partitions_assigned") => history.turn(at, name, of(partitions()), true),
        Some("partitions_revoked") => history.turn(at, name, of(partitions()), false),
        Some("records_consumed") => {
            for one in partitions() {
                let offsets = number(&one["minOffset"])..=number(&one["maxOffset"]);
                history.delivered(number(&one["partition"]) as i32, offsets);
            }
        }
        _ => {}
    }
}

struct Group {
    name: String,
    topic: String,
    assignor: Assignor,
}

impl Group {
    fn java_assignor(&self) -> &'static str {
        match self.assignor {
            Assignor::Range => "org.apache.kafka.clients.consumer.RangeAssignor",
            Assignor::CooperativeSticky => "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
        }
    }

    fn member(&self, client: &Client, name: &str, history: &History) -> Member {
        let config = ConsumerConfig {
            group_id: self.name.clone(),
            topics: vec![self.topic.clone()],
            assignors: vec![self.assignor],
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(500),
            ..ConsumerConfig::default()
        };
        Member::start(client, config, name, history, Duration::from_millis(50))
    }
}

/// Writes to every partition until it is stopped; the ends of what was written.
fn load(client: &Client, topic: &str, stop: CancellationToken) -> Result<JoinHandle<Result<BTreeMap<i32, i64>>>> {
    let producer = client.producer(ProducerConfig::default(), Budget::new(4 << 20))?;
    let topic: Arc<str> = topic.into();
    Ok(tokio::spawn(async move {
        let mut ends = BTreeMap::new();
        while !stop.is_cancelled() {
            let mut deliveries = Vec::new();
            for partition in (0..PARTITIONS).cycle().take(4 * PARTITIONS as usize) {
                let value = Some(Bytes::from_static(b"a record"));
                let partition = Some(partition);
                let record = ProduceRecord { topic: topic.clone(), partition, value, ..ProduceRecord::default() };
                deliveries.push(producer.send(record).await?);
            }
            for delivery in deliveries {
                let receipt = delivery.await?;
                ends.insert(receipt.partition, receipt.offset.context("an offset")? + 1);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        producer.close(PATIENCE).await;
        Ok(ends)
    }))
}

/// Everybody here has a share, as even as it can be, and all partitions are shared.
fn even(seen: &Seen, members: usize) -> bool {
    let (shares, each) = (seen.shares(), PARTITIONS as usize / members);
    shares.len() == members
        && shares.iter().sum::<usize>() == PARTITIONS as usize
        && shares.iter().all(|share| *share == each || *share == each + 1)
}

/// What the coordinator believes, as Kafka's own tool prints it: the partitions of each member.
async fn as_the_coordinator_sees_it(kafka: &Kafka, group: &Group) -> Result<BTreeSet<BTreeSet<i32>>> {
    let mut tool = kafka.tool();
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    tool.args([class, "--bootstrap-server", &kafka.bootstrap_servers(), "--describe", "--members", "--verbose"]);
    tool.args(["--group", &group.name]);
    let output = tokio::task::spawn_blocking(move || tool.output()).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "the tool failed: {text}");
    let mut shares = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with(&group.name)) {
        // `topic(0,1)` or `topic:0,1`, in one word or behind commas and blanks.
        let Some((_, assigned)) =
            line.split_once(&format!("{}(", group.topic)).or_else(|| line.split_once(&format!("{}:", group.topic)))
        else {
            continue;
        };
        let numbers = assigned.split(|c: char| !c.is_ascii_digit() && c != ',').next().unwrap_or_default();
        shares.insert(numbers.split(',').map(|number| number.parse().context(text.clone())).collect::<Result<_>>()?);
    }
    ensure!(!shares.is_empty(), "nothing that can be read: {text}");
    Ok(shares)
}

async fn live_together(kafka: &Kafka, version: &str, assignor: Assignor) -> Result<()> {
    let kind = if assignor == Assignor::Range { "range" } else { "cooperative" };
    let group = Group { name: format!("mixed-{kind}"), topic: format!("mixed-of-{kind}"), assignor };
    let client = Client::new(ClusterConfig::new(vec![("127.0.0.1".to_owned(), port(kafka)?)]));
    client.admin().create_topic(&group.topic, PARTITIONS, PATIENCE).await?;
    let (history, stop) = (History::default(), CancellationToken::new());
    let load = load(&client, &group.topic, stop.clone())?;
    let settled = async |members: usize, what: &str| {
        history.wait_until(&format!("{what}: {members} even shares"), |seen| even(seen, members)).await
    };
    let agree = async || -> Result<()> {
        let theirs = as_the_coordinator_sees_it(kafka, &group).await?;
        let ours: BTreeSet<BTreeSet<i32>> = history.look().owners().into_values().collect();
        assert_eq!(ours, theirs, "{kind} on {version}");
        Ok(())
    };
    // Ours leads, and two of Java's come.
    let first = group.member(&client, "ours-1", &history);
    settled(1, "ours alone").await?;
    let java_1 = Java::start(kafka, &group, "java-1", &history)?;
    settled(2, "and one of Java's").await?;
    let second = group.member(&client, "ours-2", &history);
    settled(3, "and another of ours").await?;
    let java_2 = Java::start(kafka, &group, "java-2", &history)?;
    settled(4, "and another of Java's").await?;
    agree().await?;
    // One of Java's has to lead as soon as ours are gone, and another of ours comes to it.
    first.leave().await?;
    settled(3, "without the first").await?;
    second.leave().await?;
    settled(2, "Java's alone").await?;
    let third = group.member(&client, "ours-3", &history);
    settled(3, "Java leads").await?;
    agree().await?;
    java_1.leave().await?;
    settled(2, "without the first of Java's").await?;
    java_2.leave().await?;
    settled(1, "the last of ours").await?;
    stop.cancel();
    let ends = load.await??;
    history.wait_until("every record", |seen| seen.has_all(&ends)).await?;
    third.leave().await?;
    let committed = client.admin().committed(&group.name).await?;
    let topic: Arc<str> = group.topic.as_str().into();
    for (partition, end) in &ends {
        assert_eq!(committed.get(&(topic.clone(), *partition)), Some(end), "{kind} on {version}: {partition}");
    }
    {
        let seen = history.look();
        assert_eq!(seen.shared_by_two(), Vec::<String>::new(), "{kind} on {version}");
        assert_eq!((&seen.lost[..], &seen.faults[..]), (&[][..], &[][..]), "{kind} on {version}");
        let total: i64 = ends.values().sum();
        eprintln!("{kind} on {version}: {total} records, {} of them more than once", seen.repeated());
    }
    ensure!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}

fn port(kafka: &Kafka) -> Result<u16> {
    let address = kafka.bootstrap().into_iter().next().context("a node")?;
    Ok(address.rsplit_once(':').context("host:port")?.1.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_and_javas_members_live_in_one_group() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "ours_and_javas_members_live_in_one_group") else { continue };
        for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
            live_together(kafka, version, assignor).await.with_context(|| format!("{assignor:?} on {version}"))?;
        }
    }
    Ok(())
}
