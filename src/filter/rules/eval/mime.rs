//! MIMEEval, BodyEval: the parts of a message and their text. Pure.

use std::collections::HashMap;

use super::{Context, Function, number, within};
use crate::filter::budget::Limit;
use crate::filter::message::{Body, Part};

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_base64_length", check_base64_length),
    ("check_body_length", |context, arguments| {
        number(arguments, 0).is_some_and(|most| context.texts.view.body_raw().len() as f64 <= most)
    }),
    ("check_blank_line_ratio", check_blank_line_ratio),
    ("check_for_ascii_text_illegal", check_for_ascii_text_illegal),
    ("check_for_mime", check_for_mime),
    ("check_for_mime_html", |context, _| any(context, is_html)),
    ("check_for_mime_html_only", |context, _| {
        any(context, is_html) && !any(context, |part| part.content_type == "text/plain" && !part.attachment)
    }),
    ("check_for_uppercase", check_for_uppercase),
    ("check_ma_non_text", |context, _| {
        top_type(context).starts_with("multipart/alternative")
            && any(context, |part| part.content_type.starts_with("application/"))
    }),
    ("check_mime_multipart_ratio", check_mime_multipart_ratio),
    ("check_msg_parse_flags", check_msg_parse_flags),
    ("image_count", |context, arguments| {
        let kind = arguments.first().map(String::as_str).unwrap_or_default();
        let image = |part: &&Part<'_>| {
            part.content_type.strip_prefix("image/").is_some_and(|format| kind == "all" || format == kind)
        };
        let count = context.texts.view.parts.iter().filter(image).count() as f64;
        count >= number(arguments, 1).unwrap_or(0.0) && number(arguments, 2).is_none_or(|most| count <= most)
    }),
    ("multipart_alternative_difference", |context, arguments| {
        difference(context).is_some_and(|(percent, ..)| within_or_zero(percent, arguments))
    }),
    ("multipart_alternative_difference_count", |context, arguments| {
        difference(context).is_some_and(|(_, html, text)| {
            text > 0
                && html as f64 / text as f64 > number(arguments, 0).unwrap_or(0.0)
                && html as f64 > number(arguments, 1).unwrap_or(0.0)
        })
    }),
    ("tvd_vertical_words", tvd_vertical_words),
];

/// What `check_for_mime` knows.
pub const MIME_TESTS: &[&str] = &[
    "mime_attachment",
    "mime_bad_iso_charset",
    "mime_base64_count",
    "mime_base64_encoded_text",
    "mime_qp_count",
    "mimepart_limit_exceeded",
];
/// What `check_msg_parse_flags` knows.
pub const PARSE_FLAGS: &[&str] = &["missing_head_body_separator", "truncated_header"];

fn any(context: &Context<'_, '_, '_>, test: impl Fn(&Part<'_>) -> bool) -> bool {
    context.texts.view.parts.iter().any(test)
}

fn is_html(part: &Part<'_>) -> bool {
    matches!(part.body, Body::Html(_))
}

fn top_type(context: &Context<'_, '_, '_>) -> String {
    context.texts.view.header.text("Content-Type").trim_start().to_ascii_lowercase()
}

/// The lower bound counts only when it is above zero.
fn within_or_zero(value: f64, arguments: &[String]) -> bool {
    number(arguments, 0).is_none_or(|low| low == 0.0 || value > low)
        && number(arguments, 1).is_none_or(|high| value <= high)
}

fn check_base64_length(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let longest = || {
        let body = context.texts.view.body_raw();
        let is_base64 =
            |line: &&[u8]| line.len() > 60 && line.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=\r".contains(b));
        body.split(|&byte| byte == b'\n').filter(is_base64).map(|line| line.trim_ascii_end().len()).max().unwrap_or(0)
    };
    any(context, |part| part.base64) && within(longest() as f64, arguments, 0)
}

fn check_blank_line_ratio(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let pieces = context.texts.raw();
    let lines = pieces.iter().flat_map(|piece| piece.split(|&byte| byte == b'\n'));
    let (mut all, mut blank) = (0u32, 0u32);
    for line in lines {
        all += 1;
        blank += u32::from(line.trim_ascii().is_empty());
    }
    f64::from(all) >= number(arguments, 2).unwrap_or(1.0).max(1.0)
        && within_or_zero(100.0 * f64::from(blank) / f64::from(all), arguments)
}

