//! What is produced is consumed, exactly and in order, and what is committed stays committed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{CommitOffset, Consumer, ConsumerConfig, Event},
    producer::{ProduceRecord, ProducerConfig},
    record::Compression,
};

use crate::support::kafka::{self, Kafka, VERSIONS};

const PATIENCE: Duration = Duration::from_secs(60);

fn client(kafka: &Kafka) -> Client {
    let mut bootstrap = vec![("127.0.0.1".to_owned(), kafka::free_ports(1).expect("a port")[0])];
    for address in kafka.bootstrap() {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        bootstrap.push((host.to_owned(), port.parse().expect("a port")));
    }
    // The first address is dead on purpose.
    Client::new(ClusterConfig::new(bootstrap))
}

fn group(name: &str, topic: &str) -> ConsumerConfig {
    ConsumerConfig {
        group_id: name.to_owned(),
        topics: vec![topic.to_owned()],
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_secs(1),
        ..ConsumerConfig::default()
    }
}

type Owned = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// Reads until `count` records are there, commits them all, and leaves the group. By partition, in order.
async fn read_and_commit(mut consumer: Consumer, count: usize) -> Result<BTreeMap<i32, Vec<Owned>>> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let committer = consumer.committer();
    let mut read: BTreeMap<i32, Vec<Owned>> = BTreeMap::new();
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
                let records = records.context("the lanes hold a sender")?;
                let partition = read.entry(records.lease.partition()).or_default();
                for record in records.iter() {
                    let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
                    partition.push((
                        record.offset,
                        record.timestamp,
                        record.key.map(<[u8]>::to_vec),
                        record.value.map(<[u8]>::to_vec),
                        headers.collect(),
                    ));
                    seen += 1;
                }
                let offset = CommitOffset {
                    lease: records.lease.clone(),
                    offset: records.next_offset,
                    leader_epoch: records.leader_epoch,
                    metadata: String::new(),
                };
                committer.commit(vec![offset]).await?;
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
    Ok(read)
}

async fn produced_is_consumed(kafka: &Kafka, compression: Compression) -> Result<()> {
    let topic: Arc<str> = format!("round-trip-{compression}").into();
    let client = client(kafka);
    client.admin().create_topic(&topic, 3, PATIENCE).await?;
    let config = ProducerConfig { compression, ..ProducerConfig::default() };
    let producer = client.producer(config, Budget::new(8 << 20))?;
    let mut deliveries = Vec::new();
    let mut sent: BTreeMap<i32, Vec<Owned>> = BTreeMap::new();
    let mut records = Vec::new();
    for index in 0..1000i64 {
        let key = (index % 3 != 0).then(|| format!("key-{}", index % 17).into_bytes());
        let value = (index % 10 != 0).then(|| format!("value {index} ").repeat(5).into_bytes());
        let headers =
            vec![(b"h".to_vec(), Some(vec![0xff, index as u8])), (b"h".to_vec(), None), (vec![0xfe], Some(vec![]))];
        let record = ProduceRecord {
            topic: topic.clone(),
            partition: None,
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers: headers.iter().map(|(n, v)| (n.clone().into(), v.clone().map(Into::into))).collect(),
            timestamp: Some(1_700_000_000_000 + index),
        };
        deliveries.push(producer.send(record).await?);
        records.push((1_700_000_000_000 + index, key, value, headers));
    }
    for (delivery, (timestamp, key, value, headers)) in deliveries.into_iter().zip(records) {
        let receipt = delivery.await?;
        let offset = receipt.offset.context("an offset")?;
        sent.entry(receipt.partition).or_default().push((offset, timestamp, key, value, headers));
    }
    let name = format!("readers-of-{topic}");
    let consumer = client.consumer(group(&name, &topic), Budget::new(8 << 20));
    let read = tokio::time::timeout(PATIENCE, read_and_commit(consumer, 1000)).await.context("reading")??;
    assert_eq!(read, sent, "every record, in the order of its partition, with all that belongs to it");
    let committed = client.admin().committed(&name).await?;
    let ends = client.admin().log_ends(&topic).await?;
    for (partition, ends) in ends {
        assert_eq!(committed.get(&(topic.clone(), partition)), Some(&ends.latest), "partition {partition}");
    }
    assert_eq!(producer.close(PATIENCE).await, 0);
    assert!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_consumed_in_every_codec() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_is_produced_is_consumed_in_every_codec") else { continue };
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            produced_is_consumed(kafka, codec).await.with_context(|| format!("{codec} on {version}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "two_members_share_the_partitions") else { continue };
        let topic: Arc<str> = "shared-by-two".into();
        let client = client(kafka);
        client.admin().create_topic(&topic, 4, PATIENCE).await?;
        let mut first = client.consumer(group("two", &topic), Budget::new(1 << 20));
        assert_eq!(assigned(&mut first, 4).await?, 4);
        let mut second = client.consumer(group("two", &topic), Budget::new(1 << 20));
        // The second gets what the first gives up; the two others never stop.
        let (given_up, taken) = tokio::try_join!(given_up(&mut first), assigned(&mut second, 2))?;
        assert_eq!((given_up, taken), (2, 2), "on {version}");
        second.close();
        let drain = async {
            while let Some(event) = second.next().await {
                drop(event);
            }
            Ok(())
        };
        let (back, ()) = tokio::try_join!(assigned(&mut first, 2), drain)?;
        assert_eq!(back, 2, "on {version}");
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

async fn assigned(consumer: &mut Consumer, count: usize) -> Result<usize> {
    let mut seen = 0;
    while seen < count {
        let event = tokio::time::timeout(PATIENCE, consumer.next()).await.context("no assignment")?;
        match event.context("the group ended")? {
            Event::Assigned(streams) => seen += streams.len(),
            Event::Fault(fault) => bail!("{fault:?}"),
            Event::Lost(leases) => bail!("lost {leases:?}"),
            Event::Revoking(_) => {}
        }
    }
    Ok(seen)
}

async fn given_up(consumer: &mut Consumer) -> Result<usize> {
    loop {
        let event = tokio::time::timeout(PATIENCE, consumer.next()).await.context("nothing was revoked")?;
        if let Event::Revoking(revocation) = event.context("the group ended")? {
            return Ok(revocation.leases.len());
        }
    }
}
