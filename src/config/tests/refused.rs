//! What every fault and warning says, and what is none.

use std::time::Duration;

use super::{super::settings::BadRecordPolicy, *};

#[test]
fn all_faults_come_at_once() {
    let sources = sources(
        &[
            ("kafka-producer.yml", "properties:\n  lingr.ms: 1\n  acks: 2\nlinger.ms: 1\nkafka-producer.acks: 1\n"),
            ("kafka-consumer.yml", "properties:\n  topic: a\nkeyformat: json\n"),
            ("server.yml", "just text"),
            ("values.yml", "kafka-consumer.waitPeriod: soon\nhealth.timeout: [1]\n"),
        ],
        &[("SERVER_HTTPPORT", "99999")],
        &[("kafka-producer.retries", "x"), ("kafka-producer.retris", "3"), ("nonsense", "1")],
    );
    assert_eq!(
        faults(sources),
        [
            "kafka-producer.yml:2: kafka-producer.lingr.ms: there is no such property; did you mean linger.ms?",
            "kafka-producer.yml:4: kafka-producer.linger.ms: belongs under `properties:`",
            "kafka-producer.yml:5: kafka-producer.acks: write `acks` here; the key with the file's name belongs into values.yml",
            "kafka-consumer.yml:2: kafka-consumer.topic: belongs at the top of kafka-consumer.yml",
            "kafka-consumer.yml:3: kafka-consumer.keyformat: there is no such property; did you mean keyFormat?",
            "server.yml:1: server: must hold keys and their values",
            "--set: kafka-producer.retris: there is no such key; did you mean kafka-producer.retries?",
            "--set: nonsense: there is no such key; keys are <file>.<property>, as in the shipped files",
            "kafka-producer.yml:3: kafka-producer.acks: must be all, -1, 0 or 1, but is \"2\"",
            "--set: kafka-producer.retries: must be a whole number from 0 to 2147483647, but is \"x\"",
            "values.yml:1: kafka-consumer.waitPeriod: must be a whole number of milliseconds from 1 to 3600000, but is \"soon\"",
            "environment SERVER_HTTPPORT: server.httpPort: must be a whole number from 0 to 65535, but is \"99999\"",
            "values.yml:2: health.timeout: must be a single value, not a list or a map",
        ]
    );
}

#[test]
fn what_is_not_built_yet_is_refused() {
    let formats = |key: &str, format: &str| {
        format!(
            "values.yml:1: {key}: {format} needs a schema registry, whose client is not built yet; set binary, json or string"
        )
    };
    check_faults("kafka-producer.valueFormat: jsonschema", &[&formats("kafka-producer.valueFormat", "jsonschema")]);
    check_faults("kafka-consumer.keyFormat: 2", &[&formats("kafka-consumer.keyFormat", "avro")]);
    let registry =
        "the client of the schema registry is not built yet; remove it and use the formats binary, json and string";
    for (text, key, expected) in [
        ("kafka-producer.schema.registry.url: http://localhost:8081", "kafka-producer.schema.registry.url", registry.to_owned()),
        ("kafka-producer.transactional.id: T1000", "kafka-producer.transactional.id", "needs a part that is not built yet (transactions); remove it".to_owned()),
        ("kafka-consumer.group.instance.id: i", "kafka-consumer.group.instance.id", "needs a part that is not built yet (static group membership); remove it".to_owned()),
        ("kafka-consumer.group.protocol: consumer", "kafka-consumer.group.protocol", "the protocol `consumer` is not built yet; set classic".to_owned()),
        ("kafka-consumer.ordering: key", "kafka-consumer.ordering", "\"key\" is not built yet; set partition".to_owned()),
        (
            "kafka-consumer.partition.assignment.strategy: range,sticky",
            "kafka-consumer.partition.assignment.strategy",
            "\"sticky\" is not built yet; there are cooperative-sticky and range".to_owned(),
        ),
        ("kafka-consumer.auto.offset.reset: by_duration:P1D", "kafka-consumer.auto.offset.reset", "a reset by duration is not built yet; set earliest, latest or none".to_owned()),
        ("kafka-producer.compression.zstd.level: 3", "kafka-producer.compression.zstd.level", "needs a part that is not built yet (the choice of a compression level); remove it".to_owned()),
        ("server.enableHttps: true", "server.enableHttps", "the HTTPS listener is not built yet; remove it, or set server.enableHttps: false".to_owned()),
        ("server.keystoreName: my.p12", "server.keystoreName", "the HTTPS listener is not built yet; remove it, or set server.enableHttps: false".to_owned()),
        (
            "security.enableVerifyJwt: true",
            "security.enableVerifyJwt",
            "the verification of tokens is not built yet; set it to false, which lets everybody call who reaches the listener".to_owned(),
        ),
        (
            "security.certificate: 1=a.crt",
            "security.certificate",
            "the verification of tokens is not built yet; remove it, or set security.enableVerifyJwt: false".to_owned(),
        ),
        ("sidecar.adminPort: 8081", "sidecar.adminPort", "needs a part that is not built yet (a control listener of its own); remove it".to_owned()),
        ("client.loadKeyStore: true", "client.loadKeyStore", "needs a part that is not built yet (a client certificate for the backend); remove it".to_owned()),
    ] {
        check_faults(text, &[&format!("values.yml:1: {key}: {expected}")]);
    }
}

