//! Patterns of redirectors (`redirector_pattern`): what the first group of one catches is where its link leads. Pure.
//!
//! As in SpamAssassin the first pattern that fits a link decides, and what it catches is a link itself. The literals of all patterns
//! are sought at once, so a link that none of them can fit costs one walk; a pattern that goes back too often on a link does not fit it.

use aho_corasick::{AhoCorasick, MatchKind};
use fancy_regex::{Regex, RegexBuilder};

use super::definition::{Place, Problem, Severity};
use super::linear::{PATTERN_BYTES_MAX, last_line, parse};
use super::relax::relax;
use super::{literal, pattern};

/// See the module.
#[derive(Default)]
pub struct Redirectors {
    patterns: Vec<Regex>,
    /// Literals of which a link holds one if a pattern fits it.
    sights: Option<AhoCorasick>,
    /// The pattern of each literal.
    sighted: Vec<usize>,
    /// Patterns without literals.
    always: Vec<usize>,
}

/// Lines that are read; Debian's rules have 15.
const PATTERNS_MAX: usize = 256;
/// Steps back on one link; a newsletter's longest need some hundreds.
const STEPS_MAX: usize = 10_000;

impl Redirectors {
    /// Compiles patterns as written, and says of which it could not.
    pub fn compile(written: &[(Place, String)]) -> (Self, Vec<Problem>) {
        let (mut redirectors, mut problems, mut literals) = (Redirectors::default(), Vec::new(), Vec::new());
        for (number, (place, text)) in written.iter().enumerate() {
            let compiled = if number < PATTERNS_MAX { compile(text) } else { Err("there are too many".to_owned()) };
            match compiled {
                Ok((regex, pieces)) => redirectors.add(regex, pieces, &mut literals),
                Err(text) => problems.push(Problem {
                    place: place.clone(),
                    text: format!("redirector_pattern: {text}"),
                    severity: Severity::Error,
                }),
            }
        }
        let builder =
            AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(&literals);
        redirectors.sights = builder.ok().filter(|_| !literals.is_empty());
        (redirectors, problems)
    }

    fn add(&mut self, regex: Regex, pieces: Option<Vec<Vec<u8>>>, literals: &mut Vec<Vec<u8>>) {
        let number = self.patterns.len();
        self.patterns.push(regex);
        match pieces {
            Some(pieces) => {
                self.sighted.extend(pieces.iter().map(|_| number));
                literals.extend(pieces);
            }
            None => self.always.push(number),
        }
    }

    /// Where the link `uri` leads, as it stands there.
    pub fn target<'u>(&self, uri: &'u str) -> Option<&'u str> {
        let mut fits: Vec<usize> = self.always.clone();
        if let Some(sights) = &self.sights {
            fits.extend(sights.find_overlapping_iter(uri).map(|found| self.sighted[found.pattern().as_usize()]));
        }
        fits.sort_unstable();
        fits.dedup();
        let caught = |number: &usize| {
            let groups = self.patterns[*number].captures(uri).ok().flatten()?;
            groups.get(1).map(|group| &uri[group.start()..group.end()]).filter(|target| target.contains('.'))
        };
        fits.iter().find_map(caught)
    }
}

/// A pattern, and literals of which a link must hold one for it to fit.
type Compiled = (Regex, Option<Vec<Vec<u8>>>);

fn compile(text: &str) -> Result<Compiled, String> {
    let (text, flags) = pattern::split(text)?;
    let text = pattern::translate(text, flags)?.text;
    let regex = RegexBuilder::new(&text).backtrack_limit(STEPS_MAX).delegate_size_limit(PATTERN_BYTES_MAX).build();
    let regex = regex.map_err(|error| last_line(&error.to_string()))?;
    if regex.captures_len() < 2 {
        return Err("no group says where the link leads".to_owned());
    }
    let weaker = relax(&text).and_then(|text| parse(&text).ok());
    let pieces = weaker.and_then(|hir| literal::required(&hir)).map(|(best, _)| best.pieces());
    Ok((regex, pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(patterns: &[&str]) -> (Redirectors, Vec<Problem>) {
        let written: Vec<_> = patterns.iter().map(|text| (Place::default(), (*text).to_owned())).collect();
        Redirectors::compile(&written)
    }

    #[test]
    fn the_first_that_fits_decides() {
        let (redirectors, problems) = of(&[
            "m'^https?:/*(?:\\w+\\.)?hop\\.example/url\\?.*?(?<=[?&])q=(.*?)(?:$|[&\\#])'i",
            "/^http:\\/\\/.*[?;]to=(.*)$/",
            "/(/",
            "/no group/",
        ]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let target = |uri| redirectors.target(uri);
        assert_eq!(target("http://www.hop.example/url?a=1&q=evil.example/x&to=no.example"), Some("evil.example/x"));
        assert_eq!(target("http://other.example/?TO=a.b"), None);
        assert_eq!(target("http://other.example/?to=a.b"), Some("a.b"));
        assert_eq!(target("http://other.example/?to=nothing"), None, "a target has a dot");
    }

    #[test]
    fn a_pattern_that_goes_back_without_end_fits_nothing() {
        let (redirectors, _) = of(&["/http:(?=(?:x+x+)+y)(.*)/"]);
        assert_eq!(redirectors.target(&format!("http:{}.z", "x".repeat(4_000))), None);
    }
}
