//! What metas need: rules of which so many must hit for one to be true. Pure.
//!
//! Once the texts were walked it is known of most rules that they can't hit, and so, without asking anything, of most metas. All
//! needs lie in one row, those of a meta with the one first that is seldom met: nearly every meta is done with after a look or two.

use std::ops::Range;

use super::messages::{self, Messages};
use super::meta::{Expression, Operator};

/// Hits of some rules that a meta can't be true without. A rule that stands in it twice counts twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// All of them together hit at least so often.
    pub hits: u16,
    /// Their numbers.
    pub of: Vec<u32>,
}

impl Need {
    /// One hit of these.
    fn one(mut of: Vec<u32>) -> Self {
        of.sort_unstable();
        of.dedup();
        Need { hits: 1, of }
    }

    /// How probably it is met, roughly.
    pub fn chance(&self, likely: &impl Fn(u32) -> f32) -> f32 {
        let each: f32 = self.of.iter().map(|&rule| likely(rule)).sum();
        (each / f32::from(self.hits)).powi(i32::from(self.hits).min(HITS_RECKONED_MAX)).min(1.0)
    }

    /// Takes a sum into account, term by term; nothing if a term can be anything.
    fn add(&mut self, sum: &Expression, likely: &impl Fn(u32) -> f32) -> Option<()> {
        match sum {
            Expression::Binary(Operator::Plus, left, right) => {
                self.add(left, likely)?;
                self.add(right, likely)?;
            }
            Expression::Rule(rule) => self.of.push(*rule as u32),
            // What is true counts as one.
            Expression::All(_) | Expression::Any(_) | Expression::Not(_) => match rarest(of(sum, likely), likely) {
                Some(need) => self.of.extend(need.of),
                None => self.hits = self.hits.saturating_sub(1),
            },
            Expression::Number(_) | Expression::Binary(..) => return None,
        }
        Some(())
    }
}

/// Hits of one need whose chances are multiplied.
const HITS_RECKONED_MAX: i32 = 8;
/// Hits that are never reached.
const NEVER: u16 = u16::MAX;

/// What `expression` needs to be true: all of it must be met. `likely` says of a rule how probably it can hit.
pub fn of(expression: &Expression, likely: &impl Fn(u32) -> f32) -> Vec<Need> {
    match expression {
        Expression::Number(0.0) => vec![Need::one(Vec::new())],
        Expression::Number(_) | Expression::Not(_) => Vec::new(),
        Expression::Rule(rule) => vec![Need::one(vec![*rule as u32])],
        Expression::All(all) => all.iter().flat_map(|one| of(one, likely)).collect(),
        Expression::Any(any) => one_of(any.iter(), likely),
        Expression::Binary(operator, left, right) => {
            let number = |side: &Expression| if let Expression::Number(number) = side { Some(*number) } else { None };
            match (operator, number(right)) {
                (Operator::Plus, _) => one_of([&**left, right].into_iter(), likely),
                (Operator::Times, _) => [left, right].into_iter().flat_map(|side| of(side, likely)).collect(),
                (Operator::More, Some(number)) if number >= 0.0 => at_least(number.floor() + 1.0, left, likely),
                (Operator::AtLeast | Operator::Equal, Some(number)) if number > 0.0 => {
                    at_least(number.ceil(), left, likely)
                }
                _ => Vec::new(),
            }
        }
    }
}

/// The need that is least probably met, if there is one.
fn rarest(needs: Vec<Need>, likely: &impl Fn(u32) -> f32) -> Option<Need> {
    needs.into_iter().min_by(|one, other| one.chance(likely).total_cmp(&other.chance(likely)))
}

/// What is needed for one of these to be true.
fn one_of<'e>(any: impl Iterator<Item = &'e Expression>, likely: &impl Fn(u32) -> f32) -> Vec<Need> {
    let each = any.map(|one| rarest(of(one, likely), likely)).collect::<Option<Vec<_>>>();
    each.map(|each| Need::one(each.into_iter().flat_map(|need| need.of).collect())).into_iter().collect()
}

/// What is needed for a sum to be at least `least`, which is more than nothing.
fn at_least(least: f64, sum: &Expression, likely: &impl Fn(u32) -> f32) -> Vec<Need> {
    let mut left = Need { hits: if least < f64::from(NEVER) { least as u16 } else { NEVER }, of: Vec::new() };
    if left.add(sum, likely).is_some() && left.hits > 0 { vec![left] } else { of(sum, likely) }
}

/// The needs of all metas in one row.
#[derive(Default)]
pub struct Needs {
    /// Each meta, after those that it names, with its needs.
    metas: Vec<(u32, Range<u32>)>,
    /// Of each need, the hits and its rules.
    needs: Vec<(u16, Range<u32>)>,
    rules: Vec<u32>,
}

impl Needs {
    /// Adds a meta; those that it names were added before.
    pub fn add(&mut self, meta: u32, mut needs: Vec<Need>, likely: &impl Fn(u32) -> f32) {
        needs.sort_by(|one, other| one.chance(likely).total_cmp(&other.chance(likely)));
        let first = self.needs.len() as u32;
        for need in needs {
            let start = self.rules.len() as u32;
            self.rules.extend(need.of);
            self.needs.push((need.hits, start..self.rules.len() as u32));
        }
        self.metas.push((meta, first..self.needs.len() as u32));
    }

