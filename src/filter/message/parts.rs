//! The leaf parts of a message, flat. Pure. RFC 2046.
//!
//! The MIME parser builds trees of any depth and would search for a missing boundary once per part; so the input is
//! cut before it where nesting or the number of parts leaves the budget. The tree is then taken apart into a flat list.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Encoding, HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use memchr::memmem::Finder;

use super::encoded;
use super::header::Header;
use crate::base::quiet;
use crate::filter::budget::{Budget, Limit};

/// A leaf's decoded content.
#[derive(Clone, Debug)]
pub enum Body<'x> {
    /// Anything that is not text.
    Binary(Cow<'x, [u8]>),
    /// text/html.
    Html(Cow<'x, str>),
    /// Other text.
    Text(Cow<'x, str>),
}

/// A leaf part.
#[derive(Clone, Debug)]
pub struct Part<'x> {
    /// `type/subtype` in lower case.
    pub content_type: String,
    /// The charset as named, in lower case.
    pub charset: Option<String>,
    /// The file name, decoded, from either field.
    pub name: Option<String>,
    /// It is not part of the text that a reader is shown.
    pub attachment: bool,
    /// The transfer encoding was base64 (true) or anything else.
    pub base64: bool,
    /// The transfer encoding could not be undone.
    pub encoding_problem: bool,
    /// Messages around it.
    pub depth: u8,
    /// Its header section's bytes.
    pub header: Cow<'x, [u8]>,
    /// Its content as received, transfer encoding and all; empty within a message that was encoded itself.
    pub encoded: &'x [u8],
    /// Its content.
    pub body: Body<'x>,
}

impl Part<'_> {
    /// The decoded bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Binary(bytes) => bytes,
            Body::Html(text) | Body::Text(text) => text.as_bytes(),
        }
    }

    /// True if a reader is shown it, or takes it for part of the text.
    pub fn is_shown(&self) -> bool {
        !self.attachment || self.is_short_text()
    }

    /// True for text small enough to be read even though it is attached.
    pub fn is_short_text(&self) -> bool {
        !matches!(self.body, Body::Binary(_)) && self.bytes().len() <= ATTACHED_TEXT_BYTES_MAX
    }
}

/// Attached text up to this size is read like the message's own: spam hides in `.html` and `.txt` files.
const ATTACHED_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Below this many bytes no structure can cost more than a few milliseconds, and the check before parsing is left out.
const PRECHECK_BYTES_MIN: usize = 16 * 1024;
/// Multiparts of a message that are parsed; each may make the parser search the rest once for its boundary.
const MULTIPARTS_MAX: usize = 256;
/// Lines that look like a boundary; each may become a part.
const BOUNDARY_LINES_MAX: usize = 5_000;

static PARSER: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().with_mime_headers().default_header_ignore());
/// What tells of structure, in lower case: messages within, parts, boundaries.
const STRUCTURE: [&str; 5] = ["rfc822", "global", "digest", "multipart", "\n--"];
/// Those of [`STRUCTURE`] that tell of messages within.
const NESTING: Range<usize> = 0..3;
const MULTIPART: usize = 3;

static STRUCTURE_PLACES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasickBuilder::new().ascii_case_insensitive(true).build(STRUCTURE).expect("five short literals compile")
});
static STRUCTURE_COUNTS: LazyLock<[Finder<'static>; STRUCTURE.len()]> = LazyLock::new(|| STRUCTURE.map(Finder::new));

/// All leaf parts, and whether the structure was broken.
pub fn read<'x>(raw: &'x [u8], header: &Header<'x>, budget: &mut Budget) -> (Vec<Part<'x>>, bool) {
    // A section without an end is something else to the parser than none.
    let skipped = if header.body_offset < raw.len() { header.structure_offset } else { 0 };
    let mut leaves = Leaves { parts: Vec::new(), broken: false, skipped, budget };
    match plain(raw, header).filter(|_| leaves.budget.exceeded().next().is_none()) {
        Some(part) if leaves.budget.take(Limit::Parts, 1) => leaves.keep(part),
        Some(_) => {}
        None => leaves.parse(raw, header),
    }
    (leaves.parts, leaves.broken)
}

