//! The task that owns a socket.
//!
//! ```text
//! Delayed -> Connecting -> Negotiating -> Serving -> Poisoned
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, ApiVersions, Command, ConnectionConfig, Connector, Frame, Reply, RequestError, RequestErrorKind, State,
    Stream,
    inbox::{Inbox, Next},
    versions::{self, Negotiation},
};
use crate::message::{self, DecodeError, Direction, EncodeError, Reason};

/// No further request is taken while so many bytes wait to be written.
const OUTBOX_BYTES: usize = 256 * 1024;
/// A negotiation takes at most so many ApiVersions requests.
const NEGOTIATION_TRIES: usize = 3;

/// What else may stand behind an address that takes connections and says nothing that Kafka says.
const ASK: &str = "is it a Kafka listener, and one without TLS?";
const API_VERSIONS: i16 = ApiKey::ApiVersions as i16;

pub(super) struct Task {
    connector: Arc<dyn Connector>,
    host: String,
    port: u16,
    config: ConnectionConfig,
    state: Arc<State>,
    commands: mpsc::Receiver<Command>,
}

/// A request that was queued for writing and not answered.
struct InFlight {
    api: &'static str,
    api_key: i16,
    version: i16,
    correlation_id: i32,
    expects_answer: bool,
    since: Instant,
    deadline: Instant,
    timeout: Duration,
    /// Where its bytes begin and end in everything that this socket is to write.
    begins: u64,
    ends: u64,
    reply: Reply,
}

impl Task {
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        host: String,
        port: u16,
        config: ConnectionConfig,
        state: Arc<State>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self { connector, host, port, config, state, commands }
    }

    pub(super) async fn run(mut self, delay: Duration, cancel: CancellationToken) {
        let setup = async {
            tokio::time::sleep(delay).await;
            match tokio::time::timeout(self.config.setup_timeout, self.set_up()).await {
                Ok(result) => result,
                Err(_) => {
                    let timeout = self.config.setup_timeout;
                    Err(self
                        .unreachable(format!("not connected, or no answer to ApiVersions, within {timeout:?}; {ASK}")))
                }
            }
        };
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RequestErrorKind::Shutdown),
            opened = setup => opened,
        };
        match opened {
            Ok((stream, versions, inbox)) => {
                let versions = Arc::new(versions);
                let _ = self.state.versions.set(versions.clone());
                let (reader, writer) = tokio::io::split(stream);
                let mut socket = Socket::new(reader, writer, inbox, versions, &self.state, &self.config);
                self.state.counted.broker.opened();
                let cause = socket.serve(&mut self.commands, &cancel).await;
                self.state.counted.broker.closed();
                let _ = self.state.poison.set(cause.clone());
                socket.fail_in_flight(&cause);
                self.refuse_queued(&cause);
            }
            Err(cause) => {
                if !matches!(cause, RequestErrorKind::Shutdown) {
                    self.state.counted.broker.failed();
                }
                let _ = self.state.poison.set(cause.clone());
                self.refuse_queued(&cause);
            }
        }
    }

    fn unreachable(&self, cause: String) -> RequestErrorKind {
        RequestErrorKind::Unreachable { address: self.state.address.clone(), cause: cause.into() }
    }

    async fn set_up(&self) -> Result<(Box<dyn Stream>, ApiVersions, Inbox), RequestErrorKind> {
        let mut stream =
            self.connector.connect(&self.host, self.port).await.map_err(|error| self.unreachable(error.to_string()))?;
        let mut inbox = Inbox::new(self.config.max_response_bytes);
        let versions = self.negotiate(&mut stream, &mut inbox).await?;
        Ok((stream, versions, inbox))
    }

    async fn negotiate(
        &self,
        stream: &mut Box<dyn Stream>,
        inbox: &mut Inbox,
    ) -> Result<ApiVersions, RequestErrorKind> {
        let mut version = message::supported(API_VERSIONS).map_or(0, |range| *range.end());
        for correlation_id in 0..NEGOTIATION_TRIES {
            let request =
                message::encode_request(&versions::request(), version, correlation_id as i32, &self.config.client_id)
                    .map_err(|error| RequestErrorKind::Encode { api: "ApiVersions", cause: error.reason.into() })?;
            let io = |error: io::Error| self.unreachable(format!("ApiVersions: {error}"));
            let mut frame = BytesMut::with_capacity(request.len() + 4);
            frame.put_u32(request.len() as u32);
            frame.extend_from_slice(&request);
            stream.write_all(&frame).await.map_err(io)?;
            stream.flush().await.map_err(io)?;
            self.state.counted.broker.sent(frame.len());
            let body = self.read_frame(stream, inbox).await?;
            let body = strip_header(body, API_VERSIONS, version, correlation_id as i32)
                .map_err(|error| self.not_kafka(error))?;
            match versions::read(version, body).map_err(|error| self.not_kafka(error))? {
                Negotiation::Done(versions) => return Ok(versions),
                Negotiation::Again(lower) => version = lower,
                Negotiation::Refused(code) => return Err(self.unreachable(format!("ApiVersions was refused: {code}"))),
            }
        }
        Err(RequestErrorKind::UnsupportedVersion { api: "ApiVersions", address: self.state.address.clone() })
    }

    async fn read_frame(&self, stream: &mut Box<dyn Stream>, inbox: &mut Inbox) -> Result<Bytes, RequestErrorKind> {
        loop {
            match inbox.next() {
                Next::Frame(frame) => return Ok(frame),
                Next::Refused(announced) => return Err(refused(&self.state, announced, &self.config)),
                Next::More => match stream.read_buf(&mut inbox.buffer).await {
                    Ok(0) => {
                        return Err(self.unreachable(format!("it closed the connection during ApiVersions; {ASK}")));
                    }
                    Ok(count) => self.state.counted.broker.received(count),
                    Err(error) => return Err(self.unreachable(format!("ApiVersions: {error}"))),
                },
            }
        }
    }

    fn not_kafka(&self, error: DecodeError) -> RequestErrorKind {
        RequestErrorKind::Decode { address: self.state.address.clone(), source: Arc::new(error) }
    }

    /// Answers everything that was never taken from the queue.
    fn refuse_queued(&mut self, cause: &RequestErrorKind) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            command.reply.fail(RequestError::not_sent(cause.clone()));
        }
    }
}

