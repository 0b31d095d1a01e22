//! `security.protocol`, `ssl.*` and `sasl.*`: what counts, what is refused and what survives.

use protocol::connection::ScramHash;

use super::{
    super::settings::{KafkaSecurity, Place, Sasl, Secret, TokenSource},
    *,
};

fn plain(username: &str, password: &str) -> Option<Sasl> {
    Some(Sasl::Plain { username: username.to_owned(), password: Secret::new(password) })
}

fn of_producer(files: &[(&str, &str)], env: &[(&str, &str)]) -> KafkaSecurity {
    load(sources(files, env, &[])).unwrap().settings.producer.connection.security
}

#[test]
fn nothing_set_means_plaintext_and_a_user_means_sasl_over_tls() {
    assert_eq!(settings("").producer.connection.security, KafkaSecurity::default());
    let env = &[("KAFKA_PRODUCER_USERNAME", "me"), ("KAFKA_PRODUCER_PASSWORD", "secret")];
    let security = of_producer(&[], env);
    assert_eq!(security.sasl, plain("me", "secret"));
    let tls = security.tls.expect("TLS");
    assert!(tls.trust_platform && tls.trust.is_empty() && tls.verify_hostname && tls.identity.is_none());
    // The template of the Java sidecar asks for SASL_SSL by the default of a placeholder, which nobody wrote down.
    let old =
        "properties:\n  security.protocol: ${kafka-producer.security.protocol:SASL_SSL}\n  sasl.mechanism: PLAIN\n";
    assert_eq!(of_producer(&[("kafka-producer.yml", old)], &[]), KafkaSecurity::default());
    assert_eq!(of_producer(&[("kafka-producer.yml", old)], env).sasl, plain("me", "secret"));
}

#[test]
fn a_password_survives_whatever_it_holds() {
    let template = "properties:\n  security.protocol: SASL_PLAINTEXT\n  sasl.jaas.config: 'org.apache.kafka.common.security.plain.PlainLoginModule \
                    required username=\"${kafka-producer.username:username}\" password=\"${KAFKA_PRODUCER_PASSWORD:password}\";'\n";
    for password in [r"a\b", r#"a"b"#, "$1 ${x} $", " spaces ", "a=b;c", r#"\""#, "'", "ü", "}"] {
        let env = &[("KAFKA_PRODUCER_USERNAME", "me"), ("KAFKA_PRODUCER_PASSWORD", password)];
        assert_eq!(of_producer(&[("kafka-producer.yml", template)], env).sasl, plain("me", password), "{password}");
        let keys = "properties:\n  security.protocol: SASL_PLAINTEXT\n  sasl.mechanism: PLAIN\n";
        assert_eq!(of_producer(&[("kafka-producer.yml", keys)], env).sasl, plain("me", password), "{password}");
    }
}

#[test]
fn mechanisms_and_where_their_credentials_stand() {
    let user = "kafka-producer.security.protocol: SASL_PLAINTEXT\n";
    let scram = |hash| Some(Sasl::Scram { hash, username: "me".to_owned(), password: Secret::new("p") });
    for (text, expected) in [
        (
            "kafka-producer.sasl.jaas.config: x.PlainLoginModule required username=\"me\" password=\"p\";",
            plain("me", "p"),
        ),
        (
            "kafka-producer.sasl.mechanism: scram-sha-512\nkafka-producer.sasl.jaas.config: x.ScramLoginModule required username=me password=p;",
            scram(ScramHash::Sha512),
        ),
        (
            "kafka-producer.sasl.mechanism: SCRAM-SHA-256\nkafka-producer.username: me\nkafka-producer.password: p",
            scram(ScramHash::Sha256),
        ),
        (
            "kafka-producer.sasl.jaas.config.module: x.PlainLoginModule\nkafka-producer.sasl.jaas.config.username: me\nkafka-producer.sasl.jaas.config.password: p",
            plain("me", "p"),
        ),
        // A string of its own counts before keys that it was not made from.
        (
            "kafka-producer.username: other\nkafka-producer.password: q\nkafka-producer.sasl.jaas.config: PlainLoginModule required username=\"me\" password=\"p\";",
            plain("me", "p"),
        ),
    ] {
        let security = settings(&format!("{user}{text}")).producer.connection.security;
        assert_eq!((security.sasl, security.tls), (expected, None), "{text}");
    }
}

#[test]
fn oauth_has_a_file_or_an_endpoint() {
    let text = "kafka-consumer.security.protocol: SASL_PLAINTEXT\nkafka-consumer.sasl.mechanism: OAUTHBEARER\n";
    let of = |rest: &str| match settings(&format!("{text}{rest}")).consumer.connection.security.sasl {
        Some(Sasl::OAuthBearer(oauth)) => *oauth,
        other => panic!("{other:?}"),
    };
    let file = of("kafka-consumer.sasl.oauthbearer.token.endpoint.url: file:///run/token");
    assert_eq!(file.source, TokenSource::File("/run/token".into()));
    let endpoint = of(
        "kafka-consumer.sasl.oauthbearer.token.endpoint.url: https://idp/token\nkafka-consumer.sasl.jaas.config: \
                       x.OAuthBearerLoginModule required clientId=\"id\" clientSecret=\"s\" scope=\"a b\" extension_pool=\"7\";",
    );
    assert_eq!(endpoint.extensions, [("pool".to_owned(), "7".to_owned())]);
    let TokenSource::Endpoint { url, client_id, client_secret, scope, tls } = endpoint.source else { panic!("a file") };
    assert_eq!((url.as_str(), client_id.as_str(), client_secret.reveal()), ("https://idp/token", "id", "s"));
    assert!(scope.as_deref() == Some("a b") && tls.trust_platform);
}

