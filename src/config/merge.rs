//! One value for every property: `--set`, then what the property's file says, then environment and values.yml, then the shipped file.
//!
//! A file's own text stands above the flat key, as it did in light-4j, where only placeholders are filled; a key that the file leaves
//! out can be given flat all the same. It knows names and places, not types. [`Merged`] is its main type.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    fault::Fault,
    placeholder::{Resolver, environment_name},
    property::{File, Kind, Property, Status, nearest, nearest_within},
    search::Found,
    source::{Key, Node, Origin, Value, read},
    table,
};

/// So many unknown keys of values.yml are named one by one.
const MAX_NAMED: usize = 50;

pub(super) type Nodes = BTreeMap<(File, &'static str), Node>;

/// What is given for every property, and what the shipped files say of it.
pub(super) struct Merged {
    pub(super) nodes: Nodes,
    pub(super) defaults: Nodes,
    /// `key (why)` of what was given and has no effect here.
    pub(super) idle: Vec<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

/// Puts everything together. Faults and warnings of the placeholders are in the result.
pub(super) fn merge(found: Found, set: &[(String, String)], environment: &BTreeMap<String, String>) -> Merged {
    let mut merged =
        Merged { nodes: Nodes::new(), defaults: shipped(), idle: Vec::new(), faults: Vec::new(), warnings: Vec::new() };
    let mut resolver = Resolver::new(set, environment, found.values);
    let mut written = Nodes::new();
    for (file, node) in &found.files {
        let node = resolver.resolve("", node);
        flatten(*file, node, &mut written, &mut merged.faults);
    }
    for file in File::ALL {
        let extra = additional(file, &mut resolver, &written, &mut merged);
        for property in file.properties() {
            let node = choose(file, property, &mut resolver, &written, &extra, &merged.defaults, &mut merged.warnings);
            merged.nodes.insert((file, property.name), node);
        }
    }
    for file in File::ALL {
        for property in file.properties() {
            let Some(node) = merged.nodes.get_mut(&(file, property.name)) else { continue };
            if is_dummy(property, node) {
                *node = Node::new(Value::Null, Origin::Default);
            }
            if let Status::Idle(why) = property.status
                && !node.is_unset()
            {
                merged.idle.push(format!("{}.{} ({why})", file.name(), property.name));
            }
        }
    }
    let mut unknown = found.strangers;
    unknown.extend(misspelt_variables(&resolver, environment));
    unknown_keys(&resolver, set, unknown, &mut merged);
    merged.faults.append(&mut resolver.faults);
    merged.warnings.append(&mut resolver.warnings);
    merged
}

/// The shipped files, resolved by themselves.
fn shipped() -> Nodes {
    let (mut nodes, mut faults) = (Nodes::new(), Vec::new());
    let nothing = BTreeMap::new();
    let mut resolver = Resolver::new(&[], &nothing, Vec::new());
    for file in File::ALL {
        let (node, more) = read(file.name(), file.shipped().as_bytes(), false);
        faults.extend(more);
        if let Some(node) = node {
            let node = resolver.resolve("", &node);
            flatten(file, node, &mut nodes, &mut faults);
        }
    }
    for node in nodes.values_mut() {
        node.origin = Origin::Default;
    }
    debug_assert!(faults.is_empty(), "{faults:?}");
    nodes
}

/// The value of one property by precedence.
fn choose(
    file: File,
    property: &'static Property,
    resolver: &mut Resolver<'_>,
    written: &Nodes,
    extra: &BTreeMap<&'static str, Node>,
    defaults: &Nodes,
    warnings: &mut Vec<String>,
) -> Node {
    let place = (file, property.name);
    let flat = format!("{}.{}", file.name(), property.name);
    let given = resolver.lookup(&flat).or_else(|| {
        // The password stands in old files as ${KAFKA_PRODUCER_PASSWORD}, also as a key of values.yml.
        (property.name == "password").then(|| resolver.lookup(&environment_name(&flat))).flatten()
    });
    let own = written.get(&place);
    let extra = extra.get(property.name);
    match (given, own) {
        (Some(given), _) if given.origin == Origin::Set => given,
        (given, Some(own)) => {
            if matches!(own.origin, Origin::Environment(_) | Origin::Values { .. } | Origin::Set) {
                return own.clone();
            }
            if let Some(given) = given {
                warnings.push(format!(
                    "{flat}: {} does not count, because {} says something of its own; write ${{{flat}:…}} there",
                    given.origin, own.origin
                ));
            }
            extra.unwrap_or(own).clone()
        }
        (Some(given), None) => given,
        (None, None) => {
            extra.or_else(|| defaults.get(&place)).cloned().unwrap_or_else(|| Node::new(Value::Null, Origin::Default))
        }
    }
}

/// The entries of `additionalKafkaProperties`, which count like lines under `properties`.
fn additional(
    file: File,
    resolver: &mut Resolver<'_>,
    written: &Nodes,
    merged: &mut Merged,
) -> BTreeMap<&'static str, Node> {
    const NAME: &str = "additionalKafkaProperties";
    let mut entries = BTreeMap::new();
    let Some((_, property)) = file.find(NAME).filter(|(_, property)| property.kind == Kind::Map) else {
        return entries;
    };
    // Said once, when its turn comes among the properties.
    let mut unsaid = Vec::new();
    let node = choose(file, property, resolver, written, &BTreeMap::new(), &Nodes::new(), &mut unsaid);
    let key = format!("{}.{NAME}", file.name());
    let map = match &node.value {
        Value::Null => return entries,
        Value::Map(map) => map.clone(),
        // From the environment or --set: the map as text, `{linger.ms: 5}`.
        Value::Text(text) => match read(&key, text.as_bytes(), false) {
            (Some(Node { value: Value::Map(map), .. }), faults) if faults.is_empty() => {
                map.into_iter().map(|(name, value)| (name, Node { origin: node.origin.clone(), ..value })).collect()
            }
            _ if text.is_empty() => return entries,
            _ => {
                let text = "must be a map of Kafka's property names and their values, `{linger.ms: 5}`";
                merged.faults.push(Fault::new(&node.origin, key, text));
                return entries;
            }
        },
        Value::Plain(_) | Value::List(_) => {
            let text = "must be a map of Kafka's property names and their values";
            merged.faults.push(Fault::new(&node.origin, key, text));
            return entries;
        }
    };
    for (name, value) in map {
        match file.find(&name.text) {
            Some((Some("properties"), property)) => {
                entries.insert(property.name, value);
            }
            _ => {
                let kafka = file.properties().map(|property| property.name);
                let kafka = kafka.filter(|name| matches!(file.find(name), Some((Some(_), _))));
                let key = format!("{key}.{}", name.text);
                merged.faults.push(unknown(&value.origin, key, nearest(&name.text, kafka)));
            }
        }
    }
    entries
}

/// The properties of a file's document by name; what does not belong there is a fault.
fn flatten(file: File, root: Node, nodes: &mut Nodes, faults: &mut Vec<Fault>) {
    let entries = match root.value {
        Value::Map(entries) => entries,
        Value::Null => return,
        Value::Text(_) | Value::Plain(_) | Value::List(_) => {
            faults.push(Fault::new(&root.origin, file.name(), "must hold keys and their values"));
            return;
        }
    };
    for (key, node) in entries {
        if file == File::Service && key.text == "singletons" {
            singletons(key, node, nodes);
        } else if file.has_group(&key.text) {
            match node.value {
                Value::Map(entries) => {
                    for (inner, node) in entries {
                        place(file, Some(&key.text), inner, node, nodes, faults);
                    }
                }
                Value::Null => {}
                Value::Text(_) | Value::Plain(_) | Value::List(_) => {
                    faults.push(Fault::new(&node.origin, key.text, "must hold keys and their values"));
                }
            }
        } else {
            place(file, None, key, node, nodes, faults);
        }
    }
}

fn place(file: File, group: Option<&str>, key: Key, node: Node, nodes: &mut Nodes, faults: &mut Vec<Fault>) {
    let flat = format!("{}.{}", file.name(), key.text);
    match file.find(&key.text) {
        Some((found, property)) if found == group => {
            nodes.insert((file, property.name), node);
        }
        Some((Some(found), _)) => faults.push(Fault::new(&key.origin, flat, format!("belongs under `{found}:`"))),
        Some((None, _)) => {
            faults.push(Fault::new(&key.origin, flat, format!("belongs at the top of {}.yml", file.name())));
        }
        None => match key.text.strip_prefix(file.name()).and_then(|rest| rest.strip_prefix('.')) {
            Some(name) if file.find(name).is_some() => {
                let text = format!("write `{name}` here; the key with the file's name belongs into values.yml");
                faults.push(Fault::new(&key.origin, key.text.clone(), text));
            }
            _ => faults.push(unknown(&key.origin, flat, file.nearest(&key.text))),
        },
    }
}

fn unknown(origin: &Origin, key: String, near: Option<&str>) -> Fault {
    let text = match near {
        Some(near) => format!("there is no such property; did you mean {near}?"),
        None => "there is no such property; remove it".to_owned(),
    };
    Fault::new(origin, key, text)
}

/// service.yml lists maps of one class each. Only the hook lists say something here.
fn singletons(key: Key, node: Node, nodes: &mut Nodes) {
    let mut others = false;
    let items = match node.value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        Value::Text(_) | Value::Plain(_) | Value::Map(_) => vec![node],
    };
    for item in items {
        let Value::Map(entries) = item.value else {
            others |= !matches!(item.value, Value::Null);
            continue;
        };
        for (class, list) in entries {
            match File::Service.find(&class.text) {
                Some((_, property)) if property.kind == Kind::List => {
                    nodes.insert((File::Service, property.name), list);
                }
                _ => others = true,
            }
        }
    }
    if others && let Some((_, property)) = File::Service.find("singletons") {
        nodes.insert((File::Service, property.name), Node::new(Value::Text("classes".to_owned()), key.origin));
    }
}

