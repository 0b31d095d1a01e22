//! The configuration as a whole: defaults and precedence; what is refused and what must survive stands beside.

mod refused;
mod robust;
mod security;

use std::{net::SocketAddr, time::Duration};

use protocol::{
    consumer::{Assignor, Isolation, OffsetReset},
    producer::Acks,
    record::Compression,
};

use super::{
    property::{File, Kind, Status},
    settings::{AuditTarget, BadRecordPolicy, Format},
    *,
};

fn sources(files: &[(&str, &str)], env: &[(&str, &str)], set: &[(&str, &str)]) -> Sources {
    Sources {
        files: files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        set: set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Sources::default()
    }
}

#[track_caller]
fn values(text: &str) -> Loaded {
    load(sources(&[("values.yml", text)], &[], &[])).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn settings(text: &str) -> Settings {
    values(text).settings
}

fn faults(sources: Sources) -> Vec<String> {
    load(sources).err().map(|error| error.faults.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// The faults of a values.yml, which must be exactly these.
#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    assert_eq!(faults(sources(&[("values.yml", text)], &[], &[])), expected, "{text}");
}

#[test]
fn without_any_file_the_defaults_count() {
    let loaded = load(Sources::default()).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let Settings { parts, server, producer, consumer, admin, health, client, sidecar, logging } = loaded.settings;
    assert_eq!((parts.producer, parts.reactive, parts.admin), (true, false, true));

    assert_eq!(server.http, "127.0.0.1:8080".parse::<SocketAddr>().unwrap());
    assert_eq!((server.max_body_bytes, server.graceful_period), (1_000_000, None));
    assert_eq!(server.service_id, "com.networknt.kafka-sidecar-1.0.0");

    assert_eq!(producer.connection.bootstrap_servers, ["localhost:9092"]);
    assert_eq!(producer.connection.rack, None);
    assert_eq!(producer.connection.request_timeout, Duration::from_secs(30));
    assert_eq!(producer.connection.metadata_max_age, Duration::from_secs(300));
    assert_eq!(producer.connection.connect_timeout, Duration::from_secs(10));
    assert_eq!((producer.key_format, producer.value_format), (Format::String, Format::Json));
    assert_eq!((producer.inject_caller_id, producer.compatible_status), (false, false));
    assert_eq!(producer.copied_headers, Vec::<String>::new());
    let shipped = format!("{:?}", producer.kafka);
    assert_eq!(shipped, format!("{:?}", protocol::producer::ProducerConfig::default()));
    assert_eq!((producer.audit.enabled, producer.audit.target), (true, AuditTarget::Topic));
    assert_eq!(producer.audit.topic, "sidecar-audit");
    assert_eq!(producer.audit.file, PathBuf::from("log/sidecar-audit.log"));
    assert_eq!((producer.audit.file_max_bytes, producer.audit.file_max_history), (200 * 1024 * 1024, 5));

    let expected = protocol::consumer::ConsumerConfig { group_id: "group1".into(), ..Default::default() };
    assert_eq!(format!("{:?}", consumer.kafka), format!("{expected:?}"));
    assert_eq!(consumer.kafka.isolation, Isolation::ReadCommitted);
    assert_eq!((consumer.key_format, consumer.value_format), (Format::String, Format::Json));
    assert_eq!(consumer.backend.host, "https://localhost:8444");
    assert_eq!(consumer.backend.path, "/kafka/records");
    assert_eq!(consumer.backend.timeout, Duration::from_secs(300));
    assert!(!consumer.backend.connection_reset);
    assert_eq!((consumer.dispatch.max_records, consumer.dispatch.max_bytes), (100, 204_800));
    assert_eq!((consumer.dispatch.min_bytes, consumer.dispatch.batch_wait), (None, None));
    assert_eq!((consumer.dispatch.max_concurrency, consumer.dispatch.max_retries), (32, None));
    assert_eq!(consumer.dispatch.retry_delay, Duration::from_millis(100));
    assert_eq!(consumer.dispatch.retry_max_delay, Duration::from_secs(2));
    assert_eq!(consumer.dispatch.rollback_threshold, None);
    assert_eq!(consumer.dispatch.wait_period, Duration::from_millis(100));
    assert_eq!(consumer.bad_record_policy, BadRecordPolicy::DeadLetter);
    assert_eq!(consumer.drain_timeout, Duration::from_secs(25));
    assert!(consumer.dead_letter.enabled && consumer.dead_letter.create_topic);
    assert_eq!(consumer.dead_letter.topic_ext, ".dlq");

    assert_eq!(admin.health_timeout, Duration::from_millis(200));
    assert_eq!(admin.connection.request_timeout, Duration::from_secs(30));
    assert_eq!(admin.connection.metadata_max_age, Duration::from_secs(5));

    assert_eq!((health.enabled, health.use_json, health.downstream_enabled), (true, false, false));
    assert_eq!(health.timeout, Duration::from_millis(500));
    assert_eq!(
        (health.downstream_host.as_str(), health.downstream_path.as_str()),
        ("https://localhost:8444", "/health")
    );

    assert!(client.verify_hostname && client.http2 && !client.load_default_trust_store);
    assert_eq!((client.ca_file, client.trust_store, client.trust_store_password), (None, None, None));
    assert_eq!(client.connect_timeout, Duration::from_secs(2));

    assert_eq!(sidecar.probes, Some("0.0.0.0:9404".parse().unwrap()));
    assert!(!sidecar.probes_explicit);
    assert_eq!(sidecar.memory_budget, 24 * 1024 * 1024);
    assert_eq!((sidecar.max_connections, sidecar.max_requests_in_flight), (1024, 256));
    assert_eq!(sidecar.readiness_grace, Duration::from_secs(30));
    assert_eq!((sidecar.header_timeout, sidecar.body_timeout), (Duration::from_secs(10), Duration::from_secs(30)));
    assert_eq!((sidecar.max_records_per_request, sidecar.max_header_bytes), (10_000, 32_768));
    assert_eq!((logging.filter.as_str(), logging.json), ("info", false));
}

#[test]
fn every_used_property_is_shipped_as_its_own_placeholder_and_nothing_else_is() {
    for file in File::ALL {
        let text = file.shipped();
        for property in file.properties() {
            let line = format!("{}: ${{{}.{}:", property.name, file.name(), property.name);
            // The Java sidecar's files know the password by a variable only.
            let variable = format!("password: ${{{}_PASSWORD:", file.name().to_ascii_uppercase().replace('-', "_"));
            let shipped = text.contains(&line) || (property.name == "password" && text.contains(&variable));
            assert_eq!(shipped, property.status == Status::Used, "{}.{}", file.name(), property.name);
        }
        let used = file.properties().filter(|property| property.status == Status::Used).count();
        assert_eq!(text.matches("${").count(), used, "{}", file.name());
    }
}

#[test]
fn every_property_is_explained_in_its_file() {
    for file in File::ALL {
        let mut explained = false;
        for line in file.shipped().lines().map(str::trim) {
            explained = line.starts_with('#') || (explained && line.contains("${"));
            assert!(!line.contains("${") || explained, "{}: {line}", file.name());
        }
    }
}

#[test]
fn what_holds_where_a_property_has_no_default_is_said_above_it() {
    for file in File::ALL {
        let mut said = String::new();
        for line in file.shipped().lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix('#') {
                said.push_str(comment);
            } else if line.ends_with(":}") {
                let words = ["nset", "by default", "when nothing is set", "without effect"];
                assert!(words.iter().any(|word| said.contains(word)), "{}: {line} below {said}", file.name());
            } else {
                said.clear();
            }
        }
    }
}

#[test]
fn the_table_has_every_key_of_the_consumer_s_file() {
    let table = include_str!("../../config/README.md");
    let own = super::table::CONSUMER.iter().chain(super::table::CONSUMER_KAFKA).map(|property| property.name);
    let old = [
        "bootstrap.servers",
        "schema.registry.url",
        "schema.registry.auto.register.schemas",
        "schema.registry.ssl.truststore.location",
        "schema.registry.ssl.truststore.password",
        "security.protocol",
        "sasl.mechanism",
        "sasl.jaas.config",
        "ssl.endpoint.identification.algorithm",
        "ssl.truststore.location",
        "ssl.truststore.password",
        "client.rack",
        "basic.auth.user.info",
        "basic.auth.credentials.source",
        "key.deserializer",
        "value.deserializer",
    ];
    for name in own.chain(old).filter(|name| !name.starts_with("internal.")) {
        assert!(table.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{name}`"))), "{name}");
    }
}

#[test]
fn the_example_is_all_comments_and_true_when_they_are_taken_away() {
    let example = include_str!("../../config/values.yml");
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')));
    // Settings begin with a small letter or stand indented; prose does not.
    let setting =
        |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == ' ') && line.contains([':', '-']);
    let bare: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(setting).collect();
    let bare = bare.join("\n");
    let loaded = values(&bare);
    assert!(loaded.settings.parts.reactive, "{bare}");
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_values_of_the_users_page_work() {
    let settings = settings(
        "kafka-producer.keyFormat: binary\nkafka-producer.valueFormat: string\n\nkafka-consumer.keyFormat: binary\nkafka-consumer.valueFormat: string\n",
    );
    assert_eq!((settings.producer.key_format, settings.producer.value_format), (Format::Binary, Format::String));
    assert_eq!((settings.consumer.key_format, settings.consumer.value_format), (Format::Binary, Format::String));
}

#[test]
fn the_files_of_the_users_page_work() {
    let producer = "# Default key format if no schema for the topic key\nkeyFormat: ${kafka-producer.keyFormat:string}\n\
                    # Default value format if no schema for the topic value\nvalueFormat: ${kafka-producer.valueFormat:binary}\n";
    let consumer = "\ntopic: ${kafka-consumer.topic:test6}\n# the format of the key optional\nkeyFormat: ${kafka-consumer.keyFormat:string}\n\
                    # the format of the value optional\nvalueFormat: ${kafka-consumer.valueFormat:binary}\n\
                    backendApiHost: http://localhost:3000\nrequestMaxBytes: ${kafka-consumer.requestMaxBytes:204800}\n\
                    properties:\n  fetch.max.bytes: ${kafka-consumer.fetch.max.bytes:102400}\n  max.poll.records: ${kafka-consumer.max.poll.records:100}\n  max.partition.fetch.bytes: ${kafka-consumer.max.partition.fetch.bytes:102400}\n";
    let settings = load(sources(&[("kafka-producer.yml", producer), ("kafka-consumer.yml", consumer)], &[], &[]))
        .unwrap()
        .settings;
    assert_eq!((settings.producer.key_format, settings.producer.value_format), (Format::String, Format::Binary));
    assert_eq!((settings.consumer.key_format, settings.consumer.value_format), (Format::String, Format::Binary));
    assert_eq!(settings.consumer.kafka.topics, ["test6"]);
    assert!(settings.parts.reactive);
}

#[test]
fn flat_keys_reach_every_property() {
    let settings = settings(
        "
kafka-producer.bootstrap.servers: a:1, b:2
kafka-producer.linger.ms: 5
kafka-producer.acks: 1
kafka-producer.enable.idempotence: false
kafka-producer.compression.type: ZSTD
kafka-producer.retries: 3
kafka-producer.copiedHeaders: [X-One, x-two]
kafka-consumer.topic: orders, payments
kafka-consumer.max.poll.records: 7
kafka-consumer.auto.offset.reset: latest
kafka-consumer.isolation.level: read_uncommitted
kafka-consumer.partition.assignment.strategy: org.apache.kafka.clients.consumer.RangeAssignor
kafka-consumer.backendApiHost: http://localhost:3000/
kafka-consumer.fetchMinBytes: 10
kafka-consumer.batchRollbackThreshold: 30
kafka-consumer.maxRetries: 3
kafka-consumer.retryDelayMs: 1000
kafka-consumer.badRecordPolicy: skip
kafka-consumer.auditTarget: logfile
kafka-admin.request.timeout.ms: 400
server.shutdownGracefulPeriod: 2000
health.timeout: 2000
client.verifyHostname: false
client.enableHttp2: true
sidecar.logLevel: DEBUG
sidecar.logFormat: json
sidecar.probesPort: 0
",
    );
    assert_eq!(settings.producer.connection.bootstrap_servers, ["a:1", "b:2"]);
    assert_eq!(settings.producer.kafka.linger, Duration::from_millis(5));
    assert_eq!((settings.producer.kafka.acks, settings.producer.kafka.idempotence), (Acks::Leader, false));
    assert_eq!(settings.producer.kafka.compression, Compression::Zstd);
    assert_eq!(settings.producer.kafka.retries, Some(3));
    assert_eq!(settings.producer.copied_headers, ["x-one", "x-two"]);
    assert_eq!(settings.consumer.kafka.topics, ["orders", "payments"]);
    assert_eq!(settings.consumer.kafka.offset_reset, OffsetReset::Latest);
    assert_eq!(settings.consumer.kafka.isolation, Isolation::ReadUncommitted);
    assert_eq!(settings.consumer.kafka.assignors, [Assignor::Range]);
    assert_eq!(settings.consumer.backend.host, "http://localhost:3000");
    assert_eq!(settings.health.downstream_host, "http://localhost:3000");
    let dispatch = &settings.consumer.dispatch;
    assert_eq!((dispatch.max_records, dispatch.min_bytes), (7, Some(10)));
    assert_eq!(dispatch.batch_wait, Some(Duration::from_secs(1)));
    assert_eq!((dispatch.rollback_threshold, dispatch.max_retries), (Some(30), Some(3)));
    assert_eq!(dispatch.retry_delay, Duration::from_secs(1));
    assert_eq!(settings.consumer.bad_record_policy, BadRecordPolicy::Skip);
    assert_eq!(settings.consumer.audit.target, AuditTarget::LogFile);
    assert_eq!(settings.admin.health_timeout, Duration::from_millis(400));
    assert_eq!(settings.admin.connection.request_timeout, Duration::from_secs(30));
    assert_eq!(settings.server.graceful_period, Some(Duration::from_secs(2)));
    assert_eq!(settings.health.timeout, Duration::from_secs(2));
    assert!(!settings.client.verify_hostname && settings.parts.reactive);
    assert_eq!((settings.logging.filter.as_str(), settings.logging.json), ("debug", true));
    assert_eq!(settings.sidecar.probes, None);
}

#[test]
fn set_is_above_the_file_and_the_environment_above_values() {
    let linger = |files: &[(&str, &str)], env: &[(&str, &str)], set: &[(&str, &str)]| {
        let loaded = load(sources(files, env, set)).unwrap();
        let entry = loaded.entries.iter().find(|entry| entry.key == "kafka-producer.linger.ms").unwrap();
        assert_eq!(entry.value, loaded.settings.producer.kafka.linger.as_millis().to_string());
        (entry.value.clone(), entry.origin.to_string(), loaded.warnings.len())
    };
    let file = ("kafka-producer.yml", "properties:\n  linger.ms: ${kafka-producer.linger.ms:2}");
    let literal = ("kafka-producer.yml", "properties:\n  linger.ms: 2");
    let extra = ("kafka-producer.yml", "properties:\n  linger.ms: 2\nadditionalKafkaProperties:\n  linger.ms: 9");
    let given = ("values.yml", "# flat\nkafka-producer.linger.ms: 3");
    let env = ("KAFKA_PRODUCER_LINGER_MS", "4");
    let set = ("kafka-producer.linger.ms", "5");
    for (files, env, set, value, origin, warnings) in [
        (&[][..], &[][..], &[][..], "1", "default", 0),
        (&[file], &[], &[], "2", "kafka-producer.yml:2", 0),
        (&[file, given], &[], &[], "3", "values.yml:2", 0),
        (&[given], &[], &[], "3", "values.yml:2", 0),
        (&[file, given], &[env], &[], "4", "environment KAFKA_PRODUCER_LINGER_MS", 0),
        (&[file, given], &[env], &[set], "5", "--set", 0),
        (&[literal], &[], &[], "2", "kafka-producer.yml:2", 0),
        // As before, only placeholders are filled: what stands in a file counts, and the rest is said.
        (&[literal, given], &[env], &[], "2", "kafka-producer.yml:2", 1),
        (&[literal, given], &[env], &[set], "5", "--set", 0),
        (&[extra], &[], &[], "9", "kafka-producer.yml:4", 0),
    ] {
        assert_eq!(
            linger(files, env, set),
            (value.to_owned(), origin.to_owned(), warnings),
            "{files:?} {env:?} {set:?}"
        );
    }
}

#[test]
fn additional_properties_count_like_properties() {
    for (files, env) in [
        (&[("values.yml", "kafka-producer.additionalKafkaProperties: {linger.ms: 9, max.block.ms: 1}")][..], &[][..]),
        (&[("kafka-producer.yml", "additionalKafkaProperties:\n  linger.ms: '${x:9}'\n  max.block.ms: 1")], &[]),
        (&[], &[("KAFKA_PRODUCER_ADDITIONALKAFKAPROPERTIES", "{linger.ms: 9, max.block.ms: 1}")]),
    ] {
        let loaded = load(sources(files, env, &[])).unwrap();
        assert_eq!(loaded.settings.producer.kafka.linger, Duration::from_millis(9));
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].contains("max.block.ms"));
    }
    check_faults(
        "kafka-consumer.additionalKafkaProperties: {lingr.ms: 9, fetch.max.byte: 3, topic: x}",
        &[
            "values.yml:1: kafka-consumer.additionalKafkaProperties.lingr.ms: there is no such property; remove it",
            "values.yml:1: kafka-consumer.additionalKafkaProperties.fetch.max.byte: there is no such property; did you mean fetch.max.bytes?",
            "values.yml:1: kafka-consumer.additionalKafkaProperties.topic: there is no such property; remove it",
        ],
    );
    assert_eq!(faults(sources(&[], &[], &[("kafka-admin.additionalKafkaProperties", "a, b")])).len(), 1);
}

#[test]
fn null_switches_off_or_leaves_the_default() {
    let settings = settings(
        "kafka-consumer.group.id:\nkafka-consumer.batchMaxRecords: ~\nserver.environment: null\nkafka-producer.linger.ms: ''\n",
    );
    assert_eq!(settings.consumer.kafka.group_id, "group1");
    assert_eq!(settings.consumer.dispatch.max_records, 100);
    assert_eq!(settings.producer.kafka.linger, Duration::from_millis(1));
}

#[test]
fn what_copies_of_old_files_have_as_defaults_of_placeholders_is_not_written_down() {
    let producer = "properties:\n  retries: ${kafka-producer.retries:3}\n  enable.idempotence: ${kafka-producer.enable.idempotence:false}\n  \
                    bootstrap.servers: ${kafka-producer.bootstrap.servers:localhost:9092}\nauditTarget: ${kafka-producer.auditTarget:logfile}\n";
    let consumer = "properties:\n  max.partition.fetch.bytes: ${kafka-consumer.max.partition.fetch.bytes:100}\n\
                    topic: ${kafka-consumer.topic:test1}\nrequestMaxBytes: ${kafka-consumer.requestMaxBytes:102400}\n\
                    batchRollbackThreshold: ${kafka-consumer.batchRollbackThreshold:30}\nmaxRetries: ${kafka-consumer.maxRetries:3}\n\
                    retryDelayMs: ${kafka-consumer.retryDelayMs:1000}\nfetchMinBytes: ${kafka-consumer.fetchMinBytes:-1}\n\
                    requestTimeoutMs: ${kafka-consumer.requestTimeoutMs:1000}\nauditTarget: ${kafka-consumer.auditTarget:logfile}\n";
    let health = "timeout: ${health.timeout:2000}\ndownstreamHost: ${health.downstreamHost:http://localhost:8081}\n";
    let server = "shutdownGracefulPeriod: ${server.shutdownGracefulPeriod:2000}\n";
    let copies = [
        ("kafka-producer.yml", producer),
        ("kafka-consumer.yml", consumer),
        ("health.yml", health),
        ("server.yml", server),
    ];
    let shipped = load(Sources::default()).unwrap();
    let copied = load(sources(&copies, &[], &[])).unwrap();
    assert_eq!(format!("{:?}", copied.settings), format!("{:?}", shipped.settings));
    assert_eq!(copied.warnings, Vec::<String>::new());

    let values = "kafka-producer.retries: 3\nkafka-consumer.batchRollbackThreshold: 30\nkafka-consumer.topic: test1\n\
                  kafka-consumer.backendApiHost: http://localhost:1\nhealth.timeout: 2000\nkafka-consumer.auditTarget: logfile\n";
    let written = load(sources(&[&copies[..], &[("values.yml", values)]].concat(), &[], &[])).unwrap().settings;
    assert_eq!(written.producer.kafka.retries, Some(3));
    assert_eq!(written.consumer.dispatch.rollback_threshold, Some(30));
    assert_eq!(written.consumer.kafka.topics, ["test1"]);
    assert_eq!(written.health.timeout, Duration::from_secs(2));
    assert_eq!(written.consumer.audit.target, AuditTarget::LogFile);
}

#[test]
fn one_cluster_serves_all_clients_unless_another_is_named() {
    for (text, expected) in [
        ("kafka-producer.bootstrap.servers: p:1,q:2", ["p:1,q:2", "p:1,q:2", "p:1,q:2"]),
        ("kafka-consumer.bootstrap.servers: c:1", ["c:1", "c:1", "c:1"]),
        ("kafka-admin.bootstrap.servers: a:1", ["a:1", "a:1", "a:1"]),
        (
            "kafka-consumer.bootstrap.servers: c:1\nkafka-producer.bootstrap.servers: localhost:9092",
            ["localhost:9092", "c:1", "localhost:9092"],
        ),
        ("", ["localhost:9092", "localhost:9092", "localhost:9092"]),
    ] {
        let loaded = values(text);
        let Settings { producer, consumer, admin, .. } = &loaded.settings;
        let found = [&producer.connection, &consumer.connection, &admin.connection];
        assert_eq!(found.map(|connection| connection.bootstrap_servers.join(",")), expected, "{text}");
        let shown = ["kafka-producer", "kafka-consumer", "kafka-admin"].map(|file| {
            let key = format!("{file}.bootstrap.servers");
            loaded.entries.iter().find(|entry| entry.key == key).unwrap().value.clone()
        });
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn directories_and_extensions_have_an_order() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |directory: &tempfile::TempDir, name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write(&two, "server.yml", "httpPort: 2");
    write(&two, "health.json", "{\"timeout\": 7}");
    write(&two, "values.yaml", "sidecar.maxConnections: 9");
    write(&two, "client.pem", "a certificate");
    write(&two, "metrics.yml", "enabled: true");
    write(&two, "logback.xml", "<configuration/>");
    write(&one, "server.yaml", "httpPort: 1");
    write(&one, "server.json", "{\"httpPort\": 3}");
    let load_dirs = |dirs: &[&tempfile::TempDir]| {
        load(Sources { config_dirs: dirs.iter().map(|dir| dir.path().to_owned()).collect(), ..Sources::default() })
            .unwrap()
    };
    let loaded = load_dirs(&[&one, &two]);
    assert_eq!(loaded.settings.server.http.port(), 1);
    assert_eq!(loaded.settings.health.timeout, Duration::from_millis(7));
    assert_eq!(loaded.settings.sidecar.max_connections, 9);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("metrics.yml") && loaded.warnings[0].contains("logback.xml"));
    assert!(!loaded.warnings[0].contains("client.pem"));
    assert_eq!(load_dirs(&[&two, &one]).settings.server.http.port(), 2);

    let list = std::env::join_paths([one.path(), two.path()]).unwrap().into_string().unwrap();
    let from_env = |dirs: Vec<PathBuf>| {
        let env = BTreeMap::from([("LIGHT_4J_CONFIG_DIR".to_owned(), list.clone())]);
        load(Sources { config_dirs: dirs, env, ..Sources::default() }).unwrap().settings.server.http.port()
    };
    assert_eq!(from_env(vec![]), 1);
    assert_eq!(from_env(vec![two.path().to_owned()]), 2);

    let gone = one.path().join("gone");
    let text = faults(Sources { config_dirs: vec![gone.clone()], ..Sources::default() });
    assert_eq!(text.len(), 1);
    assert!(
        text[0].starts_with(&format!("{}: this configuration directory cannot be read: ", gone.display())),
        "{text:?}"
    );
}

#[test]
fn a_small_control_group_makes_a_small_budget() {
    let budget = |memory_limit, files: &[(&str, &str)]| {
        load(Sources { memory_limit, ..sources(files, &[], &[]) }).unwrap().settings.sidecar.memory_budget
    };
    assert_eq!(budget(Some(32 << 20), &[]), 16 << 20);
    assert_eq!(budget(Some(32 << 20), &[("values.yml", "sidecar.memoryBudgetBytes: 9000000")]), 9_000_000);
}

#[test]
fn other_machines_may_call_if_it_is_written_down() {
    let settings = settings("server.ip: 0.0.0.0\nsecurity.enableVerifyJwt: false");
    assert_eq!(settings.server.http, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(self::settings("server.ip: '::1'").server.http, "[::1]:8080".parse().unwrap());
}

#[test]
fn copies_of_old_files_do_not_make_batches_wait_or_drains_short() {
    let consumer = "topic: ${kafka-consumer.topic:test1}\nfetchMinBytes: ${kafka-consumer.fetchMinBytes:-1}\nrequestTimeoutMs: ${kafka-consumer.requestTimeoutMs:1000}\n";
    let server = "shutdownGracefulPeriod: ${server.shutdownGracefulPeriod:2000}\n";
    let loaded = load(sources(&[("kafka-consumer.yml", consumer), ("server.yml", server)], &[], &[])).unwrap();
    assert_eq!(loaded.settings.consumer.dispatch.batch_wait, None);
    assert_eq!(loaded.settings.server.graceful_period, None);
    assert!(!loaded.settings.parts.reactive);
    let written = settings(
        "kafka-consumer.requestTimeoutMs: 1000\nkafka-consumer.topic: test1\nkafka-consumer.backendApiHost: http://a",
    );
    assert_eq!(written.consumer.dispatch.batch_wait, Some(Duration::from_secs(1)));
    assert_eq!(written.consumer.kafka.topics, ["test1"]);
}

#[test]
fn nobody_but_maps_and_idle_properties_goes_unchecked() {
    for file in File::ALL {
        for property in file.properties().filter(|property| property.status == Status::Used) {
            assert!(property.kind != Kind::Any, "{}.{}", file.name(), property.name);
        }
    }
}
