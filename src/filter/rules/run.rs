//! Messages against all rules: what is needed is worked out, what is not needed is not. I/O: the clock, for [`cost`].
//!
//! A text is scanned when the first rule that looks at it is asked for; from then on it is known of most rules at no cost that they
//! did not hit. Only rules with points are asked; metas ask others in the order of what that costs, and stop when the
//! outcome can no longer change. Each rule is asked for all messages of which that is open, one after the other.

use std::collections::HashMap;
use std::time::Instant;

use foldhash::fast::FixedState;

use super::cost;
use super::formula::Values;
use super::matcher::Matcher;
use super::messages::{self, Messages, Sure};
use super::meta::{Bounds, FALSE, TRUE, UNDECIDED};
use super::notes::{Notes, SPOTS_MAX};
use super::scratch::Scratch;
use super::texts::{Target, Text, Texts};
use super::trial::Trial;
use super::{Compiled, Hit, Nature, Rules};
use crate::filter::budget::Budget;

/// Hits of one rule without `tflags multiple`, and the bound of those with it.
pub const HITS_MAX: u16 = 1_000;

/// A message among those that are judged together.
struct Case<'r, 'v, 'x> {
    view: &'r Texts<'v, 'x>,
    /// What each target is, once it was scanned; nothing for a field that is missing.
    texts: Vec<Option<Option<Text<'r>>>>,
    evidence: HashMap<u32, String, FixedState>,
    budget: &'r mut Budget,
    /// Rules that were worked out.
    tried: usize,
    timed: bool,
}

/// See the module.
pub struct Run<'r, 'v, 'x> {
    rules: &'r Rules,
    cases: Vec<Case<'r, 'v, 'x>>,
    notes: Notes,
    scratch: &'r mut Scratch,
    /// Those whose time is up.
    late: Messages,
}

/// Rules that are worked out, or texts that are scanned, between two looks at the clock of the budget.
const RULES_PER_LOOK: usize = 64;

impl<'r, 'v, 'x> Run<'r, 'v, 'x> {
    /// Nothing is known yet of these messages, [`messages::MOST`] at most.
    pub fn new(
        rules: &'r Rules,
        cases: impl Iterator<Item = (&'r Texts<'v, 'x>, &'r mut Budget)>,
        scratch: &'r mut Scratch,
    ) -> Self {
        let case = |(view, budget)| Case {
            view,
            texts: (0..rules.targets.len()).map(|_| None).collect(),
            evidence: HashMap::default(),
            budget,
            tried: 0,
            timed: rules.runs.next().is_multiple_of(cost::TIMED_ONE_IN),
        };
        let cases: Vec<Case<'_, '_, '_>> = cases.map(case).collect();
        let mut notes = std::mem::take(&mut scratch.notes);
        notes.begin(rules, cases.len());
        Run { rules, cases, notes, scratch, late: 0 }
    }

    /// First what can be seen before any rule is asked: most rules are known not to hit then.
    pub fn look(&mut self) {
        let rules = self.rules;
        for (target, looked) in rules.targets.iter().enumerate() {
            if looked.target != Target::Full && !looked.group.is_blind() {
                (0..self.cases.len()).for_each(|message| self.scan(target, message));
            }
        }
        for &(rule, ref field) in &rules.exists {
            for (message, case) in self.cases.iter().enumerate() {
                let there = case.view.view.header.first(field).is_some();
                self.notes.settle(rule as usize, message, u16::from(there));
            }
            self.notes.costs[rule as usize].tried = self.cases.len() as u64;
        }
        let mut may = std::mem::take(&mut self.notes.may);
        rules.needs.sort_out(&mut may, |rule, message| self.most(rule as usize, message));
        self.notes.open.iter_mut().zip(&may).for_each(|(open, may)| *open &= may);
        self.notes.may = may;
    }

    /// Then, rule by rule: whether it hits, where that is still open.
    pub fn ask(&mut self, rule: u32) {
        let rule = rule as usize;
        self.find_out(rule, self.notes.open[rule]);
    }

