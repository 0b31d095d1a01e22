//! What a stranger meets at the command line.

use std::process::Command;

use anyhow::Result;

fn run(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-sidecar")).args(arguments).env_clear().output()?;
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
    for setting in ["kafka-producer.security.protocol=SSL", "kafka-consumer.ordering=key", "server.enableHttps=true"] {
        let (code, text) = run(&["--set", setting])?;
        assert_eq!(code, Some(64), "{setting}: {text}");
    }
    Ok(())
}

#[test]
fn the_effective_configuration_names_origins_and_masks_secrets() -> Result<()> {
    let (code, text) = run(&["--set", "kafka-producer.linger.ms=7", "config"])?;
    assert_eq!(code, Some(0), "{text}");
    let line = text.lines().find(|line| line.contains("linger.ms") && line.contains('7')).unwrap_or_default();
    assert!(line.contains("--set"), "{text}");
    Ok(())
}
