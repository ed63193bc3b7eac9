//! MIMEEval: how a message is put together. Pure. RFC 2045, RFC 2046.

use super::{Context, Function, charsets, number};
use crate::filter::budget::{Budget, Limit};
use crate::filter::message::Part;
use crate::filter::rules::texts::PartHeader;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_abundant_unicode_ratio", |context, arguments| {
        number(arguments, 0).is_some_and(|least| unicode_ratio(context) >= least)
    }),
    ("check_base64_length", check_base64_length),
    ("check_for_ascii_text_illegal", |context, _| {
        parts(context).any(|part| {
            let ascii = part.charset.as_deref().is_none_or(|charset| charset == "us-ascii");
            part.content_type == "text/plain" && ascii && part.encoded.iter().any(|byte| *byte == 0 || *byte >= 0x80)
        })
    }),
    ("check_for_mime", check_for_mime),
    ("check_for_mime_html", |context, _| top_type(context).starts_with("text/html") || has_html(context)),
    ("check_for_mime_html_only", |context, _| {
        let other = |part: &Part<'_>| part.content_type.starts_with("text") && part.content_type != "text/html";
        top_type(context).starts_with("text/html") || has_html(context) && !parts(context).any(other)
    }),
    ("check_ma_non_text", |context, _| {
        top_type(context).starts_with("multipart/alternative")
            && parts(context)
                .any(|part| part.content_type.starts_with("application/") && part.content_type != "application/rtf")
    }),
    ("check_mime_multipart_ratio", |context, arguments| {
        let ratio = multipart_ratio(context);
        number(arguments, 0).is_none_or(|low| ratio >= low) && number(arguments, 1).is_none_or(|high| ratio < high)
    }),
    ("check_msg_parse_flags", check_msg_parse_flags),
    ("check_qp_ratio", |context, arguments| {
        let (encoded, all) = needless(context);
        number(arguments, 0).is_some_and(|least| all > 0 && encoded as f64 / all as f64 >= least)
    }),
];

/// What `check_for_mime` knows.
pub const MIME_TESTS: &[&str] = &[
    "mime_attachment",
    "mime_bad_iso_charset",
    "mime_base64_count",
    "mime_base64_encoded_text",
    "mime_faraway_charset",
    "mime_qp_count",
    "mime_qp_long_line",
    "mimepart_limit_exceeded",
];
/// What `check_msg_parse_flags` knows.
pub const PARSE_FLAGS: &[&str] = &[
    "mime_epilogue_exists",
    "missing_head_body_separator",
    "missing_mime_head_body_separator",
    "missing_mime_headers",
    "truncated_header",
];

fn parts<'c>(context: &'c Context<'_, '_, '_>) -> impl Iterator<Item = &'c Part<'c>> {
    context.texts.view.parts.iter()
}

/// What a part's own header says of its body, in lower case.
pub struct Encoded {
    encoding: String,
    disposition: String,
}

impl Encoded {
    fn of(header: &PartHeader<'_, '_>) -> Self {
        let field = |name: &str| header.text(name).trim().to_ascii_lowercase();
        Encoded { encoding: field("Content-Transfer-Encoding"), disposition: field("Content-Disposition") }
    }

    fn is_quoted_printable(&self) -> bool {
        self.encoding == "quoted-printable"
    }
}

/// The parts with what their headers say.
fn encoded<'c>(
    context: &'c Context<'_, '_, '_>,
) -> impl DoubleEndedIterator<Item = (&'c Part<'c>, &'c Encoded)> + ExactSizeIterator {
    let parts = &context.texts.view.parts;
    let read = || context.texts.part_headers(&mut Budget::default()).iter().map(Encoded::of).collect();
    let encoded = context.texts.once.encoded.get_or_init(read);
    parts.iter().zip(encoded)
}

/// The parts in quoted-printable.
fn quoted_printable<'c>(context: &'c Context<'_, '_, '_>) -> impl Iterator<Item = &'c Part<'c>> {
    encoded(context).filter(|(_, encoded)| encoded.is_quoted_printable()).map(|(part, _)| part)
}

fn has_html(context: &Context<'_, '_, '_>) -> bool {
    parts(context).any(|part| part.content_type == "text/html")
}

fn top_type<'c>(context: &'c Context<'_, '_, '_>) -> &'c str {
    let read = || context.texts.view.header.text("Content-Type").trim_start().to_ascii_lowercase();
    context.texts.once.top_type.get_or_init(read)
}

