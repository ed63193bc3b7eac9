//! The header section of a message as fields that borrow from it, and what a gateway must know of it. Pure.
//!
//! RFC 5322 §2.2 and §3.6, read so tolerantly that no input is refused: a line that is no field is one without a name, and
//! nothing stops the walk but the empty line or the end. Content is never changed; what must go is
//! named as byte ranges ([`forged_fields`]), what must be added is written before it.

use std::ops::Range;
use std::time::SystemTime;

use memchr::memchr;

use super::date;

/// One field, or one line that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was written, without white space before the colon; empty if the line is no field.
    pub name: &'a [u8],
    /// What stands behind the colon, folding and final line end included; the whole line if it is no field.
    pub value: &'a [u8],
    /// Where the field stands in the content, line end included.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// True if the field is called `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// True if the sender sets the receiver's TLS policies aside: `TLS-Required: No` (RFC 8689 §5).
pub fn says_tls_not_required(content: &[u8]) -> bool {
    fields(content).any(|field| field.is("TLS-Required") && field.value.trim_ascii().eq_ignore_ascii_case(b"no"))
}

/// Walks the fields of `content`, the body excluded.
pub fn fields(content: &[u8]) -> Fields<'_> {
    Fields { content, at: 0 }
}

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    content: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    /// Bytes walked so far; at the end, the size of the header section without the empty line.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = &self.content[self.at..];
        if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
            return None;
        }
        let len = field_end(rest);
        let range = self.at..self.at + len;
        self.at = range.end;
        let text = &rest[..len];
        Some(match name_end(text) {
            Some(colon) => Field { name: text[..colon].trim_ascii_end(), value: &text[colon + 1..], range },
            None => Field { name: b"", value: text, range },
        })
    }
}

