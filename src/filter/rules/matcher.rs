//! One compiled pattern: a linear-time expression, and a backtracking one behind it where Perl's syntax asks for more. Pure.
//!
//! A literal or a shape that was found in the text says where a match can begin; the expression runs there and nowhere else, as
//! a lazily built automaton whose states [`Scratch`] keeps within a bound. Look-around and back-references run where the rest of the
//! pattern matches, under a budget of steps.

use fancy_regex::{BytesMode, RegexBuilder, RegexInput};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::backtrack::BoundedBacktracker;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchError, MatchKind};
use regex_syntax::hir::Hir;

use super::definition::Test;
use super::relax::relax;
use super::scratch::Scratch;
use super::shape::{Bytes, Shape, first_bytes, shape};
use super::{literal, pattern};
use crate::filter::budget::{Budget, Limit};

/// A compiled pattern with what is to be done with it.
pub struct Matcher {
    linear: Option<Linear>,
    backtracking: Option<Strong>,
    /// It holds where the pattern does not match.
    pub negated: bool,
    /// What a text holds where the pattern can match.
    pub sight: Sight,
    /// Bytes from the begin of a match to the sight's end at most, if that is bounded.
    back: Option<usize>,
    /// Places in one text where its sight stands, at least.
    pub least: u16,
    /// Bytes of a match at most, if that is bounded.
    longest: Option<usize>,
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

/// An expression that looks around or back.
struct Strong(Box<fancy_regex::Regex>);

/// An expression of the linear-time engine.
struct Linear {
    backtracker: BoundedBacktracker,
    automaton: DFA,
    states: usize,
    /// Bytes that a match can begin with; nothing if it can be empty.
    first: Option<Bytes>,
}

/// Compiled size of one pattern; the largest of Debian's rules need a third of it.
const PATTERN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lazily built states of one pattern on one thread.
const STATE_BYTES_MAX: usize = 1024 * 1024;
/// Steps of the backtracking engine in one run; about a millisecond.
const RUN_STEPS_MAX: usize = 50_000;
/// What a run at one place is reckoned as: the engine does not tell what it took, and most end at once.
const ANCHORED_STEPS_MIN: u64 = 100;
const ANCHORED_SHARE: u64 = 8;
/// Bits that a literal must say to be sought: it stands in one of so many places.
const LITERAL_BITS_MIN: f32 = 13.0;
/// The same for a shape.
const SHAPE_BITS_MIN: f32 = 7.0;
/// Steps from one begin after the other, before all begins are searched at once.
const STEPS_PER_BYTE_MAX: usize = 12;
const STEPS_MIN: usize = 512;
/// Bits of the backtracker's memory of where it was; it walks where the automaton gave up.
const WALK_BITS_MAX: usize = 8 * 1024 * 1024;
/// An automaton gives up when its memory was filled more often than this and each state served fewer bytes than that (as in RE2).
const CLEARS_MAX: usize = 3;
const BYTES_PER_STATE_MIN: usize = 10;
const STATES_PER_COST: u64 = 64;
const COST_OF_BACKTRACKING: u64 = 100;

/// Where a pattern matched: the end, and the begin if it is known.
pub type Found = (Option<usize>, usize);

impl Matcher {
    /// Compiles.
    /// # Errors
    /// If the pattern is wrong, too large, or beyond both engines.
    pub fn compile(test: &Test) -> Result<Self, String> {
        let (text, flags) = pattern::split(&test.pattern)?;
        let translated = pattern::translate(text, flags)?;
        let text = translated.text.as_str();
        let mut matcher = Matcher {
            linear: None,
            backtracking: None,
            negated: test.negated,
            sight: Sight::Always,
            back: None,
            least: 1,
            longest: None,
        };
        if translated.backtracking {
            matcher.backtracking = Some(Strong::compile(text)?);
            if let Some(hir) = relax(text).and_then(|weaker| parse(&weaker).ok()) {
                matcher.look_for(&hir);
                matcher.linear = Linear::compile(&hir).ok();
            }
        } else {
            let hir = parse(text)?;
            matcher.longest = hir.properties().maximum_len();
            matcher.look_for(&hir);
            matcher.linear = Some(Linear::compile(&hir)?);
        }
        Ok(matcher)
    }

