//! ImageInfo: sizes of attached images, read from their heads. Pure. GIF89a, PNG (RFC 2083), JPEG (ITU T.81).

use super::{Context, Function, between, number};
use crate::filter::message::{Body, Part};

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("image_count", |context, arguments| between(images(context, arguments).len() as f64, arguments, 1)),
    ("image_name_regex", |context, _| named(context).any(|name| context.matches(name))),
    ("image_named", |context, arguments| {
        arguments.first().is_some_and(|wanted| named(context).any(|name| name == wanted))
    }),
    ("image_size_exact", |context, arguments| {
        let wanted = number(arguments, 1).zip(number(arguments, 2));
        sizes(context, arguments).any(|(height, width)| wanted == Some((f64::from(height), f64::from(width))))
    }),
    ("image_size_range", |context, arguments| {
        let fits = |value: u32, low: usize| {
            number(arguments, low).is_none_or(|low| f64::from(value) >= low)
                && number(arguments, low + 2).is_none_or(|high| f64::from(value) <= high)
        };
        sizes(context, arguments).any(|(height, width)| fits(height, 1) && fits(width, 2))
    }),
    ("image_to_text_ratio", |context, arguments| {
        let pixels = area(context, arguments);
        let text = context.texts.body().bytes.len() as f64;
        let ratio = text / pixels;
        text > 0.0 && pixels > 0.0 && between(ratio, arguments, 1) && number(arguments, 2) != Some(ratio)
    }),
    ("pixel_coverage", |context, arguments| between(area(context, arguments), arguments, 1)),
];

fn named<'c>(context: &'c Context<'_, '_, '_>) -> impl Iterator<Item = &'c str> {
    context.texts.view.parts.iter().filter(|part| kind(part).is_some()).filter_map(|part| part.name.as_deref())
}

/// `gif`, `png` or `jpeg`, if it is one that came in base64.
fn kind(part: &Part<'_>) -> Option<&'static str> {
    match part.content_type.strip_prefix("image/").filter(|_| part.base64)? {
        "gif" => Some("gif"),
        "png" => Some("png"),
        "jpeg" | "jpg" => Some("jpeg"),
        _ => None,
    }
}

/// Images of the kind that the first argument names, or of `all`.
fn images<'c>(context: &'c Context<'_, '_, '_>, arguments: &[String]) -> Vec<&'c Part<'c>> {
    let wanted = arguments.first().map(String::as_str).unwrap_or_default();
    let parts = context.texts.view.parts.iter();
    parts.filter(|part| kind(part).is_some_and(|kind| wanted == "all" || kind == wanted)).collect()
}

fn sizes(context: &Context<'_, '_, '_>, arguments: &[String]) -> impl Iterator<Item = (u32, u32)> {
    images(context, arguments).into_iter().filter_map(|part| match &part.body {
        Body::Binary(bytes) => size(bytes),
        _ => None,
    })
}

fn area(context: &Context<'_, '_, '_>, arguments: &[String]) -> f64 {
    sizes(context, arguments).map(|(height, width)| f64::from(height) * f64::from(width)).sum()
}

/// Height and width in pixels.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let u16_at = |at: usize| Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let u32_at = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.starts_with(b"GIF8") {
        let little = |at: usize| Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
        return Some((little(8)?, little(6)?));
    }
    if bytes.starts_with(b"\x89PNG") {
        return Some((u32_at(20)?, u32_at(16)?));
    }
    if !bytes.starts_with(b"\xff\xd8") {
        return None;
    }
    let mut at = 2;
    // A JPEG is a chain of segments; the first that starts a frame (C0 to CF but for tables) tells the size.
    while bytes.get(at)? == &0xff {
        let marker = *bytes.get(at + 1)?;
        if (0xc0..=0xcf).contains(&marker) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return Some((u16_at(at + 5)?, u16_at(at + 7)?));
        }
        at += 2 + u16_at(at + 2)?.max(2) as usize;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_in_the_heads() {
        assert_eq!(size(b"GIF89a\x0a\x00\x14\x00"), Some((20, 10)));
        assert_eq!(size(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x0a\0\0\0\x14"), Some((20, 10)));
        assert_eq!(size(b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\0\x14\0\x0a"), Some((20, 10)));
        assert_eq!(size(b"\xff\xd8\xff\xe0\0\0\xff"), None);
    }
}
