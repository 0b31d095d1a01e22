//! Bytes from a broker, cut into frames.
//!
//! No length is believed before the correlation id behind it is the one that is awaited: what is no Kafka answer never
//! passes for one that is too large. A frame that is too large is refused before anything of it is allocated, and an
//! announced length never allocates more than twice what has arrived (plus one block): a peer that lies costs nothing.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::{Buf, Bytes, BytesMut};

/// The first allocation for a frame, and the least by which it grows.
const BLOCK: usize = 16 * 1024;
/// What a correlation id takes, behind the length.
const ID: usize = 4;

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
    /// The answer to another request, or none: it has this correlation id.
    Foreign(i32),
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// What speaks there, if by its first bytes it is something else that is known.
    pub(super) fn stranger(&self) -> Option<&'static str> {
        match self.buffer.first_chunk::<4>()? {
            b"HTTP" => Some("it speaks HTTP: is this the port of a Kafka listener?"),
            // An alert.
            [0x15, 0x03, ..] => Some("it speaks TLS: security.protocol is to be SSL or SASL_SSL for it"),
            _ => None,
        }
    }

    /// `awaited`: the correlation id of the next answer, if there is to be one.
    pub(super) fn next(&mut self, awaited: Option<i32>) -> Next {
        let Some((head, rest)) = self.buffer.split_first_chunk::<4>() else {
            self.buffer.reserve(BLOCK);
            return Next::More;
        };
        let announced = i32::from_be_bytes(*head);
        if usize::try_from(announced).map_or(true, |length| length >= ID) {
            match rest.first_chunk::<ID>().map(|id| i32::from_be_bytes(*id)) {
                Some(id) if Some(id) == awaited => {}
                Some(id) => return Next::Foreign(id),
                None => {
                    self.buffer.reserve(BLOCK);
                    return Next::More;
                }
            }
        }
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
        assert_eq!(inbox.next(Some(1)), Next::More);
        inbox.buffer.extend_from_slice(&[0, 0, 0, 5, 0, 0]);
        assert_eq!(inbox.next(Some(1)), Next::More);
        inbox.buffer.extend_from_slice(&[0, 1]);
        assert_eq!(inbox.next(Some(1)), Next::More);
        inbox.buffer.extend_from_slice(&[b'a', 0, 0, 0, 0, 0, 0]);
        assert_eq!(inbox.next(Some(1)), Next::Frame(Bytes::from_static(&[0, 0, 0, 1, b'a'])));
        assert_eq!(inbox.next(Some(2)), Next::Frame(Bytes::new()));
        assert_eq!(inbox.next(Some(2)), Next::More);
    }

    #[test]
    fn lies_about_lengths_are_refused_and_allocate_nothing() {
        for head in [[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 101]] {
            let mut inbox = Inbox::new(100);
            inbox.buffer.extend_from_slice(&head);
            assert_eq!(inbox.next(Some(7)), Next::More);
            inbox.buffer.extend_from_slice(&[0, 0, 0, 7]);
            assert_eq!(inbox.next(Some(7)), Next::Refused(i32::from_be_bytes(head)));
        }
        let mut inbox = Inbox::new(usize::MAX >> 1);
        inbox.buffer.extend_from_slice(&i32::MAX.to_be_bytes());
        inbox.buffer.extend_from_slice(&[0, 0, 0, 7]);
        assert_eq!(inbox.next(Some(7)), Next::More);
        assert!(inbox.buffer.capacity() < 4 * BLOCK);
    }

    #[test]
    fn what_is_not_the_awaited_answer_is_foreign_whatever_length_it_seems_to_have() {
        for (bytes, awaited) in [(*b"HTTP/1.1", Some(7)), ([0, 0, 0, 50, 0, 0, 0, 8], Some(7)), ([0; 8], None)] {
            let mut inbox = Inbox::new(100);
            inbox.buffer.extend_from_slice(&bytes);
            let id = i32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            // A frame of no bytes has no id; it is no answer to anything either.
            let expected = if bytes == [0; 8] { Next::Frame(Bytes::new()) } else { Next::Foreign(id) };
            assert_eq!(inbox.next(awaited), expected);
        }
    }
}
