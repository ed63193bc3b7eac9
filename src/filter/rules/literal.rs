//! Strings that a text must hold for a pattern to match. Pure.
//!
//! All literals of all rules go into one table per target ([`super::grams`]); a rule's own expression runs only where one of its
//! literals stood, and only if each other part of it that has literals was seen as well. So a thousand rules more cost no
//! thousand scans. Literals are in lower case and are sought without regard to case.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::shape::Bytes;
use super::way::Way;

/// Literals of a rule; lists of words in the rules of others have up to 400.
const LITERALS_MAX: usize = 1024;
/// Bytes of a literal that are compared: longer ones are hardly rarer.
const LITERAL_BYTES_MAX: usize = 24;
/// Turns of a repetition that are spelt out.
const TURNS_MAX: usize = 8;
/// Places of literals that are asked for; more are not counted in a text.
pub const LEAST_MAX: u32 = 64;
/// Sets beside the rarest one that a text must hold as well.
const MORE_SETS_MAX: usize = 3;
/// Bits that such a set must say to be worth a look.
const MORE_BITS_MIN: f32 = 6.0;
/// Shorter ones stand in nearly every message.
const LITERAL_BYTES_MIN: usize = 3;

/// How rare a byte is in mail, in quarters of a bit, letters in lower case (measured over 400 messages of two decades).
const RARITY: [u8; 128] = [
    80, 80, 80, 80, 80, 80, 80, 80, 80, 31, 23, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80,
    80, 80, 80, 14, 44, 29, 38, 56, 45, 44, 44, 32, 32, 41, 30, 32, 24, 24, 28, 22, 24, 25, 26, 28, 29, 29, 30, 29, 29,
    25, 31, 29, 27, 28, 44, 33, 19, 26, 22, 22, 16, 26, 26, 23, 20, 38, 29, 21, 24, 20, 20, 23, 42, 19, 20, 18, 24, 30,
    27, 32, 25, 38, 39, 56, 39, 67, 27, 74, 19, 26, 22, 22, 16, 26, 26, 23, 20, 38, 29, 21, 24, 20, 20, 23, 42, 19, 20,
    18, 24, 30, 27, 32, 25, 38, 48, 51, 49, 57, 80,
];
/// Rarity of a byte beyond ASCII.
const RARITY_BEYOND: u8 = 40;
/// A capital is rarer than its letter by this much.
const RARITY_CAPITAL: f32 = 3.0;

/// Bits that a byte says, whatever its case.
fn bits_of(byte: u8) -> f32 {
    f32::from(RARITY.get(usize::from(byte)).copied().unwrap_or(RARITY_BEYOND)) / 4.0
}

/// Bits that a byte says in the case that it has.
pub fn bits_of_byte(byte: u8) -> f32 {
    bits_of(byte) + if byte.is_ascii_uppercase() { RARITY_CAPITAL } else { 0.0 }
}

/// A set of literals of which each match holds at least one, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Required {
    /// The literals, in lower case.
    pub set: Vec<Vec<u8>>,
    /// From the begin of a match to the begin of its literal.
    way: Way,
    /// Places in one text where one of them stands, at least.
    pub least: u16,
    /// How much it says that one of them stands somewhere.
    pub bits: f32,
}

impl Required {
    fn new(set: Vec<Vec<u8>>, way: Way) -> Option<Self> {
        let useful = !set.is_empty()
            && set.len() <= LITERALS_MAX
            && set.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN);
        useful.then(|| {
            let share: f32 = set.iter().map(|literal| (-rarity(window(literal).1)).exp2()).sum();
            Required { bits: -share.log2(), set, way, least: 1 }
        })
    }

    /// Bytes from the begin of a match to the end of its literal at most, if that is bounded.
    pub fn back(&self) -> Option<usize> {
        Some(
            self.way.most?
                + self
                    .set
                    .iter()
                    .map(|literal| {
                        let (at, part) = window(literal);
                        at + part.len()
                    })
                    .max()?,
        )
    }

    /// The literals as they are sought: the rarest piece of each, but none that holds another.
    pub fn pieces(&self) -> Vec<Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = self.set.iter().map(|literal| window(literal).1.to_vec()).collect();
        pieces.sort_by_key(Vec::len);
        let mut fewest: Vec<Vec<u8>> = Vec::new();
        for piece in pieces {
            // One that holds another tells nothing that the other does not.
            if !fewest.iter().any(|shorter| holds(&piece, shorter)) {
                fewest.push(piece);
            }
        }
        fewest.sort();
        fewest
    }

    /// The bytes of a match up to the end of its literal, and maybe others.
    pub fn across(&self) -> Bytes {
        let mut across = self.way.over;
        for byte in self.set.iter().flatten() {
            let (lower, upper) = (byte.to_ascii_lowercase(), byte.to_ascii_uppercase());
            across.insert(lower, lower);
            across.insert(upper, upper);
        }
        across
    }

    /// The same behind some way.
    fn behind(self, way: Way) -> Self {
        Required { way: way.then(&self.way), ..self }
    }
}

