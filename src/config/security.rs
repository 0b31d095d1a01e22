//! `security.protocol`, `ssl.*` and `sasl.*` of a Kafka file as settings.
//!
//! It knows nothing of sockets. [`kafka_security`] is what it offers.

use std::path::PathBuf;

use protocol::connection::ScramHash;

use super::{
    jaas::{self, Jaas},
    property::File,
    settings::{ClientTls, KafkaSecurity, OAuth, Place, Sasl, Secret, Store, TlsVersion, TokenSource},
    source::Origin,
    table,
    values::Values,
};

/// What by itself asks for SASL over TLS.
const ASKS_FOR_SECURITY: &[&str] = &[
    "username",
    "password",
    "sasl.jaas.config",
    "sasl.jaas.config.username",
    "sasl.jaas.config.password",
    "ssl.truststore.location",
    "ssl.truststore.certificates",
];

/// What `file` says, or, where it says nothing of it, the file from which it has its brokers.
pub(super) fn kafka_security(values: &mut Values, file: File, brokers_of: File) -> KafkaSecurity {
    let says = |values: &Values, file: File| {
        let mut rows = table::SECURITY_TO_KAFKA.iter().map(|row| row.name).chain(["security.protocol"]);
        rows.any(|name| values.given(file, name))
    };
    let file = if says(values, file) { file } else { brokers_of };
    let protocol = match values.optional_text(file, "security.protocol") {
        Some(protocol) => protocol,
        None => {
            let asked = ASKS_FOR_SECURITY.iter().any(|name| values.given(file, name));
            let protocol = if asked { "SASL_SSL" } else { "PLAINTEXT" };
            values.derive(file, "security.protocol", protocol);
            protocol.to_owned()
        }
    };
    let (tls, sasl) = (protocol.ends_with("SSL"), protocol.starts_with("SASL"));
    idle(values, file, &protocol, tls, sasl);
    let tls = tls.then(|| client_tls(values, file));
    let sasl = if sasl { self::sasl(values, file, tls.as_ref()) } else { None };
    KafkaSecurity { tls, sasl }
}

/// What belongs to the half that the protocol leaves out has no effect, and is said to have none.
fn idle(values: &mut Values, file: File, protocol: &str, tls: bool, sasl: bool) {
    for row in table::SECURITY_TO_KAFKA {
        let counts = if row.name.starts_with("ssl.") { tls } else { sasl };
        let text = format!("{}.{} (security.protocol is {protocol})", file.name(), row.name);
        if !counts && values.given(file, row.name) && !values.idle.contains(&text) {
            values.idle.push(text);
        }
    }
}

fn client_tls(values: &mut Values, file: File) -> ClientTls {
    let trust = match values.optional_secret(file, "ssl.truststore.certificates") {
        Some(text) => Some(store(file, "ssl.truststore.certificates", Place::Inline(text), None)),
        None => file_store(values, file, "ssl.truststore.location", "ssl.truststore.password"),
    };
    let key = values.optional_secret(file, "ssl.keystore.key");
    let chain = values.optional_text(file, "ssl.keystore.certificate.chain");
    let identity = match (key, chain) {
        (Some(key), Some(chain)) => {
            let text = Secret::new(format!("{chain}\n{}", key.reveal()));
            Some(store(file, "ssl.keystore.key", Place::Inline(text), None))
        }
        (Some(_), None) => {
            values.fault(file, "ssl.keystore.key", "needs ssl.keystore.certificate.chain beside it");
            None
        }
        (None, Some(_)) => {
            values.fault(file, "ssl.keystore.certificate.chain", "needs ssl.keystore.key beside it");
            None
        }
        (None, None) => file_store(values, file, "ssl.keystore.location", "ssl.keystore.password"),
    };
    ClientTls {
        trust_platform: trust.is_none(),
        trust: trust.into_iter().collect(),
        trust_key: format!("{}.ssl.truststore.location", file.name()),
        identity,
        key_password: values.optional_secret(file, "ssl.key.password"),
        verify_hostname: verify_hostname(values, file),
        versions: versions(values, file),
    }
}

fn store(file: File, name: &str, place: Place, password: Option<Secret>) -> Store {
    Store { key: format!("{}.{name}", file.name()), place, password }
}