struct Socket<'a> {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    inbox: Inbox,
    outbox: BytesMut,
    /// Bytes ever queued for writing, and ever written.
    queued: u64,
    written: u64,
    in_flight: VecDeque<InFlight>,
    correlation_id: i32,
    versions: Arc<ApiVersions>,
    state: &'a State,
    config: &'a ConnectionConfig,
}

impl<'a> Socket<'a> {
    fn new(
        reader: ReadHalf<Box<dyn Stream>>,
        writer: WriteHalf<Box<dyn Stream>>,
        inbox: Inbox,
        versions: Arc<ApiVersions>,
        state: &'a State,
        config: &'a ConnectionConfig,
    ) -> Self {
        Self {
            reader,
            writer,
            inbox,
            outbox: BytesMut::new(),
            queued: 0,
            written: 0,
            in_flight: VecDeque::new(),
            correlation_id: NEGOTIATION_TRIES as i32,
            versions,
            state,
            config,
        }
    }

    /// Serves until something ends the connection; returns what.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>, cancel: &CancellationToken) -> RequestErrorKind {
        let mut open = true;
        let mut last_used = Instant::now();
        loop {
            if !open && self.in_flight.is_empty() && self.outbox.is_empty() {
                return self.closed("it was no longer needed");
            }
            let muted = *self.state.muted_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            let muted = muted.filter(|until| *until > now);
            let wakes = self.wakes_at(last_used, muted);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return RequestErrorKind::Shutdown,
                read = self.reader.read_buf(&mut self.inbox.buffer) => {
                    last_used = Instant::now();
                    if let Err(cause) = self.take_in(read) {
                        return cause;
                    }
                }
                written = self.writer.write_buf(&mut self.outbox), if !self.outbox.is_empty() => {
                    last_used = Instant::now();
                    if let Err(cause) = self.count_written(written) {
                        return cause;
                    }
                    if self.outbox.is_empty() && let Err(error) = self.writer.flush().await {
                        return self.closed(error);
                    }
                }
                command = commands.recv(), if open && muted.is_none() && self.outbox.len() < OUTBOX_BYTES => match command {
                    Some(command) => self.put_out(command),
                    None => open = false,
                },
                () = tokio::time::sleep_until(wakes) => {
                    let now = Instant::now();
                    if let Some(late) = self.in_flight.iter().find(|request| request.deadline <= now) {
                        let address = self.state.address.clone();
                        return RequestErrorKind::Timeout { api: late.api, address, timeout: late.timeout };
                    }
                    if self.in_flight.is_empty() && now.duration_since(last_used) >= self.config.max_idle {
                        return self.closed("it was idle for connections.max.idle.ms");
                    }
                }
            }
        }
    }

    fn wakes_at(&self, last_used: Instant, muted: Option<Instant>) -> Instant {
        let idle = last_used + self.config.max_idle;
        let deadline = self.in_flight.iter().map(|request| request.deadline).min();
        [deadline, muted].into_iter().flatten().fold(idle, Instant::min)
    }

    fn put_out(&mut self, command: Command) {
        let Command { api, deadline, timeout, build, reply } = command;
        let since = Instant::now();
        if deadline <= since {
            let address = self.state.address.clone();
            reply.fail(RequestError::not_sent(RequestErrorKind::Timeout { api, address, timeout }));
            return;
        }
        let Frame { api_key, version, mut bytes, expects_answer } = match build(&self.versions) {
            Ok(frame) => frame,
            Err(kind) => {
                reply.fail(RequestError::not_sent(kind));
                return;
            }
        };
        let correlation_id = self.correlation_id;
        self.correlation_id = self.correlation_id.wrapping_add(1) & i32::MAX;
        if let Some(place) = bytes.get_mut(4..8) {
            place.copy_from_slice(&correlation_id.to_be_bytes());
        }
        let begins = self.queued;
        self.queued += bytes.len() as u64 + 4;
        if self.outbox.is_empty() && self.outbox.capacity() < bytes.len() + 4 {
            self.outbox = BytesMut::with_capacity(bytes.len() + 4);
        }
        self.outbox.put_u32(bytes.len() as u32);
        self.outbox.extend_from_slice(&bytes);
        self.in_flight.push_back(InFlight {
            api,
            api_key,
            version,
            correlation_id,
            expects_answer,
            since,
            deadline,
            timeout,
            begins,
            ends: self.queued,
            reply,
        });
    }

    fn count_written(&mut self, written: io::Result<usize>) -> Result<(), RequestErrorKind> {
        match written {
            Ok(0) => return Err(self.closed("it takes no more bytes")),
            Ok(count) => {
                self.written += count as u64;
                self.state.counted.broker.sent(count);
            }
            Err(error) => return Err(self.closed(error)),
        }
        let written = self.written;
        // What expects no answer is done once it is written; the rest keeps its order.
        if self.in_flight.iter().any(|request| !request.expects_answer) {
            let (done, waiting) =
                self.in_flight.drain(..).partition::<VecDeque<_>, _>(|r| !r.expects_answer && r.ends <= written);
            self.in_flight = waiting;
            for request in done {
                request.reply.answer(None, request.since.elapsed());
            }
        }
        Ok(())
    }

    fn take_in(&mut self, read: io::Result<usize>) -> Result<(), RequestErrorKind> {
        match read {
            Ok(0) => return Err(self.closed("the broker closed it")),
            Ok(count) => self.state.counted.broker.received(count),
            Err(error) => return Err(self.closed(error)),
        }
        loop {
            match self.inbox.next() {
                Next::More => return Ok(()),
                Next::Refused(announced) => return Err(refused(self.state, announced, self.config)),
                Next::Frame(frame) => self.hand_out(frame)?,
            }
        }
    }

    fn hand_out(&mut self, frame: Bytes) -> Result<(), RequestErrorKind> {
        let Some(position) = self.in_flight.iter().position(|request| request.expects_answer) else {
            return Err(self.closed("the broker sent an answer that nobody asked for"));
        };
        let Some(request) = self.in_flight.remove(position) else { return Ok(()) };
        match strip_header(frame, request.api_key, request.version, request.correlation_id) {
            Ok(body) => {
                let answer = Answer { version: request.version, body };
                request.reply.answer(Some(answer), request.since.elapsed());
                Ok(())
            }
            Err(error) => {
                let cause = RequestErrorKind::Decode { address: self.state.address.clone(), source: Arc::new(error) };
                request.reply.fail(RequestError::unknown(cause.clone()));
                Err(cause)
            }
        }
    }

    fn closed(&self, cause: impl ToString) -> RequestErrorKind {
        RequestErrorKind::Closed { address: self.state.address.clone(), cause: cause.to_string().into() }
    }

    /// Answers everything that was taken: what no byte of was written is not sent, the rest unknown.
    fn fail_in_flight(&mut self, cause: &RequestErrorKind) {
        for request in self.in_flight.drain(..) {
            let error = if request.begins >= self.written {
                RequestError::not_sent(cause.clone())
            } else {
                RequestError::unknown(cause.clone())
            };
            request.reply.fail(error);
        }
    }
}

