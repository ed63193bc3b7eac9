//! A message with 8-bit or binary content for a host that takes less: the same message in quoted-printable and base64. Pure.
//!
//! RFC 6152 §3 and RFC 3030 §3 (convert or refuse), RFC 2045 §6 (encodings), RFC 2046 §5.1 (multiparts), RFC 1847 §2.1 (what is signed
//! stays). Nothing is built whole: a plan of pieces, and blocks of a piece while it is sent. Invariant: decoded, each part is what it
//! was. Header sections stay as they are but for `Content-Transfer-Encoding`, and what makes a message without MIME one of MIME.
//! Not here: bare line ends and long lines of parts that are not called binary; DATA mends them.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

use super::header::fields;

/// Parts in parts; Postfix's mime_nesting_limit is 100, mail of people has less than ten.
const DEPTH_MAX: usize = 20;
/// Pieces of one plan: some thousands of parts.
const PIECES_MAX: usize = 20_000;
/// Longest line of DATA, without CR LF (RFC 5321 §4.5.3.1.6).
const LINE_BYTES_MAX: usize = 998;
/// Characters of an encoded line (RFC 2045 §6.7 rule 5, §6.8).
const LINE_CHARS_MAX: usize = 76;
/// Bytes that make one full line of base64.
const BASE64_LINE_BYTES: usize = LINE_CHARS_MAX / 4 * 3;
/// Bytes of an encoded block, about.
const BLOCK_BYTES: usize = 16 * 1024;

/// A piece of the converted message; ranges are of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Encoded in base64.
    Base64(Range<usize>),
    /// A header field of ours, line end included.
    Field(&'static str),
    /// As it is.
    Keep(Range<usize>),
    /// What no reader is shown, or no decoder heeds: NUL and 8-bit bytes become `?`.
    Masked(Range<usize>),
    /// Encoded in quoted-printable; `again`: it claims to be so already.
    Quoted {
        /// Where it stands.
        range: Range<usize>,
        /// Only the 8-bit bytes need it.
        again: bool,
    },
}

/// From what to what a message is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lines of 8 bits become lines of 7.
    EightToSeven,
    /// Anything (BINARYMIME) becomes lines of 8 bits.
    BinaryToEight,
    /// Anything becomes lines of 7 bits.
    BinaryToSeven,
}

/// The pieces of `content` behind `step`; nothing where that can't be done without breaking it: signed and encrypted multiparts, messages
/// of other kinds than RFC 822's, encodings that we do not know.
pub fn plan(content: &[u8], step: Step) -> Option<Vec<Piece>> {
    let mut walk = Walk { content, step, pieces: Vec::new() };
    walk.part(0..content.len(), Kind::Message, 0)?;
    Some(walk.pieces)
}

/// What a part is where it does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A whole message.
    Message,
    /// Text within a multipart.
    Text,
    /// A message within `multipart/digest`.
    Digest,
}

struct Walk<'a> {
    content: &'a [u8],
    step: Step,
    pieces: Vec<Piece>,
}

/// What a header section says of its body.
#[derive(Default)]
struct Head {
    media: Option<String>,
    boundary: Option<Vec<u8>>,
    encoding: Option<String>,
    has_version: bool,
    /// Where `Content-Transfer-Encoding` stands.
    encodings: Vec<Range<usize>>,
    end: usize,
}

