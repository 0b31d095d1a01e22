//! The requests that came in, for a test to look at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Request;
use tokio::time::Instant;

/// A request as it came in. It stands in the log from the moment on in which its last byte was read, whether or not anything was
/// done about it yet.
#[derive(Debug, Clone)]
pub struct LoggedRequest {
    /// Counts all requests of the cluster.
    pub number: u64,
    /// The node that it came to.
    pub node: i32,
    /// Counts all connections of the cluster.
    pub connection: u64,
    pub api: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    pub at: Instant,
    /// When its answer was written; none before that, and for ever if none is.
    pub answered: Option<Instant>,
    /// The body, without the header.
    pub bytes: Bytes,
}

impl LoggedRequest {
    /// The body as a message; none if it is a request of another API, or not a valid one.
    pub fn decode<R: Request>(&self) -> Option<R> {
        if R::KEY != self.api as i16 {
            return None;
        }
        protocol::message::decode_request(self.version, self.bytes.clone()).ok()
    }
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<LoggedRequest>,
    bytes: usize,
    next: u64,
}

/// The newest requests, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct RequestLog {
    kept: Mutex<Kept>,
    max_bytes: usize,
}

/// What a request costs beside its body.
const OVERHEAD: usize = 200;

impl RequestLog {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { kept: Mutex::default(), max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs it, and gives it its number.
    pub(crate) fn arrived(&self, request: &mut LoggedRequest) {
        let mut kept = self.lock();
        request.number = kept.next;
        kept.next += 1;
        if self.max_bytes == 0 {
            return;
        }
        kept.bytes += request.bytes.len() + OVERHEAD;
        kept.requests.push_back(request.clone());
        while kept.bytes > self.max_bytes {
            let Some(oldest) = kept.requests.pop_front() else {
                break;
            };
            kept.bytes -= oldest.bytes.len() + OVERHEAD;
        }
    }

    pub(crate) fn answered(&self, number: u64) {
        let mut kept = self.lock();
        let Some(first) = kept.requests.front().map(|request| request.number) else {
            return;
        };
        let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if let Some(request) = place.and_then(|place| kept.requests.get_mut(place)) {
            request.answered = Some(Instant::now());
        }
    }

    pub(crate) fn all(&self) -> Vec<LoggedRequest> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        let mut kept = self.lock();
        kept.requests.clear();
        kept.bytes = 0;
    }

    /// Looks at the log without copying it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[LoggedRequest]) -> T) -> T {
        look(self.lock().requests.make_contiguous())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(len: usize) -> LoggedRequest {
        LoggedRequest {
            number: 0,
            node: 1,
            connection: 1,
            api: ApiKey::Metadata,
            version: 12,
            correlation_id: 0,
            client_id: None,
            at: Instant::now(),
            answered: None,
            bytes: Bytes::from(vec![0; len]),
        }
    }

    #[test]
    fn the_newest_requests_are_kept_within_the_bound() {
        let log = RequestLog::new(3 * (100 + OVERHEAD));
        for _ in 0..5 {
            log.arrived(&mut request(100));
        }
        log.answered(1);
        log.answered(3);
        let kept: Vec<_> = log.all().iter().map(|request| (request.number, request.answered.is_some())).collect();
        assert_eq!(kept, [(2, false), (3, true), (4, false)]);
        log.arrived(&mut request(10_000));
        assert!(log.all().is_empty(), "one that is larger than the bound is not kept either");
    }

    #[test]
    fn a_log_of_zero_bytes_keeps_nothing_but_counts() {
        let log = RequestLog::new(0);
        let (mut first, mut second) = (request(1), request(1));
        log.arrived(&mut first);
        log.arrived(&mut second);
        log.answered(1);
        assert_eq!((first.number, second.number, log.all().len()), (0, 1, 0));
    }
}