    /// Says of each meta for which messages it can be true, where `may` says for which ones other rules can hit, and `most` how often.
    pub fn sort_out(&self, may: &mut [Messages], most: impl Fn(u32, usize) -> u16) {
        for (meta, needs) in &self.metas {
            let mut can = Messages::MAX;
            for (hits, rules) in &self.needs[places(needs)] {
                let rules = &self.rules[places(rules)];
                can &= rules.iter().fold(0, |any, &rule| any | may[rule as usize]);
                if *hits > 1 {
                    can = messages::those(can, |message| {
                        let rules = rules.iter().filter(|&&rule| may[rule as usize] & messages::one(message) != 0);
                        enough(*hits, rules.map(|&rule| most(rule, message)))
                    });
                }
                if can == 0 {
                    break;
                }
            }
            may[*meta as usize] = can;
        }
    }
}

fn places(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// True if they make so many hits together.
fn enough(hits: u16, mut each: impl Iterator<Item = u16>) -> bool {
    let mut left = hits;
    each.any(|most| {
        left = left.saturating_sub(most);
        left == 0
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::filter::rules::meta::parse;

    const NAMES: [&str; 5] = ["A", "B", "C", "D", "E"];

    fn read(text: &str) -> Expression {
        let rules: HashMap<String, usize> = NAMES.map(str::to_owned).into_iter().zip(0..).collect();
        parse(text, &rules, &mut Vec::new()).unwrap()
    }

    /// The needs of a text in words: hits and the rules that make them.
    fn needs(text: &str) -> Vec<String> {
        let likely = |rule: u32| [0.5, 0.5, 0.01, 0.5, 0.5][rule as usize];
        let names = |of: &[u32]| of.iter().map(|&rule| NAMES[rule as usize]).collect::<String>();
        of(&read(text), &likely).iter().map(|need| format!("{}{}", need.hits, names(&need.of))).collect()
    }

    #[test]
    fn what_metas_need() {
        for (text, needed) in [
            ("A", &["1A"][..]),
            ("(A || B) && C && !D", &["1AB", "1C"]),
            ("!A || B", &[]),
            ("A || 0", &["1A"]),
            ("1 && A", &["1A"]),
            // Of what all must be true, the part that is rare.
            ("(A && C) || B", &["1BC"]),
            ("A + B", &["1AB"]),
            ("A * (B + C)", &["1A", "1BC"]),
            ("A + B + C > 1", &["2ABC"]),
            ("A + B + B >= 2.5", &["3ABB"]),
            ("A + B == 2", &["2AB"]),
            ("A + (B && C) + !D > 2", &["2AC"]),
            ("A + !B > 0", &[]),
            ("A - B > 0", &[]),
            ("A + B < 1", &[]),
            ("A + B > -1", &[]),
            ("(A + B > 1) && E", &["2AB", "1E"]),
        ] {
            assert_eq!(needs(text), needed, "{text}");
        }
    }

    #[test]
    fn metas_sleep_while_a_need_is_not_met() {
        let (mut all, likely) = (Needs::default(), |_: u32| 0.5);
        // The last names the first but one.
        for (meta, text) in [(5, "A && B"), (6, "A + B + C > 3"), (7, "!A"), (8, "A && 0")] {
            all.add(meta, of(&read(text), &likely), &likely);
        }
        all.add(9, of(&Expression::All(vec![Expression::Rule(6), Expression::Rule(0)]), &likely), &likely);
        let awake = |rules: &[u32], most: u16| {
            // The first and the last of all messages; of the others, nothing is known.
            let (mut may, some) = ([0; 10], messages::one(0) | messages::one(messages::MOST - 1));
            rules.iter().for_each(|&rule| may[rule as usize] = some);
            all.sort_out(&mut may, |_, _| most);
            (5..10).filter(|&meta| may[meta] & some == some).collect::<Vec<_>>()
        };
        assert_eq!(awake(&[], 1), [7]);
        assert_eq!(awake(&[0], 3), [7]);
        assert_eq!(awake(&[0, 1], 1), [5, 7]);
        assert_eq!(awake(&[0, 1], 2), [5, 6, 7, 9]);
    }

    #[test]
    fn what_can_be_true_has_its_needs_met() {
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let texts = [
            "A && !B || C + D > 1",
            "(A + B + (C || D) >= 2) && !(E > 1)",
            "A * B + C * D == 2 || E",
            "!(A || B) + C + D + E > 2",
            "(A > 1) && (B + B + C > 3)",
        ];
        for text in texts {
            let (expression, mut true_ones) = (read(text), 0);
            let (mut all, mut formulas) = (Needs::default(), super::super::formula::Formulas::default());
            all.add(5, of(&expression, &|_| 0.5), &|_| 0.5);
            let start = formulas.add(&expression);
            for _ in 0..2_000 {
                let hits = Hits(std::array::from_fn(|_| next(3).saturating_sub(next(2)) as u16));
                let may = |rule: usize| messages::all_if(hits.0.get(rule).is_some_and(|&hits| hits > 0));
                let mut may = [0, 1, 2, 3, 4, 5].map(may);
                all.sort_out(&mut may, |rule, _| hits.0[rule as usize]);
                let holds = formulas.hold(start, messages::one(7), &mut Hits(hits.0)) != 0;
                assert!(may[5] == Messages::MAX || !holds, "{text} with {:?}", hits.0);
                true_ones += usize::from(holds);
            }
            assert!(true_ones > 50, "{text} was true only {true_ones} times");
        }
    }

    struct Hits([u16; 5]);

    impl super::super::formula::Values for Hits {
        fn value(&mut self, rule: usize, _: usize) -> f64 {
            f64::from(self.0[rule])
        }

        fn bounds(&mut self, rule: usize, message: usize) -> (f64, f64) {
            (self.value(rule, message), self.value(rule, message))
        }
    }
}
