//! A message as four sets of hashed features. Pure.
//!
//! Words and pairs of words, and runs of bytes; of what a reader sees, and of the header with the structure. Each of the four sets
//! has a learner of its own, so that a header known well does not keep the text from being learned. Within a set every
//! space hashes with a salt of its own: "free" in a subject is another feature than "free" in a body. Digits are one
//! digit, since sums, dates and numbers differ and their shape does not. Features count once per message.

use std::cell::Cell;

use crate::filter::message::header;
use crate::filter::message::{Body, View};

/// Sets of features.
pub const SETS: usize = 4;
/// Text, subject, hidden text, URLs.
pub const TEXT: usize = 0;
/// Header fields, author, structure.
pub const HEAD: usize = 1;
/// Runs of bytes of the header.
pub const HEAD_RUNS: usize = 2;
/// Runs of bytes of the text.
pub const TEXT_RUNS: usize = 3;

/// The distinct features of one message, by set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(pub [Vec<u32>; SETS]);

/// Bytes of decoded text that are read for words.
const WORD_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of decoded text that are read for byte runs; TREC's systems used 2,500 to 3,500.
const GRAM_TEXT_BYTES_MAX: usize = 3_000;
/// Bytes of one header field that are read.
const FIELD_BYTES_MAX: usize = 400;
/// Bytes of header that are read for byte runs.
const GRAM_HEADER_BYTES_MAX: usize = 2_500;
/// Length of a byte run.
const GRAM_BYTES: usize = 4;
/// Longest word; longer runs are data, not language, and enter by length and beginning only.
const WORD_BYTES_MAX: usize = 24;
/// URLs that are read.
const URLS_MAX: usize = 60;

/// Salts of the spaces.
mod space {
    pub const TEXT: u64 = 0x1;
    pub const PAIR: u64 = 0x2;
    pub const SUBJECT: u64 = 0x3;
    pub const FIELD: u64 = 0x4;
    pub const NAME: u64 = 0x5;
    pub const URL: u64 = 0x6;
    pub const SHAPE: u64 = 0x7;
    pub const HIDDEN: u64 = 0x8;
    pub const GRAM_TEXT: u64 = 0x9;
    pub const GRAM_HEADER: u64 = 0xa;
}

/// Fields that those who carried the message wrote: mailing lists and final delivery. They tell where it was read, not what
/// it is; a model that learns them calls all mail of a list ham and all mail of a new one unknown.
const LIST_FIELDS: [&str; 8] = [
    "delivered-to",
    "errors-to",
    "precedence",
    "return-path",
    "sender",
    "x-beenthere",
    "x-mailman-version",
    "x-original-to",
];
/// Fields of the way and of checks on it; their names of hosts are seen once and say little of the next message.
const WAY_FIELDS: [&str; 5] =
    ["authentication-results", "dkim-signature", "received", "received-spf", "x-virus-scanned"];

fn is_list_field(name: &str) -> bool {
    // What filters wrote, ours too, is an opinion and no fact; mail taught from the store bears it, fresh mail does not.
    let opinion = name.starts_with("x-spam") || name.starts_with("x-weir");
    opinion || name.starts_with("list-") || name.starts_with("x-mailman") || LIST_FIELDS.contains(&name)
}

fn is_way_field(name: &str) -> bool {
    name.starts_with("arc-") || name.starts_with("x-virus") || WAY_FIELDS.contains(&name)
}

/// Features seen so far of all sets, each once; those of each set in their order.
struct Once {
    used: Used,
    /// Features so far, and for how many there is room.
    len: usize,
    room: usize,
    /// Where each set begins in the list, in the order in which they came.
    begins: [(usize, usize); SETS],
    sets: usize,
}

/// The memory of the last message of a thread: to wipe it costs less than the kernel's pages for new one.
#[derive(Default)]
struct Used {
    /// A hash table, filled by half at most, and as large as the message asks for: all of it is wiped.
    slots: Vec<u32>,
    /// All features; what stands behind those that are there means nothing.
    list: Vec<u32>,
}

/// Slots of the hash table at least and at most; what would fill more than half of the latter is not read.
const SLOTS_MIN: usize = 1 << 10;
const SLOTS_MAX: usize = 1 << 15;