/// Values that files carry so that the line is there, or because the Java sidecar's files did.
fn is_dummy(property: &Property, node: &Node) -> bool {
    let Some(text) = node.text() else { return false };
    if node.fallback && node.origin != Origin::Default && property.old_defaults.contains(&text) {
        return true;
    }
    let absent = |paths: &[&str]| paths.contains(&text) && !Path::new(text).exists();
    match property.name {
        "ssl.truststore.location" | "schema.registry.ssl.truststore.location" => {
            absent(&["/config/client.truststore", "/truststore/kafka.server.truststore.jks"])
        }
        "sasl.jaas.config" => text.contains("username=\"username\"") && text.contains("password=\"password\""),
        _ => property.dummies.contains(&text),
    }
}

/// Keys that nobody asked for: of values.yml and files that are not ours a warning, of `--set` a fault.
fn unknown_keys(resolver: &Resolver<'_>, set: &[(String, String)], strangers: Vec<String>, merged: &mut Merged) {
    let mut items: Vec<String> = strangers;
    let unasked: Vec<_> = resolver.value_keys().filter(|(key, _)| !resolver.asked.contains(*key)).collect();
    for (key, origin) in unasked.iter().take(MAX_NAMED) {
        match nearest_flat(key) {
            Some(near) => items.push(format!("{key} ({origin}; did you mean {near}?)")),
            None => items.push(format!("{key} ({origin})")),
        }
    }
    if unasked.len() > MAX_NAMED {
        items.push(format!("and {} more", unasked.len() - MAX_NAMED));
    }
    let mut seen = BTreeSet::new();
    for (key, _) in set.iter().filter(|(key, _)| !resolver.asked.contains(key)) {
        if !seen.insert(key) {
            continue;
        }
        if table::FOREIGN.iter().any(|file| key.strip_prefix(file).is_some_and(|rest| rest.starts_with('.'))) {
            items.push(format!("{key} (--set)"));
            continue;
        }
        let text = match nearest_flat(key) {
            Some(near) => format!("there is no such key; did you mean {near}?"),
            None => "there is no such key; keys are <file>.<property>, as in the shipped files".to_owned(),
        };
        merged.faults.push(Fault::new(&Origin::Set, key, text));
    }
    if !items.is_empty() {
        merged.warnings.push(format!("not known here, without effect: {}", items.join(", ")));
    }
}

