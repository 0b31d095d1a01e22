//! The routes, from bytes on a socket's worth of request to the records in the sink.

use std::{collections::BTreeMap, path::PathBuf};

use axum::{body::Body, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper_util::service::TowerToHyperService;
use protocol::{outcome::Outcome, producer::ProduceErrorKind};
use serde_json::{Value, value::RawValue};

use super::*;
use crate::{
    config::settings::{Audit, AuditTarget, Connection, Format, Producer},
    health::Health,
    produce::{Flow, memory_sink::MemorySink},
};

/// The three formats, as plainly as they can be written.
fn encode(format: Format, raw: &RawValue) -> Result<Option<Bytes>, String> {
    if raw.get() == "null" {
        return Ok(None);
    }
    let string = || serde_json::from_str::<String>(raw.get()).map_err(|_| "not a JSON string".to_owned());
    match format {
        Format::Binary => Ok(Some(STANDARD.decode(string()?).map_err(|_| "not base64".to_owned())?.into())),
        Format::String => Ok(Some(string()?.into())),
        _ => Ok(Some(Bytes::copy_from_slice(raw.get().as_bytes()))),
    }
}

fn producer() -> Producer {
    Producer {
        connection: Connection {
            bootstrap_servers: vec!["localhost:9092".into()],
            client_id: "test".into(),
            rack: None,
            request_timeout: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            security: crate::config::settings::KafkaSecurity::default(),
        },
        kafka: Default::default(),
        key_format: Format::String,
        value_format: Format::Json,
        inject_caller_id: false,
        copied_headers: Vec::new(),
        compatible_status: false,
        audit: Audit {
            enabled: false,
            target: AuditTarget::Topic,
            topic: "sidecar-audit".into(),
            file: PathBuf::new(),
            file_max_bytes: 0,
            file_max_history: 0,
        },
    }
}

struct Fixture {
    router: Router,
    sink: MemorySink,
    metrics: Metrics,
    health: Health,
}

fn fixture_with(settings: &Producer, in_flight: usize) -> Fixture {
    let (sink, metrics) = (MemorySink::default(), Metrics::new());
    let health = Health::new(Duration::from_secs(30));
    let limits =
        RequestLimits { body_bytes: 10_000, body_timeout: Duration::from_secs(30), header_bytes: 2000, records: 100 };
    let edge = Edge::new(limits, in_flight, Budget::new(100_000), metrics.http.clone());
    let flow = Flow::new(sink.clone(), None, encode, metrics.produce.clone());
    let produce = Arc::new(ProduceEdge::new(flow, settings, "com.networknt.kafka-sidecar-1.0.0"));
    let pages = HealthPages::new(health.clone(), "com.networknt.kafka-sidecar-1.0.0", false);
    Fixture { router: data_router(&edge, Some(produce), Some(pages), metrics.clone()), sink, metrics, health }
}

fn fixture() -> Fixture {
    fixture_with(&producer(), 16)
}

impl Fixture {
    async fn send(&self, request: axum::http::Request<Body>) -> Response {
        let service = TowerToHyperService::new(self.router.clone());
        hyper::service::Service::call(&service, request).await.expect("infallible")
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = axum::http::Request::post(path).header("Content-Type", "application/json");
        parts(self.send(request.body(body.into()).expect("request")).await).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.send(axum::http::Request::get(path).body(Body::empty()).expect("request")).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(bytes_of(response).await.to_vec()).expect("text"))
    }

    fn written(&self) -> Vec<(Option<Bytes>, Option<Bytes>)> {
        self.sink.written().into_iter().map(|record| (record.key, record.value)).collect()
    }
}

async fn bytes_of(response: Response) -> Bytes {
    axum::body::to_bytes(response.into_body(), 1_000_000).await.expect("body")
}

async fn parts(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&bytes_of(response).await).expect("json"))
}

fn bytes(texts: [(&'static str, &'static str); 3]) -> Vec<(Option<Bytes>, Option<Bytes>)> {
    texts.map(|(key, value)| (Some(Bytes::from(key)), Some(Bytes::from(value)))).to_vec()
}