impl Walk<'_> {
    fn put(&mut self, piece: Piece) -> Option<()> {
        self.pieces.push(piece);
        (self.pieces.len() <= PIECES_MAX).then_some(())
    }

    /// True if bytes of any value between the line ends are taken as they are.
    fn may_stay(&self, range: &Range<usize>) -> bool {
        let bytes = &self.content[range.clone()];
        match self.step {
            Step::EightToSeven => bytes.is_ascii(),
            Step::BinaryToEight => memchr::memchr(0, bytes).is_none(),
            Step::BinaryToSeven => bytes.is_ascii() && memchr::memchr(0, bytes).is_none(),
        }
    }

    fn keep_if_it_may_stay(&mut self, range: Range<usize>) -> Option<()> {
        if self.may_stay(&range) { self.put(Piece::Keep(range)) } else { None }
    }

    fn part(&mut self, range: Range<usize>, kind: Kind, depth: usize) -> Option<()> {
        let bytes = &self.content[range.clone()];
        let head = Head::of(bytes);
        let blank = if bytes[head.end..].starts_with(b"\r\n") { 2 } else { 1 };
        let body = (range.start + head.end + blank).min(range.end)..range.end;
        let is_binary = self.step != Step::EightToSeven;
        // Whether a part that stays is called binary, only a look at each part tells.
        if !is_binary && self.may_stay(&body) {
            return self.put(Piece::Keep(range));
        }
        let is_encoded = !matches!(head.encoding.as_deref(), None | Some("7bit" | "8bit" | "binary"));
        let has_nul = is_binary && memchr::memchr(0, &bytes[..head.end]).is_some();
        let has_no_body = head.end == bytes.len();
        if has_nul || has_no_body || depth > DEPTH_MAX {
            return self.keep_if_it_may_stay(range);
        }
        let default = if kind == Kind::Digest { "message/rfc822" } else { "text/plain" };
        let media = head.media.clone().unwrap_or_else(|| default.to_owned());
        match media.split_once('/')? {
            ("multipart" | "message", _) if is_encoded => self.keep_if_it_may_stay(range),
            ("multipart", "signed" | "encrypted") => self.sealed(range, body),
            ("multipart", sub) => {
                let Some(boundary) = &head.boundary else { return self.keep_if_it_may_stay(range) };
                self.head(&range, &head, kind, self.label_around(&head))?;
                let inner = if sub == "digest" { Kind::Digest } else { Kind::Text };
                self.multipart(body, boundary, inner, depth)
            }
            ("message", "rfc822" | "global") => {
                self.head(&range, &head, kind, self.label_around(&head))?;
                self.part(body, Kind::Message, depth + 1)
            }
            ("message", _) => self.sealed(range, body),
            (top, _) => self.leaf(&range, body, &head, kind, top == "text"),
        }
    }

    /// A part that may not be changed: it goes as it is, or not at all. Mended line ends would change it too.
    fn sealed(&mut self, range: Range<usize>, body: Range<usize>) -> Option<()> {
        if has_clean_lines(&self.content[body]) { self.keep_if_it_may_stay(range) } else { None }
    }

    /// What a part that holds parts is called behind the step, if it is called anything.
    fn label_around(&self, head: &Head) -> Option<&'static str> {
        let label = head.encoding.as_deref()?;
        Some(match self.step {
            Step::BinaryToEight if label == "7bit" => SEVEN_BIT,
            Step::BinaryToEight => EIGHT_BIT,
            _ => SEVEN_BIT,
        })
    }

    fn leaf(&mut self, range: &Range<usize>, body: Range<usize>, head: &Head, kind: Kind, is_text: bool) -> Option<()> {
        let may_stay = self.may_stay(&body);
        let bytes = &self.content[body.clone()];
        match head.encoding.as_deref().unwrap_or("7bit") {
            "binary" if may_stay && has_clean_lines(bytes) => {
                let label = if bytes.is_ascii() { SEVEN_BIT } else { EIGHT_BIT };
                self.head(range, head, kind, Some(label))?;
                self.put(Piece::Keep(body))
            }
            "7bit" | "8bit" if may_stay => self.put(Piece::Keep(range.clone())),
            "7bit" | "8bit" | "binary" if is_text => {
                self.head(range, head, kind, Some(QUOTED_PRINTABLE))?;
                self.put(Piece::Quoted { range: body, again: false })
            }
            "7bit" | "8bit" | "binary" => {
                self.head(range, head, kind, Some(BASE64))?;
                self.put(Piece::Base64(body))
            }
            _ if may_stay => self.put(Piece::Keep(range.clone())),
            "quoted-printable" => {
                self.put(Piece::Keep(range.start..body.start))?;
                self.put(Piece::Quoted { range: body, again: true })
            }
            // RFC 2045 §6.8: decoders pass over what is not of the alphabet, `?` as well.
            "base64" => {
                self.put(Piece::Keep(range.start..body.start))?;
                self.put(Piece::Masked(body))
            }
            _ => None,
        }
    }

    /// The header section and the line that ends it, with another encoding.
    fn head(&mut self, range: &Range<usize>, head: &Head, kind: Kind, encoding: Option<&'static str>) -> Option<()> {
        let mut at = range.start;
        for cut in &head.encodings {
            self.put(Piece::Keep(at..range.start + cut.start))?;
            at = range.start + cut.end;
        }
        let end = range.start + head.end;
        self.put(Piece::Keep(at..end))?;
        if kind == Kind::Message && !head.has_version {
            self.put(Piece::Field("MIME-Version: 1.0\r\n"))?;
        }
        if kind == Kind::Message && head.media.is_none() {
            // RFC 1428 §3 has the second word for what nobody has named.
            let is_utf8 = std::str::from_utf8(&self.content[end..range.end]).is_ok();
            self.put(Piece::Field(if is_utf8 { TEXT_UTF8 } else { TEXT_UNKNOWN }))?;
        }
        if let Some(field) = encoding {
            self.put(Piece::Field(field))?;
        }
        let blank = if self.content[end..].starts_with(b"\r\n") { 2 } else { 1 };
        self.put(Piece::Keep(end..end + blank))
    }

    fn multipart(&mut self, body: Range<usize>, boundary: &[u8], kind: Kind, depth: usize) -> Option<()> {
        let delimiters = delimiters(&self.content[body.clone()], boundary);
        let first = delimiters.first()?;
        self.unseen(body.start..body.start + first.line.start)?;
        for (place, delimiter) in delimiters.iter().enumerate() {
            let line = body.start + delimiter.line.start..body.start + delimiter.line.end;
            let next = delimiters.get(place + 1).map_or(body.end, |next| body.start + next.line.start);
            let inner = line.end..next.max(line.end);
            self.put(Piece::Keep(line))?;
            if delimiter.closes {
                return self.unseen(inner.start..body.end);
            }
            // The line end before a delimiter is the delimiter's (RFC 2046 §5.1.1).
            let end = if place + 1 < delimiters.len() { before_line_end(self.content, &inner) } else { inner.end };
            self.part(inner.start..end, kind, depth + 1)?;
            self.put(Piece::Keep(end..inner.end))?;
        }
        Some(())
    }

    /// What stands before the first delimiter and after the last.
    fn unseen(&mut self, range: Range<usize>) -> Option<()> {
        let may_stay = self.may_stay(&range);
        self.put(if may_stay { Piece::Keep(range) } else { Piece::Masked(range) })
    }
}