#[test]
fn what_asks_for_nothing_is_not_refused() {
    let loaded = values(
        "
kafka-producer.security.protocol: PLAINTEXT
kafka-producer.ssl.truststore.location: /t.jks
kafka-consumer.sasl.mechanism: PLAIN
kafka-consumer.sasl.jaas.config: 'org.apache.kafka.common.security.plain.PlainLoginModule required username=\"username\" password=\"password\";'
kafka-consumer.ssl.endpoint.identification.algorithm: algo-name
kafka-consumer.ssl.truststore.location: /config/client.truststore
kafka-consumer.client.rack: rack-name
kafka-producer.basic.auth.user.info: username:password
kafka-admin.username: username
server.enableHttps: false
server.keystoreName: my.p12
server.enableTwoWayTls: false
security.enableVerifyJwt: false
security.certificate: 1=a.crt
",
    );
    assert_eq!(loaded.settings.consumer.connection.rack, None);
    assert_eq!(
        loaded.warnings,
        ["without effect here: server.keystoreName (server.enableHttps is false), \
          security.certificate (security.enableVerifyJwt is false), \
          kafka-producer.ssl.truststore.location (security.protocol is PLAINTEXT)"]
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let reactive = "kafka-consumer.topic: t\nkafka-consumer.backendApiHost: ";
    for (text, expected) in [
        (
            "kafka-producer.enable.idempotence: true\nkafka-producer.acks: 1\nkafka-producer.max.in.flight.requests.per.connection: 6",
            "values.yml:1: kafka-producer.enable.idempotence: needs acks: all and max.in.flight.requests.per.connection of at most 5; change that or set it to false",
        ),
        (
            "kafka-producer.delivery.timeout.ms: 1000",
            "values.yml:1: kafka-producer.delivery.timeout.ms: must be at least linger.ms plus request.timeout.ms, 30001",
        ),
        (
            "kafka-consumer.heartbeat.interval.ms: 45000",
            "values.yml:1: kafka-consumer.heartbeat.interval.ms: must be less than session.timeout.ms, at best a third of it",
        ),
        (
            "kafka-consumer.fetch.max.wait.ms: 30000",
            "values.yml:1: kafka-consumer.fetch.max.wait.ms: must be less than request.timeout.ms",
        ),
        (
            "kafka-admin.retry.backoff.max.ms: 50",
            "values.yml:1: kafka-admin.retry.backoff.max.ms: must be at least retry.backoff.ms, 100",
        ),
        (
            "kafka-consumer.badRecordPolicy: deadLetter\nkafka-consumer.deadLetterEnabled: false",
            "values.yml:1: kafka-consumer.badRecordPolicy: deadLetter needs deadLetterEnabled: true; set skip or stop",
        ),
        (
            "kafka-consumer.deadLetterTopicExt:",
            "values.yml:1: kafka-consumer.deadLetterTopicExt: must not be empty, or set deadLetterEnabled: false",
        ),
        (
            "server.ip: 0.0.0.0",
            "values.yml:1: server.ip: 0.0.0.0 lets other machines call without tokens; if that is meant, set security.enableVerifyJwt: false, else 127.0.0.1",
        ),
        ("server.enableHttp: no", "values.yml:1: server.enableHttp: must be true: HTTP is the only listener so far"),
        (
            "sidecar.probesPort: 8080",
            "values.yml:1: sidecar.probesPort: 0.0.0.0:8080 is taken by the data listener 127.0.0.1:8080; choose another port, or 0 for none",
        ),
        (
            &format!("{reactive}https://localhost:8444"),
            "values.yml:2: kafka-consumer.backendApiHost: https://localhost:8444 is https, and nothing says whom to trust: set client.caFile (PEM), client.trustStore or client.loadDefaultTrustStore: true, or give an http:// address",
        ),
        (
            "kafka-consumer.topic: t",
            "kafka-consumer.backendApiHost: https://localhost:8444 is https, and nothing says whom to trust: set client.caFile (PEM), client.trustStore or client.loadDefaultTrustStore: true, or give an http:// address",
        ),
        (
            &format!("{reactive}http://localhost:8080"),
            "values.yml:2: kafka-consumer.backendApiHost: http://localhost:8080 is the sidecar's own listener; give the address of the backend",
        ),
        (
            &format!("{reactive}https://b\nclient.caFile: /nowhere/ca.pem"),
            "values.yml:3: client.caFile: there is no file /nowhere/ca.pem",
        ),
        (
            "kafka-producer.copiedHeaders: a b",
            "values.yml:1: kafka-producer.copiedHeaders: \"a b\" is no name of an HTTP header",
        ),
    ] {
        check_faults(text, &[expected]);
    }
}

#[test]
fn defaults_give_way_where_they_would_contradict() {
    let loaded = values(
        "kafka-producer.acks: 1\nkafka-producer.request.timeout.ms: 200000\nkafka-consumer.waitPeriod: 5000\nkafka-consumer.deadLetterEnabled: false\n",
    );
    let settings = loaded.settings;
    assert!(!settings.producer.kafka.idempotence);
    assert_eq!(settings.producer.kafka.delivery_timeout, Duration::from_millis(200_001));
    assert_eq!(settings.consumer.dispatch.retry_delay, Duration::from_secs(5));
    assert_eq!(settings.consumer.dispatch.retry_max_delay, Duration::from_secs(5));
    assert_eq!(settings.consumer.bad_record_policy, BadRecordPolicy::Stop);
    assert_eq!(
        loaded.warnings,
        ["kafka-producer.enable.idempotence is off, because it needs acks: all: retries may write a record twice"]
    );
    let effective = |key: &str| loaded.entries.iter().find(|entry| entry.key == key).unwrap().value.clone();
    assert_eq!(effective("kafka-producer.enable.idempotence"), "false");
    assert_eq!(effective("kafka-consumer.badRecordPolicy"), "stop");
    assert_eq!(effective("kafka-consumer.retryDelayMs"), "5000");
    assert_eq!(effective("sidecar.memoryBudgetBytes"), "25165824");
}

#[test]
fn hook_lists_select_the_parts() {
    let key = "service.com.networknt.server.StartupHookProvider";
    let shipped = "
service.com.networknt.server.StartupHookProvider:
  - com.networknt.mesh.kafka.ProducerStartupHook
  - com.networknt.mesh.kafka.KsqldbActiveConsumerStartupHook
  - com.networknt.mesh.kafka.ReactiveConsumerStartupHook
  - com.networknt.mesh.kafka.AdminClientStartupHook
  - com.networknt.mesh.kafka.AuditProducerStartupHook
service.com.networknt.server.ShutdownHookProvider:
  - com.networknt.mesh.kafka.ProducerShutdownHook
  - com.networknt.mesh.kafka.AuditProducerShutdownHook
kafka-consumer.backendApiHost: http://localhost:3000
kafka-consumer.topic: t
";
    let loaded = values(shipped);
    let parts = loaded.settings.parts;
    assert_eq!((parts.producer, parts.reactive, parts.admin), (true, true, true));
    assert_eq!(
        loaded.warnings,
        [
            "hooks without effect: com.networknt.mesh.kafka.KsqldbActiveConsumerStartupHook (the ksqlDB consumer is not built yet)"
        ]
    );
    let loaded = values(&shipped.replace("kafka-consumer.topic: t", ""));
    assert!(!loaded.settings.parts.reactive);
    assert!(loaded.warnings.iter().any(|warning| warning.contains("until kafka-consumer.topic is set")));

    let class = "com.networknt.mesh.kafka.AdminClientStartupHook";
    let service = format!(
        "singletons:\n- com.networknt.registry.URL:\n  - com.networknt.registry.URLImpl\n- com.networknt.server.StartupHookProvider: ${{{key}:- {class}}}\n"
    );
    for (source, expected) in [
        (sources(&[("values.yml", &format!("{key}: []"))], &[], &[]), (false, false, false)),
        (sources(&[], &[], &[(key, class)]), (false, false, true)),
        (sources(&[], &[("SERVICE_COM_NETWORKNT_SERVER_STARTUPHOOKPROVIDER", class)], &[]), (false, false, true)),
        (sources(&[("service.yml", &service)], &[], &[]), (false, false, true)),
        (sources(&[("values.yml", &format!("{key}:"))], &[], &[]), (true, false, true)),
    ] {
        let parts = load(source).unwrap().settings.parts;
        assert_eq!((parts.producer, parts.reactive, parts.admin), expected);
    }
    for hook in [
        "Producer",
        "AuditProducer",
        "ActiveConsumer",
        "ReactiveConsumer",
        "KsqldbActiveConsumer",
        "KsqldbReactiveConsumer",
        "AdminClient",
        "MessageReplayStream",
    ] {
        values(&format!("{key}: [com.networknt.mesh.kafka.{hook}StartupHook]"));
    }
    check_faults(
        &format!("{key}: [com.networknt.mesh.kafka.ProducerStartupHok, Own]"),
        &[
            &format!(
                "values.yml:1: {key}: there is no hook \"com.networknt.mesh.kafka.ProducerStartupHok\"; did you mean com.networknt.mesh.kafka.ProducerStartupHook?"
            ),
            &format!(
                "values.yml:1: {key}: there is no hook \"Own\"; there are ProducerStartupHook, AuditProducerStartupHook, ActiveConsumerStartupHook, ReactiveConsumerStartupHook, KsqldbActiveConsumerStartupHook, KsqldbReactiveConsumerStartupHook, AdminClientStartupHook, MessageReplayStreamStartupHook"
            ),
        ],
    );
}

#[test]
fn what_has_no_effect_is_said_once() {
    let loaded = values(
        "metrics.enabled: true\nkafka-streams.application.id: a\nkafka-producer.lingr.ms: 3\nmy.own: 1\nkafka-producer.keyFormat: ${my.used:json}\nmy.used: string\n\
         kafka-consumer.max.poll.interval.ms: 300000\nkafka-producer.key.serializer: a.b.C\nserver.ioThreads: 4\n",
    );
    assert_eq!(
        loaded.warnings,
        [
            "not known here, without effect: kafka-producer.lingr.ms (values.yml:3; did you mean kafka-producer.linger.ms?), \
             kafka-streams.application.id (values.yml:2), metrics.enabled (values.yml:1), my.own (values.yml:4)",
            "without effect here: kafka-producer.key.serializer (keyFormat and valueFormat decide how bytes are made), \
             kafka-consumer.max.poll.interval.ms (a slow backend never costs the group membership), \
             server.ioThreads (the server manages this by itself)",
        ]
    );
    let loaded =
        load(sources(&[("metrics.yml", ""), ("openapi.yaml", "")], &[], &[("metrics.enabled", "true")])).unwrap();
    assert_eq!(loaded.warnings, ["not known here, without effect: metrics.yml, openapi.yaml, metrics.enabled (--set)"]);
}

#[test]
fn a_variable_that_is_almost_a_setting_of_ours_is_told() {
    let variables = [
        ("KAFKA_PRODUCER_BOOTSTRAP_SERVER", "k:9092"),
        ("SIDECAR_LOGLEVLE", "debug"),
        ("KAFKA_CONSUMER_TOPIC", "orders"),
        ("KAFKA_CONSUMER_BACKENDAPIHOST", "http://localhost:3000"),
        // What Kubernetes sets for services of these names, and what is nobody's.
        ("KAFKA_CONSUMER_PORT", "tcp://10.0.0.1:80"),
        ("KAFKA_PRODUCER_SERVICE_HOST", "10.0.0.1"),
        ("SERVER_PORT", "80"),
        ("HOME", "/"),
    ];
    let loaded = load(sources(&[], &variables, &[])).unwrap();
    assert_eq!(loaded.settings.consumer.kafka.topics, ["orders"]);
    assert_eq!(
        loaded.warnings,
        ["not known here, without effect: KAFKA_PRODUCER_BOOTSTRAP_SERVER (environment; did you mean \
          KAFKA_PRODUCER_BOOTSTRAP_SERVERS?), SIDECAR_LOGLEVLE (environment; did you mean SIDECAR_LOGLEVEL?)"]
    );
}

#[test]
fn no_secret_reaches_a_fault() {
    for text in [
        "kafka-producer.password: CRYPT:hush",
        "client.trustStorePass: [hush]",
        "kafka-consumer.backendApiHost: http://u:hush@h",
        "kafka-admin.sasl.jaas.config: hush",
    ] {
        let faults = faults(sources(&[("values.yml", text)], &[], &[]));
        assert!(!faults.is_empty() && !faults.concat().contains("hush"), "{text}: {faults:?}");
    }
}

#[test]
fn an_error_lists_its_faults_line_by_line() {
    let error = load(sources(&[("values.yml", "kafka-producer.acks: 3\nhealth.timeout: 0")], &[], &[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration has 2 faults:\n  values.yml:1: kafka-producer.acks: must be all, -1, 0 or 1, but is \"3\"\n  \
         values.yml:2: health.timeout: must be a whole number of milliseconds from 1 to 600000, but is \"0\""
    );
}
