//! What a property is, and which file knows which: one table drives what is accepted, flat keys, suggestions and what is refused.
//!
//! The rows stand in [`super::table`]. It knows no values; [`Property`] is its main type.

use super::table;

/// The files that this sidecar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum File {
    Producer,
    Consumer,
    Admin,
    Server,
    Health,
    Client,
    Security,
    Service,
    Sidecar,
}

impl File {
    pub(super) const ALL: [Self; 9] = [
        Self::Producer,
        Self::Consumer,
        Self::Admin,
        Self::Server,
        Self::Health,
        Self::Client,
        Self::Security,
        Self::Service,
        Self::Sidecar,
    ];

    /// The file's name without its extension, which is also what flat keys begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Producer => "kafka-producer",
            Self::Consumer => "kafka-consumer",
            Self::Admin => "kafka-admin",
            Self::Server => "server",
            Self::Health => "health",
            Self::Client => "client",
            Self::Security => "security",
            Self::Service => "service",
            Self::Sidecar => "sidecar",
        }
    }

    /// The shipped file, which is the default of everything in it.
    pub(super) fn shipped(self) -> &'static str {
        match self {
            Self::Producer => include_str!("../../config/kafka-producer.yml"),
            Self::Consumer => include_str!("../../config/kafka-consumer.yml"),
            Self::Admin => include_str!("../../config/kafka-admin.yml"),
            Self::Server => include_str!("../../config/server.yml"),
            Self::Health => include_str!("../../config/health.yml"),
            Self::Client => include_str!("../../config/client.yml"),
            Self::Security => include_str!("../../config/security.yml"),
            Self::Service => include_str!("../../config/service.yml"),
            Self::Sidecar => include_str!("../../config/sidecar.yml"),
        }
    }

    /// The tables of its properties, each with the map inside the file that they stand in.
    pub(super) fn tables(self) -> &'static [(Option<&'static str>, &'static [Property])] {
        const KAFKA: Option<&str> = Some("properties");
        match self {
            Self::Producer => &[
                (KAFKA, table::CONNECTION),
                (KAFKA, table::SECURITY_TO_KAFKA),
                (KAFKA, table::PRODUCER_KAFKA),
                (None, table::PRODUCER),
            ],
            Self::Consumer => &[
                (KAFKA, table::CONNECTION),
                (KAFKA, table::SECURITY_TO_KAFKA),
                (KAFKA, table::CONSUMER_KAFKA),
                (None, table::CONSUMER),
            ],
            Self::Admin => &[
                (KAFKA, table::CONNECTION),
                (KAFKA, table::SECURITY_TO_KAFKA),
                (KAFKA, table::ADMIN_KAFKA),
                (None, table::ADMIN),
            ],
            Self::Server => &[(None, table::SERVER)],
            Self::Health => &[(None, table::HEALTH)],
            Self::Client => {
                &[(Some("tls"), table::CLIENT_TLS), (Some("request"), table::CLIENT_REQUEST), (None, table::CLIENT)]
            }
            Self::Security => &[(Some("jwt"), table::SECURITY_JWT), (None, table::SECURITY)],
            Self::Service => &[(None, table::SERVICE)],
            Self::Sidecar => &[(None, table::SIDECAR)],
        }
    }

    /// All its properties.
    pub(super) fn properties(self) -> impl Iterator<Item = &'static Property> {
        self.tables().iter().flat_map(|(_, rows)| rows.iter())
    }

    /// The property of that name, and the map that it stands in.
    pub(super) fn find(self, name: &str) -> Option<(Option<&'static str>, &'static Property)> {
        self.tables().iter().find_map(|(group, rows)| rows.iter().find(|row| row.name == name).map(|row| (*group, row)))
    }

    /// Whether the file has a map of that name which holds properties.
    pub(super) fn has_group(self, name: &str) -> bool {
        self.tables().iter().any(|(group, _)| *group == Some(name))
    }

    /// The file and property of a flat key. Of two files whose names begin alike the longer counts.
    pub(super) fn of_flat_key(key: &str) -> Option<(Self, &str)> {
        Self::ALL
            .into_iter()
            .filter_map(|file| Some((file, key.strip_prefix(file.name())?.strip_prefix('.')?)))
            .max_by_key(|(file, _)| file.name().len())
    }

    /// The name among those of this file that is nearest to `name`, if any is near.
    pub(super) fn nearest(self, name: &str) -> Option<&'static str> {
        nearest(name, self.properties().map(|property| property.name))
    }
}

