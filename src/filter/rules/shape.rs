//! The shape of a pattern: which bytes can stand at each of a few places in a row. Pure.
//!
//! Patterns without a useful literal (`[vw][i1!][a@]gra`) are sought by their shapes, all at once: one table lookup per place says for 64
//! groups of shapes whether they can stand there, and what passes is compared place by place. The time depends on the length
//! of the text alone. Every match of a pattern holds its shape.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{Hir, HirKind};

use super::gate;
use super::literal::bits_of_byte;

/// Places of a shape.
const PLACES_MAX: usize = 10;
/// Compiled size of a part that is looked into.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;
/// States that are followed at once; a place where more are possible says nothing anyway.
const STATES_MAX: usize = 4_000;

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes([u64; 4]);

impl Bytes {
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

    fn insert(&mut self, from: u8, to: u8) {
        for byte in from..=to {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
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
    /// Bytes from the begin of a match to the shape at most, if that is bounded.
    pub before: Option<usize>,
    /// How much it says that the shape stands somewhere.
    pub bits: f32,
}

/// The shape of `hir` that says most; nothing if its matches can be empty.
pub fn shape(hir: &Hir) -> Option<Shape> {
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let config = Config::new().utf8(false).nfa_size_limit(Some(PART_BYTES_MAX)).which_captures(WhichCaptures::None);
    let compiler = |part: &Hir| Compiler::new().configure(config.clone()).build_from_hir(part).ok();
    let automata: Vec<NFA> = parts.iter().map(compiler).collect::<Option<_>>()?;
    let mut best: Option<Shape> = None;
    let mut before = Some(0);
    for (start, part) in parts.iter().enumerate() {
        let places = places(&automata, start, PLACES_MAX);
        let bits = places.iter().map(Bytes::bits).sum();
        if best.as_ref().is_none_or(|best| bits > best.bits) && !places.is_empty() {
            best = Some(Shape { places, before, bits });
        }
        before = before.zip(part.properties().maximum_len()).map(|(before, length)| before + length);
    }
    best
}

/// The bytes that the first places of every match can have; none if it can be empty.
pub fn prefix(automaton: &NFA) -> Vec<Bytes> {
    places(std::slice::from_ref(automaton), 0, gate::PLACES_MAX)
}

/// The parts of a sequence, groups opened.
fn flatten(hir: &Hir, out: &mut Vec<Hir>) {
    match hir.kind() {
        HirKind::Capture(capture) => flatten(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, out)),
        HirKind::Literal(literal) => out.extend(literal.0.iter().map(|&byte| Hir::literal([byte]))),
        _ => out.push(hir.clone()),
    }
}

/// The bytes that can stand at the first places of what begins with part `start`.
fn places(automata: &[NFA], start: usize, most: usize) -> Vec<Bytes> {
    let mut walk = Walk { automata, seen: Vec::new(), known: HashSet::default(), ended: false };
    walk.enter(start, automata[start].start_anchored());
    let mut places = Vec::new();
    while !walk.ended && places.len() < most && walk.seen.len() <= STATES_MAX {
        let states = std::mem::take(&mut walk.seen);
        walk.known.clear();
        let mut bytes = Bytes::default();
        for (part, state) in states {
            match automata[part].state(state) {
                State::ByteRange { trans } => {
                    bytes.insert(trans.start, trans.end);
                    walk.enter(part, trans.next);
                }
                State::Sparse(sparse) => {
                    for trans in sparse.transitions.iter() {
                        bytes.insert(trans.start, trans.end);
                        walk.enter(part, trans.next);
                    }
                }
                State::Dense(dense) => {
                    for (byte, &next) in
                        dense.transitions.iter().enumerate().filter(|(_, next)| **next != StateID::ZERO)
                    {
                        bytes.insert(byte as u8, byte as u8);
                        walk.enter(part, next);
                    }
                }
                _ => {}
            }
        }
        places.push(bytes);
    }
    places
}

/// States that can be reached without a byte; conditions are taken to hold.
struct Walk<'a> {
    automata: &'a [NFA],
    seen: Vec<(usize, StateID)>,
    known: HashSet<(usize, StateID), FixedState>,
    /// A match may be over here, and anything may follow.
    ended: bool,
}

