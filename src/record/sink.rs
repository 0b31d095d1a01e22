//! Where the sidecar's own records go (dead letters, audit entries) and what is known of the topics they go to.
//!
//! It knows neither what is in the records nor how a broker is reached. [`RecordSink`] is implemented for the Kafka
//! producer; tests use one in memory. [`Topics`] is the little of Kafka's administration that these writers need.

use futures_util::future::{BoxFuture, FutureExt};
use protocol::producer::{ProduceError, ProduceRecord, Producer, Receipt};

/// Writes records and tells when each is durable.
pub(crate) trait RecordSink: Send + Sync + 'static {
    /// Waits for room and then for the broker's acknowledgement.
    ///
    /// Dropping the future stops waiting; the record may be written all the same.
    fn send(&self, record: ProduceRecord) -> BoxFuture<'_, Result<Receipt, ProduceError>>;
}

impl RecordSink for Producer {
    fn send(&self, record: ProduceRecord) -> BoxFuture<'_, Result<Receipt, ProduceError>> {
        async move { Producer::send(self, record).await?.await }.boxed()
    }
}

/// Asks for topics and creates them.
pub(crate) trait Topics: Send + Sync + 'static {
    /// How many partitions the topic has; None if it does not exist or is not known yet. Asks a broker where it must.
    fn partition_count<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Option<i32>>;

    /// Creates the topic with so many partitions (None: the broker's default). A topic that exists already is no error.
    fn create<'a>(&'a self, topic: &'a str, partitions: Option<i32>) -> BoxFuture<'a, Result<(), String>>;
}
