//! The floors: a module names only lower floors. The two towers stand here as data; ARCHITECTURE.md explains them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// `src/`, lowest floor first. Modules of one floor never name each other.
const SIDECAR: &[&[&str]] = &[
    &["record"],
    &["config"],
    // They read settings.
    &["telemetry", "health", "tls"],
    &["schema", "format", "backend", "token"],
    &["dead_letter", "audit"],
    &["produce", "reactive", "active", "ksqldb", "streams"],
    &["http"],
    &["app"],
    &["cli", "door"],
    &["lib", "main"],
];

/// `protocol/src/`, lowest floor first. Modules of one floor never name each other, but for the P0 words.
const PROTOCOL: &[&[&str]] = &[
    &["outcome", "budget", "error_code", "seeds"],
    &["wire"],
    &["message", "record"],
    &["connection"],
    &["cluster"],
    &["producer", "consumer"],
    &["admin"],
    &["client"],
    &["lib"],
];

#[test]
fn no_module_of_the_sidecar_names_a_higher_floor_or_a_sibling() {
    check(Path::new("src"), SIDECAR);
}

#[test]
fn no_module_of_the_client_names_a_higher_floor_or_a_sibling() {
    check(Path::new("protocol/src"), PROTOCOL);
}

fn check(root: &Path, floors: &[&[&str]]) {
    let floor_of: BTreeMap<&str, usize> =
        floors.iter().enumerate().flat_map(|(floor, modules)| modules.iter().map(move |name| (*name, floor))).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut offenders = Vec::new();
    let mut seen = 0;
    for file in rust_files(&root) {
        let relative = file.strip_prefix(&root).expect("below the root");
        let module =
            relative.iter().next().and_then(|first| Path::new(first).file_stem()).and_then(|stem| stem.to_str());
        let module = module.expect("a name in ASCII");
        let Some(own) = floor_of.get(module) else {
            offenders.push(format!("{}: the module {module} stands on no floor", relative.display()));
            continue;
        };
        seen += 1;
        let text = fs::read_to_string(&file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for named in crate_names(line) {
                if let Some(floor) = floor_of.get(named.as_str())
                    && named != module
                    && floor >= own
                {
                    offenders.push(format!(
                        "{}:{}: {module} (floor {own}) names {named} (floor {floor})",
                        relative.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(seen > 3, "the scan found almost nothing below {}", root.display());
    assert!(offenders.is_empty(), "upward or sideways arrows:\n{}", offenders.join("\n"));
}

/// The first path segments after `crate::`, also of a braced list on the same line.
fn crate_names(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (position, found) in line.match_indices("crate::") {
        if line[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[position + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split_once('}').map_or(list, |(inside, _)| inside);
                names.extend(list.split(',').map(|item| first_segment(item.trim())).filter(|name| !name.is_empty()));
            }
            None => names.push(first_segment(rest)),
        }
    }
    names
}

fn first_segment(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn the_scan_sees_single_names_and_lists() {
    assert_eq!(crate_names("use crate::http::Problem;"), ["http"]);
    assert_eq!(crate_names("use crate::{app, config::Settings};"), ["app", "config"]);
    assert_eq!(crate_names("let x = crate::audit::run(crate::record::X);"), ["audit", "record"]);
    assert!(crate_names("use my_crate::http;").is_empty());
}