const EIGHT_BIT: &str = "Content-Transfer-Encoding: 8bit\r\n";
const SEVEN_BIT: &str = "Content-Transfer-Encoding: 7bit\r\n";
const QUOTED_PRINTABLE: &str = "Content-Transfer-Encoding: quoted-printable\r\n";
const BASE64: &str = "Content-Transfer-Encoding: base64\r\n";
const TEXT_UTF8: &str = "Content-Type: text/plain; charset=utf-8\r\n";
const TEXT_UNKNOWN: &str = "Content-Type: text/plain; charset=unknown-8bit\r\n";

/// True if what stands there is lines: each ended by CR LF, none longer than DATA takes.
fn has_clean_lines(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(found) = memchr::memchr2(b'\r', b'\n', rest) {
        if found > LINE_BYTES_MAX || !rest[found..].starts_with(b"\r\n") {
            return false;
        }
        rest = &rest[found + 2..];
    }
    rest.len() <= LINE_BYTES_MAX
}

fn before_line_end(content: &[u8], range: &Range<usize>) -> usize {
    let bytes = &content[range.clone()];
    let end = if bytes.ends_with(b"\r\n") { 2 } else { usize::from(bytes.ends_with(b"\n")) };
    range.end - end
}

impl Head {
    fn of(bytes: &[u8]) -> Self {
        let mut head = Head::default();
        let mut walk = fields(bytes);
        for field in walk.by_ref() {
            if field.is("Content-Type") && head.media.is_none() {
                let (media, boundary) = content_type(field.value);
                (head.media, head.boundary) = (Some(media), boundary);
            } else if field.is("Content-Transfer-Encoding") {
                let text = String::from_utf8_lossy(field.value).trim().to_ascii_lowercase();
                head.encoding.get_or_insert(text);
                head.encodings.push(field.range);
            } else if field.is("MIME-Version") {
                head.has_version = true;
            }
        }
        head.end = walk.position();
        head
    }
}

