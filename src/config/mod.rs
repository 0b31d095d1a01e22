//! Configuration: files and environment in, checked [`settings::Settings`] out.
//!
//! `search` finds the files, `source` reads them, `placeholder` fills `${…}`, `merge` picks one value per property, `check` types it,
//! `build`, `kafka` and `security` turn all of it into settings; `property` and `table` say what there is. Nothing here reads the process'
//! environment, writes anything or knows who uses the settings. [`load`] is the way in.

mod build;
mod check;
mod effective;
mod fault;
mod hooks;
mod jaas;
mod kafka;
mod memory;
mod merge;
mod placeholder;
mod property;
mod search;
mod security;
pub(crate) mod settings;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::{collections::BTreeMap, path::PathBuf};

pub(crate) use effective::render_effective;
pub(crate) use fault::ConfigError;
pub(crate) use memory::limit as memory_limit;

use effective::Entry;
use settings::Settings;

/// What a configuration is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Directories with configuration files, the first that has a file wins; empty: `LIGHT_4J_CONFIG_DIR` of `env`, a list of paths.
    pub config_dirs: Vec<PathBuf>,
    /// `--set key=value`, above everything else; of one key the last wins.
    pub set: Vec<(String, String)>,
    /// The environment, as `main` found it.
    pub env: BTreeMap<String, String>,
    /// Files in memory by name (`values.yml`), above those in directories.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What [`memory_limit`] says, in bytes.
    pub memory_limit: Option<u64>,
}

/// A configuration without faults.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub settings: Settings,
    /// For the log, once each.
    pub warnings: Vec<String>,
    pub entries: Vec<Entry>,
}

/// Loads the configuration; with empty sources it is the shipped one.
///
/// Files are read from `config_dirs` (or `files`) only. Of files that settings name, only their being there is checked.
///
/// # Errors
/// Every fault that was found, together.
pub(crate) fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let mut faults = Vec::new();
    let found = search::find(&sources, &mut faults);
    let directories = found.directories.clone();
    let mut merged = merge::merge(found, &sources.set, &sources.env);
    faults.append(&mut merged.faults);
    merged.faults = faults;
    let mut values = values::Values::new(merged, directories);
    let settings = build::settings(&mut values, sources.memory_limit);
    if !values.faults.is_empty() {
        return Err(ConfigError { faults: values.faults });
    }
    let entries = effective::entries(&values);
    let mut warnings = values.warnings;
    if !values.idle.is_empty() {
        warnings.push(format!("without effect here: {}", values.idle.join(", ")));
    }
    Ok(Loaded { settings, warnings, entries })
}
