//! From a value as written to a typed one, or a sentence that says what it must be.
//!
//! It knows kinds, not properties: what values mean together is for [`super::build`]. [`Typed`] is its main type.

use std::net::IpAddr;

use super::{
    property::Kind,
    settings::Format,
    source::{Node, Value},
};

/// The longest text of one value.
const MAX_TEXT: usize = 65_536;

/// A value that has the shape which its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    Text(String),
    Flag(bool),
    Number(i64),
    List(Vec<String>),
    Format(Format),
}

/// None for a value that says nothing. The error is a sentence about the value, to be put behind the key.
pub(super) fn check(kind: Kind, node: &Node, secret: bool) -> Result<Option<Typed>, String> {
    if node.is_unset() || matches!(kind, Kind::Any | Kind::Map) {
        return Ok(None);
    }
    if let Kind::List | Kind::Topics | Kind::Servers = kind {
        let mut words = Vec::new();
        collect(node, &mut words)?;
        for word in &mut words {
            match kind {
                Kind::Topics => topic(word)?,
                Kind::Servers => *word = server(word)?,
                _ => {}
            }
        }
        let mut unique: Vec<String> = Vec::new();
        for word in words {
            if !unique.contains(&word) {
                unique.push(word);
            }
        }
        // An empty list is a value: a hook list without hooks. Text without words is none.
        let empty = unique.is_empty() && (kind != Kind::List || node.text().is_some());
        return Ok((!empty).then_some(Typed::List(unique)));
    }
    let Some(text) = node.text() else {
        return Err("must be a single value, not a list or a map".to_owned());
    };
    if text.len() > MAX_TEXT {
        return Err(format!("is longer than {MAX_TEXT} bytes"));
    }
    let shown = if secret { "******".to_owned() } else { show(text) };
    let trimmed = text.trim();
    let typed = match kind {
        Kind::Text => Typed::Text(text.to_owned()),
        Kind::Flag => Typed::Flag(flag(trimmed).ok_or_else(|| format!("must be true or false, but is {shown}"))?),
        Kind::Number { min, max, unit } => {
            let number = trimmed.replace('_', "").parse().ok().filter(|number| (min..=max).contains(number));
            let unit = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
            Typed::Number(
                number.ok_or_else(|| format!("must be a whole number{unit} from {min} to {max}, but is {shown}"))?,
            )
        }
        Kind::Choice(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(trimmed));
            Typed::Text(word.ok_or_else(|| format!("must be {}, but is {shown}", one_of(words)))?.to_string())
        }
        Kind::Format => Typed::Format(format_of(trimmed).ok_or_else(|| {
            format!(
                "must be binary, json or string (avro, jsonschema and protobuf are not built yet), or its number \
                 0 to 5 in the order binary, json, avro, jsonschema, protobuf, string, but is {shown}"
            )
        })?),
        Kind::Topic => {
            topic(trimmed)?;
            Typed::Text(trimmed.to_owned())
        }
        Kind::TopicSuffix => {
            if !trimmed.chars().all(of_topic) || trimmed.len() > 100 {
                return Err(format!("must be letters, digits, `.`, `_` and `-`, at most 100, but is {shown}"));
            }
            Typed::Text(trimmed.to_owned())
        }
        Kind::Url => Typed::Text(url(trimmed)?),
        Kind::UrlPath => {
            if !trimmed.starts_with('/') || trimmed.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
                return Err(format!("must be a path that begins with `/`, but is {shown}"));
            }
            Typed::Text(trimmed.to_owned())
        }
        Kind::Ip => {
            let ip: Option<IpAddr> =
                if trimmed.eq_ignore_ascii_case("localhost") { Some([127, 0, 0, 1].into()) } else { trimmed.parse().ok() };
            Typed::Text(ip.ok_or_else(|| format!("must be an IP address or localhost, but is {shown}"))?.to_string())
        }
        Kind::LogFilter => Typed::Text(log_filter(trimmed).ok_or_else(|| {
            format!("must be off, error, warn, info, debug or trace, or such levels by target (`info,protocol=debug`), but is {shown}")
        })?),
        Kind::List | Kind::Topics | Kind::Servers | Kind::Map | Kind::Any => return Ok(None),
    };
    Ok(Some(typed))
}

