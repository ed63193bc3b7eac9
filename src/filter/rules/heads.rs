//! What matches of a pattern can begin with: the first states of its automaton. Pure.
//!
//! Each byte may fit its place ([`super::shape`]) where all of them together do not: in a list of words, `n` and `a` and `t` are among the first,
//! second and third letters, but no word begins with `nat`. A few bytes tell of nearly all places that no match begins there, at a look-up
//! each; what they do not tell is left to the expression. Where states are too many, or tell next to nothing, anything may follow.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;
use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::look::LookSet;
use regex_automata::util::primitives::StateID;

use super::shape::{Bytes, Walk, each_way};

/// See the module.
#[derive(Clone)]
pub struct Heads {
    /// For each byte, its class.
    classes: Box<[u8; 256]>,
    /// For each state a row: the next state for each class.
    rows: Box<[u8]>,
    /// Classes.
    width: usize,
}

/// The next state where no match can go on.
const FAILS: u8 = u8::MAX;
/// The next state where one may be over, or may go on with anything.
const OPEN: u8 = u8::MAX - 1;
/// Bytes that are looked at.
const BYTES_MAX: usize = 16;
/// States of one pattern that are made.
const STATES_MAX: usize = OPEN as usize;
/// States of the expression that are followed to make them.
const FOLLOWED_MAX: usize = 200_000;
/// Bits that the next byte says of a state, and the ways that it leads to, of which there are as many at least for the state to be worth its
/// look-up.
const BITS_MIN: f32 = 0.03;
const WAYS_MIN: usize = 4;

impl Heads {
    /// Those of an expression where some conditions do not hold; nothing if they tell nothing.
    pub fn of(automaton: &NFA, barred: LookSet) -> Option<Self> {
        let classes: Box<[u8; 256]> = Box::new(std::array::from_fn(|byte| automaton.byte_classes().get(byte as u8)));
        // A class is some bytes in a row, and their rows are numbered in order.
        let last = classes.iter().copied().max().unwrap_or_default();
        let members = (0..=last).map(|class| Bytes::of(|byte| classes[usize::from(byte)] == class));
        let members: Vec<Bytes> = members.collect();
        let width = members.len();
        let walk = Walk::new(std::slice::from_ref(automaton), barred);
        let mut states = States { walk, numbers: HashMap::default(), all: Vec::new(), followed: 0 };
        if states.enter(0, &[automaton.start_anchored()]) == OPEN {
            return None;
        }
        let mut rows: Vec<u8> = Vec::new();
        let mut leads: Vec<Vec<StateID>> = vec![Vec::new(); width];
        while let Some((depth, from)) = states.all.get(rows.len() / width).cloned() {
            leads.iter_mut().for_each(Vec::clear);
            for state in from {
                each_way(automaton.state(state), |first, last, next| {
                    let all = usize::from(classes[usize::from(first)])..=usize::from(classes[usize::from(last)]);
                    leads[all].iter_mut().for_each(|leads| leads.push(next));
                });
            }
            let (mut able, mut ways) = (Bytes::NONE, HashSet::<u8, FixedState>::default());
            rows.extend(members.iter().zip(&leads).map(|(members, leads)| {
                if leads.is_empty() {
                    return FAILS;
                }
                able.add(members);
                let next = states.enter(depth + 1, leads);
                ways.insert(next);
                next
            }));
            if able.bits() < BITS_MIN && ways.len() < WAYS_MIN {
                let row = rows.len() - width;
                rows[row..].iter_mut().filter(|next| **next != FAILS).for_each(|next| *next = OPEN);
            }
        }
        let tells = rows.contains(&FAILS);
        tells.then(|| Heads { classes, rows: rows.into(), width })
    }

    /// False if no match begins with the first bytes of `text`.
    #[inline]
    pub fn may_begin(&self, text: &[u8]) -> bool {
        let mut state = 0;
        for &byte in text.iter().take(BYTES_MAX) {
            state = self.rows[usize::from(state) * self.width + usize::from(self.classes[usize::from(byte)])];
            if state >= OPEN {
                return state == OPEN;
            }
        }
        // At the end of the text, something is missing.
        text.len() >= BYTES_MAX
    }
}

/// States of an automaton as they are made from those of an expression.
struct States<'a> {
    walk: Walk<'a>,
    numbers: HashMap<Vec<StateID>, u8, FixedState>,
    /// Each with the bytes that lead to it, and the states of the expression.
    all: Vec<(usize, Vec<StateID>)>,
    followed: usize,
}

