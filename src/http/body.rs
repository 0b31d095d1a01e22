//! Reading a request's body: within its size, its time, and the memory that all bodies share.
//!
//! It knows no JSON. [`read`] is the way in.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use protocol::budget::{Budget, Growing};
use tokio::time::Instant;

use super::{
    RequestLimits,
    problem::{Fault, Problem},
};

/// How long a body waited for memory, the wait under way included.
#[derive(Default)]
struct MemoryWaits {
    over: Duration,
    since: Option<Instant>,
}

impl MemoryWaits {
    fn total(&self) -> Duration {
        self.over + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Reads the whole body, as `memory` allows. Dropping the future gives back what it holds.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &RequestLimits,
    memory: &Budget,
) -> Result<(Bytes, Growing), Problem> {
    let too_large = || {
        let description = format!("the body takes more than {} bytes (server.maxTransferFileSize)", limits.body_bytes);
        Problem::new(Fault::BodyTooLarge, description).closing()
    };
    let limit = limits.body_bytes as u64;
    if body.size_hint().lower() > limit || content_length(headers).is_some_and(|length| length > limit) {
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    let mut held = memory.growing();
    let mut waits = MemoryWaits::default();
    let collected = tokio::time::timeout(limits.body_timeout, async {
        let mut body = body;
        let mut collected = BytesMut::new();
        loop {
            let Some(frame) = body.frame().await else { return Ok(collected.freeze()) };
            let Ok(frame) = frame else {
                return Err(Problem::new(Fault::NotJson, "the body broke off").closing());
            };
            let Ok(data) = frame.into_data() else { continue };
            if collected.len() + data.len() > limits.body_bytes {
                discard(body).await;
                return Err(too_large());
            }
            waits.since = Some(Instant::now());
            held.grow(data.len()).await;
            waits = MemoryWaits { over: waits.total(), since: None };
            collected.extend_from_slice(&data);
        }
    })
    .await;
    match collected {
        Ok(collected) => collected.map(|body| (body, held)),
        // Whoever took most of the time is told of.
        Err(_) if waits.total() > limits.body_timeout / 2 => {
            let description = "there was no room for the body (sidecar.memoryBudgetBytes)";
            Err(Problem::new(Fault::NoMemory, description).closing())
        }
        Err(_) => {
            let seconds = limits.body_timeout.as_secs_f32();
            let description = format!("the body did not arrive within {seconds} s (sidecar.bodyTimeoutMs)");
            Err(Problem::new(Fault::BodyTimeout, description).closing())
        }
    }
}

/// What is read of a body that is refused, and for how long, so that a caller who writes before it reads gets to see the answer.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

async fn discard(mut body: Body) {
    let all = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_BYTES {
                break;
            }
        }
    };
    // Late or early, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn limits() -> RequestLimits {
        RequestLimits { body_bytes: 10, body_timeout: Duration::from_secs(30), header_bytes: 1000, records: 10 }
    }

    fn chunks(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    fn endless(first: &'static str) -> Body {
        use futures_util::StreamExt as _;
        let first = Ok::<_, std::io::Error>(Bytes::from_static(first.as_bytes()));
        Body::from_stream(stream::iter([first]).chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_body_of_the_limit_is_read_and_one_byte_more_is_refused() {
        let memory = Budget::new(1000);
        for (parts, read_in_full) in [(&["12345", "67890"][..], true), (&["12345", "678901"][..], false)] {
            let outcome = read(&HeaderMap::new(), chunks(parts), &limits(), &memory).await;
            assert_eq!(outcome.is_ok(), read_in_full);
            if let Err(problem) = outcome {
                assert_eq!(problem.fault, Fault::BodyTooLarge);
            }
        }
        assert_eq!(memory.used(), 0, "everything was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_claims_too_much_is_refused_before_it_comes() {
        let memory = Budget::new(1000);
        let mut headers = HeaderMap::new();
        headers.insert("content-length", "11".parse().expect("value"));
        let problem = read(&headers, endless(""), &limits(), &memory).await.expect_err("too large");
        assert_eq!(problem.fault, Fault::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_in_time_is_cut() {
        let memory = Budget::new(1000);
        let problem = read(&HeaderMap::new(), endless("123"), &limits(), &memory).await.expect_err("late");
        assert_eq!(problem.fault, Fault::BodyTimeout);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_memory_is_taken_one_body_goes_on_and_the_next_is_told_so() {
        let memory = Budget::new(8);
        let (_, first) = read(&HeaderMap::new(), chunks(&["12345678"]), &limits(), &memory).await.expect("fits");
        let (_, second) = read(&HeaderMap::new(), chunks(&["12", "34"]), &limits(), &memory).await.expect("goes on");
        let problem = read(&HeaderMap::new(), chunks(&["1"]), &limits(), &memory).await.expect_err("no room");
        assert_eq!(problem.fault, Fault::NoMemory);
        drop((first, second));
        assert!(read(&HeaderMap::new(), chunks(&["1"]), &limits(), &memory).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_mostly_waited_for_memory_is_not_called_slow() {
        for (freed_after, fault) in [(20, Fault::NoMemory), (10, Fault::BodyTimeout)] {
            let memory = Budget::new(8);
            let (_, first) = read(&HeaderMap::new(), chunks(&["12345678"]), &limits(), &memory).await.expect("fits");
            let (_, beyond) = read(&HeaderMap::new(), chunks(&["12"]), &limits(), &memory).await.expect("goes on");
            let freeing = async {
                tokio::time::sleep(Duration::from_secs(freed_after)).await;
                drop((first, beyond));
            };
            let headers = HeaderMap::new();
            let limits = limits();
            let (outcome, ()) = tokio::join!(read(&headers, endless("1"), &limits, &memory), freeing);
            assert_eq!(outcome.expect_err("the rest never comes").fault, fault);
        }
    }
}
