//! One socket to a broker: connect, negotiate versions, pipeline requests, read answers in order.
//!
//! A [`Connection`] is a handle on a task that owns the socket. Requests may be submitted before the socket is open; they
//! are written in the order of submission. The first fault poisons the connection: every waiter gets that one cause, with
//! the [`Outcome`](crate::outcome::Outcome) that fits how far its request had come. It knows nothing of topics or groups.

mod authentication;
mod connector;
mod counters;
mod error;
mod frame;
mod inbox;
mod sasl;
mod session;
mod task;
mod tls;
mod versions;

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
pub use connector::{BoxFuture, Connector, Stream, TcpConnector};
use counters::BrokerCounters;
pub use counters::{Counters, Requests, Sockets};
pub use error::{RequestError, RequestErrorKind};
pub(crate) use frame::frame;
pub use sasl::{Mechanism, Password, SaslError, ScramHash, Token, TokenProvider};
pub use tls::{TlsConfig, TlsConnector};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use versions::ApiVersions;

/// How many requests may wait in front of one socket; the next is refused as not sent.
const QUEUE: usize = 1024;

/// What every connection of a client has in common.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// `client.id`, in every request header.
    pub client_id: Arc<str>,
    /// Covers name resolution, TCP, TLS, the version negotiation and SASL.
    pub setup_timeout: Duration,
    /// A larger answer is refused before a byte of it is allocated.
    pub max_response_bytes: usize,
    /// `connections.max.idle.ms`.
    pub max_idle: Duration,
    /// How we prove who we are; None where the listener asks for nothing.
    pub sasl: Option<Mechanism>,
}

/// A broker's answer to one request: its body behind the response header, and the version it was asked in.
#[derive(Debug, Clone)]
pub struct Answer {
    pub version: i16,
    pub body: Bytes,
}

/// A request's bytes: the header with correlation id 0, then the body, without the length prefix.
pub(crate) struct Frame {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) bytes: BytesMut,
    pub(crate) expects_answer: bool,
}

/// Makes a request's bytes once the broker's versions are known.
pub(crate) type BuildFrame = Box<dyn FnOnce(&ApiVersions) -> Result<Frame, RequestErrorKind> + Send>;

pub(crate) struct Command {
    pub(crate) api: &'static str,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) build: BuildFrame,
    pub(crate) reply: Reply,
}

/// Where a request's answer goes, and is counted.
pub(crate) struct Reply {
    api: &'static str,
    counters: Arc<Counters>,
    waiter: oneshot::Sender<Result<Option<Answer>, RequestError>>,
}

impl Reply {
    /// `None` is the answer to a request that expects none (acks=0): it was written.
    pub(crate) fn answer(self, answer: Option<Answer>, took: Duration) {
        self.counters.answered(self.api, took);
        // Whoever asked may have gone.
        let _ = self.waiter.send(Ok(answer));
    }

    pub(crate) fn fail(self, error: RequestError) {
        self.counters.failed(self.api, error.outcome);
        let _ = self.waiter.send(Err(error));
    }
}

/// A handle on one socket. Cheap to clone; the socket closes when the last handle is gone and every answer has come.
#[derive(Clone)]
pub struct Connection {
    commands: mpsc::Sender<Command>,
    state: Arc<State>,
}

pub(crate) struct State {
    pub(crate) address: Arc<str>,
    pub(crate) poison: OnceLock<RequestErrorKind>,
    pub(crate) versions: OnceLock<Arc<ApiVersions>>,
    /// Until when the broker asked us not to write (KIP-219).
    pub(crate) muted_until: std::sync::Mutex<Option<Instant>>,
    pub(crate) counted: Counted,
}

/// Where a connection counts: for its client and for its broker.
#[derive(Clone)]
pub(crate) struct Counted {
    client: Arc<Counters>,
    pub(crate) broker: Arc<BrokerCounters>,
}

