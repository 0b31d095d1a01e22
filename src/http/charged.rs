//! An answer's body whose bytes count in the memory of all bodies until the socket has taken them.
//!
//! So that callers who do not read their answers take room from new requests, and not from the process. [`Charged`] is the main type.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use protocol::budget::{Budget, Reservation};

/// Answers up to so many bytes are not worth counting.
const FREE_BYTES: u64 = 4096;

struct Charged {
    body: Body,
    /// Goes with the first bytes; an answer of ours is one piece.
    reservation: Option<Reservation>,
}

/// The same answer, counted in `memory`.
pub(crate) fn charge(response: Response, memory: &Budget) -> Response {
    let size = response.body().size_hint().lower();
    if size <= FREE_BYTES {
        return response;
    }
    let reservation = Some(memory.charge(usize::try_from(size).unwrap_or(usize::MAX)));
    response.map(|body| Body::new(Charged { body, reservation }))
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        Poll::Ready(Some(Ok(match self.reservation.take() {
            Some(reservation) if frame.is_data() => frame.map_data(|bytes| reservation.keep(bytes)),
            reservation => {
                self.reservation = reservation;
                frame
            }
        })))
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
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_large_answer_is_counted_until_its_last_byte_is_gone() {
        let budget = Budget::new(100_000);
        let answer = |size: usize| charge(Response::new(Body::from("x".repeat(size))), &budget);
        let small = answer(4096);
        assert_eq!(budget.used(), 0);
        let (unread, large) = (answer(10_000), answer(5000));
        assert_eq!(budget.used(), 15_000);
        drop(unread);
        assert_eq!(large.body().size_hint().exact(), Some(5000), "the answer still tells its length");
        let bytes = large.into_body().collect().await.expect("body").to_bytes();
        assert_eq!((bytes.len(), budget.used()), (5000, 5000), "hyper may hold them for long");
        drop((bytes, small));
        assert_eq!(budget.used(), 0);
    }
}
