//! One compiled pattern: a linear-time expression, or a backtracking one where Perl's syntax asks for more. Pure.
//!
//! A literal or a shape that was found in the text says where a match can begin; the expression ([`linear`], [`strong`]) runs
//! there and nowhere else.

use std::sync::Arc;

use regex_syntax::hir::Hir;

use super::backtrack::{Known, Table};
use super::definition::Test;
use super::linear::{Linear, parse};
use super::relax::relax;
use super::scratch::Scratch;
use super::shape::{Bytes, Shape, shape};
use super::strong::Strong;
use super::{literal, pattern};
use crate::filter::budget::Budget;

/// A compiled pattern with what is to be done with it.
pub struct Matcher {
    engine: Engine,
    /// It holds where the pattern does not match.
    pub negated: bool,
    /// What a text holds where the pattern can match.
    pub sight: Sight,
    /// Sets of literals of which the text must hold one each, in lower case.
    pub more: Vec<Vec<Vec<u8>>>,
    /// Bytes from the begin of a match to the sight's end at most, if that is bounded.
    back: Option<usize>,
    /// Bytes that no match holds up to the sight's end, if one of them stands near most sights.
    barrier: Option<Arc<Table>>,
    /// Places in one text where its sight stands, at least.
    pub least: u16,
    /// Bytes of a match at most, if that is bounded.
    longest: Option<usize>,
    /// How much its sight says.
    bits: f32,
}

/// What is looked for first, for all patterns at once.
pub enum Sight {
    /// Nothing: the pattern itself is tried.
    Always,
    /// One of these, in lower case.
    Literals(Vec<Vec<u8>>),
    /// Bytes of this shape.
    Shape(Shape),
}

enum Engine {
    Linear(Box<Linear>),
    Strong(Box<Strong>),
}

/// Bits that a literal must say to be sought: it stands in one of so many places.
const LITERAL_BITS_MIN: f32 = 13.0;
/// The same for a shape.
const SHAPE_BITS_MIN: f32 = 7.0;
/// Bytes of a usual text.
const TEXT_BYTES: f32 = 2_048.0;
/// Bits that one of a barrier's bytes says at most: rarer ones would be sought far.
const BARRIER_BITS_MAX: f32 = 10.0;
/// A nearer begin of a stretch is not made nearer by a barrier.
const BARRIER_BACK_MIN: usize = 16;
/// Bytes before a sight's end in which a barrier is sought.
const BARRIER_BYTES_MAX: usize = 1_024;
const STATES_PER_COST: u64 = 64;
const COST_OF_BACKTRACKING: u64 = 100;

/// A part of a text in which a match is sought.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// It begins here or later.
    pub from: usize,
    /// It begins here or earlier.
    pub latest: usize,
    /// It ends here or earlier, as far as that makes the search shorter.
    pub to: usize,
}

impl Stretch {
    /// All of `text` behind `from`.
    pub fn rest(text: &[u8], from: usize) -> Self {
        Stretch { from, latest: text.len(), to: text.len() }
    }
}

/// Where a pattern matched: the end, and the begin if it is known.
pub type Found = (Option<usize>, usize);

/// Where the next match can begin, after one that was sought from `from` on: after a match of nothing, a byte further on.
pub fn next_begin((start, end): Found, from: usize) -> usize {
    if end > start.unwrap_or(from) { end } else { end + 1 }
}

impl Matcher {
    /// Compiles.
    /// # Errors
    /// If the pattern is wrong, too large, or beyond both engines.
    pub fn compile(test: &Test) -> Result<Self, String> {
        let (text, flags) = pattern::split(&test.pattern)?;
        let translated = pattern::translate(text, flags)?;
        let text = translated.text.as_str();
        let (engine, hir) = if translated.backtracking {
            let weaker = relax(text).and_then(|text| parse(&text).ok().map(|hir| (text, hir)));
            (Engine::Strong(Box::new(Strong::compile(text, weaker.as_ref())?)), weaker.map(|(_, hir)| hir))
        } else {
            let hir = parse(text)?;
            (Engine::Linear(Box::new(Linear::compile(text, &hir)?)), Some(hir))
        };
        let longest = hir.as_ref().and_then(|hir| hir.properties().maximum_len());
        let (sight, back, least) = (Sight::Always, None, 1);
        let (negated, more, bits, barrier) = (test.negated, Vec::new(), 0.0, None);
        let mut matcher = Matcher { engine, negated, sight, more, back, barrier, least, longest, bits };
        if let Some(hir) = &hir {
            matcher.look_for(hir);
        }
        Ok(matcher)
    }

    /// Chooses what is looked for first.
    fn look_for(&mut self, hir: &Hir) {
        if hir.properties().minimum_len().is_none_or(|least| least == 0) {
            return;
        }
        let literals = literal::required(hir);
        let bits = literals.as_ref().map_or(0.0, |(literals, _)| literals.bits);
        let shape = if bits < LITERAL_BITS_MIN { shape(hir) } else { None };
        match (shape.filter(|shape| shape.bits >= SHAPE_BITS_MIN.max(bits)), literals) {
            (Some(shape), literals) => {
                self.more =
                    literals.into_iter().flat_map(|(best, more)| std::iter::once(best.pieces()).chain(more)).collect();
                self.back = shape.way.most.map(|before| before + 1);
                self.stop_at(&shape.across());
                self.bits = shape.bits;
                self.sight = Sight::Shape(shape);
            }
            (None, Some((literals, more))) => {
                self.more = more;
                self.back = literals.back();
                self.stop_at(&literals.across());
                self.least = literals.least;
                self.bits = literals.bits;
                self.sight = Sight::Literals(literals.pieces());
            }
            (None, None) => {}
        }
    }

