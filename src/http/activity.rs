//! What one connection is doing, and until when it may do it.
//!
//! ```text
//! Head --request--> Busy --answers written--> Idle --first byte of a head (HTTP/1)--> Head
//!   Head --too late, and answered--> Lingering
//!   any --our side closed--> Lingering
//! ```
//!
//! A head must be complete by its deadline, counted from its first byte (of a new connection: from the start); an idle connection
//! is kept for a while; a busy one has no deadline here, but a peer that stops reading while we write, or does not take a whole
//! answer, has one in every state. It knows no HTTP beyond these words. [`Activity`] is its main type; the socket reports its
//! bytes to it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::Notify, time::Instant};

/// How long a peer may take to close its side once we have closed ours. Without it, what it still sends would make the system
/// throw away an answer that it has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    /// Without a byte of progress while we have something to write, and until a peer has taken an answer as a whole.
    pub(crate) write: Duration,
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Head,
    Idle,
    Write,
    Linger,
}

impl Expired {
    /// The word for metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Head => "slow_head",
            Self::Idle => "idle",
            Self::Write => "slow_reader",
            Self::Linger => "closed",
        }
    }

    /// Whether the peer was too slow, and did not just go idle or away.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self, Self::Head | Self::Write)
    }
}

#[derive(Clone)]
pub(crate) struct Activity(Arc<Shared>);

struct Shared {
    deadlines: Deadlines,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    phase: Phase,
    speech: Speech,
    /// The head came too late, and the peer is told so.
    late: bool,
    writing_since: Option<Instant>,
    /// Answers that the peer has not taken yet, by their number, and since when.
    answers: BTreeMap<u64, Instant>,
    answers_begun: u64,
    /// The listener stops: nothing is waited for that need not be.
    stopping: bool,
}

/// What a connection that begins like this speaks; nothing else does.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0";

/// What the peer has shown itself to speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Nothing,
    /// So many bytes, all of them as HTTP/2 begins.
    Begun(usize),
    Http1,
    Http2,
}

