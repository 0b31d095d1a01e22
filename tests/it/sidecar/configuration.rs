//! What a stranger meets at the command line.

use std::process::Command;

use anyhow::Result;

fn run(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    run_with(arguments, &[])
}

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-sidecar"));
    let output = command.args(arguments).env_clear().envs(environment.iter().copied()).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}

#[test]
fn a_misspelt_key_ends_the_start_with_the_nearest_one_and_exit_code_64() -> Result<()> {
    let (code, text) = run(&["--set", "kafka-producer.ackz=1"])?;
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("did you mean kafka-producer.acks?"), "{text}");
    Ok(())
}

#[test]
fn what_is_not_built_yet_is_refused_and_never_ignored() -> Result<()> {
    for setting in [
        "server.enableHttps=true",
        "security.enableVerifyJwt=true",
        "kafka-producer.schema.registry.url=http://localhost:8081",
        "kafka-producer.valueFormat=avro",
        "kafka-consumer.ordering=key",
        "kafka-consumer.group.protocol=consumer",
        "kafka-producer.transactional.id=t",
    ] {
        let (code, text) = run(&["--set", setting])?;
        let key = setting.split('=').next().unwrap_or_default();
        assert_eq!(code, Some(64), "{setting}: {text}");
        assert!(text.contains(key) && text.contains("not built yet"), "{setting}: {text}");
    }
    Ok(())
}

#[test]
fn every_fault_is_told_at_once_with_its_file_and_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("kafka-consumer.yml"), "properties:\n  max.poll.record: 5\ntopic: a b\n")?;
    std::fs::write(directory.path().join("values.yml"), "health.timeout: soon\n")?;
    let path = directory.path().to_str().unwrap_or_default();
    let environment = [("LIGHT_4J_CONFIG_DIR", path), ("SERVER_HTTPPORT", "http")];
    let (code, text) = run_with(&["--set", "kafka-producer.acks=2", "config"], &environment)?;
    assert_eq!(code, Some(64), "{text}");
    for fault in [
        "kafka-consumer.yml:2: kafka-consumer.max.poll.record: there is no such property; did you mean max.poll.records?",
        "kafka-consumer.yml:3: kafka-consumer.topic: must be names of topics",
        "values.yml:1: health.timeout: must be a whole number",
        "environment SERVER_HTTPPORT: server.httpPort: must be a whole number",
        "--set: kafka-producer.acks: must be all, -1, 0 or 1",
    ] {
        assert!(text.contains(fault), "{fault} in {text}");
    }
    Ok(())
}

#[test]
fn the_effective_configuration_names_origins_and_masks_secrets() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let values = "kafka-consumer.topic: orders\nkafka-consumer.backendApiHost: http://localhost:3000\n\
                  kafka-consumer.group.id: ${my.group:?which group}\nmy.group: billing\n";
    std::fs::write(directory.path().join("values.yml"), values)?;
    std::fs::write(directory.path().join("client.yml"), "tls:\n  trustStorePass: ${client.trustStorePass:hush}\n")?;
    let path = directory.path().to_str().unwrap_or_default();
    let environment = [("KAFKA_PRODUCER_COMPRESSION_TYPE", "zstd")];
    // Options count before the command and behind it.
    let words = ["--config-dir", path, "config", "--set", "kafka-producer.linger.ms=7"];
    let (code, text) = run_with(&words, &environment)?;
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("hush"), "{text}");
    for (key, value, origin) in [
        ("kafka-producer.linger.ms", "7", "--set"),
        ("kafka-producer.compression.type", "zstd", "environment KAFKA_PRODUCER_COMPRESSION_TYPE"),
        ("kafka-consumer.topic", "orders", "values.yml:1"),
        ("kafka-consumer.group.id", "billing", "values.yml:4"),
        ("client.trustStorePass", "\"******\"", "client.yml:2"),
        ("kafka-producer.acks", "all", "default"),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{key}: {value} "))).unwrap_or_default();
        assert!(line.ends_with(origin), "{key}: {value} from {origin} in {text}");
    }
    Ok(())
}

#[test]
fn a_stranger_is_told_how_to_begin_and_every_mistake_ends_with_a_sentence() -> Result<()> {
    let (code, help) = run(&["--help"])?;
    assert_eq!(code, Some(0));
    for word in ["demo", "dev", "config", "healthcheck", "/producers/{topic}", "KAFKA_PRODUCER_BOOTSTRAP_SERVERS"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert_eq!(run(&["--version"])?, (Some(0), format!("kafka-sidecar {}\n", env!("CARGO_PKG_VERSION"))));
    for (words, told) in [
        (&["--sett", "a=b"][..], "unexpected argument '--sett'"),
        (&["start"], "unrecognized subcommand 'start'"),
        (&["--set", "kafka-producer.acks"], "expected KEY=VALUE"),
        (&["demo", "--log", "loud"], "[possible values: off, error, warn, info, debug, trace]"),
        (
            &["dev", "--backend", "nonsense", "--kafka-port", "0"],
            "the configuration has a fault:\n  --set: kafka-consumer.backendApiHost: must be scheme, host and port",
        ),
        (&["--config-dir", "Cargo.toml"], "the configuration has a fault:\n  Cargo.toml: this configuration directory"),
        (&["--config-dir", "/nowhere"], "/nowhere: this configuration directory cannot be read"),
    ] {
        let (code, text) = run(words)?;
        assert_eq!(code, Some(64), "{words:?}: {text}");
        assert!(text.contains(told), "{told} in {text}");
    }
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_its_setting() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let (data, probes) = (format!("server.httpPort={port}"), format!("sidecar.probesPort={port}"));
    for (words, setting) in [
        (["--set", &data, "--set", "sidecar.probesPort=0"], "server.httpPort"),
        (["--set", "server.httpPort=0", "--set", &probes], "sidecar.probesPort"),
    ] {
        // The probes listen on every address, of which one is taken.
        let (code, text) = run(&words)?;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&format!(":{port} ({setting}): Address already in use")), "{text}");
        let (code, silent) = run(&[&words[..], &["--set", "sidecar.logLevel=off"]].concat())?;
        assert!(code == Some(1) && silent.contains(setting), "said even without a log: {silent}");
    }
    Ok(())
}