    /// Lets no stretch begin before a byte that is none of these, which a match holds up to the end of its sight.
    fn stop_at(&mut self, across: &Bytes) {
        let others = Bytes::of(|byte| !across.has(byte));
        let far = self.back.is_none_or(|back| back >= BARRIER_BACK_MIN);
        self.barrier = (far && others.bits() <= BARRIER_BITS_MAX).then(|| Arc::new(Table::new(&others)));
    }

    /// Takes what other patterns have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        match &mut self.engine {
            Engine::Linear(linear) => linear.share(known),
            Engine::Strong(strong) => strong.share(known),
        }
        self.barrier.iter_mut().for_each(|barrier| known.share(barrier));
    }

    /// True if a match can begin nowhere but where the text does.
    pub fn begins_text(&self) -> bool {
        match &self.engine {
            Engine::Linear(linear) => linear.gate.begins_text(),
            Engine::Strong(strong) => strong.gate.begins_text(),
        }
    }

    /// Where a match can begin and must have ended, given where its sight ended in `text`.
    pub fn stretch(&self, text: &[u8], sight_end: usize) -> Stretch {
        let mut from = self.back.map_or(0, |back| sight_end.saturating_sub(back));
        if let Some(barrier) = &self.barrier {
            let floor = from.max(sight_end.saturating_sub(BARRIER_BYTES_MAX));
            from = text.get(floor..sight_end).and_then(|text| barrier.last(text)).map_or(from, |at| floor + at + 1);
        }
        let to = self.longest.map_or(text.len(), |longest| (sight_end + longest).min(text.len()));
        Stretch { from, latest: sight_end.min(to), to }
    }

    /// What a look at a stretch costs, roughly: states to walk through, and many times that for looking around or back.
    pub fn cost(&self) -> u64 {
        match &self.engine {
            Engine::Linear(linear) => linear.states as u64 / STATES_PER_COST,
            Engine::Strong(strong) => strong.states() as u64 / STATES_PER_COST + COST_OF_BACKTRACKING,
        }
    }

    /// How probably a text holds its sight, roughly.
    pub fn likely(&self) -> f32 {
        (TEXT_BYTES * (-self.bits).exp2()).min(1.0)
    }

    /// A match in a stretch of `text`. `id` is the pattern's own, for what [`Scratch`] keeps of it.
    pub fn find(
        &self,
        id: u32,
        text: &[u8],
        stretch: Stretch,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Option<Found> {
        match &self.engine {
            Engine::Linear(linear) => linear.find(id, text, stretch, scratch),
            Engine::Strong(strong) => strong.find(id, text, stretch, scratch, budget),
        }
    }

    /// Matches in `text`, at most `most`; for a negated test one where there is none. With the first one's place.
    pub fn count(
        &self,
        id: u32,
        text: &[u8],
        most: u16,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> (u16, Option<Found>) {
        if let (Engine::Linear(linear), false) = (&self.engine, self.negated)
            && most > 1
            && let Some(found) = linear.count(text, most, scratch)
        {
            return found;
        }
        let first = self.find(id, text, Stretch::rest(text, 0), scratch, budget);
        if self.negated {
            return (u16::from(first.is_none()), None);
        }
        let (mut count, mut last, mut from) = (0, first, 0);
        while let Some((start, end)) = last {
            count += 1;
            from = next_begin((start, end), from);
            if count >= most || from > text.len() {
                break;
            }
            last = self.find(id, text, Stretch::rest(text, from), scratch, budget);
        }
        (count, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::budget::Limit;

    fn count(pattern: &str, text: &[u8], budget: &mut Budget) -> (u16, Option<Found>) {
        let matcher = Matcher::compile(&Test { negated: false, pattern: pattern.to_owned() }).unwrap();
        matcher.count(0, text, 9, &mut Scratch::default(), budget)
    }

    #[test]
    fn both_engines_count_on_bytes() {
        let mut budget = Budget::default();
        assert_eq!(count("/\\xe4./", b"x\xe4y\xe4z", &mut budget).0, 2);
        assert_eq!(count("/(?<!x)\\xe4(?=z)/", b"x\xe4z \xe4z", &mut budget), (1, Some((Some(4), 5))));
        assert_eq!(count("/a*/", b"baab", &mut budget).0, 4);
    }

    #[test]
    fn long_texts_are_counted_like_short_ones() {
        let mut budget = Budget::default();
        let text = b"one two ".repeat(100);
        assert_eq!(count("/\\btwo\\s/", &text, &mut budget), (9, Some((Some(4), 8))));
        let text = [&b"a".repeat(5_000)[..], b"xb"].concat();
        assert_eq!(count("/a+b|xb/", &text, &mut budget), (1, Some((None, 5_002))));
    }

    #[test]
    fn catastrophic_patterns_stop_and_are_named() {
        let mut budget = Budget::default();
        let text = [&[b'x'; 2_000][..], b"z"].concat();
        for _ in 0..200 {
            count("/(x+x+)+\\1z(?<!z)/", &text, &mut budget);
        }
        assert!(budget.exceeded().any(|row| row.limit == Limit::RegexSteps));
    }
}
