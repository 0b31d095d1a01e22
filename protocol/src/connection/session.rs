//! Until when a socket's authentication lasts, and its renewal in between other requests (KIP-368). Pure but for the token,
//! which a provider may have to fetch.
//!
//! ```text
//! Lasting                            nobody asks again
//! Until(instant) -> Token -> Talking -> Until(…)
//! ```

use std::{
    future::{pending, poll_fn},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    BoxFuture,
    authentication::{AuthenticationError, Dialog},
    sasl::{Mechanism, Token},
};

pub(super) enum Session {
    Lasting,
    Until(Instant),
    Token(BoxFuture<Result<Token, String>>),
    /// A request of the dialog is on its way. Nothing else is written meanwhile.
    Talking(Box<Dialog>),
}

impl Session {
    pub(super) fn begun(again_after: Option<Duration>) -> Self {
        again_after.map_or(Self::Lasting, |after| Self::Until(Instant::now() + after))
    }

    /// When there is something to do.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Until(instant) => Some(*instant),
            Self::Lasting | Self::Token(_) | Self::Talking(_) => None,
        }
    }

    /// Whether requests have to wait.
    pub(super) fn holds_requests(&self) -> bool {
        matches!(self, Self::Talking(_))
    }

    /// Begins the renewal if it is time; true if there is a first request to send.
    pub(super) fn renew(
        &mut self,
        mechanism: &Mechanism,
        now: Instant,
        timeout: Duration,
    ) -> Result<bool, AuthenticationError> {
        if self.wakes_at().is_none_or(|at| at > now) {
            return Ok(false);
        }
        match mechanism.token() {
            Some(token) => {
                *self = Self::Token(Box::pin(async move {
                    tokio::time::timeout(timeout, token)
                        .await
                        .unwrap_or_else(|_| Err(format!("none within {timeout:?}")))
                }));
                Ok(false)
            }
            None => {
                *self = Self::Talking(Box::new(Dialog::new(mechanism, None)?));
                Ok(true)
            }
        }
    }

    /// The token that a renewal waits for; never comes where none does. Dropping the future loses nothing.
    pub(super) async fn token(&mut self) -> Result<Token, String> {
        match self {
            Self::Token(token) => poll_fn(|context| token.as_mut().poll(context)).await,
            Self::Lasting | Self::Until(_) | Self::Talking(_) => pending().await,
        }
    }
}
