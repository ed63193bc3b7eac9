//! Arithmetic over hits of other rules: `meta X (A + B > 1) && !C`, read, and put into the order of what its parts cost. Pure.
//!
//! [`super::formula`] works it out.

use std::collections::HashMap;

/// A compiled expression; rules are known by their number.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// True if all are.
    All(Vec<Expression>),
    /// True if one is.
    Any(Vec<Expression>),
    /// Two operands; not for `&&` and `||`.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// A constant.
    Number(f64),
    /// Negation as truth or as number.
    Not(Box<Expression>),
    /// The hits of a rule.
    Rule(usize),
}

/// Operators, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `<`
    Less,
    /// `>`
    More,
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Divided,
}

/// Tokens with their operator and how strongly it binds; longer tokens first.
const OPERATORS: [(&str, Operator, u8); 12] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::Unequal, 3),
    ("<=", Operator::AtMost, 4),
    (">=", Operator::AtLeast, 4),
    ("<", Operator::Less, 4),
    (">", Operator::More, 4),
    ("+", Operator::Plus, 5),
    ("-", Operator::Minus, 5),
    ("*", Operator::Times, 6),
    ("/", Operator::Divided, 6),
];
/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 64;

/// Reads an expression; names that are no rule are put into `unknown` and count as zero, as in SpamAssassin.
/// # Errors
/// If it is not an expression.
pub fn parse(text: &str, rules: &HashMap<String, usize>, unknown: &mut Vec<String>) -> Result<Expression, String> {
    let mut reader = Reader { rest: text, rules, unknown, depth: 0 };
    let expression = reader.binary(0)?;
    match reader.rest.trim() {
        "" => Ok(expression),
        rest => Err(format!("`{rest}` is not understood")),
    }
}

struct Reader<'t, 'r> {
    rest: &'t str,
    rules: &'r HashMap<String, usize>,
    unknown: &'r mut Vec<String>,
    depth: usize,
}

impl Reader<'_, '_> {
    fn binary(&mut self, binding_min: u8) -> Result<Expression, String> {
        let mut left = self.unary()?;
        loop {
            let rest = self.rest.trim_start();
            let Some(&(token, operator, binding)) = OPERATORS.iter().find(|(token, ..)| rest.starts_with(token)) else {
                return Ok(left);
            };
            if binding <= binding_min {
                return Ok(left);
            }
            self.rest = &rest[token.len()..];
            let right = self.binary(binding)?;
            left = match (operator, left) {
                (Operator::And, Expression::All(mut all)) => {
                    all.push(right);
                    Expression::All(all)
                }
                (Operator::Or, Expression::Any(mut any)) => {
                    any.push(right);
                    Expression::Any(any)
                }
                (Operator::And, left) => Expression::All(vec![left, right]),
                (Operator::Or, left) => Expression::Any(vec![left, right]),
                (operator, left) => Expression::Binary(operator, Box::new(left), Box::new(right)),
            };
        }
    }

    fn unary(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is nested too deeply".to_owned());
        }
        let rest = self.rest.trim_start();
        let expression = if let Some(rest) = rest.strip_prefix('!') {
            self.rest = rest;
            Expression::Not(Box::new(self.unary()?))
        } else if let Some(rest) = rest.strip_prefix('-') {
            self.rest = rest;
            Expression::Binary(Operator::Minus, Box::new(Expression::Number(0.0)), Box::new(self.unary()?))
        } else if let Some(rest) = rest.strip_prefix('(') {
            self.rest = rest;
            let inner = self.binary(0)?;
            self.rest = self.rest.trim_start().strip_prefix(')').ok_or("a parenthesis is not closed")?;
            inner
        } else {
            self.word(rest)?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn word(&mut self, rest: &str) -> Result<Expression, String> {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len());
        let start = self.rest.len() - rest.len();
        let word = &self.rest[start..start + end];
        self.rest = &self.rest[start + end..];
        if word.is_empty() {
            return Err("an operand is missing".to_owned());
        }
        if let Ok(number) = word.parse() {
            return Ok(Expression::Number(number));
        }
        Ok(match self.rules.get(word) {
            Some(&rule) => Expression::Rule(rule),
            None => {
                self.unknown.push(word.to_owned());
                Expression::Number(0.0)
            }
        })
    }
}

/// The least and the most that a value can be.
pub type Bounds = (f64, f64);

/// The value of what is false.
pub const FALSE: Bounds = (0.0, 0.0);
/// The value of what is true.
pub const TRUE: Bounds = (1.0, 1.0);
/// The value of what is either.
pub const UNDECIDED: Bounds = (0.0, 1.0);
const ANYTHING: Bounds = (f64::NEG_INFINITY, f64::INFINITY);

/// Truth as a number.
pub fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

impl Expression {
    /// Puts what costs less in front of what costs more, where the order makes no difference otherwise.
    pub fn order(&mut self, cost: &impl Fn(usize) -> u64) -> u64 {
        match self {
            Expression::Number(_) => 0,
            Expression::Rule(rule) => cost(*rule),
            Expression::Not(inner) => inner.order(cost),
            Expression::All(all) | Expression::Any(all) => {
                all.sort_by_cached_key(|one| one.clone().order(cost));
                all.iter_mut().map(|one| one.order(cost)).sum()
            }
            Expression::Binary(_, left, right) => left.order(cost) + right.order(cost),
        }
    }

    /// Calls `visit` with each rule it names.
    pub fn each_rule(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Expression::Number(_) => {}
            Expression::Rule(rule) => visit(*rule),
            Expression::Not(inner) => inner.each_rule(visit),
            Expression::All(all) | Expression::Any(all) => all.iter().for_each(|one| one.each_rule(visit)),
            Expression::Binary(_, left, right) => {
                left.each_rule(visit);
                right.each_rule(visit);
            }
        }
    }
}