/// The one part of a message that is a text, written in the usual ways. What the parser would say of it is known without asking: it
/// reads such a body byte by byte, and decodes ASCII through tables.
fn plain<'x>(raw: &'x [u8], header: &Header<'x>) -> Option<Part<'x>> {
    let (mut content_type, mut transfer) = (None, None);
    for field in header.fields.iter().filter(|field| field.may_tell_structure()) {
        match field.name.to_ascii_lowercase().as_str() {
            "content-type" if content_type.is_none() => content_type = Some(simple_text(field.raw)?),
            "content-transfer-encoding" if transfer.is_none() => transfer = Some(Transfer::of(field.raw)?),
            "content-type" | "content-transfer-encoding" | "content-disposition" | "" => return None,
            // Only a lenient reader finds a name in it, and the parser is one.
            name if name.contains(' ') => return None,
            _ => {}
        }
    }
    let (content_type, charset) = content_type.unwrap_or(("text/plain", None));
    let encoded = raw.get(header.body_offset..).filter(|body| !body.is_empty())?;
    let transfer = transfer.unwrap_or(Transfer::Identity);
    let bytes: Cow<'x, [u8]> = match transfer {
        Transfer::Identity => encoded.into(),
        Transfer::Base64 => encoded::strict_base64(encoded)?.into(),
        Transfer::QuotedPrintable => quoted_printable_decode(encoded)?.into(),
    };
    let text = simple_charset(bytes, charset.as_deref())?;
    Some(Part {
        content_type: content_type.to_owned(),
        charset,
        name: None,
        attachment: false,
        base64: transfer == Transfer::Base64,
        encoding_problem: false,
        depth: 0,
        header: raw[..header.body_offset].into(),
        encoded,
        body: if content_type == "text/html" { Body::Html(text) } else { Body::Text(text) },
    })
}

/// A transfer encoding (RFC 2045 §6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// It changes nothing.
    Identity,
    Base64,
    QuotedPrintable,
}

impl Transfer {
    fn of(value: &[u8]) -> Option<Self> {
        let known = [
            ("7bit", Transfer::Identity),
            ("8bit", Transfer::Identity),
            ("binary", Transfer::Identity),
            ("base64", Transfer::Base64),
            ("quoted-printable", Transfer::QuotedPrintable),
        ];
        known.into_iter().find_map(|(name, transfer)| is_word(value, name).then_some(transfer))
    }
}

/// Bytes as text where the charset says so in the way that nearly all do.
fn simple_charset<'x>(bytes: Cow<'x, [u8]>, charset: Option<&str>) -> Option<Cow<'x, str>> {
    // Above 0x9f the two charsets of the west are Unicode.
    let is_western = matches!(charset, Some("iso-8859-1" | "windows-1252"));
    if is_western && !bytes.is_ascii() && !bytes.iter().any(|byte| (0x80..0xa0).contains(byte)) {
        return Some(encoding_rs::mem::decode_latin1(&bytes).into_owned().into());
    }
    let text: Cow<'x, str> = match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok()?.into(),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok()?.into(),
    };
    let as_it_stands = match charset {
        None => true,
        Some("utf-8") => !text.starts_with('\u{feff}'),
        Some(charset) => ASCII_ABOVE.contains(&charset) && text.is_ascii(),
    };
    as_it_stands.then_some(text)
}

/// The usual charsets in which ASCII is ASCII.
const ASCII_ABOVE: [&str; 6] = ["us-ascii", "iso-8859-1", "iso-8859-2", "iso-8859-15", "windows-1251", "windows-1252"];

fn is_word(value: &[u8], word: &str) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(word.as_bytes())
}

