//! Bytes from a broker, cut into frames.
//!
//! A frame that is too large is refused before anything of it is allocated, and an announced length never allocates more
//! than twice what has arrived (plus one block): a peer that lies about lengths costs nothing.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::{Buf, Bytes, BytesMut};

/// The first allocation for a frame, and the least by which it grows.
const BLOCK: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) buffer: BytesMut,
    limit: usize,
}

/// What the next bytes are worth.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// A whole frame, without its length.
    Frame(Bytes),
    /// More bytes are needed; room for them was made in `buffer`.
    More,
    /// The announced length is negative or beyond the limit.
    Refused(i32),
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    pub(super) fn next(&mut self) -> Next {
        let Some(head) = self.buffer.first_chunk::<4>() else {
            self.buffer.reserve(BLOCK);
            return Next::More;
        };
        let announced = i32::from_be_bytes(*head);
        let length = match usize::try_from(announced) {
            Ok(length) if length <= self.limit => length,
            _ => return Next::Refused(announced),
        };
        let missing = (length + 4).saturating_sub(self.buffer.len());
        if missing > 0 {
            self.buffer.reserve(missing.min(self.buffer.len().max(BLOCK)));
            return Next::More;
        }
        self.buffer.advance(4);
        Next::Frame(self.buffer.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut inbox = Inbox::new(100);
        assert_eq!(inbox.next(), Next::More);
        inbox.buffer.extend_from_slice(&[0, 0, 0, 2, b'a']);
        assert_eq!(inbox.next(), Next::More);
        inbox.buffer.extend_from_slice(&[b'b', 0, 0, 0, 0, 0, 0]);
        assert_eq!(inbox.next(), Next::Frame(Bytes::from_static(b"ab")));
        assert_eq!(inbox.next(), Next::Frame(Bytes::new()));
        assert_eq!(inbox.next(), Next::More);
    }

    #[test]
    fn lies_about_lengths_are_refused_and_allocate_nothing() {
        for head in [*b"HTTP", [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 101]] {
            let mut inbox = Inbox::new(100);
            inbox.buffer.extend_from_slice(&head);
            assert_eq!(inbox.next(), Next::Refused(i32::from_be_bytes(head)));
        }
        let mut inbox = Inbox::new(usize::MAX >> 1);
        inbox.buffer.extend_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(inbox.next(), Next::More);
        assert!(inbox.buffer.capacity() < 4 * BLOCK);
    }
}
