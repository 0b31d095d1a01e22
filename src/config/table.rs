//! The rows: every property that this sidecar knows, file by file.
//!
//! Defaults are not here but in the shipped files. Names of Kafka's clients are those of its documentation (4.x and 3.x).

use super::property::{
    Kind::{
        Choice, Flag, Format, Ip, List, LogFilter, Map, Number, Servers, Text, Topic, TopicSuffix, Topics, Url, UrlPath,
    },
    Part,
    Part::{Https, Jwt, Other, Registry},
    Property,
};

const DAY_MS: i64 = 86_400_000;
const GIB: i64 = 1024 * 1024 * 1024;

const fn used(name: &'static str, kind: super::property::Kind) -> Property {
    Property::used(name, kind)
}

const fn idle(name: &'static str, why: &'static str) -> Property {
    Property::idle(name, why)
}

const fn later(name: &'static str, part: super::property::Part) -> Property {
    Property::later(name, part)
}

const fn ms(name: &'static str, min: i64, max: i64) -> Property {
    used(name, Number { min, max, unit: "milliseconds" })
}

const fn bytes(name: &'static str, min: i64, max: i64) -> Property {
    used(name, Number { min, max, unit: "bytes" })
}

const fn count(name: &'static str, min: i64, max: i64) -> Property {
    used(name, Number { min, max, unit: "" })
}

const SERIALIZER: &str = "keyFormat and valueFormat decide how bytes are made";
const JAVA_METRICS: &str = "metrics are at /metrics";
const JAVA_CLASS: &str = "Java classes cannot be loaded";
const SYSTEM: &str = "the operating system sizes socket buffers";
const NO_KERBEROS: &str = "the mechanism GSSAPI is not there";
const TOKENS: &str = "a token is fetched again when most of its life is over";
const BROKERS_CHECK: &str = "it is the brokers that check tokens";
const STORE_TYPE: &str = "the content of a store tells what it is";
const ASSERTION: Part = Other("the JWT bearer grant of OAUTHBEARER");
const NO_REGISTRY: &str = "no schema.registry.url is set";
const NO_JWT: &str = "JWT verification is off";
const POOL: &str = "the connections to the backend are pooled by themselves";
const NOT_HERE: &str = "the server manages this by itself";

/// Of every Kafka client: how to reach the cluster.
pub(super) const CONNECTION: &[Property] = &[
    used("bootstrap.servers", Servers).old_default(&["localhost:9092"]),
    used("client.id", Text),
    used("client.rack", Text).dummy(&["rack-name", "rack1"]),
    ms("request.timeout.ms", 1, 3_600_000),
    ms("metadata.max.age.ms", 100, DAY_MS),
    ms("socket.connection.setup.timeout.ms", 10, 600_000),
    ms("retry.backoff.ms", 1, 600_000),
    ms("retry.backoff.max.ms", 1, 600_000),
    ms("reconnect.backoff.ms", 1, 600_000),
    ms("reconnect.backoff.max.ms", 1, 600_000),
    used("security.protocol", Choice(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])).old_default(&["SASL_SSL"]),
    idle("socket.connection.setup.timeout.max.ms", "every attempt has socket.connection.setup.timeout.ms"),
    idle("connections.max.idle.ms", "connections that are idle for nine minutes are closed"),
    idle("client.dns.lookup", "every address of a name is tried"),
    idle("metadata.recovery.strategy", "the bootstrap servers are always asked again when no broker answers"),
    idle(
        "metadata.recovery.rebootstrap.trigger.ms",
        "the bootstrap servers are always asked again when no broker answers",
    ),
    idle("send.buffer.bytes", SYSTEM),
    idle("receive.buffer.bytes", SYSTEM),
    idle("default.api.timeout.ms", "request.timeout.ms bounds each request"),
    idle("key.serializer", SERIALIZER),
    idle("value.serializer", SERIALIZER),
    idle("key.deserializer", SERIALIZER),
    idle("value.deserializer", SERIALIZER),
    idle("interceptor.classes", JAVA_CLASS),
    idle("security.providers", JAVA_CLASS),
    idle("config.providers", "placeholders and the environment fill values"),
    idle("metric.reporters", JAVA_METRICS),
    idle("metrics.num.samples", JAVA_METRICS),
    idle("metrics.recording.level", JAVA_METRICS),
    idle("metrics.sample.window.ms", JAVA_METRICS),
    idle("auto.include.jmx.reporter", JAVA_METRICS),
    idle("enable.metrics.push", JAVA_METRICS),
    idle("internal.auto.downgrade.txn.commit", "there are no internal settings"),
    later("schema.registry.url", Registry),
    idle("schema.registry.cache", NO_REGISTRY),
    idle("schema.registry.auto.register.schemas", NO_REGISTRY),
    idle("auto.register.schemas", NO_REGISTRY),
    idle("use.latest.version", NO_REGISTRY),
    idle("schema.registry.ssl.truststore.location", NO_REGISTRY),
    idle("schema.registry.ssl.truststore.password", NO_REGISTRY).secret(),
    idle("schema.registry.ssl.truststore.type", NO_REGISTRY),
    idle("schema.registry.ssl.keystore.location", NO_REGISTRY),
    idle("schema.registry.ssl.keystore.password", NO_REGISTRY).secret(),
    idle("schema.registry.ssl.key.password", NO_REGISTRY).secret(),
    idle("schema.registry.basic.auth.user.info", NO_REGISTRY).secret().dummy(&["username:password"]),
    idle("basic.auth.user.info", NO_REGISTRY).secret().dummy(&["username:password"]),
    idle("basic.auth.credentials.source", NO_REGISTRY),
];