    /// Chooses what is looked for first.
    fn look_for(&mut self, hir: &Hir) {
        if hir.properties().minimum_len().is_none_or(|least| least == 0) {
            return;
        }
        let literals = literal::required(hir);
        let bits = literals.as_ref().map_or(0.0, |literals| literals.bits);
        let shape = if bits < LITERAL_BITS_MIN { shape(hir) } else { None };
        match (shape.filter(|shape| shape.bits >= SHAPE_BITS_MIN.max(bits)), literals) {
            (Some(shape), _) => {
                self.back = shape.before.map(|before| before + 1);
                self.sight = Sight::Shape(shape);
            }
            (None, Some(literals)) => {
                self.back = literals.back();
                self.least = literals.least;
                self.sight = Sight::Literals(literals.pieces());
            }
            (None, None) => {}
        }
    }

    /// Where a match can begin and must have ended, given where its sight ended in `text`.
    pub fn stretch(&self, text: &[u8], sight_end: usize) -> (usize, usize) {
        let from = self.back.map_or(0, |back| sight_end.saturating_sub(back));
        let to = self.longest.map_or(text.len(), |longest| (sight_end + longest).min(text.len()));
        (from, to)
    }

    /// What a look at a stretch costs, roughly: states to walk through, and many times that for looking around or back.
    pub fn cost(&self) -> u64 {
        let walk = self.linear.as_ref().map_or(0, |linear| linear.states as u64 / STATES_PER_COST);
        walk + if self.backtracking.is_some() { COST_OF_BACKTRACKING } else { 0 }
    }

    /// A match within `from..to` of `text`. `id` is the pattern's own, for what [`Scratch`] keeps of it.
    pub fn find(
        &self,
        id: u32,
        text: &[u8],
        (from, to): (usize, usize),
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Option<Found> {
        let stretch = Input::new(text).range(from..to);
        let Some(strong) = &self.backtracking else { return self.linear.as_ref()?.find(id, stretch, scratch) };
        let Some(weaker) = &self.linear else { return strong.find(text, from, false, budget) };
        // The stronger one can only begin where the weaker one does.
        let mut at = from;
        while at <= to {
            let found = weaker.find(id, stretch.clone().range(at..to), scratch)?;
            let Some(start) = found.0.or_else(|| weaker.start(stretch.clone().range(at..found.1), scratch)) else {
                return strong.find(text, at, false, budget);
            };
            if let Some(found) = strong.find(text, start, true, budget) {
                return Some(found);
            }
            at = start + 1;
        }
        None
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
        let first = self.find(id, text, (0, text.len()), scratch, budget);
        if self.negated {
            return (u16::from(first.is_none()), None);
        }
        let (mut count, mut last, mut from) = (0, first, 0);
        while let Some((start, end)) = last {
            count += 1;
            // After a match of nothing, the next begins a byte further on.
            from = if start.map_or(end > from, |start| end > start) { end } else { end + 1 };
            if count >= most || from > text.len() {
                break;
            }
            last = self.find(id, text, (from, text.len()), scratch, budget);
        }
        (count, first)
    }
}

impl Strong {
    fn compile(text: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(text)
            .bytes_mode(BytesMode::Ascii)
            .backtrack_limit(RUN_STEPS_MAX)
            .delegate_size_limit(PATTERN_BYTES_MAX)
            .build();
        regex.map(|regex| Strong(Box::new(regex))).map_err(|error| last_line(&error.to_string()))
    }

    /// Looks from `from` on, or at `from` only.
    fn find(&self, text: &[u8], from: usize, anchored: bool, budget: &mut Budget) -> Option<Found> {
        let length = (text.len() - from) as u64;
        let steps = if anchored { ANCHORED_STEPS_MIN.max(length / ANCHORED_SHARE) } else { length };
        if !budget.take(Limit::RegexSteps, steps) {
            return None;
        }
        match self.0.find_input(RegexInput::new(text).from_pos(from).anchored(anchored)) {
            Ok(found) => found.map(|found| (Some(found.start()), found.end())),
            Err(_) => {
                // Out of steps counts as no hit; whoever makes this happen often runs out of budget and is named.
                budget.take_up_to(Limit::RegexSteps, RUN_STEPS_MAX);
                None
            }
        }
    }
}

impl Linear {
    fn compile(hir: &Hir) -> Result<Self, String> {
        let config =
            Config::new().utf8(false).nfa_size_limit(Some(PATTERN_BYTES_MAX)).which_captures(WhichCaptures::Implicit);
        let nfa: NFA =
            Compiler::new().configure(config).build_from_hir(hir).map_err(|error| last_line(&error.to_string()))?;
        let states = nfa.states().len();
        let config = DFA::config()
            .match_kind(MatchKind::LeftmostFirst)
            .cache_capacity(STATE_BYTES_MAX)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(CLEARS_MAX))
            .minimum_bytes_per_state(Some(BYTES_PER_STATE_MIN));
        let automaton = DFA::builder().configure(config).build_from_nfa(nfa.clone());
        let automaton = automaton.map_err(|error| last_line(&error.to_string()))?;
        let config = BoundedBacktracker::config().visited_capacity(WALK_BITS_MAX / 8);
        let backtracker = BoundedBacktracker::builder().configure(config).build_from_nfa(nfa);
        let backtracker = backtracker.map_err(|error| last_line(&error.to_string()))?;
        let first = first_bytes(backtracker.get_nfa());
        Ok(Linear { backtracker, automaton, states, first })
    }

