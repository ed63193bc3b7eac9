//! Charsets of languages that nobody here reads, where `ok_locales` says which are read. Pure.

use super::{Context, Function};
use crate::filter::message::Part;
use crate::filter::message::header::lossy;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_faraway_charset", |context, _| faraway_part(context)),
    ("check_for_faraway_charset_in_headers", |context, _| {
        ["From", "Subject"].iter().flat_map(|name| context.texts.view.header.all(name)).any(|field| {
            let text = lossy(field.raw);
            text.split("=?")
                .skip(1)
                .filter_map(|word| word.split_once('?'))
                .any(|(charset, _)| is_far(context, charset))
        })
    }),
    ("html_charset_faraway", |context, _| {
        context.texts.view.parts.iter().any(|part| part.content_type == "text/html" && is_far_part(context, part))
    }),
];

/// Charsets by the language that is written in them; all others serve many languages.
const CHARSETS: [(&str, &[&str]); 5] = [
    ("ja", &["eucjp", "iso2022jp", "shiftjis", "xsjis", "jis"]),
    ("ko", &["euckr", "iso2022kr", "ksc5601"]),
    ("ru", &["koi8", "windows1251", "cp1251", "iso88595", "cp866"]),
    ("th", &["tis620", "windows874", "iso885911"]),
    ("zh", &["gb", "big5", "iso2022cn", "euctw"]),
];

/// True if a text part is written in a charset of a language that nobody here reads.
pub fn faraway_part(context: &Context<'_, '_, '_>) -> bool {
    context.texts.view.parts.iter().any(|part| part.content_type.starts_with("text/") && is_far_part(context, part))
}

fn is_far_part(context: &Context<'_, '_, '_>, part: &Part<'_>) -> bool {
    part.charset.as_deref().is_some_and(|charset| is_far(context, charset))
}

fn is_far(context: &Context<'_, '_, '_>, charset: &str) -> bool {
    if !context.lists.is_set("ok_locales") || context.lists.has("ok_locales", "all") {
        return false;
    }
    let plain: String = charset.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let language = CHARSETS.iter().find(|(_, names)| names.iter().any(|name| plain.starts_with(name)));
    language.is_some_and(|(language, _)| !context.lists.has("ok_locales", language))
}