impl States<'_> {
    /// The state that is all of these, behind so many bytes.
    fn enter(&mut self, depth: usize, states: &[StateID]) -> u8 {
        let walk = &mut self.walk;
        walk.restart();
        states.iter().for_each(|&state| walk.enter(0, state));
        self.followed += walk.seen.len();
        if walk.has_ended() || !walk.is_whole() || depth == BYTES_MAX || self.followed > FOLLOWED_MAX {
            return OPEN;
        }
        let mut states: Vec<StateID> = walk.seen.iter().map(|&(_, state)| state).collect();
        states.sort_unstable();
        if let Some(&number) = self.numbers.get(&states) {
            return number;
        }
        if self.all.len() == STATES_MAX {
            return OPEN;
        }
        let number = self.all.len() as u8;
        self.all.push((depth, states.clone()));
        self.numbers.insert(states, number);
        number
    }
}

/// Bytes that are a whole match whatever follows.
pub fn alone(automaton: &NFA) -> Bytes {
    let mut start = Walk::new(std::slice::from_ref(automaton), LookSet::empty());
    start.enter(0, automaton.start_anchored());
    if start.has_ended() || !automaton.look_set_any().is_empty() {
        return Bytes::NONE;
    }
    let (mut over, mut goes_on) = (Bytes::NONE, Bytes::NONE);
    for (_, state) in start.seen {
        each_way(automaton.state(state), |first, last, next| {
            let bytes = if is_over(automaton, next) { &mut over } else { &mut goes_on };
            bytes.insert(first, last);
        });
    }
    Bytes::of(|byte| over.has(byte) && !goes_on.has(byte))
}

/// True if a match is over where this state is reached, and can't go on.
fn is_over(automaton: &NFA, mut state: StateID) -> bool {
    while let State::Capture { next, .. } = automaton.state(state) {
        state = *next;
    }
    matches!(automaton.state(state), State::Match { .. })
}

#[cfg(test)]
mod tests {
    use super::super::linear::parse;
    use super::super::shape::compiler;
    use super::*;

    fn heads(pattern: &str) -> Option<Heads> {
        Heads::of(&compiler().build_from_hir(&parse(pattern).unwrap()).unwrap(), LookSet::empty())
    }

    #[test]
    fn heads_are_what_matches_can_begin_with() {
        let words = heads(r"(?i)\b(?:your\s)?(?:name|n[ao]men?|city)\b").unwrap();
        for text in ["your name", "NAME of", "nomen", "ciTy", "your nome"] {
            assert!(words.may_begin(text.as_bytes()), "{text}");
        }
        // Each byte can stand at its place, but not all of them together; or the text ends too soon.
        for text in ["your namb", "nato", "nit", "cou", "yo name", "your nom", ""] {
            assert!(!words.may_begin(text.as_bytes()), "{text}");
        }
        // Behind what can be over, or is far from its begin, anything may follow.
        assert!(heads("ab?").unwrap().may_begin(b"ac"));
        assert!(heads("a[^z]*bcd").unwrap().may_begin(b"a-z"));
        assert!(heads("a[b-x]{20}c").unwrap().may_begin(b"abcdefghijklmnopz"));
        assert!(!heads("a[b-x]{20}c").unwrap().may_begin(b"abcdefghijklmnz"));
        assert!(heads("a*").is_none(), "it tells nothing");
        assert!(heads("(?:a?b?){9000}cde").is_none(), "too many states to be followed");
    }

    #[test]
    fn some_bytes_are_a_match_by_themselves() {
        let bytes = |pattern: &str| {
            let bytes = alone(&compiler().build_from_hir(&parse(pattern).unwrap()).unwrap());
            (0..=255).filter(|&byte| bytes.has(byte)).map(char::from).collect::<String>()
        };
        assert_eq!(bytes("(?:[xe]|a[bc]|c)"), "cex");
        assert_eq!(bytes("e|ea|b+|c?"), "");
        assert_eq!(bytes("e|d$"), "", "what follows is asked for");
    }

    #[test]
    fn what_can_match_may_begin() {
        let patterns = [r"(?i)\b[a-c]{2,5}x|ab+c?d", r"(?m)^(?:a|b)*c$", r"(?:[ab]{1,3}\s){2,}c", "abc(?:abc){5}d"];
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"aabbccxd \nA"[(state >> 33) as usize % 11]
        };
        for pattern in patterns {
            let (heads, regex) = (heads(pattern).unwrap(), regex_automata::meta::Regex::new(pattern).unwrap());
            let mut hits = 0;
            for _ in 0..20_000 {
                let mut text: Vec<u8> = (0..24).map(|_| next()).collect();
                text.extend(b"abcabcabcabcabcabcd");
                let Some(found) = regex.find(&text) else { continue };
                assert!(heads.may_begin(&text[found.start()..]), "{pattern} in {:?}", String::from_utf8_lossy(&text));
                hits += 1;
            }
            assert!(hits > 100, "{pattern} hit only {hits} times");
        }
    }
}
