//! The shape of a pattern: which bytes can stand at each of a few places in a row. Pure.
//!
//! Patterns without a useful literal (`[vw][i1!][a@]gra`) are sought by their shapes, all at once: one table lookup per place says for 64
//! shapes, or groups of them, whether they can stand there, and what passes is compared place by place. The time depends on the length
//! of the text alone. Every match of a pattern holds its shape.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, State, WhichCaptures};
use regex_automata::util::look::LookSet;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::gate;
use super::literal::bits_of_byte;
use super::way::Way;

/// Places of a shape.
const PLACES_MAX: usize = 10;
/// Compiled size of a part that is looked into.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;
/// States that are followed at once; a place where more are possible says nothing anyway.
const STATES_MAX: usize = 20_000;
/// States that are followed for all places of one pattern: long rows have many places.
const FOLLOWED_MAX: usize = 2_000_000;

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes([u64; 4]);

impl Bytes {
    /// No byte.
    pub const NONE: Bytes = Bytes([0; 4]);
    /// Every byte.
    pub const ALL: Bytes = Bytes([u64::MAX; 4]);

    /// The bytes for which this is true.
    pub fn of(within: impl Fn(u8) -> bool) -> Self {
        let mut bytes = Bytes::default();
        (0..=255).filter(|&byte| within(byte)).for_each(|byte| bytes.insert(byte, byte));
        bytes
    }

    /// Adds those of another set.
    pub fn add(&mut self, other: &Bytes) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    /// True if some byte is in both.
    pub fn meets(&self, other: &Bytes) -> bool {
        self.0.iter().zip(other.0).any(|(own, other)| own & other != 0)
    }

    /// Adds some bytes in a row.
    pub fn insert(&mut self, from: u8, to: u8) {
        for byte in from..=to {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }

    /// All that are in a match of `hir`, and maybe others.
    pub fn of_matches(hir: &Hir) -> Self {
        let mut bytes = Bytes::NONE;
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => literal.0.iter().for_each(|&byte| bytes.insert(byte, byte)),
            HirKind::Class(Class::Bytes(class)) => {
                class.ranges().iter().for_each(|range| bytes.insert(range.start(), range.end()));
            }
            HirKind::Class(Class::Unicode(class)) => class.ranges().iter().for_each(|range| {
                if let Ok(start @ 0..0x80) = u8::try_from(u32::from(range.start())) {
                    bytes.insert(start, u8::try_from(u32::from(range.end())).unwrap_or(0x7f).min(0x7f));
                }
                // All bytes of letters beyond ASCII are beyond it.
                if !range.end().is_ascii() {
                    bytes.insert(0x80, 0xff);
                }
            }),
            HirKind::Capture(capture) => bytes = Bytes::of_matches(&capture.sub),
            HirKind::Repetition(repetition) => bytes = Bytes::of_matches(&repetition.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().for_each(|part| bytes.add(&Bytes::of_matches(part)));
            }
        }
        bytes
    }

