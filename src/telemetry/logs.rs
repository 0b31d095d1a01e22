//! Logs on standard output, as text or as one JSON object a line.
//!
//! It knows no message; secrets and record contents are kept out where messages are written.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, util::TryInitError};

use crate::config::settings::Logging;

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    #[error("the log filter {filter:?} is not one")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging was started already")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process.
pub(crate) fn start(settings: &Logging) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|source| LoggingError::Filter { filter: settings.filter.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout);
    if settings.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()?;
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colours).finish().try_init()?;
    }
    Ok(())
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
