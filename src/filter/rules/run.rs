//! One message against all rules: what is needed is worked out, what is not needed is not. I/O: the clock, for [`cost`].
//!
//! A text is scanned when the first rule that looks at it is asked for; from then on it is known of most rules at no cost that they
//! did not hit. Only rules with points are asked; metas ask others in the order of what that costs, and stop when the
//! outcome can no longer change.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use foldhash::fast::FixedState;

use super::cost::{self, Cost};
use super::formula::Values;
use super::group::Seen;
use super::literal::LEAST_MAX;
use super::matcher::{Found, Matcher};
use super::meta::Bounds;
use super::scratch::Scratch;
use super::texts::{Target, Text, Texts};
use super::{Brief, Compiled, Hit, Nature, Rules};
use crate::filter::budget::Budget;
use crate::filter::message::header::lossy;

/// Hits of one rule without `tflags multiple`, and the bound of those with it.
pub const HITS_MAX: u16 = 1_000;
/// Bytes of matching text that are shown.
const EVIDENCE_BYTES_MAX: usize = 60;
/// Places of one rule that are tried one by one; with more of them, all of the text is.
const SPOTS_MAX: u16 = 96;
const _: () = assert!(LEAST_MAX <= SPOTS_MAX as u32, "a pattern that asks for more places than are counted never hits");
const UNKNOWN: u16 = u16::MAX;
const NONE: u32 = u32::MAX;

/// What was seen of a pattern.
#[derive(Clone, Copy)]
struct Sighted {
    /// Places where it can match.
    spots: u16,
    /// Its sets of literals that were not seen, a bit each.
    missing: u8,
    /// The place of the last one among all.
    last: u32,
}

impl Sighted {
    /// Nothing was seen.
    fn of(brief: &Brief) -> Self {
        Sighted { spots: 0, missing: brief.wanted, last: NONE }
    }
}

/// What is known of a meta: whether it is true at least and at most.
#[derive(Clone, Copy)]
enum Known {
    Nothing,
    Undecided,
    False,
    True,
}

/// What is noted of the rules, kept from run to run. Each kind of note has a row of its own: most rules are passed over, and few bytes of
/// each are read for that.
#[derive(Default)]
pub struct Notes {
    /// The hits of each rule, or [`UNKNOWN`].
    hits: Vec<u16>,
    /// What is known of each meta.
    bounds: Vec<Known>,
    /// Rules that can hit, as far as is known without looking closer.
    may: Vec<bool>,
    /// What was seen of each pattern; nothing between runs.
    sighted: Vec<Sighted>,
    /// Those of which something was seen.
    touched: Vec<u32>,
    /// The ends of one pattern's sights, in their order.
    ends: Vec<usize>,
    /// Ends of what was sighted, each with the place of its rule's one before.
    spots: Vec<(u32, u32)>,
    costs: Vec<(u32, Cost)>,
}

/// See the module.
pub struct Run<'r, 'v, 'x> {
    rules: &'r Rules,
    view: &'r Texts<'v, 'x>,
    texts: Vec<Option<Option<Text<'r>>>>,
    notes: Notes,
    evidence: HashMap<u32, String, FixedState>,
    scratch: &'r RefCell<Scratch>,
    budget: &'r mut Budget,
    timed: bool,
}

/// Rules that are worked out between two looks at the clock of the budget.
const RULES_PER_LOOK: usize = 64;

impl<'r, 'v, 'x> Run<'r, 'v, 'x> {
    /// Nothing is known yet. Runs that take turns share a scratch.
    pub fn new(
        rules: &'r Rules,
        view: &'r Texts<'v, 'x>,
        scratch: &'r RefCell<Scratch>,
        budget: &'r mut Budget,
    ) -> Self {
        let mut notes = scratch.borrow_mut().notes.pop().unwrap_or_default();
        notes.hits.clear();
        notes.hits.resize(rules.rules.len(), UNKNOWN);
        notes.bounds.clear();
        notes.bounds.resize(rules.rules.len(), Known::Nothing);
        let new = rules.briefs.iter().skip(notes.sighted.len()).map(Sighted::of);
        notes.sighted.extend(new);
        notes.may.clone_from(&rules.may);
        notes.spots.clear();
        notes.costs.clear();
        Run {
            rules,
            view,
            texts: (0..rules.targets.len()).map(|_| None).collect(),
            notes,
            evidence: HashMap::default(),
            scratch,
            budget,
            timed: rules.runs.next().is_multiple_of(cost::TIMED_ONE_IN),
        }
    }

