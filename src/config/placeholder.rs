//! Placeholders, `${key:default}`: what light-4j's configuration resolves, by the same rules.
//!
//! A key is looked up in `--set`, then in the environment (upper-cased, every character that is no letter or digit turned to `_`), then
//! in values.yml by its flat name; else the default counts, typed as YAML 1.1 types it. `${k}` and `${k:}` without a value are null,
//! `${k:?text}` is an error with that text, `${k:$}` stays as `${k}`. A value that is no text replaces the whole scalar. Placeholders
//! do not nest, and what was filled in is not looked at again. [`Resolver`] is the main type.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fault::Fault,
    source::{Key, Node, Origin, Value, plain},
};

/// How deep entries of values.yml may refer to each other.
const MAX_CHAIN: usize = 16;
/// What all placeholders together may fill in, in nodes and bytes.
const MAX_FILLED: usize = 8 * 1024 * 1024;
/// A value that light-4j's encryptor made.
const ENCRYPTED: &str = "CRYPT:";

/// Looks keys up and fills placeholders. Faults and warnings collect in it.
pub(super) struct Resolver<'a> {
    set: BTreeMap<&'a str, &'a str>,
    environment: &'a BTreeMap<String, String>,
    values: BTreeMap<String, Node>,
    resolved: BTreeMap<String, Node>,
    /// The entries of values.yml that are being resolved, outermost first.
    chain: Vec<String>,
    filled: usize,
    /// Every key that was asked for.
    pub(super) asked: BTreeSet<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// `values` are the entries of values.yml, keys not yet resolved; of `set` the last wins.
    pub(super) fn new(
        set: &'a [(String, String)],
        environment: &'a BTreeMap<String, String>,
        values: Vec<(Key, Node)>,
    ) -> Self {
        let mut resolver = Self {
            set: set.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            environment,
            values: BTreeMap::new(),
            resolved: BTreeMap::new(),
            chain: Vec::new(),
            filled: 0,
            asked: BTreeSet::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        };
        let (plain_keys, computed): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|(key, _)| !key.text.contains("${"));
        resolver.values = plain_keys.into_iter().map(|(key, node)| (key.text, node)).collect();
        for (key, node) in computed {
            let key = resolver.key(&key);
            resolver.values.insert(key.text, node);
        }
        resolver
    }

    /// The keys of values.yml, with the line of each.
    pub(super) fn value_keys(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.values.iter().map(|(key, node)| (key.as_str(), &node.origin))
    }

    /// What `--set`, the environment or values.yml say of a key; a null that is written down is a value.
    pub(super) fn lookup(&mut self, key: &str) -> Option<Node> {
        self.asked.insert(key.to_owned());
        if let Some(found) = self.lookup_set(key) {
            return Some(found);
        }
        let name = environment_name(key);
        if let Some(text) = self.environment.get(&name) {
            let node = Node::new(Value::Text(text.clone()), Origin::Environment(name));
            return Some(self.refuse_encrypted(key, node));
        }
        if let Some(node) = self.resolved.get(key) {
            return Some(node.clone());
        }
        // An entry that names itself means what stands above it: the environment, else the default.
        if self.chain.last().is_some_and(|last| last == key) {
            return None;
        }
        let raw = self.values.get(key)?.clone();
        if self.chain.len() >= MAX_CHAIN || self.chain.iter().any(|other| other == key) {
            let text = "this entry refers to itself through others, or through too many";
            self.faults.push(Fault::new(&raw.origin, key, text));
            return Some(Node::new(Value::Null, raw.origin));
        }
        self.chain.push(key.to_owned());
        let node = self.resolve(key, &raw);
        self.chain.pop();
        self.resolved.insert(key.to_owned(), node.clone());
        Some(node)
    }

    /// What `--set` says of a key.
    pub(super) fn lookup_set(&mut self, key: &str) -> Option<Node> {
        let text = *self.set.get(key)?;
        self.asked.insert(key.to_owned());
        Some(self.refuse_encrypted(key, Node::new(Value::Text(text.to_owned()), Origin::Set)))
    }

    /// Fills every placeholder in `node`; `at` is the flat key that faults name.
    pub(super) fn resolve(&mut self, at: &str, node: &Node) -> Node {
        match &node.value {
            Value::Null | Value::Plain(_) => node.clone(),
            Value::Text(text) => {
                let filled = self.fill(at, text, node);
                self.refuse_encrypted(at, filled)
            }
            Value::List(items) => {
                let items = items.iter().map(|item| self.resolve(at, item)).collect();
                Node { value: Value::List(items), ..node.clone_place() }
            }
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, item)| {
                        let key = self.key(key);
                        let below = if at.is_empty() { key.text.clone() } else { format!("{at}.{}", key.text) };
                        (key, self.resolve(&below, item))
                    })
                    .collect();
                Node { value: Value::Map(entries), ..node.clone_place() }
            }
        }
    }

    /// A key of a map, its placeholders filled; one that becomes no text stays as it is.
    pub(super) fn key(&mut self, key: &Key) -> Key {
        let node = Node::new(Value::Text(key.text.clone()), key.origin.clone());
        let filled = self.fill(&key.text, &key.text, &node);
        match filled.text() {
            Some(text) => Key { text: text.to_owned(), origin: key.origin.clone() },
            None => {
                self.faults.push(Fault::new(&key.origin, &key.text, "a key must become a word"));
                key.clone()
            }
        }
    }

    fn fill(&mut self, at: &str, text: &str, place: &Node) -> Node {
        let mut out = String::new();
        let mut rest = text;
        let mut origin = None;
        let mut any = false;
        let mut answered = false;
        while let Some((before, inside, after)) = next_placeholder(rest) {
            out.push_str(before);
            rest = after;
            let (key, default) = match inside.split_once(':') {
                Some((key, default)) => (key.trim(), Some(default.trim())),
                None => (inside.trim(), None),
            };
            if key.is_empty() {
                out.push_str("${");
                out.push_str(inside);
                out.push('}');
                continue;
            }
            any = true;
            let node = match self.lookup(key) {
                Some(node) => {
                    answered = true;
                    origin = Some(node.origin.clone());
                    node
                }
                None => Node::new(self.default_of(at, key, default, place), place.origin.clone()),
            };
            self.filled = self.filled.saturating_add(node.size());
            if self.filled > MAX_FILLED {
                if self.filled != usize::MAX {
                    self.faults.push(Fault::new(&place.origin, at, "placeholders fill in too much"));
                    self.filled = usize::MAX;
                }
                return Node::new(Value::Null, place.origin.clone());
            }
            match node.value {
                Value::Text(text) => out.push_str(&text),
                value => {
                    if text.trim() != format!("${{{inside}}}") {
                        let what = if matches!(value, Value::Null) { "nothing" } else { "no text" };
                        let line = format!(
                            "{at} ({}): the text around ${{{key}}} is dropped, because its value is {what}; put the value in quotes",
                            place.origin
                        );
                        if place.origin != Origin::Default {
                            self.warnings.push(line);
                        }
                    }
                    let fallback = !answered;
                    return Node { value, origin: origin.unwrap_or_else(|| place.origin.clone()), fallback };
                }
            }
        }
        out.push_str(rest);
        Node {
            value: Value::Text(out),
            origin: origin.unwrap_or_else(|| place.origin.clone()),
            fallback: any && !answered,
        }
    }

    fn default_of(&mut self, at: &str, key: &str, default: Option<&str>, place: &Node) -> Value {
        match default {
            None | Some("") => Value::Null,
            Some("$") => Value::Text(format!("${{{key}}}")),
            Some(text) => match text.strip_prefix('?') {
                Some(message) => {
                    let message = if message.is_empty() { "must be set" } else { message };
                    let text = format!("{message} (set {key} in values.yml or {})", environment_name(key));
                    self.faults.push(Fault::new(&place.origin, at, text));
                    Value::Null
                }
                None => plain(text),
            },
        }
    }

    fn refuse_encrypted(&mut self, at: &str, node: Node) -> Node {
        if !node.text().is_some_and(|text| text.starts_with(ENCRYPTED)) {
            return node;
        }
        let text = "the value is encrypted (CRYPT), and decryption is not supported; give it in clear text, \
                    best by an environment variable";
        let fault = Fault::new(&node.origin, at, text);
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
        Node::new(Value::Null, node.origin)
    }
}

