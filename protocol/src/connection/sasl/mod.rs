//! SASL mechanisms: what a client sends to prove who it is, and what it makes of the answers. Pure.
//!
//! [`Mechanism`] is what a user configures, [`Exchange`] one run of it. It knows nothing of Kafka's requests, which carry
//! the messages, nor of sockets. GSSAPI is not there.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod oauth_bearer;
mod scram;

use std::{fmt, sync::Arc};

pub use oauth_bearer::{Token, TokenProvider};
use scram::Scram;
pub use scram::ScramHash;

use super::BoxFuture;

/// How a client proves who it is. `Debug` shows no secret.
#[derive(Clone)]
pub enum Mechanism {
    /// RFC 4616. The password crosses the wire as it is: use it over TLS.
    Plain(Password),
    /// RFC 5802 and 7677. The broker has to prove itself as well.
    Scram(ScramHash, Password),
    /// RFC 7628 (KIP-255): a token for each connection and each re-authentication.
    OAuthBearer(Arc<dyn TokenProvider>),
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple(self.name());
        match self {
            Self::Plain(password) | Self::Scram(_, password) => shown.field(password).finish(),
            Self::OAuthBearer(_) => shown.finish_non_exhaustive(),
        }
    }
}

/// Why an exchange cannot go on. No text of it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The user name or the password has a character that the mechanism has no way to send.
    #[error("the {0} holds a NUL character")]
    Nul(&'static str),
    #[error("this system gives no random bytes")]
    NoRandom,
    /// No token could be had.
    #[error("no token: {0}")]
    NoToken(String),
    /// A token or an extension cannot be sent.
    #[error("the token cannot be sent: {0}")]
    BadToken(&'static str),
    /// The broker's message is not what the mechanism has here.
    #[error("the broker's answer is no {mechanism} message: {what}")]
    Malformed { mechanism: &'static str, what: &'static str },
    /// The broker refuses, in its own words.
    #[error("{0}")]
    Refused(String),
    /// So few rounds would let whoever listens guess the password quickly; so many would hold this process up.
    #[error("the broker asks for {0} iterations of SCRAM, allowed are {least} to {most}", least = scram::ITERATIONS.start(), most = scram::ITERATIONS.end())]
    Iterations(u32),
    /// The broker does not know the password either: it may be somebody else.
    #[error("the broker could not prove that it knows the password (SCRAM server signature)")]
    ServerSignature,
}

/// What comes after a message of the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// The mechanism is content; the broker's error code has the last word.
    Done,
}

/// One run of a mechanism.
pub(super) enum Exchange {
    Plain,
    Scram(Box<Scram>),
    OAuthBearer {
        /// What the broker said against the token, until it has our empty answer to that.
        refusal: Option<String>,
    },
}

impl Mechanism {
    /// As SaslHandshake has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(hash, _) => hash.mechanism(),
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// A token, where the mechanism needs one. Dropping the future gives up.
    pub(super) fn token(&self) -> Option<BoxFuture<Result<Token, String>>> {
        match self {
            Self::OAuthBearer(provider) => Some(provider.token()),
            Self::Plain(_) | Self::Scram(..) => None,
        }
    }
}

impl Exchange {
    /// The run and its first message. `token` is what [`Mechanism::token`] gave.
    pub(super) fn begin(mechanism: &Mechanism, token: Option<Token>) -> Result<(Self, Vec<u8>), SaslError> {
        match mechanism {
            Mechanism::Plain(Password { username, password }) => {
                for (text, what) in [(username, "user name"), (password, "password")] {
                    if text.contains('\0') {
                        return Err(SaslError::Nul(what));
                    }
                }
                Ok((Self::Plain, format!("\0{username}\0{password}").into_bytes()))
            }
            Mechanism::Scram(hash, password) => {
                let (scram, first) = Scram::begin(*hash, password, &scram::nonce()?);
                Ok((Self::Scram(Box::new(scram)), first))
            }
            Mechanism::OAuthBearer(_) => {
                let token = token.ok_or_else(|| SaslError::NoToken("none was asked for".to_owned()))?;
                Ok((Self::OAuthBearer { refusal: None }, oauth_bearer::first_message(&token)?))
            }
        }
    }

    /// Takes the broker's message.
    pub(super) fn step(&mut self, message: &[u8]) -> Result<Step, SaslError> {
        match self {
            Self::Plain => Ok(Step::Done),
            Self::Scram(scram) => scram.step(message),
            Self::OAuthBearer { refusal } => oauth_bearer::step(refusal, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Password {
        Password { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn plain_sends_user_and_password_as_they_are() {
        let odd = r#"p\a"s $s 'w=o,rd"#;
        let (mut exchange, first) = Exchange::begin(&Mechanism::Plain(password("user", odd)), None).unwrap();
        assert_eq!(first, [b"\0user\0", odd.as_bytes()].concat());
        assert_eq!(exchange.step(b""), Ok(Step::Done));
        let refused = Exchange::begin(&Mechanism::Plain(password("us\0er", "x")), None).map(|_| ());
        assert_eq!(refused, Err(SaslError::Nul("user name")));
    }

    #[test]
    fn no_secret_is_shown() {
        let mechanism = Mechanism::Scram(ScramHash::Sha256, password("me", "hunter2"));
        let shown = format!("{mechanism:?}");
        assert!(shown.contains("SCRAM-SHA-256") && shown.contains("me") && !shown.contains("hunter2"), "{shown}");
    }
}