/// Variables that are probably meant for us: named like a Kafka file or `sidecar`, and almost like a property of it.
fn misspelt_variables(resolver: &Resolver<'_>, environment: &BTreeMap<String, String>) -> Vec<String> {
    let asked: BTreeSet<String> = resolver.asked.iter().map(|key| environment_name(key)).collect();
    let mut found = Vec::new();
    for file in [File::Producer, File::Consumer, File::Admin, File::Sidecar] {
        let prefix = environment_name(&format!("{}.", file.name()));
        let known: Vec<String> = file.properties().map(|property| environment_name(property.name)).collect();
        for name in environment.keys().filter(|name| !asked.contains(*name)) {
            if let Some(rest) = name.strip_prefix(&prefix)
                && rest.len() <= 120
                && let Some(near) = nearest_within(2, rest, known.iter().map(String::as_str))
            {
                found.push(format!("{name} (environment; did you mean {prefix}{near}?)"));
            }
        }
    }
    found
}

fn nearest_flat(key: &str) -> Option<String> {
    if let Some((file, name)) = File::of_flat_key(key)
        && let Some(near) = file.nearest(name)
    {
        return Some(format!("{}.{near}", file.name()));
    }
    if table::FOREIGN.iter().any(|file| key.strip_prefix(file).is_some_and(|rest| rest.starts_with('.'))) {
        return None;
    }
    // A misspelt file, or no file at all.
    let flat: Vec<String> = File::ALL
        .into_iter()
        .flat_map(|file| file.properties().map(move |property| format!("{}.{}", file.name(), property.name)))
        .collect();
    nearest(key, flat.iter().map(String::as_str)).map(str::to_owned)
}
