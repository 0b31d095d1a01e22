//! `kafka-sidecar dev`: the sidecar beside a backend that is being written, with an embedded Kafka cluster that stays up.
//!
//! Everything else is as in production: same settings, same log, same shutdown. [`run`] is the whole command.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use clap::Args;

use super::{Configuration, WRONG_CONFIGURATION, complain, embedded::Embedded, instance::Instance, sidecar};
use crate::{
    app::Stop,
    config::{self, Loaded},
    telemetry::logs,
};

const BROKERS: i32 = 1;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where your backend listens; the topic's records are sent to POST <URL>/kafka/records. Without it, records are only produced
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// The topic that is there from the start and whose records the backend gets
    #[arg(long, default_value = "events")]
    topic: String,
    /// Its partitions, and those of topics that are made later
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// The port for Kafka clients on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 9092, value_name = "PORT")]
    kafka_port: u16,
}

/// Why it cannot begin.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error(
        "127.0.0.1:{port} cannot be opened for Kafka clients: {reason} (another port: --kafka-port, 0 for a free one)"
    )]
    KafkaPort { port: u16, reason: io::Error },
    #[error("--topic {topic}: {reason}")]
    Topic { topic: String, reason: io::Error },
    #[error("{0}")]
    Configuration(#[from] config::ConfigError),
}

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(configuration: &Configuration, options: &Options) -> ExitCode {
    let embedded = match Embedded::start(BROKERS, options.kafka_port, &options.topic, options.partitions).await {
        Ok(embedded) => embedded,
        Err(reason) if reason.kind() == io::ErrorKind::InvalidInput => {
            return refuse(&DevError::Topic { topic: options.topic.clone(), reason });
        }
        Err(reason) => return refuse(&DevError::KafkaPort { port: options.kafka_port, reason }),
    };
    let loaded = match load(configuration, options, &embedded) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = logs::start(&loaded.settings.logging) {
        complain(&logs::chain(&error));
        return ExitCode::from(WRONG_CONFIGURATION);
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let stop = Stop::default();
    let started = match sidecar::listen_for_signals(&stop) {
        Ok(()) => Instance::start_loaded(&loaded, stop).await,
        Err(error) => Err(format!("signals cannot be listened for: {error}")),
    };
    let ended = match started {
        Ok(instance) => {
            introduce(options, &embedded, instance.address());
            instance.ended().await
        }
        Err(reason) => Err(reason),
    };
    embedded.stop().await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &DevError) -> ExitCode {
    complain(&error.to_string());
    ExitCode::from(WRONG_CONFIGURATION)
}

/// The user's settings, with the embedded cluster as theirs.
fn load(configuration: &Configuration, options: &Options, embedded: &Embedded) -> Result<Loaded, DevError> {
    let mut sources = super::sources(configuration, std::env::vars_os());
    let defaults = [("kafka-consumer.group.id", "dev")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    sources.set.splice(0..0, defaults);
    sources.set.extend(embedded.bootstrap_settings());
    if let Some(backend) = &options.backend {
        sources.set.push(("kafka-consumer.backendApiHost".to_owned(), backend.clone()));
        sources.set.push(("kafka-consumer.topic".to_owned(), options.topic.clone()));
    }
    Ok(config::load(sources)?)
}

/// What a newcomer needs to know, below the log.
fn introduce(options: &Options, embedded: &Embedded, http: SocketAddr) {
    let Options { topic, partitions, backend, .. } = options;
    let kafka = embedded.addresses().join(",");
    let called = match backend {
        Some(url) => format!("each record of \"{topic}\" goes to POST {url}/kafka/records"),
        None => "none; records are only produced (--backend http://localhost:3000 names one)".to_owned(),
    };
    let text = format!(
        "\n  HTTP     http://{http}\n  Kafka    {kafka} (in memory, gone with this process; any Kafka client works, e.g. kcat -b {kafka} -L)\n  \
         topic    {topic}, {partitions} partitions\n  backend  {called}\n\n  Try:\n    curl -X POST http://{http}/producers/{topic} -H 'Content-Type: application/json' \\\n      \
         -d '{{\"records\":[{{\"key\":\"k1\",\"value\":{{\"hello\":\"world\"}}}}]}}'\n\n  Ctrl-C finishes what has begun and ends.\n\n"
    );
    // Where nobody reads it there is nothing to say.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
