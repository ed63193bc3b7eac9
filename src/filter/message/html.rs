//! HTML to what a reader sees: visible text, hidden text, links, and a few facts of its build. Pure. WHATWG tokenizer.
//!
//! One pass without a tree. Text below an element that hides it is kept apart, because that is where spam puts its
//! innocent words. Never fails: the tokenizer accepts any bytes.

mod color;
mod element;
mod sheet;
mod style;
mod tokens;
mod veil;

use std::ops::Range;

use html5gum::emitters::callback::CallbackEvent;

use super::header::lossy;
pub use element::tag_hash;
use element::{Attribute, Element, LINE, PARAGRAPH, SILENT, tag};
pub use style::Style;
use style::Styles;
pub use tokens::read;
use veil::Veil;

/// One link with the text that stands for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The target as written.
    pub href: String,
    /// The visible text between the tags.
    pub text: String,
    /// The element: `a`, `img`, `form` …
    pub element: &'static str,
    /// An image stands between the tags.
    pub image: bool,
}

/// Where the text of a page stands in [`super::View::text`] and [`super::View::hidden`].
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// What a reader sees.
    pub seen: Range<usize>,
    /// What he can't see.
    pub hidden: Range<usize>,
}

/// What one HTML part shows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Visible text; blocks are separated by line ends.
    pub text: String,
    /// Text that a reader can't see.
    pub hidden: String,
    /// Where both stand in the text of the message, once they have been moved there.
    pub moved: Moved,
    /// The title.
    pub title: String,
    /// Links, images, forms, frames.
    pub links: Vec<Link>,
    /// Tags opened.
    pub tags: u32,
    /// Tags closed.
    pub closed: u32,
    /// Tags closed that were not open.
    pub closed_extra: u32,
    /// Words that a tag cuts in two.
    pub cut_words: u32,
    /// Bytes of the page.
    pub source_bytes: usize,
    /// Bytes of its text, seen or hidden, that are no blanks.
    pub ink_bytes: usize,
    /// `img` elements.
    pub images: u32,
    /// `form` elements.
    pub forms: u32,
    /// `input` elements of type password.
    pub passwords: u32,
    /// `script` elements and event attributes.
    pub scripts: u32,
    /// `iframe`, `object`, `embed`.
    pub frames: u32,
    /// `meta http-equiv=refresh`.
    pub refreshes: u32,
    /// The first comments, each with its beginning.
    pub comments: Vec<String>,
    /// Fonts and colours.
    pub style: Style,
    /// Tags by the hash of their name ([`tag_hash`]): opened less closed.
    pub balance: Vec<(u32, i32)>,
    /// Pixels of images that name their size; a share of the screen counts as one of 800 by 600.
    pub image_area: u64,
    /// Tag names in order of opening, at most [`SHAPE_TAGS_MAX`], hashed.
    pub shape: Vec<u32>,
}

/// Distinct tags that are counted; HTML has 140.
const TAGS_MAX: usize = 256;
/// Tags that a page's shape remembers: the head of a page tells its template.
const SHAPE_TAGS_MAX: usize = 64;
/// Bytes of one style sheet that are read.
const SHEET_BYTES_MAX: usize = 64 * 1024;
/// Links of one page that are kept.
const LINKS_MAX: usize = 1_000;
/// Comments of one page that are kept, and the bytes of each.
const COMMENTS_MAX: usize = 64;
const COMMENT_BYTES_MAX: usize = 256;

/// What is made of a page's tokens.
#[derive(Default)]
struct Reader {
    page: Page,
    /// The start tag and the attribute that are being read.
    element: Element,
    attribute: Attribute,
    link: Option<Link>,
    /// What a reader can't see.
    veil: Veil,
    /// The style sheet that is being read, and whether it is for a screen.
    sheet: String,
    for_screen: bool,
    /// The element that is not shown and has not ended yet.
    silent: Option<u32>,
    width: Option<u64>,
    height: Option<u64>,
    styles: Styles,
    /// The text before the last tag ended within a word.
    in_word: bool,
}

impl Reader {
    /// The page, once all of it was read.
    fn done(mut self) -> Page {
        if let Some(link) = self.link.take() {
            self.keep(link);
        }
        let mut page = self.page;
        let ink = |text: &str| text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
        page.ink_bytes = ink(&page.text) + ink(&page.hidden) + ink(&page.title);
        page.style = self.styles.seen;
        page
    }