/// `type/subtype` in lower case, and the boundary (RFC 2045 §5.1).
fn content_type(value: &[u8]) -> (String, Option<Vec<u8>>) {
    let text = String::from_utf8_lossy(value);
    let (media, rest) = text.split_once(';').unwrap_or((&text, ""));
    (media.trim().to_ascii_lowercase(), boundary_of(rest))
}

fn boundary_of(parameters: &str) -> Option<Vec<u8>> {
    let mut rest = parameters;
    loop {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (text, behind) = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (quoted[..end].to_owned(), &quoted[end + 1..])
            }
            None => {
                let end = value.find([';', ' ', '\t', '\r', '\n']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        let name = name.rsplit(';').next().unwrap_or(name).trim();
        if name.eq_ignore_ascii_case("boundary") {
            return (!text.is_empty()).then(|| text.into_bytes());
        }
        rest = behind;
    }
}

/// A delimiter line with its end; the last one `closes`.
struct Delimiter {
    line: Range<usize>,
    closes: bool,
}

fn delimiters(body: &[u8], boundary: &[u8]) -> Vec<Delimiter> {
    let mark = [b"--", boundary].concat();
    let mut found = Vec::new();
    for at in memmem::find_iter(body, &mark) {
        if at > 0 && body[at - 1] != b'\n' {
            continue;
        }
        let rest = &body[at + mark.len()..];
        let closes = rest.starts_with(b"--");
        let behind = if closes { &rest[2..] } else { rest };
        let line = memchr::memchr(b'\n', behind).map_or(behind.len(), |lf| lf + 1);
        if behind[..line].trim_ascii().is_empty() {
            let end = body.len() - behind.len() + line;
            found.push(Delimiter { line: at..end, closes });
            if closes {
                break;
            }
        }
    }
    found
}

impl Piece {
    /// The piece as it is sent, block by block; each block begins at the start of a line if the piece does.
    pub fn blocks<'a>(&self, content: &'a [u8]) -> Blocks<'a> {
        let (bytes, coding) = match self {
            Piece::Field(text) => (text.as_bytes(), Coding::None),
            Piece::Keep(range) => (&content[range.clone()], Coding::None),
            Piece::Masked(range) => (&content[range.clone()], Coding::Mask),
            Piece::Base64(range) => (&content[range.clone()], Coding::Base64),
            Piece::Quoted { range, again } => (&content[range.clone()], Coding::Quoted { again: *again }),
        };
        Blocks { rest: bytes, coding }
    }
}

#[derive(Clone, Copy)]
enum Coding {
    None,
    Mask,
    Base64,
    Quoted { again: bool },
}

/// See [`Piece::blocks`].
pub struct Blocks<'a> {
    rest: &'a [u8],
    coding: Coding,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.coding {
            Coding::None => Cow::Borrowed(std::mem::take(&mut self.rest)),
            Coding::Mask => {
                let whole = std::mem::take(&mut self.rest);
                let mask = |byte: &u8| if byte.is_ascii() && *byte != 0 { *byte } else { b'?' };
                Cow::Owned(whole.iter().map(mask).collect())
            }
            Coding::Base64 => Cow::Owned(self.base64()),
            Coding::Quoted { again } => Cow::Owned(self.quoted(again)),
        })
    }
}

