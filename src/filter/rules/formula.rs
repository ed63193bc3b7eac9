//! The arithmetic of all metas, laid out in one row, and worked out with as little asked as it takes. Pure.
//!
//! A value is worked out from what is known of the rules: where their bounds decide already, none of them is asked, and
//! what is joined by `&&` or `||` is asked in the order of what it costs. A comparison of a sum asks for one term after the other, until
//! the others can change nothing.

use super::meta::{Bounds, Expression, FALSE, Operator, TRUE, UNDECIDED, truth};

/// All expressions, one behind the other, each operator in front of its operands.
#[derive(Default)]
pub struct Formulas {
    steps: Vec<Step>,
    numbers: Vec<f64>,
}

/// A piece of an expression.
#[derive(Clone, Copy)]
struct Step {
    what: What,
    /// What is behind it and its operands.
    end: u32,
}

#[derive(Clone, Copy)]
enum What {
    /// True if all are.
    All,
    /// True if one is.
    Any,
    /// Two operands.
    Binary(Operator),
    Not,
    /// A constant by its place.
    Number(u32),
    /// The hits of a rule.
    Rule(u32),
    /// All operands added up.
    Sum,
}

/// What an expression asks of rules.
pub trait Values {
    /// The hits of a rule.
    fn value(&mut self, rule: usize) -> f64;
    /// What is known of them without effort.
    fn bounds(&mut self, rule: usize) -> Bounds;
    /// Whether it hits, if that is known without effort.
    fn certain(&mut self, rule: usize) -> Option<bool> {
        certain(self.bounds(rule))
    }
}

/// Whether a value within these bounds is true, if that is certain.
fn certain((least, most): Bounds) -> Option<bool> {
    match (least, most) {
        _ if least == 0.0 && most == 0.0 => Some(false),
        _ if least > 0.0 || most < 0.0 => Some(true),
        _ => None,
    }
}

impl Formulas {
    /// Adds one; gives its place.
    pub fn add(&mut self, expression: &Expression) -> u32 {
        let start = self.steps.len() as u32;
        let mut step = |what| {
            self.steps.push(Step { what, end: start + 1 });
        };
        match expression {
            Expression::Number(number) => {
                step(What::Number(self.numbers.len() as u32));
                self.numbers.push(*number);
            }
            Expression::Rule(rule) => step(What::Rule(*rule as u32)),
            Expression::Not(inner) => {
                step(What::Not);
                self.add(inner);
            }
            Expression::All(all) => {
                step(What::All);
                for one in all {
                    self.add(one);
                }
            }
            Expression::Any(any) => {
                step(What::Any);
                for one in any {
                    self.add(one);
                }
            }
            Expression::Binary(Operator::Plus, ..) => {
                step(What::Sum);
                self.add_terms(expression);
            }
            Expression::Binary(operator, left, right) => {
                step(What::Binary(*operator));
                self.add(left);
                self.add(right);
            }
        }
        self.steps[start as usize].end = self.steps.len() as u32;
        start
    }

    fn add_terms(&mut self, expression: &Expression) {
        match expression {
            Expression::Binary(Operator::Plus, left, right) => {
                self.add_terms(left);
                self.add_terms(right);
            }
            term => {
                self.add(term);
            }
        }
    }

    /// The places of the operands of what stands at `at`.
    fn operands(&self, at: u32) -> impl Iterator<Item = u32> + '_ {
        let end = self.steps[at as usize].end;
        let next = move |&operand: &u32| Some(self.steps[operand as usize].end).filter(|&next| next < end);
        std::iter::successors(Some(at + 1).filter(|&first| first < end), next)
    }

    /// The two operands of what stands at `at`.
    fn sides(&self, at: u32) -> (u32, u32) {
        (at + 1, self.steps[at as usize + 1].end)
    }

    /// The value of the one at `at`.
    pub fn value(&self, at: u32, rules: &mut impl Values) -> f64 {
        match self.steps[at as usize].what {
            What::Number(number) => self.numbers[number as usize],
            What::Rule(rule) => rules.value(rule as usize),
            What::Not => truth(self.value(at + 1, rules) == 0.0),
            What::All => {
                let fails = self.operands(at).any(|one| self.certain(one, rules) == Some(false));
                truth(!fails && self.operands(at).all(|one| self.value(one, rules) != 0.0))
            }
            What::Any => {
                let holds = self.operands(at).any(|one| self.certain(one, rules) == Some(true));
                truth(holds || self.operands(at).any(|one| self.value(one, rules) != 0.0))
            }
            What::Sum => self.operands(at).map(|one| self.value(one, rules)).sum(),
            What::Binary(operator) => {
                let (left, right) = self.sides(at);
                let (mut sum, other) = (self.bounds(left, rules), self.bounds(right, rules));
                let mut outcome = operator.bounds(sum, other);
                if let What::Sum = self.steps[left as usize].what {
                    let mut terms = self.operands(left);
                    while outcome.0 != outcome.1
                        && let Some(term) = terms.next()
                    {
                        let (least, most) = self.bounds(term, rules);
                        if least != most && least.is_finite() && most.is_finite() {
                            let value = self.value(term, rules);
                            sum = (sum.0 + value - least, sum.1 + value - most);
                            outcome = operator.bounds(sum, other);
                        }
                    }
                }
                if outcome.0 == outcome.1 {
                    return outcome.0;
                }
                operator.apply(self.value(left, rules), self.value(right, rules))
            }
        }
    }

    /// What is known of its value without effort.
    pub fn bounds(&self, at: u32, rules: &mut impl Values) -> Bounds {
        match self.steps[at as usize].what {
            What::Number(number) => (self.numbers[number as usize], self.numbers[number as usize]),
            What::Rule(rule) => rules.bounds(rule as usize),
            What::All | What::Any | What::Not => match self.certain(at, rules) {
                Some(true) => TRUE,
                Some(false) => FALSE,
                None => UNDECIDED,
            },
            What::Sum => self.operands(at).fold((0.0, 0.0), |(least, most), one| {
                let bounds = self.bounds(one, rules);
                (least + bounds.0, most + bounds.1)
            }),
            What::Binary(operator) => {
                let (left, right) = self.sides(at);
                operator.bounds(self.bounds(left, rules), self.bounds(right, rules))
            }
        }
    }

    /// Whether its value is true, if that is known without effort.
    fn certain(&self, at: u32, rules: &mut impl Values) -> Option<bool> {
        match self.steps[at as usize].what {
            What::Number(number) => Some(self.numbers[number as usize] != 0.0),
            What::Rule(rule) => rules.certain(rule as usize),
            What::Not => self.certain(at + 1, rules).map(|value| !value),
            What::All => self.decided(at, rules, false),
            What::Any => self.decided(at, rules, true),
            What::Sum | What::Binary(_) => certain(self.bounds(at, rules)),
        }
    }

    /// The same of what is joined by `||`, where one that is true decides, or by `&&`, where one that is false does.
    fn decided(&self, at: u32, rules: &mut impl Values, by: bool) -> Option<bool> {
        let mut open = false;
        for one in self.operands(at) {
            match self.certain(one, rules) {
                Some(value) if value == by => return Some(by),
                Some(_) => {}
                None => open = true,
            }
        }
        if open { None } else { Some(!by) }
    }
}
