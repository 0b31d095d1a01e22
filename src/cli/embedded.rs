//! The Kafka cluster in this process, for newcomers: nothing to install, nothing on disk.
//!
//! It knows no record. [`Embedded`] is its main type; [`Embedded::bootstrap_settings`] points a sidecar at it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use fake_broker::FakeCluster;

/// Bytes that a partition keeps: enough for a try, and bounded whatever is produced.
const RETENTION_BYTES: usize = 64 << 20;

/// An embedded cluster that is reached over TCP on the loopback address.
pub(super) struct Embedded {
    cluster: FakeCluster,
}

impl Embedded {
    /// Starts so many brokers, the first on `port` (0: a free one), with one topic.
    pub(super) async fn start(brokers: i32, port: u16, topic: &str, partitions: i32) -> io::Result<Self> {
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let cluster = FakeCluster::builder()
            .nodes(brokers)
            .listen_tcp_at(&[first])
            .topic(topic, partitions)
            .default_partitions(partitions)
            .retention_bytes(RETENTION_BYTES)
            .request_log_bytes(0)
            .start()
            .await?;
        Ok(Self { cluster })
    }

    /// `host:port` of every broker.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.cluster.bootstrap().iter().map(|(host, port)| format!("{host}:{port}")).collect()
    }

    /// The same as socket addresses.
    pub(super) fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses().iter().filter_map(|address| address.parse().ok()).collect()
    }

    /// What a sidecar needs to know of it.
    pub(super) fn bootstrap_settings(&self) -> Vec<(String, String)> {
        let servers = self.addresses().join(",");
        ["producer", "consumer", "admin"]
            .map(|part| (format!("kafka-{part}.bootstrap.servers"), servers.clone()))
            .to_vec()
    }

    /// Ends it, with all that it holds.
    pub(super) async fn stop(self) {
        self.cluster.shutdown().await;
    }
}
