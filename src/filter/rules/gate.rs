//! Where a match can begin: what must stand before it, and which bytes its first places can have. Pure.
//!
//! An expression is run at the places that pass, and nowhere else. The places are found in one walk with a word of bits, one
//! for each of the first places that fit so far, so that a byte costs a look-up and a shift, whatever the pattern. Where one of
//! them takes only rare bytes, the walk leaps from one of these to the next.

use regex_automata::nfa::thompson::NFA;
use regex_syntax::hir::{Look, LookSet};

use super::heads::{self, Heads};
use super::matcher::Stretch;
use super::shape::Bytes;

/// Places that are compared before the expression runs; a bit each.
pub const PLACES_MAX: usize = 8;

/// See the module.
#[derive(Clone)]
pub struct Gate {
    edge: Edge,
    /// A word begins or ends where the match begins.
    word: bool,
    /// For each byte, the places that it can stand at.
    masks: Box<[u8; 256]>,
    places: usize,
    leap: Option<Leap>,
    heads: Option<Heads>,
}

/// A place that takes a few rare bytes only.
#[derive(Clone, Copy)]
struct Leap {
    place: usize,
    /// The bytes; where there are fewer, the last is said again.
    bytes: [u8; LEAP_BYTES_MAX],
}

/// Bytes that are sought at once.
const LEAP_BYTES_MAX: usize = 3;
/// Bits that the bytes must say: more often, leaps cost more than the walk.
const LEAP_BITS_MIN: f32 = 5.0;

impl Leap {
    fn of(places: &[Bytes]) -> Option<Self> {
        let few = places.iter().enumerate().filter_map(|(place, set)| {
            let mut bytes = (0..=255).filter(|&byte| set.has(byte));
            let first = bytes.next()?;
            let second = bytes.next().unwrap_or(first);
            let third = bytes.next().unwrap_or(second);
            let leap = Leap { place, bytes: [first, second, third] };
            bytes.next().is_none().then(|| (leap, set.bits()))
        });
        let rarest = few.max_by(|(_, one), (_, other)| one.total_cmp(other));
        rarest.filter(|(_, bits)| *bits >= LEAP_BITS_MIN).map(|(leap, _)| leap)
    }

    fn next(&self, text: &[u8]) -> Option<usize> {
        let [one, two, three] = self.bytes;
        match self.bytes {
            _ if one == three => memchr::memchr(one, text),
            _ if two == three => memchr::memchr2(one, two, text),
            _ => memchr::memchr3(one, two, three, text),
        }
    }
}

/// Where a pattern binds its matches to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Anywhere,
    Line,
    Text,
}

impl Default for Gate {
    /// Open everywhere.
    fn default() -> Self {
        Gate::new(LookSet::empty(), &[])
    }
}

impl Gate {
    /// The gate of a pattern: what it asks for at its begin, and the bytes of its first places, none if it can match nothing.
    pub fn new(prefix: LookSet, places: &[Bytes]) -> Self {
        let edge = match prefix {
            _ if prefix.contains(Look::Start) => Edge::Text,
            _ if prefix.contains(Look::StartLF) => Edge::Line,
            _ => Edge::Anywhere,
        };
        let mut masks = Box::new([0; 256]);
        let places = &places[..places.len().min(PLACES_MAX)];
        for (place, bytes) in places.iter().enumerate() {
            for (byte, mask) in (0..=255).zip(masks.iter_mut()) {
                *mask |= u8::from(bytes.has(byte)) << place;
            }
        }
        let leap = Leap::of(places);
        Gate { edge, word: prefix.contains(Look::WordAscii), masks, places: places.len(), leap, heads: None }
    }

    /// The same, told also what the pattern can begin with.
    pub fn with_heads(self, automaton: &NFA) -> Self {
        let heads = if self.places < heads::BYTES { None } else { Heads::of(automaton) };
        Gate { heads, ..self }
    }

    /// Places of `text` where a match in this stretch can begin.
    pub fn starts<'g>(&'g self, text: &'g [u8], stretch: Stretch) -> Starts<'g> {
        let Stretch { from, latest, to } = stretch;
        // Behind the latest begin, only its own first places are of use.
        let to = to.min(latest.saturating_add(self.places));
        Starts { gate: self, text, at: from, next: from, to, fitting: 0 }
    }

