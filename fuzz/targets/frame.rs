//! A peer that takes connections and answers with these bytes, a piece after each request: the connection's framing,
//! headers and version negotiation, and what the metadata makes of an answer.
#![no_main]

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use protocol::{
    client::Client,
    cluster::ClusterConfig,
    connection::{BoxFuture, Connector, Stream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// More is not taken in one answer.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    // A socket has its buffers whatever it reads.
    fuzz::bounded(input, 64, || {
        runtime.block_on(async {
            let gone = Arc::new(Notify::new());
            let peer = Peer { bytes: input.to_vec(), gone: gone.clone(), connected: AtomicBool::new(false) };
            let mut config = ClusterConfig::new(vec![("peer".to_owned(), 9092)]);
            config.max_response_bytes = MAX_RESPONSE_BYTES;
            let client = Client::with_connector(config, Arc::new(peer));
            client.cluster().watch_topics(&["topic".to_owned()], false);
            gone.notified().await;
            assert!(client.close(Duration::from_secs(60)).await, "a task does not end");
        });
    });
});

struct Peer {
    bytes: Vec<u8>,
    gone: Arc<Notify>,
    connected: AtomicBool,
}

impl Connector for Peer {
    fn connect(&self, _: &str, _: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let first = !self.connected.swap(true, Ordering::AcqRel);
        let answers = Answers {
            bytes: self.bytes.clone(),
            asked: 0,
            answered: 0,
            reader: Mutex::new(None),
            gone: self.gone.clone(),
        };
        Box::pin(async move {
            if first { Ok(Box::new(answers) as Box<dyn Stream>) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        })
    }
}

/// The input is pieces behind their lengths of two bytes; each waits for a request, and the end for one more.
struct Answers {
    bytes: Vec<u8>,
    asked: usize,
    answered: usize,
    reader: Mutex<Option<Waker>>,
    gone: Arc<Notify>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.gone.notify_one();
    }
}

impl AsyncRead for Answers {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.answered >= self.asked {
            *self.reader.get_mut().expect("one thread") = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = match self.bytes.split_first_chunk::<2>() {
            Some((length, rest)) => usize::from(u16::from_be_bytes(*length)).min(rest.len()),
            None => return Poll::Ready(Ok(())),
        };
        let now = length.min(into.remaining());
        into.put_slice(&self.bytes[2..2 + now]);
        self.bytes.drain(..2 + now);
        if now < length {
            let left = u16::try_from(length - now).expect("no more than it was").to_be_bytes();
            self.bytes.splice(..0, left);
        } else {
            self.answered += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Answers {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked += 1;
        if let Some(reader) = self.reader.get_mut().expect("one thread").take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
