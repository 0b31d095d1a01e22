//! Kafka's side of SASL: SaslHandshake, then SaslAuthenticate as often as the mechanism speaks (KIP-43, KIP-152), on a new
//! connection and again before the session ends (KIP-368). Pure; the socket's task carries the requests.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{ApiKey, SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};

use super::{
    ApiVersions, Frame,
    sasl::{Exchange, Mechanism, SaslError, Step, Token},
};
use crate::{
    error_code::ErrorCode,
    message::{self, DecodeError},
};

/// SaslHandshake 0 is followed by messages without frames, which we do not speak.
const HANDSHAKE_VERSION: i16 = 1;
/// The last moment to authenticate again, and the first, as shares of the session: all members of a group at once would be a
/// herd.
const AGAIN_AFTER: (f64, f64) = (0.85, 0.95);

/// Why a broker does not take us for who we say we are. Its own words come first; no secret is in them.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AuthenticationError {
    #[error("{mechanism}: {code}{}", words(message.as_deref()))]
    Refused { mechanism: &'static str, code: ErrorCode, message: Option<String> },
    #[error("{mechanism} is not enabled on this listener, which offers {}", offer(offered))]
    Mechanism { mechanism: &'static str, offered: Vec<String> },
    #[error("the listener wants no SASL; security.protocol is to be PLAINTEXT or SSL for it")]
    NoSasl,
    #[error("the broker has no SaslAuthenticate request (Kafka 1.0 or newer is needed)")]
    TooOld,
    #[error("{mechanism}: {fault}")]
    Sasl { mechanism: &'static str, fault: SaslError },
    #[error("the answer cannot be read")]
    Decode(#[source] DecodeError),
}

fn words(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

fn offer(offered: &[String]) -> String {
    if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
}

/// What an answer leads to.
pub(super) enum Progress {
    /// Send [`Dialog::request`].
    Next,
    /// Authenticated. The session is to be renewed after that time, if it ends at all.
    Done { again_after: Option<Duration> },
}

/// One authentication, from the handshake to its end.
pub(super) struct Dialog {
    mechanism: &'static str,
    exchange: Exchange,
    /// What the next SaslAuthenticate carries.
    message: Vec<u8>,
    shaken: bool,
}

impl Dialog {
    /// `token` is what the mechanism's provider gave, if it has one.
    pub(super) fn new(
        mechanism: &Mechanism,
        token: Option<Result<Token, String>>,
    ) -> Result<Self, AuthenticationError> {
        let name = mechanism.name();
        let failed = |fault| AuthenticationError::Sasl { mechanism: name, fault };
        let token = token.transpose().map_err(|error| failed(SaslError::NoToken(error)))?;
        let (exchange, message) = Exchange::begin(mechanism, token).map_err(failed)?;
        Ok(Self { mechanism: name, exchange, message, shaken: false })
    }

    /// The next request, with correlation id 0.
    pub(super) fn request(&mut self, versions: &ApiVersions, client_id: &str) -> Result<Frame, AuthenticationError> {
        let (api_key, version, bytes) = if self.shaken {
            let api_key = ApiKey::SaslAuthenticate as i16;
            let version = versions.pick(api_key, true).ok_or(AuthenticationError::TooOld)?;
            let auth_bytes = Bytes::from(std::mem::take(&mut self.message));
            let request = SaslAuthenticateRequest::default().with_auth_bytes(auth_bytes);
            (api_key, version, message::encode_request(&request, version, 0, client_id))
        } else {
            let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(self.mechanism));
            let bytes = message::encode_request(&request, HANDSHAKE_VERSION, 0, client_id);
            (ApiKey::SaslHandshake as i16, HANDSHAKE_VERSION, bytes)
        };
        let bytes = bytes.map_err(|_| AuthenticationError::Sasl {
            mechanism: self.mechanism,
            fault: SaslError::BadToken("it does not fit a request"),
        })?;
        Ok(Frame { api_key, version, bytes, expects_answer: true })
    }

    /// Takes the answer to the last request.
    pub(super) fn answer(&mut self, version: i16, body: Bytes) -> Result<Progress, AuthenticationError> {
        if !self.shaken {
            self.handshake_answer(version, body)?;
            self.shaken = true;
            return Ok(Progress::Next);
        }
        let answer =
            message::decode_response::<SaslAuthenticateRequest>(version, body).map_err(AuthenticationError::Decode)?;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => {}
            code => {
                let message = answer.error_message.map(|message| message.to_string());
                return Err(AuthenticationError::Refused { mechanism: self.mechanism, code, message });
            }
        }
        let step = self.exchange.step(&answer.auth_bytes);
        match step.map_err(|fault| AuthenticationError::Sasl { mechanism: self.mechanism, fault })? {
            Step::Send(message) => {
                self.message = message;
                Ok(Progress::Next)
            }
            Step::Done => Ok(Progress::Done { again_after: again_after(answer.session_lifetime_ms, fastrand::f64()) }),
        }
    }

    fn handshake_answer(&self, version: i16, body: Bytes) -> Result<(), AuthenticationError> {
        let answer =
            message::decode_response::<SaslHandshakeRequest>(version, body).map_err(AuthenticationError::Decode)?;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => Ok(()),
            ErrorCode::ILLEGAL_SASL_STATE => Err(AuthenticationError::NoSasl),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let offered = answer.mechanisms.iter().map(|name| name.to_string()).collect();
                Err(AuthenticationError::Mechanism { mechanism: self.mechanism, offered })
            }
            code => Err(AuthenticationError::Refused { mechanism: self.mechanism, code, message: None }),
        }
    }
}

/// When to authenticate again in a session of so many milliseconds; `random` is from 0 to 1.
fn again_after(session_lifetime_ms: i64, random: f64) -> Option<Duration> {
    let lifetime = u64::try_from(session_lifetime_ms).ok().filter(|lifetime| *lifetime > 0)?;
    let share = AGAIN_AFTER.0 + (AGAIN_AFTER.1 - AGAIN_AFTER.0) * random.clamp(0.0, 1.0);
    Some(Duration::from_millis(lifetime).mul_f64(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_before_it_ends() {
        for (lifetime, random, expected) in [
            (0, 0.5, None),
            (-1, 0.5, None),
            (1000, 0.0, Some(850)),
            (1000, 1.0, Some(950)),
            (60_000, 0.5, Some(54_000)),
        ] {
            assert_eq!(again_after(lifetime, random).map(|d| d.as_millis()), expected, "{lifetime}");
        }
        assert!(again_after(i64::MAX, 1.0).is_some());
    }
}