impl Blocks<'_> {
    fn base64(&mut self) -> Vec<u8> {
        let lines = BLOCK_BYTES / (LINE_CHARS_MAX + 2);
        let (now, rest) = self.rest.split_at(self.rest.len().min(lines * BASE64_LINE_BYTES));
        self.rest = rest;
        let lines: Vec<String> = now.chunks(BASE64_LINE_BYTES).map(|chunk| STANDARD.encode(chunk)).collect();
        let mut out = lines.join("\r\n").into_bytes();
        if !self.rest.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// RFC 2045 §6.7. Ends at the end of a line, its own or a soft one.
    fn quoted(&mut self, again: bool) -> Vec<u8> {
        let (bytes, mut out, mut at, mut column) = (self.rest, Vec::with_capacity(BLOCK_BYTES + 128), 0, 0);
        while at < bytes.len() {
            if bytes[at..].starts_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
                (at, column) = (at + 2, 0);
            } else {
                let (used, unit) = unit(&bytes[at..], again);
                if column + unit.len() >= LINE_CHARS_MAX {
                    out.extend_from_slice(b"=\r\n");
                    column = 0;
                } else {
                    out.extend_from_slice(unit.as_bytes());
                    (at, column) = (at + used, column + unit.len());
                    continue;
                }
            }
            if out.len() >= BLOCK_BYTES {
                break;
            }
        }
        self.rest = &bytes[at..];
        out
    }
}

