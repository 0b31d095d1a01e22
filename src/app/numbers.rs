//! What the process as a whole shows in its metrics: whether it is ready, which parts work, its byte budgets, and what its Kafka
//! clients have asked of the brokers.
//!
//! Parts count for themselves elsewhere. [`Readiness`], [`Memory`] and [`KafkaClients`] are its types.

use std::sync::Arc;

use protocol::{budget::Budget, connection::Counters};

use crate::{
    health::{Health, Word},
    telemetry::samples::{Sample, Source},
};

/// The health pages in numbers.
pub(crate) struct Readiness(pub(crate) Health);

impl Source for Readiness {
    fn samples(&self, out: &mut Vec<Sample>) {
        let snapshot = self.0.snapshot();
        let number = |word: Word| if word == Word::Ok { 1.0 } else { 0.0 };
        out.push(Sample::gauge("sidecar_ready", "1 while the readiness page says OK", number(snapshot.status)));
        for part in snapshot.parts {
            let up = Sample::gauge("sidecar_part_up", "1 while the part works", number(part.status));
            out.push(up.label("part", part.name));
        }
    }
}

/// The shares of the byte budget by name.
pub(crate) struct Memory(pub(crate) Vec<(&'static str, Budget)>);

impl Source for Memory {
    fn samples(&self, out: &mut Vec<Sample>) {
        for (share, budget) in &self.0 {
            let used =
                Sample::gauge("sidecar_memory_used_bytes", "Bytes of records and bodies held", budget.used() as f64);
            let limit =
                Sample::gauge("sidecar_memory_budget_bytes", "The most bytes to be held", budget.limit() as f64);
            out.extend([used, limit].map(|sample| sample.label("share", *share)));
        }
    }
}

/// The Kafka clients of the process, by the part that each was opened for; parts with equal settings share one.
pub(crate) struct KafkaClients(pub(crate) Vec<(&'static str, Arc<Counters>)>);

impl Source for KafkaClients {
    fn samples(&self, out: &mut Vec<Sample>) {
        for (client, counters) in &self.0 {
            for (api, requests) in counters.requests() {
                let by_outcome =
                    [("answered", requests.answered), ("not_sent", requests.not_sent), ("unknown", requests.unknown)];
                let counted = by_outcome.map(|(outcome, count)| {
                    let help = "Requests to brokers, by what became of them";
                    Sample::counter("kafka_client_requests", help, count as f64).label("outcome", outcome)
                });
                let help = "Time until answered requests had their answers, waiting of the broker included";
                let time = Sample::counter("kafka_client_request_seconds", help, requests.time.as_secs_f64());
                let samples = counted.into_iter().chain([time]);
                out.extend(samples.map(|sample| sample.label("api", api).label("client", *client)));
            }
            for (node, sockets) in counters.brokers() {
                let broker = if node < 0 { "bootstrap".to_owned() } else { node.to_string() };
                let counter = |name, help, value: u64| Sample::counter(name, help, value as f64);
                let samples = [
                    Sample::gauge("kafka_client_connections", "Open connections to brokers", sockets.open as f64),
                    counter("kafka_client_connections_opened", "Connections opened", sockets.opened),
                    counter("kafka_client_connection_failures", "Connections that could not be opened", sockets.failed),
                    counter("kafka_client_sent_bytes", "Bytes written to brokers", sockets.sent_bytes),
                    counter("kafka_client_received_bytes", "Bytes read from brokers", sockets.received_bytes),
                    Sample::counter(
                        "kafka_client_throttle_seconds",
                        "Time for which brokers asked us not to write (quotas)",
                        sockets.throttled.as_secs_f64(),
                    ),
                ];
                out.extend(samples.map(|sample| sample.label("broker", broker.clone()).label("client", *client)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(source: &dyn Source) -> Vec<String> {
        let mut samples = Vec::new();
        source.samples(&mut samples);
        samples.iter().map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value)).collect()
    }

    #[tokio::test]
    async fn readiness_and_its_parts_are_numbers() {
        let health = Health::new(Duration::from_secs(30));
        let (brokers, _lane) = (health.gate("brokers"), health.explain("lane"));
        let readiness = Readiness(health);
        assert_eq!(lines(&readiness)[..2], ["sidecar_ready [] 0", "sidecar_part_up [(\"part\", \"brokers\")] 0"]);
        brokers.ok();
        let part = |name: &str, up: u8| format!("sidecar_part_up [(\"part\", \"{name}\")] {up}");
        assert_eq!(lines(&readiness), ["sidecar_ready [] 1".to_owned(), part("brokers", 1), part("lane", 0)]);
    }

    #[test]
    fn every_share_of_the_budget_tells_what_it_holds() {
        let budget = Budget::new(100);
        let _held = budget.charge(30);
        let found = lines(&Memory(vec![("producing", budget)]));
        let share = "[(\"share\", \"producing\")]";
        assert_eq!(
            found,
            [format!("sidecar_memory_used_bytes {share} 30"), format!("sidecar_memory_budget_bytes {share} 100")]
        );
    }

    #[tokio::test]
    async fn a_client_s_requests_and_sockets_are_told_by_api_and_broker() {
        let fake = fake_broker::FakeCluster::builder().nodes(1).start().await.expect("in memory");
        let config = protocol::cluster::ClusterConfig::new(fake.bootstrap());
        let client = protocol::client::Client::with_connector(config, Arc::new(fake.clone()));
        client.cluster().refresh().await;
        let found = lines(&KafkaClients(vec![("producer", client.cluster().counters().clone())]));
        let has = |start: &str| assert!(found.iter().any(|line| line.starts_with(start)), "{start} {found:#?}");
        for outcome in ["answered", "not_sent", "unknown"] {
            has(&format!(
                "kafka_client_requests [(\"outcome\", \"{outcome}\"), (\"api\", \"Metadata\"), (\"client\", \"producer\")] "
            ));
        }
        has("kafka_client_request_seconds [(\"api\", \"Metadata\"), (\"client\", \"producer\")] ");
        let bootstrap = "[(\"broker\", \"bootstrap\"), (\"client\", \"producer\")]";
        for (name, value) in [
            ("connections", ""),
            ("connections_opened", "1"),
            ("connection_failures", "0"),
            ("sent_bytes", ""),
            ("received_bytes", ""),
            ("throttle_seconds", "0"),
        ] {
            has(&format!("kafka_client_{name} {bootstrap} {value}"));
        }
        client.close(Duration::from_secs(10)).await;
    }
}
