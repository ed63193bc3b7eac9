//! What matches of a pattern can begin with: three bytes in a row. Pure.
//!
//! Each byte may fit its place ([`super::shape`]) where the three of them do not: in a list of words, `n` and `a` and `t` are among the first,
//! second and third letters, but no word begins with `nat`. Long patterns have a table of such heads, by a hash.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::primitives::StateID;

use super::grams::Bits;
use super::shape::Walk;

/// See the module.
#[derive(Clone)]
pub struct Heads(Bits);

/// Bytes of a head.
pub const BYTES: usize = 3;
/// Heads beyond which the table would be too large, or say too little.
const HEADS_MAX: usize = 1 << 14;
/// Heads are worth their table where the bytes of the three places, each for itself, allow so many times as many.
const TELLING_MIN: usize = 3;

impl Heads {
    /// Those of an expression of which no match is shorter and that begins with bytes of these places; nothing if they, or the states
    /// that lead to them, are too many, or tell little more than the places.
    pub fn of(automaton: &NFA, places: [usize; BYTES]) -> Option<Self> {
        let mut walk = Walk::new(std::slice::from_ref(automaton));
        walk.enter(0, automaton.start_anchored());
        let mut heads = Vec::new();
        for (states, first) in step(automaton, &states_of(walk)?)? {
            for (states, second) in step(automaton, &states)? {
                let leads = |byte: u8| states.iter().any(|&state| follow(automaton.state(state), byte).is_some());
                for third in (0..=255).filter(|&byte| leads(byte)) {
                    if heads.len() + first.len() * second.len() > HEADS_MAX {
                        return None;
                    }
                    for &one in &first {
                        heads.extend(second.iter().map(|&two| gram([one, two, third])));
                    }
                }
            }
        }
        let allowed: usize = places.iter().product();
        (heads.len() * TELLING_MIN <= allowed).then(|| Heads(Bits::of(heads.into_iter())))
    }

    /// True if a match may begin with these bytes.
    pub fn have(&self, head: [u8; BYTES]) -> bool {
        self.0.has(gram(head))
    }
}

fn gram([one, two, three]: [u8; BYTES]) -> u32 {
    u32::from_le_bytes([one, two, three, 0])
}

/// Where each byte leads from these states, with the bytes that lead there; nothing if there are too many states.
fn step(automaton: &NFA, states: &[StateID]) -> Option<HashMap<Vec<StateID>, Vec<u8>, FixedState>> {
    let mut steps: HashMap<Vec<StateID>, Vec<u8>, FixedState> = HashMap::default();
    for byte in 0..=255 {
        let mut walk = Walk::new(std::slice::from_ref(automaton));
        let followed = states.iter().filter_map(|&state| follow(automaton.state(state), byte));
        followed.for_each(|next| walk.enter(0, next));
        let next = states_of(walk)?;
        if !next.is_empty() {
            steps.entry(next).or_default().push(byte);
        }
    }
    Some(steps)
}

fn states_of(walk: Walk<'_>) -> Option<Vec<StateID>> {
    if !walk.is_whole() {
        return None;
    }
    let mut states: Vec<StateID> = walk.seen.into_iter().map(|(_, state)| state).collect();
    states.sort_unstable();
    Some(states)
}

/// Where a byte leads from a state.
fn follow(state: &State, byte: u8) -> Option<StateID> {
    match state {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(sparse) => sparse.matches_byte(byte),
        State::Dense(dense) => dense.matches_byte(byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::compiler;
    use super::*;

    #[test]
    fn heads_are_what_matches_can_begin_with() {
        let heads = |pattern: &str| {
            let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap();
            Heads::of(&compiler().build_from_hir(&hir).unwrap(), [256; BYTES])
        };
        let words = heads(r"(?i)\b(?:your\s)?(?:name|n[ao]men?|city)\b").unwrap();
        for head in ["you", "NAM", "nom", "ciT"] {
            assert!(words.have(head.as_bytes().try_into().unwrap()), "{head}");
        }
        // Each byte can stand at its place, but not all of them together.
        let others = ["yam", "nit", "cou", "cam", "nau", "yo ", "ame"];
        let passed = others.iter().filter(|head| words.have(head.as_bytes().try_into().unwrap())).count();
        assert!(passed <= 1, "a hash may let one of them pass, not {passed}");
        assert!(heads("[a-z]{3}").is_none(), "too many to tell anything");
        let hir = super::super::linear::parse("[ab][cd][ef]").unwrap();
        assert!(Heads::of(&compiler().build_from_hir(&hir).unwrap(), [2; BYTES]).is_none(), "the places tell as much");
        assert!(heads("(?:a?b?){2000}cde").is_none(), "too many states to be followed");
    }
}