fn lines<'p>(part: &'p Part<'_>) -> impl Iterator<Item = &'p [u8]> {
    part.encoded.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The longest line of a part in base64, its end included.
fn check_base64_length(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let encoded = parts(context).filter(|part| part.base64 && part.content_type != "application/ics");
    let longest = encoded.flat_map(lines).map(<[u8]>::len).max().map_or(0, |bytes| bytes + 1) as f64;
    number(arguments, 0).is_none_or(|low| longest >= low) && number(arguments, 1).is_none_or(|high| longest <= high)
}

fn check_for_mime(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    match arguments.first().map(String::as_str) {
        Some("mime_attachment") => encoded(context).any(|(_, encoded)| encoded.disposition.contains("attachment")),
        Some("mime_bad_iso_charset") => parts(context).any(|part| {
            // All of ISO's charsets that mail uses are iso-8859-N and iso-2022-X.
            let name = part.charset.as_deref().and_then(|charset| charset.strip_prefix("iso-"));
            let known = |name: &str| name == "2022-jp" || name == "2022-kr" || name.starts_with("8859-");
            name.is_some_and(|name| name.contains('-') && !known(name))
        }),
        Some("mime_base64_count") => parts(context).any(|part| part.base64),
        Some("mime_base64_encoded_text") => encoded(context).any(|(part, encoded)| is_ascii_in_base64(part, encoded)),
        Some("mime_faraway_charset") => charsets::faraway_part(context),
        Some("mime_qp_count") => needless(context).0 > 0,
        Some("mime_qp_long_line") => {
            // RFC 5322 §2.1.1: 78 characters and the line's end.
            quoted_printable(context).flat_map(lines).any(|line| line.len() > 78)
        }
        Some("mimepart_limit_exceeded") => {
            context.texts.view.budget.exceeded().any(|row| matches!(row.limit, Limit::Parts | Limit::Nesting))
        }
        _ => false,
    }
}

/// Text that needs no base64, is in it, and is not attached.
fn is_ascii_in_base64(part: &Part<'_>, encoded: &Encoded) -> bool {
    const ASCII: [&str; 9] =
        ["us-ascii", "ansi_x3.4", "iso-ir-6", "iso_646.irv", "ascii", "iso646-us", "ibm367", "cp367", "csascii"];
    let ascii = part.charset.as_deref().is_none_or(|charset| ASCII.iter().any(|name| charset.contains(name)));
    let disposition = &encoded.disposition;
    let placed = disposition.starts_with("attachment") || disposition.starts_with("inline");
    part.base64 && part.content_type.starts_with("text") && ascii && !placed
}

/// In quoted-printable: characters that are encoded though they need not be, and all bytes.
fn needless(context: &Context<'_, '_, '_>) -> (usize, usize) {
    let (mut encoded, mut all) = (0, 0);
    for line in quoted_printable(context).flat_map(lines) {
        all += line.len() + 1;
        let blanks = line.trim_ascii_end();
        let mut end = blanks.len();
        // Blanks at the end of a line must be encoded.
        while end >= 3 && (blanks[..end].ends_with(b"=20") || blanks[..end].ends_with(b"=09")) {
            end -= 3;
        }
        encoded +=
            line[..end].windows(3).filter(|window| window[0] == b'=' && is_needless(window[1], window[2])).count();
    }
    (encoded, all)
}

/// True for the hexadecimal digits of printable characters other than `=` and a few that people write on purpose.
fn is_needless(high: u8, low: u8) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    match high {
        b'0' => low == b'9',
        b'3' => low.is_ascii_digit() || b"ABCEF".contains(&low),
        b'2' | b'4' | b'5' | b'6' => digit(low),
        b'7' => digit(low) && low != b'F',
        _ => false,
    }
}

/// Characters written as `&#x4e2d;` in plain text, for each that is not.
fn unicode_ratio(context: &Context<'_, '_, '_>) -> f64 {
    let plain = encoded(context).filter(|(part, encoded)| {
        part.content_type == "text/plain" && matches!(encoded.encoding.as_str(), "" | "7bit" | "8bit")
    });
    let (mut entities, mut others) = (0usize, 0usize);
    for (part, _) in plain {
        let found = memchr::memmem::find_iter(part.encoded, b"&#x").filter(|at| {
            let digits = part.encoded.get(at + 3..at + 8);
            digits.is_some_and(|digits| digits[4] == b';' && digits[..4].iter().all(u8::is_ascii_hexdigit))
        });
        let found = found.count();
        entities += found;
        others += part.encoded.len() - 8 * found;
    }
    if others == 0 { 0.0 } else { entities as f64 / others as f64 }
}

/// Bytes of the last plain text over those of the last page, where they are alternatives; 1 otherwise.
fn multipart_ratio(context: &Context<'_, '_, '_>) -> f64 {
    let last = |kind: &str| {
        let mut found = encoded(context).rev().filter(|(part, _)| part.content_type == kind);
        let found = found.find(|(_, encoded)| !encoded.disposition.contains("attachment"));
        found.map(|(part, _)| part.encoded.len())
    };
    match (is_alternative(context), last("text/plain"), last("text/html")) {
        (true, Some(text), Some(html)) if html > 0 => text as f64 / html as f64,
        _ => 1.0,
    }
}

