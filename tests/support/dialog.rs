//! Dialogue files: a conversation as text, to be replayed against a machine or a live server.
//!
//! ```text
//! # What the dialogue shows, in one line.
//! @role submission            a directive: a name and the rest of the line, for whoever replays it
//! C: EHLO client.example      the client sends this line and CR LF
//! B: abc\0\x41\r\n            the client sends these bytes; \r \n \0 \t \\ \xHH are understood in C: too
//! S: 250-mx.example.org       the next reply line begins with this text
//! S: ...                      any number of continuation lines (250-...)
//! S: <tls>                    TLS begins here (both sides make the handshake)
//! S: <close>                  the server closes
//! Q: <a@b.c> -> d@e.f         the next message that was taken in holds this text
//! T: 300                      so many seconds pass
//! !stop  !eof  ---            the server is told to stop; the client closes its side; what follows is sent only now
//! ```
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One step of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes.
    Advance(Duration),
    /// Nothing behind this is sent before everything in front of it is answered.
    Barrier,
    /// The server closes.
    Close,
    /// The client closes its side.
    Eof,
    /// A reply line.
    Expect(String),
    /// The client sends.
    Send(Vec<u8>),
    /// The server is told to stop.
    Stop,
    /// TLS begins.
    Tls,
}

/// A parsed dialogue.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// Where it stands.
    pub path: PathBuf,
    /// Names and values.
    pub directives: Vec<(String, String)>,
    /// What happens.
    pub steps: Vec<Step>,
    /// Messages that must have been taken in.
    pub messages: Vec<String>,
}

impl Dialog {
    /// Reads a file; panics at the line that it can't read.
    pub fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut dialog =
            Dialog { path: path.to_owned(), directives: Vec::new(), steps: Vec::new(), messages: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            if !dialog.take(line) {
                panic!("{}:{}: no such line in a dialogue: {line}", path.display(), number + 1);
            }
        }
        dialog
    }

    /// All dialogues in and below `folder`, in order of their names.
    pub fn load_all(folder: &Path) -> Vec<Self> {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
            .iter()
            .flat_map(|path| if path.is_dir() { Self::load_all(path) } else { vec![Self::load(path)] })
            .collect()
    }

    /// The values of a directive.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.directives.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a directive, if it stands there.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.directives.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn take(&mut self, line: &str) -> bool {
        let rest = |prefix: &str| line.strip_prefix(prefix).map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
        if line.trim().is_empty() || line.starts_with('#') {
            return true;
        }
        if let Some(directive) = rest("@") {
            let (name, value) = directive.split_once(' ').unwrap_or((directive, ""));
            self.directives.push((name.to_owned(), value.trim().to_owned()));
            return true;
        }
        if let Some(message) = rest("Q:") {
            self.messages.push(message.to_owned());
            return true;
        }
        let step = match (rest("C:"), rest("B:"), rest("S:"), rest("T:")) {
            (Some(text), ..) => Step::Send([unescape(text), b"\r\n".to_vec()].concat()),
            (_, Some(text), ..) => Step::Send(unescape(text)),
            (_, _, Some("<tls>"), _) => Step::Tls,
            (_, _, Some("<close>"), _) => Step::Close,
            (_, _, Some(text), _) => Step::Expect(text.to_owned()),
            (.., Some(seconds)) => Step::Advance(Duration::from_secs(seconds.trim().parse().expect("seconds"))),
            _ => match line.trim() {
                "!stop" => Step::Stop,
                "!eof" => Step::Eof,
                "---" => Step::Barrier,
                _ => return false,
            },
        };
        self.steps.push(step);
        true
    }
}

/// `\r \n \0 \t \\ \xHH` as bytes.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b'0') => 0,
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).expect("two hexadecimal digits")
            }
            Some(b'\\') => b'\\',
            other => panic!("unknown escape {other:?} in {text}"),
        });
    }
    out
}

/// Compares reply lines with the texts of [`Step::Expect`] and says what is wrong.
pub fn compare(expected: &[&str], got: &[u8]) -> Result<(), String> {
    let got = String::from_utf8_lossy(got);
    let mut lines = got.split_terminator("\r\n").peekable();
    for (index, text) in expected.iter().enumerate() {
        if *text == "..." {
            let next = expected.get(index + 1).copied().unwrap_or("\0");
            while lines.next_if(|line| line.as_bytes().get(3) == Some(&b'-') && !line.starts_with(next)).is_some() {}
            continue;
        }
        match lines.next() {
            Some(line) if line.starts_with(text) => {}
            line => return Err(format!("expected {text:?}, got {line:?} in\n{got}")),
        }
    }
    match lines.next() {
        Some(line) => Err(format!("did not expect {line:?} in\n{got}")),
        None => Ok(()),
    }
}
