//! One compiled pattern, and groups of patterns behind one automaton of their literals. Pure.
//!
//! Adding rules adds literals to an automaton that is walked once per text, not walks over the text.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use fancy_regex::{BytesMode, RegexBuilder};
use regex_automata::meta;
use regex_automata::util::syntax;

use super::definition::Test;
use super::relax::relax;
use super::{literal, pattern};
use crate::filter::budget::{Budget, Limit};

/// A compiled pattern with what is to be done with it.
pub struct Matcher {
    engine: Engine,
    /// It holds where the pattern does not match.
    pub negated: bool,
    /// Strings of which a matching text holds one.
    pub literals: Literals,
    /// The linear expression knows no begin and end, so what it does not find in a text it finds in no line of it.
    floating: bool,
}

/// A set of which a matching text holds at least one.
type Literals = Option<Vec<Vec<u8>>>;

enum Engine {
    /// The pattern, and a weaker one for the linear engine that holds wherever the pattern does.
    Backtracking(Box<fancy_regex::Regex>, Option<Box<meta::Regex>>),
    Linear(Box<meta::Regex>),
}

/// Compiled size of one pattern; the largest of Debian's rules need a third of it.
const PATTERN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lazily built states kept per pattern and thread.
const STATE_BYTES_MAX: usize = 2048 * 1024;
/// Steps of the backtracking engine in one run; about a millisecond.
const RUN_STEPS_MAX: usize = 50_000;

impl Matcher {
    /// Compiles.
    /// # Errors
    /// If the pattern is wrong, too large, or beyond both engines.
    pub fn compile(test: &Test) -> Result<Self, String> {
        let (text, flags) = pattern::split(&test.pattern)?;
        let translated = pattern::translate(text, flags)?;
        let (engine, literals, floating) =
            if translated.backtracking { backtracking(&translated.text)? } else { linear(&translated.text)? };
        let literals = literals.filter(|_| !test.negated);
        Ok(Matcher { engine, negated: test.negated, literals, floating: floating && !test.negated })
    }

    /// False if the pattern surely matches no line of `text`: one walk instead of one a line.
    pub fn may_match_line(&self, text: &[u8]) -> bool {
        match &self.engine {
            Engine::Linear(regex) if self.floating => regex.is_match(text),
            Engine::Backtracking(_, Some(weaker)) if self.floating => weaker.is_match(text),
            _ => true,
        }
    }

    /// Where the pattern first matches.
    pub fn find(&self, text: &[u8], from: usize, budget: &mut Budget) -> Option<(usize, usize)> {
        match &self.engine {
            Engine::Linear(regex) => {
                regex.find(regex_automata::Input::new(text).range(from..)).map(|found| (found.start(), found.end()))
            }
            Engine::Backtracking(regex, weaker) => {
                if weaker
                    .as_ref()
                    .is_some_and(|weaker| !weaker.is_match(regex_automata::Input::new(text).range(from..)))
                {
                    return None;
                }
                if !budget.take(Limit::RegexSteps, (text.len() - from) as u64) {
                    return None;
                }
                match regex.find_from_pos(text, from) {
                    Ok(found) => found.map(|found| (found.start(), found.end())),
                    Err(_) => {
                        // Out of steps counts as no hit; whoever makes this happen often runs out of budget and is named.
                        budget.take(Limit::RegexSteps, RUN_STEPS_MAX as u64);
                        None
                    }
                }
            }
        }
    }

    /// Matches in `text`, at most `most`; for a negated test one where there is none. With the first one's place.
    pub fn count(&self, text: &[u8], most: u16, budget: &mut Budget) -> (u16, Option<(usize, usize)>) {
        let first = self.find(text, 0, budget);
        if self.negated {
            return (u16::from(first.is_none()), None);
        }
        let (mut count, mut last) = (0, first);
        while let Some((start, end)) = last {
            count += 1;
            let next = end.max(start + 1);
            if count >= most || next > text.len() {
                break;
            }
            last = self.find(text, next, budget);
        }
        (count, first)
    }
}

fn linear(text: &str) -> Result<(Engine, Literals, bool), String> {
    let (regex, literals, floating) = compile_linear(text)?;
    Ok((Engine::Linear(Box::new(regex)), literals, floating))
}

