//! From typed values to [`Settings`]: the listener, the backend's trust, health, and what is not built yet.
//!
//! Rules of Kafka's own properties are in [`super::kafka`].

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    hooks, kafka, memory,
    property::{File, Part, Status},
    settings::{Client, Consumer, Health, Logging, Parts, Server, Settings, Sidecar},
    values::Values,
};

/// Builds everything; what is wrong is in `values.faults` afterwards.
pub(super) fn settings(values: &mut Values, memory_limit: Option<u64>) -> Settings {
    refuse_unbuilt(values);
    let brokers_of = same_cluster(values);
    let server = server(values);
    let producer = kafka::producer(values, brokers_of(File::Producer));
    let consumer = kafka::consumer(values, brokers_of(File::Consumer));
    let admin = kafka::admin(values, brokers_of(File::Admin));
    let parts = hooks::parts(values, !consumer.kafka.topics.is_empty());
    let health = health(values, &consumer.backend.host);
    let client = client(values);
    trust(values, &parts, &consumer, &health, &client);
    let sidecar = sidecar(values, memory_limit, &server);
    if parts.reactive && is_own(&consumer.backend.host, server.http) {
        let text = format!("{} is the sidecar's own listener; give the address of the backend", consumer.backend.host);
        values.fault(File::Consumer, "backendApiHost", text);
    }
    let logging = Logging {
        filter: values.text(File::Sidecar, "logLevel"),
        json: values.text(File::Sidecar, "logFormat") == "json",
    };
    Settings { parts, server, producer, consumer, admin, health, client, sidecar, logging }
}

/// What belongs to a part that is not built yet is refused, unless another setting makes it meaningless.
fn refuse_unbuilt(values: &mut Values) {
    let https_off = values.optional_flag(File::Server, "enableHttps") == Some(false);
    let verify = values.optional_flag(File::Security, "enableVerifyJwt");
    if verify == Some(true) {
        let text = "the verification of tokens is not built yet; set it to false, which lets everybody call who reaches the listener";
        values.fault(File::Security, "enableVerifyJwt", text);
    }
    for file in File::ALL {
        for property in file.properties() {
            let name = property.name;
            let Status::Later(part) = property.status else { continue };
            // A flag that is false asks for nothing.
            if !values.given(file, name) || values.optional_flag(file, name) == Some(false) {
                continue;
            }
            match part {
                Part::Registry => {
                    let text = "the client of the schema registry is not built yet; remove it and use the formats binary, json and string";
                    values.fault(file, name, text);
                }
                Part::Https if name != "enableHttps" && https_off => {
                    values.idle.push(format!("{}.{name} (server.enableHttps is false)", file.name()));
                }
                Part::Https => {
                    values.fault(
                        file,
                        name,
                        "the HTTPS listener is not built yet; remove it, or set server.enableHttps: false",
                    );
                }
                Part::Jwt if verify == Some(false) => {
                    values.idle.push(format!("{}.{name} (security.enableVerifyJwt is false)", file.name()));
                }
                Part::Jwt => {
                    let text = "the verification of tokens is not built yet; remove it, or set security.enableVerifyJwt: false";
                    values.fault(file, name, text);
                }
                Part::Other(what) => {
                    values.fault(file, name, format!("needs a part that is not built yet ({what}); remove it"));
                }
            }
        }
    }
}

/// One cluster serves all clients unless somebody says otherwise: whose servers nobody gave takes those of another file, which
/// is the answer.
fn same_cluster(values: &mut Values) -> impl Fn(File) -> File + use<> {
    const NAME: &str = "bootstrap.servers";
    let files = [File::Producer, File::Consumer, File::Admin];
    let given: Vec<File> = files.into_iter().filter(|file| values.given(*file, NAME)).collect();
    let source = given.first().copied();
    if let Some(source) = source {
        for file in files.into_iter().filter(|file| !given.contains(file)) {
            values.inherit(file, source, NAME);
        }
    }
    move |file| if given.contains(&file) { file } else { source.unwrap_or(file) }
}

