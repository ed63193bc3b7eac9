//! The top header section: fields as received, decoded when asked. Pure. RFC 5322 §2.2, RFC 2047.
//!
//! Fields keep the order and the bytes of the message; a value is unfolded and its encoded words decoded only for those
//! who read it. Broken lines are kept as fields without a name, because spam is often broken in telling ways.

use std::borrow::Cow;
use std::cell::OnceCell;

use mail_parser::parsers::MessageStream;
use memchr::memchr;

use crate::filter::budget::{Budget, Limit};

/// One header field.
#[derive(Clone, Debug)]
pub struct Field<'x> {
    /// Its name as written; empty for a line without a colon.
    pub name: &'x str,
    /// What follows the colon, with folding, without the last line end.
    pub raw: &'x [u8],
    decoded: OnceCell<Cow<'x, str>>,
}

impl<'x> Field<'x> {
    fn new(name: &'x str, raw: &'x [u8]) -> Self {
        Field { name, raw, decoded: OnceCell::new() }
    }

    /// Unfolded, encoded words decoded, without surrounding blanks; decoded once for all who ask.
    pub fn text(&self) -> &str {
        self.decoded.get_or_init(|| decode(self.raw))
    }

    /// False if no reader takes it for one of MIME's fields, `Content-…`, however broken its name is.
    pub fn may_tell_structure(&self) -> bool {
        let name = self.name.trim_start();
        name.is_empty() || name.starts_with(['c', 'C']) && !name.eq_ignore_ascii_case("cc")
    }

    /// Unfolded as text, encoded words as they stand.
    pub fn unfolded(&self) -> Cow<'x, str> {
        unfold(self.raw)
    }
}

/// Fields of a usual message.
const FIELDS_EXPECTED: usize = 32;

/// The header section of a message or part, and where its body begins.
#[derive(Clone, Debug, Default)]
pub struct Header<'x> {
    /// All fields in their order.
    pub fields: Vec<Field<'x>>,
    /// Of each field, what tells its name from most others.
    keys: Vec<u32>,
    /// The marks of all keys: most names that are asked for are those of no field.
    marks: u64,
    /// The section's bytes without the empty line.
    pub raw: &'x [u8],
    /// Where the body begins.
    pub body_offset: usize,
    /// Where the first field begins that can say how the body is built; without one, where the section ends.
    pub structure_offset: usize,
}

impl<'x> Header<'x> {
    /// Splits the section at the front of `raw`.
    pub fn parse(raw: &'x [u8], budget: &mut Budget) -> Self {
        let mut header = Header {
            fields: Vec::with_capacity(FIELDS_EXPECTED),
            keys: Vec::with_capacity(FIELDS_EXPECTED),
            ..Header::default()
        };
        let mut at = if raw.starts_with(b"From ") { line_end(raw, 0) } else { 0 };
        let start = at;
        let mut structure = None;
        header.body_offset = raw.len();
        while at < raw.len() {
            let end = line_end(raw, at);
            if trim_line_end(&raw[at..end]).is_empty() {
                header.body_offset = end;
                break;
            }
            let end = fold_end(raw, end);
            let fits = budget.take(Limit::HeaderFields, 1) && budget.take(Limit::HeaderBytes, (end - at) as u64);
            if fits {
                let field = field(&raw[at..end]);
                if field.may_tell_structure() {
                    structure.get_or_insert(at);
                }
                let key = key(field.name);
                header.marks |= mark(key);
                header.keys.push(key);
                header.fields.push(field);
            } else {
                structure.get_or_insert(at);
            }
            at = end;
        }
        header.raw = &raw[start..at];
        header.structure_offset = structure.unwrap_or(at);
        header
    }

    /// All fields of this name, in order.
    pub fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &Field<'x>> {
        let known = key(name);
        let keys = if self.marks & mark(known) == 0 { &[][..] } else { &self.keys };
        let alike = keys.iter().zip(&self.fields).filter(move |(key, _)| **key == known);
        alike.map(|(_, field)| field).filter(move |field| field.name.eq_ignore_ascii_case(name))
    }

    /// The first field of this name.
    pub fn first(&self, name: &str) -> Option<&Field<'x>> {
        self.all(name).next()
    }

    /// The decoded value of the first field of this name; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.first(name).map(Field::text).unwrap_or_default()
    }
}

