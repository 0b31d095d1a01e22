//! The composition root: builds the parts, names their tasks, opens the listeners, and takes everything down in order.
//!
//! Shutdown reverses building, inside one grace period:
//!
//! 1. not ready; 2. the reactive consumer stops fetching, finishes, commits and leaves, while the data listener still serves (a
//!    backend may produce in order to finish); 3. the data listener finishes its requests; 4. produced records have their
//!    outcomes; 5. the audit queue is drained; 6. the producer is flushed and closed; 7. the probes listener closes.
//!
//! It knows no Kafka request and no JSON. [`Sidecar`] is its main type; [`Parts`] is what it is built from.

mod audits;
mod compose;
mod consumer;
mod numbers;
mod security;
mod sources;
mod tasks;
mod topics;
mod watch;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use compose::compose;
use futures_util::future::BoxFuture;
use protocol::{budget::Budget, consumer::FetchMemory};
use tasks::{Ended, Running, Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
pub(crate) use watch::Check;

use crate::{
    audit::Audit,
    config::settings::Settings,
    health::Health,
    http::{
        self, Edge, HealthPages, ProduceEdge, RequestLimits,
        listener::{BindError, Listener, ListenerLimits},
    },
    produce::{Encode, Flow, Sink},
    telemetry::{metrics::Metrics, process::Process, samples::Source},
};

/// What is kept of the grace period for what comes after the reactive consumer: at most this, at most a quarter.
const AFTER_CONSUMER: Duration = Duration::from_secs(3);
/// Probes are few; whoever holds their listener's places cannot take the data listener's.
const PROBE_CONNECTIONS: usize = 64;

/// The byte budgets of the process: one total, in shares that cannot take from each other.
pub(crate) struct Budgets {
    /// Request bodies that are not yet handed to the producer.
    pub(crate) bodies: Budget,
    /// Records on their way to the brokers.
    pub(crate) producing: Budget,
    /// Records on their way to the backend, before they are in a request.
    pub(crate) fetching: FetchMemory,
    /// Requests to the backend that are being written, its answers, and what is kept of records until they are finished.
    pub(crate) calls: Budget,
}

impl Budgets {
    /// A quarter of `total` is for producing: half of it for request bodies, half for records. The rest in three equal parts
    /// is for records as they were fetched, for unpacked ones, and for calls of the backend: each waits for the next one
    /// only, and the last one for the backend, so that none waits for itself.
    pub(crate) fn new(total: usize) -> Self {
        let eighth = total / 8;
        let third = (total - 2 * eighth) / 3;
        let fetching = FetchMemory { packed: Budget::new(third), unpacked: Budget::new(third) };
        let calls = Budget::new(total - 2 * eighth - 2 * third);
        Self { bodies: Budget::new(eighth), producing: Budget::new(eighth), fetching, calls }
    }

    /// Every share by the name that metrics give it.
    fn shares(&self) -> [(&'static str, Budget); 5] {
        let Self { bodies, producing, fetching, calls } = self;
        [
            ("bodies", bodies),
            ("producing", producing),
            ("fetched", &fetching.packed),
            ("unpacked", &fetching.unpacked),
            ("calls", calls),
        ]
        .map(|(name, budget)| (name, budget.clone()))
    }

    /// The most that a broker's answer may be: what all of the reactive flow has.
    fn largest_answer(&self) -> usize {
        self.fetching.packed.limit() + self.fetching.unpacked.limit() + self.calls.limit()
    }
}

/// Something that runs until it is told to stop, and then finishes what it has begun.
pub(crate) struct Stoppable {
    pub(crate) name: &'static str,
    /// Its whole life. An end before the shutdown stops the process.
    pub(crate) run: BoxFuture<'static, Result<(), String>>,
    /// Begin nothing new, finish what was begun, and end.
    pub(crate) stop: CancellationToken,
    /// Time is up: end now and say what was left.
    pub(crate) cut: CancellationToken,
}

/// How long a part that was cut may take to say what it leaves behind.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Takes nothing more, waits until everything taken has its outcome, at most so long; how many records are left.
pub(crate) type CloseProducer = Box<dyn FnOnce(Duration) -> BoxFuture<'static, usize> + Send>;

/// What the process consists of besides its listeners.
pub(crate) struct Parts<S> {
    /// None: `/producers` answers that it is not enabled.
    pub(crate) produce: Option<(S, Encode)>,
    /// What is told of produced records; its task is in `writers`.
    pub(crate) produce_audit: Option<Audit>,
    pub(crate) consumer: Option<Stoppable>,
    /// What parts say of themselves without deciding on readiness.
    pub(crate) explanations: Vec<(&'static str, Check)>,
    /// Writers that outlive the flows. They drain their queues and end once the flows have let go of them.
    pub(crate) writers: Vec<Stoppable>,
    pub(crate) close_producer: Option<CloseProducer>,
    /// Whether the brokers answer; bounds its own time.
    pub(crate) brokers: Check,
    /// Whether the backend is healthy, if that is to be asked.
    pub(crate) backend: Option<Check>,
    pub(crate) numbers: Vec<Arc<dyn Source>>,
    pub(crate) bodies: Budget,
}

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("a listener has no address")]
    Address(#[source] io::Error),
}

/// How the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was finished.
    Completed,
    /// The grace period was over before this was done.
    Left(Vec<String>),
    /// A task ended that must not.
    Crashed { task: &'static str, reason: String },
}

/// What stops the process: the first signal begins the shutdown, the second one cuts it short.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) drain: CancellationToken,
    pub(crate) cut: CancellationToken,
}

/// The running process.
pub(crate) struct Sidecar<S> {
    health: Health,
    tasks: Tasks,
    data: Started,
    data_address: SocketAddr,
    probes: Option<(Started, SocketAddr)>,
    produce: Option<Arc<ProduceEdge<S>>>,
    consumer: Option<Started>,
    writers: Vec<Started>,
    watches: CancellationToken,
    close_producer: Option<CloseProducer>,
    grace: Duration,
}

/// A [`Stoppable`] that runs.
struct Started {
    task: Running,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl<S: Sink> Sidecar<S> {
    /// Opens the listeners and starts every part.
    ///
    /// # Errors
    /// An address is taken. For the probes listener that is only a warning unless its address was written down.
    pub(crate) async fn start(settings: &Settings, parts: Parts<S>, metrics: Metrics) -> Result<Self, StartError> {
        let limits = ListenerLimits::of(&settings.sidecar);
        let data = Listener::bind("data", settings.server.http, limits, metrics.http.clone()).await?;
        let probes = bind_probes(settings, limits, &metrics).await?;
        let data_address = data.address().map_err(StartError::Address)?;

        metrics.add(Arc::new(Process::new()));
        for numbers in parts.numbers {
            metrics.add(numbers);
        }
        let health = Health::new(settings.sidecar.readiness_grace);
        metrics.add(Arc::new(numbers::Readiness(health.clone())));
        let pages = settings
            .health
            .enabled
            .then(|| HealthPages::new(health.clone(), settings.server.service_id.clone(), settings.health.use_json));
        let edge = Edge::new(
            RequestLimits::of(settings),
            settings.sidecar.max_requests_in_flight,
            parts.bodies,
            metrics.http.clone(),
        );
        let produce = parts.produce.map(|(sink, encode)| {
            let flow = Flow::new(sink, parts.produce_audit, encode, metrics.produce.clone());
            Arc::new(ProduceEdge::new(flow, &settings.producer, &settings.server.service_id))
        });

        let tasks = Tasks::new();
        let watches = CancellationToken::new();
        tasks.spawn("brokers watch", watch::watch("brokers", health.gate("brokers"), parts.brokers, watches.clone()));
        if let Some(check) = parts.backend {
            tasks.spawn("backend watch", watch::watch("backend", health.gate("backend"), check, watches.clone()));
        }
        for (name, check) in parts.explanations {
            tasks.spawn("explanation", watch::watch(name, health.explain(name), check, watches.clone()));
        }
        let writers = parts.writers.into_iter().map(|part| part.start(&tasks)).collect();
        let consumer = parts.consumer.map(|part| part.start(&tasks));

        tracing::info!(address = %data_address, "data listener open");
        let router = http::data_router(&edge, produce.clone(), pages.clone(), metrics.clone());
        let data = serve(&tasks, "data listener", data, router);
        let probes = match probes {
            None => None,
            Some(listener) => {
                let address = listener.address().map_err(StartError::Address)?;
                tracing::info!(%address, "probes listener open");
                let router = http::probes_router(&edge, pages, metrics);
                Some((serve(&tasks, "probes listener", listener, router), address))
            }
        };
        Ok(Self {
            health,
            tasks,
            data,
            data_address,
            probes,
            produce,
            consumer,
            writers,
            watches,
            close_producer: parts.close_producer,
            grace: grace(settings),
        })
    }

    #[cfg(test)]
    fn health(&self) -> &Health {
        &self.health
    }

    /// Where the data listener listens, with its real port.
    pub(crate) fn data_address(&self) -> SocketAddr {
        self.data_address
    }

    /// Where health and metrics are, if their listener is open.
    pub(crate) fn probes_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref().map(|(_, address)| *address)
    }

    /// Runs until told to stop or until a task ends that must not; then shuts down. The last line of the log says how it ended.
    pub(crate) async fn run(mut self, stop: &Stop) -> End {
        let started = Instant::now();
        let mut announced = false;
        let crash = loop {
            tokio::select! {
                biased;
                () = stop.drain.cancelled() => break None,
                ended = self.tasks.next_end() => break Some(ended),
                () = self.health.ready(), if !announced => {
                    announced = true;
                    let after_ms = started.elapsed().as_millis() as u64;
                    tracing::info!(data = %self.data_address(), probes = self.probes_address().map(tracing::field::display), after_ms, "ready");
                }
            }
        };
        if let Some(Ended { name, result }) = &crash {
            let reason = result.as_ref().err().map_or("it ended by itself", String::as_str);
            tracing::error!(task = name, reason, "a task ended that must not; stopping");
        }
        let left = tokio::select! {
            biased;
            left = self.shut_down() => left,
            () = stop.cut.cancelled() => vec!["cut short by a second signal".to_owned()],
        };
        match (crash, left.is_empty()) {
            (Some(Ended { name, result }), _) => {
                let reason = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                tracing::error!(task = name, %reason, left = left.join("; "), "stopped after a crash");
                End::Crashed { task: name, reason }
            }
            (None, true) => {
                tracing::info!("shutdown completed");
                End::Completed
            }
            (None, false) => {
                tracing::warn!(left = left.join("; "), "shutdown ended before everything was done");
                End::Left(left)
            }
        }
    }

    /// Everything in its order; what was not done in time.
    async fn shut_down(self) -> Vec<String> {
        let Self { health, data, probes, produce, consumer, writers, watches, close_producer, grace, .. } = self;
        let mut left = Vec::new();
        let deadline = Instant::now() + grace;
        let consumer_deadline = deadline - after_consumer(grace);
        health.drain();
        tracing::info!(grace_ms = grace.as_millis() as u64, "shutting down");

        if let Some(consumer) = consumer {
            consumer.end(consumer_deadline, &mut left).await;
        }
        data.end(deadline, &mut left).await;
        if let Some(produce) = produce {
            let finished = tokio::time::timeout_at(deadline, produce.flow().finished()).await;
            if finished.is_err() {
                left.push(format!("{} produce requests without all outcomes", produce.flow().in_progress()));
            }
        }
        // The flow's hold on the audit ended with it.
        for writer in writers {
            writer.end(deadline, &mut left).await;
        }
        if let Some(close) = close_producer {
            let records = close(deadline.saturating_duration_since(Instant::now())).await;
            if records > 0 {
                left.push(format!("{records} records not acknowledged"));
            }
        }
        watches.cancel();
        if let Some((probes, _)) = probes {
            probes.end(deadline, &mut left).await;
        }
        left
    }
}

impl Stoppable {
    fn start(self, tasks: &Tasks) -> Started {
        Started { task: tasks.spawn(self.name, self.run), stop: self.stop, cut: self.cut }
    }
}

impl Started {
    /// Stops it, cuts it at the deadline, and notes what it did not do.
    async fn end(self, deadline: Instant, left: &mut Vec<String>) {
        let Self { task, stop, cut } = self;
        let name = task.name;
        stop.cancel();
        let cut_at_deadline = async {
            tokio::time::sleep_until(deadline).await;
            cut.cancel();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            biased;
            ended = task.end_by(deadline + LAST_WORDS) => ended,
            () = cut_at_deadline => Ok(()),
        };
        if let Err(reason) = ended {
            left.push(format!("{name}: {reason}"));
        }
    }
}

fn serve(tasks: &Tasks, name: &'static str, listener: Listener, router: axum::Router) -> Started {
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let served = listener.serve(router, stop.clone(), cut.clone());
    let run = async move {
        match served.await {
            0 => Ok(()),
            connections => Err(format!("{connections} connections were cut")),
        }
    };
    Started { task: tasks.spawn(name, run), stop, cut }
}

async fn bind_probes(
    settings: &Settings,
    limits: ListenerLimits,
    metrics: &Metrics,
) -> Result<Option<Listener>, StartError> {
    let Some(address) = settings.sidecar.probes else { return Ok(None) };
    let limits = ListenerLimits { connections: PROBE_CONNECTIONS, ..limits };
    match Listener::bind("probes", address, limits, metrics.http.clone()).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.sidecar.probes_explicit => Err(error.into()),
        Err(error) => {
            tracing::warn!(%address, reason = %error.source, "no probes listener: its address cannot be opened (sidecar.probesPort)");
            Ok(None)
        }
    }
}

/// The whole shutdown: what was written down, else the consumer's drain and what comes after it.
fn grace(settings: &Settings) -> Duration {
    settings.server.graceful_period.unwrap_or(settings.consumer.drain_timeout + AFTER_CONSUMER)
}

fn after_consumer(grace: Duration) -> Duration {
    AFTER_CONSUMER.min(grace / 4)
}

/// How long the consumer may take of it.
fn consumer_grace(settings: &Settings) -> Duration {
    let grace = grace(settings);
    grace - after_consumer(grace)
}

#[cfg(test)]
mod tests;