thread_local! {
    static USED: Cell<Used> = const { Cell::new(Used { slots: Vec::new(), list: Vec::new() }) };
}

impl Once {
    /// For features of so many bytes, more or less: each begins at most one run, and many are said again. To wipe twice as many slots costs
    /// less than to guess wrong where two features want the same.
    fn new(bytes: usize) -> Self {
        let mut once = Once { used: USED.take(), len: 0, room: 0, begins: [(0, 0); SETS], sets: 0 };
        once.make_room((4 * bytes).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX));
        once
    }

    fn done(self) -> Features {
        let mut features = Features::default();
        let ends = self.begins[..self.sets].iter().skip(1).map(|&(_, begin)| begin).chain([self.len]);
        for (&(set, begin), end) in self.begins.iter().zip(ends) {
            features.0[set] = self.used.list[begin..end].to_vec();
        }
        USED.set(self.used);
        features
    }

    /// What is added from now on belongs to `set`; each begins once.
    fn begin(&mut self, set: usize) -> &mut Self {
        self.begins[self.sets] = (set, self.len);
        self.sets += 1;
        self
    }

    #[inline(always)]
    fn add(&mut self, hash: u64) {
        self.add_all(std::iter::once(hash));
    }

    #[inline(always)]
    fn add_all(&mut self, hashes: impl Iterator<Item = u64>) {
        let mut values = hashes.map(|hash| ((hash >> 32) as u32) | 1);
        while let Some(value) = self.add_at_once(&mut values) {
            self.add_elsewhere(value);
        }
    }

    /// Adds what has its slot for itself; gives the first that has not.
    #[inline(always)]
    fn add_at_once(&mut self, values: &mut impl Iterator<Item = u32>) -> Option<u32> {
        // Kept at hand: behind `self` they would be fetched again after each change of the table.
        let (slots, list, mut len) = (&mut self.used.slots[..], &mut self.used.list[..self.room], self.len);
        let other = values.find(|&value| {
            let slot = &mut slots[slot_of(value, slots.len())];
            let held = *slot;
            // One that is new and one that is known go the same way: which of them comes next, no processor could guess.
            let Some(place) = list.get_mut(len).filter(|_| (held == 0) | (held == value)) else { return true };
            (*slot, *place) = (value, value);
            len += usize::from(held == 0);
            false
        });
        self.len = len;
        other
    }

    /// Adds one whose slot another one has, or for which there is no room yet.
    #[cold]
    #[inline(never)]
    fn add_elsewhere(&mut self, value: u32) {
        if self.len == self.room && !self.grow() {
            return;
        }
        if self.used.put(value) {
            self.used.list[self.len] = value;
            self.len += 1;
        }
    }

    /// Makes room; false if there is no more.
    fn grow(&mut self) -> bool {
        let slots = self.used.slots.len() * 2;
        if slots > SLOTS_MAX {
            return false;
        }
        self.make_room(slots);
        for place in 0..self.len {
            self.used.put(self.used.list[place]);
        }
        true
    }

    /// An empty table of so many slots, and a list of what may fill it.
    fn make_room(&mut self, slots: usize) {
        self.used.slots.clear();
        self.used.slots.resize(slots, 0);
        self.room = slots / 2;
        if self.used.list.len() < self.room {
            self.used.list.resize(self.room, 0);
        }
    }
}