impl Walk<'_> {
    fn enter(&mut self, part: usize, state: StateID) {
        let mut open = vec![(part, state)];
        while let Some((part, state)) = open.pop() {
            if self.seen.len() > STATES_MAX || !self.known.insert((part, state)) {
                continue;
            }
            self.seen.push((part, state));
            match self.automata[part].state(state) {
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

/// Shapes in 64 groups, sought together.
pub struct Shapes {
    /// For each of the first places and each byte, the groups that can have it there.
    masks: Box<[[u64; 256]; LOOKUPS]>,
    /// The groups with a shape of at most so many places.
    short: [u64; LOOKUPS],
    groups: Vec<Vec<(u32, Vec<Bytes>)>>,
}

/// Places that are looked up before anything is compared.
const LOOKUPS: usize = 4;

impl Shapes {
    /// Shapes by the number of their pattern.
    pub fn new(mut shapes: Vec<(u32, &Shape)>) -> Self {
        // Neighbours in this order are alike, so that sharing a group costs little.
        shapes.sort_by(|(_, a), (_, b)| a.places.cmp(&b.places));
        let each = shapes.len().div_ceil(64).max(1);
        let groups: Vec<Vec<(u32, Vec<Bytes>)>> = shapes
            .chunks(each)
            .map(|group| group.iter().map(|(rule, shape)| (*rule, shape.places.clone())).collect())
            .collect();
        let mut all = Shapes { masks: Box::new([[0; 256]; LOOKUPS]), short: [0; LOOKUPS], groups };
        for (group, members) in all.groups.iter().enumerate() {
            for (_, places) in members {
                for (place, masks) in all.masks.iter_mut().enumerate() {
                    for (byte, mask) in (0..=255).zip(masks.iter_mut()) {
                        *mask |= u64::from(places.get(place).is_none_or(|bytes| bytes.has(byte))) << group;
                    }
                    all.short[place] |= u64::from(places.len() <= place) << group;
                }
            }
        }
        all
    }

    /// Calls `visit` with each pattern whose shape stands in `text`, and where it begins.
    pub fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        let [first, second, third, fourth] = &*self.masks;
        let whole = text.len().saturating_sub(LOOKUPS - 1);
        for at in 0..whole {
            let next: &[u8; LOOKUPS] = text[at..at + LOOKUPS].try_into().expect("so many bytes are taken");
            let groups = first[usize::from(next[0])]
                & second[usize::from(next[1])]
                & third[usize::from(next[2])]
                & fourth[usize::from(next[3])];
            if groups != 0 {
                self.compare(groups, text, at, &mut visit);
            }
        }
        for at in whole..text.len() {
            let mut groups = u64::MAX;
            for (place, masks) in self.masks.iter().enumerate() {
                groups &= text.get(at + place).map_or(self.short[place], |&byte| masks[usize::from(byte)]);
            }
            self.compare(groups, text, at, &mut visit);
        }
    }

    fn compare(&self, mut groups: u64, text: &[u8], at: usize, visit: &mut impl FnMut(u32, usize)) {
        while groups != 0 {
            let group = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            for (rule, places) in self.groups.get(group).into_iter().flatten() {
                let rest = &text[at..];
                if places.len() <= rest.len() && places.iter().zip(rest).all(|(bytes, &byte)| bytes.has(byte)) {
                    visit(*rule, at);
                }
            }
        }
    }
}

/// The same of an expression.
#[cfg(test)]
pub fn prefix_of(hir: &Hir) -> Vec<Bytes> {
    prefix(&Compiler::new().configure(Config::new().utf8(false)).build_from_hir(hir).expect("the expression is small"))
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
        assert_eq!(shape.before, None);
        assert!(of("a*").is_none());
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
