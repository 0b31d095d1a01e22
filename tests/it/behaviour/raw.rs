//! A connection without a client: a test says each request itself, in the version that it wants.

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiVersionsRequest, ApiVersionsResponse, TopicName, api_versions_response::ApiVersion},
    protocol::{Request, StrBytes},
};
use protocol::{
    connection::Stream,
    error_code::ErrorCode,
    message::{api_name, decode_response, decode_response_header, encode_request},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use super::bed::{Bed, PATIENCE};

/// A connection to one broker.
pub(crate) struct Raw {
    stream: Box<dyn Stream>,
    correlation_id: i32,
}

impl Raw {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, correlation_id: 0 }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation_id += 1;
        let frame = encode_request(request, version, self.correlation_id, "raw")?;
        self.answer_to::<R>(version, &frame).await
    }

    /// Whether the broker serves this version of an API.
    pub(crate) async fn serves<R: Request>(&mut self, version: i16) -> Result<bool> {
        let answer = self.ask(0, &ApiVersionsRequest::default()).await?;
        let served = |api: &ApiVersion| (api.min_version..=api.max_version).contains(&version);
        Ok(answer.api_keys.iter().any(|api| api.api_key == R::KEY && served(api)))
    }

    /// Asks for ApiVersions in a version that is not yet (KIP-511).
    pub(crate) async fn unheard_of_versions(&mut self) -> Result<ApiVersionsResponse> {
        self.correlation_id += 1;
        let mut frame = encode_request(&ApiVersionsRequest::default(), 3, self.correlation_id, "raw")?;
        frame[2..4].copy_from_slice(&99i16.to_be_bytes());
        self.answer_to::<ApiVersionsRequest>(0, &frame).await
    }

    /// Sends a frame as it is, and reads the answer as one to this request.
    async fn answer_to<R: Request>(&mut self, version: i16, frame: &[u8]) -> Result<R::Response> {
        let exchange = async {
            self.stream.write_all(&u32::try_from(frame.len())?.to_be_bytes()).await?;
            self.stream.write_all(frame).await?;
            let length = self.stream.read_u32().await.context("the broker closed the connection")?;
            let mut answer = BytesMut::zeroed(usize::try_from(length)?);
            self.stream.read_exact(&mut answer).await?;
            anyhow::Ok(answer.freeze())
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        let mut body: Bytes = answer.with_context(|| format!("no answer to {}", api_name(R::KEY)))??;
        let answered = decode_response_header(R::KEY, version, &mut body)?;
        ensure!(answered == self.correlation_id, "an answer to request {answered}, not to {}", self.correlation_id);
        Ok(decode_response::<R>(version, body)?)
    }
}

/// Error codes as they came, beside those that they should be; what differs is told at the end, all together.
#[derive(Default)]
pub(crate) struct Codes {
    wrong: Vec<String>,
}

impl Codes {
    pub(crate) fn check(&mut self, what: &str, code: i16, expected: ErrorCode) {
        if ErrorCode(code) != expected {
            self.wrong.push(format!("{what}: {}, not {expected}", ErrorCode(code)));
        }
    }

    /// For what is no error code.
    pub(crate) fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{what}: {found:?}, not {expected:?}"));
        }
    }

    pub(crate) fn end(self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        Ok(())
    }
}

pub(crate) fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A topic that can be used at once, and its id.
pub(crate) async fn ready_topic(bed: &Bed, name: &str, partitions: i32) -> Result<Uuid> {
    let client = bed.client();
    client.admin().create_topic(name, partitions, PATIENCE).await?;
    loop {
        let ends = client.admin().log_ends(name).await;
        let topic = client.admin().describe_topic(name).await;
        if let (Ok(_), Some(topic)) = (ends, topic) {
            client.close(PATIENCE).await;
            return Ok(topic.id);
        }
    }
}
