//! BodyEval, MIMEEval: what the text is like. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Context, Function, mime, number};
use crate::filter::message::{Body, html};

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_blank_line_ratio", check_blank_line_ratio),
    ("check_body_length", |context, arguments| {
        number(arguments, 0).is_some_and(|most| context.texts.view.body_raw().len() as f64 <= most)
    }),
    ("check_for_uppercase", check_for_uppercase),
    ("check_stock_info", check_stock_info),
    ("multipart_alternative_difference", |context, arguments| within_or_zero(difference(context).missing, arguments)),
    ("multipart_alternative_difference_count", |context, arguments| {
        let difference = difference(context);
        difference.page_words > number(arguments, 1).unwrap_or(0.0)
            && difference.plain_words / difference.page_words > number(arguments, 0).unwrap_or(0.0)
    }),
    ("plaintext_body_length", |context, arguments| {
        signature(context).is_some_and(|(body, _)| super::between(body as f64, arguments, 0))
    }),
    ("plaintext_body_sig_ratio", |context, arguments| {
        signature(context).is_some_and(|(body, signature)| {
            // Without a signature the text is longer by far.
            let ratio = if signature == 0 { 1e6 } else { body as f64 / signature as f64 };
            super::between(ratio, arguments, 0)
        })
    }),
    ("plaintext_sig_length", |context, arguments| {
        signature(context).is_some_and(|(_, signature)| super::between(signature as f64, arguments, 0))
    }),
    ("tvd_vertical_words", tvd_vertical_words),
];

/// The lower bound counts only when it is above zero.
fn within_or_zero(value: f64, arguments: &[String]) -> bool {
    number(arguments, 0).is_none_or(|low| low == 0.0 || value > low)
        && number(arguments, 1).is_none_or(|high| value <= high)
}

fn check_blank_line_ratio(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let pieces = context.texts.raw();
    let (mut all, mut blank) = (0u32, 0u32);
    for line in pieces.iter().flat_map(|piece| piece.split_inclusive(|&byte| byte == b'\n')) {
        all += 1;
        blank += u32::from(line.trim_ascii().is_empty());
    }
    f64::from(all) >= number(arguments, 2).unwrap_or(1.0).max(1.0)
        && within_or_zero(100.0 * f64::from(blank) / f64::from(all), arguments)
}

/// Letters below which no text is judged.
const LETTERS_MIN: usize = 200;

/// Per cent of capitals among letters and digits, in lines of more than one word.
fn check_for_uppercase(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    super::within(*context.texts.once.capitals.get_or_init(|| capitals(context)), arguments, 0)
}