/// 8-bit bytes in text that says it is ASCII.
fn check_for_ascii_text_illegal(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    any(context, |part| {
        matches!(part.body, Body::Text(_)) && part.charset.as_deref() == Some("us-ascii") && !part.bytes().is_ascii()
    })
}

fn check_for_mime(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let header_has = |part: &Part<'_>, value: &str| {
        let header = part.header.to_ascii_lowercase();
        memchr::memmem::find(&header, value.as_bytes()).is_some()
    };
    match arguments.first().map(String::as_str) {
        Some("mime_attachment") => any(context, |part| part.name.is_some() && part.attachment),
        Some("mime_bad_iso_charset") => any(context, |part| {
            // All of ISO's charsets that mail uses are iso-8859-N, iso-2022-X and iso-10646-X.
            let name = part.charset.as_deref().and_then(|charset| charset.strip_prefix("iso-"));
            name.is_some_and(|name| !["8859-", "2022-", "10646-", "ir-"].iter().any(|known| name.starts_with(known)))
        }),
        Some("mime_base64_count") => any(context, |part| part.base64),
        Some("mime_base64_encoded_text") => any(context, |part| {
            let plain =
                part.charset.as_deref().is_none_or(|charset| charset == "us-ascii" || charset.starts_with("iso-8859-"));
            part.base64 && part.content_type.starts_with("text/") && !part.attachment && plain
        }),
        Some("mime_qp_count") => any(context, |part| header_has(part, "quoted-printable")),
        Some("mimepart_limit_exceeded") => {
            context.texts.view.budget.exceeded().any(|row| matches!(row.limit, Limit::Parts | Limit::Nesting))
        }
        _ => false,
    }
}

fn check_for_uppercase(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let text = context.texts.view.text.as_bytes();
    let upper = text.iter().filter(|byte| byte.is_ascii_uppercase()).count();
    let letters = upper + text.iter().filter(|byte| byte.is_ascii_lowercase()).count();
    // SpamAssassin judges no text shorter than 200 letters.
    letters >= 200 && within(100.0 * upper as f64 / letters as f64, arguments, 0)
}

fn check_mime_multipart_ratio(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let size = |html: bool| -> usize {
        let parts = context
            .texts
            .view
            .parts
            .iter()
            .filter(|part| part.content_type.starts_with("text/") && is_html(part) == html);
        parts.map(|part| part.bytes().len()).sum()
    };
    let (plain, html) = (size(false) as f64, size(true) as f64);
    plain > 0.0 && html > 0.0 && within(plain / html, arguments, 0)
}

fn check_msg_parse_flags(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let view = context.texts.view;
    match arguments.first().map(String::as_str) {
        Some("missing_head_body_separator") => view.header.body_offset == view.raw.len() && !view.header.raw.is_empty(),
        Some("truncated_header") => view.budget.exceeded().any(|row| row.symbol.starts_with("LIMIT_HEADER")),
        _ => false,
    }
}

/// Per cent of the HTML part's words that its plain alternative lacks, and the words of both.
fn difference(context: &Context<'_, '_, '_>) -> Option<(f64, usize, usize)> {
    if !top_type(context).starts_with("multipart/") {
        return None;
    }
    let view = context.texts.view;
    let plain = view.parts.iter().find_map(|part| match &part.body {
        Body::Text(text) if part.content_type == "text/plain" && !part.attachment => Some(text),
        _ => None,
    })?;
    let html = view.parts.iter().find_map(|part| match &part.body {
        Body::Html(html) if !part.attachment => Some(crate::filter::message::html::read(html).text),
        _ => None,
    })?;
    let words = |text: &str| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let words = text
            .split_whitespace()
            .filter(|word| word.bytes().any(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        words.for_each(|word| *counts.entry(word.to_owned()).or_default() += 1);
        counts
    };
    let (html, plain) = (words(&html), words(plain));
    if html.is_empty() {
        return None;
    }
    let missing = html.iter().filter(|(word, count)| plain.get(*word).is_none_or(|there| there < count)).count();
    Some((100.0 * missing as f64 / html.len() as f64, html.len(), plain.len()))
}

/// Lines of one word each: text written downwards.
fn tvd_vertical_words(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let lines: Vec<&str> = context.texts.view.text.lines().filter(|line| !line.trim().is_empty()).collect();
    let single = lines.iter().filter(|line| line.split_whitespace().count() == 1).count();
    lines.len() > 5 && within(100.0 * single as f64 / lines.len() as f64, arguments, 0)
}
