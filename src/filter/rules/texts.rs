//! What each kind of rule looks at, in the form that SpamAssassin gives it. Pure.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;

use super::definition::{FieldSpec, MESSAGE_ID};
use super::eval::{Lists, Once};
use super::relays::Relays;
use super::uris;
use crate::filter::budget::Budget;
use crate::filter::engine::Facts;
use crate::filter::message::header::{Field, Header, mailboxes};
use crate::filter::message::{Body, Part, View};

/// The texts of one message.
pub struct Texts<'v, 'x> {
    /// The message.
    pub view: &'v View<'x>,
    /// What is known beside it.
    pub facts: &'v Facts,
    /// The lists of the rule files.
    pub lists: &'v Lists,
    /// The relays it came through.
    pub relays: Relays,
    /// What several functions ask.
    pub once: Once,
    /// The body, and where it begins behind the subject.
    body: OnceCell<(Text<'v>, usize)>,
    /// All of them in lines, with the place where each begins, and the end.
    all: OnceCell<(Vec<u8>, Vec<u32>)>,
    envelope_from: OnceCell<Option<String>>,
    from: OnceCell<String>,
    part_headers: OnceCell<Vec<PartHeader<'v, 'x>>>,
    raw: OnceCell<Vec<&'v [u8]>>,
    uris: OnceCell<Vec<String>>,
}

/// Where a kind of rule looks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Subject and paragraphs.
    Body,
    /// The message as received.
    Full,
    /// A header field.
    Header(FieldSpec),
    /// A header field of each part.
    Mime(FieldSpec),
    /// Paragraphs alone.
    Paragraphs,
    /// Decoded text parts in pieces.
    Raw,
    /// URLs.
    Uri,
}

/// A text that rules look at: joined by line ends, but each segment is matched for itself.
#[derive(Debug, Default)]
pub struct Text<'v> {
    /// All of it.
    pub bytes: Cow<'v, [u8]>,
    /// Where each segment begins and ends; nothing if all of it is one.
    segments: Option<Cow<'v, [(u32, u32)]>>,
}

impl<'v> Text<'v> {
    fn whole(bytes: Cow<'v, [u8]>) -> Self {
        Text { bytes, segments: None }
    }

    /// The segments, joined.
    fn joined<'s>(segments: impl Iterator<Item = &'s [u8]>) -> Self {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for segment in segments {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(segment);
            places.push((start, bytes.len() as u32));
            bytes.push(b'\n');
        }
        Text { bytes: Cow::Owned(bytes), segments: Some(Cow::Owned(places)) }
    }

    /// The lines of a text.
    fn lines(bytes: Cow<'v, [u8]>) -> Self {
        let ends = memchr::memchr_iter(b'\n', &bytes);
        let segments = ends.scan(0, |start, end| Some((std::mem::replace(start, end as u32 + 1), end as u32)));
        let segments = Some(Cow::Owned(segments.collect()));
        Text { bytes, segments }
    }

    /// The same text, borrowed.
    fn lent(&self) -> Text<'_> {
        Text { bytes: Cow::Borrowed(&self.bytes), segments: self.segments.as_deref().map(Cow::Borrowed) }
    }

    /// True if all of it is one segment.
    pub fn is_whole(&self) -> bool {
        self.segments.is_none()
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.segments.as_ref().map_or(1, |segments| segments.len())
    }

    /// A segment and where it begins.
    pub fn segment(&self, number: usize) -> (usize, &[u8]) {
        let Some(segments) = &self.segments else { return (0, &self.bytes) };
        let (start, end) = segments[number];
        (start as usize, &self.bytes[start as usize..end as usize])
    }

    /// The segment in which something ends at `end`, and up to where all others do that are of it: what ends with the line end behind a
    /// segment is of that segment.
    pub fn segment_at(&self, end: usize) -> (usize, usize) {
        let Some(segments) = &self.segments else { return (0, usize::MAX) };
        let next = segments.partition_point(|(start, _)| (*start as usize) < end).max(1);
        (next - 1, segments.get(next).map_or(usize::MAX, |(start, _)| *start as usize))
    }
}