impl Used {
    /// Puts a feature into the table, which is never full; false if it was there.
    fn put(&mut self, value: u32) -> bool {
        let mut slot = slot_of(value, self.slots.len());
        while self.slots[slot] != 0 && self.slots[slot] != value {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        let is_new = self.slots[slot] == 0;
        self.slots[slot] = value;
        is_new
    }
}

/// Where a feature stands in a table of so many slots, a power of two, if no other stood there first.
#[inline(always)]
fn slot_of(value: u32, slots: usize) -> usize {
    // The lowest bit is the same in all of them.
    (value >> 1) as usize & (slots - 1)
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    (product as u64) ^ ((product >> 64) as u64)
}

fn hash(salt: u64, bytes: &[u8]) -> u64 {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for &byte in bytes {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state, salt)
}

/// The features of `view`.
pub fn extract(view: &View<'_>) -> Features {
    let text = view.plain_text().as_bytes();
    let head = header_bytes(view);
    let mut once =
        Once::new(head.len() + text.len().min(GRAM_TEXT_BYTES_MAX) + text.len().min(WORD_TEXT_BYTES_MAX) / 4);
    // The smaller sets come first: what does not fit any more is the end of a long text.
    header_words(once.begin(HEAD), view);
    author_words(&mut once, view);
    shape_words(&mut once, view);
    byte_runs(once.begin(HEAD_RUNS), space::GRAM_HEADER, &head);
    byte_runs(once.begin(TEXT_RUNS), space::GRAM_TEXT, clip(text, GRAM_TEXT_BYTES_MAX));
    url_words(once.begin(TEXT), view);
    text_words(&mut once, space::SUBJECT, Some(space::SUBJECT), clip(view.subject.as_bytes(), FIELD_BYTES_MAX));
    text_words(&mut once, space::TEXT, Some(space::PAIR), clip(text, WORD_TEXT_BYTES_MAX));
    text_words(&mut once, space::HIDDEN, None, clip(view.hidden.as_bytes(), WORD_TEXT_BYTES_MAX / 4));
    once.done()
}

fn header_bytes(view: &View<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(GRAM_HEADER_BYTES_MAX + FIELD_BYTES_MAX);
    let mut lower = String::new();
    for field in &view.header.fields {
        if head.len() >= GRAM_HEADER_BYTES_MAX {
            break;
        }
        if is_list_field(lower_case(field.name, &mut lower)) {
            continue;
        }
        head.extend_from_slice(field.name.as_bytes());
        head.push(b':');
        head.extend_from_slice(clip(field.text().as_bytes(), FIELD_BYTES_MAX));
        head.push(b'\n');
    }
    head.truncate(GRAM_HEADER_BYTES_MAX);
    head
}

/// `name` in lower case, in a buffer that serves for all.
fn lower_case<'b>(name: &str, buffer: &'b mut String) -> &'b str {
    buffer.clear();
    buffer.push_str(name);
    buffer.make_ascii_lowercase();
    buffer
}

fn clip(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

fn byte_runs(out: &mut Once, salt: u64, bytes: &[u8]) {
    let salt = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    out.add_all(bytes.array_windows().map(|&run: &[u8; GRAM_BYTES]| mix(u32::from_le_bytes(run).into(), salt)));
}

/// Each byte as words have it: letters in lower case, one digit for all; 0 for what is in no word.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        folded[byte] = match byte as u8 {
            b'0'..=b'9' => b'0',
            letter if letter.is_ascii_alphabetic() => letter.to_ascii_lowercase(),
            other if other >= 0x80 || other == b'$' || other == b'\'' => other,
            _ => 0,
        };
        byte += 1;
    }
    folded
};

fn is_word_byte(byte: u8) -> bool {
    FOLDED[usize::from(byte)] != 0
}

fn text_words(out: &mut Once, salt: u64, pair_salt: Option<u64>, text: &[u8]) {
    let mut previous = 0u64;
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        while let Some(&byte) = text.get(at)
            && is_word_byte(byte)
        {
            state = (state ^ u64::from(FOLDED[usize::from(byte)])).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        let len = at - start;
        if len == 0 {
            at += 1;
            continue;
        }
        let word = if len > WORD_BYTES_MAX {
            mix(hash(salt, &text[start..start + 4]), (len / 8) as u64)
        } else {
            mix(state, salt)
        };
        out.add(word);
        if let Some(pair_salt) = pair_salt {
            if previous != 0 {
                out.add(mix(mix(previous, word), pair_salt));
            }
            previous = word;
        }
    }
}

fn header_words(out: &mut Once, view: &View<'_>) {
    let mut previous = 0;
    let mut lower = String::new();
    for field in &view.header.fields {
        let name = lower_case(field.name, &mut lower);
        if is_list_field(name) || is_way_field(name) {
            continue;
        }
        let name = hash(space::NAME, name.as_bytes());
        out.add(name);
        out.add(mix(previous, name));
        previous = name;
        let text = field.text();
        field_words(out, name, clip(text.as_bytes(), FIELD_BYTES_MAX));
    }
}

