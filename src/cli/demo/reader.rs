//! Reads a topic from its start to its end with a Kafka client and a consumer group of its own, apart from any sidecar.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{ConsumerConfig, Event},
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::tally::Place;

const MEMORY_BYTES: usize = 16 << 20;
const CLOSE: Duration = Duration::from_millis(500);
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// A record, as far as the demo looks at it.
pub(super) struct Read {
    pub(super) place: Place,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: BTreeMap<String, String>,
}

/// Looks into the cluster from outside.
pub(super) struct Reader {
    client: Client,
}

impl Reader {
    pub(super) fn new(brokers: &[SocketAddr]) -> Self {
        let bootstrap = brokers.iter().map(|broker| (broker.ip().to_string(), broker.port())).collect();
        let mut config = ClusterConfig::new(bootstrap);
        config.client_id = "demo-reader".to_owned();
        Self { client: Client::new(config) }
    }

    /// What the group has committed in the topic, by partition.
    pub(super) async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
        let committed = self.client.admin().committed(group).await.map_err(|error| error.to_string())?;
        let of_topic = |((name, partition), offset): ((std::sync::Arc<str>, i32), i64)| {
            (*name == *topic).then_some((partition, offset))
        };
        Ok(committed.into_iter().filter_map(of_topic).collect())
    }

    /// The ends of the topic's partitions that hold anything.
    pub(super) async fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
        let ends = self.client.admin().log_ends(topic).await.map_err(|error| error.to_string())?;
        Ok(ends
            .into_iter()
            .filter(|(_, ends)| ends.latest > ends.earliest)
            .map(|(partition, ends)| (partition, ends.latest))
            .collect())
    }

    /// Every record of the topic. Takes as long as it takes; the caller bounds it.
    pub(super) async fn read(&self, topic: &str) -> Result<Vec<Read>, String> {
        let ends = self.ends(topic).await?;
        let mut due: BTreeSet<i32> = ends.keys().copied().collect();
        let config = ConsumerConfig {
            group_id: format!("demo-reader-{topic}"),
            topics: vec![topic.to_owned()],
            session_timeout: SESSION_TIMEOUT,
            ..ConsumerConfig::default()
        };
        let mut consumer = self.client.consumer(config, Budget::new(MEMORY_BYTES));
        let (sender, mut records) = mpsc::channel(64);
        let mut read = Vec::new();
        while !due.is_empty() {
            tokio::select! {
                event = consumer.next() => match event.ok_or("the reader's group ended by itself")? {
                    Event::Assigned(streams) => {
                        for mut stream in streams {
                            let sender = sender.clone();
                            tokio::spawn(async move {
                                let partition = stream.lease().partition();
                                while let Some(batch) = stream.next().await {
                                    let records: Vec<Read> = batch.iter().map(|record| keep(partition, &record)).collect();
                                    if sender.send((partition, batch.next_offset, records)).await.is_err() {
                                        break;
                                    }
                                }
                            });
                        }
                    }
                    Event::Fault(fault) => return Err(format!("reading {topic}: {}", fault.kind)),
                    Event::Revoking(_) | Event::Lost(_) => return Err(format!("the reader of {topic} lost a partition")),
                },
                Some((partition, next_offset, records)) = records.recv() => {
                    read.extend(records);
                    if ends.get(&partition).is_some_and(|end| next_offset >= *end) {
                        due.remove(&partition);
                    }
                }
            }
        }
        Ok(read)
    }

    pub(super) async fn close(self) {
        self.client.close(CLOSE).await;
    }
}

fn keep(partition: i32, record: &protocol::record::RecordView<'_>) -> Read {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Read {
        place: (partition, record.offset),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.iter().map(|(name, value)| (text(name), value.map(text).unwrap_or_default())).collect(),
    }
}

/// The origin that a dead letter tells.
pub(super) fn origin(letter: &Read) -> Result<Place, String> {
    let number = |name: &str| letter.headers.get(name).and_then(|text| text.parse::<i64>().ok());
    let partition = number("X-Dead-Letter-Partition").and_then(|number| i32::try_from(number).ok());
    partition.zip(number("X-Dead-Letter-Offset")).ok_or_else(|| {
        format!("the dead letter at {:?} does not say where it comes from: {:?}", letter.place, letter.headers)
    })
}

/// Whether an audit entry is of a produced record; if not, it is of a consumed one.
pub(super) fn is_of_produced(entry: &Read) -> Result<bool, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        audit_type: String,
    }
    let value = entry.value.as_deref().unwrap_or_default();
    let entry: Entry = serde_json::from_slice(value).map_err(|error| format!("an audit entry is no JSON: {error}"))?;
    Ok(entry.audit_type == "PRODUCER")
}
