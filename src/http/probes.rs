//! The health pages and the metrics page.
//!
//! It asks nobody: it shows what [`Health`] and [`Metrics`] hold. [`HealthPages`] is its main type.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{problem::json, unknown_path};
use crate::{
    health::{Health, Word},
    telemetry::metrics::Metrics,
};

#[derive(Clone)]
pub(crate) struct HealthPages(Arc<Pages>);

struct Pages {
    health: Health,
    service_id: String,
    use_json: bool,
}

impl HealthPages {
    /// `use_json` answers part by part instead of with a word.
    pub(crate) fn new(health: Health, service_id: impl Into<String>, use_json: bool) -> Self {
        Self(Arc::new(Pages { health, service_id: service_id.into(), use_json }))
    }

    fn is_ours(&self, service: &str) -> bool {
        self.0.service_id == service
    }
}

/// The process turns, or nobody would answer.
pub(crate) async fn liveness(State(pages): State<HealthPages>) -> Response {
    if pages.0.use_json { json(200, &serde_json::json!({"status": "OK"})) } else { word(true) }
}

pub(crate) async fn readiness(State(pages): State<HealthPages>) -> Response {
    if !pages.0.use_json {
        return word(pages.0.health.is_ready());
    }
    let snapshot = pages.0.health.snapshot();
    json(if snapshot.status == Word::Ok { 200 } else { 400 }, &snapshot)
}

/// The page under the service's own name.
pub(crate) async fn service(
    pages: State<HealthPages>,
    service: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Response {
    match service {
        Ok(Path(service)) if pages.is_ours(&service) => readiness(pages).await,
        Ok(_) | Err(_) => unknown_path(uri).await.into_response(),
    }
}

/// As the old system: OK with 200, ERROR with 400.
fn word(ok: bool) -> Response {
    if ok { "OK".into_response() } else { (StatusCode::BAD_REQUEST, "ERROR").into_response() }
}

/// Prometheus' text, or OpenMetrics for who asks for it.
pub(crate) async fn metrics(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("application/openmetrics-text"));
    let (kind, text) = if headers.get_all(header::ACCEPT).iter().any(accepts) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.open_metrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", metrics.render())
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
