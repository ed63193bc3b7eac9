//! Where a match can begin: what must stand before it, and which bytes its first places can have. Pure.
//!
//! An expression is run at the places that pass, and nowhere else. The places are found in one walk with a word of bits, one
//! for each of the first places that fit so far, so that a byte costs a look-up and a shift, whatever the pattern. Where one of
//! them takes only rare bytes, the walk leaps from one of these to the next. Where a match begins with many bytes of one kind (words of small
//! letters, a row of digits), it is sought from behind: a byte of another kind rules out all begins in front of it.

use regex_automata::nfa::thompson::NFA;
use regex_automata::util::look;
use regex_syntax::hir::{Look, LookSet};

use super::backtrack::Table;
use super::heads::Heads;
use super::matcher::Stretch;
use super::shape::{self, Bytes};

/// Places that are compared before the expression runs; a bit each.
pub const PLACES_MAX: usize = 8;

/// See the module.
#[derive(Clone)]
pub struct Gate {
    edge: Edge,
    /// A word begins or ends where the match begins.
    word: bool,
    /// Some matches begin with the text, and all that is told is of the others.
    apart: bool,
    /// For each byte, the places that it can stand at.
    masks: Box<[u8; 256]>,
    places: usize,
    leap: Option<Leap>,
    run: Option<Run>,
    heads: Option<Heads>,
}

/// The bytes that a match begins with, of which there are many and all are of one set.
#[derive(Clone)]
struct Run {
    set: Box<Table>,
    least: usize,
}

/// Places that are looked at for a run.
const RUN_PLACES_MAX: usize = 64;
/// The same where all those are alike.
const RUN_PLACES_LONG: usize = 1_024;
/// Bytes of a run at least: less is seen as quickly byte by byte.
const RUN_PLACES_MIN: usize = 16;
/// Bits that a run must say, so that few stretches of a text are one.
const RUN_BITS_MIN: f32 = 3.0;

impl Run {
    /// The run that a match begins with.
    fn of_begin(automaton: &NFA, barred: look::LookSet) -> Option<Self> {
        let places = shape::prefix(automaton, RUN_PLACES_MAX, barred);
        // A row of the same goes on, as a rule.
        let goes_on = places.len() == RUN_PLACES_MAX && places.iter().all(|place| *place == places[0]);
        Run::of(&if goes_on { shape::prefix(automaton, RUN_PLACES_LONG, barred) } else { places })
    }

    /// The run of the first places that says most.
    fn of(places: &[Bytes]) -> Option<Self> {
        let all = places.iter().scan(Bytes::NONE, |all, place| {
            all.add(place);
            Some(*all)
        });
        let runs =
            (1..).zip(all).skip(RUN_PLACES_MIN - 1).map(|(least, set)| (least, set, Run::bits(&set) * least as f32));
        let (least, set, bits) = runs.max_by(|(.., one), (.., other)| one.total_cmp(other))?;
        (bits >= RUN_BITS_MIN).then(|| Run { set: Box::new(Table::new(&set)), least })
    }

    /// Bits that a byte of a run says; of all bytes but a few, what it says that it is none of those.
    fn bits(set: &Bytes) -> f32 {
        let others = Bytes::of(|byte| !set.has(byte));
        set.bits().max(-(1.0 - (-others.bits()).exp2()).log2())
    }

    /// Where a run can begin, from `at` on: here, or behind the last byte that is none of it; nothing if the text is too short.
    fn next(&self, text: &[u8], at: usize) -> Option<usize> {
        let piece = text.get(at..at + self.least)?;
        Some(piece.iter().rposition(|&byte| !self.set.has(byte)).map_or(at, |place| at + place + 1))
    }

    /// The place of the first run that begins from `at` on and in front of `to`, and where it ends, as far as that matters to these begins.
    fn find(&self, text: &[u8], mut at: usize, to: usize) -> Option<(usize, usize)> {
        while at < to {
            let next = self.next(text, at)?;
            if next == at {
                let sure = at + self.least;
                let most = text.len().min(to + self.least);
                return Some((at, sure + self.set.span(&text[sure..most])));
            }
            at = next;
        }
        None
    }
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
        let (word, places) = (prefix.contains(Look::WordAscii), places.len());
        Gate { edge, word, apart: false, masks, places, leap, run: None, heads: None }
    }

    /// The same of an expression, told also with how many bytes of one kind it begins, and with what else.
    pub fn of(prefix: LookSet, automaton: &NFA) -> Self {
        let (start, mut barred) = (look::Look::Start, look::LookSet::empty());
        let apart = !prefix.contains(Look::Start) && automaton.look_set_any().contains(start);
        if apart {
            barred = barred.insert(start);
        }
        let gate = Gate::new(prefix, &shape::prefix(automaton, PLACES_MAX, barred));
        // Leaps are quicker.
        let run = if gate.leap.is_some() { None } else { Run::of_begin(automaton, barred) };
        Gate { apart, run, heads: Heads::of(automaton, barred), ..gate }
    }

    /// True if it is open at the begin of a text alone.
    pub fn begins_text(&self) -> bool {
        self.edge == Edge::Text
    }

    /// Places of `text` where a match in this stretch can begin.
    pub fn starts<'g>(&'g self, text: &'g [u8], stretch: Stretch) -> Starts<'g> {
        let Stretch { from, latest, to } = stretch;
        // Behind the latest begin, only its own first places are of use.
        let to = to.min(latest.saturating_add(self.places));
        let first = self.apart && from == 0;
        let from = from + usize::from(first);
        Starts { gate: self, text, first, at: from, next: from, to, run_end: 0, fitting: 0 }
    }

    fn fits(&self, text: &[u8], at: usize, to: usize) -> bool {
        let fits = |(place, &byte): (usize, &u8)| self.masks[usize::from(byte)] & (1 << place) != 0;
        let begins = at + self.places <= to && text[at..at + self.places].iter().enumerate().all(fits);
        begins && self.run.as_ref().is_none_or(|run| run.next(text, at) == Some(at))
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
    /// The begin of the text is still to be given.
    first: bool,
    /// The first byte that was not read yet.
    at: usize,
    /// The first place that was not given yet.
    next: usize,
    to: usize,
    /// Where the bytes of a run end that the next place is in.
    run_end: usize,
    fitting: u8,
}