    /// All rules that are known to have hit each message, in the order of their numbers.
    pub fn finish(mut self) -> Vec<Vec<Hit>> {
        let mut hits: Vec<Vec<Hit>> = self.cases.iter().map(|_| Vec::new()).collect();
        for (rule, &hit) in self.notes.hit.iter().enumerate() {
            self.notes.costs[rule].hits = u64::from(hit.count_ones());
            for message in messages::each(hit) {
                let count = self.notes.hits(rule, message, self.rules.briefs[rule].most);
                let evidence = self.cases[message].evidence.remove(&(rule as u32));
                hits[message].push(Hit { rule, count, evidence });
            }
        }
        self.rules.rules.iter().zip(&self.notes.costs).for_each(|(rule, cost)| rule.counters.add(*cost));
        self.scratch.notes = self.notes;
        hits
    }

    /// Scans the text of a target, and settles what is certain of its patterns then.
    fn scan(&mut self, target: usize, message: usize) {
        if self.cases[message].texts[target].is_some() || self.is_late(message, target) {
            return;
        }
        let case = &mut self.cases[message];
        let looked = &self.rules.targets[target];
        let text = case.view.prepare(&looked.target, case.budget);
        if let Some(text) = &text {
            let (briefs, notes) = (&self.rules.briefs, &mut self.notes);
            looked.group.scan(&text.bytes, &mut self.scratch.room, |rule, seen| {
                notes.sight(rule, message, seen, &briefs[rule as usize]);
            });
            for &rule in &looked.unseen {
                if self.notes.sighted(rule as usize, message).spots == 0 {
                    let negated = self.rules.briefs[rule as usize].nature == Nature::Negated;
                    self.notes.settle(rule as usize, message, u16::from(negated));
                }
            }
        } else {
            for &rule in &looked.members {
                let hits = self.rules.briefs[rule as usize].unset_hits;
                self.notes.settle(rule as usize, message, hits);
            }
        }
        case.texts[target] = Some(text);
    }

    /// True if the time of a message is up; the clock is looked at before some of the things that are done for it, by their number.
    fn is_late(&mut self, message: usize, number: usize) -> bool {
        let budget = &mut self.cases[message].budget;
        let late = number.is_multiple_of(RULES_PER_LOOK) && budget.is_late() || budget.was_late();
        self.late |= Messages::from(late) << message;
        late
    }

    /// Finds out which of these messages a rule hits.
    fn find_out(&mut self, rule: usize, of: Messages) {
        let of = of & self.notes.open[rule];
        if of == 0 {
            return;
        }
        let brief = self.rules.briefs[rule];
        match brief.nature {
            Nature::Void => {}
            Nature::Meta => {
                let certainly_not = self.certain(rule).no;
                let hit = self.rules.formulas.hold(brief.place, of & !certainly_not & !self.late, self);
                // What it names may only seem to miss when the time is up.
                self.notes.hit[rule] |= hit & !self.late;
            }
            Nature::Pattern | Nature::Negated | Nature::Test => {
                for message in messages::each(of) {
                    if brief.nature != Nature::Test {
                        self.scan(brief.place as usize, message);
                    }
                    if self.notes.open[rule] & messages::one(message) != 0 {
                        let hits = self.work_out(rule, message);
                        self.notes.settle(rule, message, hits);
                    }
                }
            }
        }
        self.notes.open[rule] &= !of;
    }

    /// The hits of a rule that is no meta and was not settled by the look, worked out.
    fn work_out(&mut self, rule: usize, message: usize) -> u16 {
        if self.is_late(message, self.cases[message].tried) {
            return 0;
        }
        let case = &mut self.cases[message];
        case.tried += 1;
        let start = case.timed.then(Instant::now);
        let hits = match &self.rules.rules[rule].kind {
            Compiled::Void | Compiled::Meta(_) | Compiled::Exists(_) => 0,
            Compiled::Matching(matcher) => self.matching(rule, message, matcher),
            Compiled::Eval(asked) => u16::from(asked.holds(case.view)),
            Compiled::UriDetail(tests) => u16::from(self.uri_detail(rule, message, tests)),
        };
        let cost = &mut self.notes.costs[rule];
        cost.tried += 1;
        cost.nanoseconds += start.map_or(0, |start| start.elapsed().as_nanos() as u64 * cost::TIMED_ONE_IN);
        hits
    }