/// Type and charset of a field that names a text, plain or HTML, in the words that nearly all use and no others.
fn simple_text(value: &[u8]) -> Option<(&'static str, Option<String>)> {
    let mut words = value.split(|&byte| byte == b';');
    let first = words.next()?;
    let content_type = ["text/plain", "text/html"].into_iter().find(|known| is_word(first, known))?;
    let mut charset = None;
    for word in words {
        let (name, value) = std::str::from_utf8(word).ok()?.split_once('=')?;
        let value =
            value.strip_prefix('"').and_then(|value| value.trim_end().strip_suffix('"')).unwrap_or(value.trim_end());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!value.is_empty() && value.bytes().all(is_token)).then_some(())?;
        match name.trim_start().to_ascii_lowercase().as_str() {
            "charset" if charset.is_none() => charset = Some(value.to_ascii_lowercase()),
            "format" | "delsp" => {}
            _ => return None,
        }
    }
    Some((content_type, charset))
}

fn cut<'x>(raw: &'x [u8], budget: &mut Budget) -> &'x [u8] {
    if raw.len() < PRECHECK_BYTES_MIN {
        return raw;
    }
    // To count is many times as fast as to say where, and nearly all messages have few of each.
    let lower = raw.to_ascii_lowercase();
    let [rfc822, global, digest, multiparts, boundaries] =
        STRUCTURE_COUNTS.each_ref().map(|finder| finder.find_iter(&lower).count());
    let nested = (rfc822 + global + digest) as u64;
    if multiparts <= MULTIPARTS_MAX && boundaries <= BOUNDARY_LINES_MAX && budget.take(Limit::Nesting, nested) {
        return raw;
    }
    let (mut multiparts, mut boundaries) = (0, 0);
    for found in STRUCTURE_PLACES.find_iter(raw) {
        let (within, limit) = match found.pattern().as_usize() {
            place if NESTING.contains(&place) => (budget.take(Limit::Nesting, 1), None),
            MULTIPART => {
                multiparts += 1;
                (multiparts <= MULTIPARTS_MAX, Some(Limit::Nesting))
            }
            _ => {
                boundaries += 1;
                (boundaries <= BOUNDARY_LINES_MAX, Some(Limit::Parts))
            }
        };
        if !within {
            if let Some(limit) = limit {
                budget.exceed(limit);
            }
            return &raw[..found.start()];
        }
    }
    raw
}

/// A part's bytes as received.
struct Own<'x> {
    header: Cow<'x, [u8]>,
    encoded: &'x [u8],
}

struct Leaves<'x, 'b> {
    parts: Vec<Part<'x>>,
    broken: bool,
    /// Bytes of the header section that the parser was not shown.
    skipped: usize,
    budget: &'b mut Budget,
}

