//! Reading one YAML (or JSON, which is YAML) file into nodes that remember where they stand.
//!
//! Bounded against hostile files: size, depth and what aliases may copy. It knows nothing of keys, placeholders or types; a scalar
//! keeps its text as written, so that `0123` as a password stays `0123`. [`Node`] is its main type.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::fault::Fault;

/// A file may not be larger.
pub(super) const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Lists and maps may not stand deeper in each other.
const MAX_DEPTH: usize = 32;
/// Nodes that all aliases of a file may copy together.
const MAX_ALIASED_NODES: usize = 10_000;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The shipped files.
    Default,
    File {
        path: Arc<str>,
        line: usize,
    },
    /// values.yml.
    Values {
        path: Arc<str>,
        line: usize,
    },
    /// The name of the variable.
    Environment(String),
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } | Self::Values { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The value is the default of a placeholder for which nobody gave anything.
    pub(super) fallback: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(String),
    /// A boolean or a number, as written.
    Plain(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Node {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, fallback: false }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Plain(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it says nothing: null, or an empty text.
    pub(super) fn is_unset(&self) -> bool {
        matches!(self.value, Value::Null) || self.text() == Some("")
    }

    /// Nodes and text bytes, itself included.
    pub(super) fn size(&self) -> usize {
        match &self.value {
            Value::Null => 1,
            Value::Text(text) | Value::Plain(text) => 1 + text.len(),
            Value::List(items) => items.iter().fold(1, |sum, item| sum.saturating_add(item.size())),
            Value::Map(entries) => entries
                .iter()
                .fold(1, |sum, (key, item)| sum.saturating_add(key.text.len()).saturating_add(item.size())),
        }
    }
}

/// A scalar without quotes, in a file or as the default of a placeholder: a boolean as YAML 1.1 has them, a number, else text.
pub(super) fn plain(text: &str) -> Value {
    if is_boolean(text) || is_number(text) { Value::Plain(text.to_owned()) } else { Value::Text(text.to_owned()) }
}

fn is_boolean(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "yes", "on", "true", "n", "no", "off", "false"];
    WORDS.iter().any(|word| {
        let mut capital = word.chars();
        text == *word
            || text == word.to_ascii_uppercase()
            || capital.next().is_some_and(|first| {
                text.strip_prefix(first.to_ascii_uppercase()).is_some_and(|rest| rest == capital.as_str())
            })
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0o"));
    if let Some(hex) = hex {
        return !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.replace('_', "").parse::<f64>().is_ok()
}

/// Reads a document. Every fault comes back with its line; the node is None if the file is no usable document.
pub(super) fn read(path: &str, bytes: &[u8], values: bool) -> (Option<Node>, Vec<Fault>) {
    let fail = |line, text: String| (None, vec![Fault::of_file(path, line, text)]);
    if bytes.len() > MAX_FILE_BYTES {
        return fail(None, format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return fail(None, "is not UTF-8 text".to_owned());
    };
    let mut builder = Builder {
        path: Arc::from(path),
        values,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        aliased: 0,
        root: None,
        faults: Vec::new(),
    };
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let step = match event {
            Ok((event, span)) => builder.take(event, span.start.line()),
            Err(error) => {
                Err(Fault::of_file(path, Some(error.marker().line()), format!("is not valid YAML: {}", error.info())))
            }
        };
        if let Err(fault) = step {
            builder.faults.push(fault);
            return (None, builder.faults);
        }
    }
    let root = builder.root.unwrap_or_else(|| Node::new(Value::Null, builder_origin(path, values, 1)));
    (Some(root), builder.faults)
}

fn builder_origin(path: &str, values: bool, line: usize) -> Origin {
    let path = Arc::from(path);
    if values { Origin::Values { path, line } } else { Origin::File { path, line } }
}

/// Nodes from events, without recursion.
struct Builder {
    path: Arc<str>,
    values: bool,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
    faults: Vec<Fault>,
}

/// A list or map whose end has not come yet.
struct Open {
    anchor: usize,
    origin: Origin,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: BTreeSet<String>, key: Option<Key> },
}

impl Builder {
    fn origin(&self, line: usize) -> Origin {
        let path = Arc::clone(&self.path);
        if self.values { Origin::Values { path, line } } else { Origin::File { path, line } }
    }

    fn fault(&self, line: usize, text: impl Into<String>) -> Fault {
        Fault::of_file(&self.path, Some(line), text)
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Fault> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.fault(line, "holds a second document; one file is one document"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain
                    || tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let value = match text.as_ref() {
                    text if quoted => Value::Text(text.to_owned()),
                    "" | "~" | "null" | "Null" | "NULL" => Value::Null,
                    text => plain(text),
                };
                // A key keeps its text: `on` and `null` are words there.
                let key = matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }));
                let value = if key { Value::Text(text.into_owned()) } else { value };
                self.add(Node::new(value, self.origin(line)), anchor, line)
            }
            Event::SequenceStart(anchor, _) => self.start(anchor, line, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(anchor, line, Content::Map { entries: Vec::new(), seen: BTreeSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                None => Err(self.fault(line, "is not valid YAML: an end without a start")),
                Some(Open { anchor, origin, content }) => {
                    let value = match content {
                        Content::List(items) => Value::List(items),
                        Content::Map { entries, .. } => Value::Map(entries),
                    };
                    self.add(Node::new(value, origin), anchor, line)
                }
            },
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.fault(line, "an alias stands inside its own anchor"));
                };
                self.aliased = self.aliased.saturating_add(node.size());
                if self.aliased > MAX_ALIASED_NODES {
                    return Err(self.fault(line, "aliases copy too much"));
                }
                self.add(node, 0, line)
            }
        }
    }

    fn start(&mut self, anchor: usize, line: usize, content: Content) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.fault(line, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(self.fault(line, "a key must be a word, not a list or a map"));
        }
        let origin = self.origin(line);
        self.open.push(Open { anchor, origin, content });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, line: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.aliased = self.aliased.saturating_add(node.size());
            if self.aliased > MAX_ALIASED_NODES * 10 {
                return Err(self.fault(line, "anchors copy too much"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        let mut duplicate = None;
        let mut no_word = false;
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, seen, key }) => match key.take() {
                None => match node.value {
                    Value::Text(text) | Value::Plain(text) => *key = Some(Key { text, origin: node.origin }),
                    Value::Null | Value::List(_) | Value::Map(_) => no_word = true,
                },
                Some(word) if !seen.insert(word.text.clone()) => duplicate = Some(word.text),
                Some(word) => entries.push((word, node)),
            },
        }
        if no_word {
            return Err(self.fault(line, "a key must be a word, not a list or a map"));
        }
        if let Some(word) = duplicate {
            let fault = self.fault(line, format!("`{word}` stands here for the second time; keep one"));
            self.faults.push(fault);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        let (node, faults) = read("t.yml", text.as_bytes(), false);
        assert_eq!(faults, vec![], "{text}");
        node.unwrap()
    }

    fn fault(text: &str) -> String {
        let (_, faults) = read("t.yml", text.as_bytes(), false);
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn scalars_keep_their_text_and_know_whether_they_are_words() {
        for (yaml, expected) in [
            ("a", Value::Text("a".into())),
            ("0123", Value::Plain("0123".into())),
            ("'0123'", Value::Text("0123".into())),
            ("!!str 12", Value::Text("12".into())),
            ("yes", Value::Plain("yes".into())),
            ("Off", Value::Plain("Off".into())),
            ("oFF", Value::Text("oFF".into())),
            ("1_000", Value::Plain("1_000".into())),
            ("-1.5e3", Value::Plain("-1.5e3".into())),
            ("0x1F", Value::Plain("0x1F".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("infinity", Value::Text("infinity".into())),
            ("~", Value::Null),
            ("", Value::Null),
            (r#"'pa$$w\o"rd '"#, Value::Text(r#"pa$$w\o"rd "#.into())),
            (r#""a\\b\"c""#, Value::Text(r#"a\b"c"#.into())),
        ] {
            assert_eq!(node(yaml).value, expected, "{yaml}");
        }
    }

    #[test]
    fn lines_count_from_one() {
        let Value::Map(entries) = node("\n# c\na: 1\nb:\n  - x\n").value else { panic!() };
        assert_eq!(entries[0].1.origin, Origin::File { path: "t.yml".into(), line: 3 });
        assert_eq!(entries[1].0.origin, Origin::File { path: "t.yml".into(), line: 4 });
    }

    #[test]
    fn json_is_read_as_well() {
        let Value::Map(entries) = node("{\n\t\"a\": [1, true, null, \"x\"],\n\t\"b\": {\"c\": \"d\"}\n}").value else {
            panic!()
        };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn an_alias_copies_its_anchor() {
        let Value::Map(entries) = node("a: &x [1, 2]\nb: *x\n").value else { panic!() };
        assert_eq!(entries[0].1.value, entries[1].1.value);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, expected) in [
            ("a: 1\na: 2\n", "t.yml:2: `a` stands here for the second time; keep one"),
            ("a: 1\n---\nb: 2\n", "t.yml:2: holds a second document; one file is one document"),
            ("? [a]\n: b\n", "t.yml:1: a key must be a word, not a list or a map"),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        assert!(fault("a: [1\n").starts_with("t.yml:2: is not valid YAML: "), "{}", fault("a: [1\n"));
        assert_eq!(read("t.yml", b"\xff\xfe", false).1[0].to_string(), "t.yml: is not UTF-8 text");
    }

    #[test]
    fn hostile_files_end_in_a_fault() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        assert!(fault(bomb).contains("copy too much"), "{}", fault(bomb));
        assert!(fault(&"- ".repeat(100_000)).contains("nested deeper"));
        assert!(fault(&"? ".repeat(100_000)).contains("a key must be a word"));
        assert!(!fault(&"[".repeat(100_000)).is_empty());
        assert!(fault(&" ".repeat(MAX_FILE_BYTES + 1)).contains("larger"));
        assert!(fault("a: &x [*x]").contains("alias"), "{}", fault("a: &x [*x]"));
    }
}