    fn matching(&mut self, rule: usize, message: usize, matcher: &Matcher) -> u16 {
        let brief = self.rules.briefs[rule];
        let Case { texts, budget, evidence, .. } = &mut self.cases[message];
        let Some(Some(text)) = &texts[brief.place as usize] else { return brief.unset_hits };
        let sighted = self.notes.sighted(rule, message);
        let (scratch, rule) = (&mut *self.scratch, rule as u32);
        let mut trial = Trial { rule, matcher, brief, text, scratch, budget, shown: None };
        let hits = trial.hits(sighted, &mut self.notes);
        evidence.extend(trial.shown.map(|shown| (rule, shown)));
        hits
    }

    fn uri_detail(&mut self, rule: usize, message: usize, tests: &[(String, Matcher)]) -> bool {
        let Case { view, budget, .. } = &mut self.cases[message];
        view.view.urls.iter().any(|url| {
            // Each test has states of its own; numbers above those of rules are free.
            tests.iter().zip((self.rules.rules.len() + rule * UriTest::MOST) as u32..).all(|((key, matcher), id)| {
                let value = UriTest::value(key, url).as_bytes();
                matcher.count(id, value, 1, self.scratch, budget).0 > 0
            })
        })
    }

    /// Hits of a rule at most, as far as is known from what was seen: each match holds a place of its own.
    fn most(&self, rule: usize, message: usize) -> u16 {
        let brief = &self.rules.briefs[rule];
        if brief.most == 1 || !brief.watched || brief.nature != Nature::Pattern {
            return brief.most;
        }
        match self.notes.sighted(rule, message).spots {
            spots @ 1..=SPOTS_MAX => brief.most.min(spots),
            _ => brief.most,
        }
    }

    /// What is certain of a meta before anything is asked for its sake.
    fn certain(&mut self, meta: usize) -> Sure {
        if let Some(certain) = self.notes.certain[meta] {
            return certain;
        }
        let certain = self.rules.formulas.sure(self.rules.briefs[meta].place, self.notes.open[meta], self);
        self.notes.certain[meta] = Some(certain);
        certain
    }
}

/// What `uri_detail` can ask of a URL.
struct UriTest;

impl UriTest {
    /// Conditions of one rule that have memory of their own.
    const MOST: usize = 8;

    fn value<'u>(key: &str, url: &'u crate::filter::message::Url) -> &'u str {
        use crate::filter::message::Source;
        match key {
            "text" => url.anchor.as_str(),
            "domain" => url.domain(),
            "host" => url.host.as_str(),
            "scheme" => url.text.split(':').next().unwrap_or_default(),
            "type" => match url.source {
                Source::Href => "a",
                Source::Embedded => "img",
                _ => "parsed",
            },
            _ => url.text.as_str(),
        }
    }
}

impl Values for Run<'_, '_, '_> {
    fn value(&mut self, rule: usize, message: usize) -> f64 {
        self.find_out(rule, messages::one(message));
        f64::from(self.notes.hits(rule, message, self.rules.briefs[rule].most))
    }

    fn bounds(&mut self, rule: usize, message: usize) -> Bounds {
        let (one, brief) = (messages::one(message), &self.rules.briefs[rule]);
        if self.notes.open[rule] & one == 0 {
            let hits = f64::from(self.notes.hits(rule, message, brief.most));
            return (hits, hits);
        }
        if brief.nature != Nature::Meta {
            return (0.0, f64::from(self.most(rule, message)));
        }
        match self.certain(rule) {
            certain if certain.no & one != 0 => FALSE,
            certain if certain.yes & one != 0 => TRUE,
            _ => UNDECIDED,
        }
    }

    fn hit(&mut self, rule: usize, of: Messages) -> Messages {
        self.find_out(rule, of);
        self.notes.hit[rule] & of
    }

    fn sure(&mut self, rule: usize, of: Messages) -> Sure {
        let open = self.notes.open[rule] & of;
        let yes = self.notes.hit[rule] & of;
        let mut sure = Sure { yes, no: of & !open & !yes };
        if open != 0 && self.rules.briefs[rule].nature == Nature::Meta {
            let certain = self.certain(rule);
            sure.yes |= certain.yes & open;
            sure.no |= certain.no & open;
        }
        sure
    }
}