impl<'x> Leaves<'x, '_> {
    /// All parts, as the parser sees them.
    fn parse(&mut self, raw: &'x [u8], header: &Header<'x>) {
        let raw = cut(raw, self.budget);
        // Most fields stand before those of MIME; the parser would read them for nothing.
        let shown = raw.get(self.skipped..).unwrap_or_default();
        // The parser is not ours; whatever it trips over must cost this message its parts and nobody else anything.
        match quiet::catch(|| PARSER.parse(shown)) {
            Some(Some(message)) => self.message(message, 0, Some(raw)),
            Some(None) => self.fall_back(raw, header),
            None => {
                self.budget.exceed(Limit::ParserFaults);
                self.fall_back(raw, header);
            }
        }
    }

    fn message(&mut self, message: Message<'x>, depth: u8, borrowed: Option<&'x [u8]>) {
        let shown: Vec<u32> = message.text_body.iter().chain(&message.html_body).copied().collect();
        let raw = message.raw_message;
        for (id, part) in message.parts.into_iter().enumerate() {
            if matches!(part.body, PartType::Multipart(_)) {
                continue;
            }
            if !self.budget.take(Limit::Parts, 1) {
                return;
            }
            let skipped = borrowed.map_or(0, |_| self.skipped);
            let to = skipped + part.offset_body as usize;
            // The first part's header is the message's.
            let from = if id == 0 && depth == 0 { 0 } else { skipped + part.offset_header as usize };
            let header: Cow<'x, [u8]> = match borrowed {
                Some(raw) => Cow::Borrowed(raw.get(from..to).unwrap_or_default()),
                None => Cow::Owned(raw.get(from..to).unwrap_or_default().to_vec()),
            };
            let end = skipped + part.offset_end as usize;
            let encoded = borrowed.and_then(|raw| raw.get(to..end)).unwrap_or_default();
            self.part(part, Own { header, encoded }, depth, shown.contains(&(id as u32)), borrowed);
        }
    }

    fn part(&mut self, part: MessagePart<'x>, own: Own<'x>, depth: u8, shown: bool, raw: Option<&'x [u8]>) {
        let content_type = part.content_type();
        let name = part.attachment_name().map(str::to_owned);
        let full_type = content_type.map_or_else(
            || "text/plain".to_owned(),
            |ct| format!("{}/{}", ct.ctype(), ct.subtype().unwrap_or_default()).to_ascii_lowercase(),
        );
        let charset = content_type.and_then(|ct| ct.attribute("charset")).map(str::to_ascii_lowercase);
        self.broken |= part.is_encoding_problem;
        let base64 = part.encoding == Encoding::Base64 || declares(&part, "base64");
        let encoding_problem = part.is_encoding_problem;
        let source = if own.encoded.is_empty() { part.contents() } else { own.encoded };
        let decoded = match encoding_problem {
            true if base64 => Some(encoded::base64(source)),
            true if declares(&part, "quoted-printable") => Some(encoded::quoted_printable(source)),
            _ => None,
        };
        // What the parser gave up on, it takes for attached.
        let is_set_aside = name.is_some() || part.content_disposition().is_some_and(|value| value.is_attachment());
        let attachment = !shown && (decoded.is_none() || is_set_aside || !full_type.starts_with("text/"));
        let body = match part.body {
            PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_)
                if let Some(bytes) = decoded =>
            {
                match full_type.as_str() {
                    "text/html" => Body::Html(text_of(bytes, charset.as_deref())),
                    kind if kind.starts_with("text/") => Body::Text(text_of(bytes, charset.as_deref())),
                    _ => Body::Binary(bytes.into()),
                }
            }
            PartType::Text(text) => Body::Text(unnamed_utf8(charset.as_deref(), own.encoded, text)),
            PartType::Html(text) => Body::Html(unnamed_utf8(charset.as_deref(), own.encoded, text)),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => Body::Binary(bytes),
            // An attached message that was encoded owns its bytes, one that was not shares ours.
            PartType::Message(inner) => {
                let borrowed = raw.filter(|_| part.encoding == Encoding::None);
                return self.message(inner, depth.saturating_add(1), borrowed);
            }
            PartType::Multipart(_) => return,
        };
        self.keep(Part {
            content_type: full_type,
            charset,
            name,
            attachment,
            base64,
            encoding_problem,
            depth,
            header: own.header,
            encoded: own.encoded,
            body,
        });
    }

    fn keep(&mut self, part: Part<'x>) {
        self.parts.push(part);
        self.within_text(self.parts.len() - 1);
    }

    /// Files that stand in a text.
    fn within_text(&mut self, place: usize) {
        let Body::Text(text) = &self.parts[place].body else { return };
        if memchr::memmem::find(text.as_bytes(), b"begin ").is_none() {
            return;
        }
        let depth = self.parts[place].depth;
        let files: Vec<Part<'x>> = encoded::uuencoded(text)
            .take_while(|_| self.budget.take(Limit::Parts, 1))
            .map(|(name, bytes)| Part {
                content_type: "application/octet-stream".to_owned(),
                charset: None,
                name: Some(name.to_owned()),
                attachment: true,
                base64: false,
                encoding_problem: false,
                depth,
                header: Cow::Borrowed(&[]),
                encoded: &[],
                body: Body::Binary(bytes.into()),
            })
            .collect();
        self.parts.extend(files);
    }

    /// Without a header section there is still a text to read.
    fn fall_back(&mut self, raw: &'x [u8], header: &Header<'x>) {
        self.broken = true;
        let body = &raw[header.body_offset.min(raw.len())..];
        self.parts.push(Part {
            content_type: "text/plain".to_owned(),
            charset: None,
            name: None,
            attachment: false,
            base64: false,
            encoding_problem: true,
            depth: 0,
            header: Cow::Borrowed(header.raw),
            encoded: body,
            body: Body::Text(super::guess_text(body)),
        });
    }
}

