//! What every request passes before and after its handler: the bound on requests in flight, the header limit, the measurements.
//!
//! It knows no route. [`Slot`] is the right to be worked on.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Edge, charged,
    problem::{Fault, Problem},
    trace::RequestIds,
};

/// One of the requests in flight; the place is free again when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Slot {
    _held: Arc<Held>,
}

struct Held {
    _permit: OwnedSemaphorePermit,
    in_flight: Gauge,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

/// Lets a request through if there is a place for it; a handler finds its [`Slot`] in the extensions.
pub(crate) async fn admit(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let Ok(permit) = edge.slots.clone().try_acquire_owned() else {
        edge.metrics.refused("requests_in_flight");
        let description = "as many requests as allowed are being worked on (sidecar.maxRequestsInFlight)";
        return Problem::new(Fault::TooManyRequests, description).into_response();
    };
    let in_flight = edge.metrics.in_flight.clone();
    in_flight.inc();
    request.extensions_mut().insert(Slot { _held: Arc::new(Held { _permit: permit, in_flight }) });
    next.run(request).await
}

/// Measures a request by its route's template, refuses one with too large a head, echoes the traceability id.
pub(crate) async fn measure(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = request.method().clone();
    let echo = RequestIds::echo(request.headers());
    let ids = tracing::enabled!(tracing::Level::DEBUG).then(|| RequestIds::of(request.headers())).unwrap_or_default();

    let mut response = if head_bytes(&request) > edge.limits.header_bytes {
        edge.metrics.refused("head_too_large");
        let limit = edge.limits.header_bytes;
        let description = format!("request line and headers take more than {limit} bytes (sidecar.maxHeaderBytes)");
        Problem::new(Fault::HeadersTooLarge, description).into_response()
    } else {
        next.run(request).await
    };
    response = charged::charge(response, &edge.bodies);
    if let Some((name, value)) = echo {
        response.headers_mut().insert(name, value);
    }
    let status = response.status().as_u16();
    edge.metrics.answered(route, method.as_str(), status, started.elapsed());
    let took_ms = started.elapsed().as_millis() as u64;
    let RequestIds { correlation_id, traceability_id, .. } = ids;
    tracing::debug!(%method, route, status, took_ms, correlation_id, traceability_id, "request answered");
    response
}

/// About the bytes that the head took on the wire in HTTP/1.1.
fn head_bytes(request: &Request) -> usize {
    let line =
        request.method().as_str().len() + request.uri().path().len() + request.uri().query().map_or(0, str::len) + 12;
    request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}
