//! The checked configuration, as the parts of the sidecar see it: types that cannot be wrong.
//!
//! It knows nothing of files, placeholders or the environment; [`Settings`] is its main type.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use protocol::{connection::ScramHash, consumer::ConsumerConfig, producer::ProducerConfig};

/// Everything, after defaults, files, environment and `--set`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub parts: Parts,
    pub server: Server,
    pub producer: Producer,
    pub consumer: Consumer,
    pub admin: Admin,
    pub health: Health,
    pub client: Client,
    pub sidecar: Sidecar,
    pub logging: Logging,
}

/// Which parts run, by the hook lists or by their absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub producer: bool,
    pub reactive: bool,
    pub admin: bool,
}

/// server.yml.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `server.ip` and `server.httpPort`: the data listener, 127.0.0.1:8080 by default.
    pub http: SocketAddr,
    pub service_id: String,
    pub environment: Option<String>,
    /// `server.maxTransferFileSize`, 1000000 bytes: the largest request body.
    pub max_body_bytes: usize,
    /// `server.shutdownGracefulPeriod`, only if written down.
    pub graceful_period: Option<Duration>,
}

/// How to reach a cluster: bootstrap.servers and what belongs to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// host:port, at least one.
    pub bootstrap_servers: Vec<String>,
    pub client_id: String,
    pub rack: Option<String>,
    pub request_timeout: Duration,
    pub metadata_max_age: Duration,
    /// `socket.connection.setup.timeout.ms`, 10 s.
    pub connect_timeout: Duration,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    pub reconnect_backoff: Duration,
    pub reconnect_backoff_max: Duration,
    pub security: KafkaSecurity,
}

/// `security.protocol` and what belongs to it: TLS, SASL, both or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KafkaSecurity {
    pub tls: Option<ClientTls>,
    pub sasl: Option<Sasl>,
}

/// Whom a TLS client trusts, and what it shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientTls {
    pub trust: Vec<Store>,
    /// Also what this system trusts.
    pub trust_platform: bool,
    /// The setting to name where nobody is trusted.
    pub trust_key: String,
    /// The private key with its certificates.
    pub identity: Option<Store>,
    /// Of the private key, where it is not that of the store.
    pub key_password: Option<Secret>,
    pub verify_hostname: bool,
    /// All that the library has, where empty.
    pub versions: Vec<TlsVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    V1_2,
    V1_3,
}

/// Certificates or keys: PEM, PKCS#12 or JKS, told apart by their content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    /// The setting that names it, for messages.
    pub key: String,
    pub place: Place,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    File(PathBuf),
    /// PEM, as the setting's own text.
    Inline(Secret),
}

/// `sasl.mechanism` with its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sasl {
    Plain { username: String, password: Secret },
    Scram { hash: ScramHash, username: String, password: Secret },
    OAuthBearer(Box<OAuth>),
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OAuth {
    pub source: TokenSource,
    /// KIP-342: `extension_…` of the JAAS options.
    pub extensions: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// A file that holds a token; read for each connection.
    File(PathBuf),
    /// OAuth 2.0, client credentials.
    Endpoint { url: String, client_id: String, client_secret: Secret, scope: Option<String>, tls: Box<ClientTls> },
}

/// The six formats; schema formats are parsed and refused until a registry client exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Binary,
    Json,
    Avro,
    JsonSchema,
    Protobuf,
    String,
}

/// kafka-producer.yml.
#[derive(Debug, Clone)]
pub(crate) struct Producer {
    pub connection: Connection,
    pub kafka: ProducerConfig,
    pub key_format: Format,
    pub value_format: Format,
    /// `injectCallerId`: adds the Kafka header `caller_id` = server.serviceId.
    pub inject_caller_id: bool,
    /// HTTP headers that are copied to every record of a request; empty by default.
    pub copied_headers: Vec<String>,
    /// `compatibleStatus`: 200 and 400 as the system that this one replaces answered.
    pub compatible_status: bool,
    pub audit: Audit,
}

/// The audit keys, which kafka-producer.yml and kafka-consumer.yml both have.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub enabled: bool,
    pub target: AuditTarget,
    pub topic: String,
    /// `auditFile`, log/sidecar-audit.log.
    pub file: PathBuf,
    /// `auditFileMaxBytes`, 200 MB.
    pub file_max_bytes: u64,
    /// `auditFileMaxHistory`, 5 zipped files.
    pub file_max_history: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditTarget {
    Topic,
    LogFile,
}

