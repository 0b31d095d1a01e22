//! The HTTP client to the backend: records out, verdicts or a named failure back.
//!
//! It knows nothing of Kafka, retries or what a failure means for a record; it never logs a body. [`Backend`] is its
//! main type, [`Answer`] what a call comes to, and [`BackendCall`] what the flows see, so that a test scripts it.

pub(crate) mod verdict;

use std::{net::IpAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt};
use http_body_util::Full;
use protocol::budget::{Budget, Growing};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::settings::{self, ClientTls, Place, Store},
    record::{TRACEPARENT, Verdict},
    tls::{self, TlsError},
};

/// An answer may be this large whatever the request was; an echo of the records is on top of it.
const ANSWER_BYTES: usize = 1 << 20;
/// How many times the size of the request an answer may have, beyond [`ANSWER_BYTES`].
const ANSWER_PER_REQUEST: usize = 8;
/// No name but these two addresses stands behind `localhost`, so that no resolver is needed for it.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

/// One request to the backend: records of one partition, in order.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The offsets of the records in `body`, ascending, at least one.
    pub(crate) offsets: Vec<i64>,
    /// How often the backend may have seen the first of these records, this call included; from 1.
    pub(crate) attempt: u32,
    /// W3C trace context.
    pub(crate) traceparent: String,
    /// Over a connection that nothing else went by before.
    pub(crate) own_connection: bool,
    /// The JSON array.
    pub(crate) body: Bytes,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 2xx, one verdict per record in the order of the request.
    Verdicts(Vec<Verdict>),
    /// A status of 400 or more.
    Refused { status: u16, retry_after: Option<Duration> },
    /// No connection: the records were never sent.
    Unreachable(String),
    /// Sent, and no answer within the time for a reply.
    Late,
    /// The connection was lost after the request, or a part of it, was sent.
    Lost(String),
    /// An answer that is none.
    Malformed(String),
}

/// What a flow asks of a backend.
pub(crate) trait BackendCall: Send + Sync + 'static {
    /// Sends records and waits for their verdicts, at most as long as a reply may take.
    ///
    /// Dropping the future closes the exchange; the backend may process the records all the same.
    fn post(&self, call: Call) -> BoxFuture<'_, Answer>;

    /// Whether the backend accepts a connection, with the reason if not. Sends nothing.
    fn accepts(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Whether the health path answers with a status below 400 in its time.
    fn healthy(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Why no client could be made of the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("{key}: {value:?} is no http or https address")]
    Address { key: &'static str, value: String },
    #[error(
        "the backend is https and nothing is trusted: set client.caFile or client.trustStore, or client.loadDefaultTrustStore: true"
    )]
    NoTrust,
    #[error("the backend's TLS cannot be set up")]
    Tls(#[from] TlsError),
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
}

/// What client.yml says: PEM file, trust store, platform store, all together where several are set. `http2` is offered by ALPN.
fn trusting(client: &settings::Client, http2: bool) -> Result<rustls::ClientConfig, BackendError> {
    let store = |key: &str, path: &Option<std::path::PathBuf>, password: &Option<settings::Secret>| {
        let (key, password) = (key.to_owned(), password.clone());
        path.clone().map(|path| Store { key, place: Place::File(path), password })
    };
    let tls = ClientTls {
        trust: store("client.caFile", &client.ca_file, &None)
            .into_iter()
            .chain(store("client.trustStore", &client.trust_store, &client.trust_store_password))
            .collect(),
        trust_platform: client.load_default_trust_store,
        trust_key: "client.caFile or client.trustStore".to_owned(),
        verify_hostname: client.verify_hostname,
        ..ClientTls::default()
    };
    if tls.trust.is_empty() && !tls.trust_platform {
        return Err(BackendError::NoTrust);
    }
    let mut config = tls::client_config(&tls)?;
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(config)
}

/// Calls one backend over a pool of connections.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    client: Client,
    /// Keeps no connection.
    unpooled: Client,
    records: Url,
    health: Url,
    reply_timeout: Duration,
    health_timeout: Duration,
    connect_timeout: Duration,
    connection_reset: bool,
    /// What its answers may take.
    memory: Budget,
}

impl Backend {
    /// Reads what is trusted from disk (only for https) and connects nowhere yet. Answers take from `memory` until they are
    /// understood.
    pub(crate) fn new(
        backend: &settings::Backend,
        client: &settings::Client,
        health: &settings::Health,
        memory: Budget,
    ) -> Result<Self, BackendError> {
        let records = address("backendApiHost", &backend.host, &backend.path)?;
        let health_url = address("health.downstreamHost", &health.downstream_host, &health.downstream_path)?;
        let https = records.scheme() == "https" || health_url.scheme() == "https";
        // A connection that ends with its answer is HTTP/1.1's.
        let http2 = client.http2 && !backend.connection_reset;
        let tls = if https { trusting(client, http2)? } else { tls::nothing()? };
        let connect_timeout = client.connect_timeout.min(backend.timeout);
        let builder = || {
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(connect_timeout)
                .tcp_nodelay(true)
                .resolve_to_addrs("localhost", &LOOPBACK.map(|ip| (ip, 0).into()));
            if http2 { builder } else { builder.http1_only() }
        };
        let unpooled = builder().pool_max_idle_per_host(0).build()?;
        Ok(Self {
            client: if backend.connection_reset { unpooled.clone() } else { builder().build()? },
            unpooled,
            records,
            health: health_url,
            reply_timeout: backend.timeout,
            health_timeout: health.timeout,
            connect_timeout,
            connection_reset: backend.connection_reset,
            memory,
        })
    }

