//! The task that owns a socket.
//!
//! ```text
//! Delayed -> Connecting -> Negotiating -> Authenticating -> Serving -> Poisoned
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
    authentication::{AuthenticationError, Dialog, Progress},
    frame::{foreign, set_correlation_id, strip_header},
    inbox::{Inbox, Next},
    sasl::Token,
    session::Session,
    tls::explain_later,
    versions::{self, Negotiation},
};
use crate::message::{self, DecodeError};

/// No further request is taken while so many bytes wait to be written.
const OUTBOX_BYTES: usize = 256 * 1024;
/// A negotiation takes at most so many ApiVersions requests.
const NEGOTIATION_TRIES: usize = 3;

const UNASKED: &str = "the broker sent an answer that nobody asked for";
/// What else may stand behind an address that takes connections and says nothing that Kafka says.
const ASK: &str = "is it a Kafka listener, and does security.protocol fit it?";
const API_VERSIONS: i16 = ApiKey::ApiVersions as i16;

/// Whom an answer is for.
enum Recipient {
    Caller(Reply),
    /// The renewal of the session.
    Session,
}

impl Recipient {
    fn answer(self, answer: Option<Answer>, took: Duration) {
        if let Self::Caller(caller) = self {
            caller.answer(answer, took);
        }
    }

