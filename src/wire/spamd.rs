//! SpamAssassin's protocol, both halves: `CHECK SPAMC/1.5` and what spamd answers. Pure. spamd/PROTOCOL of SpamAssassin.
//!
//! A request is a line, fields, an empty line, and as many bytes as `Content-length` says; without it, all until the
//! client closes its half. A response is built alike. Heads are bounded, lengths are numbers or nothing.

use std::fmt::Write;

use memchr::memmem;

/// Longest head that is read; real ones have 200 bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Exit codes of sysexits.h, as the protocol uses them.
pub mod code {
    /// Done.
    pub const OK: (u8, &str) = (0, "EX_OK");
    /// The request is malformed.
    pub const USAGE: (u8, &str) = (64, "EX_USAGE");
    /// The input is too large, or damaged.
    pub const DATA: (u8, &str) = (65, "EX_DATAERR");
    /// Not served here.
    pub const UNAVAILABLE: (u8, &str) = (69, "EX_UNAVAILABLE");
    /// Try again later.
    pub const TEMPFAIL: (u8, &str) = (75, "EX_TEMPFAIL");
    /// Took too long.
    pub const TIMEOUT: (u8, &str) = (79, "EX_TIMEOUT");
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Score only.
    Check,
    /// The header fields as they would be.
    Headers,
    /// Are you there?
    Ping,
    /// The message as it would be.
    Process,
    /// A report in words.
    Report,
    /// A report if it is spam.
    ReportIfSpam,
    /// Nothing after all.
    Skip,
    /// Names of the rules.
    Symbols,
    /// Learn, or forget.
    Tell,
}

const VERBS: [(&str, Verb); 9] = [
    ("CHECK", Verb::Check),
    ("HEADERS", Verb::Headers),
    ("PING", Verb::Ping),
    ("PROCESS", Verb::Process),
    ("REPORT", Verb::Report),
    ("REPORT_IFSPAM", Verb::ReportIfSpam),
    ("SKIP", Verb::Skip),
    ("SYMBOLS", Verb::Symbols),
    ("TELL", Verb::Tell),
];

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub verb: Verb,
    /// `Content-length`, if given.
    pub length: Option<u64>,
    /// `User`, if given: whose rules.
    pub user: Option<String>,
    /// `Compress: zlib`.
    pub zlib: bool,
    /// `Message-class` of TELL: spam or not.
    pub class: Option<bool>,
    /// `Set` of TELL names `local`: the model here shall learn.
    pub sets_local: bool,
}

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Bytes of the head at the front of `bytes`, its empty line included; nothing while it is not whole.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    // PING and SKIP of old clients have no fields and no empty line, but then their whole request is one line.
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4).or_else(|| memmem::find(bytes, b"\n\n").map(|at| at + 2))
}

/// True if `bytes` is a whole PING or SKIP, which may come without the empty line.
pub fn is_lone_line(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"PING ") || bytes.starts_with(b"SKIP ")) && bytes.ends_with(b"\n")
}

impl Request {
    /// Reads a head.
    /// # Errors
    /// What is wrong with it.
    pub fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(head).map_err(|_| Malformed("the head is not UTF-8"))?;
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        let verb = VERBS.iter().find(|(name, _)| *name == word).ok_or(Malformed("unknown command"))?.1;
        if !words.next().is_some_and(|version| version.starts_with("SPAMC/")) {
            return Err(Malformed("no protocol version"));
        }
        let mut request = Request { verb, length: None, user: None, zlib: false, class: None, sets_local: false };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(Malformed("a line without a colon"))?;
            request.field(name.trim(), value.trim())?;
        }
        Ok(request)
    }

    fn field(&mut self, name: &str, value: &str) -> Result<(), Malformed> {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                self.length = Some(value.parse().map_err(|_| Malformed("Content-length is no number"))?);
            }
            "compress" if value.eq_ignore_ascii_case("zlib") => self.zlib = true,
            "compress" => return Err(Malformed("unknown compression")),
            "user" => self.user = Some(value.to_owned()),
            "message-class" => self.class = Some(value.eq_ignore_ascii_case("spam")),
            "set" => self.sets_local = value.split(',').any(|word| word.trim().eq_ignore_ascii_case("local")),
            _ => {}
        }
        Ok(())
    }
}

/// The head of a request as a client writes it.
pub fn request(verb: Verb, length: usize) -> String {
    let name = VERBS.iter().find(|row| row.1 == verb).expect("every verb has a row").0;
    format!("{name} SPAMC/1.5\r\nContent-length: {length}\r\n\r\n")
}

/// A response of spamd.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The exit code.
    pub code: u8,
    /// Score and threshold, if it judged.
    pub score: Option<(f64, f64)>,
    /// It calls the message spam.
    pub spam: bool,
    /// What stands behind the head.
    pub body: String,
}

impl Response {
    /// Reads a whole response; nothing if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = head_length(bytes)?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.lines();
        let mut words = lines.next()?.split_ascii_whitespace();
        words.next()?.strip_prefix("SPAMD/")?;
        let mut response = Response {
            code: words.next()?.parse().ok()?,
            body: String::from_utf8_lossy(&bytes[end..]).into_owned(),
            ..Response::default()
        };
        for line in lines {
            if let Some(("Spam", value)) = line.split_once(':').map(|(name, value)| (name.trim(), value)) {
                let (answer, numbers) = value.split_once(';')?;
                let (score, threshold) = numbers.split_once('/')?;
                response.spam = matches!(answer.trim(), "True" | "Yes");
                response.score = Some((finite(score)?, finite(threshold)?));
            }
        }
        Some(response)
    }
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// A whole response as a server writes it. `judged` is spam or not, score, threshold.
pub fn response(
    (number, name): (u8, &str),
    fields: &[(&str, &str)],
    judged: Option<(bool, f64, f64)>,
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("SPAMD/1.1 {number} {name}\r\n");
    write!(head, "Content-length: {}\r\n", body.len()).expect(INFALLIBLE);
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").expect(INFALLIBLE);
    }
    if let Some((spam, score, threshold)) = judged {
        let answer = if spam { "True" } else { "False" };
        write!(head, "Spam: {answer} ; {score:.1} / {threshold:.1}\r\n").expect(INFALLIBLE);
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// The answer to PING.
pub const PONG: &[u8] = b"SPAMD/1.5 0 PONG\r\n";

const INFALLIBLE: &str = "a String takes any write";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read_with_their_fields() {
        let head = b"TELL SPAMC/1.3\r\nContent-length: 12\r\nUser: bob\r\nMessage-class: spam\r\nSet: local, remote\r\nCompress: zlib\r\n\r\nrest";
        let length = head_length(head).unwrap();
        assert_eq!(&head[length..], b"rest");
        let request = Request::parse(&head[..length]).unwrap();
        assert_eq!((request.verb, request.length, request.zlib), (Verb::Tell, Some(12), true));
        assert_eq!((request.class, request.sets_local), (Some(true), true));
        for wrong in ["", "EAT SPAMC/1.2", "CHECK", "CHECK HTTP/1.1", "CHECK SPAMC/1.2\r\nContent-length: -1"] {
            assert!(Request::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn responses_read_back() {
        let bytes = response(code::OK, &[], Some((true, 15.25, 5.0)), b"GTUBE\r\n");
        let read = Response::parse(&bytes).unwrap();
        assert_eq!((read.code, read.spam, read.score, &*read.body), (0, true, Some((15.2, 5.0)), "GTUBE\r\n"));
        assert_eq!(Response::parse(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(Response::parse(b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Request::parse(&bytes);
            let _ = Response::parse(&bytes);
        }
    }
}