fn compile_linear(text: &str) -> Result<(meta::Regex, Literals, bool), String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(PATTERN_BYTES_MAX))
        .hybrid_cache_capacity(STATE_BYTES_MAX)
        .onepass(false)
        .dfa(false);
    let hir = syntax::parse_with(text, &syntax).map_err(|error| last_line(&error.to_string()))?;
    let literals = literal::required(&hir);
    let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
    let floating = !hir.properties().look_set().contains_anchor();
    Ok((regex.map_err(|error| last_line(&error.to_string()))?, literals, floating))
}

fn backtracking(text: &str) -> Result<(Engine, Literals, bool), String> {
    let regex = RegexBuilder::new(text)
        .bytes_mode(BytesMode::Ascii)
        .backtrack_limit(RUN_STEPS_MAX)
        .delegate_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| last_line(&error.to_string()))?;
    let weaker = relax(text).and_then(|weaker| compile_linear(&weaker).ok());
    let (weaker, literals, floating) =
        weaker.map_or((None, None, false), |(weaker, literals, floating)| (Some(Box::new(weaker)), literals, floating));
    Ok((Engine::Backtracking(Box::new(regex), weaker), literals, floating))
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

/// Rules that look at the same text.
#[derive(Default)]
pub struct Group {
    automaton: Option<AhoCorasick>,
    owners: Vec<Vec<u32>>,
    /// Rules without literals.
    pub always: Vec<u32>,
}

impl Group {
    /// A group of rules by number, with their literals if they have any.
    pub fn new<'m>(members: impl Iterator<Item = (u32, Option<&'m Vec<Vec<u8>>>)>) -> Self {
        let mut literals: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        let mut always = Vec::new();
        for (rule, set) in members {
            match set {
                Some(set) => set.iter().for_each(|literal| literals.entry(literal).or_default().push(rule)),
                None => always.push(rule),
            }
        }
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(literals.keys())
            .ok()
            .filter(|_| !literals.is_empty());
        if automaton.is_none() {
            // Without an automaton, each rule looks for itself: slower, never wrong.
            always.extend(literals.values().flatten());
            always.sort_unstable();
            always.dedup();
        }
        Group { automaton, owners: literals.into_values().collect(), always }
    }

    /// Calls `visit` with each rule that may match `text`; a rule may come more than once.
    pub fn candidates(&self, text: &[u8], mut visit: impl FnMut(u32)) {
        self.by_literal(text, |rule, _| visit(rule));
        self.always.iter().for_each(|&rule| visit(rule));
    }

    /// Calls `visit` with each rule one of whose literals stands in `text`, and where the literal ends, in that order.
    pub fn by_literal(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        if let Some(automaton) = &self.automaton {
            for found in automaton.find_overlapping_iter(text) {
                self.owners[found.pattern().as_usize()].iter().for_each(|&rule| visit(rule, found.end()));
            }
        }
    }

    /// True if some rule can hit a text that is empty.
    pub fn has_always(&self) -> bool {
        !self.always.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(pattern: &str) -> Matcher {
        Matcher::compile(&Test { negated: false, pattern: pattern.to_owned() }).unwrap()
    }

    #[test]
    fn both_engines_count_on_bytes() {
        let mut budget = Budget::default();
        assert_eq!(matcher("/\\xe4./").count(b"x\xe4y\xe4z", 9, &mut budget).0, 2);
        assert_eq!(matcher("/(?<!x)\\xe4(?=z)/").count(b"x\xe4z \xe4z", 9, &mut budget), (1, Some((4, 5))));
        assert_eq!(matcher("/a*/").count(b"baab", 9, &mut budget).0, 4);
    }

    #[test]
    fn catastrophic_patterns_stop_and_are_named() {
        let mut budget = Budget::default();
        let bad = matcher("/(x+x+)+\\1z(?<!z)/");
        let text = [&[b'x'; 2_000][..], b"z"].concat();
        let start = std::time::Instant::now();
        for _ in 0..200 {
            bad.count(&text, 1, &mut budget);
        }
        assert!(budget.exceeded().any(|row| row.limit == Limit::RegexSteps));
        assert!(start.elapsed().as_secs() < 20);
    }

    #[test]
    fn groups_give_candidates_by_literal() {
        let sets = [Some(vec![b"viagra".to_vec()]), Some(vec![b"agra".to_vec()]), None];
        let group = Group::new(sets.iter().enumerate().map(|(rule, set)| (rule as u32, set.as_ref())));
        let mut seen = Vec::new();
        group.candidates(b"buy VIAGRA", |rule| seen.push(rule));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