/// The header of a part.
pub enum PartHeader<'v, 'x> {
    /// The message's own: it has one part.
    Top(&'v Header<'x>),
    /// That of one of several parts.
    Own(Header<'v>),
}

impl PartHeader<'_, '_> {
    /// The decoded value of the first field of this name; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        match self {
            PartHeader::Top(header) => header.text(name),
            PartHeader::Own(header) => header.text(name),
        }
    }

    /// The values of all fields of this name, decoded or as received.
    fn values(&self, name: &str, raw: bool) -> Vec<&[u8]> {
        fn values<'s>(header: &'s Header<'_>, name: &str, raw: bool) -> Vec<&'s [u8]> {
            header.all(name).map(|field| if raw { field.raw } else { field.text().as_bytes() }).collect()
        }
        match self {
            PartHeader::Top(header) => values(header, name, raw),
            PartHeader::Own(header) => values(header, name, raw),
        }
    }
}

/// Bytes of a paragraph that rules see at once (SpamAssassin's MAX_BODY_LINE_LENGTH).
const PARAGRAPH_BYTES_MAX: usize = 2048;
/// Bytes of decoded text for rawbody rules.
const RAW_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the message for full rules.
const FULL_BYTES_MAX: usize = 512 * 1024;

impl<'v, 'x> Texts<'v, 'x> {
    /// Reads the relays; texts are made when they are asked for.
    pub fn new(view: &'v View<'x>, facts: &'v Facts, lists: &'v Lists) -> Self {
        let relays = Relays::read(view, facts);
        Texts {
            view,
            facts,
            lists,
            relays,
            once: Once::default(),
            body: OnceCell::new(),
            all: OnceCell::new(),
            envelope_from: OnceCell::new(),
            from: OnceCell::new(),
            part_headers: OnceCell::new(),
            raw: OnceCell::new(),
            uris: OnceCell::new(),
        }
    }

