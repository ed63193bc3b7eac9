//! A pattern on the text that it looks at: all of it, or near the places where something of the pattern was seen. Pure.

use super::Brief;
use super::matcher::{Found, Matcher};
use super::notes::{Notes, SPOTS_MAX, Sighted};
use super::scratch::Scratch;
use super::texts::Text;
use crate::filter::budget::Budget;
use crate::filter::message::header::lossy;

/// Bytes of matching text that are shown.
const EVIDENCE_BYTES_MAX: usize = 60;

/// See the module.
pub struct Trial<'t, 'v> {
    /// The rule, for what [`Scratch`] keeps of it.
    pub rule: u32,
    pub matcher: &'t Matcher,
    pub brief: Brief,
    pub text: &'t Text<'v>,
    pub scratch: &'t mut Scratch,
    pub budget: &'t mut Budget,
    /// What a rule with points matched first.
    pub shown: Option<String>,
}

impl Trial<'_, '_> {
    /// The hits of the pattern, of which this was seen.
    pub fn hits(&mut self, sighted: Sighted, notes: &mut Notes) -> u16 {
        let Brief { most, watched, .. } = self.brief;
        let least = usize::from(self.matcher.least);
        if watched && usize::from(sighted.spots) < least {
            return u16::from(self.matcher.negated);
        }
        let one_begin = self.text.is_whole() && self.matcher.begins_text();
        if !watched || sighted.spots > SPOTS_MAX || one_begin {
            return self.count(0..self.text.count());
        }
        let mut ends = std::mem::take(&mut notes.ends);
        ends.clear();
        ends.extend(notes.spots(sighted));
        ends.sort_unstable();
        let starts = starts_of(&ends, least, self.text);
        let hits = if most > 1 {
            let mut last = usize::MAX;
            let news = |(segment, _)| (std::mem::replace(&mut last, segment) != segment).then_some(segment);
            self.count(starts.filter_map(news))
        } else {
            u16::from(self.matches_near(starts) != self.matcher.negated)
        };
        notes.ends = ends;
        hits
    }

    /// True if a match begins near one of these places.
    fn matches_near(&mut self, starts: impl Iterator<Item = (usize, usize)>) -> bool {
        let text = self.text;
        // The segment that was tried last, and the first place in it that was not.
        let mut tried = (usize::MAX, 0);
        for (number, end) in starts {
            let (start, segment) = text.segment(number);
            let mut stretch = self.matcher.stretch(segment, end - start);
            if tried.0 == number {
                stretch.from = stretch.from.max(tried.1);
            }
            tried = (number, stretch.latest + 1);
            if stretch.from > stretch.latest {
                continue;
            }
            if let Some(found) = self.matcher.find(self.rule, segment, stretch, self.scratch, self.budget) {
                self.show(segment, found);
                return true;
            }
        }
        false
    }

    /// Counts in some segments; a negated pattern must be missing in all of them.
    fn count(&mut self, segments: impl Iterator<Item = usize>) -> u16 {
        let (text, matcher, most) = (self.text, self.matcher, self.brief.most);
        let mut hits = 0;
        for number in segments {
            let (_, segment) = text.segment(number);
            let (more, first) = matcher.count(self.rule, segment, most - hits, self.scratch, self.budget);
            if matcher.negated && more == 0 {
                return 0;
            }
            if let Some(found) = first.filter(|_| hits == 0) {
                self.show(segment, found);
            }
            hits = if matcher.negated { 1 } else { hits + more };
            if hits >= most && !matcher.negated {
                break;
            }
        }
        hits
    }

    /// Keeps what a rule with points matched.
    fn show(&mut self, text: &[u8], (start, end): Found) {
        if self.brief.asked {
            // Where the begin is not known, the end is what is shown.
            let start = start.unwrap_or(end.saturating_sub(EVIDENCE_BYTES_MAX));
            let piece = &text[start..end.min(start + EVIDENCE_BYTES_MAX)];
            self.shown = Some(lossy(piece).replace(char::is_control, " "));
        }
    }
}

/// Of the places where something of a pattern ends, those near which a match can begin: as many as it holds at least follow in the same
/// segment. Each with its segment.
fn starts_of<'t>(ends: &'t [usize], least: usize, text: &'t Text<'_>) -> impl Iterator<Item = (usize, usize)> + 't {
    let (mut number, mut limit) = (0, 0);
    ends.iter().enumerate().filter_map(move |(place, &end)| {
        let last = *ends.get(place + least.max(1) - 1)?;
        if end > limit {
            (number, limit) = text.segment_at(end);
        }
        (last <= limit).then_some((number, end))
    })
}