/// True if the message has a multipart/alternative, at the top or within.
pub fn is_alternative(context: &Context<'_, '_, '_>) -> bool {
    let kind = top_type(context);
    kind.starts_with("multipart/alternative")
        || kind.starts_with("multipart/") && {
            let body = context.texts.view.body_raw();
            let around = |at: usize| body.get(at.checked_sub("multipart".len())?..at + "/alternative".len());
            let named = |at| around(at).is_some_and(|name| name.eq_ignore_ascii_case(b"multipart/alternative"));
            memchr::memchr_iter(b'/', body).any(named)
        }
}

fn check_msg_parse_flags(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let view = context.texts.view;
    match arguments.first().map(String::as_str) {
        Some("missing_head_body_separator") => view.header.body_offset == view.raw.len() && !view.header.raw.is_empty(),
        Some("truncated_header") => {
            // SpamAssassin cuts names and values of this length.
            let long = |field: &crate::filter::message::Field<'_>| field.name.len() > 256 || field.raw.len() > 8192;
            view.header.fields.iter().any(long)
                || view.budget.exceeded().any(|row| matches!(row.limit, Limit::HeaderBytes | Limit::HeaderFields))
        }
        Some("mime_epilogue_exists") => flaws(context).epilogue,
        Some("missing_mime_head_body_separator") => flaws(context).no_separator,
        Some("missing_mime_headers") => flaws(context).no_headers,
        _ => false,
    }
}

fn flaws<'c>(context: &'c Context<'_, '_, '_>) -> &'c Flaws {
    context.texts.once.flaws.get_or_init(|| Flaws::read(context))
}

/// What is wrong around the boundaries of a multipart.
#[derive(Default)]
pub struct Flaws {
    epilogue: bool,
    no_headers: bool,
    no_separator: bool,
}

/// Boundaries that are followed.
const BOUNDARIES_MAX: usize = 32;

#[derive(PartialEq, Eq)]
enum At {
    Body,
    Epilogue,
    Head { first: bool },
    Preamble,
}

impl Flaws {
    fn read(context: &Context<'_, '_, '_>) -> Self {
        let mut flaws = Flaws::default();
        if !top_type(context).starts_with("multipart/") {
            return flaws;
        }
        let boundaries = boundaries(context.texts.view.raw);
        let mut at = At::Preamble;
        let body = context.texts.view.body_raw();
        for line in body.strip_suffix(b"\n").unwrap_or(body).split(|&byte| byte == b'\n') {
            let text = line.trim_ascii_end();
            let mark = text.strip_prefix(b"--").filter(|_| !boundaries.is_empty());
            if mark.is_some_and(|rest| boundaries.contains(&rest)) {
                at = At::Head { first: true };
            } else if mark.and_then(|rest| rest.strip_suffix(b"--")).is_some_and(|rest| boundaries.contains(&rest)) {
                at = At::Epilogue;
            } else {
                at = flaws.line(line, text, at);
            }
        }
        flaws
    }

    fn line(&mut self, line: &[u8], text: &[u8], at: At) -> At {
        match at {
            At::Epilogue => {
                self.epilogue |= text.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b'.');
                At::Epilogue
            }
            At::Head { first } => {
                let name = text.iter().position(|byte| *byte == b':').map(|colon| &text[..colon]);
                let is_field =
                    name.is_some_and(|name| !name.is_empty() && name.iter().all(|byte| (33..127).contains(byte)));
                self.no_headers |= first && !is_field;
                let folded = !first && line.starts_with(b" ") || line.starts_with(b"\t");
                if text.is_empty() {
                    return At::Body;
                }
                if !is_field && !folded {
                    self.no_separator = true;
                    return At::Body;
                }
                At::Head { first: false }
            }
            other => other,
        }
    }
}

/// The values of all `boundary=` of a message.
fn boundaries(raw: &[u8]) -> Vec<&[u8]> {
    const MARK: &[u8] = b"boundary=";
    let mut found: Vec<&[u8]> = Vec::new();
    let lower = raw.to_ascii_lowercase();
    for at in memchr::memmem::find_iter(&lower, MARK) {
        let rest = &raw[at + MARK.len()..];
        let value = match rest.strip_prefix(b"\"") {
            Some(quoted) => quoted.split(|&byte| byte == b'"').next().unwrap_or(quoted),
            None => rest.split(|byte| byte.is_ascii_whitespace() || *byte == b';').next().unwrap_or(rest),
        };
        if !value.is_empty() && found.len() < BOUNDARIES_MAX && !found.contains(&value) {
            found.push(value);
        }
    }
    found
}
