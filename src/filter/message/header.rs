//! The top header section: fields as received, decoded when asked. Pure. RFC 5322 §2.2, RFC 2047.
//!
//! Fields keep the order and the bytes of the message; a value is unfolded and its encoded words decoded only for those
//! who read it. Broken lines are kept as fields without a name, because spam is often broken in telling ways.

use std::borrow::Cow;

use mail_parser::parsers::MessageStream;
use memchr::memchr;

use crate::filter::budget::{Budget, Limit};

/// One header field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'x> {
    /// Its name as written; empty for a line without a colon.
    pub name: &'x str,
    /// What follows the colon, with folding, without the last line end.
    pub raw: &'x [u8],
}

impl<'x> Field<'x> {
    /// Unfolded, encoded words decoded, without surrounding blanks.
    pub fn text(&self) -> Cow<'x, str> {
        decode(self.raw)
    }

    /// Unfolded as text, encoded words as they stand.
    pub fn unfolded(&self) -> Cow<'x, str> {
        unfold(self.raw)
    }
}

/// The header section of a message or part, and where its body begins.
#[derive(Clone, Debug, Default)]
pub struct Header<'x> {
    /// All fields in their order.
    pub fields: Vec<Field<'x>>,
    /// The section's bytes without the empty line.
    pub raw: &'x [u8],
    /// Where the body begins.
    pub body_offset: usize,
}

impl<'x> Header<'x> {
    /// Splits the section at the front of `raw`.
    pub fn parse(raw: &'x [u8], budget: &mut Budget) -> Self {
        let mut header = Header::default();
        let mut at = if raw.starts_with(b"From ") { line_end(raw, 0) } else { 0 };
        let start = at;
        while at < raw.len() {
            let end = line_end(raw, at);
            if trim_line_end(&raw[at..end]).is_empty() {
                header.raw = &raw[start..at];
                header.body_offset = end;
                return header;
            }
            let end = fold_end(raw, end);
            let fits = budget.take(Limit::HeaderFields, 1) && budget.take(Limit::HeaderBytes, (end - at) as u64);
            if fits {
                header.fields.push(field(&raw[at..end]));
            }
            at = end;
        }
        header.raw = &raw[start..];
        header.body_offset = raw.len();
        header
    }

    /// All fields of this name, in order.
    pub fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &Field<'x>> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name))
    }

    /// The first field of this name.
    pub fn first(&self, name: &str) -> Option<&Field<'x>> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// The decoded value of the first field of this name; empty if there is none.
    pub fn text(&self, name: &str) -> Cow<'x, str> {
        self.first(name).map(Field::text).unwrap_or_default()
    }
}

fn line_end(raw: &[u8], at: usize) -> usize {
    memchr(b'\n', &raw[at..]).map_or(raw.len(), |found| at + found + 1)
}

fn fold_end(raw: &[u8], mut end: usize) -> usize {
    while end < raw.len() && (raw[end] == b' ' || raw[end] == b'\t') {
        let next = line_end(raw, end);
        // A line of blanks only ends the section for some readers; for us it is a fold, as RFC 5322 §4.2 allows.
        end = next;
    }
    end
}

fn field(line: &[u8]) -> Field<'_> {
    let line = trim_line_end(line);
    match memchr(b':', line) {
        Some(colon) if colon > 0 && line[..colon].iter().all(|&byte| byte > b' ' && byte < 127 || byte == b' ') => {
            let name = std::str::from_utf8(&line[..colon]).expect("checked to be ASCII").trim_end();
            Field { name, raw: &line[colon + 1..] }
        }
        _ => Field { name: "", raw: line },
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `raw` as a header's reader sees it: unfolded, encoded words decoded, 8-bit bytes as UTF-8 if they are.
pub fn decode(raw: &[u8]) -> Cow<'_, str> {
    if memchr::memmem::find(raw, b"=?").is_none() {
        return unfold(raw);
    }
    // The parser reads up to a line end that is not a fold, so the value needs one.
    let mut line = raw.to_vec();
    line.push(b'\n');
    let text = match MessageStream::new(&line).parse_unstructured() {
        mail_parser::HeaderValue::Text(text) => text.into_owned(),
        _ => unfold(raw).into_owned(),
    };
    Cow::Owned(text)
}

fn unfold(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw.trim_ascii());
    if memchr(b'\n', text.as_bytes()).is_none() {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if out.is_empty() {
            out.push_str(line);
        } else {
            out.push(' ');
            out.push_str(line.trim_start_matches([' ', '\t']));
        }
    }
    Cow::Owned(out)
}

/// The first address and display name of an address field, decoded, address in lower case.
pub fn mailbox(text: &str) -> (String, String) {
    if let Some(open) = text.rfind('<') {
        let rest = &text[open + 1..];
        let address = rest.split('>').next().unwrap_or(rest);
        let name = text[..open].trim().trim_matches('"').trim();
        return (name.to_owned(), address.trim().to_ascii_lowercase());
    }
    let name = text.find('(').map(|open| text[open + 1..].trim_end().trim_end_matches(')')).unwrap_or_default();
    let address = text.split([' ', '(', ',']).find(|word| word.contains('@')).unwrap_or(text.trim());
    (name.trim().to_owned(), address.trim_matches('"').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_unfold_and_decode() {
        let raw =
            b"From x\nSubject: =?utf-8?Q?caf=C3=A9?=\r\n =?utf-8?B?IGF1?= lait\r\nX: a\r\n\tb\r\nbroken\r\n\r\nbody";
        let header = Header::parse(raw, &mut Budget::default());
        assert_eq!(header.text("subject"), "café au lait");
        assert_eq!(header.text("x"), "a b");
        assert_eq!(header.fields[2].name, "");
        assert_eq!(&raw[header.body_offset..], b"body");
    }

    #[test]
    fn mailboxes_give_name_and_address() {
        assert_eq!(mailbox("\"A B\" <C@D.e>"), ("A B".into(), "c@d.e".into()));
        assert_eq!(mailbox("c@d.e (A B)"), ("A B".into(), "c@d.e".into()));
        assert_eq!(mailbox(""), (String::new(), String::new()));
    }
}