    /// First, target by target: what can be seen before any rule is asked.
    pub fn look(&mut self, target: usize) {
        let looked = &self.rules.targets[target];
        if looked.target != Target::Full && !looked.group.is_blind() {
            self.scan(target);
        }
    }

    /// Then: most rules are known not to hit.
    pub fn sort_out(&mut self) {
        for &(rule, ref field) in &self.rules.exists {
            self.notes.may[rule as usize] = self.view.view.header.first(field).is_some();
        }
        let Notes { may, sighted, .. } = &mut self.notes;
        self.rules.needs.sort_out(may, |rule| most(&self.rules.briefs[rule as usize], sighted[rule as usize]));
        // Without a branch, so that many are done at once.
        for (hits, may) in self.notes.hits.iter_mut().zip(&self.notes.may) {
            *hits = u16::from(*may) * UNKNOWN;
        }
    }

    /// Then, rule by rule: whether it hits, if that is still open.
    pub fn ask(&mut self, rule: u32) {
        if self.notes.hits[rule as usize] == UNKNOWN {
            self.value(rule as usize);
        }
    }

    /// All rules that are known to have hit, in the order of their numbers.
    pub fn finish(mut self) -> Vec<Hit> {
        for (rule, cost) in &self.notes.costs {
            self.rules.rules[*rule as usize].counters.add(*cost);
        }
        let mut hits = Vec::new();
        for (rule, &count) in self.notes.hits.iter().enumerate() {
            if count != 0 && count != UNKNOWN {
                self.rules.rules[rule].counters.add(Cost { hits: 1, ..Cost::default() });
                let evidence = self.evidence.remove(&(rule as u32));
                hits.push(Hit { rule, count, evidence });
            }
        }
        for rule in self.notes.touched.drain(..) {
            self.notes.sighted[rule as usize] = Sighted::of(&self.rules.briefs[rule as usize]);
        }
        self.scratch.borrow_mut().notes.push(self.notes);
        hits
    }

    /// The text of a target, scanned.
    fn scan(&mut self, target: usize) {
        let looks = target.is_multiple_of(RULES_PER_LOOK);
        if self.texts[target].is_some() || looks && self.budget.is_late() || self.budget.was_late() {
            return;
        }
        let looked = &self.rules.targets[target];
        let text = self.view.prepare(&looked.target, self.budget);
        if let Some(text) = &text {
            let (briefs, notes) = (&self.rules.briefs, &mut self.notes);
            looked.group.scan(&text.bytes, &mut self.scratch.borrow_mut().room, |rule, seen| {
                notes.sight(rule, seen, briefs[rule as usize].least);
            });
        } else {
            for &rule in &looked.members {
                self.notes.may[rule as usize] = self.rules.briefs[rule as usize].unset_hits > 0;
            }
        }
        self.texts[target] = Some(text);
    }

    /// The hits of a rule that is no meta, worked out.
    fn work_out(&mut self, rule: usize) -> u16 {
        if self.notes.costs.len().is_multiple_of(RULES_PER_LOOK) && self.budget.is_late() {
            return 0;
        }
        let start = self.timed.then(Instant::now);
        let hits = match &self.rules.rules[rule].kind {
            Compiled::Void | Compiled::Meta(_) => return 0,
            Compiled::Matching(matcher) => self.matching(rule, matcher),
            Compiled::Exists(name) => u16::from(self.view.view.header.first(name).is_some()),
            Compiled::Eval(asked) => u16::from(asked.holds(self.view)),
            Compiled::UriDetail(tests) => u16::from(self.uri_detail(rule, tests)),
        };
        let nanoseconds = start.map_or(0, |start| start.elapsed().as_nanos() as u64 * cost::TIMED_ONE_IN);
        self.notes.costs.push((rule as u32, Cost { tried: 1, nanoseconds, hits: 0 }));
        hits
    }

    fn matching(&mut self, rule: usize, matcher: &Matcher) -> u16 {
        let Brief { most, watched, unset_hits, place, .. } = self.rules.briefs[rule];
        let target = place as usize;
        let sighted = self.notes.sighted[rule];
        // Taken out and put back, because looking for matches changes everything else.
        let Some(Some(text)) = self.texts[target].take() else {
            self.texts[target] = Some(None);
            return unset_hits;
        };
        let one_begin = text.is_whole() && matcher.begins_text();
        let everywhere = !watched || sighted.spots > SPOTS_MAX || one_begin;
        let hits = if sighted.spots < matcher.least && watched {
            u16::from(matcher.negated)
        } else if everywhere {
            let all = 0..text.count();
            self.count(rule, matcher, &text, all, most)
        } else {
            let mut ends = std::mem::take(&mut self.notes.ends);
            ends.clear();
            ends.extend(self.notes.spots_of(sighted));
            ends.sort_unstable();
            let starts = starts_of(&ends, usize::from(matcher.least), &text);
            let hits = if most > 1 {
                let mut segments: Vec<usize> = starts.map(|(segment, _)| segment).collect();
                segments.dedup();
                self.count(rule, matcher, &text, segments.into_iter(), most)
            } else {
                u16::from(self.matches_near(rule, matcher, &text, starts) != matcher.negated)
            };
            self.notes.ends = ends;
            hits
        };
        self.texts[target] = Some(Some(text));
        hits
    }