    /// The text of a target; nothing for a header field that is missing.
    pub fn prepare(&self, target: &Target, budget: &mut Budget) -> Option<Text<'_>> {
        Some(match target {
            Target::Body => self.body().lent(),
            Target::Full => Text::whole(Cow::Borrowed(self.full())),
            Target::Header(spec) => Text::whole(self.header(spec)?),
            Target::Mime(spec) => self.mime(spec, budget),
            Target::Paragraphs => self.without_subject(),
            Target::Raw => Text::joined(self.raw().iter().copied()),
            Target::Uri => Text::joined(self.uris().iter().map(|uri| uri.as_bytes())),
        })
    }

    /// Subject and paragraphs.
    pub fn body(&self) -> &Text<'v> {
        &self.read_body().0
    }

    fn without_subject(&self) -> Text<'_> {
        let (body, start) = self.read_body();
        Text::lines(Cow::Borrowed(&body.bytes[*start..]))
    }

    fn read_body(&self) -> &(Text<'v>, usize) {
        self.body.get_or_init(|| {
            let mut bytes = Vec::with_capacity(self.view.text.len() + self.view.subject.len() + 2);
            let subject = self.view.header.text("Subject");
            paragraphs(&mut bytes, subject);
            if subject != self.view.subject {
                paragraphs(&mut bytes, &self.view.subject);
            }
            let start = bytes.len();
            (Text::lines(Cow::Owned(self.paragraphs(bytes))), start)
        })
    }

    fn paragraphs(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        paragraphs(&mut bytes, &self.view.text);
        // Rules see what a page has though its reader does not: its titles, and what it hides.
        self.view.pages.iter().for_each(|page| paragraphs(&mut bytes, &page.title));
        paragraphs(&mut bytes, &self.view.hidden);
        if let Some(folded) = &self.view.folded {
            let mut plain = Vec::with_capacity(folded.len());
            paragraphs(&mut plain, folded);
            // What folding left as it was has been seen.
            let known: HashSet<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
            let news: Vec<&[u8]> =
                plain.split_inclusive(|&byte| byte == b'\n').filter(|line| !known.contains(line)).collect();
            let news = news.concat();
            bytes.extend_from_slice(&news);
        }
        bytes
    }

    /// Decoded text parts in pieces.
    pub fn raw(&self) -> &[&'v [u8]] {
        self.raw.get_or_init(|| self.read_raw())
    }

    fn read_raw(&self) -> Vec<&'v [u8]> {
        let mut raw = Vec::new();
        let mut left = RAW_BYTES_MAX;
        for part in &self.view.parts {
            if let Body::Text(text) | Body::Html(text) = &part.body {
                let bytes = &text.as_bytes()[..text.len().min(left)];
                left -= bytes.len();
                pieces(&mut raw, bytes);
            }
        }
        raw
    }

    fn mime(&self, spec: &FieldSpec, budget: &mut Budget) -> Text<'v> {
        let values = self.part_headers(budget).iter().flat_map(|header| header.values(&spec.name, spec.has("raw")));
        Text::joined(values)
    }

    /// The header of each part, in their order; `budget` bounds those that are read now.
    pub fn part_headers(&self, budget: &mut Budget) -> &[PartHeader<'v, 'x>] {
        self.part_headers.get_or_init(|| {
            let View { header: top, raw, parts, .. } = self.view;
            let read = |part: &'v Part<'x>| match &*part.header {
                own if own.as_ptr() == raw.as_ptr() && own.len() == top.body_offset => PartHeader::Top(top),
                own => PartHeader::Own(Header::parse(own, budget)),
            };
            parts.iter().map(read).collect()
        })
    }

    /// The message as received.
    pub fn full(&self) -> &'v [u8] {
        let raw = self.view.raw;
        &raw[..raw.len().min(FULL_BYTES_MAX)]
    }

    /// The value of a header field, all fields of the name joined by line ends; nothing if there is none.
    pub fn header(&self, spec: &FieldSpec) -> Option<Cow<'_, [u8]>> {
        let inside = self.relays.fields_inside;
        let made_up = match spec.name.as_str() {
            "all" => return Some(self.all(spec)),
            "all-external" => return self.range(spec, inside, usize::MAX),
            "all-internal" => return self.range(spec, 0, inside),
            "tocc" => return self.joined(spec, &["to", "cc"]),
            MESSAGE_ID => return self.joined(spec, &MESSAGE_IDS),
            "envelopefrom" => self.envelope_from().map(str::to_owned),
            "x-spam-relays-external" => Some(self.relays.external_notation()),
            "x-spam-relays-internal" => Some(self.relays.internal_notation()),
            name => return self.joined(spec, &[name]),
        };
        made_up.and_then(|text| modified(&text, spec)).map(|text| Cow::Owned(text.into_bytes()))
    }

    /// What `uri` rules look at.
    pub fn uris(&self) -> &[String] {
        self.uris.get_or_init(|| uris::all(self.view, self.lists))
    }

    /// The sender of the envelope: known, or noted by the relay that took the message from outside, or by its own field. One
    /// that stands below a Received field was written by a stranger.
    pub fn envelope_from(&self) -> Option<&str> {
        self.envelope_from.get_or_init(|| self.read_envelope_from()).as_deref()
    }

    fn read_envelope_from(&self) -> Option<String> {
        let noted = self.relays.external().first().or(self.relays.internal().last());
        let noted = noted.and_then(|relay| relay.envfrom.clone()).filter(|sender| sender.contains('@'));
        self.facts.reverse_path.clone().or(noted).or_else(|| {
            let fetched = |field: &Field<'_>| memchr::memmem::find(field.raw, b"(fetchmail").is_some();
            let sender = self.view.header.first("X-Sender").is_some_and(|field| field.raw.contains(&b'@'));
            // What fetched it wrote the field anew.
            if sender && self.view.header.all("Received").any(fetched) {
                return None;
            }
            let fields = self.view.header.fields.iter();
            let mut ours = fields.take_while(|field| !field.name.eq_ignore_ascii_case("Received"));
            let field = ours.find(|field| SENDER_FIELDS.iter().any(|name| field.name.eq_ignore_ascii_case(name)))?;
            Some(mailboxes(field.text()).next()?.1)
        })
    }

    /// The first address of From, in lower case; empty if there is none.
    pub fn author_address(&self) -> &str {
        self.from.get_or_init(|| self.address("From"))
    }

    /// The first address of a field, in lower case; empty if there is none.
    pub fn address(&self, field: &str) -> String {
        let text = self.view.header.text(field);
        mailboxes(text).next().map(|(_, address)| address.to_ascii_lowercase()).unwrap_or_default()
    }

    /// The fields between two Received fields by their numbers, the first of them included.
    fn range(&self, spec: &FieldSpec, from: usize, to: usize) -> Option<Cow<'_, [u8]>> {
        let fields = &self.view.header.fields;
        // The field that has this number among those; with 0, and one that is ours in front, the first of all.
        let nth = |number: usize| {
            let received = |(_, field): &(usize, &Field<'_>)| field.name.eq_ignore_ascii_case("Received");
            fields.iter().enumerate().filter(received).nth(number).map_or(fields.len(), |(place, _)| place)
        };
        let start = if self.facts.ip.is_some() && from == 0 { 0 } else { nth(from) };
        let end = nth(to).max(start);
        if start == end {
            return None;
        }
        if spec.has("raw") {
            let mut out = Vec::new();
            fields[start..end].iter().for_each(|field| raw_line(&mut out, field));
            return Some(Cow::Owned(out));
        }
        let (all, starts) = self.lines();
        Some(Cow::Borrowed(&all[starts[start] as usize..starts[end] as usize]))
    }

    fn all(&self, spec: &FieldSpec) -> Cow<'_, [u8]> {
        Cow::Borrowed(if spec.has("raw") { self.view.header.raw } else { &self.lines().0 })
    }

    fn lines(&self) -> &(Vec<u8>, Vec<u32>) {
        self.all.get_or_init(|| {
            let fields = &self.view.header.fields;
            let (mut out, mut starts) = (Vec::with_capacity(self.view.header.raw.len()), vec![0]);
            for field in fields {
                [field.name, ": ", field.text(), "\n"].iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
                starts.push(out.len() as u32);
            }
            (out, starts)
        })
    }

    fn joined(&self, spec: &FieldSpec, names: &[&str]) -> Option<Cow<'_, [u8]>> {
        let named = names.iter().flat_map(|name| self.view.header.all(name));
        let value = |field: &'v Field<'x>| match (spec.has("raw"), spec.picks()) {
            (true, false) => Some(Cow::Borrowed(field.raw)),
            (true, true) => modified(&field.unfolded(), spec).map(|text| Cow::Owned(text.into_bytes())),
            _ if spec.modifiers.is_empty() => Some(Cow::Borrowed(field.text().as_bytes())),
            _ => modified(field.text(), spec).map(|text| Cow::Owned(text.into_bytes())),
        };
        let mut values = named.filter_map(value);
        let first = values.next()?;
        let rest: Vec<Cow<'_, [u8]>> = values.collect();
        match (rest.last(), spec) {
            (None, _) => return Some(first),
            (Some(_), spec) if spec.has("first") => return Some(first),
            (Some(last), spec) if spec.has("last") => return Some(last.clone()),
            _ => {}
        }
        let mut out = first.into_owned();
        for value in rest {
            out.push(b'\n');
            out.extend_from_slice(&value);
        }
        Some(Cow::Owned(out))
    }
}

