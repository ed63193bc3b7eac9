//! Which text of a page a reader can't see. Pure. WHATWG HTML §13.2.6, as far as it says where elements end.
//!
//! An element hides what is within it, so it must be known who stands within whom, however badly the page is written: end tags
//! that are left out are implied, those that end nothing are passed over, and an element for looks alone (`<b>`) that was not ended goes on
//! behind the block that it began in.

use super::element::{Attribute, BLOCK, Element, FORMATTING, ROOT, SCOPE, VOID, tag};
use super::sheet::{Declared, Sheet, name_hash};

/// See the module.
#[derive(Default)]
pub struct Veil {
    /// Style sheets so far; they count for what follows them.
    pub sheet: Sheet,
    open: Vec<Open>,
    next: Next,
}

/// A start tag that is being read.
#[derive(Default)]
struct Next {
    own: Declared,
    id: u32,
    classes: Vec<u32>,
}

/// An element that was not ended yet.
#[derive(Clone, Copy)]
struct Open {
    element: Element,
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

/// Elements within each other that are followed; browsers stop at as many.
const OPEN_MAX: usize = 512;
/// Classes of one element that are read.
const CLASSES_MAX: usize = 16;

/// Elements whose ends are implied, and those that they don't reach beyond.
const SECTIONS: &[u32] = &[tag::TBODY, tag::THEAD, tag::TFOOT, tag::TR];
const LISTS: &[u32] = &[tag::OL, tag::UL, tag::TD, tag::TH];
const TERMS: &[u32] = &[tag::DD, tag::DT];
const TERM_LISTS: &[u32] = &[tag::DL, tag::TD, tag::TH];

impl Veil {
    /// True if text is not seen here.
    pub fn hides(&self) -> bool {
        self.sight() != Sight::Shown
    }

    fn sight(&self) -> Sight {
        self.open.last().map_or(Sight::Shown, |open| open.sight)
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
    pub fn attribute(&mut self, name: Attribute, value: &str) {
        match name {
            Attribute::Style => self.next.own = Declared::read(value),
            Attribute::Id => self.next.id = name_hash(value.trim_ascii().as_bytes()),
            Attribute::Class => {
                let words = value.split_ascii_whitespace().take(CLASSES_MAX);
                self.next.classes.extend(words.map(|word| name_hash(word.as_bytes())));
            }
            _ => {}
        }
    }

    /// The start tag ends.
    pub fn open(&mut self, element: Element) {
        self.imply_ends(element);
        if element.is(VOID | ROOT) || self.open.len() >= OPEN_MAX {
            return;
        }
        let Next { own, id, classes } = &self.next;
        let declared = self.sheet.declared(element.tag, *id, classes, *own);
        self.push(element, declared);
    }

    fn push(&mut self, element: Element, declared: Declared) {
        let Declared { gone, tiny, .. } = declared;
        let sight = match self.sight() {
            Sight::Gone => Sight::Gone,
            _ if gone == Some(true) => Sight::Gone,
            around => tiny.map_or(around, |tiny| if tiny { Sight::Tiny } else { Sight::Shown }),
        };
        self.open.push(Open { element, declared, sight });
    }

    /// Ends what can't hold this element.
    fn imply_ends(&mut self, element: Element) {
        match element.tag {
            tag::TD | tag::TH => self.end_last(&[tag::TD, tag::TH], one_of(&[tag::TABLE])),
            tag::TR => self.end_last(&[tag::TR], one_of(&[tag::TABLE])),
            tag::TBODY | tag::THEAD | tag::TFOOT => self.end_last(SECTIONS, one_of(&[tag::TABLE])),
            tag::LI => self.end_last(&[tag::LI], one_of(LISTS)),
            tag::DD | tag::DT => self.end_last(TERMS, one_of(TERM_LISTS)),
            tag::OPTION => self.end_last(&[tag::OPTION], one_of(&[tag::SELECT])),
            tag::A => self.end_last(&[tag::A], |around| around.is(SCOPE)),
            _ if element.tag == tag::HR || element.is(BLOCK) => {
                self.end_last(&[tag::P], |around| around.is(SCOPE));
            }
            _ => {}
        }
    }

    /// Ends the innermost of these elements, unless one of the others is further within.
    fn end_last(&mut self, tags: &'static [u32], but: impl Fn(Element) -> bool) {
        let wanted = one_of(tags);
        let place = self.open.iter().rposition(|open| wanted(open.element) || but(open.element));
        if let Some(place) = place.filter(|&place| wanted(self.open[place].element)) {
            self.truncate(place);
        }
    }

    /// An end tag.
    pub fn close(&mut self, element: Element) {
        let Some(place) = self.open.iter().rposition(|open| open.element.tag == element.tag) else { return };
        let between = &self.open[place + 1..];
        let stops = |open: &Open| match element {
            _ if element.is(SCOPE) || SECTIONS.contains(&element.tag) => open.element.tag == tag::TABLE,
            _ if element.is(BLOCK) => open.element.is(SCOPE),
            _ => open.element.is(BLOCK | SCOPE),
        };
        if !between.iter().any(stops) {
            self.truncate(place);
        } else if element.is(FORMATTING) {
            // The block stays, and the looks end within it.
            self.end(place, |_| true);
        }
    }

    /// Ends all elements from one on; formatting elements that hide and stood further within begin again.
    fn truncate(&mut self, place: usize) {
        self.end(place, |open| open.element.is(FORMATTING) && open.declared != Declared::default());
    }

    /// Ends an element; of those within it, some go on.
    fn end(&mut self, place: usize, goes_on: impl Fn(&Open) -> bool) {
        let within: Vec<Open> = self.open.drain(place..).skip(1).filter(goes_on).collect();
        within.into_iter().for_each(|open| self.push(open.element, open.declared));
    }
}

fn one_of(tags: &'static [u32]) -> impl Fn(Element) -> bool {
    |element| tags.contains(&element.tag)
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