    /// True if the byte is in the set.
    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    /// Bits that a member says.
    pub fn bits(&self) -> f32 {
        let share: f32 = (0..=255).filter(|&byte| self.has(byte)).map(|byte| (-bits_of_byte(byte)).exp2()).sum();
        -share.min(1.0).log2()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The bytes of each place.
    pub places: Vec<Bytes>,
    /// From the begin of a match to the shape.
    pub way: Way,
    /// How much it says that the shape stands somewhere.
    pub bits: f32,
}

impl Shape {
    /// The bytes of a match up to the first of its shape, and maybe others.
    pub fn across(&self) -> Bytes {
        let mut across = self.way.over;
        across.add(&self.places[0]);
        across
    }
}

/// The shape of `hir` that says most; nothing if its matches can be empty.
pub fn shape(hir: &Hir) -> Option<Shape> {
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let automata: Vec<NFA> = parts.iter().map(|part| compiler().build_from_hir(part).ok()).collect::<Option<_>>()?;
    let mut best: Option<Shape> = None;
    let mut way = Way::NONE;
    for (start, part) in parts.iter().enumerate() {
        let places = places(&automata, start, PLACES_MAX, LookSet::empty());
        let bits = bits(&places);
        if best.as_ref().is_none_or(|best| bits > best.bits) && !places.is_empty() {
            best = Some(Shape { places, way, bits });
        }
        way = way.through(part);
    }
    best
}

/// A byte of a set says so much of its bits behind another of the same: letters stand in words, and digits in numbers.
const SAID_AGAIN: f32 = 0.35;

/// Bits that it says that these places stand somewhere.
fn bits(places: &[Bytes]) -> f32 {
    let said = |(place, bytes): (usize, &Bytes)| {
        let again = place > 0 && places[place - 1] == *bytes;
        bytes.bits() * if again { SAID_AGAIN } else { 1.0 }
    };
    places.iter().enumerate().map(said).sum()
}

/// The bytes that the first places of every match can have where some conditions do not hold, at most so many; none if it can be empty.
pub fn prefix(automaton: &NFA, most: usize, barred: LookSet) -> Vec<Bytes> {
    places(std::slice::from_ref(automaton), 0, most, barred)
}

/// The same of an expression that is too large as a whole: as far as its parts can be read.
pub fn prefix_of_parts(hir: &Hir) -> Vec<Bytes> {
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let automata: Vec<NFA> = parts.iter().map_while(|part| compiler().build_from_hir(part).ok()).collect();
    if automata.is_empty() { Vec::new() } else { places(&automata, 0, gate::PLACES_MAX, LookSet::empty()) }
}

/// Compiles parts of a bounded size.
pub fn compiler() -> Compiler {
    let config = Config::new().utf8(false).nfa_size_limit(Some(PART_BYTES_MAX)).which_captures(WhichCaptures::None);
    let mut compiler = Compiler::new();
    compiler.configure(config);
    compiler
}

/// The parts of a sequence, groups opened.
fn flatten(hir: &Hir, out: &mut Vec<Hir>) {
    match hir.kind() {
        HirKind::Capture(capture) => flatten(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, out)),
        HirKind::Literal(literal) => out.extend(literal.0.iter().map(|&byte| Hir::literal([byte]))),
        // The last turn apart, because what follows it is known.
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            let max = repetition.max.map(|max| max - 1);
            out.push(Hir::repetition(Repetition { min: repetition.min - 1, max, ..repetition.clone() }));
            flatten(&repetition.sub, out);
        }
        _ => out.push(hir.clone()),
    }
}

/// The bytes that can stand at the first places of what begins with part `start`.
fn places(automata: &[NFA], start: usize, most: usize, barred: LookSet) -> Vec<Bytes> {
    let mut walk = Walk::new(automata, barred);
    walk.enter(start, automata[start].start_anchored());
    let (mut places, mut followed) = (Vec::new(), 0);
    while !walk.ended && places.len() < most && walk.is_whole() && followed <= FOLLOWED_MAX {
        let states = std::mem::take(&mut walk.seen);
        followed += states.len();
        walk.known.clear();
        let mut bytes = Bytes::default();
        for (part, state) in states {
            each_way(automata[part].state(state), |first, last, next| {
                bytes.insert(first, last);
                walk.enter(part, next);
            });
        }
        places.push(bytes);
    }
    places
}

/// Calls `visit` with the first and the last of some bytes, and where each of them leads from a state; for all bytes that lead on.
pub fn each_way(state: &State, mut visit: impl FnMut(u8, u8, StateID)) {
    match state {
        State::ByteRange { trans } => visit(trans.start, trans.end, trans.next),
        State::Sparse(sparse) => sparse.transitions.iter().for_each(|trans| visit(trans.start, trans.end, trans.next)),
        State::Dense(dense) => {
            let ways = (0..=255).zip(dense.transitions.iter()).filter(|(_, next)| **next != StateID::ZERO);
            ways.for_each(|(byte, &next)| visit(byte, byte, next));
        }
        _ => {}
    }
}

/// States that can be reached without a byte; conditions are taken to hold, but for some.
pub struct Walk<'a> {
    automata: &'a [NFA],
    barred: LookSet,
    /// Each with the automaton that it is of.
    pub seen: Vec<(usize, StateID)>,
    known: HashSet<(usize, StateID), FixedState>,
    /// A match may be over here, and anything may follow.
    ended: bool,
}

