//! What styles say of whether an element is seen: declarations, and the style sheets that give them to elements. Pure. CSS 2.2 §4 to §6.
//!
//! Of a sheet, rules with one simple selector are read (`td`, `.x`, `p.x#y`, also below `body`); what depends on the rest of the tree,
//! on a pointer or on the size of a screen can show, but not hide, so that nothing is called hidden which may be seen.

use super::element::tag_hash;

/// What declarations say of an element. Nothing where they don't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Neither it nor what is within it is seen.
    pub gone: Option<bool>,
    /// Its text is too small to be seen; what is within it can be larger.
    pub tiny: Option<bool>,
    /// Said with `!important`.
    important: bool,
}

/// Properties that say whether something is seen.
const ASKED: [&str; 8] =
    ["display", "font-size", "height", "max-height", "mso-hide", "opacity", "overflow", "visibility"];
/// Pixels, and points, of a font that nobody sees.
const TINY: f32 = 1.5;
/// The same as a share of the font around it.
const TINY_SHARE: f32 = 0.1;
/// Less of it is no ink.
const OPACITY_MIN: f32 = 0.05;

/// Properties with their values, both as written (CSS 2.2 §4.1.8).
pub fn declarations(style: &str) -> impl Iterator<Item = (&str, &str)> {
    let declared = style.split(';').filter_map(|declaration| declaration.split_once(':'));
    declared.map(|(property, value)| (property.trim(), value.trim()))
}

impl Declared {
    /// Reads declarations: the value of a `style` attribute, or what stands between braces.
    pub fn read(style: &str) -> Self {
        let mut declared = Declared::default();
        let (mut flat, mut clipped) = (false, false);
        for (property, value) in declarations(style) {
            let Some(property) = ASKED.into_iter().find(|asked| property.eq_ignore_ascii_case(asked)) else { continue };
            let letters = value.chars().filter(|c| !c.is_ascii_whitespace());
            let value: String = letters.map(|c| c.to_ascii_lowercase()).collect();
            let value = value.as_str();
            let (value, important) = value.strip_suffix("!important").map_or((value, false), |value| (value, true));
            let gone = match property {
                "display" => Some(value == "none"),
                "visibility" => Some(value == "hidden" || value == "collapse"),
                "mso-hide" => (value == "all").then_some(true),
                "opacity" => value.parse::<f32>().is_ok_and(|opacity| opacity < OPACITY_MIN).then_some(true),
                "font-size" => {
                    declared.tiny = is_tiny(value).or(declared.tiny);
                    None
                }
                "height" | "max-height" => {
                    flat |= number(value).is_some_and(|(number, _)| number < TINY);
                    None
                }
                "overflow" => {
                    clipped = value == "hidden";
                    None
                }
                _ => None,
            };
            if gone.is_some() {
                // One that hides is enough.
                declared.gone = Some(declared.gone == Some(true) || gone == Some(true));
                declared.important |= important;
            }
        }
        if flat && clipped {
            declared.gone = Some(true);
        }
        declared
    }

    fn is_empty(self) -> bool {
        self.gone.is_none() && self.tiny.is_none()
    }

    /// The same where `stronger` says nothing.
    fn under(self, stronger: Declared) -> Self {
        let outdone = self.important && !stronger.important && self.gone.is_some();
        Declared {
            gone: if outdone { self.gone } else { stronger.gone.or(self.gone) },
            tiny: stronger.tiny.or(self.tiny),
            important: self.important || stronger.important,
        }
    }
}

/// Whether a font's size is too small, if it is a size of its own.
fn is_tiny(value: &str) -> Option<bool> {
    let (number, unit) = number(value)?;
    match unit {
        "em" | "rem" | "%" => (number < if unit == "%" { 100.0 * TINY_SHARE } else { TINY_SHARE }).then_some(true),
        _ => Some(number < TINY),
    }
}

fn number(value: &str) -> Option<(f32, &str)> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    value[..value.len() - unit.len()].parse().ok().map(|number| (number, unit))
}

