//! A connection without a client: a test says each request itself, in the version that it wants.

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Request;
use protocol::{
    connection::Stream,
    message::{decode_response, decode_response_header, encode_request},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

    /// Sends a frame as it is, and reads the answer as one to this request.
    pub(crate) async fn answer_to<R: Request>(&mut self, version: i16, frame: &[u8]) -> Result<R::Response> {
        self.stream.write_all(&u32::try_from(frame.len())?.to_be_bytes()).await?;
        self.stream.write_all(frame).await?;
        let length = self.stream.read_u32().await.context("the broker closed the connection")?;
        let mut answer = BytesMut::zeroed(usize::try_from(length)?);
        self.stream.read_exact(&mut answer).await?;
        let mut body: Bytes = answer.freeze();
        let answered = decode_response_header(R::KEY, version, &mut body)?;
        ensure!(answered == self.correlation_id, "an answer to request {answered}, not to {}", self.correlation_id);
        Ok(decode_response::<R>(version, body)?)
    }
}