impl<'a> Walk<'a> {
    /// From nowhere, where these conditions do not hold.
    pub fn new(automata: &'a [NFA], barred: LookSet) -> Self {
        Walk { automata, barred, seen: Vec::new(), known: HashSet::default(), ended: false }
    }

    /// From nowhere once more.
    pub fn restart(&mut self) {
        self.seen.clear();
        self.known.clear();
        self.ended = false;
    }

    /// True if there were not more states than are followed.
    pub fn is_whole(&self) -> bool {
        self.seen.len() <= STATES_MAX
    }

    /// True if a match may be over here.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Adds a state of an automaton, and what it leads to.
    pub fn enter(&mut self, part: usize, state: StateID) {
        let mut open = vec![(part, state)];
        while let Some((part, state)) = open.pop() {
            if self.seen.len() > STATES_MAX || !self.known.insert((part, state)) {
                continue;
            }
            self.seen.push((part, state));
            match self.automata[part].state(state) {
                State::Look { look, .. } if self.barred.contains(*look) => {}
                State::Look { next, .. } | State::Capture { next, .. } => open.push((part, *next)),
                State::Union { alternates } => open.extend(alternates.iter().map(|&next| (part, next))),
                State::BinaryUnion { alt1, alt2 } => open.extend([(part, *alt1), (part, *alt2)]),
                State::Match { .. } => match self.automata.get(part + 1) {
                    Some(next) => open.push((part + 1, next.start_anchored())),
                    None => self.ended = true,
                },
                _ => {}
            }
        }
    }
}

/// Shapes, sought together.
pub struct Shapes(Vec<Walked>);

impl Shapes {
    /// Shapes by the number of their pattern.
    pub fn new(mut shapes: Vec<(u32, &Shape)>) -> Self {
        // Neighbours in this order are alike, so that sharing a group costs little.
        shapes.sort_by(|(_, a), (_, b)| a.places.cmp(&b.places));
        let walks = shapes.len().div_ceil(GROUPS).clamp(1, WALKS_MAX);
        let each = shapes.len().div_ceil(walks).max(1);
        Shapes(shapes.chunks(each).map(Walked::new).collect())
    }

    /// Calls `visit` with each pattern whose shape stands in `text`, and where it begins.
    pub fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        self.0.iter().for_each(|walked| walked.scan(text, &mut visit));
    }
}

/// Walks through a text; with more shapes than bits for them, groups share a bit.
const WALKS_MAX: usize = 4;
const GROUPS: usize = u64::BITS as usize;
/// Places that are looked up before anything is compared, the last three of them only where the others fit.
const LOOKUPS: usize = 7;

/// Shapes in 64 groups that are sought in one walk.
struct Walked {
    /// For each of the first places and each byte, the groups that can have it there.
    masks: Box<[[u64; 256]; LOOKUPS]>,
    /// The groups with a shape of at most so many places.
    short: [u64; LOOKUPS],
    /// Where each group's members begin, and the last one's end.
    groups: [u32; GROUPS + 1],
    members: Vec<Member>,
    /// The places of all members that the masks do not tell.
    places: Vec<Bytes>,
}

struct Member {
    rule: u32,
    /// Bytes from the shape's begin to the first of its places that are left to be compared.
    from: u32,
    /// Where those stand among all.
    start: u32,
    end: u32,
}

impl Walked {
    fn new(shapes: &[(u32, &Shape)]) -> Self {
        let each = shapes.len().div_ceil(GROUPS).max(1);
        let mut all = Walked {
            masks: Box::new([[0; 256]; LOOKUPS]),
            short: [0; LOOKUPS],
            groups: [shapes.len() as u32; GROUPS + 1],
            members: Vec::new(),
            places: Vec::new(),
        };
        for (group, members) in shapes.chunks(each).enumerate() {
            all.groups[group] = all.members.len() as u32;
            // Of one that is alone, the masks tell the first places.
            let known = if members.len() == 1 { LOOKUPS } else { 0 };
            for (rule, shape) in members {
                for (place, masks) in all.masks.iter_mut().enumerate() {
                    for (byte, mask) in (0..=255).zip(masks.iter_mut()) {
                        *mask |= u64::from(shape.places.get(place).is_none_or(|bytes| bytes.has(byte))) << group;
                    }
                    all.short[place] |= u64::from(shape.places.len() <= place) << group;
                }
                let start = all.places.len() as u32;
                all.places.extend(shape.places.iter().skip(known));
                let end = all.places.len() as u32;
                all.members.push(Member { rule: *rule, from: known as u32, start, end });
            }
        }
        all
    }

