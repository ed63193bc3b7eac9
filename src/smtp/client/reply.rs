//! Replies of a remote server, parsed as hostile input. Pure. RFC 5321 §4.2, RFC 2034.
//!
//! Lines and their number are bounded, all lines of a reply carry the same code, and control or non-UTF-8 bytes never
//! reach a log or a report. Fails with a [`ReplyFault`]; the connection is then of no more use.

use std::fmt;

use memchr::memchr;

use crate::wire::reply::Enhanced;

/// Longest line that is taken, CR LF included. RFC 5321 §4.5.3.1.5 says 512; servers with long URLs send more.
pub const REPLY_LINE_BYTES_MAX: usize = 1000;
/// Bytes of a line's text that are kept.
const REPLY_TEXT_BYTES_MAX: usize = 512;
/// Most lines of one reply; EHLO of a large server has about 20.
const REPLY_LINES_MAX: usize = 100;

/// One reply of a remote server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code of the last line that has one.
    pub enhanced: Option<Enhanced>,
    /// Text of all lines, without codes, joined by line feeds; printable otherwise.
    pub text: String,
}

impl RemoteReply {
    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code < 300
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The reply in one line, for logs, the queue and `Diagnostic-Code`.
    pub fn one_line(&self) -> String {
        let text = self.text.replace('\n', " ");
        match self.enhanced {
            Some(enhanced) => format!("{} {enhanced} {text}", self.code),
            None => format!("{} {text}", self.code),
        }
    }

    /// The status of RFC 3463: the one sent, or the class of the code.
    pub fn status(&self) -> Enhanced {
        self.enhanced.unwrap_or(Enhanced((self.code / 100) as u8, 0, 0))
    }
}

/// Why what came is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line of one reply has another code than the line before.
    CodeChanged,
    /// A line is longer than [`REPLY_LINE_BYTES_MAX`].
    LineTooLong,
    /// A line does not begin with a code of 2xx to 5xx.
    NoCode,
    /// More lines than any server has a reason to send.
    TooManyLines,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplyFault::CodeChanged => "the lines of a reply have different codes",
            ReplyFault::LineTooLong => "a reply line is too long",
            ReplyFault::NoCode => "a reply line has no code",
            ReplyFault::TooManyLines => "a reply has too many lines",
        })
    }
}

impl std::error::Error for ReplyFault {}

/// Cuts bytes into replies.
#[derive(Debug, Default)]
pub struct ReplyReader {
    bytes: Vec<u8>,
    start: usize,
    partial: Option<RemoteReply>,
    lines: usize,
}

impl ReplyReader {
    /// Takes bytes as they came. Call [`ReplyReader::next_reply`] until it gives nothing before the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// True if nothing is left over: no part of a reply, and no reply that nobody asked for.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len() && self.partial.is_none()
    }

    /// Forgets everything: what came in the clear does not count inside TLS (RFC 3207 §4.2).
    pub fn clear(&mut self) {
        *self = ReplyReader::default();
    }

    /// The next whole reply, or nothing until more bytes are there.
    /// # Errors
    /// [`ReplyFault`]; the reader must not be used again.
    pub fn next_reply(&mut self) -> Result<Option<RemoteReply>, ReplyFault> {
        loop {
            let rest = &self.bytes[self.start..];
            let Some(end) = memchr(b'\n', rest) else {
                return if rest.len() > REPLY_LINE_BYTES_MAX { Err(ReplyFault::LineTooLong) } else { Ok(None) };
            };
            if end >= REPLY_LINE_BYTES_MAX {
                return Err(ReplyFault::LineTooLong);
            }
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let (code, more, text) = split_line(line)?;
            let (enhanced, text) = split_enhanced(code, text);
            let text = printable(text);
            self.start += end + 1;
            self.add_line(code, enhanced, text)?;
            if !more {
                self.lines = 0;
                return Ok(self.partial.take());
            }
        }
    }

    fn add_line(&mut self, code: u16, enhanced: Option<Enhanced>, text: String) -> Result<(), ReplyFault> {
        self.lines += 1;
        if self.lines > REPLY_LINES_MAX {
            return Err(ReplyFault::TooManyLines);
        }
        match &mut self.partial {
            None => self.partial = Some(RemoteReply { code, enhanced, text }),
            Some(reply) if reply.code != code => return Err(ReplyFault::CodeChanged),
            Some(reply) => {
                reply.text.push('\n');
                reply.text.push_str(&text);
                reply.enhanced = enhanced.or(reply.enhanced);
            }
        }
        Ok(())
    }
}

