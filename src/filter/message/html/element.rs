//! What the elements of HTML are: how they end, where they break lines, whose looks are followed; and the attributes that are read. Pure.

/// Names an element in [`super::Page::balance`] and [`super::Page::shape`].
pub const fn tag_hash(name: &[u8]) -> u32 {
    // FNV-1a, 32 bits.
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// Elements by the hash of their name.
pub mod tag {
    use super::tag_hash;

    pub const A: u32 = tag_hash(b"a");
    pub const AREA: u32 = tag_hash(b"area");
    pub const BASE: u32 = tag_hash(b"base");
    pub const BIG: u32 = tag_hash(b"big");
    pub const BODY: u32 = tag_hash(b"body");
    pub const DD: u32 = tag_hash(b"dd");
    pub const DIV: u32 = tag_hash(b"div");
    pub const DL: u32 = tag_hash(b"dl");
    pub const DT: u32 = tag_hash(b"dt");
    pub const EMBED: u32 = tag_hash(b"embed");
    pub const FONT: u32 = tag_hash(b"font");
    pub const FORM: u32 = tag_hash(b"form");
    pub const HR: u32 = tag_hash(b"hr");
    pub const IFRAME: u32 = tag_hash(b"iframe");
    pub const IMG: u32 = tag_hash(b"img");
    pub const LI: u32 = tag_hash(b"li");
    pub const LINK: u32 = tag_hash(b"link");
    pub const OBJECT: u32 = tag_hash(b"object");
    pub const OL: u32 = tag_hash(b"ol");
    pub const OPTION: u32 = tag_hash(b"option");
    pub const P: u32 = tag_hash(b"p");
    pub const SCRIPT: u32 = tag_hash(b"script");
    pub const SELECT: u32 = tag_hash(b"select");
    pub const SMALL: u32 = tag_hash(b"small");
    pub const SPAN: u32 = tag_hash(b"span");
    pub const STYLE: u32 = tag_hash(b"style");
    pub const TABLE: u32 = tag_hash(b"table");
    pub const TBODY: u32 = tag_hash(b"tbody");
    pub const TD: u32 = tag_hash(b"td");
    pub const TFOOT: u32 = tag_hash(b"tfoot");
    pub const TH: u32 = tag_hash(b"th");
    pub const THEAD: u32 = tag_hash(b"thead");
    pub const TITLE: u32 = tag_hash(b"title");
    pub const TR: u32 = tag_hash(b"tr");
    pub const UL: u32 = tag_hash(b"ul");
}

/// One element, known by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The hash of its name.
    pub tag: u32,
    traits: u16,
}

/// For looks alone: it goes on until its end tag.
pub const FORMATTING: u16 = 1;
/// End tags of formatting and ordinary elements don't reach beyond it.
pub const BLOCK: u16 = 1 << 1;
/// Nor do most others.
pub const SCOPE: u16 = 1 << 2;
/// It has no content and no end tag.
pub const VOID: u16 = 1 << 3;
/// It is there, whether it is written or not.
pub const ROOT: u16 = 1 << 4;
/// It begins and ends a line.
pub const LINE: u16 = 1 << 5;
/// It has empty lines around it; rules match within one paragraph.
pub const PARAGRAPH: u16 = 1 << 6;
/// Its looks are followed.
pub const STYLED: u16 = 1 << 7;
/// What is in it is not shown on the page.
pub const SILENT: u16 = 1 << 8;

