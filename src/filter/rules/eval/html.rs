//! HTMLEval, HTTPSMismatch, URIEval: how a page is built. Pure.

use super::{Context, Function, number, within};
use crate::filter::message::html::{Page, tag_hash};
use crate::filter::message::url::{URL_BYTES_MAX, registered};
use crate::filter::message::{Source, Url};

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_https_http_mismatch", check_https_http_mismatch),
    ("check_https_ip_mismatch", |context, _| {
        links(context).any(|url| url.is_ip() && url.anchor.starts_with("https://"))
    }),
    ("check_iframe_src", |context, _| any_page(context, |page| page.links.iter().any(|link| link.element == "frame"))),
    // Ours: of whatever scheme; what a redirector on the way to what is shown does is no lie.
    ("check_link_text_mismatch", |context, _| {
        let leads_to = |domain: &str| {
            let mut redirected = context.texts.view.urls.iter().filter(|url| url.source == Source::Redirected);
            redirected.any(|url| url.domain() == domain)
        };
        links(context).any(|url| {
            let shown = shown_domain(&url.anchor);
            shown.is_some_and(|domain| domain != url.domain() && !leads_to(&domain))
        })
    }),
    ("check_uri_truncated", |context, _| context.texts.view.urls.iter().any(|url| url.text.len() >= URL_BYTES_MAX)),
    ("html_eval", |context, arguments| {
        let (Some(name), Some(test)) = (arguments.first(), arguments.get(1)) else { return false };
        any_page(context, |page| number_of(page, name).is_some_and(|value| compare(value, test)))
    }),
    ("html_image_only", |context, arguments| {
        any_page(context, |page| page.images > 0 && within(page.source_bytes as f64, arguments, 0))
    }),
    // Ours: bytes of text that no reader sees, and whether they are more than those that he does.
    ("html_hidden_text", |context, arguments| {
        let (hidden, seen) = (context.texts.view.hidden.len(), context.texts.view.text.len());
        number(arguments, 0).is_some_and(|least| hidden as f64 >= least) && hidden > seen
    }),
    // Ours: what is seen counts, where SpamAssassin's html_image_only counts the source.
    ("html_image_and_text", |context, arguments| {
        any_page(context, |page| page.images > 0 && within(page.text.len() as f64, arguments, 0))
    }),
    ("html_image_ratio", |context, arguments| {
        any_page(context, |page| {
            page.image_area > 0 && within(page.ink_bytes as f64 / page.image_area as f64, arguments, 0)
        })
    }),
    ("html_range", |context, arguments| {
        let Some(name) = arguments.first() else { return false };
        any_page(context, |page| number_of(page, name).is_some_and(|value| within(value, arguments, 1)))
    }),
    ("html_tag_balance", html_tag_balance),
    ("html_tag_exists", |context, arguments| {
        let name = arguments.first().map(|name| tag_hash(name.as_bytes()));
        any_page(context, |page| page.balance.iter().any(|(tag, _)| Some(*tag) == name))
    }),
    ("html_test", html_test),
    ("html_text_match", |context, arguments| texts(context, arguments).iter().any(|text| context.matches(text))),
    ("html_text_not_match", |context, arguments| texts(context, arguments).iter().any(|text| !context.matches(text))),
    ("html_title_subject_ratio", |context, arguments| {
        let subject = context.texts.view.header.text("Subject").len();
        let least = number(arguments, 0).unwrap_or(0.0);
        any_page(context, |page| subject > 0 && page.title.len() as f64 / subject as f64 > least)
    }),
];

/// What `html_test` knows.
pub const TESTS: &[&str] =
    &["embeds", "font_face_bad", "font_invalid_color", "font_low_contrast", "form_action_mailto", "html"];
/// What `html_eval` and `html_range` know.
pub const NUMBERS: &[&str] =
    &["closed_extra_ratio", "image_area", "length", "max_size", "min_size", "obfuscation_ratio"];

fn any_page(context: &Context<'_, '_, '_>, test: impl Fn(&Page) -> bool) -> bool {
    context.texts.view.pages.iter().any(test)
}

