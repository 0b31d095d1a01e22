//! The typed values of all properties, with getters for those who build settings from them.
//!
//! A value that does not fit its kind is a fault and counts as the default from then on, so that every fault is found in one go.
//! [`Values`] is the main type.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    check::{Typed, check},
    fault::Fault,
    merge::{Merged, Nodes},
    property::{File, Status},
    settings::{Format, Secret},
    source::{Node, Origin},
};

pub(super) struct Values {
    typed: BTreeMap<(File, &'static str), Typed>,
    defaults: BTreeMap<(File, &'static str), Typed>,
    pub(super) nodes: Nodes,
    /// What a default that depends on others has become, for the view of effective values.
    pub(super) derived: BTreeMap<(File, &'static str), String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
    pub(super) idle: Vec<String>,
    /// Where files that settings name by a relative path are looked for first.
    pub(super) directories: Vec<PathBuf>,
}

impl Values {
    pub(super) fn new(merged: Merged, directories: Vec<PathBuf>) -> Self {
        let mut values = Self {
            typed: BTreeMap::new(),
            defaults: BTreeMap::new(),
            nodes: merged.nodes,
            derived: BTreeMap::new(),
            faults: merged.faults,
            warnings: merged.warnings,
            idle: merged.idle,
            directories,
        };
        for file in File::ALL {
            for property in file.properties() {
                if let Status::Idle(_) = property.status {
                    continue;
                }
                let place = (file, property.name);
                if let Some(node) = merged.defaults.get(&place)
                    && let Ok(Some(typed)) = check(property.kind, node, property.secret)
                {
                    values.defaults.insert(place, typed);
                }
                let Some(node) = values.nodes.get(&place) else { continue };
                match check(property.kind, node, property.secret) {
                    Ok(Some(typed)) => {
                        values.typed.insert(place, typed);
                    }
                    Ok(None) => {}
                    Err(text) => values.fault(file, property.name, text),
                }
            }
        }
        values
    }

    pub(super) fn node(&self, file: File, name: &'static str) -> Option<&Node> {
        self.nodes.get(&(file, name))
    }

    fn origin(&self, file: File, name: &'static str) -> Origin {
        self.node(file, name).map_or(Origin::Default, |node| node.origin.clone())
    }

    /// A fault about this property, at the place where it is given.
    pub(super) fn fault(&mut self, file: File, name: &'static str, text: impl Into<String>) {
        let origin = self.origin(file, name);
        self.faults.push(Fault::new(&origin, format!("{}.{name}", file.name()), text));
    }

    /// Whether something is wrong with the property already.
    pub(super) fn has_fault(&self, file: File, name: &str) -> bool {
        let key = format!("{}.{name}", file.name());
        self.faults.iter().any(|fault| fault.key.as_deref() == Some(key.as_str()))
    }

    /// Says what an unset property has become.
    pub(super) fn derive(&mut self, file: File, name: &'static str, value: impl ToString) {
        self.derived.insert((file, name), value.to_string());
    }

    /// Whether somebody gave a value that says something.
    pub(super) fn given(&self, file: File, name: &'static str) -> bool {
        self.node(file, name).is_some_and(|node| node.origin != Origin::Default && !node.is_unset())
    }

    /// Makes the value of another file's property that of the same name here, which nobody gave.
    pub(super) fn inherit(&mut self, file: File, source: File, name: &'static str) {
        if let Some(typed) = self.typed.get(&(source, name)).cloned() {
            if let Typed::List(words) = &typed {
                self.derive(file, name, words.join(","));
            }
            self.typed.insert((file, name), typed);
        }
    }

    /// Like [`Self::given`], but `old_default` as the default of a placeholder, as copies of old files carry it, does not count.
    pub(super) fn written_down(&self, file: File, name: &'static str, old_default: &str) -> bool {
        self.given(file, name)
            && self.node(file, name).is_some_and(|node| !(node.fallback && node.text() == Some(old_default)))
    }

    /// A file that a setting names: a relative path is looked for in the configuration directories first.
    pub(super) fn find_file(&self, named: &Path) -> Option<PathBuf> {
        let places = self.directories.iter().map(|directory| directory.join(named));
        places.chain([named.to_path_buf()]).find(|path| path.is_file())
    }

    /// The value, or None if there is none: null switches an optional property off.
    fn optional(&self, file: File, name: &'static str) -> Option<&Typed> {
        debug_assert!(file.find(name).is_some(), "{}.{name}", file.name());
        let place = (file, name);
        match self.nodes.get(&place) {
            Some(node) if node.is_unset() => None,
            _ => self.typed.get(&place).or_else(|| self.defaults.get(&place)),
        }
    }

    /// The value, or the shipped one if there is none.
    fn required(&self, file: File, name: &'static str) -> Option<&Typed> {
        let typed = self.optional(file, name).or_else(|| self.defaults.get(&(file, name)));
        debug_assert!(typed.is_some(), "{}.{name} has no default", file.name());
        typed
    }

    pub(super) fn text(&self, file: File, name: &'static str) -> String {
        match self.required(file, name) {
            Some(Typed::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    pub(super) fn optional_text(&self, file: File, name: &'static str) -> Option<String> {
        match self.optional(file, name) {
            Some(Typed::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn optional_secret(&self, file: File, name: &'static str) -> Option<Secret> {
        self.optional_text(file, name).map(Secret::new)
    }

    pub(super) fn flag(&self, file: File, name: &'static str) -> bool {
        matches!(self.required(file, name), Some(Typed::Flag(true)))
    }

    pub(super) fn optional_flag(&self, file: File, name: &'static str) -> Option<bool> {
        match self.optional(file, name) {
            Some(Typed::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn optional_number(&self, file: File, name: &'static str) -> Option<i64> {
        match self.optional(file, name) {
            Some(Typed::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn number(&self, file: File, name: &'static str) -> i64 {
        match self.required(file, name) {
            Some(Typed::Number(number)) => *number,
            _ => 0,
        }
    }

    /// A count or a size in bytes; the property's bounds keep it above zero and within the type.
    pub(super) fn size(&self, file: File, name: &'static str) -> usize {
        usize::try_from(self.number(file, name)).unwrap_or_default()
    }

    pub(super) fn port(&self, file: File, name: &'static str) -> u16 {
        u16::try_from(self.number(file, name)).unwrap_or_default()
    }

    pub(super) fn millis(&self, file: File, name: &'static str) -> Duration {
        Duration::from_millis(u64::try_from(self.number(file, name)).unwrap_or_default())
    }

    pub(super) fn optional_millis(&self, file: File, name: &'static str) -> Option<Duration> {
        self.optional_number(file, name).and_then(|number| u64::try_from(number).ok()).map(Duration::from_millis)
    }

    /// The words of a list; None if there is none, which is not the same as an empty one.
    pub(super) fn optional_list(&self, file: File, name: &'static str) -> Option<Vec<String>> {
        match self.optional(file, name) {
            Some(Typed::List(words)) => Some(words.clone()),
            _ => None,
        }
    }

    pub(super) fn list(&self, file: File, name: &'static str) -> Vec<String> {
        match self.required(file, name) {
            Some(Typed::List(words)) => words.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn optional_format(&self, file: File, name: &'static str) -> Option<Format> {
        match self.optional(file, name) {
            Some(Typed::Format(format)) => Some(*format),
            _ => None,
        }
    }
}
