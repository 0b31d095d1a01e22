//! Topics that are not there yet, and topics that grow.

use anyhow::{Result, ensure};
use bytes::Bytes;
use kafka_protocol::{
    messages::{CreatePartitionsRequest, TopicName, create_partitions_request::CreatePartitionsTopic},
    protocol::StrBytes,
};
use protocol::{
    outcome::Outcome,
    producer::{ProduceErrorKind, ProduceRecord, ProducerConfig},
};

use super::{
    bed::{Bed, PATIENCE, member, producer},
    reading::{assigned, leave, rows},
    records::send_values,
};

pub(super) async fn an_unknown_topic_is_made_by_producing_to_it(bed: &Bed) -> Result<()> {
    let client = bed.client();
    let producer = producer(&client, ProducerConfig::default())?;
    assert_eq!(send_values(&producer, "made-in-passing", Some(0), 0..10).await?.len(), 10);
    let topic = client.admin().describe_topic("made-in-passing").await;
    assert_eq!(topic.map(|topic| topic.partitions.len()), Some(3), "as many partitions as the broker's default");
    Ok(())
}

pub(super) async fn without_leave_to_make_it_an_unknown_topic_is_an_error(bed: &Bed) -> Result<()> {
    let client = bed.client();
    let config = ProducerConfig { allow_auto_create_topics: false, ..ProducerConfig::default() };
    let producer = producer(&client, config)?;
    let value = Some(Bytes::from("v"));
    let record = ProduceRecord { topic: "never-made".into(), value, ..ProduceRecord::default() };
    let refused = producer.send(record).await.map(drop).map_err(|error| (error.kind, error.outcome));
    assert_eq!(refused, Err((ProduceErrorKind::UnknownTopic, Outcome::NotSent)));
    assert_eq!(client.admin().describe_topic("never-made").await.map(|topic| topic.partitions.len()), None);
    Ok(())
}

pub(super) async fn a_topic_that_comes_later_is_picked_up(bed: &Bed) -> Result<()> {
    let client = bed.client();
    let mut consumer = member(&client, "early-birds", "comes-later");
    let creating = async {
        client.admin().describe_cluster().await;
        client.admin().create_topic("comes-later", 2, PATIENCE).await?;
        let producer = producer(&client, ProducerConfig::default())?;
        send_values(&producer, "comes-later", Some(1), 0..5).await
    };
    let (sent, streams) = tokio::join!(creating, assigned(&mut consumer, 2));
    assert_eq!(sent?.len(), 5);
    assert_eq!(rows(&mut streams?, 5).await?.len(), 5);
    leave(consumer).await
}

pub(super) async fn partitions_that_are_added_later_are_picked_up(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("growing", 1, PATIENCE).await?;
    let mut consumer = member(&client, "growers", "growing");
    let mut streams = assigned(&mut consumer, 1).await?;
    let name = TopicName(StrBytes::from_static_str("growing"));
    let topic = CreatePartitionsTopic::default().with_name(name).with_count(3).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = bed.raw().await?.ask(3, &request).await?;
    ensure!(answer.results.iter().all(|result| result.error_code == 0), "{answer:?}");
    let producer = producer(&client, ProducerConfig::default())?;
    // Somebody who produces to a new partition asks for it.
    send_values(&producer, "growing", Some(2), 0..5).await?;
    streams.extend(assigned(&mut consumer, 2).await?);
    assert_eq!(rows(&mut streams, 5).await?.len(), 5);
    leave(consumer).await
}