/// All whose traits matter.
const KNOWN: &[(&str, u16)] = &[
    ("a", FORMATTING | STYLED),
    ("address", BLOCK | LINE),
    ("applet", SCOPE),
    ("area", VOID),
    ("article", BLOCK | LINE),
    ("aside", BLOCK),
    ("b", FORMATTING),
    ("base", VOID),
    ("big", FORMATTING | STYLED),
    ("blockquote", BLOCK | LINE | PARAGRAPH),
    ("body", ROOT | STYLED),
    ("br", VOID | LINE),
    ("button", BLOCK),
    ("caption", SCOPE),
    ("center", BLOCK | LINE),
    ("code", FORMATTING),
    ("col", VOID),
    ("dd", BLOCK | LINE),
    ("details", BLOCK),
    ("dir", BLOCK),
    ("div", BLOCK | LINE | STYLED),
    ("dl", BLOCK | LINE),
    ("dt", BLOCK | LINE),
    ("em", FORMATTING),
    ("embed", VOID),
    ("fieldset", BLOCK),
    ("figure", BLOCK),
    ("font", FORMATTING | STYLED),
    ("footer", BLOCK | LINE),
    ("form", BLOCK | LINE),
    ("h1", BLOCK | LINE),
    ("h2", BLOCK | LINE),
    ("h3", BLOCK | LINE),
    ("h4", BLOCK | LINE),
    ("h5", BLOCK | LINE),
    ("h6", BLOCK | LINE),
    ("head", ROOT),
    ("header", BLOCK | LINE),
    ("hr", VOID | LINE | PARAGRAPH),
    ("html", ROOT),
    ("i", FORMATTING),
    ("img", VOID),
    ("input", VOID),
    ("li", BLOCK | LINE),
    ("link", VOID),
    ("main", BLOCK),
    ("marquee", SCOPE | STYLED),
    ("menu", BLOCK),
    ("meta", VOID),
    ("nav", BLOCK),
    ("nobr", FORMATTING),
    ("noscript", SILENT),
    ("object", SCOPE),
    ("ol", BLOCK | LINE),
    ("p", BLOCK | LINE | PARAGRAPH | STYLED),
    ("pre", BLOCK | LINE | PARAGRAPH),
    ("s", FORMATTING),
    ("script", SILENT),
    ("section", BLOCK | LINE),
    ("small", FORMATTING | STYLED),
    ("source", VOID),
    ("span", STYLED),
    ("strike", FORMATTING),
    ("strong", FORMATTING),
    ("style", SILENT),
    ("summary", BLOCK),
    ("table", SCOPE | LINE | STYLED),
    ("tbody", BLOCK),
    ("td", SCOPE | LINE | STYLED),
    ("template", SCOPE | SILENT),
    ("tfoot", BLOCK),
    ("th", SCOPE | LINE | STYLED),
    ("thead", BLOCK),
    ("title", SILENT),
    ("tr", BLOCK | LINE | STYLED),
    ("track", VOID),
    ("tt", FORMATTING),
    ("u", FORMATTING),
    ("ul", BLOCK | LINE),
    ("wbr", VOID),
];

/// Slots of the table below; many are empty, so that nearly each element stands where its hash says.
const SLOTS: usize = 512;

/// The elements of [`KNOWN`] by their hash.
static TABLE: [Element; SLOTS] = {
    let mut table = [Element { tag: 0, traits: 0 }; SLOTS];
    let mut at = 0;
    while at < KNOWN.len() {
        let (name, traits) = KNOWN[at];
        let tag = tag_hash(name.as_bytes());
        table[slot_of(tag, &table)] = Element { tag, traits };
        at += 1;
    }
    table
};

/// The slot of an element, or the empty one where it would stand: one whose slot another one has stands in the next that is empty.
const fn slot_of(tag: u32, table: &[Element; SLOTS]) -> usize {
    let mut slot = tag as usize % SLOTS;
    while table[slot].tag != tag && table[slot].tag != 0 {
        slot = (slot + 1) % SLOTS;
    }
    slot
}

impl Element {
    /// The element of this name, in lower case. Names of no element have no traits.
    pub fn named(name: &[u8]) -> Self {
        let tag = tag_hash(name);
        Element { tag, ..TABLE[slot_of(tag, &TABLE)] }
    }

    /// True if it has one of these traits.
    pub fn is(self, traits: u16) -> bool {
        self.traits & traits != 0
    }
}

/// An attribute, if it is one that is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribute {
    Class,
    Color,
    Face,
    Height,
    Id,
    /// `type`, `http-equiv`.
    Kind,
    Media,
    Size,
    Style,
    /// What names something to load or to go to.
    Target,
    Text,
    Width,
    #[default]
    Other,
}

impl Attribute {
    /// The attribute of this name, in lower case.
    pub fn named(name: &[u8]) -> Self {
        match name {
            b"class" => Attribute::Class,
            b"color" => Attribute::Color,
            b"face" => Attribute::Face,
            b"height" => Attribute::Height,
            b"id" => Attribute::Id,
            b"type" | b"http-equiv" => Attribute::Kind,
            b"media" => Attribute::Media,
            b"size" => Attribute::Size,
            b"style" => Attribute::Style,
            b"href" | b"src" | b"action" | b"background" | b"data" => Attribute::Target,
            b"text" => Attribute::Text,
            b"width" => Attribute::Width,
            _ => Attribute::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_is_found_by_its_name() {
        assert!(KNOWN.is_sorted());
        for (name, traits) in KNOWN {
            assert_eq!(Element::named(name.as_bytes()).traits, *traits, "{name}");
        }
        for name in ["", "blink", "center ", "o:p"] {
            assert_eq!(Element::named(name.as_bytes()).traits, 0, "{name}");
        }
    }
}