/// The rules of a page's style sheets that say whether something is seen.
#[derive(Default)]
pub struct Sheet {
    rules: Vec<Rule>,
}

struct Rule {
    selector: Selector,
    declared: Declared,
}

/// Names by their hashes, in lower case: mail is shown in quirks mode.
#[derive(Default)]
struct Selector {
    tag: Option<u32>,
    ids: Vec<u32>,
    classes: Vec<u32>,
}

/// Rules of a page that are kept.
const RULES_MAX: usize = 256;
/// Blocks within blocks that are looked into.
const DEPTH_MAX: usize = 4;

impl Sheet {
    /// Adds a style sheet.
    pub fn add(&mut self, css: &str) {
        self.read(&without_comments(css), false, 0);
        // Rules of more weight come later; among equals the order stays.
        self.rules.sort_by_key(|rule| (rule.declared.important, rule.selector.weight()));
    }

    fn read(&mut self, css: &str, conditional: bool, depth: usize) {
        let mut rest = css;
        while let Some(open) = rest.find(['{', ';']) {
            let (prelude, behind) = (rest[..open].trim(), &rest[open + 1..]);
            if rest.as_bytes()[open] == b';' {
                // A statement without a block: `@import`.
                rest = behind;
                continue;
            }
            let end = end_of_block(behind);
            let block = &behind[..end];
            rest = behind.get(end + 1..).unwrap_or_default();
            match prelude.strip_prefix('@') {
                Some(at) if depth < DEPTH_MAX && (at.starts_with("media") || at.starts_with("supports")) => {
                    self.read(block, conditional || !at.strip_prefix("media").is_some_and(is_for_screen), depth + 1);
                }
                Some(_) => {}
                None => {
                    let mut declared = Declared::read(block);
                    if conditional {
                        declared.gone = declared.gone.filter(|gone| !gone);
                        declared.tiny = declared.tiny.filter(|tiny| !tiny);
                    }
                    let selectors = prelude.split(',').filter_map(Selector::read);
                    let rules = selectors.map(|selector| Rule { selector, declared });
                    if !declared.is_empty() {
                        self.rules.extend(rules.take(RULES_MAX - self.rules.len()));
                    }
                }
            }
        }
    }

    /// What is declared of an element: by the sheets, and by its own `style`.
    pub fn declared(&self, tag: u32, id: u32, classes: &[u32], own: Declared) -> Declared {
        let fitting = self.rules.iter().filter(|rule| rule.selector.fits(tag, id, classes));
        fitting.fold(Declared::default(), |sheet, rule| sheet.under(rule.declared)).under(own)
    }
}

/// True if a list of media names a screen without a condition; an empty one names all (CSS Media Queries 4 §2.1).
pub fn is_for_screen(media: &str) -> bool {
    media
        .split(',')
        .any(|one| matches!(one.trim().to_ascii_lowercase().as_str(), "" | "all" | "screen" | "only screen"))
}

/// Styles with a blank for each comment.
pub fn without_comments(css: &str) -> String {
    let mut plain = String::with_capacity(css.len());
    let mut rest = css;
    while let Some((before, behind)) = rest.split_once("/*") {
        plain.push_str(before);
        plain.push(' ');
        rest = behind.split_once("*/").map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    // Old pages hide their sheets from older programs (CSS 2.2 §4.1.1).
    plain.replace("<!--", " ").replace("-->", " ")
}

/// Where the block ends that began before `text`.
fn end_of_block(text: &str) -> usize {
    let mut depth = 1;
    let end = text.bytes().position(|byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth == 0
    });
    end.unwrap_or(text.len())
}

/// The hash of a name, whatever its case.
pub fn name_hash(name: &[u8]) -> u32 {
    tag_hash(&name.to_ascii_lowercase())
}

