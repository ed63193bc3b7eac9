//! An expression that looks around or back, under a budget of steps. Pure.
//!
//! It runs where a match can begin. Where that is tried too often in vain, a weaker expression of the linear-time engine, which
//! matches wherever the stronger one does, says which of the other begins are worth it.

use fancy_regex::{BytesMode, RegexBuilder, RegexInput};
use regex_automata::Input;
use regex_syntax::hir::Hir;

use super::backtrack::{Known, Pattern};
use super::gate::Gate;
use super::linear::{Linear, PATTERN_BYTES_MAX, STEPS_MIN, STEPS_PER_BYTE_MAX, last_line};
use super::matcher::{Found, Stretch};
use super::scratch::Scratch;
use super::shape::prefix_of_parts;
use crate::filter::budget::{Budget, Limit};

/// See the module.
pub struct Strong {
    engine: Engine,
    /// Where a match can begin.
    pub gate: Gate,
    weaker: Option<Linear>,
}

enum Engine {
    /// Of our own.
    Own(Pattern),
    /// One that knows more of Perl's syntax, and is slower.
    Other(Box<fancy_regex::Regex>),
}

/// Steps of one run; a part of a millisecond.
const RUN_STEPS_MAX: usize = 50_000;

/// A run ended: with the end of a match, or without.
type Tried = Option<usize>;

impl Strong {
    /// Compiles `text`; `weaker` matches wherever it does.
    /// # Errors
    /// If it is wrong, or beyond both engines.
    pub fn compile(text: &str, weaker: Option<&(String, Hir)>) -> Result<Self, String> {
        let engine = match Pattern::compile(text) {
            Ok(pattern) => Engine::Own(pattern),
            Err(_) => Engine::Other(Box::new(other(text)?)),
        };
        let linear = weaker.and_then(|(text, hir)| Linear::compile(text, hir).ok());
        let gate = match (&linear, weaker) {
            (Some(linear), _) => linear.gate.clone(),
            (None, Some((_, hir))) => Gate::new(hir.properties().look_set_prefix(), &prefix_of_parts(hir)),
            (None, None) => Gate::default(),
        };
        Ok(Strong { engine, gate, weaker: linear })
    }

    /// Takes what other patterns have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        if let Engine::Own(pattern) = &mut self.engine {
            pattern.share(known);
        }
        self.weaker.iter_mut().for_each(|weaker| weaker.share(known));
    }

    /// States of the weaker expression.
    pub fn states(&self) -> usize {
        self.weaker.as_ref().map_or(0, |weaker| weaker.states)
    }

    /// The first match in a stretch.
    pub fn find(
        &self,
        id: u32,
        text: &[u8],
        stretch: Stretch,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Option<Found> {
        let mut left = STEPS_PER_BYTE_MAX * (stretch.to - stretch.from) + STEPS_MIN;
        for start in self.gate.starts(text, stretch) {
            let before = budget.left(Limit::RegexSteps);
            if let Some(end) = self.try_at(text, start, scratch, budget)? {
                return Some((Some(start), end));
            }
            left = left.saturating_sub((before - budget.left(Limit::RegexSteps)) as usize);
            if left == 0 {
                let rest = Stretch { from: start + 1, ..stretch };
                return self.find_where_weaker(id, text, rest, scratch, budget);
            }
        }
        None
    }

    /// The same, only from where the weaker expression matches.
    fn find_where_weaker(
        &self,
        id: u32,
        text: &[u8],
        mut stretch: Stretch,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Option<Found> {
        while stretch.from <= stretch.latest {
            let start = match &self.weaker {
                None => self.gate.starts(text, stretch).next()?,
                Some(weaker) => {
                    let (start, end) = weaker.find(id, text, stretch, scratch)?;
                    let whole = || weaker.start(Input::new(text).range(stretch.from..end), scratch);
                    let any = || self.gate.starts(text, stretch).next();
                    start.or_else(whole).or_else(any)?
                }
            };
            if let Some(end) = self.try_at(text, start, scratch, budget)? {
                return Some((Some(start), end));
            }
            stretch.from = start + 1;
        }
        None
    }

    /// Runs at one place; nothing when the message's budget is spent.
    fn try_at(&self, text: &[u8], start: usize, scratch: &mut Scratch, budget: &mut Budget) -> Option<Tried> {
        let allowed = budget.left(Limit::RegexSteps).min(RUN_STEPS_MAX as u64);
        if allowed == 0 {
            budget.exceed(Limit::RegexSteps);
            return None;
        }
        let mut left = allowed as usize;
        // Out of steps counts as no hit; whoever makes this happen often runs out of budget and is named.
        let tried = match &self.engine {
            Engine::Own(pattern) => pattern.match_at(text, start, &mut scratch.memory, &mut left).unwrap_or(None),
            Engine::Other(regex) => {
                // It does not tell what it took: what is known is the most that it can have been.
                let found = regex.find_input(RegexInput::new(text).from_pos(start).anchored(true));
                left = if found.is_ok() { left.saturating_sub(STEPS_OF_OTHER) } else { 0 };
                found.ok().flatten().map(|found| found.end())
            }
        };
        budget.take(Limit::RegexSteps, allowed - left as u64);
        Some(tried)
    }
}

/// What a run of the other engine is reckoned as when it ended before its limit.
const STEPS_OF_OTHER: usize = 500;

fn other(text: &str) -> Result<fancy_regex::Regex, String> {
    let regex = RegexBuilder::new(text)
        .bytes_mode(BytesMode::Ascii)
        .backtrack_limit(RUN_STEPS_MAX)
        .delegate_size_limit(PATTERN_BYTES_MAX)
        .build();
    regex.map_err(|error| last_line(&error.to_string()))
}
