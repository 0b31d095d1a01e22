//! `Witness.java` as a process: Java's own producer and consumer, asked line by line.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    path::Path,
    process::{ChildStdin, Stdio},
    sync::{Mutex, OnceLock, mpsc},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::producer::Receipt;
use serde_json::{Value, json};

use super::{
    ours::{Logs, PATIENCE},
    samples::Sample,
};
use crate::support::kafka::{Kafka, VERSIONS};

/// One JVM per Kafka version for all tests of a run. It ends when its input does, and so with this process.
pub(crate) struct Witness {
    pipes: Mutex<Pipes>,
}

struct Pipes {
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
    log: fs::File,
}

impl Witness {
    /// The one of this shared cluster's version.
    pub(crate) fn of(kafka: &'static Kafka) -> &'static Self {
        static SHARED: [OnceLock<Witness>; VERSIONS.len()] = [const { OnceLock::new() }; VERSIONS.len()];
        let index = VERSIONS.iter().position(|known| *known == kafka.version()).expect("a version of the list");
        SHARED[index]
            .get_or_init(|| Self::start(kafka).unwrap_or_else(|error| panic!("Witness.java does not start: {error:#}")))
    }

    pub(crate) fn start(kafka: &Kafka) -> Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/witness/Witness.java");
        let log = tempfile::tempfile()?;
        let mut command = kafka.tool();
        command.arg(program).arg(kafka.bootstrap_servers());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().context("starting Witness.java")?;
        let orders = child.stdin.take().context("a pipe")?;
        let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))?;
            drop(sender);
            child.wait().map(drop).map_err(anyhow::Error::from)
        });
        Ok(Self { pipes: Mutex::new(Pipes { orders, answers, log }) })
    }

    /// Gives one order and waits for its answer; a fault is an error.
    fn ask(&self, order: &Value) -> Result<Value> {
        let mut pipes = self.pipes.lock().expect("not poisoned");
        let asked = writeln!(pipes.orders, "{order}").map_err(anyhow::Error::from);
        let answer = asked.and_then(|()| Ok(pipes.answers.recv_timeout(PATIENCE)?));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let mut log = String::new();
                pipes.log.rewind()?;
                pipes.log.read_to_string(&mut log)?;
                bail!("Witness.java does not answer ({error}): {log}");
            }
        };
        let answer: Value = serde_json::from_str(&answer).context("the answer of Witness.java")?;
        match answer.get("fault") {
            Some(fault) => bail!("Witness.java: {fault}"),
            None => Ok(answer),
        }
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32, configs: &Value) -> Result<()> {
        self.ask(&json!({"order": "create", "topic": topic, "partitions": partitions, "configs": configs})).map(drop)
    }

    /// Moves a topic to other nodes, given by partition, and waits until they have everything.
    pub(crate) fn reassign(&self, topic: &str, replicas: &[Vec<i32>]) -> Result<()> {
        self.ask(&json!({"order": "reassign", "topic": topic, "replicas": replicas})).map(drop)
    }

    /// Has the first replica of each partition elected as its leader.
    pub(crate) fn elect(&self, topic: &str, partitions: i32) -> Result<()> {
        self.ask(&json!({"order": "elect", "topic": topic, "partitions": partitions})).map(drop)
    }

    /// Writes samples by a Java producer with these settings, to one partition or to where it puts them. A transaction, if
    /// the settings ask for one, is committed.
    pub(crate) fn write(
        &self,
        settings: &Value,
        topic: &str,
        partition: Option<i32>,
        samples: &[Sample],
    ) -> Result<Vec<Receipt>> {
        self.write_and_end(settings, topic, partition, samples, "commit")
    }

    /// As [`Self::write`]; the transaction ends by `commit` or by `abort`.
    pub(crate) fn write_and_end(
        &self,
        settings: &Value,
        topic: &str,
        partition: Option<i32>,
        samples: &[Sample],
        end: &str,
    ) -> Result<Vec<Receipt>> {
        let encode = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        let records = samples.iter().map(|sample| {
            let headers =
                sample.headers.iter().map(|(name, value)| json!([STANDARD.encode(name), encode(value)])).collect();
            json!({
                "key": encode(&sample.key),
                "value": encode(&sample.value),
                "headers": Value::Array(headers),
                "timestamp": sample.timestamp,
            })
        });
        let records: Vec<Value> = records.collect();
        let order = json!({
            "order": "write",
            "settings": settings,
            "topic": topic,
            "partition": partition,
            "records": records,
            "end": end,
        });
        let answer = self.ask(&order)?;
        let receipts = answer["receipts"].as_array().context("receipts")?;
        receipts.iter().map(receipt).collect()
    }

    /// Everything that the topics hold, as a Java consumer with these settings reads it.
    pub(crate) fn read(&self, settings: &Value, topics: &[String]) -> Result<Logs> {
        self.read_with_types(settings, topics).map(|(logs, _)| logs)
    }

    /// As [`Self::read`], with the timestamp types that were met.
    pub(crate) fn read_with_types(
        &self,
        settings: &Value,
        topics: &[String],
    ) -> Result<(Logs, std::collections::BTreeSet<String>)> {
        let answer = self.ask(&json!({"order": "read", "settings": settings, "topics": topics}))?;
        let (mut logs, mut types) = (Logs::new(), std::collections::BTreeSet::new());
        for record in answer["records"].as_array().context("records")? {
            let topic = text(&record["topic"])?.to_owned();
            let partition = i32::try_from(number(&record["partition"])?)?;
            let headers = record["headers"].as_array().context("headers")?.iter().map(|header| {
                let name = bytes(&header[0])?.context("a name")?;
                Ok((name, bytes(&header[1])?))
            });
            let sample = Sample {
                key: bytes(&record["key"])?,
                value: bytes(&record["value"])?,
                headers: headers.collect::<Result<_>>()?,
                timestamp: number(&record["timestamp"])?,
            };
            types.insert(text(&record["timestampType"])?.to_owned());
            logs.entry((topic, partition)).or_default().push((number(&record["offset"])?, sample));
        }
        Ok((logs, types))
    }
}

fn receipt(told: &Value) -> Result<Receipt> {
    let partition = i32::try_from(number(&told["partition"])?)?;
    Ok(Receipt { partition, offset: Some(number(&told["offset"])?), timestamp: number(&told["timestamp"])? })
}

fn number(value: &Value) -> Result<i64> {
    value.as_i64().with_context(|| format!("{value} is no number"))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

fn bytes(value: &Value) -> Result<Option<Vec<u8>>> {
    if value.is_null() { Ok(None) } else { Ok(Some(STANDARD.decode(text(value)?)?)) }
}
