//! Why a request got no answer.

use std::{sync::Arc, time::Duration};

use crate::{message::DecodeError, outcome::Outcome};

/// A request without a (readable) answer. A broker's own error codes stand in the answers, not here.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind} ({outcome})")]
pub struct RequestError {
    /// [`Outcome::NotSent`] or [`Outcome::Unknown`]; a rejection is an answer.
    pub outcome: Outcome,
    pub kind: RequestErrorKind,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestErrorKind {
    /// No metadata names this broker.
    #[error("broker {0} is not known")]
    UnknownBroker(i32),
    /// The socket could not be opened.
    #[error("{address} cannot be reached: {cause}")]
    Unreachable { address: Arc<str>, cause: Arc<str> },
    /// The broker does not take us for who we say we are, or we do not trust it (SASL).
    #[error("authentication at {address} failed: {cause}")]
    Authentication { address: Arc<str>, cause: Arc<str> },
    /// The socket was closed, by the peer or by a fault on it.
    #[error("the connection to {address} was lost: {cause}")]
    Closed { address: Arc<str>, cause: Arc<str> },
    /// No answer in time. The connection was closed with it: an answer that comes late must not be taken for another's.
    #[error("{api} got no answer from {address} within {timeout:?}")]
    Timeout { api: &'static str, address: Arc<str>, timeout: Duration },
    /// An answer larger than allowed was announced.
    #[error("{address} announced an answer of {size} bytes, more than the {limit} allowed; is it a Kafka broker?")]
    FrameTooLarge { address: Arc<str>, size: usize, limit: usize },
    /// The answer is no valid message.
    #[error("the answer of {address} is not valid")]
    Decode {
        address: Arc<str>,
        #[source]
        source: Arc<DecodeError>,
    },
    /// Our own request could not be written down.
    #[error("{api} cannot be encoded: {cause}")]
    Encode { api: &'static str, cause: Arc<str> },
    /// Broker and client have no version of this API in common.
    #[error("the broker at {address} has no version of {api} that this client speaks (Kafka 2.1 or newer is needed)")]
    UnsupportedVersion { api: &'static str, address: Arc<str> },
    /// Too many requests wait for this socket already.
    #[error("too many requests wait for {address}")]
    Busy { address: Arc<str> },
    /// The client is shutting down.
    #[error("the client is closed")]
    Shutdown,
}

impl RequestError {
    pub(crate) fn not_sent(kind: RequestErrorKind) -> Self {
        Self { outcome: Outcome::NotSent, kind }
    }

    pub(crate) fn unknown(kind: RequestErrorKind) -> Self {
        Self { outcome: Outcome::Unknown, kind }
    }

    pub(crate) fn undecodable(address: &Arc<str>, source: DecodeError) -> Self {
        Self::unknown(RequestErrorKind::Decode { address: address.clone(), source: Arc::new(source) })
    }

    /// Whether another try, on this broker or another, may succeed without anybody changing anything.
    pub fn retriable(&self) -> bool {
        !matches!(
            self.kind,
            RequestErrorKind::UnsupportedVersion { .. } | RequestErrorKind::Encode { .. } | RequestErrorKind::Shutdown
        )
    }

    /// The sentence with its causes, for a log line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(&self.kind);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
