//! HTTP as bytes on a socket, for requests that no client library would send.

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::operator::PATIENCE;

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// `host:port` of an http URL.
pub(crate) fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Sends the bytes and reads until the server closes; the last answer of what it says.
pub(crate) async fn exchange(address: &str, request: &[u8]) -> Result<Answer> {
    let (mut read, mut write) = TcpStream::connect(address).await?.into_split();
    let sending = async move {
        // A server that refuses may close before everything is sent.
        let _ = write.write_all(request).await;
        write
    };
    let mut bytes = Vec::new();
    let both = async { tokio::join!(sending, read.read_to_end(&mut bytes)) };
    let (_open, outcome) = tokio::time::timeout(PATIENCE, both).await.context("the server does not close")?;
    outcome.with_context(|| format!("after {}", String::from_utf8_lossy(&bytes)))?;
    answer(&bytes)
}

pub(crate) fn answer(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8(bytes.to_vec())?;
    let last = text.rfind("HTTP/1.1 ").with_context(|| format!("no answer: {text:?}"))?;
    let (head, body) = text.get(last..).and_then(|last| last.split_once("\r\n\r\n")).context("no head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
