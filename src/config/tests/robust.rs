//! Effective values, secrets, and inputs that nobody would write.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{super::property::File, *};

#[test]
fn a_trust_store_is_found_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("client.truststore"), "x").unwrap();
    std::fs::write(directory.path().join("ca.pem"), "x").unwrap();
    let load_with = |set: &[(&str, &str)]| {
        load(Sources { config_dirs: vec![directory.path().to_owned()], ..sources(&[], &[], set) })
    };
    let topic = ("kafka-consumer.topic", "t");
    let client = load_with(&[topic]).unwrap().settings.client;
    assert_eq!(client.trust_store, Some(directory.path().join("client.truststore")));
    assert_eq!(client.trust_store_password.unwrap().reveal(), "password");
    let client =
        load_with(&[topic, ("client.caFile", "ca.pem"), ("client.trustStorePass", "")]).unwrap().settings.client;
    assert_eq!((client.ca_file, client.trust_store_password), (Some(directory.path().join("ca.pem")), None));
    assert!(load_with(&[topic, ("client.caFile", "cb.pem")]).is_err());
    assert!(load(sources(&[], &[], &[topic, ("client.loadDefaultTrustStore", "true")])).is_ok());
}

#[test]
fn effective_values_show_their_origin_and_no_secret() {
    let loaded = load(sources(
        &[("values.yml", "client.trustStorePass: hush1\nkafka-producer.basic.auth.user.info: me:hush2\nkafka-producer.security.protocol: PLAINTEXT\n"), ("server.yml", "serviceId: a b")],
        &[("KAFKA_PRODUCER_PASSWORD", "hush3"), ("KAFKA_CONSUMER_GROUP_ID", "g")],
        &[("server.keystorePass", "hush4")],
    ))
    .unwrap();
    let text = render_effective(&loaded);
    assert!(!text.contains("hush") && !format!("{loaded:?}").contains("hush"), "{text}");
    for line in [
        "kafka-producer.password: \"******\"  # environment KAFKA_PRODUCER_PASSWORD",
        "client.trustStorePass: \"******\"  # values.yml:1",
        "kafka-producer.basic.auth.user.info: \"******\"  # values.yml:2",
        "server.keystorePass: \"******\"  # --set",
        "server.serviceId: \"a b\"  # server.yml:1",
        "kafka-consumer.group.id: g  # environment KAFKA_CONSUMER_GROUP_ID",
        "kafka-consumer.maxRetries:  # default",
        "health.downstreamHost: https://localhost:8444  # default",
        "kafka-producer.keyFormat: string  # default",
    ] {
        let squeezed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let wanted = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(&wanted), "{wanted} in\n{text}");
    }
    assert!(!text.contains("max.poll.interval.ms"));
}

#[test]
fn effective_values_can_be_loaded_again() {
    let first = values(
        "kafka-consumer.topic: a,b\nkafka-consumer.backendApiHost: http://a:1\nkafka-producer.copiedHeaders: [x-a, x-b]\nclient.trustStorePass:\n",
    );
    let text: String = render_effective(&first)
        .lines()
        .filter(|line| {
            !line.contains("****")
                && !line.starts_with("kafka-consumer.requestTimeoutMs")
                && !line.starts_with("client.trustStore:")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let second = load(sources(&[("values.yml", &text)], &[], &[])).unwrap();
    let ours = |settings: &Settings| {
        let mut settings = settings.clone();
        settings.sidecar.probes_explicit = true;
        format!("{settings:?}")
    };
    assert_eq!(ours(&first.settings), ours(&second.settings));
    assert_eq!(second.warnings, Vec::<String>::new());
}

/// Keys that exist and values that are odd, so that more than the YAML reader is reached.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<String> = File::ALL
        .into_iter()
        .flat_map(|file| file.properties().map(move |property| format!("{}.{}", file.name(), property.name)))
        .collect();
    let odd = prop_oneof![
        Just("${a:${b}}".to_owned()),
        Just("'${kafka-producer.acks}'".to_owned()),
        Just("[1, {a: '${x:}'}]".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("-1".to_owned()),
        "\\PC{0,12}",
        "[a-z0-9:/.,${}@-]{0,20}",
    ];
    (proptest::sample::select(keys), odd).prop_map(|(key, value)| format!("{key}: {value}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), name in 0usize..10) {
        let name = File::ALL.get(name).map_or("values", |file| file.name());
        let files = BTreeMap::from([(format!("{name}.yml"), bytes)]);
        drop(load(Sources { files, ..Sources::default() }));
    }

    #[test]
    fn arbitrary_yaml_never_panics(text in "[a-z:{}\\[\\]$&*!?|>%@`'\"#, \n\t-]{0,120}", name in 0usize..10) {
        let name = File::ALL.get(name).map_or("values", |file| file.name());
        drop(load(sources(&[(&format!("{name}.yml"), &text)], &[], &[])));
    }

    #[test]
    fn arbitrary_values_never_panic(lines in proptest::collection::vec(line(), 0..8)) {
        drop(load(sources(&[("values.yml", &lines.concat())], &[], &[])));
    }

    #[test]
    fn credentials_survive_the_environment_and_set(secret in "\\PC{1,40}") {
        prop_assume!(!secret.starts_with("CRYPT:"));
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("client.truststore"), "x").unwrap();
        for (env, set) in [(&[("CLIENT_TRUSTSTOREPASS", secret.as_str())][..], &[][..]), (&[], &[("client.trustStorePass", secret.as_str())])] {
            let loaded = load(Sources { config_dirs: vec![directory.path().to_owned()], ..sources(&[], env, set) }).unwrap();
            let found = loaded.settings.client.trust_store_password.unwrap();
            prop_assert_eq!(found.reveal(), &secret);
        }
    }
}