    fn scan(&self, text: &[u8], visit: &mut impl FnMut(u32, usize)) {
        let [first, second, third, fourth, fifth, sixth, seventh] = &*self.masks;
        for (at, next) in text.array_windows::<LOOKUPS>().enumerate() {
            let mut groups = first[usize::from(next[0])]
                & second[usize::from(next[1])]
                & third[usize::from(next[2])]
                & fourth[usize::from(next[3])];
            if groups != 0 {
                groups &= fifth[usize::from(next[4])] & sixth[usize::from(next[5])] & seventh[usize::from(next[6])];
                if groups != 0 {
                    self.compare(groups, text, at, visit);
                }
            }
        }
        for at in text.len().saturating_sub(LOOKUPS - 1)..text.len() {
            let mut groups = u64::MAX;
            for (place, masks) in self.masks.iter().enumerate() {
                groups &= text.get(at + place).map_or(self.short[place], |&byte| masks[usize::from(byte)]);
            }
            self.compare(groups, text, at, visit);
        }
    }

    fn compare(&self, mut groups: u64, text: &[u8], at: usize, visit: &mut impl FnMut(u32, usize)) {
        while groups != 0 {
            let group = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            for member in &self.members[self.groups[group] as usize..self.groups[group + 1] as usize] {
                let places = &self.places[member.start as usize..member.end as usize];
                if places.is_empty() || fit(places, text.get(at + member.from as usize..).unwrap_or_default()) {
                    visit(member.rule, at);
                }
            }
        }
    }
}

/// True if `text` begins with bytes of these sets.
fn fit(places: &[Bytes], text: &[u8]) -> bool {
    text.len() >= places.len() && (0..places.len()).all(|place| places[place].has(text[place]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> Option<Shape> {
        shape(&regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap())
    }

    #[test]
    fn the_telling_part_is_chosen() {
        let shape = of(r"^\s*[a-z]{0,20}x[0-9]q?z").unwrap();
        assert_eq!(shape.places.len(), 3, "the optional letter ends what is certain: {shape:?}");
        assert!(shape.places[0].has(b'x') && shape.places[2].has(b'q') && shape.places[2].has(b'z'));
        assert_eq!(shape.way.most, None);
        assert!(of("a*").is_none());
        let shape = of(r"(?:[a-z]+\s+){10}\.$").unwrap();
        let last = shape.places.len() - 1;
        assert!(
            shape.places[last].has(b'.') && shape.places[last - 1].bits() > 2.0,
            "what stands before is known: {shape:?}"
        );
    }

    #[test]
    fn shapes_beyond_one_walk_are_found_as_well() {
        let patterns: Vec<String> =
            (0..300).map(|n| format!("[{}x]{:03}[0-9]q", char::from(b'a' + n as u8 % 20), n)).collect();
        let shapes: Vec<Shape> = patterns.iter().map(|pattern| of(pattern).unwrap()).collect();
        for count in [3, 64, 65, 300] {
            let all = Shapes::new((0..).zip(&shapes[..count]).collect());
            let mut seen = Vec::new();
            all.scan(b"x0027q x0027 - b0017q", |rule, at| seen.push((rule, at)));
            seen.sort_unstable();
            assert_eq!(seen, [(1, 15), (2, 0)], "{count} shapes");
        }
    }

    #[test]
    fn shapes_are_found_up_to_the_end() {
        let shapes = ["[vw][i1]", "[a@]gr[a@]x", "[0-9]{3}"].map(|pattern| of(pattern).unwrap());
        let all = Shapes::new((0..).zip(&shapes).collect());
        let mut seen = Vec::new();
        all.scan(b"w1agr@x 12 123vi", |rule, at| seen.push((rule, at)));
        assert_eq!(seen, [(0, 0), (1, 2), (2, 11), (0, 14)]);
    }
}