    fn event(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => self.open(name),
            CallbackEvent::AttributeName { name } => self.attribute_name(name),
            CallbackEvent::AttributeValue { value } => self.attribute_value(value),
            CallbackEvent::CloseStartTag { self_closing } => self.opened(*self_closing),
            CallbackEvent::EndTag { name } => self.close(name),
            CallbackEvent::String { value } => self.string(value),
            CallbackEvent::Comment { value } => {
                if self.page.comments.len() < COMMENTS_MAX {
                    let value = &value[..value.len().min(COMMENT_BYTES_MAX)];
                    self.page.comments.push(lossy(value).into_owned());
                }
            }
            CallbackEvent::Doctype { .. } | CallbackEvent::Error(_) => {}
        }
    }

    fn open(&mut self, name: &[u8]) {
        self.element = Element::named(name);
        let tag = self.element.tag;
        self.veil.begin();
        self.for_screen = true;
        self.page.tags += 1;
        if self.page.shape.len() < SHAPE_TAGS_MAX {
            self.page.shape.push(tag);
        }
        self.count_tag(tag, 1);
        (self.width, self.height) = (None, None);
        self.styles.open(self.element);
        match tag {
            tag::IMG => {
                self.page.images += 1;
                if let Some(link) = &mut self.link {
                    link.image = true;
                }
            }
            tag::FORM => self.page.forms += 1,
            tag::SCRIPT => self.page.scripts += 1,
            tag::IFRAME | tag::OBJECT | tag::EMBED => self.page.frames += 1,
            _ => {}
        }
    }

    fn attribute_name(&mut self, name: &[u8]) {
        self.attribute = Attribute::named(name);
        if name == b"hidden" {
            self.veil.hidden();
        } else if name.starts_with(b"on") && name.len() > 4 {
            self.page.scripts += 1;
        }
    }

    fn attribute_value(&mut self, value: &[u8]) {
        let mut value = lossy(value);
        if self.attribute == Attribute::Style && memchr::memmem::find(value.as_bytes(), b"/*").is_some() {
            value = sheet::without_comments(&value).into();
        }
        let value = value.as_ref();
        self.styles.attribute(self.attribute, value);
        self.veil.attribute(self.attribute, value);
        match self.attribute {
            Attribute::Media => self.for_screen = sheet::is_for_screen(value),
            Attribute::Target => self.target(value),
            Attribute::Width => self.width = Some(pixels(value, 8)),
            Attribute::Height => self.height = Some(pixels(value, 6)),
            Attribute::Kind => match value.to_ascii_lowercase().as_str() {
                "password" => self.page.passwords += 1,
                "refresh" => self.page.refreshes += 1,
                _ => {}
            },
            _ => {}
        }
    }

    fn target(&mut self, value: &str) {
        let element = match self.element.tag {
            tag::A | tag::AREA => "a",
            tag::IMG => "img",
            tag::FORM => "form",
            tag::IFRAME | tag::OBJECT | tag::EMBED => "frame",
            tag::BASE => "base",
            tag::LINK => "link",
            _ => "other",
        };
        let href = value.trim_ascii().to_owned();
        let link = Link { href, text: String::new(), element, image: false };
        if element == "a" {
            if let Some(open) = self.link.replace(link) {
                self.keep(open);
            }
        } else {
            self.keep(link);
        }
    }

    fn keep(&mut self, link: Link) {
        if self.page.links.len() < LINKS_MAX {
            self.page.links.push(link);
        }
    }

    fn count_tag(&mut self, hash: u32, by: i32) {
        let tags = &mut self.page.balance;
        let place = tags.iter().position(|(known, _)| *known == hash);
        let count = place.map_or(0, |place| tags[place].1) + by;
        self.page.closed_extra += u32::from(count < 0);
        match place {
            Some(place) => tags[place].1 = count.max(0),
            None if tags.len() < TAGS_MAX => tags.push((hash, count.max(0))),
            None => {}
        }
    }

    fn opened(&mut self, self_closing: bool) {
        let element = self.element;
        self.styles.opened();
        if element.tag == tag::IMG {
            let size = self.width.zip(self.height);
            self.page.image_area += size.map_or(0, |(width, height)| width * height);
        }
        if element.is(LINE) {
            self.in_word = false;
            self.line_end(element.is(PARAGRAPH));
        }
        if element.is(SILENT) && self.silent.is_none() && !self_closing {
            self.silent = Some(element.tag);
        }
        self.veil.open(element);
    }

    fn close(&mut self, name: &[u8]) {
        let element = Element::named(name);
        self.page.closed += 1;
        self.count_tag(element.tag, -1);
        self.styles.close(element);
        if self.silent == Some(element.tag) {
            self.silent = None;
        }
        match element.tag {
            tag::STYLE => {
                let sheet = std::mem::take(&mut self.sheet);
                if self.for_screen {
                    self.veil.sheet.add(&sheet);
                }
            }
            tag::A => {
                if let Some(link) = self.link.take() {
                    self.keep(link);
                }
            }
            tag::TITLE => self.in_word = false,
            _ => {}
        }
        if element.is(LINE) {
            self.in_word = false;
            self.line_end(element.is(PARAGRAPH));
        }
        self.veil.close(element);
    }

    fn line_end(&mut self, paragraph: bool) {
        let text = if self.veil.hides() { &mut self.page.hidden } else { &mut self.page.text };
        if text.is_empty() {
            return;
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if paragraph && !text.ends_with("\n\n") {
            text.push('\n');
        }
    }

    fn string(&mut self, value: &[u8]) {
        let text = lossy(value);
        if !matches!(self.silent, Some(tag::SCRIPT | tag::STYLE)) && !text.is_empty() {
            self.styles.text(&text);
            self.page.cut_words += u32::from(self.in_word && text.starts_with(is_word));
            self.in_word = text.ends_with(is_word);
        }
        match self.silent {
            Some(tag::TITLE) => append(&mut self.page.title, &text),
            Some(tag::STYLE) => {
                let room = SHEET_BYTES_MAX.saturating_sub(self.sheet.len());
                self.sheet.push_str(&text[..text.floor_char_boundary(room)]);
            }
            Some(_) => {}
            None if self.veil.hides() => append(&mut self.page.hidden, &text),
            None => {
                append(&mut self.page.text, &text);
                if let Some(link) = &mut self.link {
                    append(&mut link.text, &text);
                }
            }
        }
    }
}