/// One row: everything about a property but its value.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) status: Status,
    /// Never shown.
    pub(super) secret: bool,
    /// Values that mean unset: what shipped files carry so that the line is there.
    pub(super) dummies: &'static [&'static str],
    /// Values that count only if somebody wrote them down, and not as the default of a placeholder, as copies of old files have them.
    pub(super) old_defaults: &'static [&'static str],
}

/// What a value may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    /// A whole number of `unit`, both bounds included.
    Number {
        min: i64,
        max: i64,
        unit: &'static str,
    },
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    Format,
    /// Words, separated by commas or as a YAML list.
    List,
    /// `host:port`, separated by commas.
    Servers,
    Topic,
    Topics,
    /// What may stand at the end of a topic's name.
    TopicSuffix,
    /// http or https, host and port; no path.
    Url,
    /// The path of a URL.
    UrlPath,
    /// An IP address or `localhost`.
    Ip,
    /// A level, or levels by target.
    LogFilter,
    /// Java names and their values.
    Map,
    /// Nobody looks at it.
    Any,
}

/// What this sidecar does with a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Used,
    /// Known, without any effect here, for this reason.
    Idle(&'static str),
    /// It belongs to a part that is not built yet: refused.
    Later(Part),
}

/// Parts that are not built yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Registry,
    Https,
    Jwt,
    Other(&'static str),
}

impl Property {
    pub(super) const fn used(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, status: Status::Used, secret: false, dummies: &[], old_defaults: &[] }
    }

    pub(super) const fn idle(name: &'static str, why: &'static str) -> Self {
        Self { name, kind: Kind::Any, status: Status::Idle(why), secret: false, dummies: &[], old_defaults: &[] }
    }

    pub(super) const fn later(name: &'static str, part: Part) -> Self {
        Self { name, kind: Kind::Text, status: Status::Later(part), secret: false, dummies: &[], old_defaults: &[] }
    }

    pub(super) const fn flag(self) -> Self {
        Self { kind: Kind::Flag, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) const fn dummy(self, dummies: &'static [&'static str]) -> Self {
        Self { dummies, ..self }
    }

    pub(super) const fn old_default(self, old_defaults: &'static [&'static str]) -> Self {
        Self { old_defaults, ..self }
    }
}

/// The nearest of `names` by edit distance; None if none is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; a longer text is no misspelling of one.
    if name.len() > 120 {
        return None;
    }
    nearest_within((name.chars().count() / 3).clamp(2, 4), name, names)
}

/// The nearest of `names`, at most so many edits away.
pub(super) fn nearest_within<'a>(allowed: usize, name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = if from == *to { diagonal } else { diagonal.min(*above).min(left) + 1 };
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "acb", 2), ("same", "same", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_misspelt_name_is_recognised() {
        for (file, name, expected) in [
            (File::Producer, "lingr.ms", Some("linger.ms")),
            (File::Producer, "keyformat", Some("keyFormat")),
            (File::Consumer, "max.poll.record", Some("max.poll.records")),
            (File::Consumer, "backendApiHosts", Some("backendApiHost")),
            (File::Server, "port", None),
            (File::Server, "http_port", Some("httpPort")),
            (File::Server, "quite something else", None),
        ] {
            assert_eq!(file.nearest(name), expected, "{name}");
        }
    }

    #[test]
    fn no_file_knows_a_name_twice() {
        for file in File::ALL {
            let mut seen = BTreeSet::new();
            for property in file.properties() {
                assert!(seen.insert(property.name), "{}.{}", file.name(), property.name);
            }
        }
    }

    #[test]
    fn a_flat_key_is_split_at_its_file() {
        assert_eq!(File::of_flat_key("kafka-producer.linger.ms"), Some((File::Producer, "linger.ms")));
        assert_eq!(File::of_flat_key("service.com.networknt.x"), Some((File::Service, "com.networknt.x")));
        assert_eq!(File::of_flat_key("servers.x"), None);
        assert_eq!(File::of_flat_key("server"), None);
    }
}