impl Starts<'_> {
    /// The next line begin at or after `self.next`, where a run can begin if the pattern begins with one.
    fn next_line(&mut self) -> Option<usize> {
        while self.next <= self.to {
            let at = self.next;
            if at > 0 && self.text[at - 1] != b'\n' {
                self.next = at + memchr::memchr(b'\n', &self.text[at..self.to])? + 1;
                continue;
            }
            let next = self.gate.run.as_ref().map_or(Some(at), |run| run.next(self.text, at))?;
            if next == at {
                self.next = at + 1;
                return Some(at);
            }
            self.next = next;
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
        let Some(run) = &gate.run else { return self.walk(self.to) };
        while self.at < self.to {
            if self.run_end <= self.at {
                (self.at, self.run_end) = run.find(self.text, self.at, self.to)?;
                self.fitting = 0;
            }
            // The last begin in it has all of a run before its end.
            if let Some(at) = self.walk(self.to.min(self.run_end - run.least + gate.places)) {
                return Some(at);
            }
            self.at = self.run_end + 1;
        }
        None
    }

    /// The next place whose first bytes stand in front of `to`.
    fn walk(&mut self, to: usize) -> Option<usize> {
        let gate = self.gate;
        let last = 1 << (gate.places - 1);
        let mut fitting = self.fitting;
        for (ahead, &byte) in self.text.get(self.at..to)?.iter().enumerate() {
            fitting = (fitting << 1 | 1) & gate.masks[usize::from(byte)];
            if fitting & last != 0 {
                self.fitting = fitting;
                self.at += ahead + 1;
                return Some(self.at - gate.places);
            }
        }
        self.at = to;
        None
    }
}

impl Iterator for Starts<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if std::mem::take(&mut self.first) {
            return Some(0);
        }
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
            let fits = fits && (!self.gate.word || self.gate.edge_of_word(self.text, at));
            if fits && self.gate.heads.as_ref().is_none_or(|heads| heads.may_begin(&self.text[at..])) {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rules::linear::parse;

    fn gate(pattern: &str) -> Gate {
        let hir = parse(pattern).unwrap();
        let automaton = shape::compiler().build_from_hir(&hir).unwrap();
        Gate::of(hir.properties().look_set_prefix(), &automaton)
    }

    fn starts(pattern: &str, text: &str, from: usize) -> Vec<usize> {
        gate(pattern).starts(text.as_bytes(), Stretch::rest(text.as_bytes(), from)).collect()
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
        // Runs of small letters, in which a match can begin up to where the rest is too short.
        let text = format!("{0}A{1} {1}a{2}-aa {1}{3}", "ab".repeat(7), "cd".repeat(9), "e".repeat(3), "f".repeat(20));
        let runs = starts(r"\b[a-z]{17} ?[a-z]", &text, 0);
        assert_eq!(runs.iter().map(|&at| &text[at..at + 3]).collect::<Vec<_>>(), ["cdc", "cdc"], "{runs:?} in {text}");
        assert_eq!(starts("[a-z]{18}", &"a".repeat(21), 0), [0, 1, 2, 3]);
        assert_eq!(starts("[a-z]{18}", &"a".repeat(17), 0), Vec::<usize>::new());
        let (gate, text) = (gate("[a-z]{18}"), "a".repeat(40));
        let stretch = Stretch { from: 2, latest: 5, to: 30 };
        assert_eq!(gate.starts(text.as_bytes(), stretch).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(starts("(?m)^[a-z]{18}", &format!("{0}\nA{0}\n{0}", "a".repeat(18)), 0), [0, 39]);
        // A long row of the same is missed without a look at each line.
        let lines = format!("{0}\n{1}\n{0}\n", "a".repeat(70), "b".repeat(998));
        assert_eq!(starts("(?m)^[^\\r\\n]{998}", &lines, 0), [71]);
        // Leaps from x to x, q to q, or to any of three.
        assert_eq!(starts("[a-c]x", "ax xbxax cx", 1), [4, 6, 9]);
        assert_eq!(starts("(?i)[a-c]q[a-z]", "bQa aq", 0), [0]);
        assert_eq!(starts("[xqj]a", "xa qqa ja x", 0), [0, 4, 7]);
    }
}
