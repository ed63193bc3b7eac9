//! HTML to what a reader sees: visible text, hidden text, links, and a few facts of its build. Pure. WHATWG tokenizer.
//!
//! One pass without a tree. Text below an element that hides it is kept apart, because that is where spam puts its
//! innocent words. Never fails: the tokenizer accepts any bytes.

mod color;
mod sheet;
mod style;
mod veil;

use std::convert::Infallible;
use std::ops::Range;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Emitter, ForwardingEmitter, Span, Tokenizer};

use super::header::lossy;
pub use style::Style;
use style::Styles;
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

/// Names a tag in [`Page::balance`] and [`Page::shape`].
pub const fn tag_hash(name: &[u8]) -> u32 {
    // FNV-1a, 32 bits.
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
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

#[derive(Default)]
struct Reader {
    page: Page,
    tag: Vec<u8>,
    attribute: Vec<u8>,
    link: Option<Link>,
    /// What a reader can't see.
    veil: Veil,
    /// The style sheet that is being read, and whether it is for a screen.
    sheet: String,
    for_screen: bool,
    silent: Option<&'static [u8]>,
    kind: Vec<u8>,
    width: Option<u64>,
    height: Option<u64>,
    styles: Styles,
    /// The text before the last tag ended within a word.
    in_word: bool,
}

/// Stack that the tokenizer takes for one quote character. It calls itself for each quoted attribute, and only an optimised
/// build makes the frames small.
const STACK_BYTES_PER_QUOTE: usize = if cfg!(debug_assertions) { 8 << 10 } else { 1 << 10 };
/// Quote characters up to which a page is read on the caller's stack: half of a pool's thread.
const QUOTES_ON_STACK_MAX: usize = (1 << 20) / STACK_BYTES_PER_QUOTE;
/// Quote characters beyond which a page is not read; the longest honest newsletters have some thousands.
const QUOTES_MAX: usize = 32 << 10;

/// Reads one page.
///
/// One with many quoted attributes is read on a thread whose stack is made for them: a page must not end the process.
pub fn read(html: &str) -> Page {
    let mut quotes = memchr::memchr2_iter(b'"', b'\'', html.as_bytes());
    if quotes.clone().take(QUOTES_ON_STACK_MAX + 1).count() <= QUOTES_ON_STACK_MAX {
        return tokenize(html);
    }
    let html = &html[..quotes.nth(QUOTES_MAX).unwrap_or(html.len())];
    let stack_bytes = STACK_BYTES_PER_QUOTE * (QUOTES_MAX.min(html.len()) + QUOTES_ON_STACK_MAX);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(stack_bytes).spawn_scoped(scope, || tokenize(html));
        // Without memory for the stack the page stays unread, as one that is too long does.
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
    })
}

fn tokenize(html: &str) -> Page {
    let mut reader = Reader::default();
    reader.page.text.reserve(html.len() / 4);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        reader.event(&event);
        None
    });
    emitter.naively_switch_states(true);
    let Ok(()) = Tokenizer::new_with_emitter(html, WithoutErrors(emitter)).finish();
    if let Some(link) = reader.link.take() {
        reader.keep(link);
    }
    let mut page = reader.page;
    let ink = |text: &str| text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
    page.ink_bytes = ink(&page.text) + ink(&page.hidden) + ink(&page.title);
    page.source_bytes = html.len();
    page.style = reader.styles.seen;
    page
}

/// An emitter whose tokenizer does not look for errors, which costs it a look at each byte.
struct WithoutErrors<E>(E);

impl<E: Emitter> ForwardingEmitter for WithoutErrors<E> {
    type Token = E::Token;

    #[inline]
    fn inner(&mut self) -> &mut impl Emitter<Token = E::Token> {
        &mut self.0
    }

    #[inline]
    fn should_emit_errors(&mut self) -> bool {
        false
    }
}