/// TLS and SASL of every Kafka client.
pub(super) const SECURITY_TO_KAFKA: &[Property] = &[
    used("username", Text).dummy(&["username"]),
    used("password", Text).secret().dummy(&["password"]),
    used("sasl.mechanism", Text).dummy(&["PLAIN"]),
    used("sasl.jaas.config", Text).secret(),
    used("sasl.jaas.config.module", Text).dummy(&["org.apache.kafka.common.security.plain.PlainLoginModule"]),
    used("sasl.jaas.config.username", Text).dummy(&["username"]),
    used("sasl.jaas.config.password", Text).secret().dummy(&["password"]),
    used("sasl.oauthbearer.token.endpoint.url", Text),
    used("sasl.oauthbearer.client.credentials.client.id", Text),
    used("sasl.oauthbearer.client.credentials.client.secret", Text).secret(),
    used("sasl.oauthbearer.scope", Text),
    idle("sasl.client.callback.handler.class", JAVA_CLASS),
    idle("sasl.login.callback.handler.class", JAVA_CLASS),
    idle("sasl.login.class", JAVA_CLASS),
    idle("sasl.kerberos.service.name", NO_KERBEROS),
    idle("sasl.kerberos.kinit.cmd", NO_KERBEROS),
    idle("sasl.kerberos.min.time.before.relogin", NO_KERBEROS),
    idle("sasl.kerberos.ticket.renew.jitter", NO_KERBEROS),
    idle("sasl.kerberos.ticket.renew.window.factor", NO_KERBEROS),
    idle("sasl.login.refresh.buffer.seconds", TOKENS),
    idle("sasl.login.refresh.min.period.seconds", TOKENS),
    idle("sasl.login.refresh.window.factor", TOKENS),
    idle("sasl.login.refresh.window.jitter", TOKENS),
    idle("sasl.login.connect.timeout.ms", TOKENS),
    idle("sasl.login.read.timeout.ms", TOKENS),
    idle("sasl.login.retry.backoff.ms", TOKENS),
    idle("sasl.login.retry.backoff.max.ms", TOKENS),
    idle("sasl.oauthbearer.jwks.endpoint.url", BROKERS_CHECK),
    idle("sasl.oauthbearer.jwks.endpoint.refresh.ms", BROKERS_CHECK),
    idle("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", BROKERS_CHECK),
    idle("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", BROKERS_CHECK),
    idle("sasl.oauthbearer.clock.skew.seconds", BROKERS_CHECK),
    idle("sasl.oauthbearer.expected.audience", BROKERS_CHECK),
    idle("sasl.oauthbearer.expected.issuer", BROKERS_CHECK),
    idle("sasl.oauthbearer.scope.claim.name", BROKERS_CHECK),
    idle("sasl.oauthbearer.sub.claim.name", BROKERS_CHECK),
    idle("sasl.oauthbearer.header.urlencode", "the credentials are always encoded as RFC 6749 has it"),
    idle("sasl.oauthbearer.jwt.retriever.class", JAVA_CLASS),
    idle("sasl.oauthbearer.jwt.validator.class", JAVA_CLASS),
    later("sasl.oauthbearer.assertion.algorithm", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.aud", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.exp.seconds", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.iss", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.jti.include", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.nbf.seconds", ASSERTION),
    later("sasl.oauthbearer.assertion.claim.sub", ASSERTION),
    later("sasl.oauthbearer.assertion.file", ASSERTION),
    later("sasl.oauthbearer.assertion.private.key.file", ASSERTION),
    later("sasl.oauthbearer.assertion.private.key.passphrase", ASSERTION).secret(),
    later("sasl.oauthbearer.assertion.template.file", ASSERTION),
    used("ssl.truststore.location", Text),
    used("ssl.truststore.password", Text).secret().dummy(&["password", "changeme"]),
    idle("ssl.truststore.type", STORE_TYPE),
    used("ssl.truststore.certificates", Text),
    used("ssl.keystore.location", Text),
    used("ssl.keystore.password", Text).secret(),
    idle("ssl.keystore.type", STORE_TYPE),
    used("ssl.keystore.key", Text).secret(),
    used("ssl.keystore.certificate.chain", Text),
    used("ssl.key.password", Text).secret(),
    used("ssl.endpoint.identification.algorithm", Text).dummy(&["algo-name", "also-name"]),
    used("ssl.enabled.protocols", List),
    idle("ssl.protocol", "the newest version that both sides speak is taken"),
    idle("ssl.cipher.suites", "the TLS library has none that are weak"),
    idle("ssl.provider", JAVA_CLASS),
    idle("ssl.engine.factory.class", JAVA_CLASS),
    idle("ssl.keymanager.algorithm", JAVA_CLASS),
    idle("ssl.trustmanager.algorithm", JAVA_CLASS),
    idle("ssl.secure.random.implementation", JAVA_CLASS),
];

pub(super) const PRODUCER_KAFKA: &[Property] = &[
    used("acks", Choice(&["all", "-1", "0", "1"])),
    used("enable.idempotence", Flag).old_default(&["true", "false"]),
    ms("linger.ms", 0, 900_000),
    bytes("batch.size", 0, 64 * 1024 * 1024),
    bytes("max.request.size", 1, GIB),
    used("compression.type", Choice(&["none", "gzip", "snappy", "lz4", "zstd"])),
    ms("delivery.timeout.ms", 1, DAY_MS),
    count("retries", 0, i32::MAX as i64).old_default(&["3"]),
    count("max.in.flight.requests.per.connection", 1, 100),
    idle("buffer.memory", "sidecar.memoryBudgetBytes bounds the records in memory"),
    idle("max.block.ms", "a request that finds no room is answered 503"),
    idle("max.message.size", "it is no setting of Kafka; the size of a record is bounded by max.request.size"),
    idle("metadata.max.idle.ms", "topics that nobody produces to are forgotten by themselves"),
    idle("partitioner.adaptive.partitioning.enable", "records without a key are spread evenly"),
    idle("partitioner.availability.timeout.ms", "records without a key are spread evenly"),
    idle("transaction.timeout.ms", "no transactional.id is set"),
    idle("transactional.id.expiration.ms", "no transactional.id is set"),
    idle("transaction.two.phase.commit.enable", "no transactional.id is set"),
    later("transactional.id", Other("transactions")),
    later("compression.gzip.level", Other("the choice of a compression level")),
    later("compression.lz4.level", Other("the choice of a compression level")),
    later("compression.zstd.level", Other("the choice of a compression level")),
    later("partitioner.ignore.keys", Other("the choice of a partitioner")).flag(),
    later("partitioner.class", Other("the choice of a partitioner"))
        .dummy(&["org.apache.kafka.clients.producer.internals.DefaultPartitioner"]),
];

pub(super) const PRODUCER: &[Property] = &[
    used("keyFormat", Format),
    used("valueFormat", Format),
    used("injectCallerId", Flag),
    used("copiedHeaders", List),
    used("compatibleStatus", Flag),
    used("auditEnabled", Flag),
    used("auditTarget", Choice(&["topic", "logfile"])).old_default(&["logfile"]),
    used("auditTopic", Topic).old_default(&["logfile"]),
    used("auditFile", Text),
    bytes("auditFileMaxBytes", 4096, 1024 * GIB),
    count("auditFileMaxHistory", 0, 10_000),
    used("additionalKafkaProperties", Map),
    idle("topic", "each request names its topic"),
    idle("injectOpenTracing", "trace context is always carried"),
];

pub(super) const CONSUMER_KAFKA: &[Property] = &[
    used("group.id", Text),
    used("auto.offset.reset", Text),
    used("isolation.level", Choice(&["read_committed", "read_uncommitted"])),
    used("partition.assignment.strategy", List),
    used("group.protocol", Choice(&["classic", "consumer"])),
    ms("session.timeout.ms", 1, 3_600_000),
    ms("heartbeat.interval.ms", 1, 3_600_000),
    bytes("fetch.max.bytes", 1, GIB),
    bytes("max.partition.fetch.bytes", 1, GIB).old_default(&["100"]),
    bytes("fetch.min.bytes", 1, GIB),
    ms("fetch.max.wait.ms", 0, 600_000),
    used("check.crcs", Flag),
    count("max.poll.records", 1, 1_000_000),
    idle("max.poll.interval.ms", "a slow backend never costs the group membership"),
    idle("enable.auto.commit", "offsets are committed when their records are finished"),
    idle("auto.commit.interval.ms", "offsets are committed when their records are finished"),
    idle("exclude.internal.topics", "topics are subscribed to by name"),
    idle("allow.auto.create.topics", "reading never creates a topic"),
    idle("internal.leave.group.on.close", "a member that ends always leaves"),
    idle("internal.throw.on.fetch.stable.offset.unsupported", "there are no internal settings"),
    later("group.instance.id", Other("static group membership")),
    later("share.acknowledgement.mode", Other("share groups")),
    later("share.acquire.mode", Other("share groups")),
    later("group.remote.assignor", Other("the group protocol `consumer`")),
];

pub(super) const CONSUMER: &[Property] = &[
    used("topic", Topics).old_default(&["test1"]),
    used("keyFormat", Format),
    used("valueFormat", Format),
    used("backendApiHost", Url),
    used("backendApiPath", UrlPath),
    ms("backendTimeoutMs", 1, DAY_MS),
    ms("instanceTimeoutMs", 1, DAY_MS),
    used("backendConnectionReset", Flag),
    count("batchMaxRecords", 1, 1_000_000),
    bytes("requestMaxBytes", 1, GIB).old_default(&["102400", "67108864"]),
    // -1 and 0 mean: do not wait.
    bytes("fetchMinBytes", -1, GIB).old_default(&["-1", "10000000"]),
    ms("requestTimeoutMs", 0, 3_600_000).old_default(&["1000"]),
    count("maxConcurrency", 1, 1024),
    used("ordering", Choice(&["partition", "key", "unordered"])),
    count("maxRetries", 0, 1_000_000).old_default(&["3"]),
    ms("retryDelayMs", 1, 3_600_000).old_default(&["1000"]),
    ms("retryMaxDelayMs", 1, 3_600_000),
    ms("waitPeriod", 1, 3_600_000).old_default(&["10000"]),
    used("batchRollbackThreshold", Number { min: 1, max: 100, unit: "percent" }).old_default(&["30"]),
    used("badRecordPolicy", Choice(&["deadLetter", "skip", "stop"])),
    ms("drainTimeoutMs", 0, 3_600_000),
    used("deadLetterEnabled", Flag),
    used("deadLetterTopicExt", TopicSuffix),
    used("deadLetterTopicCreate", Flag),
    used("auditEnabled", Flag),
    used("auditTarget", Choice(&["topic", "logfile"])).old_default(&["logfile"]),
    used("auditTopic", Topic).old_default(&["logfile"]),
    used("auditFile", Text),
    bytes("auditFileMaxBytes", 4096, 1024 * GIB),
    count("auditFileMaxHistory", 0, 10_000),
    used("additionalKafkaProperties", Map),
    idle("useNoWrappingAvro", NO_REGISTRY),
    idle("maxConsumerThreads", "there is no thread per consumer"),
    idle("serverId", "it names instances of the active consumer, which is not there yet"),
    idle("iteratorBackoffMs", "records are read as they come"),
];

pub(super) const ADMIN_KAFKA: &[Property] = &[
    idle("retries", "requests are repeated until request.timeout.ms"),
    later("bootstrap.controllers", Other("asking controllers instead of brokers")),
];

pub(super) const ADMIN: &[Property] = &[used("additionalKafkaProperties", Map)];

pub(super) const SERVER: &[Property] = &[
    used("ip", Ip),
    used("httpPort", Number { min: 0, max: 65_535, unit: "" }),
    used("enableHttp", Flag),
    used("serviceId", Text),
    used("environment", Text),
    bytes("maxTransferFileSize", 1, GIB),
    ms("shutdownGracefulPeriod", 0, 3_600_000).old_default(&["2000"]),
    later("enableHttps", Https).flag(),
    later("keystoreName", Https).dummy(&["server.keystore"]),
    later("enableTwoWayTls", Https).flag(),
    idle("keystorePass", "the HTTPS listener is off").secret(),
    idle("keyPass", "the HTTPS listener is off").secret(),
    idle("truststoreName", "the HTTPS listener is off"),
    idle("truststorePass", "the HTTPS listener is off").secret(),
    idle("httpsPort", "the HTTPS listener is off"),
    idle("bootstrapStoreName", "there is no configuration server"),
    idle("bootstrapStorePass", "there is no configuration server").secret(),
    idle("enableHttp2", "the listener speaks HTTP/1.1 and HTTP/2"),
    later("dynamicPort", Other("a port chosen from a range")).flag(),
    later("enableRegistry", Other("registration with a service registry")).flag(),
    idle("minPort", "server.httpPort is the port"),
    idle("maxPort", "server.httpPort is the port"),
    idle("startOnRegistryFailure", "there is no service registry"),
    idle("serviceName", "server.serviceId is the name"),
    idle("shutdownTimeout", "shutdownGracefulPeriod bounds the whole end"),
    idle("buildNumber", "`kafka-sidecar --version` says it"),
    idle("bufferSize", NOT_HERE),
    idle("ioThreads", NOT_HERE),
    idle("workerThreads", NOT_HERE),
    idle("backlog", NOT_HERE),
    idle("serverString", "answers carry no Server header"),
    idle("alwaysSetDate", NOT_HERE),
    idle("allowUnescapedCharactersInUrl", NOT_HERE),
    idle("maskConfigProperties", "secrets are always masked"),
];

pub(super) const HEALTH: &[Property] = &[
    used("enabled", Flag),
    used("useJson", Flag),
    ms("timeout", 1, 600_000).old_default(&["2000"]),
    used("downstreamEnabled", Flag),
    used("downstreamHost", Url).old_default(&["http://localhost:8081", "http://localhost"]),
    used("downstreamPath", UrlPath),
];

pub(super) const CLIENT_TLS: &[Property] = &[
    used("verifyHostname", Flag),
    used("caFile", Text),
    used("trustStore", Text),
    used("trustStorePass", Text).secret(),
    used("loadDefaultTrustStore", Flag),
    later("loadKeyStore", Other("a client certificate for the backend")).flag(),
    idle("loadTrustStore", "a trustStore is read if it is there"),
    idle("keyStore", "loadKeyStore is off"),
    idle("keyStorePass", "loadKeyStore is off").secret(),
    idle("keyPass", "loadKeyStore is off").secret(),
    idle("tlsVersion", "TLS 1.3 and 1.2 are offered"),
    idle("defaultCertPassword", "it was never read").secret(),
    idle("defaultGroupKey", "it was never read"),
    idle("trustedNames", "it was never read"),
];

pub(super) const CLIENT_REQUEST: &[Property] = &[
    used("enableHttp2", Flag),
    ms("connectTimeout", 1, 600_000),
    idle("timeout", "kafka-consumer.backendTimeoutMs bounds a reply"),
    idle("errorThreshold", "back-off replaces the circuit breaker"),
    idle("resetTimeout", "back-off replaces the circuit breaker"),
    idle("injectOpenTracing", "trace context is always carried"),
    idle("injectCallerId", "kafka-producer.injectCallerId is the setting for records"),
    idle("connectionPoolSize", POOL),
    idle("connectionExpireTime", POOL),
    idle("maxReqPerConn", POOL),
    idle("maxConnectionNumPerHost", POOL),
    idle("minConnectionNumPerHost", POOL),
    idle("maxRequestRetry", "kafka-consumer.maxRetries is the setting"),
    idle("requestRetryDelay", "kafka-consumer.retryDelayMs is the setting"),
    idle("poolMetricsEnabled", POOL),
    idle("poolWarmUpEnabled", POOL),
    idle("poolWarmUpSize", POOL),
    idle("healthCheckEnabled", POOL),
    idle("healthCheckIntervalMs", POOL),
];

pub(super) const CLIENT: &[Property] = &[
    idle("oauth", "the sidecar asks for no tokens"),
    idle("pathPrefixServices", "the backend is kafka-consumer.backendApiHost"),
];

pub(super) const SECURITY_JWT: &[Property] = &[
    later("certificate", Jwt).dummy(&["100=primary.crt&101=secondary.crt"]),
    idle("clockSkewInSeconds", NO_JWT),
    idle("keyResolver", NO_JWT),
];

pub(super) const SECURITY: &[Property] = &[
    used("enableVerifyJwt", Flag),
    idle("enableVerifyScope", NO_JWT),
    idle("enableVerifySwt", NO_JWT),
    idle("enableVerifyJwtScopeToken", NO_JWT),
    idle("enableExtractScopeToken", NO_JWT),
    idle("skipVerifyScopeWithoutSpec", NO_JWT),
    idle("ignoreJwtExpiry", NO_JWT),
    idle("enableH2c", NO_JWT),
    idle("enableMockJwt", NO_JWT),
    idle("enableRelaxedKeyValidation", NO_JWT),
    idle("enableJwtCache", NO_JWT),
    idle("jwtCacheFullSize", NO_JWT),
    idle("logJwtToken", NO_JWT),
    idle("logClientUserScope", NO_JWT),
    idle("bootstrapFromKeyService", NO_JWT),
    idle("providerId", NO_JWT),
    idle("skipPathPrefixes", NO_JWT),
    idle("passThroughClaims", NO_JWT),
    idle("swtClientIdHeader", NO_JWT),
    idle("swtClientSecretHeader", NO_JWT),
    idle("swt", NO_JWT),
];

pub(super) const SERVICE: &[Property] = &[
    used("com.networknt.server.StartupHookProvider", List),
    used("com.networknt.server.ShutdownHookProvider", List),
    idle("singletons", "classes are not wired; only the hook lists are read"),
];

pub(super) const SIDECAR: &[Property] = &[
    used("probesIp", Ip),
    used("probesPort", Number { min: 0, max: 65_535, unit: "" }),
    bytes("memoryBudgetBytes", 8 * 1024 * 1024, 1024 * GIB),
    ms("readinessGraceMs", 0, DAY_MS),
    count("maxConnections", 1, 1_000_000),
    count("maxRequestsInFlight", 1, 1_000_000),
    ms("headerTimeoutMs", 1, 3_600_000),
    ms("bodyTimeoutMs", 1, 3_600_000),
    count("maxRecordsPerRequest", 1, 10_000_000),
    bytes("maxHeaderBytes", 8192, 1024 * 1024),
    used("logLevel", LogFilter),
    used("logFormat", Choice(&["text", "json"])),
    later("adminPort", Other("a control listener of its own")),
];

/// The start of files and flat keys of the old system that this sidecar does not have.
pub(super) const FOREIGN: &[&str] = &[
    "app-status",
    "audit",
    "body",
    "config",
    "content",
    "correlation",
    "cors",
    "exception",
    "handler",
    "header",
    "info",
    "kafka-ksqldb",
    "kafka-streams",
    "limit",
    "logging",
    "metrics",
    "openapi",
    "openapi-handler",
    "openapi-inject",
    "openapi-security",
    "openapi-validator",
    "portal-registry",
    "prometheus",
    "sanitizer",
    "secret",
    "startup",
    "status",
    "swagger",
    "traceability",
    "whitelist",
    "proxy",
    "router",
    "token",
    "dump",
    "chaos-monkey",
];

#[cfg(test)]
mod tests {
    use super::{
        super::property::{Kind::Any, Status},
        *,
    };

    #[test]
    fn what_looks_like_a_secret_is_one() {
        for rows in [CONNECTION, SECURITY_TO_KAFKA, SERVER, CLIENT_TLS] {
            for row in rows {
                let name = row.name.to_lowercase();
                let looks = name.contains("password") || name.ends_with("pass") || name.contains("user.info");
                assert!(!looks || row.secret, "{}", row.name);
            }
        }
    }

    #[test]
    fn nobody_looks_at_idle_values() {
        assert!(
            CONNECTION.iter().all(|row| (row.kind == Any) == matches!(row.status, Status::Idle(_))
                || matches!(row.status, Status::Later(_)))
        );
    }
}