fn refused(state: &State, announced: i32, config: &ConnectionConfig) -> RequestErrorKind {
    RequestErrorKind::FrameTooLarge {
        address: state.address.clone(),
        size: announced as u32 as usize,
        limit: config.max_response_bytes,
    }
}

/// The body behind a response header, whose correlation id must be the one asked for.
fn strip_header(mut frame: Bytes, api_key: i16, version: i16, correlation_id: i32) -> Result<Bytes, DecodeError> {
    let answered = message::decode_response_header(api_key, version, &mut frame)?;
    if answered == correlation_id {
        return Ok(frame);
    }
    Err(DecodeError {
        api: message::api_name(api_key),
        version,
        direction: Direction::Response,
        field: "correlation_id".to_owned(),
        reason: Reason::Correlation { expected: correlation_id, answered },
    })
}

/// The bytes of a request in the highest common version, which `encode` writes. `topic_ids`: the ids of all its topics are
/// known.
pub(crate) fn frame(
    versions: &ApiVersions,
    api_key: i16,
    address: &Arc<str>,
    expects_answer: bool,
    topic_ids: bool,
    encode: impl FnOnce(i16) -> Result<BytesMut, EncodeError>,
) -> Result<Frame, RequestErrorKind> {
    let api = message::api_name(api_key);
    let version = versions
        .pick(api_key, topic_ids)
        .ok_or_else(|| RequestErrorKind::UnsupportedVersion { api, address: address.clone() })?;
    let bytes = encode(version).map_err(|error| RequestErrorKind::Encode { api, cause: error.reason.into() })?;
    Ok(Frame { api_key, version, bytes, expects_answer })
}
