//! Opens the others: one [`Client`] is one view of one cluster, with the producers, consumers and admin handles on it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Admin,
    budget::Budget,
    cluster::{Cluster, ClusterConfig},
    connection::{Connector, TcpConnector},
    consumer::{Consumer, ConsumerConfig, FetchMemory},
    producer::{ConfigError, Producer, ProducerConfig},
};

/// A client of one cluster. Cheap to clone; clones share sockets and metadata.
#[derive(Clone)]
pub struct Client {
    cluster: Cluster,
    tracker: TaskTracker,
    cancel: CancellationToken,
    consumers: Arc<AtomicU32>,
}

impl Client {
    /// Starts over TCP. Returns at once; brokers that cannot be reached are tried until they can.
    pub fn new(config: ClusterConfig) -> Self {
        Self::with_connector(config, Arc::new(TcpConnector))
    }

    /// Starts over any byte streams.
    pub fn with_connector(config: ClusterConfig, connector: Arc<dyn Connector>) -> Self {
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let cluster = Cluster::start(config, connector, tracker.clone(), cancel.clone());
        Self { cluster, tracker, cancel, consumers: Arc::default() }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A producer whose records take from `budget` until they have their outcome.
    pub fn producer(&self, config: ProducerConfig, budget: Budget) -> Result<Producer, ConfigError> {
        Producer::start(self.cluster.clone(), config, budget)
    }

    /// A group member whose fetched records take from `memory` until they are dropped.
    pub fn consumer(&self, config: ConsumerConfig, memory: impl Into<FetchMemory>) -> Consumer {
        let slot = self.consumers.fetch_add(1, Ordering::Relaxed);
        Consumer::start(&self.cluster, config, memory.into(), slot)
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.cluster.clone())
    }

    /// Ends every task of this client and waits for them, at most `timeout`. Producers and consumers are to be closed
    /// before. Returns whether all ended in time.
    pub async fn close(&self, timeout: Duration) -> bool {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}