    fn fail(self, error: RequestError) {
        if let Self::Caller(caller) = self {
            caller.fail(error);
        }
    }
}

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
    recipient: Recipient,
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
            Ok(opened) => {
                let _ = self.state.versions.set(opened.versions.clone());
                let mut socket = Socket::new(opened, &self.state, &self.config);
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

    async fn set_up(&self) -> Result<Opened, RequestErrorKind> {
        let mut stream =
            self.connector.connect(&self.host, self.port).await.map_err(|error| self.unreachable(error.to_string()))?;
        let mut inbox = Inbox::new(self.config.max_response_bytes);
        let mut correlation_id = 0;
        let versions = Arc::new(self.negotiate(&mut stream, &mut inbox, &mut correlation_id).await?);
        let session = match &self.config.sasl {
            Some(mechanism) => {
                let token = match mechanism.token() {
                    Some(token) => Some(token.await),
                    None => None,
                };
                let mut dialog = Dialog::new(mechanism, token).map_err(|error| authentication(&self.state, error))?;
                self.authenticate(&mut dialog, &versions, &mut stream, &mut inbox, &mut correlation_id).await?
            }
            None => Session::Lasting,
        };
        Ok(Opened { stream, versions, inbox, session, correlation_id })
    }

    /// One request and its answer on a socket that does nothing else yet.
    async fn ask(
        &self,
        frame: Frame,
        stream: &mut Box<dyn Stream>,
        inbox: &mut Inbox,
        correlation_id: &mut i32,
    ) -> Result<Bytes, RequestErrorKind> {
        let Frame { api_key, version, mut bytes, .. } = frame;
        let api = message::api_name(api_key);
        let io = |error: io::Error| self.unreachable(format!("{api}: {}", explain_later(error)));
        let id = *correlation_id;
        *correlation_id += 1;
        set_correlation_id(&mut bytes, id);
        let mut framed = BytesMut::with_capacity(bytes.len() + 4);
        framed.put_u32(bytes.len() as u32);
        framed.extend_from_slice(&bytes);
        stream.write_all(&framed).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        self.state.counted.broker.sent(framed.len());
        let body = self.read_frame((api_key, version, id), stream, inbox).await?;
        strip_header(body, api_key, version).map_err(|error| self.not_kafka(error))
    }

    async fn authenticate(
        &self,
        dialog: &mut Dialog,
        versions: &ApiVersions,
        stream: &mut Box<dyn Stream>,
        inbox: &mut Inbox,
        correlation_id: &mut i32,
    ) -> Result<Session, RequestErrorKind> {
        loop {
            let failed = |error| authentication(&self.state, error);
            let frame = dialog.request(versions, &self.config.client_id).map_err(failed)?;
            let version = frame.version;
            let body = self.ask(frame, stream, inbox, correlation_id).await?;
            match dialog.answer(version, body).map_err(failed)? {
                Progress::Next => {}
                Progress::Done { again_after } => return Ok(Session::begun(again_after)),
            }
        }
    }

    async fn negotiate(
        &self,
        stream: &mut Box<dyn Stream>,
        inbox: &mut Inbox,
        correlation_id: &mut i32,
    ) -> Result<ApiVersions, RequestErrorKind> {
        let mut version = message::supported(API_VERSIONS).map_or(0, |range| *range.end());
        for _ in 0..NEGOTIATION_TRIES {
            let bytes = message::encode_request(&versions::request(), version, 0, &self.config.client_id)
                .map_err(|error| RequestErrorKind::Encode { api: "ApiVersions", cause: error.reason.into() })?;
            let frame = Frame { api_key: API_VERSIONS, version, bytes, expects_answer: true };
            let body = self.ask(frame, stream, inbox, correlation_id).await?;
            match versions::read(version, body).map_err(|error| self.not_kafka(error))? {
                Negotiation::Done(versions) => return Ok(versions),
                Negotiation::Again(lower) => version = lower,
                Negotiation::Refused(code) => return Err(self.unreachable(format!("ApiVersions was refused: {code}"))),
            }
        }
        Err(RequestErrorKind::UnsupportedVersion { api: "ApiVersions", address: self.state.address.clone() })
    }

    async fn read_frame(
        &self,
        (api_key, version, correlation_id): (i16, i16, i32),
        stream: &mut Box<dyn Stream>,
        inbox: &mut Inbox,
    ) -> Result<Bytes, RequestErrorKind> {
        let api = message::api_name(api_key);
        let fault = loop {
            match inbox.next(Some(correlation_id)) {
                Next::Frame(frame) => return Ok(frame),
                Next::Foreign(answered) => {
                    break self.not_kafka(foreign(api_key, version, correlation_id, answered));
                }
                Next::Refused(announced) => break refused(&self.state, announced, &self.config),
                Next::More => match stream.read_buf(&mut inbox.buffer).await {
                    Ok(0) => break self.unreachable(format!("it closed the connection during {api}; {ASK}")),
                    Ok(count) => self.state.counted.broker.received(count),
                    // With TLS 1.3 a broker refuses our certificate only now.
                    Err(error) => break self.unreachable(format!("{api}: {}", explain_later(error))),
                },
            }
        };
        Err(inbox.stranger().map_or(fault, |speaks| self.unreachable(speaks.to_owned())))
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

/// A socket that is ready to serve.
struct Opened {
    stream: Box<dyn Stream>,
    versions: Arc<ApiVersions>,
    inbox: Inbox,
    session: Session,
    /// The next one.
    correlation_id: i32,
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
    session: Session,
    /// It has answered a request of a caller.
    answered: bool,
    state: &'a State,
    config: &'a ConnectionConfig,
}

impl<'a> Socket<'a> {
    fn new(opened: Opened, state: &'a State, config: &'a ConnectionConfig) -> Self {
        let Opened { stream, versions, inbox, session, correlation_id } = opened;
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            inbox,
            outbox: BytesMut::new(),
            queued: 0,
            written: 0,
            in_flight: VecDeque::new(),
            correlation_id,
            versions,
            session,
            answered: false,
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
            let holds = self.session.holds_requests();
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
                command = commands.recv(), if open && muted.is_none() && !holds && self.outbox.len() < OUTBOX_BYTES => match command {
                    Some(command) => self.put_out(command),
                    None => open = false,
                },
                token = self.session.token() => {
                    if let Err(cause) = self.renew_with(Some(token)) {
                        return cause;
                    }
                }
                () = tokio::time::sleep_until(wakes) => {
                    let now = Instant::now();
                    if let Err(cause) = self.renew(now) {
                        return cause;
                    }
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
        [deadline, muted, self.session.wakes_at()].into_iter().flatten().fold(idle, Instant::min)
    }

    /// Authenticates again if it is time (KIP-368).
    fn renew(&mut self, now: Instant) -> Result<(), RequestErrorKind> {
        let Some(mechanism) = self.config.sasl.clone() else { return Ok(()) };
        match self.session.renew(&mechanism, now, self.config.setup_timeout) {
            Ok(true) => self.continue_dialog(),
            Ok(false) => Ok(()),
            Err(error) => Err(authentication(self.state, error)),
        }
    }

    fn renew_with(&mut self, token: Option<Result<Token, String>>) -> Result<(), RequestErrorKind> {
        let Some(mechanism) = &self.config.sasl else { return Ok(()) };
        let dialog = Dialog::new(mechanism, token).map_err(|error| authentication(self.state, error))?;
        self.session = Session::Talking(Box::new(dialog));
        self.continue_dialog()
    }

    /// Sends the next request of the renewal.
    fn continue_dialog(&mut self) -> Result<(), RequestErrorKind> {
        let Session::Talking(dialog) = &mut self.session else { return Ok(()) };
        let frame = dialog
            .request(&self.versions, &self.config.client_id)
            .map_err(|error| authentication(self.state, error))?;
        let (api, timeout) = (message::api_name(frame.api_key), self.config.setup_timeout);
        self.enqueue(api, frame, Instant::now() + timeout, timeout, Recipient::Session);
        Ok(())
    }

    fn answer_dialog(&mut self, version: i16, body: Bytes) -> Result<(), RequestErrorKind> {
        let Session::Talking(dialog) = &mut self.session else { return Ok(()) };
        match dialog.answer(version, body).map_err(|error| authentication(self.state, error))? {
            Progress::Next => self.continue_dialog(),
            Progress::Done { again_after } => {
                tracing::debug!(address = %self.state.address, "authenticated again");
                self.session = Session::begun(again_after);
                Ok(())
            }
        }
    }

    fn put_out(&mut self, command: Command) {
        let Command { api, deadline, timeout, build, reply } = command;
        if deadline <= Instant::now() {
            let address = self.state.address.clone();
            reply.fail(RequestError::not_sent(RequestErrorKind::Timeout { api, address, timeout }));
            return;
        }
        match build(&self.versions) {
            Ok(frame) => self.enqueue(api, frame, deadline, timeout, Recipient::Caller(reply)),
            Err(kind) => {
                reply.fail(RequestError::not_sent(kind));
            }
        }
    }

    fn enqueue(&mut self, api: &'static str, frame: Frame, deadline: Instant, timeout: Duration, recipient: Recipient) {
        let Frame { api_key, version, mut bytes, expects_answer } = frame;
        let correlation_id = self.correlation_id;
        self.correlation_id = self.correlation_id.wrapping_add(1) & i32::MAX;
        set_correlation_id(&mut bytes, correlation_id);
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
            since: Instant::now(),
            deadline,
            timeout,
            begins,
            ends: self.queued,
            recipient,
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
                request.recipient.answer(None, request.since.elapsed());
            }
        }
        Ok(())
    }

    fn take_in(&mut self, read: io::Result<usize>) -> Result<(), RequestErrorKind> {
        match read {
            Ok(0) if !self.answered && self.config.sasl.is_none() => {
                return Err(
                    self.closed("the broker closed it before its first answer, as a listener that wants SASL does")
                );
            }
            Ok(0) => return Err(self.closed("the broker closed it")),
            Ok(count) => self.state.counted.broker.received(count),
            Err(error) => return Err(self.closed(error)),
        }
        loop {
            let awaited = self.in_flight.iter().find(|request| request.expects_answer);
            match self.inbox.next(awaited.map(|request| request.correlation_id)) {
                Next::More => return Ok(()),
                Next::Refused(announced) => return Err(refused(self.state, announced, self.config)),
                Next::Frame(frame) => self.hand_out(frame)?,
                Next::Foreign(answered) => return Err(self.misled(awaited, answered)),
            }
        }
    }

    /// Something else came than the awaited answer.
    fn misled(&self, awaited: Option<&InFlight>, answered: i32) -> RequestErrorKind {
        match awaited {
            None => self.closed(UNASKED),
            Some(request) => {
                let error = foreign(request.api_key, request.version, request.correlation_id, answered);
                RequestErrorKind::Decode { address: self.state.address.clone(), source: Arc::new(error) }
            }
        }
    }

    fn hand_out(&mut self, frame: Bytes) -> Result<(), RequestErrorKind> {
        let Some(position) = self.in_flight.iter().position(|request| request.expects_answer) else {
            return Err(self.closed(UNASKED));
        };
        let Some(request) = self.in_flight.remove(position) else { return Ok(()) };
        match strip_header(frame, request.api_key, request.version) {
            Ok(body) if matches!(request.recipient, Recipient::Session) => self.answer_dialog(request.version, body),
            Ok(body) => {
                self.answered = true;
                let answer = Answer { version: request.version, body };
                request.recipient.answer(Some(answer), request.since.elapsed());
                Ok(())
            }
            Err(error) => {
                let cause = RequestErrorKind::Decode { address: self.state.address.clone(), source: Arc::new(error) };
                request.recipient.fail(RequestError::unknown(cause.clone()));
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
            request.recipient.fail(error);
        }
    }
}

fn authentication(state: &State, error: AuthenticationError) -> RequestErrorKind {
    let address = state.address.clone();
    match error {
        AuthenticationError::Decode(source) => RequestErrorKind::Decode { address, source: Arc::new(source) },
        error => RequestErrorKind::Authentication { address, cause: error.to_string().into() },
    }
}

fn refused(state: &State, announced: i32, config: &ConnectionConfig) -> RequestErrorKind {
    RequestErrorKind::FrameTooLarge {
        address: state.address.clone(),
        size: announced as u32 as usize,
        limit: config.max_response_bytes,
    }
}