#[test]
fn stores_and_the_look_at_the_host_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("t.jks");
    std::fs::write(&store, "x").unwrap();
    let tls = |text: &str| {
        let text = format!("kafka-admin.security.protocol: SSL\n{text}");
        settings(&text).admin.connection.security.tls.expect("TLS")
    };
    let file = tls(&format!(
        "kafka-admin.ssl.truststore.location: {}\nkafka-admin.ssl.truststore.password: p",
        store.display()
    ));
    assert_eq!(file.trust[0].place, Place::File(store));
    assert_eq!(file.trust[0].password, Some(Secret::new("p")));
    assert!(!file.trust_platform);
    let inline = tls(
        "kafka-admin.ssl.keystore.key: K\nkafka-admin.ssl.keystore.certificate.chain: C\nkafka-admin.ssl.key.password: p",
    );
    assert_eq!(inline.identity.expect("one").place, Place::Inline(Secret::new("C\nK")));
    assert_eq!(inline.key_password, Some(Secret::new("p")));
    let name = "kafka-admin.ssl.endpoint.identification.algorithm";
    for (text, expected) in [
        (String::new(), true),
        (format!("{name}: algo-name"), true),
        (format!("{name}: HTTPS"), true),
        (format!("{name}:"), true),
        (format!("{name}: \"\""), false),
    ] {
        assert_eq!(tls(&text).verify_hostname, expected, "{text}");
    }
}

#[test]
fn who_has_its_brokers_from_another_file_has_its_credentials_too() {
    let text = "kafka-producer.bootstrap.servers: b:9093\nkafka-producer.username: me\nkafka-producer.password: p\n";
    let loaded = settings(text);
    assert_eq!(loaded.admin.connection.security, loaded.producer.connection.security);
    assert_eq!(loaded.consumer.connection.security.sasl, plain("me", "p"));
    let own = settings(&format!("{text}kafka-admin.security.protocol: PLAINTEXT"));
    assert_eq!(own.admin.connection.security, KafkaSecurity::default());
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let sasl = "kafka-producer.security.protocol: SASL_PLAINTEXT";
    for (text, expected) in [
        (
            sasl.to_owned(),
            "kafka-producer.sasl.mechanism: PLAIN needs a user and a password: set kafka-producer.username and KAFKA_PRODUCER_PASSWORD, or kafka-producer.sasl.jaas.config",
        ),
        (
            format!("{sasl}\nkafka-producer.sasl.mechanism: GSSAPI"),
            "values.yml:2: kafka-producer.sasl.mechanism: \"GSSAPI\" is not there; there are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
        ),
        (
            format!("{sasl}\nkafka-producer.sasl.jaas.config: hush"),
            "values.yml:2: kafka-producer.sasl.jaas.config: must have `required` behind the login module",
        ),
        (
            format!("{sasl}\nkafka-producer.sasl.jaas.config: a.Krb5LoginModule required;"),
            "values.yml:2: kafka-producer.sasl.jaas.config: the login module \"Krb5LoginModule\" is not there; there are PlainLoginModule, ScramLoginModule and OAuthBearerLoginModule",
        ),
        (
            format!("{sasl}\nkafka-producer.sasl.jaas.config: a.ScramLoginModule required username=a password=b;"),
            "kafka-producer.sasl.mechanism: must be SCRAM-SHA-256 or SCRAM-SHA-512 for the login module ScramLoginModule",
        ),
        (
            format!("{sasl}\nkafka-producer.sasl.mechanism: OAUTHBEARER"),
            "values.yml:2: kafka-producer.sasl.mechanism: OAUTHBEARER needs kafka-producer.sasl.oauthbearer.token.endpoint.url: https://… of a token endpoint, or file:///… of a file that holds a token",
        ),
        (
            "kafka-producer.security.protocol: SSL\nkafka-producer.ssl.truststore.location: /no/t.jks".to_owned(),
            "values.yml:2: kafka-producer.ssl.truststore.location: there is no file /no/t.jks",
        ),
        (
            "kafka-producer.security.protocol: SSL\nkafka-producer.ssl.keystore.key: k".to_owned(),
            "values.yml:2: kafka-producer.ssl.keystore.key: needs ssl.keystore.certificate.chain beside it",
        ),
        (
            "kafka-producer.security.protocol: SSL\nkafka-producer.ssl.endpoint.identification.algorithm: none"
                .to_owned(),
            "values.yml:2: kafka-producer.ssl.endpoint.identification.algorithm: must be https, or empty (\"\") for no look at the host name",
        ),
        (
            "kafka-producer.security.protocol: SSL\nkafka-producer.ssl.enabled.protocols: TLSv1.1".to_owned(),
            "values.yml:2: kafka-producer.ssl.enabled.protocols: \"TLSv1.1\" is not there; there are TLSv1.2 and TLSv1.3",
        ),
    ] {
        assert_eq!(faults(sources(&[("values.yml", &text)], &[], &[])), [expected], "{text}");
    }
}
