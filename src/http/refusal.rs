//! Heads that no route ever sees because hyper cannot parse them, or because their end does not come: a Status like every other.
//!
//! hyper answers a head that it cannot parse by itself, without a body, and offers no place to say more. Its answer is recognised as it is written: no
//! answer of ours begins with `connection: close` and an empty body. [`Refusals`] is the main type.

use std::time::Duration;

use bytes::Bytes;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::problem::{Fault, Problem};

/// The Status for each kind of refusal, made once per listener.
#[derive(Debug, Clone)]
pub(crate) struct Refusals {
    malformed: Bytes,
    too_large: Bytes,
    late: Bytes,
}

const VERSION: &[u8] = b"HTTP/1.1 ";
/// What hyper writes behind the status line of a refusal.
const BARE: &[u8] = b"connection: close\r\ncontent-length: 0\r\n";
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("date: [weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const END: &[u8] = b"\r\n\r\n";

impl Refusals {
    /// The bounds of a head, for the descriptions.
    pub(crate) fn new(head_bytes: usize, headers: usize, time: Duration) -> Self {
        let malformed = "this is no HTTP request: its request line or one of its headers cannot be read";
        let too_large = format!(
            "the request line is too long, or the head takes more than {head_bytes} bytes or {headers} headers"
        );
        let late =
            format!("request line and headers did not come within {} ms (sidecar.headerTimeoutMs)", time.as_millis());
        Self {
            malformed: Problem::new(Fault::MalformedRequest, malformed).status_text(),
            too_large: Problem::new(Fault::HeadersTooLarge, too_large).status_text(),
            late: Problem::new(Fault::HeadTimeout, late).status_text(),
        }
    }

    /// The whole answer to a head that did not come in time.
    pub(crate) fn late(&self) -> Bytes {
        let date = OffsetDateTime::now_utc().format(DATE).unwrap_or_default();
        answer("408 Request Timeout", date.as_bytes(), &self.late)
    }

    /// Where a bare refusal begins in what is about to be written, if it ends with one, and what to write instead.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(usize, Bytes)> {
        // Cheap for every other write: bodies of ours do not end like this.
        let head = bytes.strip_suffix(END)?;
        let at = head.windows(VERSION.len()).rposition(|window| window == VERSION)?;
        let head = head.get(at + VERSION.len()..)?;
        let line_end = head.windows(2).position(|window| window == b"\r\n")?;
        let (line, headers) = (head.get(..line_end)?, head.get(line_end + 2..)?);
        let date = headers.strip_prefix(BARE)?;
        let (line, body) = match line.get(..3)? {
            b"400" => ("400 Bad Request", &self.malformed),
            b"414" | b"431" => ("431 Request Header Fields Too Large", &self.too_large),
            _ => return None,
        };
        Some((at, answer(line, date, body)))
    }
}

/// `rest` are further headers, without the line end of the last.
fn answer(line: &str, rest: &[u8], body: &[u8]) -> Bytes {
    let length = body.len().to_string();
    let headers = b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
    [VERSION, line.as_bytes(), headers, length.as_bytes(), b"\r\n", rest, END, body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyper_s_own_answers_are_taken_for_refusals() {
        let refusals = Refusals::new(8192, 128, Duration::from_secs(10));
        let bare =
            |line: &str| format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n");
        for (text, expected) in [
            (bare("400 Bad Request"), Some((0, "HTTP/1.1 400 Bad Request\r\n", "ERR12608"))),
            (bare("414 URI Too Long"), Some((0, "HTTP/1.1 431 ", "ERR12602"))),
            (bare("431 Request Header Fields Too Large"), Some((0, "HTTP/1.1 431 ", "ERR12602"))),
            (format!("HTTP/1.1 200 OK\r\n\r\nOK{}", bare("400 Bad Request")), Some((21, "HTTP/1.1 400 ", "ERR12608"))),
            (bare("500 Internal Server Error"), None),
            ("HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n".into(), None),
            ("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0".into(), None),
            ("HTTP/1.1 400\r\n\r\n".into(), None),
            ("{}".into(), None),
            (String::new(), None),
        ] {
            let found = refusals.find(text.as_bytes());
            assert_eq!(found.is_some(), expected.is_some(), "{text}");
            if let (Some((at, answer)), Some((expected_at, start, code))) = (found, expected) {
                let answer = String::from_utf8(answer.to_vec()).expect("text");
                assert_eq!(at, expected_at);
                assert!(answer.starts_with(start) && answer.contains(code), "{answer}");
                assert!(answer.contains("date: now\r\n\r\n{"), "{answer}");
            }
        }
    }
}
