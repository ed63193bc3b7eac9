//! Strings that a text must hold for a pattern to match. Pure.
//!
//! All literals of all rules go into one automaton per target; a rule's own expression runs only where one of its literals
//! stood. So a thousand rules more cost no thousand scans. Literals are in lower case and are sought without regard to case.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Literals of a rule; lists of words in the rules of others have up to 400.
const LITERALS_MAX: usize = 512;
/// Bytes of a literal that are used: longer ones are not rarer.
const LITERAL_BYTES_MAX: usize = 16;
/// Shorter ones stand in nearly every message.
const LITERAL_BYTES_MIN: usize = 3;

/// What is known of a piece of a pattern.
struct Known {
    /// All strings it can match, in lower case; nothing if there are too many.
    exact: Option<Vec<Vec<u8>>>,
    /// A set of which every match holds one.
    required: Option<Vec<Vec<u8>>>,
}

/// A set of literals of which each match of `hir` holds at least one; nothing if there is no useful set.
pub fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let known = analyse(hir);
    let mut best = better(known.exact.filter(|exact| useful(exact)), known.required)?;
    for literal in &mut best {
        literal.truncate(LITERAL_BYTES_MAX);
    }
    best.sort();
    best.dedup();
    Some(best)
}

fn useful(set: &[Vec<u8>]) -> bool {
    !set.is_empty() && set.len() <= LITERALS_MAX && set.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN)
}

/// The set whose shortest literal is the longest; then the smaller one.
fn better(a: Option<Vec<Vec<u8>>>, b: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let worth = |set: &Vec<Vec<u8>>| {
        let shortest = set.iter().map(Vec::len).min().unwrap_or(0).min(LITERAL_BYTES_MAX);
        (shortest, usize::MAX - set.len())
    };
    match (a, b) {
        (Some(a), Some(b)) => Some(if worth(&a) >= worth(&b) { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn analyse(hir: &Hir) -> Known {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => exact(vec![Vec::new()]),
        HirKind::Literal(literal) => exact(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => Known { exact: members(class), required: None },
        HirKind::Capture(capture) => analyse(&capture.sub),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (0, Some(1)) => {
                let inner = analyse(&repetition.sub);
                let exact = inner.exact.map(|mut set| {
                    set.push(Vec::new());
                    set
                });
                Known { exact: exact.filter(|set| set.len() <= LITERALS_MAX), required: None }
            }
            (0, _) => Known { exact: None, required: None },
            (min, max) => repeated(&repetition.sub, min, max == Some(min)),
        },
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(branches) => alternation(branches),
    }
}

fn exact(set: Vec<Vec<u8>>) -> Known {
    Known { exact: Some(set), required: None }
}

/// `x{3}` begins with x, and so does `x+`.
fn repeated(sub: &Hir, min: u32, fixed: bool) -> Known {
    let inner = analyse(sub);
    if fixed && min == 1 {
        return inner;
    }
    let copies = (min as usize).min(LITERAL_BYTES_MAX);
    let known = concat(&vec![sub.clone(); copies]);
    let all = fixed && copies == min as usize;
    Known {
        exact: known.exact.clone().filter(|_| all),
        required: better(known.exact.filter(|set| useful(set)), known.required),
    }
}

fn concat(parts: &[Hir]) -> Known {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut run: Vec<Vec<u8>> = vec![Vec::new()];
    let mut whole = true;
    for part in parts {
        let known = analyse(part);
        best = better(best, known.required);
        match known.exact.and_then(|set| product(&run, &set)) {
            Some(longer) => run = longer,
            None => {
                best = better(best, Some(run).filter(|run| useful(run)));
                whole = false;
                // What could not be appended may still begin a run of its own.
                run = analyse(part).exact.unwrap_or_else(|| vec![Vec::new()]);
            }
        }
    }
    let last = Some(run.clone()).filter(|run| useful(run));
    Known { exact: Some(run).filter(|_| whole), required: better(best, last) }
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
    let one_each = known.into_iter().map(|one| better(one.exact.filter(|set| useful(set)), one.required));
    let required: Option<Vec<Vec<u8>>> = one_each.collect::<Option<Vec<_>>>().map(|sets| sets.concat());
    Known {
        exact: all_exact.filter(|set| set.len() <= LITERALS_MAX),
        required: required.filter(|set| set.len() <= LITERALS_MAX),
    }
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
        required(&hir).map(|set| set.into_iter().map(|literal| String::from_utf8(literal).unwrap()).collect())
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
        assert_eq!(literals("x+yz"), None);
        assert_eq!(literals(r"a.*longer"), set(&["longer"]));
        assert_eq!(literals("(?:abc)+"), set(&["abc"]));
        assert_eq!(literals("[0-9]{4}"), None);
    }
}
