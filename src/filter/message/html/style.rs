//! What a text looks like: size and colours, from the elements around it. Pure.
//!
//! Only what stands in the elements themselves is read, not style sheets; and the ground of a table or page that is given by the
//! attribute `bgcolor` counts as white, because that is how the rules that ask for it were made.

use super::color::{self, Color};
use super::element::{Attribute, Element, STYLED, tag};
use super::sheet::declarations;

/// What was seen of it on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The largest font, as `<font size>` counts.
    pub size_max: i32,
    /// The smallest.
    pub size_min: i32,
    /// A font's name that no program would write.
    pub face_bad: bool,
    /// Text of a colour that is none.
    pub color_bad: bool,
    /// Text of nearly the colour of its ground.
    pub low_contrast: bool,
}

const SIZE_DEFAULT: i32 = 3; // HTML 4.01 §15.2.2

impl Default for Style {
    fn default() -> Self {
        Style { size_max: SIZE_DEFAULT, size_min: SIZE_DEFAULT, face_bad: false, color_bad: false, low_contrast: false }
    }
}

#[derive(Clone, Copy)]
struct Look {
    tag: u32,
    /// Nothing: it is no colour.
    text: Option<Color>,
    ground: Option<Color>,
    size: i32,
}

const PLAIN: Look = Look { tag: 0, text: Some([0; 3]), ground: Some([255; 3]), size: SIZE_DEFAULT };
/// Elements within each other whose style is followed.
const DEPTH_MAX: usize = 256;
/// Below this nobody sees a difference.
const DISTANCE_MIN: f32 = 12.0;

/// Follows the styles of a page.
#[derive(Default)]
pub struct Styles {
    /// What was seen.
    pub seen: Style,
    open: Vec<Look>,
    next: Option<Look>,
}

impl Styles {
    fn top(&self) -> Look {
        self.open.last().copied().unwrap_or(PLAIN)
    }

    /// A start tag begins.
    pub fn open(&mut self, element: Element) {
        self.next = None;
        if !element.is(STYLED) {
            return;
        }
        let tag = canonical(element.tag);
        // A cell or row ends the one before it, however that was left.
        let within: &[u32] = match tag {
            tag::TR => &[tag::FONT, tag::TD, tag::TR],
            tag::TD => &[tag::FONT, tag::TD],
            _ => &[],
        };
        if !within.is_empty() && self.open.iter().any(|look| look.tag == tag) {
            while self.open.pop_if(|look| within.contains(&look.tag)).is_some() {}
        }
        let mut look = Look { tag, ..self.top() };
        match tag {
            tag::BIG => look.size += 1,
            tag::SMALL => look.size -= 1,
            _ => {}
        }
        self.next = Some(look);
    }

    /// It has this attribute.
    pub fn attribute(&mut self, name: Attribute, value: &str) {
        let above = self.top();
        let Some(look) = &mut self.next else { return };
        match (name, look.tag) {
            (Attribute::Color, tag::FONT) | (Attribute::Text, tag::BODY) => look.text = color::parse(value),
            (Attribute::Size, tag::FONT) => look.size = font_size(value).unwrap_or(look.size),
            (Attribute::Face, tag::FONT) => self.seen.face_bad |= !is_face(value),
            (Attribute::Style, tag::TABLE | tag::TD | tag::TR | tag::SPAN | tag::P | tag::DIV | tag::A) => {
                declared(look, value, above)
            }
            _ => {}
        }
        self.seen.size_max = self.seen.size_max.max(look.size);
        self.seen.size_min = self.seen.size_min.min(look.size);
    }

    /// The start tag ends.
    pub fn opened(&mut self) {
        if let Some(look) = self.next.take()
            && self.open.len() < DEPTH_MAX
        {
            self.open.push(look);
        }
    }

    /// An end tag.
    pub fn close(&mut self, element: Element) {
        let tag = canonical(element.tag);
        if tag != tag::BODY
            && let Some(place) = self.open.iter().rposition(|look| look.tag == tag)
        {
            self.open.truncate(place);
        }
    }

