//! What each kind of rule looks at, in the form that SpamAssassin gives it. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use super::definition::FieldSpec;
use super::relays::{self, Relay};
use crate::filter::budget::Budget;
use crate::filter::engine::Facts;
use crate::filter::message::header::{Header, decode, mailbox};
use crate::filter::message::{Body, View};

/// The texts of one message.
pub struct Texts<'v, 'x> {
    /// The message.
    pub view: &'v View<'x>,
    /// What is known beside it.
    pub facts: &'v Facts,
    /// The relays it came through, newest first.
    pub relays: Vec<Relay>,
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
    /// Where each segment begins and ends.
    pub segments: Vec<(u32, u32)>,
}

impl<'v> Text<'v> {
    fn whole(bytes: Cow<'v, [u8]>) -> Self {
        let end = bytes.len() as u32;
        Text { bytes, segments: vec![(0, end)] }
    }

    /// The segments, joined.
    fn joined<'s>(segments: impl Iterator<Item = &'s [u8]>) -> Self {
        let mut text = Text::default();
        let bytes = text.bytes.to_mut();
        for segment in segments {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(segment);
            text.segments.push((start, bytes.len() as u32));
            bytes.push(b'\n');
        }
        text
    }

    /// A segment and where it begins.
    pub fn segment(&self, number: usize) -> (usize, &[u8]) {
        let (start, end) = self.segments[number];
        (start as usize, &self.bytes[start as usize..end as usize])
    }

    /// The segment in which something ends at `end`; what ends with the line end behind a segment is of that segment.
    pub fn segment_at(&self, end: usize) -> usize {
        self.segments.partition_point(|(start, _)| (*start as usize) < end).saturating_sub(1)
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
    pub fn new(view: &'v View<'x>, facts: &'v Facts) -> Self {
        Texts { view, facts, relays: relays::read(view, facts) }
    }

    /// The text of a target; nothing for a header field that is missing.
    pub fn prepare(&self, target: &Target, budget: &mut Budget) -> Option<Text<'v>> {
        Some(match target {
            Target::Body => self.body(),
            Target::Full => Text::whole(Cow::Borrowed(self.full())),
            Target::Header(spec) => Text::whole(self.header(spec)?),
            Target::Mime(spec) => self.mime(spec, budget),
            Target::Raw => Text::joined(self.raw().into_iter()),
            Target::Uri => Text::joined(self.view.urls.iter().map(|url| url.text.as_bytes())),
        })
    }

    fn body(&self) -> Text<'v> {
        let mut bytes = Vec::with_capacity(self.view.text.len() + self.view.subject.len() + 2);
        paragraphs(&mut bytes, &self.view.subject);
        paragraphs(&mut bytes, &self.view.text);
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
        let ends = memchr::memchr_iter(b'\n', &bytes);
        let segments = ends.scan(0, |start, end| Some((std::mem::replace(start, end as u32 + 1), end as u32)));
        let segments = segments.collect();
        Text { bytes: Cow::Owned(bytes), segments }
    }

    /// Decoded text parts in pieces.
    pub fn raw(&self) -> Vec<&'v [u8]> {
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
        let headers: Vec<Header<'v>> = self.view.parts.iter().map(|part| Header::parse(&part.header, budget)).collect();
        let fields = headers.iter().flat_map(|header| header.all(&spec.name));
        let values: Vec<Cow<'v, [u8]>> = fields
            .map(|field| match spec.has("raw") {
                true => Cow::Borrowed(field.raw),
                false => Cow::Owned(field.text().into_owned().into_bytes()),
            })
            .collect();
        Text::joined(values.iter().map(|value| value.as_ref()))
    }

    /// The message as received.
    pub fn full(&self) -> &'v [u8] {
        let raw = self.view.raw;
        &raw[..raw.len().min(FULL_BYTES_MAX)]
    }

    /// The value of a header field, all fields of the name joined by line ends; nothing if there is none.
    pub fn header(&self, spec: &FieldSpec) -> Option<Cow<'v, [u8]>> {
        let made_up = match spec.name.as_str() {
            "all" => return Some(self.all(spec)),
            "tocc" => return self.joined(spec, &["to", "cc"]),
            "messageid" => return self.joined(spec, &["message-id", "resent-message-id", "x-message-id"]),
            "envelopefrom" => self.envelope_from(),
            "x-spam-relays-external" | "x-spam-relays-untrusted" => {
                Some(relays::notation(relays::external(&self.relays)))
            }
            "x-spam-relays-internal" | "x-spam-relays-trusted" => {
                let outside = relays::external(&self.relays).len();
                Some(relays::notation(&self.relays[..self.relays.len() - outside]))
            }
            name => return self.joined(spec, &[name]),
        };
        made_up.map(|text| Cow::Owned(modified(&text, spec).into_bytes()))
    }

    fn envelope_from(&self) -> Option<String> {
        self.facts.reverse_path.clone().or_else(|| {
            let field = self.view.header.first("Return-Path")?;
            Some(field.text().trim_matches(['<', '>']).to_owned())
        })
    }

    fn all(&self, spec: &FieldSpec) -> Cow<'v, [u8]> {
        let raw = self.view.header.raw;
        if spec.has("raw") || memchr::memmem::find(raw, b"=?").is_none() {
            return Cow::Borrowed(raw);
        }
        let mut out = String::with_capacity(raw.len());
        for field in &self.view.header.fields {
            out.push_str(field.name);
            out.push_str(": ");
            out.push_str(&field.text());
            out.push('\n');
        }
        Cow::Owned(out.into_bytes())
    }

    fn joined(&self, spec: &FieldSpec, names: &[&str]) -> Option<Cow<'v, [u8]>> {
        let view: &'v View<'x> = self.view;
        let mut values = names.iter().flat_map(|name| view.header.all(name)).map(|field| match spec.has("raw") {
            true => Cow::Borrowed(field.raw),
            false => match decode(field.raw) {
                Cow::Borrowed(text) if spec.modifiers.is_empty() => Cow::Borrowed(text.as_bytes()),
                text => Cow::Owned(modified(&text, spec).into_bytes()),
            },
        });
        let first = values.next()?;
        let rest: Vec<Cow<'v, [u8]>> = values.collect();
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