    fn fits(&self, text: &[u8], at: usize, to: usize) -> bool {
        let fits = |(place, &byte): (usize, &u8)| self.masks[usize::from(byte)] & (1 << place) != 0;
        at + self.places <= to && text[at..at + self.places].iter().enumerate().all(fits)
    }

    fn edge_of_word(&self, text: &[u8], at: usize) -> bool {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let before = at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(is_word);
        before != text.get(at).is_some_and(is_word)
    }
}

/// Places where a match can begin, in their order.
pub struct Starts<'g> {
    gate: &'g Gate,
    text: &'g [u8],
    /// The first byte that was not read yet.
    at: usize,
    /// The first place that was not given yet.
    next: usize,
    to: usize,
    fitting: u8,
}

impl Starts<'_> {
    /// The next line begin at or after `self.next`.
    fn next_line(&mut self) -> Option<usize> {
        while self.next <= self.to {
            let at = self.next;
            if at == 0 || self.text[at - 1] == b'\n' {
                self.next = at + 1;
                return Some(at);
            }
            self.next = at + memchr::memchr(b'\n', &self.text[at..self.to])? + 1;
        }
        None
    }

    fn next_anywhere(&mut self) -> Option<usize> {
        let gate = self.gate;
        if gate.places == 0 {
            let at = self.next;
            self.next += 1;
            return Some(at).filter(|&at| at <= self.to);
        }
        if let Some(leap) = gate.leap {
            loop {
                let from = self.next + leap.place;
                self.next += leap.next(self.text.get(from..self.to)?)? + 1;
                if gate.fits(self.text, self.next - 1, self.to) {
                    return Some(self.next - 1);
                }
            }
        }
        let last = 1 << (gate.places - 1);
        let mut fitting = self.fitting;
        for (ahead, &byte) in self.text.get(self.at..self.to)?.iter().enumerate() {
            fitting = (fitting << 1 | 1) & gate.masks[usize::from(byte)];
            if fitting & last != 0 {
                self.fitting = fitting;
                self.at += ahead + 1;
                return Some(self.at - gate.places);
            }
        }
        self.at = self.to;
        None
    }
}

impl Iterator for Starts<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let at = match self.gate.edge {
                Edge::Anywhere => self.next_anywhere()?,
                Edge::Line => self.next_line()?,
                Edge::Text => {
                    let at = self.next;
                    self.next = usize::MAX;
                    Some(at).filter(|&at| at == 0)?
                }
            };
            let fits = self.gate.edge == Edge::Anywhere || self.gate.fits(self.text, at, self.to);
            let head = || self.text[at..].first_chunk();
            let known = |heads: &Heads| head().is_some_and(|head| heads.have(*head));
            let fits = fits && self.gate.heads.as_ref().is_none_or(known);
            if fits && (!self.gate.word || self.gate.edge_of_word(self.text, at)) {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rules::linear::parse;
    use crate::filter::rules::shape;

    fn starts(pattern: &str, text: &str, from: usize) -> Vec<usize> {
        let hir = parse(pattern).unwrap();
        let gate = Gate::new(hir.properties().look_set_prefix(), &shape::prefix_of(&hir));
        gate.starts(text.as_bytes(), Stretch::rest(text.as_bytes(), from)).collect()
    }

    #[test]
    fn only_where_a_match_can_begin() {
        assert_eq!(starts("a[bc]d?", "ab xac a", 0), [0, 4]);
        assert_eq!(starts("a[bc]d?", "ab xac a", 1), [4]);
        assert_eq!(starts(r"\ba", "a ba a", 0), [0, 5]);
        assert_eq!(starts("^a", "a\na", 0), [0]);
        assert_eq!(starts("^a", "a\na", 2), Vec::<usize>::new());
        assert_eq!(starts("(?m)^a", "a\nba\n\nab", 0), [0, 6]);
        assert_eq!(starts("a*", "ba", 0), [0, 1, 2]);
        // Leaps from x to x, q to q, or to any of three.
        assert_eq!(starts("[a-c]x", "ax xbxax cx", 1), [4, 6, 9]);
        assert_eq!(starts("(?i)[a-c]q[a-z]", "bQa aq", 0), [0]);
        assert_eq!(starts("[xqj]a", "xa qqa ja x", 0), [0, 4, 7]);
    }
}