/// A text that says it is ASCII, has more than that, and is UTF-8: so mail programs show it. Encoded ones are ASCII as they stand here.
fn unnamed_utf8<'x>(charset: Option<&str>, encoded: &'x [u8], text: Cow<'x, str>) -> Cow<'x, str> {
    if charset != Some("us-ascii") || encoded.is_ascii() {
        return text;
    }
    std::str::from_utf8(encoded).map_or(text, Cow::Borrowed)
}

/// Bytes as text, in the charset that is named or else in a likely one.
fn text_of<'x>(bytes: Vec<u8>, charset: Option<&str>) -> Cow<'x, str> {
    let named = charset.and_then(|charset| encoding_rs::Encoding::for_label(charset.as_bytes()));
    match named {
        Some(encoding) => encoding.decode(&bytes).0.into_owned().into(),
        None => super::guess_text(&bytes).into_owned().into(),
    }
}

fn declares(part: &MessagePart<'_>, encoding: &str) -> bool {
    part.headers.iter().any(|header| {
        header.name == HeaderName::ContentTransferEncoding
            && matches!(&header.value, HeaderValue::Text(text) if text.trim().eq_ignore_ascii_case(encoding))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parser says when it is shown everything.
    fn parsed<'x>(raw: &'x [u8], header: &Header<'x>) -> String {
        let mut budget = Budget::default();
        let mut leaves = Leaves { parts: Vec::new(), broken: false, skipped: 0, budget: &mut budget };
        leaves.parse(raw, header);
        format!("{:?} {}", leaves.parts, leaves.broken)
    }

    /// Checks that what is left out changes nothing; tells whether the parser was asked.
    fn same(raw: &[u8]) -> bool {
        let mut budget = Budget::default();
        let header = Header::parse(raw, &mut budget);
        let (parts, broken) = read(raw, &header, &mut budget);
        let shown = String::from_utf8_lossy(raw);
        assert_eq!(format!("{parts:?} {broken}"), parsed(raw, &header), "{shown}");
        plain(raw, &header).is_none()
    }

    #[test]
    fn a_text_as_it_stands_is_what_the_parser_makes_of_it() {
        let heads = [
            ("", false),
            ("MIME-Version: 1.0\nContent-Type: TEXT/Plain\n", false),
            ("Content-Type: text/plain; charset=\"US-ascii\"\nContent-Transfer-Encoding: 7BIT\nCc: x\n", false),
            ("Content-Type: text/html;\r\n\tcharset=iso-8859-1\r\n", false),
            ("Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes\n", false),
            ("Content-Length: 5\nContent-Language: en\n", false),
            ("Content-Type: text/plain; name=x.txt\n", true),
            ("Content-Type: text/plain;\n", true),
            ("Content-Type: text/plain; charset=utf-16\n", true),
            ("Content-Type: text/plain; charset=us-ascii (plain)\n", true),
            ("Content-Type: text/plain\nContent-Type: text/html\n", true),
            ("Content-Type: text\n", true),
            ("C ontent-Type: text/html\n", true),
            ("Content-Disposition: attachment\n", true),
            ("Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: base64\n", true),
            ("Content-Transfer-Encoding: x-unknown\n", true),
            ("no field\n", true),
        ];
        for (head, asks) in heads {
            for (front, body) in [
                ("From x y\nSubject: x\n", "hello\n--\nworld\n"),
                ("", "a"),
                ("X: y\n z\n", "\n\nbegin 644 a\n#:&5L\n`\nend\n"),
            ] {
                assert_eq!(same(format!("{front}{head}\n{body}").as_bytes()), asks, "{head}");
            }
            same(format!("{head}\n").as_bytes());
            same(format!("X: y\n{head}").as_bytes());
            same(format!("{head}\nna\u{ef}ve \u{feff}\n").as_bytes());
            same(&[head.as_bytes(), b"\n\xef\xbb\xbfna\xefve\n"].concat());
            same(&[head.as_bytes(), b"\nna\xefve\n"].concat());
            same(&[head.as_bytes(), b"\n\x93na\xefve\n"].concat());
        }
    }

    #[test]
    fn a_text_in_a_usual_encoding_is_what_the_parser_makes_of_it() {
        let pieces = [
            "a",
            "QUJD",
            "QQ==",
            "QUI=",
            "=41",
            "=c3=A9",
            "=E9",
            "=85",
            "=EF=BB=BF",
            "=",
            "==",
            "\n",
            "\r\n",
            "\r",
            "=\n",
            "=\r\n",
            " ",
            "\t\n",
            "\x0c\n",
            " \r\n",
            "--\n",
            "-",
            "é",
        ];
        let mut left = 0;
        for transfer in ["base64", "Quoted-Printable"] {
            for charset in ["", "; charset=utf-8", "; charset=iso-8859-1", "; charset=us-ascii"] {
                let head = format!("Content-Type: text/html{charset}\nContent-Transfer-Encoding: {transfer}\n\n");
                for number in 0..pieces.len().pow(3) {
                    let of = |place: u32| pieces[number / pieces.len().pow(place) % pieces.len()];
                    left += usize::from(!same(format!("{head}{}{}{}", of(0), of(1), of(2)).as_bytes()));
                }
                for body in [
                    "SGVsbG8sIHdv\ncmxkIQ==\n\n",
                    "so=\r\nft =C3=B8 \r\n=20 \r\n",
                    "so=\nft =e4\t\n=20\t\n",
                    "\r\n\r\n",
                ] {
                    same(format!("{head}{body}").as_bytes());
                }
            }
        }
        assert!(left > 10_000, "{left} were not shown to the parser");
    }

    #[test]
    fn messages_of_all_kinds_have_the_parts_that_the_parser_sees() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        let mut folders = vec![root.join("mime"), root.join("everyday")];
        let (mut parsed, mut left) = (0, 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if same(&std::fs::read(&path).unwrap()) => parsed += 1,
                    false => left += 1,
                }
            }
        }
        assert!(parsed > 50 && left > 5, "{parsed} were parsed, {left} were not");
    }

    #[test]
    fn structure_is_cut_where_its_limit_ends() {
        let long = "x".repeat(PRECHECK_BYTES_MIN);
        let nesting = Budget::default().left(Limit::Nesting) as usize;
        let kept = |literal: &str, times: usize| {
            let raw = format!("{long}{}", format!(" {literal}").repeat(times));
            let mut budget = Budget::default();
            let kept = cut(raw.as_bytes(), &mut budget).len();
            (raw.len() - kept, budget.exceeded().next().map(|row| row.limit))
        };
        for (literal, most, limit) in [
            ("message/RFC822", nesting, Limit::Nesting),
            ("message/global", nesting, Limit::Nesting),
            ("multipart/Mixed", MULTIPARTS_MAX, Limit::Nesting),
            ("\n--", BOUNDARY_LINES_MAX, Limit::Parts),
        ] {
            assert_eq!(kept(literal, most), (0, None), "{literal}");
            let (lost, exceeded) = kept(literal, most + 1);
            assert!(lost > 0 && lost <= literal.len() && exceeded == Some(limit), "{literal}: {lost} {exceeded:?}");
        }
    }

    #[test]
    fn what_stands_before_the_structure_is_not_missed() {
        let parts = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nSubject: y\n\n\
            hello\n--b\nContent-Type: application/x; name=z\nContent-Transfer-Encoding: base64\n\nTVqQAA==\n--b--\n";
        for front in
            ["", "From x\n", "Subject: x\nTo: a\n b\n", "Cc: c\nContent-Language: en\nX: y\n", "broken\nX: y\n"]
        {
            assert!(same(format!("{front}{parts}").as_bytes()));
            assert!(same(format!(" {parts}{front}").as_bytes()), "a blank before the first field hides it from nobody");
        }
    }
}