fn number_of(page: &Page, name: &str) -> Option<f64> {
    let per = |part: u32, all: u32| (all > 0).then(|| f64::from(part) / f64::from(all));
    match name {
        "closed_extra_ratio" => per(page.closed_extra, page.tags + page.closed),
        "image_area" => Some(page.image_area as f64),
        "length" => Some(page.source_bytes as f64),
        "max_size" => Some(f64::from(page.style.size_max)),
        "min_size" => Some(f64::from(page.style.size_min)),
        "obfuscation_ratio" => per(page.cut_words, page.tags + page.closed),
        _ => None,
    }
}

fn links<'c>(context: &'c Context<'_, '_, '_>) -> impl Iterator<Item = &'c Url> {
    context.texts.view.urls.iter().filter(|url| url.source == Source::Href)
}

/// The domain of the address that a link's text is, if it is one and nothing else.
fn shown_domain(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let rest = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let host = rest.or(Some(text.as_str()).filter(|text| text.starts_with("www.")))?;
    let host = host.split(['/', ':', '?', '#']).next()?;
    (host.contains('.') && !text.contains(char::is_whitespace)).then(|| registered(host).to_owned())
}

/// A link whose text shows an https address in another domain than the target's, on a page with so many links.
fn check_https_http_mismatch(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    // Targets that are addresses have a function of their own.
    let named: Vec<&Url> = links(context).filter(|url| !url.is_ip() && !url.anchor.is_empty()).collect();
    let mismatch = named.iter().any(|url| {
        let shown = url.anchor.split("https://").skip(1);
        let mut hosts =
            shown.map(|rest| rest.split(|c: char| c.is_whitespace() || "/:?#".contains(c)).next().unwrap_or(rest));
        hosts.any(|host| host.contains('.') && registered(&host.to_ascii_lowercase()) != url.domain())
    });
    let count = named.len() as f64;
    mismatch && count >= number(arguments, 0).unwrap_or(1.0) && number(arguments, 1).is_none_or(|below| count < below)
}

/// `< 512`, `!= 0` …
fn compare(value: f64, test: &str) -> bool {
    let test = test.trim();
    let split = test.find(|c: char| c.is_ascii_digit() || c == '-' || c == '+').unwrap_or(test.len());
    let (operator, number) = test.split_at(split);
    let Ok(number) = number.trim().parse::<f64>() else { return false };
    match operator.trim() {
        "<" => value < number,
        "<=" => value <= number,
        ">" => value > number,
        ">=" => value >= number,
        "!=" => value != number,
        "==" => value == number,
        _ => false,
    }
}

fn html_tag_balance(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let (Some(name), Some(test)) = (arguments.first(), arguments.get(1)) else { return false };
    let name = tag_hash(name.as_bytes());
    any_page(context, |page| {
        page.balance.iter().any(|(tag, balance)| *tag == name && compare(f64::from(*balance), test))
    })
}

fn html_test(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    match arguments.first().map(String::as_str) {
        Some("html") => !context.texts.view.pages.is_empty(),
        Some("embeds") => any_page(context, |page| {
            page.balance.iter().any(|(tag, _)| [b"object".as_slice(), b"embed"].map(tag_hash).contains(tag))
        }),
        Some("font_face_bad") => any_page(context, |page| page.style.face_bad),
        Some("font_invalid_color") => any_page(context, |page| page.style.color_bad),
        Some("font_low_contrast") => any_page(context, |page| page.style.low_contrast),
        Some("form_action_mailto") => any_page(context, |page| {
            page.links.iter().any(|link| link.element == "form" && link.href.to_ascii_lowercase().contains("mailto:"))
        }),
        _ => false,
    }
}

/// The texts of one kind on all pages.
fn texts(context: &Context<'_, '_, '_>, arguments: &[String]) -> Vec<String> {
    let pages = context.texts.view.pages.iter();
    match arguments.first().map(String::as_str) {
        Some("anchor") => {
            let anchors = pages.flat_map(|page| &page.links).filter(|link| link.element == "a");
            anchors.map(|link| format!("{}{}", if link.image { "<img>\n" } else { "" }, link.text)).collect()
        }
        Some("comment") => pages.flat_map(|page| &page.comments).map(|text| format!("<!--{text}-->")).collect(),
        Some("title") => pages.map(|page| page.title.clone()).filter(|title| !title.is_empty()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_as_rules_write_them() {
        assert!(compare(3.0, "< 512") && compare(-1.0, "!= 0") && !compare(0.0, "!= 0") && !compare(1.0, "what"));
        assert_eq!(super::super::number(&["inf".to_owned()], 0), None);
    }
}