    /// True if a match begins near one of these places.
    fn matches_near(
        &mut self,
        rule: usize,
        matcher: &Matcher,
        text: &Text<'_>,
        starts: impl Iterator<Item = (usize, usize)>,
    ) -> bool {
        // The segment that was tried last, and the first place in it that was not.
        let mut tried = (usize::MAX, 0);
        for (number, end) in starts {
            let (start, segment) = text.segment(number);
            let mut stretch = matcher.stretch(segment, end - start);
            if tried.0 == number {
                stretch.from = stretch.from.max(tried.1);
            }
            tried = (number, stretch.latest + 1);
            if stretch.from > stretch.latest {
                continue;
            }
            if let Some(found) =
                matcher.find(rule as u32, segment, stretch, &mut self.scratch.borrow_mut(), self.budget)
            {
                self.show(rule, segment, found);
                return true;
            }
        }
        false
    }

    /// Counts in some segments; a negated pattern must be missing in all of them.
    fn count(
        &mut self,
        rule: usize,
        matcher: &Matcher,
        text: &Text<'_>,
        segments: impl Iterator<Item = usize>,
        most: u16,
    ) -> u16 {
        let mut hits = 0;
        for number in segments {
            let (_, segment) = text.segment(number);
            let scratch = &mut self.scratch.borrow_mut();
            let (more, first) = matcher.count(rule as u32, segment, most - hits, scratch, self.budget);
            if matcher.negated && more == 0 {
                return 0;
            }
            if let Some(found) = first.filter(|_| hits == 0) {
                self.show(rule, segment, found);
            }
            hits = if matcher.negated { 1 } else { hits + more };
            if hits >= most && !matcher.negated {
                break;
            }
        }
        hits
    }

    fn uri_detail(&mut self, rule: usize, tests: &[(String, Matcher)]) -> bool {
        self.view.view.urls.iter().any(|url| {
            // Each test has states of its own; numbers above those of rules are free.
            tests.iter().zip((self.rules.rules.len() + rule * UriTest::MOST) as u32..).all(|((key, matcher), id)| {
                let value = UriTest::value(key, url).as_bytes();
                matcher.count(id, value, 1, &mut self.scratch.borrow_mut(), self.budget).0 > 0
            })
        })
    }

    /// Keeps what a rule with points matched.
    fn show(&mut self, rule: usize, text: &[u8], (start, end): Found) {
        if self.rules.briefs[rule].asked {
            // Where the begin is not known, the end is what is shown.
            let start = start.unwrap_or(end.saturating_sub(EVIDENCE_BYTES_MAX));
            let piece = &text[start..end.min(start + EVIDENCE_BYTES_MAX)];
            let piece = lossy(piece);
            let shown = piece.replace(char::is_control, " ");
            self.evidence.insert(rule as u32, shown);
        }
    }
}

/// Of the places where something of a pattern ends, those near which a match can begin: as many as it holds at least follow in the same
/// segment. Each with its segment.
fn starts_of<'t>(ends: &'t [usize], least: usize, text: &'t Text<'_>) -> impl Iterator<Item = (usize, usize)> + 't {
    ends.iter().enumerate().filter_map(move |(place, &end)| {
        let last = *ends.get(place + least.max(1) - 1)?;
        let segment = text.segment_at(end);
        (text.segment_at(last) == segment).then_some((segment, end))
    })
}

/// Hits of a rule at most, as far as is known from what was seen: each match holds a place of its own.
fn most(brief: &Brief, sighted: Sighted) -> u16 {
    let counted = brief.watched && brief.nature == Nature::Pattern && (1..=SPOTS_MAX).contains(&sighted.spots);
    if counted { brief.most.min(sighted.spots) } else { brief.most }
}

