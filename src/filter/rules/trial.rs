//! A pattern on the text that it looks at: all of it, or near the places where something of the pattern was seen. Pure.

use super::Brief;
use super::matcher::{Found, Matcher, next_begin};
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
        let hits = match self.matcher.negated {
            true => u16::from(self.count_near(starts, 1) == 0),
            false => self.count_near(starts, most),
        };
        notes.ends = ends;
        hits
    }

    /// Counts the matches that begin near these places, at most so many.
    fn count_near(&mut self, starts: impl Iterator<Item = (usize, usize)>, most: u16) -> u16 {
        let text = self.text;
        // The segment that was tried last, and the first place in it where a match can begin that was not found.
        let (mut tried, mut hits) = ((usize::MAX, 0), 0);
        for (number, end) in starts {
            let (start, segment) = text.segment(number);
            let mut stretch = self.matcher.stretch(segment, end - start);
            if tried.0 == number {
                stretch.from = stretch.from.max(tried.1);
            }
            while stretch.from <= stretch.latest {
                let found = self.matcher.find(self.rule, segment, stretch, self.scratch, self.budget);
                let Some(found) = found else { break };
                if hits == 0 {
                    self.show(segment, found);
                }
                hits += 1;
                if hits == most {
                    return hits;
                }
                stretch.from = next_begin(found, stretch.from);
            }
            tried = (number, stretch.from.max(stretch.latest + 1));
        }
        hits
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

#[cfg(test)]
mod tests {
    use regex_automata::meta::Regex;

    use crate::filter::Facts;
    use crate::filter::budget::Budget;
    use crate::filter::message::View;
    use crate::filter::rules::Rules;
    use crate::filter::rules::source::Source;

    #[test]
    fn what_is_counted_near_sights_is_what_is_counted_in_all_of_the_text() {
        let patterns = [
            "<b[^>]*colour[^>]*>",
            "[a-z.]+@gmail",
            "(?m)^to .*name",
            "(?:^|x)name",
            "(?:name[^:]{0,40}: ){2}",
            "(?:quiz|colour).{0,200}?gmail",
            "to[^b>]*?name",
        ];
        let rule = |(number, pattern): (usize, &&str)| {
            let (flags, pattern) = pattern.strip_prefix("(?m)").map_or(("", *pattern), |pattern| ("m", pattern));
            format!("rawbody R{number} m;{pattern};{flags}\ntflags R{number} multiple maxhits=40\n")
        };
        let others = patterns.map(|pattern| Regex::new(pattern).unwrap());
        let rules: String = patterns.iter().enumerate().map(rule).collect();
        let rules = Rules::load(Source::from_text("a.cf", rules.as_bytes()));
        let mut state = 7u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let words = ["<b", ">", "colour", "a.b", "@gmail", "to ", "name", "x", ": ", "quiz", "\n", " ", "-"];
        let mut hits = [0; 7];
        for _ in 0..3_000 {
            let body: String = (0..1 + next(40)).map(|_| words[next(13) as usize]).collect();
            let message = format!("Subject: s\n\n{body}\n");
            let found = rules.run_all(&View::read(message.as_bytes()), &Facts::default(), &mut Budget::default());
            for (number, (pattern, other)) in patterns.iter().zip(&others).enumerate() {
                let expected = other.find_iter(format!("{body}\n").as_bytes()).count();
                let hit = found.iter().find(|hit| rules.rules[hit.rule].name == format!("R{number}"));
                assert_eq!(hit.map_or(0, |hit| usize::from(hit.count)), expected, "{pattern} in {body:?}");
                hits[number] += expected;
            }
        }
        assert!(hits.iter().all(|&hits| hits > 50), "the texts hit too seldom to prove anything: {hits:?}");
    }
}
