//! Tokens for OAUTHBEARER: from a token endpoint (OAuth 2.0, client credentials) or out of a file.
//!
//! It knows nothing of Kafka but the trait that asks for tokens. [`provider`] is the way in.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use protocol::connection::{BoxFuture, Token, TokenProvider};
use reqwest::header;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    config::settings::{ClientTls, OAuth, Secret, TokenSource},
    telemetry::logs::chain,
    tls::{Followed, TlsError},
};

/// For one request to the token endpoint.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);
/// The share of a token's life after which another one is fetched (`sasl.login.refresh.window.factor` of Java's client).
const REFRESH_AFTER: f64 = 0.8;
/// A token of which nobody says how long it lives is taken for good so long.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60);
/// No answer with a token is longer.
const ANSWER_BYTES: usize = 256 * 1024;

/// What gives the tokens that these settings describe.
pub(crate) fn provider(oauth: &OAuth) -> Result<Arc<dyn TokenProvider>, TlsError> {
    let extensions = oauth.extensions.clone();
    Ok(match &oauth.source {
        TokenSource::File(path) => Arc::new(TokenFile { path: path.clone(), extensions }),
        TokenSource::Endpoint { url, client_id, client_secret, scope, tls } => {
            let https = url.starts_with("https://");
            let tls = if https { Some(Followed::new(ClientTls::clone(tls))?) } else { None };
            let credentials = basic(client_id, client_secret);
            let (url, scope) = (url.clone(), scope.clone());
            Arc::new(TokenEndpoint(Arc::new(Endpoint {
                url,
                credentials,
                scope,
                extensions,
                tls,
                cached: Mutex::default(),
            })))
        }
    })
}

struct TokenFile {
    path: PathBuf,
    extensions: Vec<(String, String)>,
}

impl TokenProvider for TokenFile {
    fn token(&self) -> BoxFuture<Result<Token, String>> {
        let (path, extensions) = (self.path.clone(), self.extensions.clone());
        Box::pin(async move {
            // A small local file; it is not worth a thread.
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Token { value: text.trim().to_owned(), extensions })
        })
    }
}

struct TokenEndpoint(Arc<Endpoint>);

struct Endpoint {
    url: String,
    /// The value of the Authorization header.
    credentials: Secret,
    scope: Option<String>,
    extensions: Vec<(String, String)>,
    tls: Option<Followed>,
    /// Locked while a token is fetched, so that one request serves all who wait.
    cached: Mutex<Option<(String, Instant)>>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<f64>,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl TokenProvider for TokenEndpoint {
    fn token(&self) -> BoxFuture<Result<Token, String>> {
        let endpoint = self.0.clone();
        Box::pin(async move {
            let mut cached = endpoint.cached.lock().await;
            let extensions = endpoint.extensions.clone();
            if let Some((value, until)) = cached.as_ref()
                && *until > Instant::now()
            {
                return Ok(Token { value: value.clone(), extensions });
            }
            let granted = endpoint.fetch().await.map_err(|error| format!("{}: {error}", endpoint.url))?;
            let life = granted.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let until =
                Instant::now() + life.unwrap_or(UNKNOWN_LIFE).min(Duration::from_secs(86_400)).mul_f64(REFRESH_AFTER);
            *cached = Some((granted.access_token.clone(), until));
            Ok(Token { value: granted.access_token, extensions })
        })
    }
}

impl Endpoint {
    async fn fetch(&self) -> Result<Granted, String> {
        let config = match &self.tls {
            Some(tls) => (*tls.current()).clone(),
            None => crate::tls::nothing().map_err(|error| error.to_string())?,
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ENDPOINT_TIMEOUT)
            .build()
            .map_err(|error| chain(&error))?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let body: Vec<String> = form.into_iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = client
            .post(&self.url)
            .header(header::AUTHORIZATION, self.credentials.reveal())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(body.join("&"));
        let mut answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES {
                return Err("its answer is longer than any with a token".to_owned());
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            // serde's error would quote what it found.
            return serde_json::from_slice(&bytes).map_err(|_| "its answer holds no access_token".to_owned());
        }
        Err(match serde_json::from_slice::<Refused>(&bytes) {
            Ok(Refused { error, error_description: Some(description) }) => format!("{status}: {error}: {description}"),
            Ok(Refused { error, .. }) => format!("{status}: {error}"),
            Err(_) => status.to_string(),
        })
    }
}

/// RFC 6749, 2.3.1: both halves are encoded like a form before they are put together.
fn basic(client_id: &str, client_secret: &Secret) -> Secret {
    let both = format!("{}:{}", encoded(client_id), encoded(client_secret.reveal()));
    Secret::new(format!("Basic {}", BASE64.encode(both)))
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A token endpoint that answers each request with the next of these, and tells what it was asked.
    fn endpoint(answers: Vec<(&'static str, &'static str)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let asked = std::thread::spawn(move || {
            let answer = |(status, body): (&str, &str)| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = vec![0; 4096];
                let mut length = 0;
                while !String::from_utf8_lossy(&request[..length])
                    .contains("grant_type=client_credentials&scope=a+b%2Fc")
                {
                    length += stream.read(&mut request[length..]).expect("bytes");
                }
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).expect("written");
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            answers.into_iter().map(answer).collect()
        });
        (url, asked)
    }

    fn of(url: String) -> Arc<dyn TokenProvider> {
        let source = TokenSource::Endpoint {
            url,
            client_id: "my id".to_owned(),
            client_secret: Secret::new("s:e%t"),
            scope: Some("a b/c".to_owned()),
            tls: Box::default(),
        };
        provider(&OAuth { source, extensions: vec![("pool".to_owned(), "7".to_owned())] }).expect("a provider")
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_and_kept() {
        let (url, asked) =
            endpoint(vec![("200 OK", r#"{"access_token":"t-1","expires_in":3600,"token_type":"Bearer"}"#)]);
        let provider = of(url);
        for _ in 0..2 {
            let token = provider.token().await.expect("a token");
            assert_eq!((token.value.as_str(), token.extensions.len()), ("t-1", 1));
        }
        let asked = asked.join().expect("answered").join("");
        let expected = format!("authorization: Basic {}", BASE64.encode("my+id:s%3Ae%25t"));
        assert!(asked.contains(&expected), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_endpoints_words_and_asked_again() {
        let (url, asked) = endpoint(vec![
            ("401 Unauthorized", r#"{"error":"invalid_client","error_description":"no such client"}"#),
            ("500 Internal Server Error", "oops"),
            ("200 OK", r#"{"token":"t"}"#),
            ("200 OK", r#"{"access_token":"t-2"}"#),
        ]);
        let provider = of(url.clone());
        for expected in [
            "401 Unauthorized: invalid_client: no such client",
            "500 Internal Server Error",
            "its answer holds no access_token",
        ] {
            assert_eq!(provider.token().await, Err(format!("{url}: {expected}")));
        }
        assert_eq!(provider.token().await.expect("a token").value, "t-2");
        asked.join().expect("answered");
    }

    #[tokio::test]
    async fn a_file_is_read_for_each_token() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let oauth = OAuth { source: TokenSource::File(path.clone()), extensions: Vec::new() };
        let provider = provider(&oauth).expect("a provider");
        assert!(provider.token().await.is_err_and(|error| error.contains("token: ")));
        std::fs::write(&path, "a.b.c\n").expect("written");
        assert_eq!(provider.token().await.expect("a token").value, "a.b.c");
    }
}
