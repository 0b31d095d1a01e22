//! A node's TCP port: accepts while the node is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Peer};
use crate::shared::Shared;

/// The tasks of a node while it is up: its listener and its connections.
#[derive(Debug)]
pub(crate) struct Uptime {
    node: i32,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    open: Arc<AtomicUsize>,
    connections: Arc<AtomicU64>,
}

impl Uptime {
    /// `connections` counts those of the whole cluster.
    pub(crate) fn begin(shared: &Arc<Shared>, node: i32, connections: Arc<AtomicU64>) -> Self {
        Self {
            node,
            shared: shared.clone(),
            cancel: shared.cancel.child_token(),
            tasks: TaskTracker::new(),
            open: Arc::default(),
            connections,
        }
    }

    /// Accepts on this socket until the node goes down.
    pub(crate) fn listen(self: &Arc<Self>, listener: TcpListener) {
        // The task must not hold the tracker that waits for it alive any longer than it runs, so a clone of the Arc is all it has.
        let uptime = self.clone();
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! { biased;
                    () = uptime.cancel.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, from)) => {
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(node = uptime.node, %error, "a connection was gone before it was served");
                            continue;
                        }
                        uptime.connect(stream, from.ip().to_string());
                    }
                    Err(error) => {
                        tracing::warn!(node = uptime.node, %error, "a connection could not be accepted");
                        // Out of file descriptors, most likely: let others finish first.
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
    }

    /// Serves a connection that was made. False if there are too many, or the node is going down.
    pub(crate) fn connect<S>(&self, stream: S, host: String) -> bool
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if self.cancel.is_cancelled() {
            return false;
        }
        if self.open.fetch_add(1, Ordering::SeqCst) >= self.shared.settings.max_connections {
            self.open.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let peer = Peer { node: self.node, connection, host };
        let (shared, cancel, open) = (self.shared.clone(), self.cancel.clone(), self.open.clone());
        self.tasks.spawn(async move {
            connection::serve(shared, peer, stream, cancel).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
        true
    }

    /// Closes the port and all connections, and waits until they are.
    pub(crate) async fn end(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Binds a node's port: the one given, or a free one of 127.0.0.1.
pub(crate) async fn bind(address: Option<SocketAddr>) -> io::Result<(TcpListener, SocketAddr)> {
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