fn server(values: &mut Values) -> Server {
    let file = File::Server;
    let ip = ip(&values.text(file, "ip"));
    if !values.flag(file, "enableHttp") {
        values.fault(file, "enableHttp", "must be true: HTTP is the only listener so far");
    }
    if !ip.is_loopback() && values.optional_flag(File::Security, "enableVerifyJwt") != Some(false) {
        let text = format!(
            "{ip} lets other machines call without tokens; if that is meant, set security.enableVerifyJwt: false, else 127.0.0.1"
        );
        values.fault(file, "ip", text);
    }
    Server {
        http: SocketAddr::new(ip, values.port(file, "httpPort")),
        service_id: values.text(file, "serviceId"),
        environment: values.optional_text(file, "environment"),
        max_body_bytes: values.size(file, "maxTransferFileSize"),
        graceful_period: values
            .optional_millis(file, "shutdownGracefulPeriod")
            .filter(|_| values.given(file, "shutdownGracefulPeriod")),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn health(values: &mut Values, backend: &str) -> Health {
    let file = File::Health;
    let downstream_host = values.optional_text(file, "downstreamHost").unwrap_or_else(|| {
        values.derive(file, "downstreamHost", backend);
        backend.to_owned()
    });
    Health {
        enabled: values.flag(file, "enabled"),
        use_json: values.flag(file, "useJson"),
        timeout: values.millis(file, "timeout"),
        downstream_enabled: values.flag(file, "downstreamEnabled"),
        downstream_host,
        downstream_path: values.text(file, "downstreamPath"),
    }
}

fn client(values: &mut Values) -> Client {
    let file = File::Client;
    let trust_store = existing(values, "trustStore", values.written_down(file, "trustStore", "client.truststore"));
    Client {
        verify_hostname: values.flag(file, "verifyHostname"),
        ca_file: existing(values, "caFile", true),
        trust_store_password: trust_store.is_some().then(|| values.optional_secret(file, "trustStorePass")).flatten(),
        trust_store,
        load_default_trust_store: values.flag(file, "loadDefaultTrustStore"),
        http2: values.flag(file, "enableHttp2"),
        connect_timeout: values.millis(file, "connectTimeout"),
    }
}

/// A file that client.yml names, looked for in the configuration directories first; a missing one is a fault if it is `needed`.
fn existing(values: &mut Values, name: &'static str, needed: bool) -> Option<PathBuf> {
    let named = PathBuf::from(values.optional_text(File::Client, name)?);
    let found = values.find_file(&named);
    if found.is_none() {
        if needed {
            values.fault(File::Client, name, format!("there is no file {}", named.display()));
        } else {
            values.derive(File::Client, name, "");
        }
    }
    found
}

/// https without anybody to trust can never work: said at the start, not at the first call.
fn trust(values: &mut Values, parts: &Parts, consumer: &Consumer, health: &Health, client: &Client) {
    let https = |host: &str| host.starts_with("https://");
    let asked =
        [("caFile", true), ("trustStore", values.written_down(File::Client, "trustStore", "client.truststore"))];
    // One that is named and missing has its fault already.
    let named = asked.iter().any(|(name, counts)| *counts && values.optional_text(File::Client, name).is_some());
    if named || client.ca_file.is_some() || client.trust_store.is_some() || client.load_default_trust_store {
        return;
    }
    let text = |host: &str| {
        format!(
            "{host} is https, and nothing says whom to trust: set client.caFile (PEM), client.trustStore or \
             client.loadDefaultTrustStore: true, or give an http:// address"
        )
    };
    if values.has_fault(File::Consumer, "backendApiHost") {
        // The default stands in its place, and nobody asked for that.
    } else if parts.reactive && https(&consumer.backend.host) {
        let text = text(&consumer.backend.host);
        values.fault(File::Consumer, "backendApiHost", text);
    } else if health.downstream_enabled && https(&health.downstream_host) {
        let text = text(&health.downstream_host);
        values.fault(File::Health, "downstreamHost", text);
    }
}

fn sidecar(values: &mut Values, memory_limit: Option<u64>, server: &Server) -> Sidecar {
    let file = File::Sidecar;
    let memory_budget = match values.optional_number(file, "memoryBudgetBytes") {
        Some(_) => values.size(file, "memoryBudgetBytes"),
        None => {
            let budget = memory::budget(memory_limit);
            values.derive(file, "memoryBudgetBytes", budget);
            budget
        }
    };
    let port = values.port(file, "probesPort");
    let probes = (port != 0).then(|| SocketAddr::new(ip(&values.text(file, "probesIp")), port));
    if let Some(probes) = probes
        && probes.port() == server.http.port()
        && (probes.ip() == server.http.ip() || probes.ip().is_unspecified() || server.http.ip().is_unspecified())
    {
        let text =
            format!("{probes} is taken by the data listener {}; choose another port, or 0 for none", server.http);
        values.fault(file, "probesPort", text);
    }
    Sidecar {
        probes,
        probes_explicit: values.given(file, "probesIp") || values.given(file, "probesPort"),
        memory_budget,
        readiness_grace: values.millis(file, "readinessGraceMs"),
        max_connections: values.size(file, "maxConnections"),
        max_requests_in_flight: values.size(file, "maxRequestsInFlight"),
        header_timeout: values.millis(file, "headerTimeoutMs"),
        body_timeout: values.millis(file, "bodyTimeoutMs"),
        max_records_per_request: values.size(file, "maxRecordsPerRequest"),
        max_header_bytes: values.size(file, "maxHeaderBytes"),
    }
}

/// Whether an address of a backend is our own listener.
fn is_own(host: &str, listener: SocketAddr) -> bool {
    let Ok(url) = reqwest::Url::parse(host) else { return false };
    if listener.port() == 0 || url.port_or_known_default() != Some(listener.port()) {
        return false;
    }
    let name = url.host_str().unwrap_or_default();
    match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => ip == listener.ip() || (listener.ip().is_unspecified() && ip.is_loopback()),
        Err(_) => name == "localhost" && (listener.ip().is_unspecified() || listener.ip().is_loopback()),
    }
}
