//! The command line: what can be said, and what each command ends with.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | it did what was asked; for the sidecar: everything was finished before it stopped |
//! | 1 | it failed, or something was left unfinished |
//! | 64 | the command line or the configuration is wrong |
//!
//! It knows no part of the sidecar but [`crate::app`] and [`crate::config`]. [`Arguments`] is its main type.

mod demo;
mod dev;
mod embedded;
mod healthcheck;
mod instance;
mod sidecar;

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Loaded, Sources},
    telemetry::logs,
    tls,
};

/// What `demo --log` takes.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// EX_USAGE.
const WRONG_CONFIGURATION: u8 = 64;

/// Kafka for any backend that speaks HTTP and JSON.
///
/// Runs beside your backend. The backend produces with POST http://127.0.0.1:8080/producers/{topic}; records of the topics that you
/// configure are sent to it as POST requests, and its answers become commits, retries and dead letters.
///
/// Without a command the sidecar runs until SIGTERM or SIGINT, then finishes what it has begun.
#[derive(Debug, Parser)]
#[command(name = "kafka-sidecar", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  kafka-sidecar --set kafka-producer.bootstrap.servers=kafka:9092
  kafka-sidecar --config-dir /config
  kafka-sidecar --config-dir /config config
  kafka-sidecar healthcheck
  kafka-sidecar dev --backend http://localhost:3000

Every setting can also come from the environment: kafka-producer.bootstrap.servers is
KAFKA_PRODUCER_BOOTSTRAP_SERVERS. The log level is sidecar.logLevel, e.g. --set sidecar.logLevel=debug.
The exit code is 64 if the configuration or the command line is wrong, 1 if something failed or was left unfinished.";

#[derive(Debug, Clone, Default, Args)]
struct Configuration {
    /// A directory with configuration files (values.yml, kafka-producer.yml, …); may be given several times, the first that has a file
    /// wins. Default: LIGHT_4J_CONFIG_DIR of the environment; without it, the built-in defaults.
    #[arg(long, value_name = "DIR")]
    config_dir: Vec<PathBuf>,
    /// Sets one value above all files and the environment; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the effective configuration, each value with where it comes from, secrets masked
    Config {
        #[command(flatten)]
        more: Configuration,
    },
    /// Show the whole job within seconds: an embedded Kafka cluster, a small backend and two sidecars in this process
    Demo {
        /// Print the sidecars' own log too, on standard error: off, error, warn, info, debug or trace
        #[arg(long, default_value = "off", value_name = "LEVEL", value_parser = LEVELS, hide_possible_values = true)]
        log: String,
    },
    /// Run the sidecar for a backend under development, with an embedded Kafka cluster that stays up
    Dev {
        #[command(flatten)]
        options: dev::Options,
        #[command(flatten)]
        more: Configuration,
    },
    /// Ask a running sidecar whether it is ready: exit code 0 if it is, 1 if not (for containers without a shell)
    Healthcheck {
        /// The page to ask [default: /health/readiness on the probes port, else on the data port]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        #[command(flatten)]
        more: Configuration,
    },
}

impl Arguments {
    /// What stands before the command and behind it, in this order.
    fn configuration(&self) -> Configuration {
        let mut all = self.configuration.clone();
        if let Some(Command::Config { more } | Command::Dev { more, .. } | Command::Healthcheck { more, .. }) =
            &self.command
        {
            all.config_dir.extend_from_slice(&more.config_dir);
            all.set.extend_from_slice(&more.set);
        }
        all
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Does what the process was started for.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If even this cannot be written, the exit code has to do.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_CONFIGURATION) } else { ExitCode::SUCCESS };
        }
    };
    let configuration = arguments.configuration();
    let loaded = || config::load(sources(&configuration, std::env::vars_os()));
    match &arguments.command {
        Some(Command::Healthcheck { url: Some(url), .. }) => healthcheck::run(url),
        Some(Command::Demo { log }) => match logs::start_on_stderr(log) {
            Ok(()) => sidecar::block_on(demo::run()),
            Err(error) => {
                complain(&logs::chain(&error));
                ExitCode::from(WRONG_CONFIGURATION)
            }
        },
        Some(Command::Dev { options, .. }) => sidecar::block_on(dev::run(&configuration, options)),
        command => match (loaded(), command) {
            (Err(faults), _) => {
                complain(&faults.to_string());
                ExitCode::from(WRONG_CONFIGURATION)
            }
            (Ok(loaded), Some(Command::Config { .. })) => print_configuration(&loaded),
            (Ok(loaded), Some(Command::Healthcheck { .. })) => healthcheck::run(&healthcheck::page(&loaded.settings)),
            (Ok(loaded), _) => sidecar::run(loaded),
        },
    }
}

fn sources(
    configuration: &Configuration,
    environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Sources {
    // A variable that is no text cannot be a setting of ours.
    let env: BTreeMap<String, String> =
        environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    Sources {
        config_dirs: configuration.config_dir.clone(),
        set: configuration.set.clone(),
        env,
        memory_limit: config::memory_limit(),
        ..Sources::default()
    }
}

fn print_configuration(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}"));
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(config::render_effective(loaded).as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// An HTTP client for plain http: it reads nothing from disk.
fn http_client() -> Result<reqwest::Client, String> {
    let config = tls::nothing().map_err(|error| logs::chain(&error))?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().tcp_nodelay(true).build();
    client.map_err(|error| logs::chain(&error))
}

/// A line on standard error, where it can still be written.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "kafka-sidecar: {text}");
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn settings_keep_everything_after_the_first_equals_sign() {
        let arguments = Arguments::try_parse_from([
            "kafka-sidecar",
            "--set",
            "a.b=c=d",
            "--set",
            " e =",
            "--config-dir",
            "/x",
            "config",
        ])
        .expect("fine");
        let sources = sources(&arguments.configuration, std::iter::empty());
        assert_eq!(sources.set, [("a.b".to_owned(), "c=d".to_owned()), ("e".to_owned(), String::new())]);
        assert_eq!(sources.config_dirs, [PathBuf::from("/x")]);
        assert!(matches!(arguments.command, Some(Command::Config { .. })));
        assert!(Arguments::try_parse_from(["kafka-sidecar", "--set", "a"]).is_err());
    }

    #[test]
    fn options_count_on_both_sides_of_a_command() {
        for command in [&["config"][..], &["healthcheck"], &["dev", "--backend", "http://localhost:3000"]] {
            let before = ["kafka-sidecar", "--config-dir", "/x", "--set", "a=1"];
            let behind = ["--config-dir", "/y", "--set", "a=2"];
            let words = before.iter().chain(command).chain(&behind);
            let configuration = Arguments::try_parse_from(words).expect("fine").configuration();
            assert_eq!(configuration.config_dir, [PathBuf::from("/x"), PathBuf::from("/y")]);
            assert_eq!(configuration.set.last(), Some(&("a".to_owned(), "2".to_owned())), "the last one wins");
        }
    }

    #[test]
    fn the_help_names_every_command_and_the_first_step() {
        let help = Arguments::command().render_long_help().to_string();
        for word in ["config", "healthcheck", "demo", "dev", "--set", "--config-dir", "/producers/{topic}", "SIGTERM"] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}