/// A value with `:addr`, `:name`, `:domain`, `:host` applied.
fn modified(text: &str, spec: &FieldSpec) -> String {
    let mut value = if spec.has("addr") || spec.has("domain") || spec.has("host") {
        mailbox(text).1
    } else if spec.has("name") {
        mailbox(text).0
    } else {
        return text.to_owned();
    };
    if spec.has("host") || spec.has("domain") {
        value = value.rsplit('@').next().unwrap_or_default().to_owned();
    }
    if spec.has("domain") {
        value = crate::filter::message::url::registered(&value).to_owned();
    }
    value
}

/// Appends `text` with one paragraph a line, blanks made one, long ones split at a blank.
fn paragraphs(out: &mut Vec<u8>, text: &str) {
    let mut line_start = out.len();
    let mut breaks = 0;
    let mut blank = false;
    for &byte in text.as_bytes() {
        match byte {
            b'\n' => {
                breaks += 1;
                blank = true;
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => blank = true,
            byte => {
                if breaks > 1 && out.len() > line_start {
                    out.push(b'\n');
                    line_start = out.len();
                } else if blank && out.len() > line_start {
                    let long = out.len() - line_start >= PARAGRAPH_BYTES_MAX;
                    out.push(if long { b'\n' } else { b' ' });
                    line_start = if long { out.len() } else { line_start };
                }
                (breaks, blank) = (0, false);
                out.push(byte);
            }
        }
    }
    if out.len() > line_start {
        out.push(b'\n');
    }
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
        let facts = Facts::default();
        let text = Texts::new(&view, &facts).body();
        assert_eq!(*text.bytes, *b"s t\na b c\nd\n");
        assert_eq!(text.segment(1), (4, &b"a b c"[..]));
        assert_eq!([4, 5, 9, 10].map(|end| text.segment_at(end)), [0, 1, 1, 1]);
    }

    #[test]
    fn headers_as_rules_ask_for_them() {
        let view = View::read(b"From: \"A\" <b@c.example.org>\nTo: x@y\nCc: z@w\nX: 1\nX: 2\n\n");
        let facts = Facts::default();
        let texts = Texts::new(&view, &facts);
        let header = |spec: &str| {
            texts.header(&FieldSpec::parse(spec)).map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        assert_eq!(header("From:addr").as_deref(), Some("b@c.example.org"));
        assert_eq!(header("From:name").as_deref(), Some("A"));
        assert_eq!(header("From:addr:domain").as_deref(), Some("example.org"));
        assert_eq!(header("ToCc").as_deref(), Some("x@y\nz@w"));
        assert_eq!(header("X:last").as_deref(), Some("2"));
        assert_eq!(header("Nope"), None);
    }
}
