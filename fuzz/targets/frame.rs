//! A peer that answers with these bytes, a piece behind its length after each request: the connection's framing, headers
//! and version negotiation, and what the metadata makes of an answer.
#![no_main]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fuzz::peer::{self, Answers, Peer};
use protocol::{client::Client, cluster::ClusterConfig};
use tokio::sync::Notify;

/// More is not taken in one answer.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // A socket has its buffers whatever it reads.
    fuzz::bounded(input, 64, || peer::run(talk(input.to_vec())));
});

async fn talk(input: Vec<u8>) {
    let gone = Arc::new(Notify::new());
    let (connected, notice) = (AtomicBool::new(false), gone.clone());
    let connect = move || {
        let first = !connected.swap(true, Ordering::AcqRel);
        let (input, notice, mut at) = (input.clone(), Gone(notice.clone()), 0);
        let answers: Answers = Box::new(move |_| {
            let _gone = &notice;
            let mut rest = &input[at..];
            let piece = peer::piece(&mut rest)?.to_vec();
            at = input.len() - rest.len();
            Some(piece)
        });
        first.then_some(answers)
    };
    let mut config = ClusterConfig::new(vec![("peer".to_owned(), 9092)]);
    config.max_response_bytes = MAX_RESPONSE_BYTES;
    let client = Client::with_connector(config, Arc::new(Peer(connect)));
    client.cluster().watch_topics(&["topic".to_owned()]);
    gone.notified().await;
    assert!(client.close(Duration::from_secs(60)).await, "a task does not end");
}

/// Tells that the socket was given up.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