/// What tells a name from most others, whatever its case: its length, and three of its letters.
fn key(name: &str) -> u32 {
    let name = name.as_bytes();
    let letter = |place: usize| name.get(place).map_or(0, |byte| byte | b' ');
    let last = letter(name.len().wrapping_sub(1));
    u32::from_le_bytes([name.len() as u8, letter(0), letter(name.len() / 2), last])
}

/// One of 64 bits for a key.
fn mark(key: u32) -> u64 {
    1 << (key.to_le_bytes().into_iter().map(u32::from).sum::<u32>() % u64::BITS)
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
            Field::new(name, &line[colon + 1..])
        }
        _ => Field::new("", line),
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `raw` as a header's reader sees it: unfolded, encoded words decoded, 8-bit bytes as UTF-8 if they are.
pub fn decode(raw: &[u8]) -> Cow<'_, str> {
    if !has_encoded_word(raw) {
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

/// Bytes as text; what is no UTF-8 is replaced. Nearly all of it is, and is only looked at.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// True if an encoded word may stand in it (RFC 2047 §2: `=?charset?…`).
pub fn has_encoded_word(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'=', raw).any(|at| raw.get(at + 1) == Some(&b'?'))
}

fn unfold(raw: &[u8]) -> Cow<'_, str> {
    let text = lossy(raw.trim_ascii());
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

/// The display name and first address of an address field, decoded, address in lower case.
pub fn mailbox(text: &str) -> (String, String) {
    let (name, address) = mailboxes(text).next().unwrap_or_default();
    (name, address.to_ascii_lowercase())
}

/// Display names and addresses of an address field, as written. Takes what people write, RFC 5322 or not; a group has none.
pub fn mailboxes(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let mut before_comma = String::new();
    entries(text).filter_map(move |entry| {
        let entry = entry.trim().trim_end_matches(';');
        // `"a <b"@c` is one address.
        let quoted =
            entry.starts_with('"') && entry[1..].split_once('"').is_some_and(|(_, rest)| rest.starts_with('@'));
        if let Some(open) = entry.rfind('<').filter(|_| !quoted) {
            let rest = &entry[open + 1..];
            let address = rest.split('>').next().unwrap_or(rest);
            let name = entry[..open].trim().trim_matches('"').trim();
            // `A, B <c@d>`: a name with a comma that nobody quoted; its first part is what programs show.
            let first = std::mem::take(&mut before_comma);
            return Some((if first.is_empty() { name.to_owned() } else { first }, address.trim().to_owned()));
        }
        if quoted {
            return Some((String::new(), entry.to_owned()));
        }
        let comment = entry.find('(').map(|open| entry[open + 1..].trim_end().trim_end_matches(')'));
        let Some(address) = entry.split([' ', '(', ',']).find(|word| word.contains('@')) else {
            entry.trim_matches('"').clone_into(&mut before_comma);
            return None;
        };
        let before = entry.split(address).next().unwrap_or_default().trim().trim_matches('"');
        let name = comment.unwrap_or(before).trim();
        Some((name.to_owned(), address.trim_matches(['"', '>']).to_owned()))
    })
}

/// The entries of a list: commas in quotes, comments and angle brackets do not divide.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut depth, mut escaped) = (false, 0u32, false);
    text.split(move |c: char| {
        let was_escaped = escaped;
        escaped = c == '\\' && !was_escaped;
        match c {
            '"' if !was_escaped => quoted = !quoted,
            '(' | '<' if !quoted => depth += 1,
            ')' | '>' if !quoted => depth = depth.saturating_sub(1),
            ',' => return !quoted && depth == 0,
            _ => {}
        }
        false
    })
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
        assert_eq!((header.text("SUBJECT"), header.all("").count()), (header.text("subject"), 1));
        assert!(header.first("subjects").is_none() && header.first("subejct").is_none());
        assert_eq!(header.fields[2].name, "");
        assert_eq!(&raw[header.body_offset..], b"body");
    }

    #[test]
    fn mailboxes_give_name_and_address() {
        assert_eq!(mailbox("\"A B\" <C@D.e>"), ("A B".into(), "c@d.e".into()));
        assert_eq!(mailbox("c@d.e (A B)"), ("A B".into(), "c@d.e".into()));
        assert_eq!(mailbox(""), (String::new(), String::new()));
        let all: Vec<_> = mailboxes("\"A, B\" <C@d.e>, f@g.h (I, J), undisclosed-recipients:;").collect();
        assert_eq!(all, [("A, B".into(), "C@d.e".into()), ("I, J".into(), "f@g.h".into())]);
    }
}
