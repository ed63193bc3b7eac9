//! Patterns that look at the same text, behind one automaton of their literals and one table of their shapes. Pure.
//!
//! A text is walked once by each; what is found leads to the patterns that can match and to the places where. Adding rules
//! adds to the tables, not walks.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

use super::matcher::Sight;
use super::shape::Shapes;

/// See the module.
#[derive(Default)]
pub struct Group {
    literals: Option<AhoCorasick>,
    owners: Vec<Vec<u32>>,
    shapes: Option<Shapes>,
}

impl Group {
    /// A group of patterns by number; with those that it does not look for.
    pub fn new<'m>(members: impl Iterator<Item = (u32, &'m Sight)>) -> (Self, Vec<u32>) {
        let mut literals: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        let (mut shapes, mut unseen) = (Vec::new(), Vec::new());
        for (rule, sight) in members {
            match sight {
                Sight::Always => unseen.push(rule),
                Sight::Literals(set) => set.iter().for_each(|one| literals.entry(one).or_default().push(rule)),
                Sight::Shape(shape) => shapes.push((rule, shape)),
            }
        }
        let automaton = automaton_of(&literals);
        if automaton.is_none() {
            // Without an automaton, each pattern looks for itself: slower, never wrong.
            unseen.extend(literals.values().flatten());
            unseen.sort_unstable();
            unseen.dedup();
        }
        let shapes = (!shapes.is_empty()).then(|| Shapes::new(shapes));
        (Group { literals: automaton, owners: literals.into_values().collect(), shapes }, unseen)
    }

    /// Calls `visit` with each pattern that can match in `text`, and where its literal ends or its shape begins; the latter a
    /// byte further on, so that both lie behind the begin of their segment.
    pub fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        if let Some(literals) = &self.literals {
            for found in literals.find_overlapping_iter(text) {
                self.owners[found.pattern().as_usize()].iter().for_each(|&rule| visit(rule, found.end()));
            }
        }
        if let Some(shapes) = &self.shapes {
            shapes.scan(text, |rule, at| visit(rule, at + 1));
        }
    }
}

/// The whole automaton (`AhoCorasickKind::DFA`) was measured to be no faster here and takes ten times the memory.
fn automaton_of(literals: &BTreeMap<&[u8], Vec<u32>>) -> Option<AhoCorasick> {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(literals.keys())
        .ok()
        .filter(|_| !literals.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rules::definition::Test;
    use crate::filter::rules::matcher::Matcher;

    #[test]
    fn patterns_are_found_by_literal_and_by_shape() {
        let patterns = ["/viagra/i", "/agra\\b/", "/[u-z][h-m1][a-f@]g[0-9]/i", "/.*/"];
        let matchers =
            patterns.map(|pattern| Matcher::compile(&Test { negated: false, pattern: pattern.to_owned() }).unwrap());
        let (group, unseen) = Group::new((0..).zip(matchers.iter().map(|matcher| &matcher.sight)));
        assert_eq!(unseen, [3]);
        let mut seen = Vec::new();
        group.scan(b"buy VIAGRA, v1ag7", |rule, end| seen.push((rule, end)));
        seen.sort_unstable();
        assert_eq!(seen, [(0, 10), (1, 10), (2, 13)]);
    }
}
