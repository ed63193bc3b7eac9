//! What is noted of each rule while messages are judged together, kept from run to run. Pure.
//!
//! What is known of one rule for all messages lies in one place: most rules are passed over for all of them at once.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::cost::Cost;
use super::group::Seen;
use super::literal::LEAST_MAX;
use super::messages::{self, Messages, Sure};
use super::{Brief, Rules};

/// Places of one rule that are tried one by one; with more of them, all of the text is.
pub const SPOTS_MAX: u16 = 96;
const _: () = assert!(LEAST_MAX <= SPOTS_MAX as u32, "a pattern that asks for more places than are counted never hits");

/// What was seen of a pattern in a message; at first, nothing.
#[derive(Clone, Copy, Default)]
pub struct Sighted {
    /// Places where it can match.
    pub spots: u16,
    /// Its sets of literals that were seen, a bit each.
    sets: u8,
    /// The number of the last place among all.
    last: u32,
}

/// See the module.
#[derive(Default)]
pub struct Notes {
    /// Of each rule, the messages of which it is not known whether it hits.
    pub open: Vec<Messages>,
    /// Of each rule, the messages that it is known to hit.
    pub hit: Vec<Messages>,
    /// Of each rule, the messages that it can hit, as far as is known without looking closer.
    pub may: Vec<Messages>,
    /// Of each meta, what was certain before anything was asked, once that was looked at.
    pub certain: Vec<Option<Sure>>,
    /// Hits of those that hit more than once.
    counts: HashMap<(u32, usize), u16, FixedState>,
    /// How many messages there are.
    width: usize,
    /// What was seen of each pattern in each message; nothing between runs.
    sighted: Vec<Sighted>,
    /// Where something was seen.
    touched: Vec<u32>,
    /// The ends of what was sighted, each with the number of its pattern's one before, and an unused first.
    spots: Vec<(u32, u32)>,
    /// The ends of one pattern's sights, in their order.
    pub ends: Vec<usize>,
    /// What was spent on each rule.
    pub costs: Vec<Cost>,
}

impl Notes {
    /// Forgets the last run.
    pub fn begin(&mut self, rules: &Rules, width: usize) {
        fn reset<T: Clone>(row: &mut Vec<T>, length: usize, value: T) {
            row.clear();
            row.resize(length, value);
        }
        let (count, all) = (rules.rules.len(), messages::first(width));
        reset(&mut self.open, count, all);
        reset(&mut self.hit, count, 0);
        reset(&mut self.certain, count, None);
        reset(&mut self.costs, count, Cost::default());
        self.may.clear();
        self.may.extend(rules.may.iter().map(|&may| all & messages::all_if(may)));
        self.counts.clear();
        self.spots.clear();
        self.spots.push((0, 0));
        self.width = width;
        for place in self.touched.drain(..) {
            self.sighted[place as usize] = Sighted::default();
        }
        if self.sighted.len() < count * width {
            self.sighted.resize(count * width, Sighted::default());
        }
    }

    /// Takes note of what was seen of a pattern: it can hit where all was that it wants, and so many places where its matches are.
    pub fn sight(&mut self, rule: u32, message: usize, seen: Seen, brief: &Brief) {
        let place = rule as usize * self.width + message;
        let sighted = &mut self.sighted[place];
        if sighted.sets == 0 {
            self.touched.push(place as u32);
        }
        sighted.sets |= seen.bit();
        if let Seen::Sight(end) = seen
            && sighted.spots <= SPOTS_MAX
        {
            sighted.spots += 1;
            let spot = self.spots.len() as u32;
            self.spots.push((end as u32, std::mem::replace(&mut sighted.last, spot)));
        }
        let may = sighted.sets == brief.wanted && sighted.spots >= brief.least;
        self.may[rule as usize] |= Messages::from(may) << message;
    }

    /// What was seen of a pattern in a message.
    pub fn sighted(&self, rule: usize, message: usize) -> Sighted {
        self.sighted[rule * self.width + message]
    }

    /// The places where a pattern was sighted, the last one first.
    pub fn spots(&self, sighted: Sighted) -> impl Iterator<Item = usize> + '_ {
        let mut at = sighted.last;
        std::iter::from_fn(move || {
            let (end, before) = self.spots[at as usize];
            let known = at != 0;
            at = before;
            known.then_some(end as usize)
        })
    }

    /// Takes note of how often a rule hits.
    pub fn settle(&mut self, rule: usize, message: usize, hits: u16) {
        let one = messages::one(message);
        self.open[rule] &= !one;
        if hits > 0 {
            self.hit[rule] |= one;
        } else {
            self.may[rule] &= !one;
        }
        if hits > 1 {
            self.counts.insert((rule as u32, message), hits);
        }
    }

    /// How often a rule is known to hit.
    pub fn hits(&self, rule: usize, message: usize, most: u16) -> u16 {
        match self.hit[rule] & messages::one(message) {
            0 => 0,
            _ if most == 1 => 1,
            _ => self.counts.get(&(rule as u32, message)).copied().unwrap_or(1),
        }
    }
}