fn author_words(out: &mut Once, view: &View<'_>) {
    let (author, address) = view.author();
    let salt = hash(space::FIELD, b"author");
    text_words(out, salt, Some(salt), author.as_bytes());
    if let Some((_, domain)) = address.rsplit_once('@') {
        out.add(hash(salt ^ 1, domain.as_bytes()));
        out.add(hash(salt ^ 2, domain.rsplit('.').next().unwrap_or_default().as_bytes()));
        let (_, reply) = header::mailbox(view.header.text("Reply-To"));
        let relation = u64::from(!reply.is_empty()) + u64::from(reply.ends_with(domain));
        out.add(mix(relation, salt));
    }
}

fn field_words(out: &mut Once, name: u64, text: &[u8]) {
    text_words(out, name ^ space::FIELD, None, text);
    // The value with letters and digits levelled: message ids and boundaries betray the program that wrote them.
    let mut shape = name;
    let mut last = 0;
    for &byte in clip(text, 64) {
        let class = match byte {
            b'0'..=b'9' => b'0',
            b'a'..=b'z' => b'a',
            b'A'..=b'Z' => b'A',
            other => other,
        };
        if class != last || !class.is_ascii_alphanumeric() {
            shape = (shape ^ u64::from(class)).wrapping_mul(0x0000_0100_0000_01b3);
            last = class;
        }
    }
    out.add(mix(shape, space::FIELD));
}

fn url_words(out: &mut Once, view: &View<'_>) {
    for url in view.urls.iter().take(URLS_MAX) {
        out.add(hash(space::URL, url.host.as_bytes()));
        out.add(hash(space::URL, url.domain().as_bytes()));
        out.add(hash(space::URL, url.host.rsplit('.').next().unwrap_or_default().as_bytes()));
        text_words(out, space::URL ^ 0x100, None, clip(url.path.as_bytes(), 200));
    }
    out.add(mix(view.urls.len().min(20).ilog2_or_zero(), space::URL));
}

trait IlogOrZero {
    fn ilog2_or_zero(self) -> u64;
}

impl IlogOrZero for usize {
    fn ilog2_or_zero(self) -> u64 {
        (self + 1).ilog2().into()
    }
}

fn shape_words(out: &mut Once, view: &View<'_>) {
    let mut fact = |kind: u64, value: u64| out.add(mix(kind.wrapping_mul(0x1000) + value, space::SHAPE));
    fact(1, view.parts.len().ilog2_or_zero());
    fact(2, view.text.len().ilog2_or_zero());
    fact(3, view.hidden.len().ilog2_or_zero());
    fact(4, (view.disguise.invisible as usize).ilog2_or_zero());
    fact(5, (view.disguise.look_alikes as usize).ilog2_or_zero());
    fact(6, u64::from(view.broken));
    let pages = &view.pages;
    fact(7, pages.iter().map(|page| page.tags as usize).sum::<usize>().ilog2_or_zero());
    fact(8, pages.iter().map(|page| page.images as usize).sum::<usize>().ilog2_or_zero());
    fact(9, pages.iter().map(|page| page.links.len()).sum::<usize>().ilog2_or_zero());
    fact(
        10,
        pages.iter().map(|page| (page.forms + page.scripts + page.frames) as usize).sum::<usize>().ilog2_or_zero(),
    );
    for part in &view.parts {
        fact(11, hash(space::SHAPE, part.content_type.as_bytes()));
        fact(12, hash(space::SHAPE, part.charset.as_deref().unwrap_or_default().as_bytes()));
        fact(13, u64::from(part.base64) * 2 + u64::from(matches!(part.body, Body::Html(_))));
        if let Some((_, extension)) = part.name.as_deref().and_then(|name| name.rsplit_once('.')) {
            fact(14, hash(space::SHAPE, extension.to_ascii_lowercase().as_bytes()));
        }
    }
    for page in pages {
        for tags in page.shape.windows(3) {
            fact(15, mix(mix(u64::from(tags[0]), u64::from(tags[1])), u64::from(tags[2])));
        }
    }
}
