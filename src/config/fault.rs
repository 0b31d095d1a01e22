//! What is wrong with a configuration, in words for the person who wrote it.
//!
//! Knows nothing of how faults are found; [`ConfigError`] is all of them at once.

use std::fmt;

use super::source::Origin;

/// One fault: where, which key, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A file's path, `environment NAME` or `--set`; None if nobody wrote the value.
    pub file: Option<String>,
    pub line: Option<usize>,
    /// The flat key, `kafka-producer.linger.ms`.
    pub key: Option<String>,
    pub text: String,
}

impl Fault {
    pub(super) fn new(origin: &Origin, key: impl Into<String>, text: impl Into<String>) -> Self {
        let (file, line) = match origin {
            Origin::Default => (None, None),
            Origin::File { path, line } | Origin::Values { path, line } => (Some(path.to_string()), Some(*line)),
            Origin::Environment(name) => (Some(format!("environment {name}")), None),
            Origin::Set => (Some("--set".to_owned()), None),
        };
        Self { file, line, key: Some(key.into()), text: text.into() }
    }

    /// A fault of a whole file, or of one place in it.
    pub(super) fn of_file(path: &str, line: Option<usize>, text: impl Into<String>) -> Self {
        Self { file: Some(path.to_owned()), line, key: None, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// Every fault of the configuration; the process ends with exit code 64 (EX_USAGE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("the configuration has a fault:")?,
            many => write!(f, "the configuration has {many} faults:")?,
        }
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