#[tokio::test]
async fn the_documented_request_with_string_keys_and_binary_values() {
    let settings = Producer { key_format: Format::String, value_format: Format::Binary, ..producer() };
    let fixture = fixture_with(&settings, 16);
    let body =
        r#"{"records":[{"key":"alice","value":"YWJj"},{"key":"john","value":"ZGVm"},{"key":"alex","value":"eHl6"}]}"#;
    let (status, answer) = fixture.post("/producers/test6", body).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer.to_string(),
        r#"{"offsets":[{"offset":0,"partition":0},{"offset":1,"partition":0},{"offset":2,"partition":0}],"requestStatus":"OK"}"#
    );
    assert_eq!(fixture.written(), bytes([("alice", "abc"), ("john", "def"), ("alex", "xyz")]));
    assert!(fixture.sink.written().iter().all(|record| &*record.topic == "test6"));
}

#[tokio::test]
async fn the_documented_request_with_binary_keys_and_string_values() {
    let settings = Producer { key_format: Format::Binary, value_format: Format::String, ..producer() };
    let fixture = fixture_with(&settings, 16);
    let body = r#"{"records":[{"key":"YWxpY2U=","value":"abc"},{"key":"am9obg==","value":"def"},{"key":"YWxleA==","value":"xyz"}]}"#;
    let (status, _) = fixture.post("/producers/test6", body).await;
    assert_eq!(status, 200);
    assert_eq!(fixture.written(), bytes([("alice", "abc"), ("john", "def"), ("alex", "xyz")]));
    for record in fixture.sink.written() {
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, [Bytes::from("X-Correlation-Id")], "nothing but a generated id");
        assert_eq!(record.headers[0].1.as_ref().map(Bytes::len), Some(22));
    }
}

#[tokio::test]
async fn formats_of_the_request_stand_above_the_configured_ones() {
    let fixture = fixture();
    let body = r#"{"keyFormat":"0","valueFormat":"STRING","records":[{"key":"YQ==","value":"x"}]}"#;
    fixture.post("/producers/t", body).await;
    assert_eq!(fixture.written(), [(Some(Bytes::from("a")), Some(Bytes::from("x")))]);
}