impl Selector {
    /// Reads one; nothing if it depends on what is not followed.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| c.is_whitespace() || c == '>').filter(|part| !part.is_empty()).peekable();
        let mut last = parts.next()?;
        for part in parts {
            // All elements are within these.
            if !matches!(last.to_ascii_lowercase().as_str(), "*" | "body" | "html") {
                return None;
            }
            last = part;
        }
        let mut selector = Selector::default();
        let (mut kind, mut rest) = ('t', last);
        loop {
            let end =
                rest.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_' && c != '*').unwrap_or(rest.len());
            let name = &rest[..end];
            match kind {
                't' if name.is_empty() || name == "*" => {}
                't' => selector.tag = Some(name_hash(name.as_bytes())),
                _ if name.is_empty() => return None,
                '#' => selector.ids.push(name_hash(name.as_bytes())),
                _ => selector.classes.push(name_hash(name.as_bytes())),
            }
            kind = match rest[end..].chars().next() {
                None => return Some(selector),
                Some(kind @ ('.' | '#')) => kind,
                Some(_) => return None,
            };
            rest = &rest[end + 1..];
        }
    }

    fn weight(&self) -> (usize, usize, usize) {
        (self.ids.len(), self.classes.len(), usize::from(self.tag.is_some()))
    }

    fn fits(&self, tag: u32, id: u32, classes: &[u32]) -> bool {
        self.tag.is_none_or(|own| own == tag)
            && self.ids.iter().all(|own| *own == id)
            && self.classes.iter().all(|own| classes.contains(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(css: &str, tag: &str, class: &str, style: &str) -> Option<bool> {
        let mut sheet = Sheet::default();
        sheet.add(css);
        let classes: Vec<u32> = class.split_whitespace().map(|class| name_hash(class.as_bytes())).collect();
        let id = name_hash(b"top");
        sheet.declared(name_hash(tag.as_bytes()), id, &classes, Declared::read(style)).gone
    }

    #[test]
    fn rules_fit_elements_by_weight_and_order() {
        assert_eq!(gone(".x { color: red; DISPLAY : none }", "p", "a X", ""), Some(true));
        assert_eq!(gone(".x{display:none}", "p", "y", ""), None);
        assert_eq!(gone("p.x, div#top.x{visibility:hidden}", "div", "x", ""), Some(true));
        assert_eq!(gone(".x{display:none} p{display:block}", "p", "x", ""), Some(true));
        assert_eq!(gone(".x{display:none} .x{display:block}", "p", "x", ""), Some(false));
        assert_eq!(gone("p{display:none}", "p", "", "display:block"), Some(false));
        assert_eq!(gone("p{display:none !important}", "p", "", "display:block"), Some(true));
        assert_eq!(gone("html body > .x{max-height:0;overflow:hidden}", "p", "x", ""), Some(true));
    }

    #[test]
    fn what_may_be_seen_is_not_called_hidden() {
        assert_eq!(gone("@media only screen and (max-width:480px){.x{display:none}}", "p", "x", ""), None);
        let mobile = ".x{display:none!important}@media (min-width:480px){.x{display:block!important}}";
        assert_eq!(gone(mobile, "p", "x", ""), Some(false));
        assert_eq!(gone("@import url(x); @media screen { .x{display:none} }", "p", "x", ""), Some(true));
        assert_eq!(gone("/* .x{display:none} */ .y{}<!-- .z{display:none} -->", "p", "x y", ""), None);
        for css in
            ["div .x{display:none}", ".x:hover{display:none}", "[class=x]{display:none}", ".{display:none}", "{{", "}"]
        {
            assert_eq!(gone(css, "p", "x", ""), None, "{css}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        let tiny = |value: &str| Declared::read(&format!("font-size:{value}")).tiny;
        assert_eq!(["0", "1px", "0.01em", "2%"].map(tiny), [Some(true); 4]);
        assert_eq!(["9pt", "13px"].map(tiny), [Some(false); 2]);
        assert_eq!(["1em", "90%", "small", "inherit"].map(tiny), [None; 4]);
    }
}