fn file_store(values: &mut Values, file: File, location: &'static str, password: &'static str) -> Option<Store> {
    let named = PathBuf::from(values.optional_text(file, location)?);
    let Some(path) = values.find_file(&named) else {
        values.fault(file, location, format!("there is no file {}", named.display()));
        return None;
    };
    Some(store(file, location, Place::File(path), values.optional_secret(file, password)))
}

/// As in Kafka: https, or nothing at all, which has to be written down.
fn verify_hostname(values: &mut Values, file: File) -> bool {
    const NAME: &str = "ssl.endpoint.identification.algorithm";
    if let Some(node) = values.node(file, NAME)
        && node.text() == Some("")
        && node.origin != Origin::Default
        && !node.fallback
    {
        values.derive(file, NAME, "");
        return false;
    }
    match values.optional_text(file, NAME) {
        Some(text) if !text.eq_ignore_ascii_case("https") => {
            values.fault(file, NAME, "must be https, or empty (\"\") for no look at the host name");
        }
        Some(_) => {}
        None => values.derive(file, NAME, "https"),
    }
    true
}

fn versions(values: &mut Values, file: File) -> Vec<TlsVersion> {
    const NAME: &str = "ssl.enabled.protocols";
    let mut versions = Vec::new();
    for word in values.optional_list(file, NAME).unwrap_or_default() {
        match word.as_str() {
            "TLSv1.2" => versions.push(TlsVersion::V1_2),
            "TLSv1.3" => versions.push(TlsVersion::V1_3),
            _ => values.fault(file, NAME, format!("{word:?} is not there; there are TLSv1.2 and TLSv1.3")),
        }
    }
    versions
}

/// The name of the setting to blame, and what it says.
struct Credentials {
    jaas: Option<Jaas>,
    username: Option<String>,
    password: Option<Secret>,
}

fn sasl(values: &mut Values, file: File, tls: Option<&ClientTls>) -> Option<Sasl> {
    let credentials = credentials(values, file)?;
    let mechanism = mechanism(values, file, credentials.jaas.as_ref())?;
    let hash = match mechanism.as_str() {
        "PLAIN" => None,
        "SCRAM-SHA-256" => Some(ScramHash::Sha256),
        "SCRAM-SHA-512" => Some(ScramHash::Sha512),
        _ => return oauth(values, file, credentials.jaas, tls).map(Box::new).map(Sasl::OAuthBearer),
    };
    let Credentials { username, password, .. } = credentials;
    let (Some(username), Some(password)) = (username, password) else {
        let variable = format!("{}_PASSWORD", file.name().to_ascii_uppercase().replace('-', "_"));
        values.fault(
            file,
            "sasl.mechanism",
            format!(
                "{mechanism} needs a user and a password: set {name}.username and {variable}, or {name}.sasl.jaas.config",
                name = file.name()
            ),
        );
        return None;
    };
    Some(match hash {
        None => Sasl::Plain { username, password },
        Some(hash) => Sasl::Scram { hash, username, password },
    })
}

/// The user name and the password from the keys that hold nothing else, else from the JAAS string. Where that string was made
/// from those keys, by placeholders, they are taken as they are: whatever a password holds, no quoting can break it.
fn credentials(values: &mut Values, file: File) -> Option<Credentials> {
    let username =
        values.optional_text(file, "username").or_else(|| values.optional_text(file, "sasl.jaas.config.username"));
    let password =
        values.optional_secret(file, "password").or_else(|| values.optional_secret(file, "sasl.jaas.config.password"));
    let Some(text) = values.optional_secret(file, "sasl.jaas.config") else {
        return Some(Credentials { jaas: None, username, password });
    };
    let mut text = text.reveal().to_owned();
    let (mut user_inside, mut password_inside) = (false, false);
    for (value, inside) in
        [(username.as_deref(), &mut user_inside), (password.as_ref().map(Secret::reveal), &mut password_inside)]
    {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let written = format!("=\"{value}\"");
        if text.contains(&written) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            text = text.replace(&written, &format!("=\"{escaped}\""));
            *inside = true;
        }
    }
    match jaas::parse(&text) {
        Ok(jaas) => {
            let option = |name: &str| jaas.options.get(name).cloned();
            Some(Credentials {
                username: username.filter(|_| user_inside).or_else(|| option("username")),
                password: password.filter(|_| password_inside).or_else(|| option("password").map(Secret::new)),
                jaas: Some(jaas),
            })
        }
        Err(error) => {
            values.fault(file, "sasl.jaas.config", error);
            None
        }
    }
}

