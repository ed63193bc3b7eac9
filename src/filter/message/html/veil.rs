//! Which text of a page a reader can't see. Pure. WHATWG HTML §13.2.6, as far as it says where elements end.
//!
//! An element hides what is within it, so it must be known who stands within whom, however badly the page is written: end tags
//! that are left out are implied, those that end nothing are passed over, and an element for looks alone (`<b>`) that was not ended goes on
//! behind the block that it began in.

use super::sheet::{Declared, Sheet, name_hash};
use super::{is_void, tag_hash};
use crate::filter::message::header::lossy;

/// See the module.
#[derive(Default)]
pub struct Veil {
    /// Style sheets so far; they count for what follows them.
    pub sheet: Sheet,
    open: Vec<Element>,
    next: Next,
}

/// A start tag that is being read.
#[derive(Default)]
struct Next {
    own: Declared,
    id: u32,
    classes: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Element {
    tag: u32,
    kind: Kind,
    declared: Declared,
    sight: Sight,
}

/// How much of an element's text is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Shown,
    /// It is too small; what is within can be larger.
    Tiny,
    Gone,
}

/// How an element ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For looks alone: it goes on until its end tag.
    Formatting,
    Ordinary,
    /// End tags of formatting and ordinary elements don't reach beyond it.
    Block,
    /// Nor do most others.
    Scope,
}

/// Elements within each other that are followed; browsers stop at as many.
const OPEN_MAX: usize = 512;
/// Classes of one element that are read.
const CLASSES_MAX: usize = 16;

/// Elements by the hash of their name: those of [`Kind::Scope`], and those whose ends are implied.
const SCOPES: &[u32] = &[
    tag_hash(b"applet"),
    tag_hash(b"caption"),
    tag_hash(b"marquee"),
    tag_hash(b"object"),
    TABLE,
    TD,
    tag_hash(b"template"),
    TH,
];
const TABLE: u32 = tag_hash(b"table");
const TD: u32 = tag_hash(b"td");
const TH: u32 = tag_hash(b"th");
const TR: u32 = tag_hash(b"tr");
const SECTIONS: &[u32] = &[tag_hash(b"tbody"), tag_hash(b"thead"), tag_hash(b"tfoot"), TR];
const P: u32 = tag_hash(b"p");
const LI: u32 = tag_hash(b"li");
const LISTS: &[u32] = &[tag_hash(b"ol"), tag_hash(b"ul"), TD, TH];
const TERMS: &[u32] = &[tag_hash(b"dd"), tag_hash(b"dt")];
const TERM_LISTS: &[u32] = &[tag_hash(b"dl"), TD, TH];
const OPTION: u32 = tag_hash(b"option");
const SELECT: u32 = tag_hash(b"select");
const LINK: u32 = tag_hash(b"a");

fn kind(name: &[u8]) -> Kind {
    match name {
        b"a" | b"b" | b"big" | b"code" | b"em" | b"font" | b"i" | b"nobr" | b"s" | b"small" | b"strike" | b"strong"
        | b"tt" | b"u" => Kind::Formatting,
        b"applet" | b"caption" | b"marquee" | b"object" | b"table" | b"td" | b"template" | b"th" => Kind::Scope,
        b"address" | b"article" | b"aside" | b"blockquote" | b"button" | b"center" | b"dd" | b"details" | b"dir"
        | b"div" | b"dl" | b"dt" | b"fieldset" | b"figure" | b"footer" | b"form" | b"h1" | b"h2" | b"h3" | b"h4"
        | b"h5" | b"h6" | b"header" | b"li" | b"main" | b"menu" | b"nav" | b"ol" | b"p" | b"pre" | b"section"
        | b"summary" | b"tbody" | b"tfoot" | b"thead" | b"tr" | b"ul" => Kind::Block,
        _ => Kind::Ordinary,
    }
}

impl Veil {
    /// True if text is not seen here.
    pub fn hides(&self) -> bool {
        self.sight() != Sight::Shown
    }

    fn sight(&self) -> Sight {
        self.open.last().map_or(Sight::Shown, |element| element.sight)
    }

    /// A start tag begins.
    pub fn begin(&mut self) {
        self.next.own = Declared::default();
        self.next.id = 0;
        self.next.classes.clear();
    }

    /// It has the attribute `hidden`.
    pub fn hidden(&mut self) {
        self.next.own.gone = Some(true);
    }