impl Reader {
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
                    self.page.comments.push(String::from_utf8_lossy(value).into_owned());
                }
            }
            CallbackEvent::Doctype { .. } | CallbackEvent::Error(_) => {}
        }
    }

    fn open(&mut self, name: &[u8]) {
        self.tag.clear();
        self.tag.extend_from_slice(name);
        self.veil.begin();
        self.for_screen = true;
        self.kind.clear();
        self.page.tags += 1;
        let hash = tag_hash(name);
        if self.page.shape.len() < SHAPE_TAGS_MAX {
            self.page.shape.push(hash);
        }
        self.count_tag(hash, 1);
        (self.width, self.height) = (None, None);
        self.styles.open(name);
        match name {
            b"img" => {
                self.page.images += 1;
                if let Some(link) = &mut self.link {
                    link.image = true;
                }
            }
            b"form" => self.page.forms += 1,
            b"script" => self.page.scripts += 1,
            b"iframe" | b"object" | b"embed" => self.page.frames += 1,
            _ => {}
        }
    }

    fn attribute_name(&mut self, name: &[u8]) {
        self.attribute.clear();
        self.attribute.extend_from_slice(name);
        match name {
            b"hidden" => self.veil.hidden(),
            _ if name.starts_with(b"on") && name.len() > 4 => self.page.scripts += 1,
            _ => {}
        }
    }

    fn attribute_value(&mut self, value: &[u8]) {
        let is_style = self.attribute == b"style" && memchr::memmem::find(value, b"/*").is_some();
        let plain = is_style.then(|| sheet::without_comments(&lossy(value)));
        let value = plain.as_ref().map_or(value, |plain| plain.as_bytes());
        self.styles.attribute(&self.tag, &self.attribute, value);
        self.veil.attribute(&self.attribute, value);
        match self.attribute.as_slice() {
            b"media" => self.for_screen = sheet::is_for_screen(&String::from_utf8_lossy(value)),
            b"href" | b"src" | b"action" | b"background" | b"data" => self.target(value),
            b"width" => self.width = Some(pixels(value, 8)),
            b"height" => self.height = Some(pixels(value, 6)),
            b"type" | b"http-equiv" => {
                self.kind = value.to_ascii_lowercase();
                match self.kind.as_slice() {
                    b"password" => self.page.passwords += 1,
                    b"refresh" => self.page.refreshes += 1,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn target(&mut self, value: &[u8]) {
        let element = match self.tag.as_slice() {
            b"a" | b"area" => "a",
            b"img" => "img",
            b"form" => "form",
            b"iframe" | b"object" | b"embed" => "frame",
            b"base" => "base",
            b"link" => "link",
            _ => "other",
        };
        let href = String::from_utf8_lossy(value.trim_ascii()).into_owned();
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
        self.styles.opened();
        if self.tag == b"img" {
            let size = self.width.zip(self.height);
            self.page.image_area += size.map_or(0, |(width, height)| width * height);
        }
        if is_block(&self.tag) {
            self.in_word = false;
            self.line_end(is_paragraph(&self.tag));
        }
        if let Some(silent) = silent(&self.tag).filter(|_| self.silent.is_none() && !self_closing) {
            self.silent = Some(silent);
        }
        self.veil.open(&self.tag);
    }

    fn close(&mut self, name: &[u8]) {
        self.page.closed += 1;
        self.count_tag(tag_hash(name), -1);
        self.styles.close(name);
        if self.silent.is_some_and(|silent| silent == name) {
            self.silent = None;
        }
        if name == b"style" {
            let sheet = std::mem::take(&mut self.sheet);
            if self.for_screen {
                self.veil.sheet.add(&sheet);
            }
        }
        if name == b"a"
            && let Some(link) = self.link.take()
        {
            self.keep(link);
        }
        if is_block(name) || name == b"title" {
            self.in_word = false;
        }
        if is_block(name) {
            self.line_end(is_paragraph(name));
        }
        self.veil.close(name);
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
        let text = String::from_utf8_lossy(value);
        if !matches!(self.silent, Some(b"script" | b"style")) && !text.is_empty() {
            self.styles.text(&text);
            self.page.cut_words += u32::from(self.in_word && text.starts_with(is_word));
            self.in_word = text.ends_with(is_word);
        }
        match self.silent {
            Some(b"title") => append(&mut self.page.title, &text),
            Some(b"style") => {
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
fn pixels(value: &[u8], per_cent: u64) -> u64 {
    let text = String::from_utf8_lossy(value);
    let (digits, factor) = text.strip_suffix('%').map_or((text.as_ref(), 1), |digits| (digits, per_cent));
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

fn is_void(name: &[u8]) -> bool {
    matches!(
        name,
        b"area"
            | b"base"
            | b"br"
            | b"col"
            | b"embed"
            | b"hr"
            | b"img"
            | b"input"
            | b"link"
            | b"meta"
            | b"source"
            | b"track"
            | b"wbr"
    )
}

fn is_block(name: &[u8]) -> bool {
    matches!(
        name,
        b"address"
            | b"article"
            | b"blockquote"
            | b"br"
            | b"center"
            | b"dd"
            | b"div"
            | b"dl"
            | b"dt"
            | b"footer"
            | b"form"
            | b"h1"
            | b"h2"
            | b"h3"
            | b"h4"
            | b"h5"
            | b"h6"
            | b"header"
            | b"hr"
            | b"li"
            | b"ol"
            | b"p"
            | b"pre"
            | b"section"
            | b"table"
            | b"td"
            | b"th"
            | b"tr"
            | b"ul"
    )
}

/// Blocks with an empty line around them; rules match within one paragraph.
fn is_paragraph(name: &[u8]) -> bool {
    matches!(name, b"blockquote" | b"hr" | b"p" | b"pre")
}

fn silent(name: &[u8]) -> Option<&'static [u8]> {
    [&b"script"[..], b"style", b"title", b"noscript", b"template"].into_iter().find(|&silent| silent == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_without_end_do_not_end_the_process() {
        // Each quoted attribute was a call within a call, and 60,000 of them overflowed the stack.
        let page = read(&format!("<p>seen</p><a {}>", "b=\"c\" ".repeat(60_000)));
        assert!(page.text.contains("seen"), "{:?}", page.text);
    }

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