    async fn exchange(&self, call: Call) -> Answer {
        let answer_limit = ANSWER_BYTES.saturating_add(call.body.len().saturating_mul(ANSWER_PER_REQUEST));
        let headers = self.headers(&call);
        let client = if call.own_connection { &self.unpooled } else { &self.client };
        // As a stream of one piece, which the client does not keep: its memory is free again once it is written.
        let request = reqwest::Body::wrap(Full::new(call.body));
        let sent = client.post(self.records.clone()).headers(headers).body(request).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Answer::Unreachable(chain(&error)),
            Err(error) if error.is_builder() => return Answer::Unreachable(chain(&error)),
            Err(error) => return Answer::Lost(chain(&error)),
        };
        let status = response.status();
        if status.as_u16() >= 400 {
            return Answer::Refused { status: status.as_u16(), retry_after: retry_after(response.headers()) };
        }
        if !status.is_success() {
            return Answer::Malformed(format!("status {} is no answer to a batch", status.as_u16()));
        }
        match body(response, answer_limit, self.memory.growing()).await {
            Ok((body, _held)) => match verdict::parse(&body, &call.topic, call.partition, &call.offsets) {
                Ok(verdicts) => Answer::Verdicts(verdicts),
                Err(malformed) => Answer::Malformed(malformed.to_string()),
            },
            Err(BodyError::Lost(reason)) => Answer::Lost(reason),
            Err(BodyError::TooLarge) => Answer::Malformed(format!("the answer exceeds {answer_limit} bytes")),
        }
    }

    fn headers(&self, call: &Call) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.connection_reset {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // A topic's name is of [a-zA-Z0-9._-]; one that is not (it cannot exist in Kafka) goes without its header.
        if let Ok(topic) = HeaderValue::from_str(&call.topic) {
            headers.insert("x-kafka-topic", topic);
        }
        headers.insert("x-kafka-partition", HeaderValue::from(call.partition));
        if let (Some(first), Some(last)) = (call.offsets.first(), call.offsets.last()) {
            headers.insert("x-kafka-first-offset", HeaderValue::from(*first));
            headers.insert("x-kafka-last-offset", HeaderValue::from(*last));
        }
        headers.insert("x-attempt", HeaderValue::from(call.attempt));
        if let Ok(trace) = HeaderValue::from_str(&call.traceparent) {
            headers.insert(TRACEPARENT, trace);
        }
        headers
    }

    async fn connect(&self) -> Result<(), String> {
        let host = self.records.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.records.port_or_known_default().unwrap_or(443);
        let connected = async {
            if host.eq_ignore_ascii_case("localhost") {
                TcpStream::connect(LOOPBACK.map(|ip| std::net::SocketAddr::from((ip, port))).as_slice()).await
            } else {
                TcpStream::connect((host, port)).await
            }
        };
        match timeout(self.connect_timeout, connected).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {} ms", self.connect_timeout.as_millis())),
        }
    }

    async fn ask_health(&self) -> Result<(), String> {
        let request = self.client.get(self.health.clone()).send();
        match timeout(self.health_timeout, request).await {
            Ok(Ok(response)) if response.status().as_u16() < 400 => Ok(()),
            Ok(Ok(response)) => Err(format!("the health path answered {}", response.status().as_u16())),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("the health path did not answer within {} ms", self.health_timeout.as_millis())),
        }
    }
}

impl BackendCall for Backend {
    fn post(&self, call: Call) -> BoxFuture<'_, Answer> {
        async move { timeout(self.reply_timeout, self.exchange(call)).await.unwrap_or(Answer::Late) }.boxed()
    }

    fn accepts(&self) -> BoxFuture<'_, Result<(), String>> {
        self.connect().boxed()
    }

    fn healthy(&self) -> BoxFuture<'_, Result<(), String>> {
        self.ask_health().boxed()
    }
}

enum BodyError {
    Lost(String),
    TooLarge,
}

async fn body(mut response: Response, limit: usize, mut held: Growing) -> Result<(BytesMut, Growing), BodyError> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > limit => return Err(BodyError::TooLarge),
            Ok(Some(chunk)) => {
                held.grow(chunk.len()).await;
                body.extend_from_slice(&chunk);
            }
            Ok(None) => return Ok((body, held)),
            Err(error) => return Err(BodyError::Lost(chain(&error))),
        }
    }
}

fn address(key: &'static str, host: &str, path: &str) -> Result<Url, BackendError> {
    let base = Url::parse(host).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let slash = if path.starts_with('/') || path.is_empty() { "" } else { "/" };
    let value = format!("{}{slash}{path}", host.trim_end_matches('/'));
    base.and_then(|_| Url::parse(&value).ok()).ok_or(BackendError::Address { key, value })
}

/// Seconds or an HTTP date, whichever the header holds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some((at - OffsetDateTime::now_utc()).try_into().unwrap_or(Duration::ZERO))
}

/// An error with its causes, without the address (the caller knows it).
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() {
        error.status().map_or_else(|| "the request failed".into(), |s: StatusCode| s.to_string())
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
