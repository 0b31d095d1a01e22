//! Counters and histograms that the parts hold, and the registry that shows them.
//!
//! Labels are bounded: routes are templates, statuses are classes, reasons are words of this file. [`Metrics`] is its main type.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use protocol::outcome::Outcome;

use super::samples::{Scraped, Source};

/// Everything that `/metrics` shows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub(crate) http: HttpMetrics,
    pub(crate) produce: ProduceMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

type Durations = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// The HTTP side.
#[derive(Clone)]
pub(crate) struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    /// Requests that are being worked on, or whose records have no outcome yet.
    pub(crate) in_flight: Gauge,
    connections: Family<ListenerLabels, Gauge<i64, AtomicI64>>,
    refused: Family<ReasonLabels, Counter>,
}

/// The produce flow.
#[derive(Clone, Default)]
pub(crate) struct ProduceMetrics {
    records: Family<OutcomeLabels, Counter>,
}

fn durations() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0])
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            in_flight: Gauge::default(),
            connections: Family::default(),
            refused: Family::default(),
        }
    }
}

impl HttpMetrics {
    /// `route` is a template, never a path as it came in.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let status = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let labels = RequestLabels { route: route.to_owned(), method: known_method(method), status };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// The open connections of a listener.
    pub(crate) fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create(&ListenerLabels { listener }).clone()
    }

    /// A request or a connection that was cut or refused before its handler saw it.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}

fn known_method(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

impl ProduceMetrics {
    /// Counts one record; None was written.
    pub(crate) fn record(&self, failure: Option<Outcome>) {
        let outcome = match failure {
            None => "written",
            Some(Outcome::NotSent) => "not_sent",
            Some(Outcome::Rejected) => "rejected",
            Some(Outcome::Unknown) => "unknown",
        };
        self.records.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let (http, produce) = (HttpMetrics::default(), ProduceMetrics::default());
        let mut registry = Registry::default();
        registry.register(
            "http_server_requests",
            "HTTP requests answered, by route and class of status",
            http.requests.clone(),
        );
        registry.register(
            "http_server_request_duration_seconds",
            "From a request's head to the head of its answer",
            http.durations.clone(),
        );
        registry.register("http_server_requests_in_flight", "Requests being worked on", http.in_flight.clone());
        registry.register("http_server_connections", "Open connections", http.connections.clone());
        registry.register(
            "http_server_refused",
            "Requests and connections refused or cut before a handler saw them",
            http.refused.clone(),
        );
        registry.register(
            "produce_records",
            "Records of POST /producers/{topic}, by what became of them",
            produce.records.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), http, produce }
    }

    /// Adds a part that keeps its numbers itself.
    pub(crate) fn add(&self, source: Arc<dyn Source>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(Scraped(source)));
    }

    /// Prometheus' text format, 0.0.4.
    pub(crate) fn render(&self) -> String {
        classic(&self.open_metrics())
    }

    /// The OpenMetrics text, 1.0.0.
    pub(crate) fn open_metrics(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(8192);
        if encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics could not be written out");
        }
        text
    }
}

/// From OpenMetrics to the older format: there a counter's family is named like its samples, and nothing marks the end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    // HELP stands before TYPE, which alone says that it is a counter.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), rest) => help = Some((name, rest.unwrap_or_default())),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                    text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                }
                text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples::Sample;

    struct Lag;

    impl Source for Lag {
        fn samples(&self, out: &mut Vec<Sample>) {
            let lag = |partition: &str, value| {
                Sample::gauge("kafka_consumer_lag_records", "Records behind", value).label("partition", partition)
            };
            out.push(lag("0", 3.0));
            out.push(Sample::counter("kafka_consumer_rebalances", "Rebalances", 2.0));
            out.push(lag("1", 0.0));
        }
    }

    #[test]
    fn what_is_counted_is_shown_with_bounded_labels() {
        let metrics = Metrics::new();
        metrics.http.answered("/producers/{topic}", "POST", 204, Duration::from_millis(3));
        metrics.http.answered("unmatched", "BREW", 404, Duration::ZERO);
        metrics.http.refused("slow_head");
        metrics.produce.record(None);
        metrics.produce.record(Some(Outcome::Unknown));
        metrics.add(Arc::new(Lag));
        let text = metrics.render();
        for line in [
            "http_server_requests_total{route=\"/producers/{topic}\",method=\"POST\",status=\"2xx\"} 1",
            "http_server_requests_total{route=\"unmatched\",method=\"other\",status=\"4xx\"} 1",
            "http_server_request_duration_seconds_bucket{le=\"0.005\",route=\"/producers/{topic}\"} 1",
            "http_server_refused_total{reason=\"slow_head\"} 1",
            "produce_records_total{outcome=\"written\"} 1",
            "produce_records_total{outcome=\"unknown\"} 1",
            "kafka_consumer_lag_records{partition=\"0\"} 3.0",
            "kafka_consumer_lag_records{partition=\"1\"} 0.0",
            "kafka_consumer_rebalances_total 2.0",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE kafka_consumer_lag_records gauge").count(), 1);
        assert!(text.contains(
            "# HELP kafka_consumer_rebalances_total Rebalances\n# TYPE kafka_consumer_rebalances_total counter\n"
        ));
        assert!(!text.contains("# EOF") && metrics.open_metrics().ends_with("# EOF\n"));
        valid(&text);
    }

    /// Every sample stands under the HELP and TYPE of its own family, every family once, no number twice.
    fn valid(text: &str) {
        let (mut family, mut kind) = ("", "");
        let (mut families, mut samples) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["#", "HELP", name, words @ ..] => {
                    assert!(!words.is_empty() && families.insert(*name), "{line}");
                    family = name;
                }
                ["#", "TYPE", name, found] => {
                    assert!(*name == family && ["counter", "gauge", "histogram"].contains(found), "{line}");
                    kind = found;
                }
                _ => {
                    let (sample, value) = line.rsplit_once(' ').expect("a value");
                    assert!(value.parse::<f64>().is_ok() && samples.insert(sample), "{line}");
                    let name = sample.split('{').next().unwrap_or_default();
                    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} below {family}"));
                    assert!(
                        suffix.is_empty() || (kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&suffix)),
                        "{line}"
                    );
                    assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                }
            }
        }
        assert!(!samples.is_empty());
    }
}