fn rarity(literal: &[u8]) -> f32 {
    literal.iter().map(|&byte| bits_of(byte)).sum()
}

/// The rarest piece of a literal that is not too long, and where it begins.
fn window(literal: &[u8]) -> (usize, &[u8]) {
    let mut best = (0, &literal[..literal.len().min(LITERAL_BYTES_MAX)]);
    for (at, piece) in literal.windows(LITERAL_BYTES_MAX).enumerate() {
        if rarity(piece) > rarity(best.1) {
            best = (at, piece);
        }
    }
    best
}

/// What is known of a piece of a pattern.
#[derive(Default)]
struct Known {
    /// All strings it can match, in lower case; nothing if there are too many.
    exact: Option<Vec<Vec<u8>>>,
    /// A set of which every match holds one.
    required: Vec<Required>,
    /// What every match begins and ends with, where that is more than nothing and not all of it: `x` of `x+`.
    ends: Option<Vec<Vec<u8>>>,
}

impl Known {
    /// All sets, the rarest first.
    fn all(self) -> Vec<Required> {
        let mut all: Vec<Required> = self.exact.and_then(|exact| Required::new(exact, Way::NONE)).into_iter().collect();
        all.extend(self.required);
        all.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        all
    }

    fn best(self) -> Option<Required> {
        self.all().into_iter().next()
    }
}

/// The rarest set of literals of which each match of `hir` holds at least one; nothing if there is no useful set.
/// Beside it other sets of which the same is true.
pub fn required(hir: &Hir) -> Option<(Required, Vec<Vec<Vec<u8>>>)> {
    let mut all = analyse(hir).all().into_iter();
    let best = all.next()?;
    let mut more: Vec<Vec<Vec<u8>>> = Vec::new();
    for other in all.filter(|other| other.bits >= MORE_BITS_MIN) {
        let pieces = other.pieces();
        // What stands in a known literal is no news.
        let known = |set: &[Vec<u8>]| pieces.iter().any(|piece| set.iter().any(|one| holds(one, piece)));
        if more.len() < MORE_SETS_MAX && !known(&best.set) && !more.iter().any(|set| known(set)) {
            more.push(pieces);
        }
    }
    Some((best, more))
}

fn holds(literal: &[u8], piece: &[u8]) -> bool {
    memchr::memmem::find(literal, piece).is_some()
}

fn analyse(hir: &Hir) -> Known {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => exact(vec![Vec::new()]),
        HirKind::Literal(literal) => exact(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => Known { exact: members(class), ..Known::default() },
        HirKind::Capture(capture) => analyse(&capture.sub),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (0, Some(1)) => {
                let inner = analyse(&repetition.sub);
                let exact = inner.exact.map(|mut set| {
                    set.push(Vec::new());
                    set
                });
                Known { exact: exact.filter(|set| set.len() <= LITERALS_MAX), ..Known::default() }
            }
            (0, _) => Known::default(),
            (min, max) => repeated(&repetition.sub, min, max == Some(min)),
        },
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(branches) => alternation(branches),
    }
}

fn exact(set: Vec<Vec<u8>>) -> Known {
    Known { exact: Some(set), ..Known::default() }
}

/// `x{3}` begins with x, and so does `x+`.
fn repeated(sub: &Hir, min: u32, fixed: bool) -> Known {
    let inner = analyse(sub);
    if fixed && min == 1 {
        return inner;
    }
    let copies = (min as usize).min(TURNS_MAX);
    let known = concat(&vec![sub.clone(); copies]);
    let all = fixed && copies == min as usize;
    let exact = known.exact.clone().filter(|_| all);
    // Each turn holds a literal of its own, unless one that was pieced together of several turns is rarer.
    let turns = known.exact.clone();
    let mut all = inner.all().into_iter();
    let least = |one: u16| (u32::from(one).saturating_mul(min)).min(LEAST_MAX) as u16;
    let each = all.next().map(|one| Required { least: least(one.least), ..one });
    let required = match (each, known.best()) {
        (Some(each), Some(joined)) => Some(if joined.bits > 2.0 * each.bits { joined } else { each }),
        (each, joined) => each.or(joined),
    };
    let required = required.into_iter().chain(all).collect();
    let ends = turns.filter(|_| exact.is_none());
    Known { exact, required, ends }
}