/// kafka-consumer.yml.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub connection: Connection,
    /// Topics, group.id, auto.offset.reset, fetch sizes, … (`kafka.topics` is empty if no topic is configured).
    pub kafka: ConsumerConfig,
    pub key_format: Format,
    pub value_format: Format,
    pub dead_letter: DeadLetter,
    pub audit: Audit,
    pub backend: Backend,
    pub dispatch: Dispatch,
    pub bad_record_policy: BadRecordPolicy,
    /// `drainTimeoutMs`, 25 s.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub enabled: bool,
    /// `deadLetterTopicExt`, .dlq
    pub topic_ext: String,
    /// `deadLetterTopicCreate`, true.
    pub create_topic: bool,
}

/// Where the backend is and how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// `backendApiHost`, scheme and authority without a trailing slash: https://localhost:8444.
    pub host: String,
    /// `backendApiPath`, /kafka/records.
    pub path: String,
    /// `backendTimeoutMs`: how long a reply may take; default `instanceTimeoutMs`, 300 s.
    pub timeout: Duration,
    /// `backendConnectionReset`: send `Connection: close`.
    pub connection_reset: bool,
}

/// How records become backend calls.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    /// `batchMaxRecords`, default `max.poll.records` (100).
    pub max_records: usize,
    /// `requestMaxBytes`, 204800: decoded key and value bytes of a batch; always at least one record.
    pub max_bytes: usize,
    /// `fetchMinBytes` if written down and positive: a batch waits for so much, at most `batch_wait`.
    pub min_bytes: Option<usize>,
    /// `requestTimeoutMs` if written down (1 s if only `fetchMinBytes` is): how long a batch may wait to fill.
    pub batch_wait: Option<Duration>,
    /// `maxConcurrency`: backend calls in flight at once; 32.
    pub max_concurrency: usize,
    /// `maxRetries`; None = for ever.
    pub max_retries: Option<u32>,
    /// `retryDelayMs` if set, else `waitPeriod` (100 ms): the first delay.
    pub retry_delay: Duration,
    /// `retryMaxDelayMs`, 2 s.
    pub retry_max_delay: Duration,
    /// `batchRollbackThreshold` percent; None = off.
    pub rollback_threshold: Option<u8>,
    /// `waitPeriod`, 100 ms; also how often a stopped partition looks again.
    pub wait_period: Duration,
}

/// `badRecordPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRecordPolicy {
    DeadLetter,
    Skip,
    Stop,
}

/// kafka-admin.yml.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub connection: Connection,
    /// Bounds the health check's cluster question; 200 ms.
    pub health_timeout: Duration,
}

/// health.yml.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub enabled: bool,
    pub use_json: bool,
    pub timeout: Duration,
    pub downstream_enabled: bool,
    pub downstream_host: String,
    pub downstream_path: String,
}

/// client.yml: how the backend is trusted.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `client.verifyHostname`, true.
    pub verify_hostname: bool,
    /// `client.caFile`: PEM certificates.
    pub ca_file: Option<PathBuf>,
    /// `client.trustStore` (PEM, PKCS#12 or JKS by content) and its password.
    pub trust_store: Option<PathBuf>,
    pub trust_store_password: Option<Secret>,
    /// `client.loadDefaultTrustStore`: the platform's certificates.
    pub load_default_trust_store: bool,
    /// `client.enableHttp2`, true: offered by ALPN.
    pub http2: bool,
    /// `client.connectTimeout`, 2 s.
    pub connect_timeout: Duration,
}

/// sidecar.yml: settings that belong to no file of the old system.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    /// `sidecar.probesIp`:`sidecar.probesPort`, 0.0.0.0:9404; None = off (port 0).
    pub probes: Option<SocketAddr>,
    /// Whether the probes address was written down (then a taken port is an error, not a warning).
    pub probes_explicit: bool,
    /// `sidecar.memoryBudgetBytes`: records in memory, produce and fetch together.
    pub memory_budget: usize,
    /// `sidecar.readinessGraceMs`, 30 s.
    pub readiness_grace: Duration,
    /// `sidecar.maxConnections`, 1024.
    pub max_connections: usize,
    /// `sidecar.maxRequestsInFlight`, 256.
    pub max_requests_in_flight: usize,
    /// `sidecar.headerTimeoutMs`, 10 s: a request's head must have arrived by then.
    pub header_timeout: Duration,
    /// `sidecar.bodyTimeoutMs`, 30 s: a request's body must have arrived by then.
    pub body_timeout: Duration,
    /// `sidecar.maxRecordsPerRequest`, 10000.
    pub max_records_per_request: usize,
    /// `sidecar.maxHeaderBytes`, 32768.
    pub max_header_bytes: usize,
}

/// Logs.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    /// A tracing filter: `info`, or `info,protocol=debug`.
    pub filter: String,
    pub json: bool,
}

/// A value that never shows itself in a log or in the effective configuration.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("******")
    }
}
