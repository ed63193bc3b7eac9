//! HTMLEval, HTTPSMismatch, URIEval: how a page is built. Pure.

use super::{Context, Function, within};
use crate::filter::message::Source;
use crate::filter::message::html::{Page, tag_hash};
use crate::filter::message::url::URL_BYTES_MAX;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_https_http_mismatch", check_https_http_mismatch),
    ("check_uri_truncated", |context, _| context.texts.view.urls.iter().any(|url| url.text.len() >= URL_BYTES_MAX)),
    ("html_eval", html_eval),
    ("html_image_only", |context, arguments| {
        any_page(context, |page| page.images > 0 && within(page.text_bytes as f64, arguments, 0))
    }),
    ("html_image_ratio", |context, arguments| {
        any_page(context, |page| {
            page.image_area > 0 && within(page.text_bytes as f64 / page.image_area as f64, arguments, 0)
        })
    }),
    ("html_range", html_range),
    ("html_tag_balance", html_tag_balance),
    ("html_tag_exists", |context, arguments| {
        let name = arguments.first().map(|name| tag_hash(name.as_bytes()));
        any_page(context, |page| page.balance.iter().any(|(tag, _)| Some(*tag) == name))
    }),
    ("html_test", html_test),
    ("html_title_subject_ratio", |context, arguments| {
        let subject = context.texts.view.subject.len();
        any_page(context, |page| {
            !page.title.is_empty() && subject > 0 && within(page.title.len() as f64 / subject as f64, arguments, 0)
        })
    }),
];

/// What `html_test` knows.
pub const TESTS: &[&str] = &["embeds", "form_action_mailto", "html"];

fn any_page(context: &Context<'_, '_, '_>, test: impl Fn(&Page) -> bool) -> bool {
    context.texts.view.pages.iter().any(test)
}

/// Links whose text shows an https address on another host than the target's.
fn check_https_http_mismatch(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    context.texts.view.urls.iter().filter(|url| url.source == Source::Href).any(|url| {
        let shown = url.anchor.strip_prefix("https://").map(|rest| rest.split(['/', ' ', '?']).next().unwrap_or(rest));
        shown.is_some_and(|host| !host.eq_ignore_ascii_case(&url.host)) && url.text.starts_with("http://")
    })
}

fn html_eval(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let Some(test) = arguments.get(1) else { return false };
    any_page(context, |page| compare(page.text_bytes as f64, test))
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

/// The first argument is `length`; ratios of broken tags are not known, for a browser's tokenizer knows no bad tags.
fn html_range(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    any_page(context, |page| within(page.text_bytes as f64, arguments, 1))
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
        Some("embeds") => any_page(context, |page| page.frames > 0),
        Some("form_action_mailto") => any_page(context, |page| {
            page.links
                .iter()
                .any(|link| link.element == "form" && link.href.to_ascii_lowercase().starts_with("mailto:"))
        }),
        _ => false,
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