/// A value for a message: quoted, and not longer than a line.
pub(super) fn show(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn one_of(words: &[&str]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        words => words.join(", "),
    }
}

fn collect(node: &Node, words: &mut Vec<String>) -> Result<(), String> {
    match &node.value {
        Value::Null => Ok(()),
        Value::Text(text) | Value::Plain(text) => {
            words.extend(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned));
            Ok(())
        }
        Value::List(items) => items.iter().try_for_each(|item| collect(item, words)),
        Value::Map(_) => Err("must be words separated by commas, or a list, not a map".to_owned()),
    }
}

/// The words that YAML 1.1 has for true and false, in any case.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

fn format_of(text: &str) -> Option<Format> {
    match text.to_ascii_lowercase().as_str() {
        "binary" | "0" => Some(Format::Binary),
        "json" | "1" => Some(Format::Json),
        "avro" | "2" => Some(Format::Avro),
        "jsonschema" | "3" => Some(Format::JsonSchema),
        "protobuf" | "4" => Some(Format::Protobuf),
        "string" | "5" => Some(Format::String),
        _ => None,
    }
}

fn of_topic(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Kafka's rule for names of topics.
fn topic(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(of_topic) {
        return Err(format!(
            "must be names of topics (letters, digits, `.`, `_` and `-`, at most 249), but holds {}",
            show(name)
        ));
    }
    Ok(())
}

fn server(word: &str) -> Result<String, String> {
    let fail = || format!("must be host:port, separated by commas, but holds {}", show(word));
    let address = match word.split_once("://") {
        None => word,
        // As in Java the name of a listener's protocol says nothing; security.protocol does.
        Some((scheme, address))
            if ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].contains(&scheme.to_ascii_uppercase().as_str()) =>
        {
            address
        }
        Some(_) => return Err(fail()),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(fail)?;
    let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(of_topic),
    };
    let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|byte| byte.is_ascii_digit());
    if bare && port_fits { Ok(address.to_owned()) } else { Err(fail()) }
}

