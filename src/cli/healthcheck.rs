//! `kafka-sidecar healthcheck`: one GET, for containers that have no shell and no curl.
//!
//! It speaks just enough HTTP/1.0 for that, without TLS. [`run`] is the whole command.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    process::ExitCode,
    time::Duration,
};

use super::complain;
use crate::config::settings::Settings;

/// For connecting, and for every read.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More than this is no health page.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("{url} is no http:// address")]
    Url { url: String },
    #[error("{authority} cannot be reached: {reason}")]
    Unreachable { authority: String, reason: io::Error },
    #[error("the answer is no HTTP")]
    NotHttp,
    #[error("not ready: {status} {body}")]
    NotReady { status: u16, body: String },
}

/// Where a sidecar with these settings tells whether it is ready.
pub(crate) fn page(settings: &Settings) -> String {
    let mut address = settings.sidecar.probes.unwrap_or(settings.server.http);
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}/health/readiness")
}

pub(crate) fn run(url: &str) -> ExitCode {
    match check(url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn check(url: &str) -> Result<(), CheckError> {
    let invalid = || CheckError::Url { url: url.to_owned() };
    let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || rest.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
        return Err(invalid());
    }
    let with_port = if authority.parse::<SocketAddr>().is_ok() || authority.rsplit_once(':').is_some_and(is_port) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let answer = exchange(&with_port, &request)
        .map_err(|reason| CheckError::Unreachable { authority: authority.to_owned(), reason })?;
    judge(&answer)
}

fn is_port((host, port): (&str, &str)) -> bool {
    !host.is_empty() && port.parse::<u16>().is_ok()
}

/// Tries every address that the name has.
fn exchange(authority: &str, request: &str) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(mut socket) => {
                socket.set_read_timeout(Some(TIMEOUT))?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                socket.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                socket.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
                return Ok(answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn judge(answer: &[u8]) -> Result<(), CheckError> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(CheckError::NotHttp)?;
    let mut words = head.split_ascii_whitespace();
    let (Some(version), Some(status)) = (words.next(), words.next().and_then(|status| status.parse().ok())) else {
        return Err(CheckError::NotHttp);
    };
    match status {
        _ if !version.starts_with("HTTP/") => Err(CheckError::NotHttp),
        200..300 => Ok(()),
        status => Err(CheckError::NotReady { status, body: body.chars().take(500).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered_with(answer: &'static str) -> Result<(), CheckError> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("accept");
            let mut request = [0; 1024];
            let read = socket.read(&mut request).expect("read");
            socket.write_all(answer.as_bytes()).expect("write");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let checked = check(&format!("http://{address}/health/readiness"));
        assert!(server.join().expect("server").starts_with("GET /health/readiness HTTP/1.0\r\n"));
        checked
    }

    #[test]
    fn only_a_2xx_is_ready() {
        assert!(answered_with("HTTP/1.0 200 OK\r\n\r\nOK").is_ok());
        let not_ready = answered_with("HTTP/1.0 400 Bad Request\r\n\r\nERROR").expect_err("not ready");
        assert_eq!(not_ready.to_string(), "not ready: 400 ERROR");
        for garbage in ["", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.0\r\n\r\n", "200 200\r\n\r\n"] {
            assert!(matches!(answered_with(garbage), Err(CheckError::NotHttp)), "{garbage}");
        }
    }

    #[test]
    fn an_address_without_a_server_or_a_scheme_is_an_error() {
        let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let error = check(&format!("http://{closed}/")).expect_err("nobody there");
        assert!(error.to_string().starts_with(&format!("{closed} cannot be reached: ")), "{error}");
        for url in ["https://localhost/", "localhost:9404", "http:///x", "http://a b/"] {
            assert!(matches!(check(url), Err(CheckError::Url { .. })), "{url}");
        }
    }
}
