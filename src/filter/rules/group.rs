//! Patterns that look at the same text, behind one table of their literals and one of their shapes. Pure.
//!
//! A text is walked once by each; what is found leads to the patterns that can match and to the places where. Adding rules
//! adds to the tables, not walks. A few literals or shapes alone need no table: each of them is sought by its rarest bytes, which is
//! many times as fast.

use std::collections::BTreeMap;

use memchr::memmem::Finder;
use regex_syntax::hir::LookSet;

use super::gate::Gate;
use super::grams::Grams;
use super::matcher::{Matcher, Sight, Stretch};
use super::shape::{Shape, Shapes};

/// See the module.
pub struct Group {
    literals: Literals,
    owners: Owners,
    shapes: Sought,
}

/// How literals are sought.
enum Literals {
    Few(Vec<Finder<'static>>),
    Many(Box<Grams>),
}

/// How shapes are sought.
enum Sought {
    Few(Vec<(u32, Gate)>),
    Many(Shapes),
}

/// Literals that are sought one by one: together they take about the time of a walk.
const FEW_LITERALS: usize = 12;
/// The same for shapes.
const FEW_SHAPES: usize = 4;

impl Literals {
    fn new(literals: Vec<&[u8]>) -> Self {
        if literals.len() <= FEW_LITERALS {
            Literals::Few(literals.into_iter().map(|one| Finder::new(one).into_owned()).collect())
        } else {
            Literals::Many(Box::new(Grams::new(literals.into_iter().map(<[u8]>::to_vec).collect())))
        }
    }

    fn are_none(&self) -> bool {
        matches!(self, Literals::Few(few) if few.is_empty())
    }

    /// Calls `visit` with the number of each literal that stands in `text`, which is in lower case, and where it ends.
    fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        match self {
            Literals::Few(few) => {
                for (number, finder) in (0..).zip(few) {
                    let mut from = 0;
                    while let Some(at) = finder.find(&text[from..]) {
                        visit(number, from + at + finder.needle().len());
                        from += at + 1;
                    }
                }
            }
            Literals::Many(grams) => grams.scan(text, visit),
        }
    }
}

impl Sought {
    fn new(shapes: Vec<(u32, &Shape)>) -> Self {
        if shapes.len() <= FEW_SHAPES {
            let gate = |(rule, shape): (u32, &Shape)| (rule, Gate::new(LookSet::empty(), &shape.places));
            Sought::Few(shapes.into_iter().map(gate).collect())
        } else {
            Sought::Many(Shapes::new(shapes))
        }
    }

    /// Calls `visit` with each pattern whose shape stands in `text`, and where it begins.
    fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        match self {
            Sought::Few(few) => {
                for (rule, gate) in few {
                    gate.starts(text, Stretch::rest(text, 0)).for_each(|at| visit(*rule, at));
                }
            }
            Sought::Many(shapes) => shapes.scan(text, visit),
        }
    }
}

/// What a scan needs, kept from scan to scan.
#[derive(Default)]
pub struct Room {
    /// The text in lower case.
    lower: Vec<u8>,
    /// Literals that were seen.
    known: Vec<bool>,
}

/// Of one literal, the patterns that can match where it stands, and those that want it anywhere, with the bit that says so.
type Claims = (Vec<u32>, Vec<(u32, u8)>);

/// Whom literals belong to.
#[derive(Default)]
struct Owners {
    /// For each literal, where its owners begin in both rows, and where the last one's end.
    starts: Vec<[u32; 2]>,
    /// Patterns that can match where it stands.
    sights: Vec<u32>,
    /// Patterns that want it to stand anywhere, with the bit that says so.
    more: Vec<(u32, u8)>,
}

impl Owners {
    fn new(each: impl Iterator<Item = Claims>) -> Self {
        let mut owners = Owners { starts: vec![[0; 2]], ..Owners::default() };
        for (sights, more) in each {
            owners.sights.extend(sights);
            owners.more.extend(more);
            owners.starts.push([owners.sights.len() as u32, owners.more.len() as u32]);
        }
        owners
    }

    fn sights(&self, literal: u32) -> &[u32] {
        let (from, to) = (self.starts[literal as usize][0], self.starts[literal as usize + 1][0]);
        &self.sights[from as usize..to as usize]
    }

    fn more(&self, literal: u32) -> &[(u32, u8)] {
        let (from, to) = (self.starts[literal as usize][1], self.starts[literal as usize + 1][1]);
        &self.more[from as usize..to as usize]
    }
}

/// What was seen of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Where its literal ends or its shape begins; the latter a byte further on, so that both lie behind the begin of their
    /// segment.
    Sight(usize),
    /// One of its other sets of literals, as a bit.
    More(u8),
}

impl Seen {
    /// The bit that says so.
    pub fn bit(self) -> u8 {
        match self {
            Seen::Sight(_) => SIGHT_BIT,
            Seen::More(bit) => bit,
        }
    }
}

/// The bit of a pattern's own sight; those of its other sets follow.
const SIGHT_BIT: u8 = 1;

