//! Which files there are: in memory first, then each configuration directory in order; of one name `.yml`, `.yaml`, `.json`.
//!
//! It reads nothing outside these directories and knows no keys; [`Found`] is its main type.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Sources,
    fault::Fault,
    property::File,
    source::{Key, MAX_FILE_BYTES, Node, Value, read},
};

const EXTENSIONS: [&str; 3] = ["yml", "yaml", "json"];
const VALUES: &str = "values";

/// The documents of a configuration, not yet resolved.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<(File, Node)>,
    /// The entries of values.yml.
    pub(super) values: Vec<(Key, Node)>,
    /// Paths of files that look like configuration and are none of ours.
    pub(super) strangers: Vec<String>,
    /// The directories looked at, for files that settings name.
    pub(super) directories: Vec<PathBuf>,
}

/// Reads what is there. Without `config_dirs` the environment's `LIGHT_4J_CONFIG_DIR` names the directories.
pub(super) fn find(sources: &Sources, faults: &mut Vec<Fault>) -> Found {
    let mut found = Found { directories: sources.config_dirs.clone(), ..Found::default() };
    if found.directories.is_empty()
        && let Some(list) = sources.env.get("LIGHT_4J_CONFIG_DIR")
    {
        found.directories = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let mut unreadable = Vec::new();
    for directory in &found.directories {
        match fs::read_dir(directory) {
            Ok(entries) => found.strangers.extend(strangers(directory, entries)),
            Err(error) => {
                unreadable.push(directory.clone());
                let reason = format!("this configuration directory cannot be read: {error}");
                faults.push(Fault::of_file(&directory.display().to_string(), None, reason));
            }
        }
    }
    // Its files would each say the same again.
    found.directories.retain(|directory| !unreadable.contains(directory));
    for name in sources.files.keys().filter(|name| is_stranger(name)) {
        found.strangers.push(name.clone());
    }
    for file in File::ALL {
        if let Some(node) = open(sources, &found.directories, file.name(), false, faults) {
            found.files.push((file, node));
        }
    }
    if let Some(node) = open(sources, &found.directories, VALUES, true, faults) {
        match node.value {
            Value::Map(entries) => found.values = entries,
            Value::Null => {}
            Value::Text(_) | Value::Plain(_) | Value::List(_) => {
                faults.push(Fault::new(
                    &node.origin,
                    VALUES,
                    "must hold flat keys and their values, `kafka-consumer.topic: orders`",
                ));
            }
        }
    }
    found
}

fn open(sources: &Sources, directories: &[PathBuf], stem: &str, values: bool, faults: &mut Vec<Fault>) -> Option<Node> {
    let names: Vec<String> = EXTENSIONS.iter().map(|extension| format!("{stem}.{extension}")).collect();
    let (path, bytes) = names
        .iter()
        .find_map(|name| sources.files.get(name).map(|bytes| (name.clone(), Ok(bytes.clone()))))
        .or_else(|| {
            directories.iter().flat_map(|directory| names.iter().map(move |name| directory.join(name))).find_map(
                |path| match read_bounded(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    result => Some((path.display().to_string(), result)),
                },
            )
        })?;
    match bytes {
        Ok(bytes) => {
            let (node, more) = read(&path, &bytes, values);
            faults.extend(more);
            node
        }
        Err(error) => {
            faults.push(Fault::of_file(&path, None, format!("cannot be read: {error}")));
            None
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that is too large is noticed.
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn strangers(directory: &Path, entries: fs::ReadDir) -> BTreeSet<String> {
    entries
        .filter_map(Result::ok)
        .filter(|entry| is_stranger(&entry.file_name().to_string_lossy()))
        .map(|entry| directory.join(entry.file_name()).display().to_string())
        .collect()
}

fn is_stranger(name: &str) -> bool {
    if name == "logback.xml" {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    !stem.is_empty()
        && !stem.starts_with('.')
        && EXTENSIONS.contains(&extension)
        && stem != VALUES
        && File::ALL.iter().all(|file| file.name() != stem)
}
