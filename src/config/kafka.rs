//! kafka-producer.yml, kafka-consumer.yml and kafka-admin.yml as settings: the rules between Kafka's properties.
//!
//! It knows nothing of where values come from. [`producer`], [`consumer`] and [`admin`] are what it offers.

use std::{path::PathBuf, time::Duration};

use protocol::{
    consumer::{Assignor, ConsumerConfig, Isolation, OffsetReset},
    producer::{Acks, ProducerConfig},
    record::Compression,
};

use super::{
    property::File,
    security::kafka_security,
    settings::{
        Admin, Audit, AuditTarget, Backend, BadRecordPolicy, Connection, Consumer, DeadLetter, Dispatch, Format,
        Producer,
    },
    values::Values,
};

/// What the admin client's requests have when they are no health check.
const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn producer(values: &mut Values, brokers_of: File) -> Producer {
    let file = File::Producer;
    let connection = connection(values, file, brokers_of);
    let kafka = producer_kafka(values, &connection);
    Producer {
        kafka,
        key_format: format(values, file, "keyFormat", Format::String),
        value_format: format(values, file, "valueFormat", Format::Json),
        inject_caller_id: values.flag(file, "injectCallerId"),
        copied_headers: copied_headers(values),
        compatible_status: values.flag(file, "compatibleStatus"),
        audit: audit(values, file),
        connection,
    }
}

fn producer_kafka(values: &mut Values, connection: &Connection) -> ProducerConfig {
    let file = File::Producer;
    let acks = match values.text(file, "acks").as_str() {
        "0" => Acks::None,
        "1" => Acks::Leader,
        _ => Acks::All,
    };
    let retries = values.optional_number(file, "retries").and_then(|retries| u32::try_from(retries).ok());
    let max_in_flight = values.size(file, "max.in.flight.requests.per.connection");
    let linger = values.millis(file, "linger.ms");
    let mut delivery_timeout = values.millis(file, "delivery.timeout.ms");
    let least = linger + connection.request_timeout;
    if delivery_timeout < least {
        if values.given(file, "delivery.timeout.ms") {
            let text = format!("must be at least linger.ms plus request.timeout.ms, {}", least.as_millis());
            values.fault(file, "delivery.timeout.ms", text);
        }
        delivery_timeout = least;
        values.derive(file, "delivery.timeout.ms", least.as_millis());
    }
    ProducerConfig {
        acks,
        idempotence: idempotence(values, acks, retries, max_in_flight),
        linger,
        batch_size: values.size(file, "batch.size"),
        max_request_size: values.size(file, "max.request.size"),
        compression: match values.text(file, "compression.type").as_str() {
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        },
        delivery_timeout,
        request_timeout: connection.request_timeout,
        retries,
        retry_backoff: connection.retry_backoff,
        retry_backoff_max: connection.retry_backoff_max,
        max_in_flight,
        ..ProducerConfig::default()
    }
}

/// As in Java's producer: a conflict is a fault if idempotence is asked for, else it turns idempotence off.
fn idempotence(values: &mut Values, acks: Acks, retries: Option<u32>, max_in_flight: usize) -> bool {
    let (file, name) = (File::Producer, "enable.idempotence");
    if !values.flag(file, name) {
        return false;
    }
    let mut conflicts = Vec::new();
    if acks != Acks::All {
        conflicts.push("acks: all");
    }
    if retries == Some(0) {
        conflicts.push("retries above 0");
    }
    if max_in_flight > 5 {
        conflicts.push("max.in.flight.requests.per.connection of at most 5");
    }
    if conflicts.is_empty() {
        return true;
    }
    let needs = conflicts.join(" and ");
    if values.given(file, name) {
        values.fault(file, name, format!("needs {needs}; change that or set it to false"));
    } else {
        values.derive(file, name, false);
        values.warnings.push(format!(
            "kafka-producer.enable.idempotence is off, because it needs {needs}: retries may write a record twice"
        ));
    }
    false
}