#[tokio::test]
async fn what_cannot_be_accepted_is_told_with_its_code_and_nothing_is_produced() {
    let fixture = fixture();
    let long = format!("/producers/{}", "x".repeat(250));
    let large = format!("{{\"records\":[{{\"value\":\"{}\"}}]}}", "x".repeat(10_000));
    let many = format!("{{\"records\":[{}{{}}]}}", "{},".repeat(100));
    for (path, body, status, code, description) in [
        ("/nowhere", "{}", 404, "ERR10007", "/nowhere is no path of this server"),
        ("/producers", "{}", 404, "ERR10007", "/producers is no path of this server"),
        ("/health/liveness", "{}", 405, "ERR10008", "/health/liveness does not take POST"),
        ("/producers/t", "", 400, "ERR11014", "the request has no body"),
        ("/producers/t", "nonsense", 400, "ERR10015", "the body is not a JSON object"),
        ("/producers/t", "{}", 400, "ERR11004", "records: expected an array, got nothing"),
        (
            "/producers/t",
            r#"{"records":[{"value":1},{"partition":"x"}]}"#,
            400,
            "ERR11004",
            "records[1].partition: expected an integer, got \"x\"",
        ),
        ("/producers/t", r#"{"keyFormat":"xml","records":[]}"#, 400, "ERR12203", "keyFormat: expected one of"),
        (
            "/producers/t",
            r#"{"valueFormat":"avro","records":[]}"#,
            400,
            "ERR12208",
            "valueFormat: avro needs a schema registry",
        ),
        ("/producers/t", r#"{"keySchemaId":1,"records":[]}"#, 400, "ERR12208", "keySchemaId needs a schema registry"),
        ("/producers/%FF", r#"{"records":[{"value":1}]}"#, 400, "ERR30001", "the topic in the path is no UTF-8 text"),
        ("/producers/t", r#"{"atomic":true,"records":[{"value":1}]}"#, 400, "ERR12607", "atomic: "),
        ("/producers/a%20b", r#"{"records":[{"value":1}]}"#, 400, "ERR30001", "topic \"a b\": a topic's name has only"),
        (&long, r#"{"records":[{"value":1}]}"#, 400, "ERR30001", "topic \"xxx"),
        ("/producers/t", &large, 413, "ERR12601", "the body takes more than 10000 bytes"),
        ("/producers/t", &many, 413, "ERR12604", "records: a request has at most 100 records"),
    ] {
        let (found, answer) = fixture.post(path, body.to_owned()).await;
        assert_eq!((found, answer["statusCode"].as_u64()), (status, Some(u64::from(status))), "{path} {answer}");
        assert_eq!(answer["code"], code, "{path} {answer}");
        assert_eq!(answer["severity"], "ERROR");
        let told = answer["description"].as_str().expect("text");
        assert!(told.starts_with(description), "{told}");
    }
    assert_eq!(fixture.written().len(), 0);
}

#[tokio::test]
async fn a_body_has_to_be_declared_as_json() {
    let fixture = fixture();
    for (kind, status) in [
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=UTF-8"), 200),
        (Some("application/vnd.kafka.json.v2+json"), 200),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("application/jsonp"), 415),
        (None, 415),
    ] {
        let mut request = axum::http::Request::post("/producers/t");
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        let response = fixture.send(request.body(Body::from(r#"{"records":[]}"#)).expect("request")).await;
        assert_eq!(response.status(), status, "{kind:?}");
        if status == 415 {
            assert_eq!(parts(response).await.1["code"], "ERR10015");
        }
    }
    let compressed = axum::http::Request::post("/producers/t").header("Content-Type", "application/json");
    let compressed =
        compressed.header("Content-Encoding", "gzip").body(Body::from("{\"records\":[]}")).expect("request");
    let (status, answer) = parts(fixture.send(compressed).await).await;
    assert_eq!((status, &answer["description"]), (415, &Value::from("Content-Encoding gzip is not understood")));

    let compatible = fixture_with(&Producer { compatible_status: true, ..producer() }, 16);
    let request = axum::http::Request::post("/producers/t").body(Body::from("{}")).expect("request");
    assert_eq!(compatible.send(request).await.status(), 400);
}

#[tokio::test]
async fn a_schema_field_says_nothing_beside_a_format_that_needs_no_schema() {
    let fixture = fixture();
    for (body, status) in [
        (r#"{"keySchemaId":1,"keyFormat":"STRING","records":[]}"#, 200),
        (r#"{"keySchemaId":1,"valueFormat":"STRING","records":[]}"#, 400),
        (r#"{"valueSchemaSubject":"s","valueFormat":1,"keyFormat":0,"records":[]}"#, 200),
        (r#"{"valueSchema":"s","records":[]}"#, 400),
        (r#"{"keyFormat":"avro","records":[]}"#, 400),
    ] {
        assert_eq!(fixture.post("/producers/t", body).await.0, status, "{body}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_told_which_are() {
    let fixture = fixture();
    for (method, path, allow) in [
        ("GET", "/producers/t", "POST"),
        ("HEAD", "/producers/t", "POST"),
        ("OPTIONS", "/producers/t", "POST"),
        ("POST", "/health/readiness", "GET,HEAD"),
        ("DELETE", "/metrics", "GET,HEAD"),
    ] {
        let request = axum::http::Request::builder().method(method).uri(path).body(Body::empty()).expect("request");
        let response = fixture.send(request).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], allow, "{method} {path}");
        if method != "HEAD" {
            let description = parts(response).await.1["description"].clone();
            assert_eq!(description, format!("{path} does not take {method}"));
        }
    }
    let request = axum::http::Request::builder().method("CONNECT").uri("somewhere:443").body(Body::empty());
    let (status, answer) = parts(fixture.send(request.expect("request")).await).await;
    assert_eq!((status, &answer["description"]), (404, &Value::from("somewhere:443 is no path of this server")));
}

#[tokio::test]
async fn any_service_id_has_its_health_page() {
    for (id, path) in
        [("liveness", "liveness"), ("a{b}*", "a%7Bb%7D*"), ("a/b", "a%2Fb"), (":x", ":x"), ("ü 1", "%C3%BC%201")]
    {
        let fixture = fixture();
        let edge = Edge::new(
            RequestLimits { body_bytes: 1, body_timeout: Duration::ZERO, header_bytes: 1000, records: 1 },
            1,
            Budget::new(1),
            HttpMetrics::default(),
        );
        let pages = HealthPages::new(fixture.health.clone(), id, false);
        fixture.health.gate("brokers").ok();
        let fixture = Fixture { router: probes_router(&edge, Some(pages), fixture.metrics.clone()), ..fixture };
        assert_eq!(fixture.get(&format!("/health/{path}")).await, (200, "OK".into()), "{id}");
        assert_eq!(fixture.get(&format!("/adm/health/{path}")).await, (200, "OK".into()), "{id}");
        assert_eq!(fixture.get("/health/other").await.0, 404);
        assert_eq!(fixture.get("/health/%FF").await.0, 404);
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text_unless_openmetrics_is_asked_for() {
    let fixture = fixture();
    for (accept, kind, end) in [
        (None, "text/plain; version=0.0.4; charset=utf-8", ""),
        (Some("text/plain"), "text/plain; version=0.0.4; charset=utf-8", ""),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF\n",
        ),
    ] {
        let mut request = axum::http::Request::get("/metrics");
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let response = fixture.send(request.body(Body::empty()).expect("request")).await;
        assert_eq!(response.headers()["content-type"], kind);
        let text = String::from_utf8(bytes_of(response).await.to_vec()).expect("text");
        assert!(text.ends_with(end) && text.contains("# EOF") != end.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn one_unfit_record_fails_alone_and_all_unfit_are_a_422() {
    let fixture = fixture();
    let body = r#"{"valueFormat":"binary","records":[{"value":"YQ=="},{"value":"?"},{"value":null}]}"#;
    let (status, answer) = fixture.post("/producers/t", body).await;
    assert_eq!(status, 200);
    assert_eq!(answer["offsets"][1]["error"], "records[1].value: not base64");
    assert_eq!(fixture.written(), [(None, Some(Bytes::from("a"))), (None, None)]);

    let (status, answer) = fixture.post("/producers/t", r#"{"valueFormat":"binary","records":[{"value":"?"}]}"#).await;
    assert_eq!((status, &answer["code"]), (422, &Value::from("ERR12206")));
    assert_eq!(answer["description"], "no record was written; records[0].value: not base64");
    assert_eq!(answer["offsets"][0]["outcome"], "not_sent");

    let compatible = fixture_with(&Producer { compatible_status: true, ..producer() }, 16);
    let (status, _) = compatible.post("/producers/t", r#"{"valueFormat":"binary","records":[{"value":"?"}]}"#).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_ids_of_the_request_and_its_chosen_headers_reach_the_records() {
    let settings = Producer {
        inject_caller_id: true,
        copied_headers: vec!["Authorization".into(), "x-correlation-id".into()],
        ..producer()
    };
    let fixture = fixture_with(&settings, 16);
    let request = axum::http::Request::post("/producers/t")
        .header("Content-Type", "application/json")
        .header("Authorization", "Bearer token")
        .header("X-Correlation-Id", "c-1")
        .header("x-traceability-id", "t-1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("X-Other", "not copied")
        .body(Body::from(r#"{"records":[{"headers":{"own":"1"}},{"correlationId":"c-2"}]}"#))
        .expect("request");
    let response = fixture.send(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-traceability-id"], "t-1", "echoed");
    assert!(!response.headers().contains_key("x-correlation-id"));
    let text = |record: &protocol::producer::ProduceRecord| {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let headers = record.headers.iter();
        headers
            .map(|(name, value)| format!("{}={}", text(name), value.as_ref().map_or("null".into(), text)))
            .collect::<Vec<_>>()
    };
    let written = fixture.sink.written();
    let trace = "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let caller = "caller_id=com.networknt.kafka-sidecar-1.0.0";
    assert_eq!(
        text(&written[0]),
        ["Authorization=Bearer token", caller, trace, "X-Traceability-Id=t-1", "X-Correlation-Id=c-1", "own=1"]
    );
    assert_eq!(
        text(&written[1]),
        ["Authorization=Bearer token", caller, trace, "X-Traceability-Id=t-1", "X-Correlation-Id=c-2"]
    );
}

#[tokio::test]
async fn an_authorization_header_stays_out_of_kafka_unless_it_is_configured() {
    let fixture = fixture();
    let request = axum::http::Request::post("/producers/t")
        .header("Content-Type", "application/json")
        .header("Authorization", "Bearer token")
        .body(Body::from(r#"{"records":[{"value":1}]}"#))
        .expect("request");
    assert_eq!(fixture.send(request).await.status(), 200);
    assert_eq!(fixture.sink.written()[0].headers.len(), 1);
}

#[tokio::test]
async fn requests_beyond_the_bound_are_told_to_come_back_and_health_is_not() {
    let fixture = fixture_with(&producer(), 1);
    fixture.sink.hold();
    let first = tokio::spawn({
        let service = TowerToHyperService::new(fixture.router.clone());
        let request = axum::http::Request::post("/producers/t").header("Content-Type", "application/json");
        let request = request.body(Body::from(r#"{"records":[{"value":1}]}"#)).expect("request");
        async move { hyper::service::Service::call(&service, request).await }
    });
    while fixture.sink.written().is_empty() {
        tokio::task::yield_now().await;
    }
    let request = axum::http::Request::post("/producers/t").body(Body::empty()).expect("request");
    let response = fixture.send(request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(parts(response).await.1["code"], "ERR12605");
    assert_eq!(fixture.get("/health/liveness").await, (200, "OK".into()));
    first.abort();
    let _ = first.await;
    let request = axum::http::Request::post("/producers/t").body(Body::empty()).expect("request");
    let again = fixture.send(request).await.status();
    assert_eq!(again, 503, "a caller who goes away does not make room while his records are under way");
}

#[tokio::test]
async fn too_large_a_head_is_told_so() {
    let fixture = fixture();
    let request = axum::http::Request::get("/health/liveness").header("X-Large", "x".repeat(2000));
    let response = fixture.send(request.body(Body::empty()).expect("request")).await;
    assert_eq!(response.status(), 431);
    assert_eq!(parts(response).await.1["code"], "ERR12602");
}

#[tokio::test]
async fn without_its_hook_the_producer_says_so() {
    let edge = Edge::new(
        RequestLimits { body_bytes: 1, body_timeout: Duration::ZERO, header_bytes: 1000, records: 1 },
        1,
        Budget::new(1),
        HttpMetrics::default(),
    );
    let fixture = fixture();
    let router = data_router::<MemorySink>(&edge, None, None, fixture.metrics.clone());
    let fixture = Fixture { router, ..fixture };
    let (status, answer) = fixture.post("/producers/t", "{}").await;
    assert_eq!((status, &answer["code"]), (400, &Value::from("ERR12216")));
    assert_eq!(fixture.get("/health/readiness").await.0, 404, "health is switched off too");
}

#[tokio::test]
async fn the_health_pages_answer_a_word() {
    let fixture = fixture();
    let brokers = fixture.health.gate("brokers");
    let pages = [
        "/health/readiness",
        "/health/com.networknt.kafka-sidecar-1.0.0",
        "/adm/health/com.networknt.kafka-sidecar-1.0.0",
    ];
    for page in pages {
        assert_eq!(fixture.get(page).await, (400, "ERROR".into()), "{page}");
    }
    brokers.ok();
    for page in pages {
        assert_eq!(fixture.get(page).await, (200, "OK".into()), "{page}");
    }
    assert_eq!(fixture.get("/health/liveness").await, (200, "OK".into()));
    assert_eq!(fixture.get("/health/other").await.0, 404);
    fixture.health.drain();
    assert_eq!(fixture.get("/health/readiness").await, (400, "ERROR".into()));
}

#[tokio::test]
async fn the_probes_listener_serves_health_part_by_part_and_metrics_and_nothing_else() {
    let fixture = fixture();
    let edge = Edge::new(
        RequestLimits { body_bytes: 1, body_timeout: Duration::ZERO, header_bytes: 1000, records: 1 },
        1,
        Budget::new(1),
        fixture.metrics.http.clone(),
    );
    let pages = HealthPages::new(fixture.health.clone(), "me", true);
    let probes = Fixture { router: probes_router(&edge, Some(pages), fixture.metrics.clone()), ..fixture };
    probes.health.gate("brokers").failing("no broker answers");
    let (status, text) = probes.get("/health/readiness").await;
    assert_eq!(status, 400);
    assert!(text.contains(r#""name":"brokers","status":"ERROR","gate":true,"reason":"no broker answers""#), "{text}");
    let (status, text) = probes.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        text.contains("http_server_requests_total{route=\"/health/readiness\",method=\"GET\",status=\"4xx\"} 1"),
        "{text}"
    );
    assert_eq!(probes.post("/producers/t", "{}").await.0, 404);
}

#[tokio::test]
async fn every_failure_to_produce_has_its_status() {
    let cases = BTreeMap::from([
        (404, (Outcome::NotSent, ProduceErrorKind::UnknownTopic)),
        (413, (Outcome::NotSent, ProduceErrorKind::TooLarge { size: 2, limit: Some(1) })),
        (503, (Outcome::Unknown, ProduceErrorKind::DeliveryTimeout { last: "silence".into() })),
    ]);
    for (status, (outcome, kind)) in cases {
        let fixture = fixture();
        fixture.sink.refuse(outcome, kind);
        let (found, answer) = fixture.post("/producers/t", r#"{"records":[{"value":1}]}"#).await;
        assert_eq!(found, status);
        assert_eq!(answer["offsets"].as_array().map(Vec::len), Some(1), "{answer}");
    }
}