    /// It has this attribute.
    pub fn attribute(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"style" => self.next.own = Declared::read(&lossy(value)),
            b"id" => self.next.id = name_hash(value.trim_ascii()),
            b"class" => {
                let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                self.next.classes.extend(words.take(CLASSES_MAX).map(name_hash));
            }
            _ => {}
        }
    }

    /// The start tag ends.
    pub fn open(&mut self, name: &[u8]) {
        let kind = kind(name);
        self.imply_ends(name, kind);
        if is_void(name) || matches!(name, b"html" | b"head" | b"body") || self.open.len() >= OPEN_MAX {
            return;
        }
        let Next { own, id, classes } = &self.next;
        let tag = tag_hash(name);
        let declared = self.sheet.declared(tag, *id, classes, *own);
        self.push(Element { tag, kind, declared, sight: Sight::Shown });
    }

    fn push(&mut self, element: Element) {
        let Declared { gone, tiny, .. } = element.declared;
        let sight = match self.sight() {
            Sight::Gone => Sight::Gone,
            _ if gone == Some(true) => Sight::Gone,
            around => tiny.map_or(around, |tiny| if tiny { Sight::Tiny } else { Sight::Shown }),
        };
        self.open.push(Element { sight, ..element });
    }

    /// Ends what can't hold an element of this name.
    fn imply_ends(&mut self, name: &[u8], kind: Kind) {
        match name {
            b"td" | b"th" => self.end_last(&[TD, TH], &[TABLE]),
            b"tr" => self.end_last(&[TR], &[TABLE]),
            b"tbody" | b"thead" | b"tfoot" => self.end_last(SECTIONS, &[TABLE]),
            b"li" => self.end_last(&[LI], LISTS),
            b"dd" | b"dt" => self.end_last(TERMS, TERM_LISTS),
            b"option" => self.end_last(&[OPTION], &[SELECT]),
            b"a" => self.end_last(&[LINK], SCOPES),
            b"hr" => self.end_last(&[P], SCOPES),
            _ if kind == Kind::Block => self.end_last(&[P], SCOPES),
            _ => {}
        }
    }

    /// Ends the innermost of these elements, unless one of the others is further within.
    fn end_last(&mut self, tags: &[u32], but: &[u32]) {
        let place = self.open.iter().rposition(|element| tags.contains(&element.tag) || but.contains(&element.tag));
        if let Some(place) = place.filter(|&place| tags.contains(&self.open[place].tag)) {
            self.truncate(place);
        }
    }

    /// An end tag.
    pub fn close(&mut self, name: &[u8]) {
        let (tag, kind) = (tag_hash(name), kind(name));
        let Some(place) = self.open.iter().rposition(|element| element.tag == tag) else { return };
        let between = &self.open[place + 1..];
        let stops = |element: &Element| match kind {
            Kind::Formatting | Kind::Ordinary => matches!(element.kind, Kind::Block | Kind::Scope),
            Kind::Block if !is_of_table(name) => element.kind == Kind::Scope,
            Kind::Block | Kind::Scope => element.tag == TABLE,
        };
        if !between.iter().any(stops) {
            self.truncate(place);
        } else if kind == Kind::Formatting {
            // The block stays, and the looks end within it.
            self.end(place, |_| true);
        }
    }

    /// Ends all elements from one on; formatting elements that hide and stood further within begin again.
    fn truncate(&mut self, place: usize) {
        self.end(place, |element| element.kind == Kind::Formatting && element.declared != Declared::default());
    }

    /// Ends an element; of those within it, some go on.
    fn end(&mut self, place: usize, goes_on: impl Fn(&Element) -> bool) {
        let within: Vec<Element> = self.open.drain(place..).skip(1).filter(goes_on).collect();
        within.into_iter().for_each(|element| self.push(element));
    }
}

fn is_of_table(name: &[u8]) -> bool {
    matches!(name, b"tbody" | b"tfoot" | b"thead" | b"tr")
}

#[cfg(test)]
mod tests {
    use crate::filter::message::html::read;

    fn seen(html: &str) -> (String, String) {
        let page = read(html);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        (words(&page.text), words(&page.hidden))
    }

    fn is(html: &str, text: &str, hidden: &str) {
        assert_eq!(seen(html), (text.to_owned(), hidden.to_owned()), "{html}");
    }

    #[test]
    fn a_cell_ends_where_the_next_begins() {
        is("<table><tr><td style='display:none'>a<td>b<tr><td>c</table>d", "b c d", "a");
        is("<ul><li hidden>a<li>b</ul>c", "b c", "a");
        is("<p style=display:none>a<p>b<div>c</div>", "b c", "a");
        is("<table><tr hidden><td>a</td><td><table><tr><td>b</table>c</tr><tr><td>d</table>", "d", "a b c");
    }

    #[test]
    fn text_of_no_size_can_hold_some_that_is_seen() {
        is(
            "<td style='font-size:0px;padding:9px'>a<div style='font-size:13px'>b<span> c</span></div>d</td>",
            "b c",
            "a d",
        );
        is("<div style='font-size:0'><p style='font-size:90%'>a", "", "a");
        is("<div style='display:none'><p style='font-size:13px;display:block'>a", "", "a");
    }

    #[test]
    fn end_tags_that_end_nothing_uncover_nothing() {
        is("<div hidden>a</span></b></td> b</div>c", "c", "a b");
        is("<div hidden>a<table><tr><td>b</div>c</table>d</div>e", "e", "a b c d");
        is("<b><div hidden>a</b> b</div>c", "c", "a b");
        is("<p><b style='display:none'>a</p><p>b</b>c", "c", "a b");
        is("<b style='display:none'><div>a</b>b</div>c", "b c", "a");
        is("<div hidden />a</div>b", "b", "a");
    }

    #[test]
    fn sheets_count_for_what_follows() {
        is("<style>.x{display:none}</style><p class='y X'>a</p>b<p id=x>c", "b c", "a");
        is("<p class=x>a</p><style media=print>.x{display:none}</style><p class=x>b", "a b", "");
        is("<style media='only screen'>@media{.x{display:none}}</style><p class=x>a</p>b", "b", "a");
        is("<style><!-- td.z, #k { font-size:0 } --></style><table><td class=z>a<td id=k>b<td>c", "c", "a b");
    }

    #[test]
    fn comments_in_a_style_hide_nothing_of_it() {
        is("<p style='display/* x; */:/**/none'>a</p><p style='color:red;/*;*/font-size/**/:0'>b</p>c", "c", "a b");
        is("<p style='dis/**/play:none'>a</p>b", "a b", "");
        is("<style>p{dis/**/play:none}</style><p>a</p>", "a", "");
    }

    #[test]
    fn depth_is_bounded() {
        let (text, hidden) = seen(&format!("{}<i hidden>a", "<div><b>".repeat(100_000)));
        assert_eq!((text.as_str(), hidden.as_str()), ("a", ""));
    }
}
