//! A connection's socket: tells an [`Activity`] of its bytes, completes hyper's bare refusals, answers a head that came too late, and
//! closes without losing the last answer.
//!
//! It knows no route. [`Watched`] is its main type.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{activity::Activity, refusal::Refusals};

pub(crate) struct Watched<T> {
    socket: T,
    activity: Activity,
    refusals: Refusals,
    /// A refusal that stands in place of hyper's and is not written yet.
    refusal: Bytes,
    late: bool,
    closed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Watched<T> {
    pub(crate) fn new(socket: T, activity: Activity, refusals: Refusals) -> Self {
        Self { socket, activity, refusals, refusal: Bytes::new(), late: false, closed: false }
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(cx, &self.refusal);
            self.activity.write_waits(written.is_pending());
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.refusal.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What the peer still sends is thrown away until it closes its side; the activity's deadline ends the wait.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut discarded = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_late() {
            // hyper would not say anything: it waits for the rest of the head.
            if !self.late {
                self.late = true;
                self.refusal = self.refusals.late();
            }
            ready!(self.as_mut().poll_shutdown(cx))?;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            self.activity.bytes_came(came);
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_refusal(cx))?;
        let ours = match self.refusals.find(bytes) {
            Some((0, refusal)) => {
                self.refusal = refusal;
                return Poll::Ready(Ok(bytes.len()));
            }
            // What stands before it goes first; the refusal comes again by itself.
            Some((at, _)) => bytes.get(..at).unwrap_or_default(),
            None => bytes,
        };
        let written = Pin::new(&mut self.socket).poll_write(cx, ours);
        self.activity.write_waits(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            ready!(self.poll_refusal(cx))?;
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.closed = true;
        }
        if self.activity.closed() { self.poll_linger(cx) } else { Poll::Ready(Ok(())) }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_refusal(cx))?;
        // hyper writes a head as one buffer, and nothing follows a refusal.
        let used = buffers.iter().rposition(|buffer| !buffer.is_empty()).map_or(0, |last| last + 1);
        let ours = match buffers.get(..used) {
            Some([only]) => return self.poll_write(cx, only),
            Some([before @ .., last]) if self.refusals.find(last).is_some() => before,
            _ => buffers,
        };
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, ours);
        self.activity.write_waits(written.is_pending());
        written
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::activity::Deadlines;

    const BARE: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";

    fn watched(capacity: usize) -> (tokio::io::DuplexStream, Watched<tokio::io::DuplexStream>) {
        let (peer, socket) = tokio::io::duplex(capacity);
        let hour = std::time::Duration::from_secs(3600);
        let activity = Activity::new(Deadlines { head: hour, idle: hour, write: hour });
        (peer, Watched::new(socket, activity, Refusals::new(8192, 128, hour)))
    }

    #[tokio::test]
    async fn a_bare_refusal_becomes_a_status_wherever_it_stands_and_however_little_the_socket_takes() {
        for (before, capacity) in
            [("", 4096), ("", 7), ("HTTP/1.1 200 OK\r\n\r\nOK", 4096), ("HTTP/1.1 200 OK\r\n\r\nOK", 7)]
        {
            for vectored in [false, true] {
                let (mut peer, mut socket) = watched(capacity);
                let writing = async {
                    let mut bytes = Bytes::from([before.as_bytes(), BARE].concat());
                    while !bytes.is_empty() {
                        let written = if vectored {
                            let buffers = [io::IoSlice::new(&bytes), io::IoSlice::new(&[])];
                            socket.write_vectored(&buffers).await
                        } else {
                            socket.write(&bytes).await
                        };
                        bytes.advance(written.expect("open"));
                    }
                    socket.flush().await.expect("open");
                    drop(socket);
                };
                let mut answer = String::new();
                let (_, read) = tokio::join!(writing, peer.read_to_string(&mut answer));
                read.expect("text");
                let refusal = answer.strip_prefix(before).expect("what stands before is untouched");
                let (head, body) = refusal.split_once("\r\n\r\n").expect("a head");
                assert!(head.contains(&format!("content-length: {}", body.len())), "{refusal}");
                assert!(body.starts_with("{\"statusCode\":400,"), "{refusal}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_peer_still_sends_does_not_cost_it_the_answer() {
        let (mut peer, mut socket) = watched(64);
        let closing = tokio::spawn(async move {
            socket.write_all(b"answer").await.expect("open");
            socket.shutdown().await
        });
        peer.write_all(&[0; 10_000]).await.expect("taken and thrown away");
        let mut answer = [0; 6];
        peer.read_exact(&mut answer).await.expect("the answer");
        peer.shutdown().await.expect("open");
        closing.await.expect("no panic").expect("closed");
    }
}