impl Speech {
    fn hears(self, bytes: &[u8]) -> Self {
        let heard = match self {
            Self::Nothing => 0,
            Self::Begun(heard) => heard,
            Self::Http1 | Self::Http2 => return self,
        };
        let rest = HTTP_2.get(heard..).unwrap_or_default();
        match bytes.len().cmp(&rest.len()) {
            std::cmp::Ordering::Less if rest.starts_with(bytes) => Self::Begun(heard + bytes.len()),
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater if bytes.starts_with(rest) => Self::Http2,
            _ => Self::Http1,
        }
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Head(Instant),
    /// So many requests are being answered.
    Busy(usize),
    Idle(Instant),
    Lingering(Instant),
}

impl Activity {
    /// A connection that was just accepted.
    pub(crate) fn new(deadlines: Deadlines) -> Self {
        let state = State {
            phase: Phase::Head(Instant::now()),
            speech: Speech::Nothing,
            late: false,
            writing_since: None,
            answers: BTreeMap::new(),
            answers_begun: 0,
            stopping: false,
        };
        Self(Arc::new(Shared { deadlines, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// A request's head is complete; the request lasts until the returned value is dropped.
    pub(crate) fn request(&self) -> InRequest {
        let mut state = self.lock();
        state.phase = match state.phase {
            Phase::Busy(requests) => Phase::Busy(requests + 1),
            Phase::Head(_) | Phase::Idle(_) | Phase::Lingering(_) => Phase::Busy(1),
        };
        InRequest { activity: self.clone(), answer: None }
    }

    /// Our side of the connection is closed; whether to wait for the peer's.
    pub(crate) fn closed(&self) -> bool {
        let mut state = self.lock();
        if state.stopping {
            return false;
        }
        if !matches!(state.phase, Phase::Lingering(_)) {
            state.phase = Phase::Lingering(Instant::now());
            drop(state);
            self.0.changed.notify_waiters();
        }
        true
    }

    /// After a head's deadline: whether the peer can be told. Not a peer that has said nothing, none that may speak HTTP/2, and none
    /// that does not read what it was sent.
    pub(crate) fn answer_late_head(&self) -> bool {
        let mut state = self.lock();
        let asked = matches!(state.speech, Speech::Http1) && matches!(state.phase, Phase::Head(_));
        if asked && state.writing_since.is_none() {
            state.phase = Phase::Lingering(Instant::now());
            state.late = true;
        }
        state.late
    }

    /// Whether the socket has to tell the peer that its head came too late, and to close.
    pub(crate) fn is_late(&self) -> bool {
        self.lock().late
    }

    /// The listener stops.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
    }

    /// Completes when the connection has to be cut. Cancel-safe.
    pub(crate) async fn expired(&self) -> Expired {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = self.next_deadline();
            match next {
                None => changed.await,
                Some((deadline, expired)) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(deadline) => {
                            // It may have been met while nobody looked.
                            if self.next_deadline().is_some_and(|(deadline, _)| deadline <= Instant::now()) {
                                return expired;
                            }
                        }
                    }
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<(Instant, Expired)> {
        let state = self.lock();
        let deadlines = self.0.deadlines;
        let phase = match state.phase {
            Phase::Head(since) => Some((since + deadlines.head, Expired::Head)),
            Phase::Idle(since) => Some((since + deadlines.idle, Expired::Idle)),
            Phase::Lingering(since) => Some((since + LINGER, Expired::Linger)),
            Phase::Busy(_) => None,
        };
        let oldest_answer = state.answers.first_key_value().map(|(_, since)| *since);
        let write = [state.writing_since, oldest_answer].into_iter().flatten().min();
        let write = write.map(|since| (since + deadlines.write, Expired::Write));
        [phase, write].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }

    pub(crate) fn bytes_came(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.speech = state.speech.hears(bytes);
        if let (Phase::Idle(_), true) = (state.phase, state.speech != Speech::Http2) {
            state.phase = Phase::Head(Instant::now());
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    pub(crate) fn write_waits(&self, waits: bool) {
        let mut state = self.lock();
        match (state.writing_since, waits) {
            (None, true) => state.writing_since = Some(Instant::now()),
            (Some(_), false) => state.writing_since = None,
            _ => return,
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    fn answer_begun(&self) -> u64 {
        let mut state = self.lock();
        state.answers_begun += 1;
        let number = state.answers_begun;
        state.answers.insert(number, Instant::now());
        drop(state);
        self.0.changed.notify_waiters();
        number
    }

    fn request_ended(&self, answer: Option<u64>) {
        let mut state = self.lock();
        if let Some(number) = answer {
            state.answers.remove(&number);
        }
        state.phase = match state.phase {
            Phase::Busy(requests) if requests > 1 => Phase::Busy(requests - 1),
            Phase::Lingering(since) => Phase::Lingering(since),
            Phase::Busy(_) | Phase::Head(_) | Phase::Idle(_) => Phase::Idle(Instant::now()),
        };
        drop(state);
        self.0.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
pub(crate) struct InRequest {
    activity: Activity,
    answer: Option<u64>,
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.activity.request_ended(self.answer);
    }
}

/// A response body whose request lasts until the peer has taken it.
pub(crate) struct Answering<B> {
    body: B,
    _request: InRequest,
}

impl<B> Answering<B> {
    /// From here on the peer's time runs.
    pub(crate) fn new(body: B, mut request: InRequest) -> Self {
        request.answer = Some(request.activity.answer_begun());
        Self { body, _request: request }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { head: Duration::from_secs(10), idle: Duration::from_secs(75), write: Duration::from_secs(30) };

    async fn expires_after(activity: &Activity) -> (Expired, u64) {
        let started = Instant::now();
        (activity.expired().await, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_do_not_put_off_the_deadline_of_a_head() {
        let activity = Activity::new(DEADLINES);
        tokio::time::advance(Duration::from_secs(6)).await;
        activity.bytes_came(b"GET");
        assert_eq!(expires_after(&activity).await, (Expired::Head, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_has_no_deadline_and_an_idle_one_its_own() {
        let activity = Activity::new(DEADLINES);
        let (one, two) = (activity.request(), activity.request());
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(activity.next_deadline(), None);
        drop(one);
        assert_eq!(activity.next_deadline(), None, "another request is being answered");
        drop(two);
        assert_eq!(expires_after(&activity).await, (Expired::Idle, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_after_a_pause_starts_a_head_in_http_1_only() {
        for (http2, expected) in [(false, (Expired::Head, 10)), (true, (Expired::Idle, 15))] {
            let activity = Activity::new(DEADLINES);
            activity.bytes_came(if http2 { HTTP_2 } else { b"GET " });
            drop(activity.request());
            tokio::time::advance(Duration::from_secs(60)).await;
            activity.bytes_came(b"GET");
            assert_eq!(expires_after(&activity).await, expected);
        }
    }

    #[test]
    fn http_2_is_known_by_its_first_bytes_however_they_come() {
        for (pieces, expected) in [
            (&["GET / HTTP/1.1"][..], Speech::Http1),
            (&["P"], Speech::Begun(1)),
            (&["P", "OST / "], Speech::Http1),
            (&["PRI * ", "HTTP/2."], Speech::Begun(13)),
            (&["PRI * ", "HTTP/2.", "0"], Speech::Http2),
            (&["PRI * HTTP/2.0\r\n\r\nSM", "GET"], Speech::Http2),
            (&["PRI * HTTP/1.1"], Speech::Http1),
            (&["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0"], Speech::Http1),
        ] {
            let heard = pieces.iter().fold(Speech::Nothing, |speech, piece| speech.hears(piece.as_bytes()));
            assert!(heard == expected, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_head_is_answered_unless_nobody_would_understand() {
        for (bytes, blocked, told) in [
            (&b"GET / "[..], false, true),
            (b"GET / ", true, false),
            (b"", false, false),
            (b"PRI * ", false, false),
            (HTTP_2, false, false),
        ] {
            let activity = Activity::new(DEADLINES);
            activity.bytes_came(bytes);
            activity.write_waits(blocked);
            assert_eq!(expires_after(&activity).await, (Expired::Head, 10));
            assert_eq!((activity.answer_late_head(), activity.is_late()), (told, told), "{bytes:?}");
            if told {
                assert_eq!(expires_after(&activity).await, (Expired::Linger, 1), "and then it is over");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_as_a_whole_has_a_deadline_while_others_come_and_go() {
        let activity = Activity::new(DEADLINES);
        let slow = Answering::new((), activity.request());
        tokio::time::advance(Duration::from_secs(20)).await;
        drop(Answering::new((), activity.request()));
        assert_eq!(expires_after(&activity).await, (Expired::Write, 10));
        drop(slow);
        assert_eq!(expires_after(&activity).await, (Expired::Idle, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_a_moment_to_close_its_side_unless_the_listener_stops() {
        let activity = Activity::new(DEADLINES);
        assert!(activity.closed());
        tokio::time::advance(Duration::from_millis(600)).await;
        activity.bytes_came(b"GET");
        assert!(activity.closed(), "asked again");
        let started = Instant::now();
        assert_eq!(activity.expired().await, Expired::Linger);
        assert_eq!(started.elapsed(), Duration::from_millis(400));
        activity.stop();
        assert!(!activity.closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_cut_even_while_its_request_is_answered() {
        let activity = Activity::new(DEADLINES);
        let _request = activity.request();
        activity.write_waits(true);
        tokio::time::advance(Duration::from_secs(20)).await;
        activity.write_waits(true);
        assert_eq!(expires_after(&activity).await, (Expired::Write, 10));
    }
}
