//! Canonicalisation: the bytes that were signed. Pure. RFC 6376 §3.4, §3.7, §5.4.2.
//!
//! Bodies go through in slices of the message, never copied whole. Only CR LF ends a line; a bare CR or LF is a byte like any other.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use foldhash::fast::RandomState;
use memchr::memchr2;

use super::super::message::{Field, Message};
use super::signature::Canonicalization;

/// Hashes of a body under one canonicalisation and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHash {
    /// SHA-256.
    pub digest: Vec<u8>,
    /// Bytes of the canonical body, of which `l=` may count fewer.
    pub canonical_bytes: u64,
}

/// Hashes a body; `length` is `l=`.
pub fn hash_body(how: Canonicalization, body: &[u8], length: Option<u64>) -> BodyHash {
    let mut sink =
        HashSink { context: Context::new(&SHA256), pending: Vec::new(), seen: 0, limit: length.unwrap_or(u64::MAX) };
    write_body(how, body, |piece| sink.put(piece));
    sink.finish()
}

/// Small pieces are gathered up to this size before they are hashed.
const PIECE_BYTES: usize = 4096;

struct HashSink {
    context: Context,
    pending: Vec<u8>,
    seen: u64,
    limit: u64,
}

impl HashSink {
    fn put(&mut self, piece: &[u8]) {
        let room = self.limit.saturating_sub(self.seen);
        self.seen += piece.len() as u64;
        let piece = &piece[..piece.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if self.pending.len() + piece.len() > PIECE_BYTES {
            self.context.update(&self.pending);
            self.pending.clear();
        }
        if piece.len() >= PIECE_BYTES {
            self.context.update(piece);
        } else {
            self.pending.extend_from_slice(piece);
        }
    }

    fn finish(mut self) -> BodyHash {
        self.context.update(&self.pending);
        BodyHash { digest: self.context.finish().as_ref().to_vec(), canonical_bytes: self.seen }
    }
}

/// Writes the canonical body in pieces.
pub fn write_body(how: Canonicalization, body: &[u8], mut put: impl FnMut(&[u8])) {
    match how {
        Canonicalization::Simple => {
            let mut end = body.len();
            while body[..end].ends_with(b"\r\n") {
                end -= 2;
            }
            put(&body[..end]);
            put(b"\r\n");
        }
        Canonicalization::Relaxed => {
            let body = trim_relaxed(body);
            if !body.is_empty() {
                write_relaxed(body, &mut put);
                put(b"\r\n");
            }
        }
    }
}

/// Without trailing lines that are empty once their white space is gone, and the white space of the last line.
fn trim_relaxed(mut body: &[u8]) -> &[u8] {
    loop {
        body = match body {
            [rest @ .., b'\r', b'\n'] | [rest @ .., b' ' | b'\t'] => rest,
            _ => return body,
        };
    }
}

/// Runs of blanks become one space, or nothing before CR LF. Slices between changes are passed on whole.
fn write_relaxed(body: &[u8], put: &mut impl FnMut(&[u8])) {
    let (mut start, mut at) = (0, 0);
    while let Some(found) = memchr2(b' ', b'\t', &body[at..]) {
        let blank = at + found;
        let run = body[blank..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let behind = blank + run;
        at = behind;
        let at_line_end = body[behind..].starts_with(b"\r\n");
        if run == 1 && body[blank] == b' ' && !at_line_end {
            continue;
        }
        put(&body[start..blank]);
        if !at_line_end {
            put(b" ");
        }
        start = behind;
    }
    put(&body[start..]);
}

/// Appends one canonical field, with its CR LF.
pub fn write_field(how: Canonicalization, message: &Message, field: &Field, out: &mut Vec<u8>) {
    match how {
        Canonicalization::Simple => out.extend_from_slice(message.raw(field)),
        Canonicalization::Relaxed => write_relaxed_field(message.name(field), message.value(field), out),
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
}

/// `name:value` in relaxed form, CR LF included.
pub fn write_relaxed_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let mut words = value.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.extend_from_slice(first);
    }
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields that `names` choose: each name takes the lowest one not taken yet (RFC 6376 §5.4.2), a name too many takes nothing.
pub fn write_signed_fields(how: Canonicalization, message: &Message, names: &[String], out: &mut Vec<u8>) {
    let mut left: HashMap<&str, Vec<&Field>, RandomState> =
        names.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let mut name = String::new();
    for field in message.fields() {
        name.clear();
        name.push_str(&String::from_utf8_lossy(message.name(field)));
        name.make_ascii_lowercase();
        if let Some(fields) = left.get_mut(name.as_str()) {
            fields.push(field);
        }
    }
    for name in names {
        if let Some(field) = left.get_mut(name.as_str()).and_then(Vec::pop) {
            write_field(how, message, field, out);
        }
    }
}

/// Appends the signature field itself with an empty `b=` and without its last CR LF (RFC 6376 §3.7).
pub fn write_signature_field(how: Canonicalization, name: &[u8], value: &[u8], raw_name: &[u8], out: &mut Vec<u8>) {
    let value = without_signature(value);
    match how {
        Canonicalization::Simple => {
            out.extend_from_slice(raw_name);
            out.extend_from_slice(&value);
        }
        Canonicalization::Relaxed => write_relaxed_field(name, &value, out),
    }
    if out.ends_with(b"\r\n") {
        out.truncate(out.len() - 2);
    }
}

/// The value with everything between `b=` and its `;` gone.
fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (index, spec) in value.split(|byte| *byte == b';').enumerate() {
        if index > 0 {
            out.push(b';');
        }
        match spec.iter().position(|byte| *byte == b'=') {
            Some(equals) if spec[..equals].trim_ascii() == b"b" => out.extend_from_slice(&spec[..=equals]),
            _ => out.extend_from_slice(spec),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(how: Canonicalization, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_body(how, text, |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn bodies_of_rfc_6376_section_3_4_5() {
        let text = b" C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(body(Canonicalization::Relaxed, text), b" C\r\nD E\r\n");
        assert_eq!(body(Canonicalization::Simple, text), b" C \r\nD \t E\r\n");
    }

    // Others hash lines of blanks at the end of a relaxed body, and good signatures fail.
    #[test]
    fn trailing_lines_of_blanks_are_empty_lines() {
        for text in ["abc", "abc\r\n", "abc \r\n", "abc\r\n\r\n", "abc\r\n \r\n", "abc\r\n \r\n\t\r\n", "abc\r\n \t"] {
            assert_eq!(body(Canonicalization::Relaxed, text.as_bytes()), b"abc\r\n", "{text:?}");
        }
    }

    #[test]
    fn an_empty_body_is_one_line_or_nothing() {
        for text in ["", "\r\n", "\r\n\r\n"] {
            assert_eq!(body(Canonicalization::Simple, text.as_bytes()), b"\r\n");
            assert_eq!(body(Canonicalization::Relaxed, text.as_bytes()), b"");
        }
    }

    #[test]
    fn only_the_b_tag_is_emptied() {
        assert_eq!(without_signature(b" bh=x; b = A\r\n B ; d=b"), b" bh=x; b =; d=b");
    }

    /// RFC 6376 §3.4.4 word by word, line by line.
    fn relaxed_model(text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let mut lines: Vec<String> = text
            .split("\r\n")
            .map(|line| {
                let mut out = String::new();
                for c in line.chars() {
                    match c {
                        ' ' | '\t' if out.ends_with(' ') => {}
                        ' ' | '\t' => out.push(' '),
                        c => out.push(c),
                    }
                }
                out.trim_end_matches(' ').to_owned()
            })
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect()
    }

    proptest! {
        #[test]
        fn relaxed_bodies_equal_the_model(text in "([a-z]| |\t|\r\n|\r|\n){0,40}") {
            prop_assert_eq!(body(Canonicalization::Relaxed, text.as_bytes()), relaxed_model(text.as_bytes()));
        }
    }
}
