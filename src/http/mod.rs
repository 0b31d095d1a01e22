//! The HTTP edge: the only place that knows axum, status codes and JSON shapes.
//!
//! It turns requests into the flows' types and their outcomes into answers; [`problem`] maps every fault once. It knows no Kafka
//! request. [`Edge`] is its main type; [`listener`] accepts connections and holds slow clients to their deadlines.

mod activity;
mod admission;
mod body;
mod charged;
pub(crate) mod listener;
mod probes;
mod problem;
mod produce;
mod produce_answer;
mod produce_body;
mod refusal;
mod scalar;
mod trace;
mod watched;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
};
pub(crate) use probes::HealthPages;
use problem::{Fault, Problem};
pub(crate) use produce::ProduceEdge;
use protocol::budget::Budget;
use tokio::sync::Semaphore;

use crate::{
    config::settings::{Format, Settings},
    format,
    produce::{Common, Encode, Encoded, Sink},
    telemetry::metrics::{HttpMetrics, Metrics},
};

/// Bounds of a single request.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits {
    /// The largest body, in bytes.
    pub(crate) body_bytes: usize,
    /// How long a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// Request line and headers together, in bytes.
    pub(crate) header_bytes: usize,
    /// Records of one produce request.
    pub(crate) records: usize,
}

impl RequestLimits {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            body_bytes: settings.server.max_body_bytes,
            body_timeout: settings.sidecar.body_timeout,
            header_bytes: settings.sidecar.max_header_bytes,
            records: settings.sidecar.max_records_per_request,
        }
    }
}

/// What all data routes share.
pub(crate) struct Edge {
    limits: RequestLimits,
    metrics: HttpMetrics,
    /// Requests that may be worked on at once.
    slots: Arc<Semaphore>,
    /// Bytes of bodies in memory, of requests and of answers.
    bodies: Budget,
}

impl Edge {
    /// `bodies` bounds the bytes of all request bodies in memory; beyond it one body at a time goes on.
    pub(crate) fn new(
        limits: RequestLimits,
        requests_in_flight: usize,
        bodies: Budget,
        metrics: HttpMetrics,
    ) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(requests_in_flight));
        Arc::new(Self { limits, metrics, slots, bodies })
    }
}

/// The data listener's routes. Without `produce` the produce route says that the producer is not enabled.
pub(crate) fn data_router<S: Sink>(
    edge: &Arc<Edge>,
    produce: Option<Arc<ProduceEdge<S>>>,
    health: Option<HealthPages>,
    metrics: Metrics,
) -> Router {
    let producers = match produce {
        Some(produce) => post(produce::handle::<S>).with_state((edge.clone(), produce)),
        None => post(produce::not_enabled),
    };
    let data = Router::new()
        .route("/producers/{topic}", producers)
        .layer(middleware::from_fn_with_state(edge.clone(), admission::admit));
    finish(edge, data.merge(probe_routes(health, metrics)))
}

/// The probes listener's routes: health and metrics, nothing else.
pub(crate) fn probes_router(edge: &Arc<Edge>, health: Option<HealthPages>, metrics: Metrics) -> Router {
    finish(edge, probe_routes(health, metrics))
}

fn probe_routes(health: Option<HealthPages>, metrics: Metrics) -> Router {
    let routes = Router::new().route("/metrics", get(probes::metrics).with_state(metrics));
    let Some(pages) = health else { return routes };
    let health = Router::new()
        .route("/health/liveness", get(probes::liveness))
        .route("/health/readiness", get(probes::readiness))
        // The service's id is any text: it is compared, never a part of a pattern.
        .route("/health/{service}", get(probes::service))
        .route("/adm/health/{service}", get(probes::service));
    routes.merge(health.with_state(pages))
}

fn finish(edge: &Arc<Edge>, routes: Router) -> Router {
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(edge.clone(), admission::measure))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(Fault::UnknownPath, format!("{} is no path of this server", shown(&uri)))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Fault::MethodNotAllowed, format!("{} does not take {method}", shown(&uri)))
}

/// The path, or what a caller gave in its place.
fn shown(uri: &Uri) -> String {
    match uri.path() {
        "" => scalar::shortened(&uri.to_string()),
        path => scalar::shortened(path),
    }
}

/// What the produce route does with a body before anything is sent: the records, and of each whether it fits its formats.
pub(crate) fn read_produce_body(
    body: &[u8],
    max_records: usize,
) -> Result<Vec<Result<Encoded, String>>, (u16, String)> {
    let parsed =
        produce_body::parse(body, max_records).map_err(|problem| (problem.fault.status(), problem.description))?;
    let common = Common {
        topic: "topic".into(),
        key_format: parsed.key_format.unwrap_or(Format::String),
        value_format: parsed.value_format.unwrap_or(Format::Json),
        headers: Vec::new(),
        trace_context: Vec::new(),
        correlation_id: None,
        traceability_id: None,
    };
    let encode: Encode = |format, raw| format::encode(format, raw).map_err(|reason| reason.to_string());
    Ok(parsed.records.into_iter().map(|record| record.encode(&common, encode)).collect())
}

#[cfg(test)]
mod tests;
