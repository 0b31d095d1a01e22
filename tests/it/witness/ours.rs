//! Our own client's side of every comparison.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{ConsumerConfig, Event},
    producer::{ProduceRecord, ProducerConfig, Receipt},
};

use super::samples::Sample;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Records with their offsets, in the order in which they were read, by topic and partition.
pub(crate) type Logs = BTreeMap<(String, i32), Vec<(i64, Sample)>>;

/// A client of the cluster at these addresses, `host:port` each.
pub(crate) fn client(bootstrap: &[String]) -> Result<Client> {
    let mut addresses = Vec::new();
    for address in bootstrap {
        let (host, port) = address.rsplit_once(':').context("host:port")?;
        addresses.push((host.to_owned(), port.parse()?));
    }
    Ok(Client::new(ClusterConfig::new(addresses)))
}

/// Writes the samples in order and waits for all receipts.
pub(crate) async fn write(
    client: &Client,
    config: ProducerConfig,
    topic: &str,
    partition: Option<i32>,
    samples: &[Sample],
) -> Result<Vec<Receipt>> {
    let producer = client.producer(config, Budget::new(16 << 20))?;
    let mut deliveries = Vec::new();
    for sample in samples {
        let headers = sample.headers.iter().map(|(name, value)| (name.clone().into(), value.clone().map(Bytes::from)));
        let record = ProduceRecord {
            topic: topic.into(),
            partition,
            key: sample.key.clone().map(Bytes::from),
            value: sample.value.clone().map(Bytes::from),
            headers: headers.collect(),
            timestamp: Some(sample.timestamp),
        };
        deliveries.push(producer.send(record).await?);
    }
    let mut receipts = Vec::new();
    for delivery in deliveries {
        receipts.push(tokio::time::timeout(PATIENCE, delivery).await.context("no receipt")??);
    }
    assert_eq!(producer.close(PATIENCE).await, 0);
    Ok(receipts)
}

/// How a group member of ours is set up in these tests.
pub(crate) fn member(group: &str, topics: &[String]) -> ConsumerConfig {
    ConsumerConfig {
        group_id: group.to_owned(),
        topics: topics.to_vec(),
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_secs(1),
        ..ConsumerConfig::default()
    }
}

/// Joins a group, reads until `count` records are there, commits them and leaves.
pub(crate) async fn read(client: &Client, config: ConsumerConfig, count: usize) -> Result<Logs> {
    let mut logs = Logs::new();
    let reading = read_into(client, config, count, &mut logs);
    let read = tokio::time::timeout(PATIENCE, reading).await;
    let found: usize = logs.values().map(Vec::len).sum();
    read.with_context(|| format!("{found} of {count} records were read"))??;
    Ok(logs)
}

async fn read_into(client: &Client, config: ConsumerConfig, count: usize, logs: &mut Logs) -> Result<()> {
    let mut consumer = client.consumer(config, Budget::new(16 << 20));
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let committer = consumer.committer();
    let mut lanes = tokio::task::JoinSet::new();
    let mut seen = 0;
    while seen < count {
        tokio::select! {
            event = consumer.next() => match event.context("the group ended")? {
                Event::Assigned(streams) => for mut stream in streams {
                    let sender = sender.clone();
                    lanes.spawn(async move {
                        while let Some(records) = stream.next().await {
                            let _ = sender.send(records);
                        }
                    });
                },
                Event::Fault(fault) => bail!("{fault:?}"),
                Event::Revoking(revocation) => revocation.released(),
                Event::Lost(leases) => bail!("lost {leases:?}"),
            },
            records = receiver.recv() => {
                let records = records.context("a sender is held here")?;
                let log = logs.entry((records.lease.topic().to_string(), records.lease.partition())).or_default();
                for record in records.iter() {
                    let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
                    let sample = Sample {
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: headers.collect(),
                        timestamp: record.timestamp,
                    };
                    log.push((record.offset, sample));
                    seen += 1;
                }
                committer.commit(vec![records.end()]).await?;
            }
        }
    }
    consumer.close();
    while let Some(event) = consumer.next().await {
        if let Event::Revoking(revocation) = event {
            revocation.released();
        }
    }
    lanes.abort_all();
    Ok(())
}

/// Samples with the offsets that they have if they are all that was written.
pub(crate) fn numbered(samples: &[Sample]) -> Vec<(i64, Sample)> {
    (0..).zip(samples.iter().cloned()).collect()
}

/// Panics at the first difference and tells only that one.
pub(crate) fn assert_same(found: &Logs, expected: &Logs, what: &str) {
    let places = |logs: &Logs| logs.iter().map(|(place, log)| (place.clone(), log.len())).collect::<Vec<_>>();
    assert_eq!(places(found), places(expected), "{what}: records by partition");
    for (place, expected) in expected {
        for (index, (found, expected)) in found[place].iter().zip(expected).enumerate() {
            assert_eq!(found, expected, "{what}: record {index} of {place:?}");
        }
    }
}