    fn find(&self, id: u32, input: Input<'_>, scratch: &mut Scratch) -> Option<Found> {
        let found = self.search(&input, scratch.states_of(id, &self.automaton));
        scratch.settle(id);
        match found {
            Ok(found) => found,
            // Its states are too many to be kept; what follows all of them at once is slow, but its time is bounded.
            Err(_) if self.fits_walk(input.get_span().len()) => self.walk(&input, scratch),
            Err(_) => self.follow(&input),
        }
    }

    /// Tries one begin after the other: nearly all fail at the first bytes, and few states are needed. Where begins
    /// are walked far in vain, the rest is searched for all of them at once.
    fn search(&self, input: &Input<'_>, cache: &mut Cache) -> Result<Option<Found>, MatchError> {
        let (text, from, to) = (input.haystack(), input.start(), input.end());
        let mut left = STEPS_PER_BYTE_MAX * (to - from) + STEPS_MIN;
        for at in from..=to {
            if let Some(first) = &self.first
                && !text[..to].get(at).is_some_and(|&byte| first.has(byte))
            {
                continue;
            }
            let (end, steps) = self.search_at(text, at, to, cache)?;
            if let Some(end) = end {
                return Ok(Some((Some(at), end)));
            }
            left = left.saturating_sub(steps);
            if left == 0 {
                let rest = Input::new(text).range((at + 1).min(to)..to);
                return Ok(self.automaton.try_search_fwd(cache, &rest)?.map(|end| (None, end.offset())));
            }
        }
        Ok(None)
    }

    /// Where a match that begins at `at` ends, and how many bytes that took.
    fn search_at(
        &self,
        text: &[u8],
        at: usize,
        to: usize,
        cache: &mut Cache,
    ) -> Result<(Option<usize>, usize), MatchError> {
        let gave_up = |_| MatchError::gave_up(at);
        let input = Input::new(text).range(at..to).anchored(Anchored::Yes);
        let mut state = self.automaton.start_state_forward(cache, &input)?;
        let mut end = None;
        for (place, &byte) in text[..to].iter().enumerate().skip(at) {
            state = self.automaton.next_state(cache, state, byte).map_err(gave_up)?;
            if state.is_tagged() {
                // A match is known one byte late, for what follows may forbid it.
                if state.is_match() {
                    end = Some(place);
                } else if state.is_dead() {
                    return Ok((end, place + 1 - at));
                }
            }
        }
        let last = match text.get(to) {
            Some(&byte) => self.automaton.next_state(cache, state, byte),
            None => self.automaton.next_eoi_state(cache, state),
        };
        if last.map_err(gave_up)?.is_match() {
            end = Some(to);
        }
        Ok((end, to + 1 - at))
    }

    fn follow(&self, input: &Input<'_>) -> Option<Found> {
        let machine = PikeVM::new_from_nfa(self.backtracker.get_nfa().clone()).ok()?;
        let mut slots = [None; 2];
        machine.search_slots(&mut machine.create_cache(), input, &mut slots)?;
        Some((slots[0].map(|slot| slot.get()), slots[1].map_or(0, |slot| slot.get())))
    }

    /// Where a match begins that is known to end with the stretch.
    fn start(&self, stretch: Input<'_>, scratch: &mut Scratch) -> Option<usize> {
        let fits = self.fits_walk(stretch.get_span().len());
        if fits { self.walk(&stretch, scratch)?.0 } else { None }
    }

    fn fits_walk(&self, length: usize) -> bool {
        self.states * (length + 1) <= WALK_BITS_MAX
    }

    fn walk(&self, input: &Input<'_>, scratch: &mut Scratch) -> Option<Found> {
        let mut slots = [None; 2];
        let cache = scratch.walker(&self.backtracker);
        self.backtracker.try_search_slots(cache, input, &mut slots).expect("a short stretch fits its memory")?;
        Some((slots[0].map(|slot| slot.get()), slots[1].map_or(0, |slot| slot.get())))
    }
}

fn parse(text: &str) -> Result<Hir, String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    syntax::parse_with(text, &syntax).map_err(|error| last_line(&error.to_string()))
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
