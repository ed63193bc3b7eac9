//! An expression whose time is linear in the text's length, run from the places where a match can begin. Pure.
//!
//! Nearly all begins fail at their first bytes: there the backtracking engine is the fastest, because it needs no states. Its steps
//! are counted, and after so many for each byte of the text a lazily built automaton goes on: from begin to begin first, and where
//! these are walked far in vain, for all of them at once. States that are too many to be kept are not built at all: a walk that
//! is slower, but bounded, takes their place.

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::backtrack::BoundedBacktracker;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchError, MatchKind};
use regex_syntax::hir::Hir;

use super::backtrack::{Known, Pattern};
use super::gate::Gate;
use super::heads;
use super::matcher::{Found, Stretch};
use super::scratch::Scratch;
use super::shape::Bytes;

/// See the module.
pub struct Linear {
    quick: Option<Pattern>,
    backtracker: BoundedBacktracker,
    automaton: DFA,
    /// Bytes that are a match by themselves.
    alone: Bytes,
    /// States of the expression before any automaton is built.
    pub states: usize,
    /// Where a match can begin.
    pub gate: Gate,
}

/// Compiled size of one pattern; the largest of Debian's rules need a third of it.
pub const PATTERN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lazily built states of one pattern on one thread.
const STATE_BYTES_MAX: usize = 1024 * 1024;
/// Steps of the backtracking engine; lists of words repeated five times need so many, and an automaton would need more time.
const QUICK_STEPS_PER_BYTE_MAX: usize = 48;
const QUICK_STEPS_MIN: usize = 4_096;
/// Steps from one begin after the other, before all begins are searched at once.
pub const STEPS_PER_BYTE_MAX: usize = 12;
/// The same for short texts.
pub const STEPS_MIN: usize = 512;
/// Bits of the backtracker's memory of where it was; it walks where the automaton gave up.
const WALK_BITS_MAX: usize = 8 * 1024 * 1024;
/// An automaton gives up when its memory was filled more often than this and each state served fewer bytes than that (as in RE2).
const CLEARS_MAX: usize = 3;
const BYTES_PER_STATE_MIN: usize = 10;

impl Linear {
    /// Compiles.
    /// # Errors
    /// If it is too large.
    pub fn compile(text: &str, hir: &Hir) -> Result<Self, String> {
        let quick = Pattern::compile(text).ok();
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
        let nfa = backtracker.get_nfa();
        let (gate, alone) = (Gate::of(hir.properties().look_set_prefix(), nfa), heads::alone(nfa));
        Ok(Linear { quick, backtracker, automaton, alone, states, gate })
    }

    /// Takes what other patterns have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        self.quick.iter_mut().for_each(|quick| quick.share(known));
    }

    /// Matches in `text`, at most `most`, and the first one's place; nothing if [`Linear::find`] must tell.
    pub fn count(&self, text: &[u8], most: u16, scratch: &mut Scratch) -> Option<(u16, Option<Found>)> {
        self.count_quickly(text, Stretch::rest(text, 0), most, scratch).ok()
    }

    /// The first match; `id` is the pattern's own, for what [`Scratch`] keeps of it.
    pub fn find(&self, id: u32, text: &[u8], stretch: Stretch, scratch: &mut Scratch) -> Option<Found> {
        let from = match self.count_quickly(text, stretch, 1, scratch) {
            Ok((_, found)) => return found,
            Err(from) => from,
        };
        let found = self.search(text, Stretch { from, ..stretch }, scratch.states_of(id, &self.automaton));
        scratch.settle(id);
        let input = Input::new(text).range(from..stretch.to);
        match found {
            Ok(found) => found,
            // Its states are too many to be kept; what follows all of them at once is slow, but its time is bounded.
            Err(_) if self.fits_walk(input.get_span().len()) => self.walk(&input, scratch),
            Err(_) => self.follow(&input),
        }
    }

    /// Matches, at most `most`, and the first one's place; or where the search must be gone on with because this way takes too long.
    fn count_quickly(
        &self,
        text: &[u8],
        stretch: Stretch,
        most: u16,
        scratch: &mut Scratch,
    ) -> Result<(u16, Option<Found>), usize> {
        let quick = self.quick.as_ref().ok_or(stretch.from)?;
        if let Some(set) = quick.set() {
            let end = stretch.to.min(stretch.latest.saturating_add(1));
            let text = text.get(stretch.from..end).unwrap_or_default();
            let Some(place) = set.first(text) else { return Ok((0, None)) };
            let count = if most == 1 { 1 } else { set.count(&text[place..]).min(usize::from(most)) };
            let at = stretch.from + place;
            return Ok((count as u16, Some((Some(at), at + 1))));
        }
        let mut steps = QUICK_STEPS_PER_BYTE_MAX * (stretch.to - stretch.from) + QUICK_STEPS_MIN;
        let (mut count, mut first, mut from) = (0, None, stretch.from);
        for at in self.gate.starts(text, stretch) {
            if at < from {
                continue;
            }
            let found = match text.get(at) {
                Some(&byte) if self.alone.has(byte) => Some(at + 1),
                _ => quick.match_at(text, at, &mut scratch.memory, &mut steps).map_err(|_| at)?,
            };
            if let Some(end) = found {
                first = first.or(Some((Some(at), end)));
                count += 1;
                if count == most {
                    break;
                }
                // After a match of nothing, the next begins a byte further on.
                from = end.max(at + 1);
            }
        }
        Ok((count, first))
    }

    /// Tries one begin after the other: nearly all fail at the first bytes, and few states are needed. Where begins
    /// are walked far in vain, the rest is searched for all of them at once.
    fn search(&self, text: &[u8], stretch: Stretch, cache: &mut Cache) -> Result<Option<Found>, MatchError> {
        let Stretch { from, to, .. } = stretch;
        let mut left = STEPS_PER_BYTE_MAX * (to - from) + STEPS_MIN;
        for at in self.gate.starts(text, stretch) {
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
    pub fn start(&self, stretch: Input<'_>, scratch: &mut Scratch) -> Option<usize> {
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

/// Reads an expression of the linear-time engine.
/// # Errors
/// If it is none.
pub fn parse(text: &str) -> Result<Hir, String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    syntax::parse_with(text, &syntax).map_err(|error| last_line(&error.to_string()))
}

/// What an engine says of a pattern, in a line.
pub fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}