impl Counted {
    /// `node` as in [`Counters::brokers`], or any number below -1 for a bootstrap server.
    pub(crate) fn new(client: Arc<Counters>, node: i32) -> Self {
        let broker = client.broker(node);
        Self { client, broker }
    }
}

impl Connection {
    /// Starts a connection; it waits `delay` (a reconnect back-off) before it connects.
    pub(crate) fn open(
        connector: Arc<dyn Connector>,
        (host, port): (&str, u16),
        delay: Duration,
        config: ConnectionConfig,
        counted: Counted,
        tracker: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let state = Arc::new(State {
            address: format!("{host}:{port}").into(),
            poison: OnceLock::new(),
            versions: OnceLock::new(),
            muted_until: std::sync::Mutex::new(None),
            counted,
        });
        let task = task::Task::new(connector, host.to_owned(), port, config, state.clone(), receiver);
        tracker.spawn(task.run(delay, cancel));
        Self { commands, state }
    }

    /// Queues a request now, in call order, and returns a future of its answer. Dropping the future does not take the
    /// request back.
    pub(crate) fn submit(
        &self,
        api: &'static str,
        timeout: Duration,
        build: BuildFrame,
    ) -> impl Future<Output = Result<Option<Answer>, RequestError>> + Send + 'static {
        let (waiter, answer) = oneshot::channel();
        let reply = Reply { api, counters: self.state.counted.client.clone(), waiter };
        let deadline = Instant::now() + timeout;
        let command = Command { api, deadline, timeout, build, reply };
        if let Err(refusal) = self.commands.try_send(command) {
            let kind = match &refusal {
                mpsc::error::TrySendError::Full(_) => RequestErrorKind::Busy { address: self.state.address.clone() },
                mpsc::error::TrySendError::Closed(_) => closed(&self.state),
            };
            refusal.into_inner().reply.fail(RequestError::not_sent(kind));
        }
        let state = self.state.clone();
        async move {
            let mut answer = std::pin::pin!(answer);
            // A peer that hangs may keep a socket from opening for longer than a request can wait. What is over its deadline
            // is not written any more.
            let answer = match tokio::time::timeout_at(deadline, &mut answer).await {
                Ok(answer) => answer,
                Err(_) if state.versions.get().is_some() => answer.await,
                Err(_) => {
                    let address = state.address.clone();
                    return Err(RequestError::not_sent(RequestErrorKind::Timeout { api, address, timeout }));
                }
            };
            // The task answers every command it has taken; one that it never took was never written.
            answer.unwrap_or_else(|_| Err(RequestError::not_sent(closed(&state))))
        }
    }

    /// Whether the socket is open and negotiated.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed() && self.state.versions.get().is_some()
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.poison.get().is_some() || self.commands.is_closed()
    }

    /// Whether it ended without ever having been open.
    pub(crate) fn failed_to_open(&self) -> bool {
        self.is_closed() && self.state.versions.get().is_none()
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.state.address
    }

    /// Stops writing for as long as the broker asked (KIP-219).
    pub(crate) fn throttle(&self, milliseconds: i32) {
        if let Ok(milliseconds @ 1..) = u64::try_from(milliseconds) {
            self.state.counted.broker.throttled(milliseconds);
            let until = Instant::now() + Duration::from_millis(milliseconds);
            let mut muted = self.state.muted_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *muted = Some(muted.map_or(until, |other| other.max(until)));
        }
    }

    /// No answer to a request that expected one.
    pub(crate) fn unanswered(&self) -> RequestError {
        let (address, cause) = (self.state.address.clone(), "an answer was expected".into());
        RequestError::unknown(RequestErrorKind::Closed { address, cause })
    }
}

fn closed(state: &State) -> RequestErrorKind {
    state.poison.get().cloned().unwrap_or_else(|| RequestErrorKind::Closed {
        address: state.address.clone(),
        cause: "the connection was closed".into(),
    })
}