impl Group {
    /// A group of patterns by number; with those that it does not look for.
    pub fn new<'m>(members: impl Iterator<Item = (u32, &'m Matcher)>) -> (Self, Vec<u32>) {
        let mut literals: BTreeMap<&[u8], Claims> = BTreeMap::new();
        let (mut shapes, mut unseen) = (Vec::new(), Vec::new());
        for (rule, matcher) in members {
            match &matcher.sight {
                Sight::Always => unseen.push(rule),
                Sight::Literals(set) => set.iter().for_each(|one| literals.entry(one).or_default().0.push(rule)),
                Sight::Shape(shape) => shapes.push((rule, shape)),
            }
            for (number, set) in matcher.more.iter().enumerate() {
                let bit = SIGHT_BIT << (number + 1);
                set.iter().for_each(|one| literals.entry(one).or_default().1.push((rule, bit)));
            }
        }
        let names = literals.keys().copied().collect();
        let owners = Owners::new(literals.values().cloned());
        (Group { literals: Literals::new(names), owners, shapes: Sought::new(shapes) }, unseen)
    }

    /// True if there is nothing to be found.
    pub fn is_blind(&self) -> bool {
        self.literals.are_none() && matches!(&self.shapes, Sought::Few(few) if few.is_empty())
    }

    /// Calls `visit` with each pattern of which something stands in `text`, and with what.
    pub fn scan(&self, text: &[u8], room: &mut Room, mut visit: impl FnMut(u32, Seen)) {
        if !self.literals.are_none() {
            let Room { lower, known } = room;
            lower.clear();
            lower.extend_from_slice(text);
            lower.make_ascii_lowercase();
            known.clear();
            known.resize(if self.owners.more.is_empty() { 0 } else { self.owners.starts.len() }, false);
            self.literals.scan(lower, |number, end| {
                self.owners.sights(number).iter().for_each(|&rule| visit(rule, Seen::Sight(end)));
                if known.get_mut(number as usize).is_some_and(|known| !std::mem::replace(known, true)) {
                    self.owners.more(number).iter().for_each(|&(rule, bit)| visit(rule, Seen::More(bit)));
                }
            });
        }
        self.shapes.scan(text, |rule, at| visit(rule, Seen::Sight(at + 1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::budget::Budget;
    use crate::filter::rules::definition::Test;
    use crate::filter::rules::scratch::Scratch;

    #[test]
    fn patterns_are_found_by_literal_and_by_shape() {
        let patterns = ["/viagra/i", "/agra\\b/", "/[u-z][h-m1][a-f@]g[0-9]/i", "/.*/", "/buy.+viagra/i"];
        let matchers =
            patterns.map(|pattern| Matcher::compile(&Test { negated: false, pattern: pattern.to_owned() }).unwrap());
        let (group, unseen) = Group::new((0..).zip(&matchers));
        assert_eq!(unseen, [3]);
        let mut seen = Vec::new();
        group.scan(b"buy VIAGRA, v1ag7", &mut Room::default(), |rule, end| seen.push((rule, end)));
        seen.sort_unstable();
        let sight = Seen::Sight;
        assert_eq!(seen, [(0, sight(10)), (1, sight(10)), (2, sight(13)), (4, sight(10)), (4, Seen::More(2))]);
    }

    /// Words over the letters that the patterns below are made of.
    fn text(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let words = ["name", "Your", "address", ":", "win", "1", "12", "xx", "\n", "money", "fund", "-", "quiz"];
        (0..next(12))
            .flat_map(|_| [words[next(13) as usize], [" ", ""][next(2) as usize]].concat().into_bytes())
            .collect()
    }

    #[test]
    fn what_is_tried_near_its_sights_is_what_matches_anywhere() {
        let patterns = [
            "/your.{0,9}name/i",
            "/(?:(?:name|address): ?){2}/i",
            "/^your .*money$/im",
            "/\\bwin \\d+ (?:money|fund)/",
            "/name[^:]+: address|quiz-quiz/i",
            "/(?<!your )fund(?=s? ?1)/i",
            "/(name|quiz) ?.*\\1 1/",
            "/x{2,}[^a-z]{1,3}money/",
            "/win[^:]*fund/",
            "/\\d.*quiz/",
            "/(?:^|-)(?:name|address)|x+ quiz/i",
        ];
        let (mut scratch, mut hits) = (Scratch::default(), 0);
        for (id, pattern) in (0..).zip(patterns) {
            let test = Test { negated: false, pattern: pattern.to_owned() };
            let matcher = Matcher::compile(&test).unwrap();
            let (group, unseen) = Group::new([(id, &matcher)].into_iter());
            for text in (0..4_000).map(text) {
                let budget = &mut Budget::default();
                let anywhere = matcher.count(id, &text, 1, &mut scratch, budget).0 > 0;
                let (mut ends, mut bits) = (Vec::new(), 0);
                group.scan(&text, &mut Room::default(), |_, seen| match seen {
                    Seen::Sight(end) => ends.push(end),
                    Seen::More(bit) => bits |= bit,
                });
                let wanted = (1 << (matcher.more.len() + 1)) - 1 - SIGHT_BIT;
                let enough = bits == wanted && ends.len() >= usize::from(matcher.least);
                let near = |end: &usize| {
                    matcher
                        .find(id, &text, matcher.stretch(&text, *end), &mut scratch, &mut Budget::default())
                        .is_some()
                };
                let quick = if unseen.is_empty() { enough && ends.iter().any(near) } else { anywhere };
                assert_eq!(quick, anywhere, "{pattern} in {:?}", String::from_utf8_lossy(&text));
                hits += u32::from(anywhere);
            }
        }
        assert!(hits > 500, "the texts hit too seldom to prove anything: {hits}");
    }
}
