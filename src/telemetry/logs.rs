//! Logs on standard output, as text or as one JSON object a line.
//!
//! It knows no message; secrets and record contents are kept out where messages are written.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::config::settings::Logging;

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    #[error("the log filter {filter:?} is not one")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging was started already")]
    Twice(#[from] TryInitError),
}

/// Starts logging as text on standard error, for commands whose standard output is for people.
pub(crate) fn start_on_stderr(text: &str) -> Result<(), LoggingError> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(text)?).with_writer(std::io::stderr);
    builder.with_ansi(false).finish().try_init()?;
    Ok(())
}

/// Starts logging for the whole process.
pub(crate) fn start(settings: &Logging) -> Result<(), LoggingError> {
    let filter = filter(&settings.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout);
    if settings.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()?;
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colours).finish().try_init()?;
    }
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(text).map_err(|source| LoggingError::Filter { filter: text.to_owned(), source })
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = start(&Logging { filter: "info,=,x=loudest".into(), json: false }).expect_err("no filter");
        assert!(error.to_string().contains("loudest"), "{error}");
    }
}
