//! SMTP replies as values: code, enhanced code (RFC 3463), text. Pure. RFC 5321 §4.2, RFC 2034.

use std::borrow::Cow;
use std::fmt;

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One reply; several lines where the text has line feeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// The enhanced code, where the reply has one.
    pub enhanced: Option<Enhanced>,
    /// Printable text without control characters, but for line feeds between the lines of a multi-line reply.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// Too busy now, the client may come again.
    pub const BUSY: Reply = Reply::fixed(451, Enhanced(4, 3, 2), "System busy, try again later");
    /// Something of ours failed.
    pub const LOCAL_TROUBLE: Reply = Reply::fixed(451, Enhanced(4, 3, 0), "Local trouble, try again later");
    /// No room in the spool.
    pub const NO_SPACE: Reply = Reply::fixed(452, Enhanced(4, 3, 1), "Insufficient system storage, try again later");
    /// The server stops.
    pub const STOPPING: Reply = Reply::fixed(421, Enhanced(4, 3, 2), "Service is stopping, try again later");

    /// A reply with a text that is known at compile time.
    pub const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Reply { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    /// A reply without an enhanced code: greetings, 334 and 354 (RFC 2034 §4).
    pub const fn simple(code: u16, text: &'static str) -> Self {
        Reply { code, enhanced: None, text: Cow::Borrowed(text) }
    }

    /// A reply with a text made at run time. Control characters, which could forge a line, become `?`.
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<String>) -> Self {
        let text: String = text.into().chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        Reply { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// The same with our reference at its end, unless it names it already.
    pub fn referring(self, reference: &str) -> Self {
        if self.text.contains(reference) {
            return self;
        }
        Reply { text: format!("{}; ref {reference}", self.text).into(), ..self }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4xx.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// Appends the reply as it stands on the wire, each line ended by CR LF.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            self.write_line(out, mark, line);
        }
    }

    fn write_line(&self, out: &mut Vec<u8>, mark: char, line: &str) {
        push_number(out, self.code);
        out.push(mark as u8);
        if let Some(Enhanced(class, subject, detail)) = self.enhanced {
            push_number(out, class.into());
            out.push(b'.');
            push_number(out, subject);
            out.push(b'.');
            push_number(out, detail);
            out.push(b' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Without the machinery of `fmt`: several replies are written for each message.
fn push_number(out: &mut Vec<u8>, number: u16) {
    if number >= 10 {
        push_number(out, number / 10);
    }
    out.push(b'0' + (number % 10) as u8);
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "{} {enhanced} {}", self.code, self.text),
            None => write!(f, "{} {}", self.code, self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_written_line_by_line() {
        let mut out = Vec::new();
        Reply::new(550, Enhanced(5, 7, 26), "one\ntwo\r250 ok").write_to(&mut out);
        Reply::simple(354, "go").write_to(&mut out);
        assert_eq!(out, b"550-5.7.26 one\r\n550 5.7.26 two?250 ok\r\n354 go\r\n");
    }
}
