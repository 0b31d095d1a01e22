//! The way in for this project's own client: in memory, so that a paused clock stands still while bytes move.

use std::io;

use protocol::connection::{BoxFuture, Connector, Stream};

use crate::cluster::FakeCluster;

/// Connects to the nodes by the host and port that the cluster calls them, whether or not they listen on TCP.
impl Connector for FakeCluster {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let stream = FakeCluster::connect(self, host, port);
        Box::pin(async move { stream.map(|stream| Box::new(stream) as Box<dyn Stream>) })
    }
}