/// Length of the field at the start of `rest`: its line and all that continue it (RFC 5322 §2.2.3).
fn field_end(rest: &[u8]) -> usize {
    let mut end = 0;
    while let Some(lf) = memchr(b'\n', &rest[end..]) {
        end += lf + 1;
        if !matches!(rest.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    rest.len()
}

/// Index of the colon, if a name stands before it (RFC 5322 §3.6.8; white space before the colon is §4.5's).
fn name_end(text: &[u8]) -> Option<usize> {
    let colon = memchr(b':', text)?;
    let name = text[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
}

/// What a gateway must know of a header section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderFacts {
    /// Bytes of the header section, the empty line excluded.
    pub bytes: usize,
    /// `Received` fields (RFC 5321 §6.3).
    pub received: u32,
    /// `From` fields; RFC 5322 §3.6 wants one.
    pub from: u32,
    /// `Date` fields.
    pub date: u32,
    /// `Message-ID` fields.
    pub message_id: u32,
    /// Lines that are no field.
    pub garbage: u32,
}

impl HeaderFacts {
    /// Walks the header section of `content` once.
    pub fn of(content: &[u8]) -> Self {
        let mut facts = HeaderFacts::default();
        let mut walk = fields(content);
        for field in walk.by_ref() {
            let count = match field.name {
                [] => &mut facts.garbage,
                name if name.eq_ignore_ascii_case(b"Received") => &mut facts.received,
                name if name.eq_ignore_ascii_case(b"From") => &mut facts.from,
                name if name.eq_ignore_ascii_case(b"Date") => &mut facts.date,
                name if name.eq_ignore_ascii_case(b"Message-ID") => &mut facts.message_id,
                _ => continue,
            };
            *count += 1;
        }
        facts.bytes = walk.position();
        facts
    }
}

/// The fields that a submitted message lacks (RFC 6409 §8.2, §8.3), to be written before it; empty if it has both.
///
/// `message_id` is the id without angle brackets, `left@right`.
pub fn missing_on_submission(facts: &HeaderFacts, message_id: &str, now: SystemTime) -> String {
    let mut fields = String::new();
    if facts.date == 0 {
        fields.push_str(&format!("Date: {}\r\n", date::rfc5322(now)));
    }
    if facts.message_id == 0 {
        fields.push_str(&format!("Message-ID: <{message_id}>\r\n"));
    }
    fields
}

/// Prefixes of fields that only our side of the border may assert: our own marks, and what Exchange believes of
/// mail from inside its organisation.
const OUR_PREFIXES: [&[u8]; 2] = [b"X-Weir-", b"X-MS-Exchange-Organization-"];

/// What readers believe of the filter in front of them. SpamAssassin takes them out of what it judges as well.
const OUR_VERDICT: [&str; 3] = ["X-Spam-Flag", "X-Spam-Level", "X-Spam-Status"];

/// Fields of mail from outside that only we, or the final delivery, may write, as byte ranges in ascending order:
/// `X-Weir-*`, `X-MS-Exchange-Organization-*`, `Return-Path` (RFC 5321 §4.4) and `Authentication-Results` that
/// carry `authserv_id` (RFC 8601 §5). Where our filter judges (`judged`), what it says of every message is ours alone, too.
pub fn forged_fields(content: &[u8], authserv_id: &str, judged: bool) -> Vec<Range<usize>> {
    fields(content).filter(|field| is_forged(field, authserv_id, judged)).map(|field| field.range).collect()
}

fn is_forged(field: &Field<'_>, authserv_id: &str, judged: bool) -> bool {
    let has_prefix = |prefix: &&[u8]| field.name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
    field.is("Return-Path")
        || OUR_PREFIXES.iter().any(has_prefix)
        || (judged && OUR_VERDICT.iter().any(|name| field.is(name)))
        || (field.is("Authentication-Results") && claims_id(field.value, authserv_id))
}

/// True if an Authentication-Results value is signed `authserv_id`, or has no id that can be read: a reader more
/// tolerant than we might find ours in it.
fn claims_id(value: &[u8], authserv_id: &str) -> bool {
    let Some(value) = skip_comments(value) else { return true };
    let (quoted, value) = value.strip_prefix(b"\"").map_or((false, value), |v| (true, v));
    let ends = |b: &u8| if quoted { *b == b'"' } else { b.is_ascii_whitespace() || matches!(*b, b';' | b'(') };
    let id = &value[..value.iter().position(ends).unwrap_or(value.len())];
    id.is_empty() || id.contains(&b'\\') || id.eq_ignore_ascii_case(authserv_id.as_bytes())
}

/// Skips white space and comments (RFC 5322 §3.2.2); nothing if a comment has no end.
fn skip_comments(mut value: &[u8]) -> Option<&[u8]> {
    loop {
        value = value.trim_ascii_start();
        if !value.starts_with(b"(") {
            return Some(value);
        }
        let mut depth = 0usize;
        let mut escaped = false;
        let end = value.iter().position(|byte| {
            let literal = escaped;
            escaped = !literal && *byte == b'\\';
            match byte {
                b'(' if !literal => depth += 1,
                b')' if !literal => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        value = &value[end + 1..];
    }
}

/// The parts of `content` that stay when `cut` (ascending, as [`forged_fields`] gives them) goes.
pub fn kept_parts<'a>(content: &'a [u8], cut: &[Range<usize>]) -> Vec<&'a [u8]> {
    let starts = std::iter::once(0).chain(cut.iter().map(|range| range.end));
    let ends = cut.iter().map(|range| range.start).chain(std::iter::once(content.len()));
    starts.zip(ends).map(|(start, end)| &content[start..end]).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_header_can_say_that_tls_is_not_required() {
        assert!(says_tls_not_required(b"Subject: x\r\ntls-required:\r\n NO \r\n\r\nx"));
        assert!(!says_tls_not_required(b"TLS-Required: Yes\r\n\r\nTLS-Required: No\r\n"));
    }

    const MESSAGE: &[u8] =
        b"Received: from a\r\n\tby b\r\nreceived : c\r\nthis is garbage\r\nSubject:x\r\n\r\nFrom: body\r\n";

    #[test]
    fn fields_are_walked_with_their_folding() {
        let all: Vec<_> = fields(MESSAGE).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].value, b" from a\r\n\tby b\r\n");
        assert_eq!(all[1].name, b"received");
        assert!(all[2].name.is_empty());
        assert_eq!(&MESSAGE[all[3].range.clone()], b"Subject:x\r\n");
    }

    #[test]
    fn facts_count_the_header_only() {
        let facts = HeaderFacts::of(MESSAGE);
        assert_eq!((facts.received, facts.from, facts.garbage), (2, 0, 1));
        assert_eq!(facts.bytes, MESSAGE.len() - "\r\nFrom: body\r\n".len());
        assert_eq!(HeaderFacts::of(b""), HeaderFacts::default());
        assert_eq!(HeaderFacts::of(b"\n\nx").bytes, 0);
        assert_eq!(HeaderFacts::of(b"From: a").from, 1);
    }

    #[test]
    fn a_submitted_message_gets_what_it_lacks() {
        let facts = HeaderFacts::of(b"Date: x\r\n\r\n");
        assert_eq!(missing_on_submission(&facts, "1@x.org", SystemTime::UNIX_EPOCH), "Message-ID: <1@x.org>\r\n");
        let fields = missing_on_submission(&HeaderFacts::default(), "1@x.org", SystemTime::UNIX_EPOCH);
        assert_eq!(fields, "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@x.org>\r\n");
    }

    #[test]
    fn what_only_we_may_say_is_cut() {
        let content = b"Return-Path: <a@b.c>\r\nX-WEIR-Score: 0\r\nSubject: s\r\n\
            Authentication-Results: (c \\) d) MX.example.org (x); spf=pass\r\n\
            Authentication-Results: \"mx.example.org\"; spf=pass\r\n\
            Authentication-Results: ; spf=pass\r\nAuthentication-Results: (open\r\n\
            Authentication-Results: other.example; spf=fail\r\n\
            X-MS-Exchange-Organization-SCL: -1\r\nTo: b@x.org\r\n\r\nX-Weir-Body: stays\r\n";
        let cut = forged_fields(content, "mx.example.org", false);
        assert_eq!(cut.len(), 7);
        let kept = kept_parts(content, &cut).concat();
        assert_eq!(
            kept,
            b"Subject: s\r\nAuthentication-Results: other.example; spf=fail\r\nTo: b@x.org\r\n\r\nX-Weir-Body: stays\r\n"
        );
    }
}