/// True for what is neither a blank nor ASCII's punctuation.
fn is_word(c: char) -> bool {
    !c.is_whitespace() && !c.is_ascii_punctuation()
}

/// Pixels of an image whose size is not told.
const PIXELS_GUESSED: u64 = 200;
/// No screen has more.
const PIXELS_MAX: u64 = 10_000;

/// Pixels of an attribute, where a hundredth of the screen has `per_cent`; nonsense counts as a middling size.
fn pixels(value: &str, per_cent: u64) -> u64 {
    let (digits, factor) = value.strip_suffix('%').map_or((value, 1), |digits| (digits, per_cent));
    let number = digits.parse().unwrap_or(0).min(PIXELS_MAX) * factor;
    if number == 0 { PIXELS_GUESSED } else { number.min(PIXELS_MAX) }
}

/// Appends with runs of blanks made one, as a browser shows it.
fn append(out: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let word = rest.bytes().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        out.push_str(&rest[..word.unwrap_or(rest.len())]);
        let Some(word) = word else { return };
        if !out.is_empty() && !out.ends_with([' ', '\n']) {
            out.push(' ');
        }
        rest = &rest[word + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_text_is_kept_apart() {
        let page =
            read("<p>Buy <b>now</b><div style='display: none'>weather <i>news</i></div><p>here<script>x</script>");
        assert_eq!(page.text, "Buy now\n\nhere");
        assert_eq!(page.hidden, "weather news\n");
        assert_eq!(page.scripts, 1);
    }

    #[test]
    fn links_carry_their_text() {
        let page = read("<a href=' http://a.example/ '>my <b>bank</b></a><img src=cid:1><a href=x>y");
        assert_eq!(
            page.links[0],
            Link { href: "http://a.example/".into(), text: "my bank".into(), element: "a", image: false }
        );
        assert_eq!(page.links[2].text, "y");
        assert_eq!(page.images, 1);
    }

    #[test]
    fn a_page_tells_how_it_is_built() {
        let page = read("<!-- x --><p>a<b>b</b></div></p><a><img width=10 height='50%'></a>");
        assert_eq!((page.comments.as_slice(), page.closed_extra, page.cut_words), (&[" x ".to_owned()][..], 1, 1));
        assert_eq!((page.image_area, page.ink_bytes), (10 * 300, 2));
    }
}