fn url(text: &str) -> Result<String, String> {
    let fail = |why: &str| format!("must be scheme, host and port, like http://localhost:3000, {why}");
    let url = reqwest::Url::parse(text).map_err(|error| fail(&format!("but is {} ({error})", show(text))))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(fail(&format!("but is {}", show(text))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fail("without a user name or password in it"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(fail(&format!("without a path, but is {}", show(text))));
    }
    Ok(url.origin().ascii_serialization())
}

fn log_filter(text: &str) -> Option<String> {
    let level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let mut parts = Vec::new();
    for part in text.split(',') {
        let (target, word) = match part.split_once('=') {
            None => (None, part.trim()),
            Some((target, word)) => (Some(target.trim()), word.trim()),
        };
        let word = word.to_ascii_lowercase();
        let named = |target: &str| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'))
        };
        if !level(&word) || target.is_some_and(|target| !named(target)) {
            return None;
        }
        parts.push(target.map_or_else(|| word.clone(), |target| format!("{target}={word}")));
    }
    Some(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::{Origin, read};

    fn run(kind: Kind, yaml: &str) -> Result<Option<Typed>, String> {
        let node = read("t.yml", yaml.as_bytes(), false).0.unwrap();
        check(kind, &node, false)
    }

    fn text(text: &str) -> Result<Option<Typed>, String> {
        Ok(Some(Typed::Text(text.into())))
    }

    #[test]
    fn formats_are_names_in_any_case_or_ordinals() {
        let order = [Format::Binary, Format::Json, Format::Avro, Format::JsonSchema, Format::Protobuf, Format::String];
        for (ordinal, (name, format)) in
            ["binary", "json", "avro", "jsonschema", "protobuf", "string"].into_iter().zip(order).enumerate()
        {
            for word in [name.to_owned(), name.to_uppercase(), ordinal.to_string(), format!("'{ordinal}'")] {
                assert_eq!(run(Kind::Format, &word), Ok(Some(Typed::Format(format))), "{word}");
            }
        }
        for wrong in ["xml", "6", "-1", "1.0", "[json]"] {
            assert!(run(Kind::Format, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        let kind = Kind::Number { min: 1, max: 1000, unit: "milliseconds" };
        for (yaml, expected) in [("1", 1), ("1000", 1000), ("1_000", 1000), ("'7'", 7), ("+7", 7)] {
            assert_eq!(run(kind, yaml), Ok(Some(Typed::Number(expected))), "{yaml}");
        }
        for yaml in ["0", "1001", "-1", "1.5", "abc", "99999999999999999999", "true", "[1]"] {
            assert!(run(kind, yaml).is_err(), "{yaml}");
        }
        assert_eq!(
            run(kind, "5s"),
            Err("must be a whole number of milliseconds from 1 to 1000, but is \"5s\"".to_owned())
        );
    }

    #[test]
    fn servers_are_host_and_port() {
        for (yaml, expected) in [
            ("localhost:9092", vec!["localhost:9092"]),
            ("a:1, b:2 ,a:1", vec!["a:1", "b:2"]),
            ("[a:1, 'b:2']", vec!["a:1", "b:2"]),
            ("'[::1]:9092'", vec!["[::1]:9092"]),
            ("PLAINTEXT://k:9092", vec!["k:9092"]),
        ] {
            let expected = Typed::List(expected.into_iter().map(str::to_owned).collect());
            assert_eq!(run(Kind::Servers, yaml), Ok(Some(expected)), "{yaml}");
        }
        for yaml in ["localhost", "localhost:", ":9092", "a:0", "a:65536", "a:+1", "http://a:1", "a b:1", "a:1;b:2"] {
            assert!(run(Kind::Servers, yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn addresses_of_backends_are_checked() {
        for (yaml, expected) in [
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://Localhost:8444/", "https://localhost:8444"),
            ("http://[::1]:80/", "http://[::1]"),
        ] {
            assert_eq!(run(Kind::Url, yaml), text(expected), "{yaml}");
        }
        for yaml in ["localhost:3000", "ftp://a", "http://", "http://a/b", "http://a?b", "http://u:p@a", "'http://a b'"]
        {
            assert!(run(Kind::Url, yaml).is_err(), "{yaml}");
        }
        assert!(!run(Kind::Url, "http://u:hush@a").unwrap_err().contains("hush"));
    }

    #[test]
    fn words_are_checked() {
        let acks = Kind::Choice(&["all", "-1", "0", "1"]);
        assert_eq!(run(acks, "-1"), text("-1"));
        assert_eq!(run(acks, "ALL"), text("all"));
        assert_eq!(run(acks, "2"), Err("must be all, -1, 0 or 1, but is \"2\"".to_owned()));
        for (yaml, expected) in [("INFO", "info"), ("info, protocol = Debug", "info,protocol=debug")] {
            assert_eq!(run(Kind::LogFilter, yaml), text(expected));
        }
        for yaml in ["verbose", "info,=debug", "a=b", "info,"] {
            assert!(run(Kind::LogFilter, yaml).is_err(), "{yaml}");
        }
        assert_eq!(run(Kind::Ip, "localhost"), text("127.0.0.1"));
        assert_eq!(run(Kind::Ip, "'::'"), text("::"));
        assert!(run(Kind::Ip, "example.org").is_err());
        assert_eq!(run(Kind::UrlPath, "/a/b?c=d"), text("/a/b?c=d"));
        assert!(run(Kind::UrlPath, "a").is_err());
        assert!(run(Kind::Topics, "a,b c").is_err());
        assert!(run(Kind::Topic, "..").is_err());
        for (yaml, expected) in [("Y", true), ("'true'", true), ("Off", false)] {
            assert_eq!(run(Kind::Flag, yaml), Ok(Some(Typed::Flag(expected))), "{yaml}");
        }
        assert!(run(Kind::Flag, "maybe").is_err());
        assert_eq!(run(Kind::List, "[]"), Ok(Some(Typed::List(vec![]))));
        assert_eq!(run(Kind::List, "','"), Ok(None));
    }

    #[test]
    fn nothing_is_unset_whatever_is_expected() {
        let node = Node::new(Value::Text(String::new()), Origin::Set);
        for kind in
            [Kind::Text, Kind::Flag, Kind::Format, Kind::Servers, Kind::Url, Kind::Number { min: 0, max: 1, unit: "" }]
        {
            assert_eq!(check(kind, &node, false), Ok(None));
        }
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let node = Node::new(Value::Text("hush".into()), Origin::Set);
        assert!(!check(Kind::Flag, &node, true).unwrap_err().contains("hush"));
    }
}