/// Fields that hold a message's id, the likeliest last.
const MESSAGE_IDS: [&str; 4] = ["x-message-id", "resent-message-id", "x-original-message-id", "message-id"];
/// Fields in which relays note the envelope's sender.
const SENDER_FIELDS: [&str; 3] = ["X-Envelope-From", "Envelope-Sender", "Return-Path"];

fn raw_line(out: &mut Vec<u8>, field: &Field<'_>) {
    [field.name.as_bytes(), b":", field.raw, b"\n"].iter().for_each(|piece| out.extend_from_slice(piece));
}

/// A value with `:addr`, `:name`, `:domain`, `:host`, `:ip` applied; nothing if it has no such part.
fn modified(text: &str, spec: &FieldSpec) -> Option<String> {
    if !spec.picks() {
        return Some(text.to_owned());
    }
    if spec.has("ip") || spec.has("revip") {
        return ip_in(text, spec.has("revip"));
    }
    let hosts = spec.has("host") || spec.has("domain");
    let mut parts: Vec<String> = mailboxes(text)
        .map(|(name, address)| match () {
            () if spec.has("name") => name,
            () if hosts => address.rsplit_once('@').map(|(_, host)| host.to_owned()).unwrap_or_default(),
            () => address,
        })
        .filter(|part| !part.is_empty())
        .collect();
    if hosts && parts.is_empty() {
        let mut words = text.split([' ', '<', '>', '(', ')', '[', ']', ',', ';']);
        parts.extend(words.find(|word| word.contains('.')).map(str::to_owned));
    }
    if spec.has("domain") {
        parts.iter_mut().for_each(|host| *host = crate::filter::message::url::registered(host).to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// The first IP address of a text; with its parts turned around, as block lists want it.
fn ip_in(text: &str, reversed: bool) -> Option<String> {
    let mut words = text.split(|c: char| c.is_whitespace() || "[](),;<>=".contains(c));
    let ip = words.find_map(|word| word.parse::<std::net::IpAddr>().ok())?;
    Some(match ip {
        std::net::IpAddr::V4(ip) if reversed => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        ip => ip.to_string(),
    })
}

/// Appends `text` with one paragraph a line, blanks made one, long ones split at a blank.
fn paragraphs(out: &mut Vec<u8>, text: &str) {
    let mut line_start = out.len();
    let text = plain_blanks(text);
    let mut rest = text.as_bytes();
    loop {
        let blanks = rest.iter().position(|&byte| !is_blank(byte)).unwrap_or(rest.len());
        let (blanks, behind) = rest.split_at(blanks);
        if behind.is_empty() {
            break;
        }
        if !blanks.is_empty() && out.len() > line_start {
            let breaks = blanks.iter().filter(|&&byte| byte == b'\n').count();
            let ends = breaks > 1 || out.len() - line_start >= PARAGRAPH_BYTES_MAX;
            out.push(if ends { b'\n' } else { b' ' });
            line_start = if ends { out.len() } else { line_start };
        }
        let word = behind.iter().position(|&byte| is_blank(byte)).unwrap_or(behind.len());
        out.extend_from_slice(&behind[..word]);
        rest = &behind[word..];
    }
    if out.len() > line_start {
        out.push(b'\n');
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Blanks beyond ASCII, such as those that do not break, as plain ones.
fn plain_blanks(text: &str) -> Cow<'_, str> {
    let wide = |c: char| !c.is_ascii() && c.is_whitespace();
    // C2, E1 to E3 begin the UTF-8 of all of them.
    let may = !text.is_ascii() && text.bytes().any(|byte| matches!(byte, 0xc2 | 0xe1..=0xe3));
    if may && text.contains(wide) { Cow::Owned(text.replace(wide, " ")) } else { Cow::Borrowed(text) }
}

/// Cuts text into pieces of 2 to 4 kB at line ends, as rules with patterns over several lines expect.
fn pieces<'t>(out: &mut Vec<&'t [u8]>, mut bytes: &'t [u8]) {
    while bytes.len() > 2 * PARAGRAPH_BYTES_MAX {
        let tail = &bytes[PARAGRAPH_BYTES_MAX..2 * PARAGRAPH_BYTES_MAX];
        let at =
            memchr::memchr(b'\n', tail).or_else(|| memchr::memchr(b'>', tail)).or_else(|| memchr::memchr(b' ', tail));
        let (piece, rest) = bytes.split_at(at.map_or(PARAGRAPH_BYTES_MAX, |at| PARAGRAPH_BYTES_MAX + at + 1));
        out.push(piece);
        bytes = rest;
    }
    if !bytes.is_empty() {
        out.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_a_paragraph_a_line() {
        let view = View::read(b"Subject: s  t\n\na b\nc\n\n \nd\n");
        let (facts, lists) = (Facts::default(), Lists::default());
        let texts = Texts::new(&view, &facts, &lists);
        let text = texts.body();
        assert_eq!(*text.bytes, *b"s t\na b c\nd\n");
        assert_eq!(text.segment(1), (4, &b"a b c"[..]));
        assert_eq!([4, 5, 9, 10].map(|end| text.segment_at(end).0), [0, 1, 1, 1]);
    }

    #[test]
    fn headers_as_rules_ask_for_them() {
        let view = View::read(
            b"Return-Path: <e@f>\nFrom: \"A\" <B@c.example.org>\nTo: x@y, v@w\nCc: z@w\nX: 1\nX: 2 [192.0.2.7]\n\
            Received: from a (b [10.0.0.1]) by c; d\nX-In: 1\nReceived: from h (r [192.0.2.1]) by b; d\nX-Out: 1\n\n",
        );
        let (facts, lists) = (Facts::default(), Lists::default());
        let texts = Texts::new(&view, &facts, &lists);
        let header = |spec: &str| {
            texts.header(&FieldSpec::parse(spec)).map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        assert_eq!(header("From:addr").as_deref(), Some("B@c.example.org"));
        assert_eq!(header("To:addr").as_deref(), Some("x@y\nv@w"));
        assert_eq!(header("To:name"), None);
        assert_eq!(header("From:raw").as_deref(), Some(" \"A\" <B@c.example.org>"));
        assert_eq!(header("From:addr:host").as_deref(), Some("c.example.org"));
        assert_eq!(header("X:last:revip").as_deref(), Some("7.2.0.192"));
        assert_eq!(header("EnvelopeFrom").as_deref(), Some("e@f"));
        assert_eq!(header("ALL-EXTERNAL").as_deref(), Some("Received: from h (r [192.0.2.1]) by b; d\nX-Out: 1\n"));
        assert!(header("ALL-INTERNAL").is_some_and(|text| text.ends_with("by c; d\nX-In: 1\n")));
        assert_eq!(header("From:name").as_deref(), Some("A"));
        assert_eq!(header("From:addr:domain").as_deref(), Some("example.org"));
        assert_eq!(header("ToCc").as_deref(), Some("x@y, v@w\nz@w"));
        assert_eq!(header("X:last").as_deref(), Some("2 [192.0.2.7]"));
        assert_eq!(header("Nope"), None);
    }
}
