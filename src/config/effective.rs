//! The configuration as it counts: every key, its value, where it comes from; secrets masked.
//!
//! The text of [`render_effective`] is YAML that could be a values.yml, were it not for the masked secrets.

use super::{
    Loaded,
    property::{File, Kind, Property, Status},
    source::{Node, Origin, Value},
    values::Values,
};

const MASK: &str = "******";

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The flat key, `kafka-producer.linger.ms`.
    pub key: String,
    /// Empty if unset; a secret is masked already.
    pub value: String,
    pub origin: Origin,
}

/// All properties that are used, and of the others those that somebody gave.
pub(super) fn entries(values: &Values) -> Vec<Entry> {
    let mut entries = Vec::new();
    for file in File::ALL {
        for property in file.properties() {
            let Some(node) = values.node(file, property.name) else { continue };
            // Its entries stand under their own names.
            if property.kind == Kind::Map || (property.status != Status::Used && !values.given(file, property.name)) {
                continue;
            }
            let value = match values.derived.get(&(file, property.name)) {
                Some(derived) if node.origin == Origin::Default || node.is_unset() => derived.clone(),
                _ => value(property, node),
            };
            entries.push(Entry {
                key: format!("{}.{}", file.name(), property.name),
                value,
                origin: node.origin.clone(),
            });
        }
    }
    entries
}

fn value(property: &Property, node: &Node) -> String {
    if node.is_unset() {
        return String::new();
    }
    if property.secret || looks_secret(property.name) {
        return MASK.to_owned();
    }
    mask_urls(&flat(node))
}

/// Names that say that their value is nobody's business, whatever the table says.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = ["password", "secret", "jaas", "user.info", "keystore.key", "oauth", "swt"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word)) || name.ends_with("pass") || name.ends_with("token")
}

fn flat(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Text(text) | Value::Plain(text) => text.clone(),
        Value::List(items) => items.iter().map(flat).collect::<Vec<_>>().join(","),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| {
                let value = if looks_secret(&key.text) { MASK.to_owned() } else { flat(node) };
                format!("{}: {value}", key.text)
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A user name and password inside a URL.
fn mask_urls(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest.get(..authority).and_then(|part| part.rfind('@')) {
        Some(at) => format!("{scheme}://{MASK}{}", rest.get(at..).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The entries as text, a line each, with their origins in a second column.
pub(crate) fn render_effective(loaded: &Loaded) -> String {
    let lines: Vec<String> =
        loaded.entries.iter().map(|entry| format!("{}: {}", entry.key, quoted(&entry.value))).collect();
    // A long value pushes only its own origin to the right.
    let width = lines.iter().map(|line| line.chars().count()).filter(|count| *count <= 80).max().unwrap_or_default();
    let mut text = String::new();
    for (line, entry) in lines.iter().zip(&loaded.entries) {
        text.push_str(&format!("{line:width$}  # {}\n", entry.origin));
    }
    text
}

/// As YAML wants it: in quotes where the bare text would be read as something else.
fn quoted(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "._-/:,+".contains(c);
    let starts = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.' || c == '-');
    if value.is_empty() || (starts && value.chars().all(bare) && !value.ends_with(':') && value != "-") {
        return value.to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_masked() {
        for (text, expected) in [
            ("http://user:pw@host:1/x", "http://******@host:1/x"),
            ("http://host:1/x@y", "http://host:1/x@y"),
            ("plain", "plain"),
        ] {
            assert_eq!(mask_urls(text), expected);
        }
    }

    #[test]
    fn values_are_quoted_where_yaml_needs_it() {
        for (value, expected) in [
            ("", ""),
            ("a.b-c", "a.b-c"),
            ("http://a:1/b", "http://a:1/b"),
            ("a b", "\"a b\""),
            ("******", "\"******\""),
            ("${k}", "\"${k}\""),
        ] {
            assert_eq!(quoted(value), expected);
        }
    }
}