fn capitals(context: &Context<'_, '_, '_>) -> f64 {
    let text = context.texts.body();
    let lines = (0..text.count()).map(|number| text.segment(number).1.trim_ascii());
    let (mut all, mut upper, mut others) = (0, 0, 0);
    for line in lines.filter(|line| line.iter().any(u8::is_ascii_whitespace)) {
        all += line.len() + 1;
        upper += count_bytes(line, |byte| byte.is_ascii_uppercase());
        others += count_bytes(line, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    }
    let share = if upper + others == 0 { 0.0 } else { 100.0 * upper as f64 / (upper + others) as f64 };
    if all < LETTERS_MIN { 0.0 } else { share }
}

/// Counts many bytes at once: a byte holds the sum of as many as it can count.
fn count_bytes(bytes: &[u8], counts: impl Fn(u8) -> bool) -> usize {
    let sum = |some: &[u8]| some.iter().map(|&byte| u8::from(counts(byte))).sum::<u8>();
    bytes.chunks(u8::MAX.into()).map(|some| usize::from(sum(some))).sum()
}

/// Words that head the lines of a tip for buying shares, each counted once.
fn check_stock_info(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    const HEADS: [&str; 26] = [
        "tradedate",
        "tradingdate",
        "company",
        "companyname",
        "stock",
        "symbol",
        "sym",
        "target",
        "ticker",
        "openingprice",
        "currentprice",
        "currentp",
        "openingp",
        "projected",
        "position",
        "expectations",
        "weekhigh",
        "weekshigh",
        "marketperformance",
        "yeartarget",
        "weektarget",
        "monthtarget",
        "daytarget",
        "pricetarget",
        "sector",
        "rating",
    ];
    let plain = context.texts.view.parts.iter().find(|part| part.content_type == "text/plain");
    let Some(Body::Text(text)) = plain.map(|part| &part.body) else { return false };
    let mut seen: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.trim().is_empty())
        .filter_map(|(head, _)| {
            let head: String = head.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
            HEADS.iter().find(|known| head.ends_with(**known)).copied()
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    number(arguments, 0).is_none_or(|least| seen.len() as f64 >= least)
}

/// How a page differs from its plain alternative.
#[derive(Default)]
pub struct Difference {
    /// Per cent of the page's words that the plain text lacks.
    missing: f64,
    /// Distinct words of both.
    page_words: f64,
    plain_words: f64,
}

fn difference<'c>(context: &'c Context<'_, '_, '_>) -> &'c Difference {
    context.texts.once.difference.get_or_init(|| read_difference(context))
}

/// How often each word stands.
type Counts<'t> = HashMap<&'t str, usize, foldhash::fast::RandomState>;

fn count<'t>(counts: &mut Counts<'t>, text: &'t str) {
    let tells = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let words = text.split_whitespace().filter(|word| {
        word.as_bytes().iter().any(tells) || !word.is_ascii() && word.contains(|c: char| c.is_alphanumeric())
    });
    words.for_each(|word| *counts.entry(word).or_default() += 1);
}

fn read_difference(context: &Context<'_, '_, '_>) -> Difference {
    if !mime::is_alternative(context) {
        return Difference::default();
    }
    let (mut page, mut plain): (Counts<'_>, Counts<'_>) = Default::default();
    let view = context.texts.view;
    let mut pages = Vec::new();
    // Pages that a reader is shown have been read.
    let mut known = view.pages.iter();
    for part in &view.parts {
        let read = if part.is_shown() && matches!(part.body, Body::Html(_)) { known.next() } else { None };
        match &part.body {
            _ if !part.content_type.starts_with("text/") => {}
            Body::Html(source) => {
                let whole = read.filter(|page| page.source_bytes == source.len());
                pages.push(whole.map_or_else(|| Cow::Owned(html::read(source)), Cow::Borrowed));
            }
            Body::Text(text) => count(&mut plain, text),
            Body::Binary(_) => {}
        }
    }
    for read in &pages {
        // The text of one that was read before has been moved, that of the others has not.
        let moved = [&view.text[read.moved.seen.clone()], &view.hidden[read.moved.hidden.clone()]];
        let own = [read.text.as_str(), &read.hidden, &read.title];
        moved.into_iter().chain(own).for_each(|text| count(&mut page, text));
        if page.is_empty() && read.images > 0 {
            // A page of pictures alone has one word that no plain text can have.
            page.insert("\n", 1);
        }
    }
    if page.is_empty() {
        return Difference::default();
    }
    let missing = page.iter().filter(|(word, count)| plain.get(*word).is_none_or(|there| there < count)).count();
    let (page_words, plain_words) = (page.len() as f64, plain.len() as f64);
    Difference { missing: 100.0 * missing as f64 / page_words, page_words, plain_words }
}

/// Bytes of the first plain text before its signature, and of the signature (RFC 3676 §4.3).
fn signature(context: &Context<'_, '_, '_>) -> Option<(usize, usize)> {
    let part = context.texts.view.parts.iter().find(|part| part.content_type == "text/plain")?;
    let Body::Text(text) = &part.body else { return None };
    let mut at = 0;
    let mut found = (text.len(), 0);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        // A mark on the last lines separates nothing.
        if matches!(line.trim_end_matches(['\r', '\n']), "--" | "-- ") && text.len() - end > 3 {
            found = (at, text.len() - end + 1);
        }
        at = end;
    }
    Some(found)
}

/// Blanks for each hundred other characters in the paragraph that has most; few mean that words stand below each other.
fn tvd_vertical_words(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let text = context.texts.body();
    let lines = (0..text.count()).map(|number| text.segment(number).1);
    let shares = lines.filter(|line| line.len() + 1 > 5).map(|line| {
        let blanks = line.iter().filter(|byte| **byte == b' ').count();
        let others = line.len() + 1 - blanks;
        if blanks > others { 100 } else { 100 * blanks / others }
    });
    let most = shares.max().map_or(-1.0, |share| share as f64);
    let high = number(arguments, 1).map(|high| if high >= 100.0 { 101.0 } else { high });
    number(arguments, 0).is_none_or(|low| most >= low) && high.is_none_or(|high| most < high)
}