/// `sasl.mechanism`, else what the login module leaves no choice about, else PLAIN.
fn mechanism(values: &mut Values, file: File, jaas: Option<&Jaas>) -> Option<String> {
    const NAME: &str = "sasl.mechanism";
    let class = values.optional_text(file, "sasl.jaas.config.module");
    let module = match (jaas, &class) {
        (Some(jaas), _) => Some(jaas.module.as_str()),
        (None, Some(class)) => class.rsplit('.').next(),
        (None, None) => None,
    };
    let by_module: &[&str] = match module {
        None => &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        Some("PlainLoginModule") => &["PLAIN"],
        Some("ScramLoginModule") => &["SCRAM-SHA-256", "SCRAM-SHA-512"],
        Some("OAuthBearerLoginModule") => &["OAUTHBEARER"],
        Some(other) => {
            let text = format!(
                "the login module {other:?} is not there; there are PlainLoginModule, ScramLoginModule and OAuthBearerLoginModule"
            );
            let name = if jaas.is_some() { "sasl.jaas.config" } else { "sasl.jaas.config.module" };
            values.fault(file, name, text);
            return None;
        }
    };
    match values.optional_text(file, NAME).map(|mechanism| mechanism.to_ascii_uppercase()) {
        Some(mechanism) if by_module.contains(&mechanism.as_str()) => Some(mechanism),
        Some(mechanism) => {
            let text = match module {
                Some(module) => format!(
                    "{mechanism} does not fit the login module {module}, which is for {}",
                    by_module.join(" or ")
                ),
                None => format!("{mechanism:?} is not there; there are {}", by_module.join(", ")),
            };
            values.fault(file, NAME, text);
            None
        }
        None => match by_module {
            ["SCRAM-SHA-256", ..] => {
                values.fault(
                    file,
                    NAME,
                    "must be SCRAM-SHA-256 or SCRAM-SHA-512 for the login module ScramLoginModule",
                );
                None
            }
            [first, ..] => {
                values.derive(file, NAME, first);
                Some((*first).to_owned())
            }
            [] => None,
        },
    }
}

fn oauth(values: &mut Values, file: File, jaas: Option<Jaas>, tls: Option<&ClientTls>) -> Option<OAuth> {
    const URL: &str = "sasl.oauthbearer.token.endpoint.url";
    let options = jaas.map(|jaas| jaas.options).unwrap_or_default();
    let extensions = options
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("extension_")?.to_owned(), value.clone())))
        .collect();
    let Some(url) = values.optional_text(file, URL) else {
        values.fault(
            file,
            "sasl.mechanism",
            format!(
                "OAUTHBEARER needs {}.{URL}: https://… of a token endpoint, or file:///… of a file that holds a token",
                file.name()
            ),
        );
        return None;
    };
    if let Some(path) = url.strip_prefix("file://") {
        return Some(OAuth { source: TokenSource::File(PathBuf::from(path)), extensions });
    }
    if !(url.starts_with("https://") || url.starts_with("http://")) || reqwest::Url::parse(&url).is_err() {
        values.fault(file, URL, "must be an http, https or file URL");
        return None;
    }
    let option = |name: &str| options.get(name).cloned();
    let client_id = values
        .optional_text(file, "sasl.oauthbearer.client.credentials.client.id")
        .or_else(|| option("clientId"))
        .or_else(|| values.optional_text(file, "username"));
    let client_secret = values
        .optional_secret(file, "sasl.oauthbearer.client.credentials.client.secret")
        .or_else(|| option("clientSecret").map(Secret::new))
        .or_else(|| values.optional_secret(file, "password"));
    let (Some(client_id), Some(client_secret)) = (client_id, client_secret) else {
        let text = "needs sasl.oauthbearer.client.credentials.client.id and .client.secret, or clientId and clientSecret in sasl.jaas.config";
        values.fault(file, URL, text);
        return None;
    };
    let scope = values.optional_text(file, "sasl.oauthbearer.scope").or_else(|| option("scope"));
    // Java's client asks the endpoint with what the ssl.* of the same client say.
    let tls = match tls {
        Some(tls) => tls.clone(),
        None => client_tls(values, file),
    };
    let tls = Box::new(tls);
    Some(OAuth { source: TokenSource::Endpoint { url, client_id, client_secret, scope, tls }, extensions })
}