fn concat(parts: &[Hir]) -> Known {
    let mut required: Vec<Required> = Vec::new();
    let mut run: Vec<Vec<u8>> = vec![Vec::new()];
    // To the run and to the part.
    let (mut run_way, mut way) = (Way::NONE, Way::NONE);
    let mut whole = true;
    for part in parts {
        let (known, behind) = (analyse(part), way.through(part));
        required.extend(known.required.into_iter().map(|inner| inner.behind(way)));
        match known.exact.as_ref().and_then(|set| product(&run, set)) {
            Some(longer) => run = longer,
            None => {
                let longer = known.ends.as_ref().and_then(|ends| product(&run, ends));
                required.extend(Required::new(longer.unwrap_or(run), run_way));
                whole = false;
                // What could not be appended may still begin a run of its own.
                (run, run_way) = match (known.exact, known.ends) {
                    (Some(exact), _) => (exact, way),
                    (None, Some(ends)) => {
                        let shortest = ends.iter().map(Vec::len).min().unwrap_or(0);
                        (ends, Way { most: behind.most.map(|most| most - shortest), ..behind })
                    }
                    (None, None) => (vec![Vec::new()], behind),
                };
            }
        }
        way = behind;
    }
    required.extend(Required::new(run.clone(), run_way));
    Known { exact: Some(run).filter(|_| whole), required, ends: None }
}

fn product(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if heads.len() * tails.len() > LITERALS_MAX {
        return None;
    }
    let join = |head: &Vec<u8>, tail: &Vec<u8>| [head.as_slice(), tail.as_slice()].concat();
    Some(heads.iter().flat_map(|head| tails.iter().map(move |tail| join(head, tail))).collect())
}

fn alternation(branches: &[Hir]) -> Known {
    let known: Vec<Known> = branches.iter().map(analyse).collect();
    let all_exact: Option<Vec<Vec<u8>>> =
        known.iter().map(|one| one.exact.clone()).collect::<Option<Vec<_>>>().map(|sets| sets.concat());
    let each: Option<Vec<Required>> = known.into_iter().map(Known::best).collect();
    let required = each.and_then(|each| {
        let way = each.iter().map(|one| one.way).reduce(|way, other| way.or(&other))?;
        let least = each.iter().map(|one| one.least).min().unwrap_or(1);
        let set = each.into_iter().flat_map(|one| one.set).collect();
        Required::new(set, way).map(|required| Required { least, ..required })
    });
    let required = required.into_iter().collect();
    Known { exact: all_exact.filter(|set| set.len() <= LITERALS_MAX), required, ends: None }
}

/// The members of a small class, in lower case.
fn members(class: &Class) -> Option<Vec<Vec<u8>>> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect(),
        Class::Unicode(class) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
    };
    let count: u64 = ranges.iter().map(|(from, to)| u64::from(to - from) + 1).sum();
    if count > 2 * CLASS_MEMBERS_MAX {
        return None;
    }
    let mut all: Vec<Vec<u8>> = ranges
        .iter()
        .flat_map(|&(from, to)| from..=to)
        .map(|code| match (class, u8::try_from(code)) {
            (Class::Bytes(_), Ok(byte)) => vec![byte.to_ascii_lowercase()],
            _ => char::from_u32(code).map(|c| c.to_ascii_lowercase().to_string().into_bytes()).unwrap_or_default(),
        })
        .collect();
    all.sort();
    all.dedup();
    Some(all).filter(|all| all.len() as u64 <= CLASS_MEMBERS_MAX)
}

/// A class of more than this many letters says too little.
const CLASS_MEMBERS_MAX: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(pattern: &str) -> Option<Vec<String>> {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap();
        required(&hir)
            .map(|(found, _)| found.pieces().into_iter().map(|literal| String::from_utf8(literal).unwrap()).collect())
    }

    fn set(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn literals_that_every_match_holds() {
        assert_eq!(literals(r"\bfoo\b"), set(&["foo"]));
        assert_eq!(literals("(?i)Viagra"), set(&["viagra"]));
        assert_eq!(literals(r"\d{1,3} (?:dollars|euros) now"), set(&[" dollars now", " euros now"]));
        assert_eq!(literals("abc|defg"), set(&["abc", "defg"]));
        assert_eq!(literals("abc|d"), None);
        assert_eq!(literals("(?:abc)?"), None);
        assert_eq!(literals("x+yz"), set(&["xyz"]));
        assert_eq!(literals(r"a.*longer"), set(&["longer"]));
        assert_eq!(literals("(?:abc)+"), set(&["abc"]));
        assert_eq!(literals("[0-9]{4}"), None);
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build();
        let more = |pattern: &str| required(&hir.clone().parse(pattern).unwrap()).unwrap().1;
        assert_eq!(more("quiz.+(?:word|sword)s+"), [[b"words".to_vec()]]);
        let least = |pattern: &str| required(&hir.clone().parse(pattern).unwrap()).unwrap().0.least;
        assert_eq!((least("(?:(?:name|age): .{9})+"), least("(?:(?:name|age): .{9}){5}")), (1, 5));
        assert_eq!((least("(?:(?:spam|ham).{9}){65}"), least("(?:(?:spam|ham).{9}){70000}")), (64, 64));
    }

    #[test]
    fn a_literal_that_holds_another_is_not_sought() {
        assert_eq!(literals("names?|surname|nam|age|page of"), set(&["age", "nam"]));
    }
}