/// The next bytes that stay together, and what they are written as.
fn unit(bytes: &[u8], again: bool) -> (usize, String) {
    let ends_line = bytes.len() == 1 || bytes[1..].starts_with(b"\r\n");
    match bytes[0] {
        b'=' if again
            && !ends_line
            && bytes.len() >= 3
            && bytes[1].is_ascii_hexdigit()
            && bytes[2].is_ascii_hexdigit() =>
        {
            (3, String::from_utf8_lossy(&bytes[..3]).into_owned())
        }
        b'=' if again => (1, "=".to_owned()),
        // A line end of the encoded text, which DATA mends; encoded, it would become one of the decoded text.
        byte @ (b'\r' | b'\n') if again => (1, char::from(byte).to_string()),
        byte @ (b' ' | b'\t') if again || !ends_line => (1, char::from(byte).to_string()),
        byte @ 33..=126 if byte != b'=' => (1, char::from(byte).to_string()),
        byte => (1, format!("={byte:02X}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use proptest::prelude::*;

    fn converted(content: &[u8]) -> Option<Vec<u8>> {
        stepped(content, Step::EightToSeven)
    }

    fn stepped(content: &[u8], step: Step) -> Option<Vec<u8>> {
        let pieces = plan(content, step)?;
        Some(pieces.iter().flat_map(|piece| piece.blocks(content)).flat_map(|block| block.into_owned()).collect())
    }

    /// Media type and decoded bytes of each part, nested ones after those around them.
    fn parts(content: &[u8]) -> Vec<(String, Vec<u8>)> {
        let message = MessageParser::default().parse(content).unwrap();
        let mut found = Vec::new();
        for part in &message.parts {
            let media = part.content_type().map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()));
            match &part.body {
                mail_parser::PartType::Multipart(_) => {}
                mail_parser::PartType::Message(inner) => found.extend(parts(inner.raw_message())),
                _ => found.push((media.unwrap_or_else(|| "text/plain".to_owned()), part.contents().to_vec())),
            }
        }
        found
    }

    #[test]
    fn parts_are_encoded_and_what_is_around_them_says_so() {
        let mail = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tx=\"boundary=no\"; boundary=\"b 1\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
            Vorspann ä\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße = \r\n.\r\n\
            --b 1\r\nContent-Type: image/x\r\n\r\nü\r\n--b 1\r\n\r\nplain\r\n--b 1--\r\n";
        let out = String::from_utf8(converted(mail.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            out,
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tx=\"boundary=no\"; boundary=\"b 1\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Vorspann ??\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             Gr=C3=BC=C3=9Fe =3D=20\r\n.\r\n--b 1\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nw7w=\r\n\
             --b 1\r\n\r\nplain\r\n--b 1--\r\n"
        );
    }

    #[test]
    fn a_message_without_mime_becomes_one_of_mime() {
        let out = converted("Subject: x\r\n\r\nGrüße\r\n".as_bytes()).unwrap();
        let expected = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let out = converted(b"Subject: x\r\n\r\n\xe4\r\n").unwrap();
        assert!(memmem::find(&out, b"charset=unknown-8bit\r\n").is_some());
    }

    #[test]
    fn what_would_break_is_left_alone() {
        let of = |media: &str| format!("Content-Type: {media}; boundary=b\r\n\r\n--b\r\n\r\nü\r\n--b--\r\n");
        for media in ["multipart/signed", "multipart/encrypted", "message/partial", "nonsense"] {
            assert_eq!(converted(of(media).as_bytes()), None, "{media}");
        }
        assert!(converted(of("multipart/mixed").as_bytes()).is_some());
        assert_eq!(converted("Content-Transfer-Encoding: x-uuencode\r\n\r\nü".as_bytes()), None);
        let deep = (0..50)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
            .collect::<String>();
        assert_eq!(converted(format!("{deep}\r\nü").as_bytes()), None);
        let again = "Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D=\r\nü \r\n";
        let out = converted(again.as_bytes()).unwrap();
        assert!(out.ends_with(b"\r\n\r\na=3D=\r\n=C3=BC \r\n"), "{}", out.escape_ascii());
    }

    /// A multipart with a text and data, both binary, behind a preamble.
    fn binary(media: &str, text: &[u8], data: &[u8]) -> Vec<u8> {
        let head =
            |media: &str| format!("Content-Type: {media}\r\nContent-Transfer-Encoding: Binary\r\n\r\n").into_bytes();
        [
            b"MIME-Version: 1.0\r\n".to_vec(),
            head(&format!("{media}; boundary=b")),
            b"be\0fore\r\n--b\r\n".to_vec(),
            head("text/plain"),
            text.to_vec(),
            b"\r\n--b\r\n".to_vec(),
            head("image/x"),
            data.to_vec(),
            b"\r\n--b--\r\n".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn binary_parts_become_lines() {
        let mail = binary("multipart/mixed", b"a\nb\r\nc\r", b"\0\r\n.\n\xff");
        for (step, label) in [(Step::BinaryToEight, "8bit"), (Step::BinaryToSeven, "7bit")] {
            let out = String::from_utf8(stepped(&mail, step).unwrap()).unwrap();
            let expected = format!(
                "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: {label}\r\n\r\nbe?fore\r\n\
                 --b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=0Ab\r\nc=0D\r\n\
                 --b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAA0KLgr/\r\n--b--\r\n"
            );
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_binary_part_that_is_lines_is_only_called_so() {
        let mail = binary("multipart/mixed", "ü\r\n".as_bytes(), b"ascii");
        let out = String::from_utf8(stepped(&mail, Step::BinaryToEight).unwrap()).unwrap();
        assert!(out.contains("text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nü\r\n"), "{out}");
        assert!(out.contains("image/x\r\nContent-Transfer-Encoding: 7bit\r\n\r\nascii\r\n"), "{out}");
        let long = binary("multipart/mixed", &[b'x'; LINE_BYTES_MAX + 1], b"");
        let out = stepped(&long, Step::BinaryToEight).unwrap();
        assert!(memmem::find(&out, b"text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n").is_some());
        // What is signed stays to the byte, or does not go.
        assert!(stepped(&binary("multipart/signed", b"a", b"b"), Step::BinaryToEight).is_none(), "a NUL in it");
        let signed = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n";
        assert_eq!(stepped(signed, Step::BinaryToEight).unwrap(), signed);
        assert_eq!(stepped(signed, Step::BinaryToSeven), None);
        assert_eq!(stepped(&signed[..signed.len() - 1], Step::BinaryToEight), None, "a bare CR in it");
        assert_eq!(stepped(b"Subject: \0\r\n\r\nx", Step::BinaryToEight), None, "a NUL in a field can't be coded");
        let encoded =
            b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeAoKeQ==\r\n";
        assert_eq!(stepped(encoded, Step::BinaryToSeven).unwrap(), encoded);
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let bit = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b"--b".to_vec()),
            Just(b" ".to_vec()),
            Just(b"=".to_vec()),
            Just(vec![b'x'; 90]),
            Just("ü".as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 1..40),
            Just("日本".repeat(3000).into_bytes())
        ];
        proptest::collection::vec(bit, 0..12).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn decoded_it_is_what_it_was(text in body(), data in body(), nested in body()) {
            let head = |media: &str| format!("Content-Type: {media}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n").into_bytes();
            let mail = [
                b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=outer-1\r\n\r\n--outer-1\r\n".to_vec(),
                head("text/plain"), text, b"\r\n--outer-1\r\n".to_vec(),
                head("application/octet-stream"), data, b"\r\n--outer-1\r\n".to_vec(),
                head("message/rfc822"), b"MIME-Version: 1.0\r\n".to_vec(), head("application/x-y"), nested, b"\r\n--outer-1--\r\n".to_vec(),
            ].concat();
            let out = converted(&mail).unwrap();
            prop_assert!(out.is_ascii());
            prop_assert_eq!(parts(&out), parts(&mail));
            prop_assert_eq!(converted(&out).unwrap(), out, "7 bits stay as they are");
        }

        #[test]
        fn binary_decoded_is_what_it_was(text in body(), data in proptest::collection::vec(any::<u8>(), 0..200), seven in any::<bool>()) {
            // What is read is compared, and what is no UTF-8 is read as something else.
            let text = String::from_utf8_lossy(&text).into_owned().into_bytes();
            prop_assume!(memmem::find(&[&text[..], b"\r\n", &data].concat(), b"--b").is_none(), "no boundary of its own");
            let mail = binary("multipart/mixed", &text, &data);
            let step = if seven { Step::BinaryToSeven } else { Step::BinaryToEight };
            let out = stepped(&mail, step).unwrap();
            prop_assert!(out.is_ascii() || !seven);
            prop_assert!(memchr::memchr(0, &out).is_none() && has_clean_lines(&out));
            let decoded = |content: &[u8]| parts(content).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
            prop_assert_eq!(decoded(&out), vec![text, data]);
            prop_assert_eq!(stepped(&out, step).unwrap(), out, "lines stay as they are");
        }

        #[test]
        fn nothing_panics(content in proptest::collection::vec(prop_oneof![
            Just(b"Content-Type: multipart/mixed; boundary=b\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\r\n--b\r\n".to_vec()),
            Just(b"--b--".to_vec()), Just(b"Content-Type: message/rfc822\r\n\r\n".to_vec()), Just(b"\n".to_vec()), Just("ü".as_bytes().to_vec()),
            Just(b"Content-Transfer-Encoding: base64\r\n".to_vec()), Just(b"Content-Transfer-Encoding: binary\r\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..5)], 0..20)) {
            let content = content.concat();
            for step in [Step::BinaryToEight, Step::BinaryToSeven] {
                let out = stepped(&content, step);
                prop_assert!(out.is_none_or(|out| memchr::memchr(0, &out).is_none()), "no NUL in DATA");
            }
            if let Some(out) = converted(&content) {
                prop_assert!(out.is_ascii() || !content[..Head::of(&content).end].is_ascii() || memmem::find(&content, b"--b").is_some() || memmem::find(&content, b"rfc822").is_some());
            }
        }
    }
}