impl Node {
    fn clone_place(&self) -> Node {
        Node { value: Value::Null, origin: self.origin.clone(), fallback: self.fallback }
    }
}

/// The variable that a key can be given by: `kafka-consumer.group.id` is `KAFKA_CONSUMER_GROUP_ID`.
pub(super) fn environment_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Splits at the first `${…}` that ends on its line: what stands before, inside and after it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(start) = text.get(from..)?.find("${").map(|at| at + from) {
        let inside = text.get(start + 2..)?;
        match inside.find(['}', '\n']) {
            Some(end) if inside.get(end..)?.starts_with('}') => {
                return Some((text.get(..start)?, inside.get(..end)?, inside.get(end + 1..)?));
            }
            Some(_) => from = start + 2,
            None => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::read;

    fn with<R>(
        values: &str,
        environment: &[(&str, &str)],
        set: &[(&str, &str)],
        f: impl FnOnce(&mut Resolver<'_>) -> R,
    ) -> R {
        let (node, faults) = read("values.yml", values.as_bytes(), true);
        assert_eq!(faults, vec![]);
        let entries = match node.unwrap().value {
            Value::Map(entries) => entries,
            _ => Vec::new(),
        };
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        f(&mut Resolver::new(&set, &environment, entries))
    }

    /// The value of `scalar` in a file, as `text:…`, `plain:…`, `null` or the shape of a collection.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Text(text) => format!("text:{text}"),
            Value::Plain(text) => format!("plain:{text}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, item)| format!("{}={}", key.text, show(item)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    fn check(values: &str, environment: &[(&str, &str)], set: &[(&str, &str)], scalar: &str, expected: &str) {
        with(values, environment, set, |resolver| {
            let node = Node::new(Value::Text(scalar.to_owned()), Origin::File { path: "f.yml".into(), line: 1 });
            let filled = resolver.resolve("f.k", &node);
            assert_eq!(show(&filled), expected, "{scalar} with {values:?}");
            assert_eq!(resolver.faults, vec![], "{scalar}");
        });
    }

    #[test]
    fn defaults_are_typed_as_yaml_1_1_types_them() {
        for (scalar, expected) in [
            ("${k:abc}", "text:abc"),
            ("${k: abc }", "text:abc"),
            ("${ k :abc}", "text:abc"),
            ("${k:5}", "plain:5"),
            ("${k:-1}", "plain:-1"),
            ("${k:1.5}", "plain:1.5"),
            ("${k:true}", "plain:true"),
            ("${k:Y}", "plain:Y"),
            ("${k:off}", "plain:off"),
            ("${k:null}", "text:null"),
            ("${k}", "null"),
            ("${k:}", "null"),
            ("${k: }", "null"),
            ("${k:$}", "text:${k}"),
            ("${k:$x}", "text:$x"),
            ("${k:http://localhost:8081}", "text:http://localhost:8081"),
            ("a-${k:b}-c", "text:a-b-c"),
            ("${k:a}${k:b}", "text:ab"),
            ("a-${k:1}-b", "plain:1"),
            ("a-${k}-b", "null"),
            ("${}", "text:${}"),
            ("${:x}", "text:${:x}"),
            ("$k {k} ${k", "text:$k {k} ${k"),
            ("${a\nb} ${k:x}", "text:${a\nb} x"),
            ("${a:${b}}", "text:${b}"),
            ("plain", "text:plain"),
        ] {
            check("", &[], &[], scalar, expected);
        }
    }

    #[test]
    fn values_keep_their_type_and_the_environment_is_text() {
        for (values, environment, scalar, expected) in [
            ("k: 5", &[][..], "${k:1}", "plain:5"),
            ("k: '5'", &[], "a-${k:1}-b", "text:a-5-b"),
            ("k: 5", &[], "a-${k:1}-b", "plain:5"),
            ("k:", &[], "${k:1}", "null"),
            ("k: [a, b]", &[], "${k:1}", "[text:a,text:b]"),
            ("k: {a: b}", &[], "x${k:1}", "{a=text:b}"),
            ("k: 5", &[("K", "6")], "${k:1}", "text:6"),
            ("k: 5", &[("K", "6")], "a-${k:1}-b", "text:a-6-b"),
            ("k: 5", &[("K", "")], "${k:1}", "text:"),
            ("", &[("KAFKA_CONSUMER_GROUP_ID", "g")], "${kafka-consumer.group.id:group1}", "text:g"),
            ("", &[("KAFKA_PRODUCER_PASSWORD", "p")], "${KAFKA_PRODUCER_PASSWORD:password}", "text:p"),
            ("a: {b: c}", &[], "${a.b:flat keys only}", "text:flat keys only"),
        ] {
            check(values, environment, &[], scalar, expected);
        }
    }

    #[test]
    fn set_is_above_the_environment_and_that_above_values() {
        check("k: v", &[("K", "e")], &[("k", "s"), ("k", "last")], "${k:d}", "text:last");
        check("k: v", &[("K", "e")], &[], "${k:d}", "text:e");
        check("k: v", &[], &[], "${k:d}", "text:v");
    }

    #[test]
    fn values_may_use_placeholders_themselves() {
        check("a: ${b:1}\nb: x-${c:2}\nc: '3'", &[], &[], "${a}", "text:x-3");
        check("a: ${a:own}", &[], &[], "${a}", "text:own");
        check("a: ${a:own}", &[("A", "env")], &[], "${a}", "text:env");
        check("a: [ '${b:1}', { '${c:key}': '${d:v}' } ]", &[], &[], "${a}", "[plain:1,{key=text:v}]");
        check("'${n:a}.b': x", &[], &[], "${a.b}", "text:x");
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        check("b: z", &[("A", "${b}")], &[], "${a}", "text:${b}");
    }

    #[test]
    fn credentials_survive() {
        for secret in [r#"p\a"s's$w$1 o}rd"#, r"\n\\", "$&", " lead and trail ", "#no: comment", "ä€😀"] {
            check("", &[("PASSWORD", secret)], &[], "user=\"${password:x}\";", &format!("text:user=\"{secret}\";"));
            check("", &[], &[("password", secret)], "${password:x}", &format!("text:{secret}"));
        }
        check(r#"p: 'a\b"c$d'"#, &[], &[], "${p}", r#"text:a\b"c$d"#);
    }

    fn faults(values: &str, environment: &[(&str, &str)], scalar: &str) -> String {
        with(values, environment, &[], |resolver| {
            let node = Node::new(Value::Text(scalar.to_owned()), Origin::File { path: "f.yml".into(), line: 7 });
            resolver.resolve("f.k", &node);
            resolver.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })
    }

    #[test]
    fn faults_say_where_and_what_to_do() {
        for (values, environment, scalar, expected) in [
            (
                "",
                &[][..],
                "${my.key:?give me a key}",
                "f.yml:7: f.k: give me a key (set my.key in values.yml or MY_KEY)",
            ),
            ("", &[], "${k:?}", "f.yml:7: f.k: must be set (set k in values.yml or K)"),
            (
                "a: ${b}\nb: ${a}",
                &[],
                "${a}",
                "values.yml:1: a: this entry refers to itself through others, or through too many",
            ),
        ] {
            assert_eq!(faults(values, environment, scalar), expected);
        }
        for (values, environment, scalar) in
            [("p: CRYPT:abc:def", &[][..], "${p}"), ("", &[("P", "CRYPT:abc")], "user ${p}"), ("", &[], "CRYPT:abc")]
        {
            let text = faults(values, environment, scalar);
            assert!(text.contains("decryption is not supported"), "{text}");
            assert!(!text.contains("abc"), "{text}");
            assert!(!text.contains(';') || text.matches("CRYPT").count() == 1, "{text}");
        }
    }

    #[test]
    fn expansion_is_bounded() {
        let mut values = String::from("v0: aaaaaaaaaaaaaaaa\n");
        for n in 1..=15 {
            values.push_str(&format!("v{n}: {}\n", format!("${{v{}}}", n - 1).repeat(8)));
        }
        assert!(faults(&values, &[], "${v15}").contains("fill in too much"));
        let chain: String = (0..1000).map(|n| format!("v{n}: ${{v{}}}\n", n + 1)).collect();
        assert!(faults(&chain, &[], "${v0}").contains("refers to itself"));
    }

    #[test]
    fn dropped_text_is_a_warning() {
        with("pw: 123", &[], &[], |resolver| {
            let node = Node::new(Value::Text("pw=${pw}".into()), Origin::File { path: "f.yml".into(), line: 7 });
            resolver.resolve("f.k", &node);
            assert_eq!(
                resolver.warnings,
                vec![
                    "f.k (f.yml:7): the text around ${pw} is dropped, because its value is no text; put the value in quotes"
                ]
            );
        });
    }
}
