//! A peer in this process, in place of a broker: it takes connections and answers requests as a target says.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use protocol::connection::{BoxFuture, Connector, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one connection reads after it has written a request (told without its length); None: the end of the stream.
pub type Answers = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send>;

/// A connector whose connections are answered by what `connect` makes; None: refused.
pub struct Peer<F>(pub F);

impl<F: Fn() -> Option<Answers> + Send + Sync + 'static> Connector for Peer<F> {
    fn connect(&self, _: &str, _: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let answers = (self.0)();
        Box::pin(async move {
            let answers = answers.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(Socket { answers, written: Vec::new(), unread: Vec::new(), ended: false, reader: None })
                as Box<_>)
        })
    }
}

struct Socket {
    answers: Answers,
    /// Of a request that is not whole yet.
    written: Vec<u8>,
    unread: Vec<u8>,
    ended: bool,
    reader: Option<Waker>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() && !self.ended {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let now = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread[..now]);
        self.unread.drain(..now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        while let Some((length, rest)) = self.written.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(request) = rest.get(..length).map(<[u8]>::to_vec) else { break };
            self.written.drain(..4 + length);
            if !self.ended {
                match (self.answers)(&request) {
                    Some(answer) => self.unread.extend(answer),
                    None => self.ended = true,
                }
            }
        }
        if let Some(reader) = self.reader.take() {
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

/// Runs on paused time.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

/// Takes a piece behind its length of two bytes off the front; the last one may be shorter than that says.
pub fn piece<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    *input = rest;
    Some(piece)
}