impl Notes {
    /// Takes note of what was seen of a pattern: it can hit where all was that it wants, and so many places where its matches are.
    fn sight(&mut self, rule: u32, seen: Seen, least: u16) {
        let sighted = &mut self.sighted[rule as usize];
        let before = sighted.missing;
        sighted.missing &= !seen.bit();
        if sighted.missing != before {
            self.touched.push(rule);
        }
        if let Seen::Sight(end) = seen
            && sighted.spots <= SPOTS_MAX
        {
            sighted.spots += 1;
            let place = self.spots.len() as u32;
            self.spots.push((end as u32, std::mem::replace(&mut sighted.last, place)));
        }
        self.may[rule as usize] |= sighted.missing == 0 && sighted.spots >= least;
    }

    /// The places where a pattern was sighted, the last one first.
    fn spots_of(&self, sighted: Sighted) -> impl Iterator<Item = usize> + '_ {
        let mut at = sighted.last;
        std::iter::from_fn(move || {
            let (end, before) = *self.spots.get(at as usize)?;
            at = before;
            Some(end as usize)
        })
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
    fn value(&mut self, rule: usize) -> f64 {
        if self.notes.hits[rule] == UNKNOWN {
            let rules = self.rules;
            let brief = rules.briefs[rule];
            let hits = match brief.nature {
                _ if self.budget.was_late() => 0,
                Nature::Meta if matches!(self.notes.bounds[rule], Known::False) => 0,
                Nature::Meta => {
                    let value = rules.formulas.value(brief.place, self);
                    // What it names may only seem to miss when the time is up.
                    u16::from(value != 0.0 && value.is_finite() && !self.budget.was_late())
                }
                _ if !self.notes.may[rule] => 0,
                nature => {
                    if matches!(nature, Nature::Pattern | Nature::Negated) {
                        self.scan(brief.place as usize);
                    }
                    match self.bounds_looked_at(rule) {
                        (least, most) if least == most => least,
                        _ => self.work_out(rule),
                    }
                }
            };
            self.notes.hits[rule] = hits;
        }
        f64::from(self.notes.hits[rule])
    }

    fn bounds(&mut self, rule: usize) -> Bounds {
        let hits = self.notes.hits[rule];
        if hits != UNKNOWN {
            return (f64::from(hits), f64::from(hits));
        }
        let rules = self.rules;
        let brief = rules.briefs[rule];
        match brief.nature {
            Nature::Void => (0.0, 0.0),
            Nature::Meta => match self.known_of(rule) {
                Some(true) => (1.0, 1.0),
                Some(false) => (0.0, 0.0),
                None => (0.0, 1.0),
            },
            Nature::Pattern if !self.notes.may[rule] => (0.0, 0.0),
            Nature::Pattern | Nature::Negated => {
                let (least, most) = self.bounds_looked_at(rule);
                (f64::from(least), f64::from(most))
            }
            Nature::Test => (0.0, 1.0),
        }
    }

    fn certain(&mut self, rule: usize) -> Option<bool> {
        let hits = self.notes.hits[rule];
        if hits != UNKNOWN {
            return Some(hits != 0);
        }
        match self.rules.briefs[rule].nature {
            Nature::Void => Some(false),
            Nature::Meta => self.known_of(rule),
            Nature::Test => None,
            Nature::Pattern | Nature::Negated => {
                let (least, most) = self.bounds_looked_at(rule);
                if most == 0 { Some(false) } else { (least > 0).then_some(true) }
            }
        }
    }
}

impl Run<'_, '_, '_> {
    /// What is known of a meta without asking anything.
    fn known_of(&mut self, meta: usize) -> Option<bool> {
        if matches!(self.notes.bounds[meta], Known::Nothing) {
            let rules = self.rules;
            self.notes.bounds[meta] = match rules.formulas.bounds(rules.briefs[meta].place, self) {
                (least, most) if least != most => Known::Undecided,
                (least, _) if least != 0.0 => Known::True,
                _ => Known::False,
            };
        }
        match self.notes.bounds[meta] {
            Known::True => Some(true),
            Known::False => Some(false),
            Known::Nothing | Known::Undecided => None,
        }
    }

    /// What is known of a pattern once its text was scanned, if it was.
    fn bounds_looked_at(&self, rule: usize) -> (u16, u16) {
        let brief = self.rules.briefs[rule];
        if !matches!(brief.nature, Nature::Pattern | Nature::Negated) {
            return (0, brief.most);
        }
        let sighted = self.notes.sighted[rule];
        if sighted.spots > 0 {
            return (0, most(&brief, sighted));
        }
        match &self.texts[brief.place as usize] {
            Some(None) => (brief.unset_hits, brief.unset_hits),
            Some(Some(_)) if brief.watched => {
                let hits = u16::from(brief.nature == Nature::Negated);
                (hits, hits)
            }
            _ => (0, brief.most),
        }
    }
}
