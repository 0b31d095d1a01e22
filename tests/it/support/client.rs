//! Our own client as tests use it.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use protocol::{
    budget::Budget,
    client::Client,
    consumer::{Consumer, ConsumerConfig},
    producer::{Delivery, ProduceRecord, Producer, ProducerConfig, Receipt},
};

/// What a test waits for at most, before it says that it does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Memory of a producer or consumer in a test.
const BUDGET: usize = 8 << 20;

/// A producer with room enough for a test.
pub(crate) fn producer(client: &Client, config: ProducerConfig) -> Result<Producer> {
    Ok(client.producer(config, Budget::new(BUDGET))?)
}

/// A member of a group, with room enough for a test and the quickest session that Kafka allows by default.
pub(crate) fn member(client: &Client, group: &str, topic: &str) -> Consumer {
    client.consumer(group_of(group, topic), Budget::new(BUDGET))
}

/// A member with further settings.
pub(crate) fn member_with(client: &Client, config: ConsumerConfig) -> Consumer {
    client.consumer(config, Budget::new(BUDGET))
}

pub(crate) fn group_of(group: &str, topic: &str) -> ConsumerConfig {
    ConsumerConfig {
        group_id: group.to_owned(),
        topics: vec![topic.to_owned()],
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_secs(1),
        ..ConsumerConfig::default()
    }
}

/// Sends numbers as records, and waits for their receipts.
pub(crate) async fn send_values(
    producer: &Producer,
    topic: &str,
    partition: Option<i32>,
    values: std::ops::Range<usize>,
) -> Result<Vec<Receipt>> {
    let mut deliveries: Vec<Delivery> = Vec::new();
    for value in values {
        let value = Some(Bytes::from(value.to_string()));
        let record = ProduceRecord { topic: topic.into(), partition, value, ..ProduceRecord::default() };
        deliveries.push(producer.send(record).await?);
    }
    let mut receipts = Vec::new();
    for delivery in deliveries {
        receipts.push(delivery.await?);
    }
    Ok(receipts)
}