/// Code, whether more lines follow, and the text.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ReplyFault> {
    let [first @ b'2'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9', rest @ ..] = line else {
        return Err(ReplyFault::NoCode);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let code = digit(first) * 100 + digit(second) * 10 + digit(third);
    match rest {
        [] => Ok((code, false, rest)),
        [b' ', text @ ..] => Ok((code, false, text)),
        [b'-', text @ ..] => Ok((code, true, text)),
        _ => Err(ReplyFault::NoCode),
    }
}

/// `2.1.5 text`, if the class fits the code (RFC 2034 §4).
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = memchr(b' ', text).unwrap_or(text.len());
    let parse = || {
        let word = std::str::from_utf8(text.get(..end)?).ok()?;
        let mut numbers = word.splitn(3, '.');
        let class: u8 = numbers.next()?.parse().ok()?;
        let subject = numbers.next().filter(|n| n.len() <= 3)?.parse().ok()?;
        let detail = numbers.next().filter(|n| n.len() <= 3)?.parse().ok()?;
        (u16::from(class) == code / 100).then_some(Enhanced(class, subject, detail))
    };
    match parse() {
        Some(enhanced) => (Some(enhanced), text[end..].strip_prefix(b" ").unwrap_or(&[])),
        None => (None, text),
    }
}

/// Text without control characters, cut to its bound.
fn printable(text: &[u8]) -> String {
    let text = &text[..text.len().min(REPLY_TEXT_BYTES_MAX)];
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<RemoteReply>, ReplyFault> {
        let mut reader = ReplyReader::default();
        reader.feed(bytes);
        reader.next_reply()
    }

    #[test]
    fn replies_of_one_and_many_lines() {
        let one = read(b"250 2.1.5 fine\r\n").unwrap().unwrap();
        assert_eq!((one.code, one.enhanced, &*one.text), (250, Some(Enhanced(2, 1, 5)), "fine"));
        let many = read(b"550-5.7.1 no\r\n550-never\r\n550 5.7.1 ever\r\n").unwrap().unwrap();
        assert_eq!(many.one_line(), "550 5.7.1 no never ever");
        assert_eq!(read(b"250\r\n").unwrap().unwrap().text, "");
        assert_eq!(read(b"250 ok\n").unwrap().unwrap().text, "ok");
        assert_eq!(read(b"250 5.1.1 wrong class\r\n").unwrap().unwrap().enhanced, None);
    }

    #[test]
    fn nonsense_is_a_fault_and_control_characters_are_gone() {
        assert_eq!(read(b"HTTP/1.1 400\r\n"), Err(ReplyFault::NoCode));
        assert_eq!(read(b"150 x\r\n"), Err(ReplyFault::NoCode));
        assert_eq!(read(b"2500 x\r\n"), Err(ReplyFault::NoCode));
        assert_eq!(read(b"250-a\r\n251 b\r\n"), Err(ReplyFault::CodeChanged));
        assert_eq!(read(&[b'2'; 1001]), Err(ReplyFault::LineTooLong));
        assert_eq!(read(&b"250-x\r\n".repeat(101)), Err(ReplyFault::TooManyLines));
        assert_eq!(read(b"250 a\rb\0c\x1b[31m\xff\r\n").unwrap().unwrap().text, "a?b?c?[31m\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_cut_give_the_same_replies(bytes in proptest::collection::vec(
            prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..300),
            cut in 0usize..300) {
            let run = |pieces: &[&[u8]]| {
                let mut reader = ReplyReader::default();
                let mut seen = Vec::new();
                for piece in pieces {
                    reader.feed(piece);
                    loop {
                        match reader.next_reply() {
                            Ok(Some(reply)) => seen.push(Ok(reply)),
                            Ok(None) => break,
                            Err(fault) => { seen.push(Err(fault)); return seen; }
                        }
                    }
                }
                seen
            };
            let cut = cut.min(bytes.len());
            prop_assert_eq!(run(&[&bytes]), run(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
