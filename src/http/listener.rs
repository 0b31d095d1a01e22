//! Accepts connections and serves them until told to stop.
//!
//! HTTP/1.1 and HTTP/2 without TLS; bounded in connections, header bytes and time, so that slow clients cannot hold the process.
//! It knows no route. [`Listener`] is its main type.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, Answering, Deadlines, Expired},
    refusal::Refusals,
    watched::Watched,
};
use crate::{config::settings::Sidecar, telemetry::metrics::HttpMetrics};

/// How long a connection without a request is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often a listener without a free place is told of in the log.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Requests that one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 128;
/// HTTP/2 flow control: what one request and one connection may have under way to us, in bytes.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Header fields that a request may have.
const MAX_HEADERS: usize = 128;

/// Bounds of a listener's connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerLimits {
    /// Beyond them a caller waits to be accepted.
    pub(crate) connections: usize,
    pub(crate) deadlines: Deadlines,
    pub(crate) header_bytes: usize,
}

impl ListenerLimits {
    pub(crate) fn of(settings: &Sidecar) -> Self {
        Self {
            connections: settings.max_connections,
            deadlines: Deadlines { head: settings.header_timeout, idle: IDLE_TIMEOUT, write: settings.body_timeout },
            header_bytes: settings.max_header_bytes,
        }
    }
}

/// A bound socket that is not served yet.
pub(crate) struct Listener {
    name: &'static str,
    socket: TcpListener,
    limits: ListenerLimits,
    metrics: HttpMetrics,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the {name} listener cannot be opened on {address} ({})", setting(name))]
pub(crate) struct BindError {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
}

/// What says where a listener listens.
fn setting(name: &str) -> &'static str {
    if name == "probes" { "sidecar.probesPort" } else { "server.httpPort" }
}

impl Listener {
    /// `name` says which listener it is, in logs and metrics.
    pub(crate) async fn bind(
        name: &'static str,
        address: SocketAddr,
        limits: ListenerLimits,
        metrics: HttpMetrics,
    ) -> Result<Self, BindError> {
        match TcpListener::bind(address).await {
            Ok(socket) => Ok(Self { name, socket, limits, metrics }),
            Err(source) => Err(BindError { name, address, source }),
        }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; then accepts nothing more, lets requests finish, and cuts what is left at `cut`. Returns how many
    /// connections were cut. Dropping the future cuts them all.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken, cut: CancellationToken) -> usize {
        let Self { name, socket, limits, metrics } = self;
        let gauge = metrics.connections(name);
        let places = Arc::new(Semaphore::new(limits.connections));
        let server = Arc::new(Server::new(name, limits, router, metrics, stop.clone()));
        let mut connections = JoinSet::new();
        let mut full = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => report(name, ended),
                accepted = accept(&socket, &places, &mut full, name, &server.metrics) => match accepted {
                    Ok((stream, place)) => {
                        let open = Open::new(gauge.clone(), place);
                        let server = server.clone();
                        connections.spawn(async move {
                            server.connection(stream).await;
                            drop(open);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(listener = name, %error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                    }
                },
            }
        }
        drop(socket);
        loop {
            tokio::select! {
                biased;
                ended = connections.join_next() => match ended {
                    Some(ended) => report(name, ended),
                    None => return 0,
                },
                () = cut.cancelled() => break,
            }
        }
        let left = connections.len();
        connections.shutdown().await;
        left
    }
}

/// An open connection, counted while it lives.
struct Open {
    gauge: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: Gauge, place: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Waits for a place first, so that callers beyond the bound stay in the system's queue; `full` is when that was last told. Cancel-safe.
async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
    full: &mut Option<Instant>,
    name: &'static str,
    metrics: &HttpMetrics,
) -> io::Result<(tokio::net::TcpStream, OwnedSemaphorePermit)> {
    let place = match places.clone().try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            metrics.refused("connections");
            if full.is_none_or(|told| told.elapsed() > FULL_TOLD_EVERY) {
                *full = Some(Instant::now());
                tracing::warn!(
                    listener = name,
                    "as many connections as allowed are open (sidecar.maxConnections); others wait"
                );
            }
            places.clone().acquire_owned().await.map_err(io::Error::other)?
        }
    };
    let (stream, _) = socket.accept().await?;
    // Answers are small and whole: waiting to fill a packet would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

fn report(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(listener = name, %error, "a connection's task crashed");
    }
}

/// What a listener's connections share.
struct Server {
    name: &'static str,
    protocol: auto::Builder<TokioExecutor>,
    limits: ListenerLimits,
    refusals: Refusals,
    router: Router,
    metrics: HttpMetrics,
    stop: CancellationToken,
}

/// What is buffered of a head before it is complete. The exact limit is the router's; hyper takes no less than 8 KiB.
fn head_buffer(limits: &ListenerLimits) -> usize {
    limits.header_bytes.saturating_mul(2).max(8192)
}

fn protocol(limits: &ListenerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let buffer = head_buffer(limits);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(buffer).max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(buffer).unwrap_or(u32::MAX));
    builder
}

impl Server {
    fn new(
        name: &'static str,
        limits: ListenerLimits,
        router: Router,
        metrics: HttpMetrics,
        stop: CancellationToken,
    ) -> Self {
        let refusals = Refusals::new(head_buffer(&limits), MAX_HEADERS, limits.deadlines.head);
        Self { name, protocol: protocol(&limits), limits, refusals, router, metrics, stop }
    }

    /// Serves one connection until it ends, expires, or the listener stops and its requests are answered.
    async fn connection<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, socket: T) {
        let activity = Activity::new(self.limits.deadlines);
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|request: Request<Incoming>| {
            let in_request = activity.request();
            let answer = router.call(request.map(Body::new));
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, in_request)))
            }
        });
        let io = TokioIo::new(Watched::new(socket, activity.clone(), self.refusals.clone()));
        let connection = self.protocol.serve_connection(io, service);
        tokio::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                            self.metrics.refused("malformed_head");
                        }
                        tracing::debug!(listener = self.name, %error, "a connection broke");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    activity.stop();
                    connection.as_mut().graceful_shutdown();
                }
                expired = activity.expired() => {
                    if expired.is_refusal() {
                        self.metrics.refused(expired.reason());
                    }
                    if expired == Expired::Head && activity.answer_late_head() {
                        // The socket does it as soon as the connection asks it for the rest of the head, which is now.
                        continue;
                    }
                    tracing::debug!(listener = self.name, reason = expired.reason(), "a connection was cut");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
