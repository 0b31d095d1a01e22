//! One client's connection to one node: frames in, answers out, one request at a time, as a real broker does it.
//!
//! Frames are read ahead of their turn, up to a bound, so that the request log shows what the client has sent. Which request means
//! what is not known here.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use protocol::message::decode_request_header;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Caller, Orders, Reply};
use crate::faults::Action;
use crate::request_log::LoggedRequest;
use crate::shared::Shared;

/// Requests that are read while an earlier one is served; a client that sends more waits in its own buffers.
const MAX_READ_AHEAD: usize = 64;
/// Bytes of such requests.
const MAX_READ_AHEAD_BYTES: usize = 32 << 20;
/// Bytes asked of the socket at once; memory for a frame grows as its bytes come, never by the length that it claims.
const READ_CHUNK: usize = 64 << 10;
/// Bytes that an idle connection holds.
const IDLE_BUFFER: usize = 8 << 10;
const LENGTH_BYTES: usize = 4;

/// Who is at the other end of a connection, and where it ends.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) node: i32,
    pub(crate) connection: u64,
    pub(crate) host: String,
}

/// How a connection came to its end.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed it")]
    Closed,
    #[error("socket")]
    Socket(#[from] io::Error),
    #[error("a frame of {0} bytes")]
    FrameLength(i32),
    #[error("request")]
    Undecodable(#[source] protocol::message::DecodeError),
    #[error("API {0} or its version is not served")]
    NotServed(i16),
    #[error("a fault or the request asked for it")]
    Asked,
}

type Serving = Pin<Box<dyn Future<Output = Result<Answer, End>> + Send>>;

/// What is to be written for a request, and how long nothing is served after it.
struct Answer {
    number: u64,
    bytes: Option<Bytes>,
    then_close: bool,
    mute: Option<Duration>,
}

/// Serves a connection until the client closes it, it breaks, or `cancel` ends it.
pub(crate) async fn serve<S>(shared: Arc<Shared>, peer: Peer, stream: S, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut connection = Connection {
        shared,
        peer,
        stream,
        buffer: BytesMut::with_capacity(IDLE_BUFFER),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
    };
    tokio::select! { biased;
        () = cancel.cancelled() => {}
        end = connection.run() => tracing::debug!(
            node = connection.peer.node, connection = connection.peer.connection, %end, "connection closed"
        ),
    }
    // What the other side does with the rest is its own business.
    let _ = connection.stream.shutdown().await;
}

struct Connection<S> {
    shared: Arc<Shared>,
    peer: Peer,
    stream: S,
    buffer: BytesMut,
    waiting: VecDeque<LoggedRequest>,
    waiting_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    async fn run(&mut self) -> End {
        let mut serving: Option<Serving> = None;
        // Why no more is read; what was read before is served all the same.
        let mut ended: Option<End> = None;
        loop {
            if serving.is_none() {
                match self.waiting.pop_front() {
                    Some(request) => {
                        self.waiting_bytes -= request.bytes.len();
                        serving = Some(Box::pin(answer(self.shared.clone(), self.peer.clone(), request)));
                    }
                    None => {
                        if let Some(end) = ended {
                            return end;
                        }
                    }
                }
            }
            let room = self.waiting.len() < MAX_READ_AHEAD && self.waiting_bytes < MAX_READ_AHEAD_BYTES;
            let answered = async {
                match &mut serving {
                    Some(serving) => serving.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                answer = answered => {
                    serving = None;
                    match answer {
                        Ok(answer) => if let Err(end) = self.write(answer).await {
                            return end;
                        },
                        Err(end) => return end,
                    }
                }
                read = self.stream.read_buf(&mut self.buffer), if ended.is_none() && room => {
                    ended = match read {
                        Ok(0) => Some(End::Closed),
                        Ok(_) => self.take_frames().err(),
                        Err(error) => Some(End::Socket(error)),
                    };
                }
            }
        }
    }

    async fn write(&mut self, answer: Answer) -> Result<(), End> {
        if let Some(bytes) = answer.bytes {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await?;
            self.shared.requests.answered(answer.number);
            self.shared.announce();
        }
        if answer.then_close {
            return Err(End::Asked);
        }
        if let Some(mute) = answer.mute {
            tokio::time::sleep(mute).await;
        }
        Ok(())
    }

    /// Takes all whole frames out of the buffer and into the request log.
    fn take_frames(&mut self) -> Result<(), End> {
        while let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>().map(|bytes| i32::from_be_bytes(*bytes)) {
            let frame = usize::try_from(length).map_err(|_| End::FrameLength(length))?;
            if frame > self.shared.settings.max_frame_bytes {
                return Err(End::FrameLength(length));
            }
            if self.buffer.len() < LENGTH_BYTES + frame {
                self.buffer.reserve(READ_CHUNK.min(LENGTH_BYTES + frame - self.buffer.len()));
                return Ok(());
            }
            self.buffer.advance(LENGTH_BYTES);
            let bytes = self.buffer.split_to(frame).freeze();
            let request = self.request(bytes)?;
            self.waiting_bytes += request.bytes.len();
            self.waiting.push_back(request);
            self.shared.announce();
        }
        if self.buffer.is_empty() {
            // Give a large frame's memory back, and begin anew.
            self.buffer = BytesMut::with_capacity(IDLE_BUFFER);
        }
        Ok(())
    }

    fn request(&self, mut bytes: Bytes) -> Result<LoggedRequest, End> {
        let header = decode_request_header(&mut bytes).map_err(End::Undecodable)?;
        let api = ApiKey::try_from(header.api_key).map_err(|()| End::NotServed(header.api_key))?;
        let mut request = LoggedRequest {
            number: 0,
            node: self.peer.node,
            connection: self.peer.connection,
            api,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id: header.client_id,
            at: Instant::now(),
            answered: None,
            bytes,
        };
        self.shared.requests.arrived(&mut request);
        Ok(request)
    }
}

/// Serves one request, as far as the faults let it.
async fn answer(shared: Arc<Shared>, peer: Peer, request: LoggedRequest) -> Result<Answer, End> {
    let action = shared.faults.take(&request);
    let mut orders = Orders { refuse: None, throttle: Duration::ZERO };
    match &action {
        Some(Action::CloseBefore) => return Err(End::Asked),
        Some(Action::Garbage(bytes)) => {
            let bytes = Some(bytes.clone());
            return Ok(Answer { number: request.number, bytes, then_close: true, mute: None });
        }
        Some(Action::ReplyError(code)) => orders.refuse = Some(*code),
        Some(Action::Throttle(time)) => orders.throttle = *time,
        Some(Action::HoldRequest(gate)) => gate.pass().await,
        Some(Action::DropAnswer | Action::HoldAnswer(_) | Action::Delay(_)) | None => {}
    }
    let number = request.number;
    let api = request.api;
    let caller = Caller {
        node: peer.node,
        host: peer.host,
        client_id: request.client_id.unwrap_or_default(),
        version: request.version,
        correlation_id: request.correlation_id,
    };
    let reply = api::serve(&shared, &caller, api, request.bytes, &orders).await;
    match action {
        Some(Action::DropAnswer) => return Err(End::Asked),
        Some(Action::HoldAnswer(gate)) => gate.pass().await,
        Some(Action::Delay(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    let mute = (!orders.throttle.is_zero()).then_some(orders.throttle);
    match reply {
        Reply::Answer(body) => {
            let length = i32::try_from(body.len()).map_err(|_| End::FrameLength(i32::MAX))?;
            let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + body.len());
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&body);
            Ok(Answer { number, bytes: Some(bytes.freeze()), then_close: false, mute })
        }
        Reply::Silence => Ok(Answer { number, bytes: None, then_close: false, mute }),
        Reply::Undecodable(error) => Err(End::Undecodable(error)),
        Reply::NotServed => Err(End::NotServed(api as i16)),
        Reply::Close => Err(End::Asked),
    }
}
