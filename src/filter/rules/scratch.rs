//! Memory that matching needs and keeps from message to message: states of lazily built automata, marks of the backtracker. Pure.
//!
//! One scratch serves one thread at a time; the rules keep as many as ran at once. What is kept never changes
//! what is found, only how soon, and it is bounded: what a thread keeps of single patterns is forgotten when it grows too large.

use std::collections::HashMap;

use super::backtrack::Memory;
use super::group::Room;
use super::notes::Notes;
use foldhash::fast::FixedState;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::backtrack::{self, BoundedBacktracker};

/// Bytes of states of single patterns in one scratch.
const STATE_BYTES_MAX: usize = 12 * 1024 * 1024;

/// See the module.
#[derive(Default)]
pub struct Scratch {
    patterns: HashMap<u32, Cache, FixedState>,
    bytes: usize,
    bytes_before: usize,
    walker: Option<backtrack::Cache>,
    /// What the backtracking engine of our own needs.
    pub memory: Memory,
    /// What a scan needs.
    pub room: Room,
    /// What a run needs.
    pub notes: Notes,
}

impl Scratch {
    /// The states of one pattern; [`Scratch::settle`] follows.
    pub fn states_of(&mut self, id: u32, automaton: &DFA) -> &mut Cache {
        if self.bytes > STATE_BYTES_MAX {
            self.patterns.clear();
            self.bytes = 0;
        }
        let mut before = 0;
        let cache = self
            .patterns
            .entry(id)
            .and_modify(|cache| before = cache.memory_usage())
            .or_insert_with(|| automaton.create_cache());
        self.bytes_before = before;
        cache
    }

    /// Takes note of how much the states of a pattern have grown.
    pub fn settle(&mut self, id: u32) {
        let after = self.patterns.get(&id).map_or(0, Cache::memory_usage);
        self.bytes = (self.bytes + after).saturating_sub(self.bytes_before);
    }

    /// The marks of the backtracker, made ready for this pattern.
    pub fn walker(&mut self, backtracker: &BoundedBacktracker) -> &mut backtrack::Cache {
        let cache = self.walker.get_or_insert_with(|| backtracker.create_cache());
        cache.reset(backtracker);
        cache
    }
}
