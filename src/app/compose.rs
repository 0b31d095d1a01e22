//! From settings to parts: which clients, writers and flows this process has.
//!
//! It opens nothing that listens and waits for nobody. [`compose`] is the way in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use protocol::{client::Client, cluster::ClusterConfig, consumer::ConsumerConfig, producer::Producer};
use tokio_util::sync::CancellationToken;

use super::{
    Budgets, Check, CloseProducer, Parts,
    audits::Audits,
    consumer,
    numbers::{KafkaClients, Memory},
    security, sources,
    topics::KafkaTopics,
};
use crate::{
    backend::{Backend, BackendCall as _},
    config::settings::{Connection, Settings},
    dead_letter::DeadLetters,
    format,
    reactive::{Observer, ReactiveParts},
};

/// Why the parts cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    #[error("bootstrap.servers: {0:?} is not host:port")]
    Bootstrap(String),
    #[error("the producer cannot be started")]
    Producer(#[source] protocol::producer::ConfigError),
    #[error("the backend cannot be called")]
    Backend(#[from] crate::backend::BackendError),
    #[error("TLS to Kafka cannot be set up")]
    Tls(#[from] crate::tls::TlsError),
    #[error("the audit cannot be opened")]
    Audit(#[from] crate::audit::AuditError),
}

/// For the client's own tasks once its producers and consumers are closed.
const CLIENT_CLOSE: Duration = Duration::from_millis(500);

/// Clients by the settings that made them, so that parts with equal settings share sockets and metadata.
#[derive(Default)]
pub(crate) struct Clients(Vec<OneClient>);

struct OneClient {
    /// The part that asked for it first.
    name: &'static str,
    settings: Connection,
    client: Client,
}

impl Clients {
    pub(crate) fn get(
        &mut self,
        name: &'static str,
        connection: &Connection,
        largest_answer: usize,
    ) -> Result<Client, ComposeError> {
        if let Some(known) = self.0.iter().find(|known| known.settings == *connection) {
            return Ok(known.client.clone());
        }
        let connector = security::connector(&connection.security)?;
        let client = Client::with_connector(cluster_config(connection, largest_answer)?, connector);
        self.0.push(OneClient { name, settings: connection.clone(), client: client.clone() });
        Ok(client)
    }

    fn numbers(&self) -> KafkaClients {
        KafkaClients(self.0.iter().map(|one| (one.name, one.client.cluster().counters().clone())).collect())
    }
}

/// Builds what the settings ask for. Brokers and backend may be away: nothing is waited for.
pub(crate) fn compose(settings: &Settings, budgets: Budgets) -> Result<Parts<Producer>, ComposeError> {
    let (memory, largest_answer) = (Memory(budgets.shares().to_vec()), budgets.largest_answer());
    let Budgets { bodies, producing, fetching, calls } = budgets;
    let mut clients = Clients::default();
    let brokers = brokers_check(asked(settings, &mut clients, largest_answer)?, settings.admin.health_timeout);
    let mut parts = Parts {
        produce: None,
        produce_audit: None,
        consumer: None,
        explanations: Vec::new(),
        writers: Vec::new(),
        close_producer: None,
        brokers,
        backend: None,
        numbers: vec![Arc::new(memory)],
        bodies,
    };
    let backend = if settings.parts.reactive || settings.health.downstream_enabled {
        let mut called = settings.consumer.backend.clone();
        if !settings.parts.reactive {
            // Only its health is asked: whom the records' address would have to trust is no matter.
            called.host.clone_from(&settings.health.downstream_host);
        }
        Some(Arc::new(Backend::new(&called, &settings.client, &settings.health, calls.clone())?))
    } else {
        None
    };
    if settings.health.downstream_enabled {
        parts.backend = backend.clone().map(backend_check);
    }
    // Dead letters and audit have their producer whether or not callers may produce.
    let mut producer = None;
    if settings.parts.producer || settings.parts.reactive {
        let client = clients.get("producer", &settings.producer.connection, largest_answer)?;
        let started = client.producer(settings.producer.kafka.clone(), producing).map_err(ComposeError::Producer)?;
        let (sink, topics) = (Arc::new(started.clone()), Arc::new(KafkaTopics(client)));
        let create_topics = settings.consumer.dead_letter.create_topic;
        let mut audits = Audits::new(&settings.server.service_id, sink.clone(), topics.clone(), create_topics);
        if settings.parts.producer {
            parts.produce = Some((started.clone(), encode));
            parts.produce_audit = audits.get(&settings.producer.audit)?;
        }
        if let (true, Some(backend)) = (settings.parts.reactive, backend) {
            let client = clients.get("consumer", &settings.consumer.connection, largest_answer)?;
            let letters = settings.consumer.dead_letter.enabled.then(|| {
                let group = &settings.consumer.kafka.group_id;
                Arc::new(DeadLetters::new(sink, topics, &settings.consumer.dead_letter, group))
            });
            let observer = Arc::<Observer>::default();
            parts.numbers.push(Arc::new(consumer::Numbers {
                observer: observer.clone(),
                dead_letters: letters.as_ref().map(|letters| letters.metrics().clone()),
            }));
            parts.explanations.push(("reactive consumer", consumer::check(observer.clone())));
            let following =
                sources::follow(settings.consumer.kafka.topics.clone(), client.cluster().metadata_changes());
            let part = ReactiveParts {
                consumer: client.consumer(consumer_config(settings), fetching),
                backend,
                dead_letters: letters,
                audit: audits.get(&settings.consumer.audit)?,
                settings: settings.consumer.clone(),
                ask_health: settings.health.downstream_enabled,
                memory: calls,
                observer,
                stop: CancellationToken::new(),
            };
            parts.consumer = Some(consumer::part(part, following));
        }
        parts.numbers.append(&mut audits.numbers);
        parts.writers = audits.writers;
        producer = Some(started);
    }
    parts.numbers.push(Arc::new(clients.numbers()));
    parts.close_producer = Some(close(producer, clients));
    Ok(parts)
}

/// A drain that the process has no time for would end without leaving the group.
fn consumer_config(settings: &Settings) -> ConsumerConfig {
    let mut config = settings.consumer.kafka.clone();
    config.drain_timeout = config.drain_timeout.min(super::consumer_grace(settings));
    config
}

fn encode(
    kind: crate::config::settings::Format,
    raw: &serde_json::value::RawValue,
) -> Result<Option<bytes::Bytes>, String> {
    format::encode(kind, raw).map_err(|reason| reason.to_string())
}

/// A client for every cluster that a part uses; the admin client's if it is another one.
fn asked(settings: &Settings, clients: &mut Clients, largest_answer: usize) -> Result<Vec<Client>, ComposeError> {
    let Settings { parts, producer, consumer, admin, .. } = settings;
    // The reactive consumer's dead letters and audit use the producer.
    let used = [
        (parts.producer || parts.reactive).then_some(("producer", &producer.connection)),
        parts.reactive.then_some(("consumer", &consumer.connection)),
        (parts.admin || !(parts.producer || parts.reactive)).then_some(("admin", &admin.connection)),
    ];
    let mut known: Vec<&[String]> = Vec::new();
    let mut asked = Vec::new();
    for (name, connection) in used.into_iter().flatten() {
        if !known.contains(&connection.bootstrap_servers.as_slice()) {
            known.push(&connection.bootstrap_servers);
            asked.push(clients.get(name, connection, largest_answer)?);
        }
    }
    Ok(asked)
}

fn brokers_check(asked: Vec<Client>, timeout: Duration) -> Check {
    Arc::new(move || {
        let asked = asked.clone();
        async move {
            let answers = asked.iter().map(|client| async move {
                match tokio::time::timeout(timeout, client.admin().describe_cluster()).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(match client.cluster().trouble() {
                        Some(trouble) => trouble.to_string(),
                        None => format!("no broker answered within {} ms", timeout.as_millis()),
                    }),
                }
            });
            futures_util::future::join_all(answers).await.into_iter().collect()
        }
        .boxed()
    })
}

fn backend_check(backend: Arc<Backend>) -> Check {
    Arc::new(move || {
        let backend = backend.clone();
        async move { backend.healthy().await }.boxed()
    })
}

fn close(producer: Option<Producer>, clients: Clients) -> CloseProducer {
    Box::new(move |timeout| {
        async move {
            let deadline = Instant::now() + timeout;
            let left = match producer {
                Some(producer) => producer.close(timeout).await,
                None => 0,
            };
            for OneClient { client, .. } in clients.0 {
                let rest = deadline.saturating_duration_since(Instant::now()).min(CLIENT_CLOSE);
                if !client.close(rest).await {
                    tracing::debug!("tasks of a Kafka client were still running at the end");
                }
            }
            left
        }
        .boxed()
    })
}

fn cluster_config(connection: &Connection, largest_answer: usize) -> Result<ClusterConfig, ComposeError> {
    let bootstrap: Result<Vec<_>, _> =
        connection.bootstrap_servers.iter().map(|server| host_and_port(server)).collect();
    let mut config = ClusterConfig::new(bootstrap?);
    config.client_id.clone_from(&connection.client_id);
    config.metadata_max_age = connection.metadata_max_age;
    config.request_timeout = connection.request_timeout;
    config.connect_timeout = connection.connect_timeout;
    config.retry_backoff = connection.retry_backoff;
    config.retry_backoff_max = connection.retry_backoff_max;
    config.reconnect_backoff = connection.reconnect_backoff;
    config.reconnect_backoff_max = connection.reconnect_backoff_max;
    config.max_fetch_response_bytes = largest_answer;
    config.sasl = security::mechanism(&connection.security)?;
    Ok(config)
}

fn host_and_port(server: &str) -> Result<(String, u16), ComposeError> {
    let parsed = server.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
    });
    parsed.ok_or_else(|| ComposeError::Bootstrap(server.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    #[tokio::test]
    async fn the_backend_s_health_can_be_asked_where_no_record_is_sent_to_it() {
        let set = [("health.downstreamEnabled", "true"), ("health.downstreamHost", "http://127.0.0.1:1")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let settings = config::load(Sources { set, ..Sources::default() }).expect("fine").settings;
        let parts = compose(&settings, Budgets::new(1 << 20)).expect("an https address for records matters to nobody");
        let healthy = parts.backend.expect("asked")().await;
        assert!(healthy.is_err(), "nobody is there");
    }

    #[tokio::test]
    async fn every_cluster_is_asked_once() {
        let (producer, consumer) = ("kafka-producer.bootstrap.servers", "kafka-consumer.bootstrap.servers");
        let (admin, reactive) = ("kafka-admin.bootstrap.servers", ("kafka-consumer.topic", "t"));
        let backend = ("kafka-consumer.backendApiHost", "http://127.0.0.1:1");
        for (set, expected) in [
            (&[][..], 1),
            (&[(producer, "127.0.0.1:1")], 1),
            (&[(producer, "127.0.0.1:1"), (admin, "127.0.0.1:2")], 2),
            (&[(producer, "127.0.0.1:1"), (consumer, "127.0.0.1:2")], 1),
            (&[(producer, "127.0.0.1:1"), (consumer, "127.0.0.1:2"), reactive, backend], 2),
        ] {
            let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let settings = config::load(Sources { set, ..Sources::default() }).expect("fine").settings;
            let clients = asked(&settings, &mut Clients::default(), 1).expect("addresses");
            assert_eq!(clients.len(), expected, "{settings:?}");
        }
    }

    #[test]
    fn bootstrap_servers_are_host_and_port() {
        for (text, expected) in [
            ("kafka:9092", Some(("kafka", 9092))),
            ("[::1]:9092", Some(("::1", 9092))),
            ("kafka", None),
            (":9092", None),
            ("kafka:x", None),
        ] {
            let found = host_and_port(text).ok();
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), expected, "{text}");
        }
    }
}
