//! Arithmetic over hits of other rules: `meta X (A + B > 1) && !C`. Pure.

use std::collections::HashMap;

/// A compiled expression; rules are known by their number.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Two operands.
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
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
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

impl Expression {
    /// Its value, given the hits of each rule.
    pub fn value(&self, hits: &dyn Fn(usize) -> f64) -> f64 {
        let truth = |value: bool| f64::from(u8::from(value));
        match self {
            Expression::Number(number) => *number,
            Expression::Rule(rule) => hits(*rule),
            Expression::Not(inner) => truth(inner.value(hits) == 0.0),
            Expression::Binary(operator, left, right) => {
                let a = left.value(hits);
                // What decides already needs no other side.
                match operator {
                    Operator::Or if a != 0.0 => return 1.0,
                    Operator::And if a == 0.0 => return 0.0,
                    _ => {}
                }
                let b = right.value(hits);
                match operator {
                    Operator::Or | Operator::And => truth(b != 0.0),
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
        }
    }

    /// Calls `visit` with each rule it names.
    pub fn each_rule(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Expression::Number(_) => {}
            Expression::Rule(rule) => visit(*rule),
            Expression::Not(inner) => inner.each_rule(visit),
            Expression::Binary(_, left, right) => {
                left.each_rule(visit);
                right.each_rule(visit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_and_truth() {
        let rules: HashMap<String, usize> = [("A".to_owned(), 0), ("B".to_owned(), 1)].into();
        let value = |text: &str| parse(text, &rules, &mut Vec::new()).unwrap().value(&|rule| [1.0, 3.0][rule]);
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
