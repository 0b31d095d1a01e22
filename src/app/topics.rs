//! Topics as a broker tells them, for the writers that make their own.
//!
//! [`KafkaTopics`] is its main type.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use protocol::client::Client;

use crate::record::sink::Topics;

/// How long a broker may take to create a topic.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// The broker's own `num.partitions`.
const BROKER_DEFAULT: i32 = -1;

pub(crate) struct KafkaTopics(pub(crate) Client);

impl Topics for KafkaTopics {
    fn partition_count<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Option<i32>> {
        async move {
            let topic = self.0.admin().describe_topic(topic).await?;
            i32::try_from(topic.partitions.len()).ok()
        }
        .boxed()
    }

    fn create<'a>(&'a self, topic: &'a str, partitions: Option<i32>) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let count = partitions.unwrap_or(BROKER_DEFAULT);
            let created = self.0.admin().create_topic(topic, count, CREATE_TIMEOUT).await;
            created.map_err(|error| error.to_string())?;
            let partitions = partitions.map_or_else(|| "the broker's default".to_owned(), |count| count.to_string());
            tracing::info!(topic, partitions, "created a missing topic");
            Ok(())
        }
        .boxed()
    }
}
