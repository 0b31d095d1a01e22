//! The demo's backend: a small HTTP server that logs each record it is given, refuses some, and can vanish and come back.
//!
//! It knows nothing of Kafka: all it sees is the JSON of the sidecar's requests. [`Backend`] is its main type; what it
//! logged is [`Delivery`].

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::order::Order;

/// One record that reached the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Which sidecar brought it: the path that it was told to call.
    pub(super) path: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// None: the backend vanished before it answered.
    pub(super) processed: Option<bool>,
    pub(super) at: Instant,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<Delivery>>,
    changed: Notify,
    /// The next request is the last one: the process "dies" over it.
    doomed: Mutex<bool>,
}

/// The backend. Dropping it closes everything.
pub(super) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// None while it is away.
    serving: Option<(AbortOnDropHandle<()>, CancellationToken)>,
}

impl Backend {
    pub(super) async fn start() -> io::Result<Self> {
        let mut backend =
            Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), shared: Arc::default(), serving: None };
        backend.come_back().await?;
        Ok(backend)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn log(&self) -> Vec<Delivery> {
        self.shared.log().clone()
    }

    /// Waits until this is true of the log; it is asked after every request. Waits for ever if it never is.
    pub(super) async fn wait_for(&self, condition: impl Fn(&[Delivery]) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.shared.log()) {
                return;
            }
            changed.await;
        }
    }

    /// Dies over the next request: logs its records, answers nothing, closes every connection and its port. Returns when it is gone.
    pub(super) async fn vanish(&mut self) {
        *self.shared.doomed() = true;
        if let Some((server, dead)) = self.serving.take() {
            dead.cancelled().await;
            drop(server);
        }
    }

    /// Is there again, at the same address.
    pub(super) async fn come_back(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        *self.shared.doomed() = false;
        let dead = CancellationToken::new();
        let server = tokio::spawn(serve(listener, self.shared.clone(), dead.clone()));
        self.serving = Some((AbortOnDropHandle::new(server), dead));
        Ok(())
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doomed(&self) -> MutexGuard<'_, bool> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections until it dies; then all of them end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>, dead: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = dead.cancelled() => return,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // A connection that ended before it was accepted is the caller's affair.
        let Ok((stream, _)) = stream else { continue };
        let (shared, dead) = (shared.clone(), dead.clone());
        let service = service_fn(move |request| answer(request, shared.clone(), dead.clone()));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A record as the sidecar sends it, as far as this backend looks at it.
#[derive(Deserialize)]
struct Record<'a> {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(borrow)]
    value: &'a RawValue,
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    dead: CancellationToken,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
    };
    let Ok(records) = serde_json::from_slice::<Vec<Record<'_>>>(&body) else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let (doomed, at) = (*shared.doomed(), Instant::now());
    let mut verdicts = Vec::with_capacity(records.len());
    {
        let mut log = shared.log();
        for record in &records {
            let order = serde_json::from_str::<Order>(record.value.get());
            let refusal = match &order {
                Ok(order) if order.total < 0 => Some(format!("order {}: the total is negative", order.number)),
                Ok(_) => None,
                Err(error) => Some(format!("this is no order: {error}")),
            };
            let Record { topic, partition, offset, .. } = record;
            log.push(Delivery {
                path: path.clone(),
                partition: *partition,
                offset: *offset,
                processed: (!doomed).then_some(refusal.is_none()),
                at,
            });
            verdicts.push(json!({
                "record": {"topic": topic, "partition": partition, "offset": offset},
                "processed": refusal.is_none(),
                "stacktrace": refusal,
            }));
        }
    }
    shared.changed.notify_waiters();
    if doomed {
        dead.cancel();
        return std::future::pending().await;
    }
    Ok(Response::new(Body::from(serde_json::Value::from(verdicts).to_string())))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
