//! `POST /producers/{topic}`: a request becomes records, the flow's report becomes the answer.
//!
//! It knows how requests look and nothing of how records are sent. [`ProduceEdge`] is its main type.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use super::{
    Edge,
    admission::Slot,
    body,
    problem::{Fault, Problem},
    produce_answer, produce_body, scalar,
    trace::RequestIds,
};
use crate::{
    config::settings::{Format, Producer},
    produce::{Common, Flow, Sink, topic_name_fault},
    record::{CALLER_ID, CORRELATION_ID, TRACEABILITY_ID},
};

/// The produce flow as HTTP sees it, with what configuration says for every request.
pub(crate) struct ProduceEdge<S> {
    flow: Flow<S>,
    key_format: Format,
    value_format: Format,
    /// The Kafka header's name as configured, and the HTTP header that it is copied from.
    copied_headers: Vec<(Bytes, HeaderName)>,
    caller_id: Option<Bytes>,
    compatible_status: bool,
}

impl<S: Sink> ProduceEdge<S> {
    /// Names of `copiedHeaders` that are no HTTP header names are told in the log and left out.
    pub(crate) fn new(flow: Flow<S>, settings: &Producer, service_id: &str) -> Self {
        let is_id =
            |name: &str| name.eq_ignore_ascii_case(CORRELATION_ID) || name.eq_ignore_ascii_case(TRACEABILITY_ID);
        let copied_headers = settings.copied_headers.iter().filter(|name| !is_id(name)).filter_map(|name| {
            let header = HeaderName::from_bytes(name.as_bytes());
            if header.is_err() {
                tracing::warn!(name, "a header to copy cannot exist in HTTP and is left out");
            }
            header.ok().map(|header| (Bytes::from(name.clone()), header))
        });
        Self {
            flow,
            key_format: settings.key_format,
            value_format: settings.value_format,
            copied_headers: copied_headers.collect(),
            caller_id: settings.inject_caller_id.then(|| Bytes::copy_from_slice(service_id.as_bytes())),
            compatible_status: settings.compatible_status,
        }
    }

    pub(crate) fn flow(&self) -> &Flow<S> {
        &self.flow
    }

    fn common_headers(&self, headers: &HeaderMap) -> Vec<(Bytes, Option<Bytes>)> {
        let copied = self.copied_headers.iter().flat_map(|(name, header)| {
            let values = headers.get_all(header).iter();
            values.map(|value| (name.clone(), Some(Bytes::copy_from_slice(value.as_bytes()))))
        });
        let caller = self.caller_id.iter().map(|id| (Bytes::from_static(CALLER_ID.as_bytes()), Some(id.clone())));
        copied.chain(caller).collect()
    }
}

type ProduceState<S> = (Arc<Edge>, Arc<ProduceEdge<S>>);

/// The handler. Dropping it after the body was parsed changes nothing for the records.
pub(crate) async fn handle<S: Sink>(
    State((edge, produce)): State<ProduceState<S>>,
    topic: Result<Path<String>, PathRejection>,
    Extension(slot): Extension<Slot>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match answer(&edge, &produce, topic, slot, &headers, body).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(fault = ?problem.fault, status = problem.fault.status(), "produce request refused");
            // The old system had no 415.
            let compatible = produce.compatible_status && problem.fault == Fault::MediaType;
            if compatible { problem.with_status(400) } else { problem }.into_response()
        }
    }
}

async fn answer<S: Sink>(
    edge: &Edge,
    produce: &ProduceEdge<S>,
    topic: Result<Path<String>, PathRejection>,
    slot: Slot,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Ok(Path(topic)) = topic else {
        return Err(Problem::new(Fault::InvalidTopicName, "the topic in the path is no UTF-8 text").closing());
    };
    if let Some(reason) = topic_name_fault(&topic) {
        return Err(
            Problem::new(Fault::InvalidTopicName, format!("topic {:?}: {reason}", scalar::shortened(&topic))).closing()
        );
    }
    let (body, held) = body::read(headers, body, &edge.limits, &edge.bodies).await?;
    if !body.is_empty() {
        expect_json(headers)?;
    }
    let parsed = produce_body::parse(&body, edge.limits.records)?;
    if parsed.atomic {
        let description =
            "atomic: all or none needs transactions, which this version does not have; nothing was produced";
        return Err(Problem::new(Fault::AtomicNotAvailable, description));
    }
    let key_format = parsed.key_format.unwrap_or(produce.key_format);
    let value_format = parsed.value_format.unwrap_or(produce.value_format);
    refuse_schema("keyFormat", key_format, parsed.key_schema_field.filter(|_| parsed.key_format.is_none()))?;
    refuse_schema("valueFormat", value_format, parsed.value_schema_field.filter(|_| parsed.value_format.is_none()))?;

    let ids = RequestIds::of(headers);
    let common = Common {
        topic: topic.into(),
        key_format,
        value_format,
        headers: produce.common_headers(headers),
        trace_context: ids.trace_context,
        correlation_id: ids.correlation_id,
        traceability_id: ids.traceability_id,
    };
    let report = produce.flow.produce(&common, parsed.records, held, slot);
    drop(body);
    match report.await {
        Ok(report) => Ok(produce_answer::response(&report, produce.compatible_status)),
        Err(defect) => Err(Problem::new(Fault::Internal, defect.to_string())),
    }
}

/// A page of another origin can post anything but JSON to a loopback address without asking; so JSON has to be declared.
fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let description = format!("Content-Encoding {} is not understood", scalar::shortened(&encoding));
        return Err(Problem::new(Fault::MediaType, description));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    if subtype == "json" || subtype.ends_with("+json") {
        return Ok(());
    }
    let got = if kind.is_empty() { "none".to_owned() } else { scalar::shortened(kind) };
    Err(Problem::new(Fault::MediaType, format!("expected Content-Type application/json, got {got}")))
}

/// Keys or values that ask for a schema, by their format or by a field. A field beside a format that needs none says nothing.
fn refuse_schema(format_field: &str, format: Format, schema_field: Option<&str>) -> Result<(), Problem> {
    let asks = match (schema_field, format) {
        (Some(field), _) => field.to_owned(),
        (None, Format::Avro | Format::JsonSchema | Format::Protobuf) => {
            format!("{format_field}: {}", scalar::format_name(format))
        }
        (None, Format::Binary | Format::Json | Format::String) => return Ok(()),
    };
    let description = format!(
        "{asks} needs a schema registry, and none is configured; there are the formats binary, json and string"
    );
    Err(Problem::new(Fault::NoRegistry, description))
}

/// The answer of the produce route where the producer is switched off.
pub(crate) async fn not_enabled() -> Problem {
    let description = "the producer is not among the configured startup hooks (ProducerStartupHook)";
    Problem::new(Fault::ProducerNotEnabled, description)
}