    /// Text stands here.
    pub fn text(&mut self, text: &str) {
        if self.seen.low_contrast && self.seen.color_bad || text.trim().is_empty() {
            return;
        }
        match self.top() {
            Look { text: Some(text), ground: Some(ground), .. } => {
                self.seen.low_contrast |= color::distance(text, ground) < DISTANCE_MIN;
            }
            Look { text: None, ground: None, .. } => self.seen.low_contrast = true,
            _ => self.seen.color_bad = true,
        }
    }
}

/// `th` is a cell like `td`.
fn canonical(tag: u32) -> u32 {
    if tag == tag::TH { tag::TD } else { tag }
}

/// `7`, `+2`, `-1`.
fn font_size(text: &str) -> Option<i32> {
    let text = text.trim();
    let end = text.char_indices().find(|(at, c)| !(c.is_ascii_digit() || *at == 0 && (*c == '+' || *c == '-')));
    let number: i32 = text[..end.map_or(text.len(), |(at, _)| at)].parse().ok()?;
    Some(if text.starts_with(['+', '-']) { SIZE_DEFAULT.saturating_add(number) } else { number })
}

/// Names of fonts in a list, of letters, blanks and hyphens.
fn is_face(text: &str) -> bool {
    text.trim_end_matches(';').split(',').all(|name| {
        let name = name.trim_start();
        let name = name.strip_prefix(['"', '\'', '.']).unwrap_or(name);
        let name = name.strip_suffix(['"', '\'']).unwrap_or(name);
        let name = name.strip_suffix(|c: char| c.is_ascii_digit()).unwrap_or(name);
        name.len() >= 2
            && name.ends_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b' ' || byte == b'-')
    })
}

fn declared(look: &mut Look, style: &str, above: Look) {
    for (property, value) in declarations(style) {
        let of_text = property.eq_ignore_ascii_case("color");
        let of_ground = property.eq_ignore_ascii_case("background-color");
        if !of_text && !of_ground && property != "background" {
            continue;
        }
        let value = value.to_ascii_lowercase();
        let value = value.trim_end_matches("!important").trim_end();
        if of_text {
            look.text = if value == "transparent" { look.ground } else { named(value, look.text) };
        } else if of_ground {
            look.ground = if value == "transparent" { above.ground } else { named(value, look.ground) };
        } else if let Some(color) = value.split([' ', ',']).find_map(color::parse) {
            look.ground = Some(color);
        }
    }
}

fn named(value: &str, inherited: Option<Color>) -> Option<Color> {
    if value == "inherit" {
        return inherited;
    }
    if !value.contains("rgb") {
        return color::parse(value);
    }
    let mut numbers = value.split([',', '(', ')']).filter_map(|part| part.trim().parse::<f32>().ok());
    let mut next = || numbers.next().map_or(0, |number| number.clamp(0.0, 255.0) as u8);
    Some([next(), next(), next()])
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn text_of_the_colour_of_its_ground_is_noticed() {
        for html in [
            "<font color=white>x</font>",
            "<p style='color:#fefefe'>x",
            "<div style='background:black url(a.gif)'><span style='COLOR: rgb(1,1,1)'>x",
        ] {
            assert!(read(html).style.low_contrast, "{html}");
        }
        for html in ["<font color=white> </font>x", "<p style='color:#777'>x", "<font color=red>x"] {
            assert!(!read(html).style.low_contrast, "{html}");
        }
    }

    #[test]
    fn fonts_and_colours_that_nobody_writes() {
        let style = read("<font face='\"Tahoma\", Arial 2x, b' size=+4 color=reddish>x").style;
        assert!(style.face_bad && style.color_bad && style.size_max == 7);
        let style = read("<font face='Verdana, Sans-Serif;' size=2><small>x").style;
        assert!(!style.face_bad && style.size_min == 2);
    }
}