impl Operator {
    /// What it makes of two numbers.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Operator::Or => truth(a != 0.0 || b != 0.0),
            Operator::And => truth(a != 0.0 && b != 0.0),
            Operator::Equal => truth(a == b),
            Operator::Unequal => truth(a != b),
            Operator::AtMost => truth(a <= b),
            Operator::AtLeast => truth(a >= b),
            Operator::Less => truth(a < b),
            Operator::More => truth(a > b),
            Operator::Plus => a + b,
            Operator::Minus => a - b,
            Operator::Times => a * b,
            Operator::Divided if b == 0.0 => 0.0,
            Operator::Divided => a / b,
        }
    }

    /// What it can make of two numbers that are not known.
    pub fn bounds(self, a: Bounds, b: Bounds) -> Bounds {
        if a.0 == a.1 && b.0 == b.1 {
            let value = self.apply(a.0, b.0);
            return (value, value);
        }
        let apart = a.1 < b.0 || a.0 > b.1;
        match self {
            Operator::Plus => (a.0 + b.0, a.1 + b.1),
            Operator::Minus => (a.0 - b.1, a.1 - b.0),
            Operator::Times if a.0 >= 0.0 && b.0 >= 0.0 => (a.0 * b.0, a.1 * b.1),
            Operator::Times | Operator::Divided => ANYTHING,
            Operator::Less if a.1 < b.0 => TRUE,
            Operator::Less if a.0 >= b.1 => FALSE,
            Operator::AtMost if a.1 <= b.0 => TRUE,
            Operator::AtMost if a.0 > b.1 => FALSE,
            Operator::More if a.0 > b.1 => TRUE,
            Operator::More if a.1 <= b.0 => FALSE,
            Operator::AtLeast if a.0 >= b.1 => TRUE,
            Operator::AtLeast if a.1 < b.0 => FALSE,
            Operator::Equal if apart => FALSE,
            Operator::Unequal if apart => TRUE,
            _ => UNDECIDED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::formula::{Formulas, Values};
    use super::super::messages;
    use super::*;

    struct Known;

    impl Values for Known {
        fn value(&mut self, rule: usize, _: usize) -> f64 {
            [1.0, 3.0][rule]
        }

        fn bounds(&mut self, _: usize, _: usize) -> Bounds {
            (0.0, 3.0)
        }
    }

    /// Nobody may ask for the second rule's value.
    struct Guarded;

    impl Values for Guarded {
        fn value(&mut self, rule: usize, _: usize) -> f64 {
            assert_eq!(rule, 0, "the outcome was certain");
            1.0
        }

        fn bounds(&mut self, rule: usize, _: usize) -> Bounds {
            if rule == 0 { (0.0, 0.0) } else { (0.0, 2.0) }
        }
    }

    fn value(text: &str, rules: &HashMap<String, usize>, known: &mut impl Values) -> f64 {
        let mut formulas = Formulas::default();
        let start = formulas.add(&parse(text, rules, &mut Vec::new()).unwrap());
        let value = formulas.value(start, 3, known);
        assert_eq!(formulas.hold(start, messages::one(3), known), messages::one(3) & messages::all_if(value != 0.0));
        value
    }

    /// Each rule hits once or not, and the third may not be asked.
    struct Open;

    impl Values for Open {
        fn value(&mut self, rule: usize, _: usize) -> f64 {
            assert_ne!(rule, 2, "what is left can change nothing");
            1.0
        }

        fn bounds(&mut self, _: usize, _: usize) -> Bounds {
            (0.0, 1.0)
        }
    }

    #[test]
    fn sums_are_added_up_as_far_as_it_takes() {
        let rules: HashMap<String, usize> = [("A".to_owned(), 0), ("B".to_owned(), 1), ("C".to_owned(), 2)].into();
        for (text, outcome) in [("A + B + C > 1", 1.0), ("A + (B + C) < 2", 0.0), ("A - 3 + C >= 0", 0.0)] {
            assert_eq!(value(text, &rules, &mut Open), outcome, "{text}");
        }
    }

    #[test]
    fn what_is_certain_is_not_asked() {
        let rules: HashMap<String, usize> = [("A".to_owned(), 0), ("B".to_owned(), 1)].into();
        let value = |text: &str| value(text, &rules, &mut Guarded);
        assert_eq!(value("B && A"), 0.0);
        assert_eq!(value("A + B > 2"), 0.0);
        assert_eq!(value("C + A + B + 3 > 2"), 1.0);
        assert_eq!(value("B || !A"), 1.0);
        assert_eq!(value("(A + B <= 2) && !(A && B)"), 1.0);
    }

    #[test]
    fn arithmetic_and_truth() {
        let rules: HashMap<String, usize> = [("A".to_owned(), 0), ("B".to_owned(), 1)].into();
        let value = |text: &str| value(text, &rules, &mut Known);
        assert_eq!(value("(A + B > 3) && !C"), 1.0);
        assert_eq!(value("A + B * 2 == 7"), 1.0);
        assert_eq!(value("10 - 4 - 3"), 3.0);
        assert_eq!(value("!A || B / 0"), 0.0);
        let mut unknown = Vec::new();
        assert!(parse("A &&", &rules, &mut unknown).is_err());
        assert!(parse(&"(".repeat(1000), &rules, &mut unknown).is_err());
        parse("NOBODY", &rules, &mut unknown).unwrap();
        assert_eq!(unknown, ["NOBODY"]);
    }
}