fn copied_headers(values: &mut Values) -> Vec<String> {
    let (file, name) = (File::Producer, "copiedHeaders");
    let mut names = values.optional_list(file, name).unwrap_or_default();
    for header in &mut names {
        header.make_ascii_lowercase();
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if let Some(wrong) = names.iter().find(|header| !header.chars().all(token)) {
        values.fault(file, name, format!("{wrong:?} is no name of an HTTP header"));
    }
    names
}

pub(super) fn consumer(values: &mut Values, brokers_of: File) -> Consumer {
    let file = File::Consumer;
    let connection = connection(values, file, brokers_of);
    let drain_timeout = values.millis(file, "drainTimeoutMs");
    let dead_letter = DeadLetter {
        enabled: values.flag(file, "deadLetterEnabled"),
        topic_ext: values.optional_text(file, "deadLetterTopicExt").unwrap_or_default(),
        create_topic: values.flag(file, "deadLetterTopicCreate"),
    };
    if dead_letter.enabled && dead_letter.topic_ext.is_empty() {
        values.fault(file, "deadLetterTopicExt", "must not be empty, or set deadLetterEnabled: false");
    }
    Consumer {
        kafka: consumer_kafka(values, &connection, drain_timeout),
        key_format: format(values, file, "keyFormat", Format::String),
        value_format: format(values, file, "valueFormat", Format::Json),
        audit: audit(values, file),
        backend: backend(values),
        dispatch: dispatch(values),
        bad_record_policy: bad_record_policy(values, dead_letter.enabled),
        dead_letter,
        drain_timeout,
        connection,
    }
}

fn consumer_kafka(values: &mut Values, connection: &Connection, drain_timeout: Duration) -> ConsumerConfig {
    let file = File::Consumer;
    let session_timeout = values.millis(file, "session.timeout.ms");
    let heartbeat_interval = values.millis(file, "heartbeat.interval.ms");
    if heartbeat_interval >= session_timeout {
        values.fault(file, "heartbeat.interval.ms", "must be less than session.timeout.ms, at best a third of it");
    }
    let fetch_max_wait = values.millis(file, "fetch.max.wait.ms");
    if fetch_max_wait >= connection.request_timeout {
        values.fault(file, "fetch.max.wait.ms", "must be less than request.timeout.ms");
    }
    if values.text(file, "group.protocol") == "consumer" {
        values.fault(file, "group.protocol", "the protocol `consumer` is not built yet; set classic");
    }
    ConsumerConfig {
        group_id: values.text(file, "group.id"),
        topics: topics(values),
        offset_reset: offset_reset(values),
        isolation: match values.text(file, "isolation.level").as_str() {
            "read_uncommitted" => Isolation::ReadUncommitted,
            _ => Isolation::ReadCommitted,
        },
        assignors: assignors(values),
        session_timeout,
        heartbeat_interval,
        drain_timeout,
        fetch_max_bytes: values.size(file, "fetch.max.bytes"),
        max_partition_fetch_bytes: values.size(file, "max.partition.fetch.bytes"),
        fetch_min_bytes: values.size(file, "fetch.min.bytes"),
        fetch_max_wait,
        request_timeout: connection.request_timeout,
        check_crcs: values.flag(file, "check.crcs"),
        rack: connection.rack.clone(),
    }
}

/// The topics; `test1` is one only if somebody wrote it down.
fn topics(values: &mut Values) -> Vec<String> {
    let (file, name) = (File::Consumer, "topic");
    let topics = values.optional_list(file, name).unwrap_or_default();
    if topics == ["test1"] && !values.given(file, name) {
        return Vec::new();
    }
    topics
}

fn offset_reset(values: &mut Values) -> OffsetReset {
    let (file, name) = (File::Consumer, "auto.offset.reset");
    match values.text(file, name).trim().to_ascii_lowercase().as_str() {
        "earliest" => return OffsetReset::Earliest,
        "latest" => return OffsetReset::Latest,
        "none" => return OffsetReset::None,
        duration if duration.starts_with("by_duration") => {
            values.fault(file, name, "a reset by duration is not built yet; set earliest, latest or none");
        }
        _ => values.fault(file, name, "must be earliest, latest or none"),
    }
    OffsetReset::Earliest
}

fn assignors(values: &mut Values) -> Vec<Assignor> {
    let (file, name) = (File::Consumer, "partition.assignment.strategy");
    let mut assignors = Vec::new();
    for word in values.list(file, name) {
        let short = word.rsplit('.').next().unwrap_or_default().trim_end_matches("Assignor").to_ascii_lowercase();
        let assignor = match short.replace(['-', '_'], "").as_str() {
            "range" => Assignor::Range,
            "cooperativesticky" => Assignor::CooperativeSticky,
            "roundrobin" | "sticky" => {
                values.fault(file, name, format!("{word:?} is not built yet; there are cooperative-sticky and range"));
                continue;
            }
            _ => {
                values.fault(file, name, format!("{word:?} is not known; there are cooperative-sticky and range"));
                continue;
            }
        };
        if !assignors.contains(&assignor) {
            assignors.push(assignor);
        }
    }
    assignors
}

fn backend(values: &mut Values) -> Backend {
    let file = File::Consumer;
    let timeout = values.optional_millis(file, "backendTimeoutMs").unwrap_or_else(|| {
        let timeout = values.millis(file, "instanceTimeoutMs");
        values.derive(file, "backendTimeoutMs", timeout.as_millis());
        timeout
    });
    Backend {
        host: values.text(file, "backendApiHost"),
        path: values.text(file, "backendApiPath"),
        timeout,
        connection_reset: values.flag(file, "backendConnectionReset"),
    }
}

fn dispatch(values: &mut Values) -> Dispatch {
    let file = File::Consumer;
    let max_records = match values.optional_number(file, "batchMaxRecords") {
        Some(_) => values.size(file, "batchMaxRecords"),
        None => {
            let records = values.size(file, "max.poll.records");
            values.derive(file, "batchMaxRecords", records);
            records
        }
    };
    // By default nothing makes a batch wait.
    let min_bytes = values.optional_number(file, "fetchMinBytes").filter(|_| values.given(file, "fetchMinBytes"));
    let min_bytes = min_bytes.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    let waits = min_bytes.is_some() || values.given(file, "requestTimeoutMs");
    let batch_wait = waits.then(|| values.millis(file, "requestTimeoutMs")).filter(|wait| !wait.is_zero());
    let wait_period = values.millis(file, "waitPeriod");
    let retry_delay = values.optional_millis(file, "retryDelayMs").unwrap_or(wait_period);
    values.derive(file, "retryDelayMs", retry_delay.as_millis());
    let ordering = values.text(file, "ordering");
    if ordering != "partition" {
        values.fault(file, "ordering", format!("{ordering:?} is not built yet; set partition"));
    }
    Dispatch {
        max_records,
        max_bytes: values.size(file, "requestMaxBytes"),
        min_bytes,
        batch_wait,
        max_concurrency: values.size(file, "maxConcurrency"),
        max_retries: values.optional_number(file, "maxRetries").and_then(|retries| u32::try_from(retries).ok()),
        retry_delay,
        retry_max_delay: at_least(
            values,
            file,
            "retryMaxDelayMs",
            retry_delay,
            "retryDelayMs (waitPeriod if that is unset)",
        ),
        rollback_threshold: values
            .optional_number(file, "batchRollbackThreshold")
            .and_then(|percent| u8::try_from(percent).ok()),
        wait_period,
    }
}

fn bad_record_policy(values: &mut Values, dead_letters: bool) -> BadRecordPolicy {
    let (file, name) = (File::Consumer, "badRecordPolicy");
    match values.optional_text(file, name).as_deref() {
        Some("skip") => BadRecordPolicy::Skip,
        Some("stop") => BadRecordPolicy::Stop,
        Some(_) => {
            if !dead_letters {
                values.fault(file, name, "deadLetter needs deadLetterEnabled: true; set skip or stop");
            }
            BadRecordPolicy::DeadLetter
        }
        None if dead_letters => {
            values.derive(file, name, "deadLetter");
            BadRecordPolicy::DeadLetter
        }
        None => {
            values.derive(file, name, "stop");
            BadRecordPolicy::Stop
        }
    }
}

pub(super) fn admin(values: &mut Values, brokers_of: File) -> Admin {
    let connection = connection(values, File::Admin, brokers_of);
    Admin {
        health_timeout: connection.request_timeout,
        connection: Connection { request_timeout: ADMIN_REQUEST_TIMEOUT, ..connection },
    }
}

/// `brokers_of`: the file whose bootstrap.servers count for this one.
fn connection(values: &mut Values, file: File, brokers_of: File) -> Connection {
    let retry_backoff = values.millis(file, "retry.backoff.ms");
    let reconnect_backoff = values.millis(file, "reconnect.backoff.ms");
    Connection {
        bootstrap_servers: values.list(file, "bootstrap.servers"),
        client_id: values.text(file, "client.id"),
        rack: values.optional_text(file, "client.rack"),
        request_timeout: values.millis(file, "request.timeout.ms"),
        metadata_max_age: values.millis(file, "metadata.max.age.ms"),
        connect_timeout: values.millis(file, "socket.connection.setup.timeout.ms"),
        retry_backoff,
        retry_backoff_max: at_least(values, file, "retry.backoff.max.ms", retry_backoff, "retry.backoff.ms"),
        reconnect_backoff,
        reconnect_backoff_max: at_least(
            values,
            file,
            "reconnect.backoff.max.ms",
            reconnect_backoff,
            "reconnect.backoff.ms",
        ),
        security: kafka_security(values, file, brokers_of),
    }
}

/// The longest of growing pauses: one that is shorter than the first is a fault where it is given, else it follows the first.
fn at_least(values: &mut Values, file: File, name: &'static str, first: Duration, first_name: &str) -> Duration {
    let longest = values.millis(file, name);
    if longest >= first {
        return longest;
    }
    if values.given(file, name) {
        values.fault(file, name, format!("must be at least {first_name}, {}", first.as_millis()));
    } else {
        values.derive(file, name, first.as_millis());
    }
    first
}

fn format(values: &mut Values, file: File, name: &'static str, default: Format) -> Format {
    let Some(format) = values.optional_format(file, name) else {
        values.derive(file, name, format!("{default:?}").to_ascii_lowercase());
        return default;
    };
    if let Format::Avro | Format::JsonSchema | Format::Protobuf = format {
        let word = format!("{format:?}").to_ascii_lowercase();
        let text = format!("{word} needs a schema registry, whose client is not built yet; set binary, json or string");
        values.fault(file, name, text);
    }
    format
}

fn audit(values: &mut Values, file: File) -> Audit {
    Audit {
        enabled: values.flag(file, "auditEnabled"),
        target: if values.text(file, "auditTarget") == "logfile" { AuditTarget::LogFile } else { AuditTarget::Topic },
        topic: values.text(file, "auditTopic"),
        file: PathBuf::from(values.text(file, "auditFile")),
        file_max_bytes: values.size(file, "auditFileMaxBytes") as u64,
        file_max_history: values.size(file, "auditFileMaxHistory"),
    }
}
