//! The arithmetic of all metas, laid out in one row, and worked out with as little asked as it takes. Pure.
//!
//! What is true is worked out for all messages that are judged together, and from what is known of the rules: where that decides already,
//! none of them is asked, and what is joined by `&&` or `||` is asked in the order of what it costs. A comparison of a sum asks for one term after the other, until
//! the others can change nothing.

use super::messages::{self, Messages, Sure};
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
    /// The hits of a rule in a message.
    fn value(&mut self, rule: usize, message: usize) -> f64;
    /// What is known of them without effort.
    fn bounds(&mut self, rule: usize, message: usize) -> Bounds;
    /// Those of the messages that a rule hits.
    fn hit(&mut self, rule: usize, of: Messages) -> Messages {
        messages::those(of, |message| self.value(rule, message) != 0.0)
    }
    /// Which of them it hits and which it does not, as far as that is known without effort.
    fn sure(&mut self, rule: usize, of: Messages) -> Sure {
        sure(of, |message| self.bounds(rule, message))
    }
}

/// For which messages a value within these bounds is true, as far as that is certain.
fn sure(of: Messages, mut bounds: impl FnMut(usize) -> Bounds) -> Sure {
    let mut sure = Sure::default();
    for message in messages::each(of) {
        match bounds(message) {
            (least, most) if least == 0.0 && most == 0.0 => sure.no |= messages::one(message),
            (least, most) if least > 0.0 || most < 0.0 => sure.yes |= messages::one(message),
            _ => {}
        }
    }
    sure
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

    /// Those of the messages for which the one at `at` is true.
    pub fn hold(&self, at: u32, of: Messages, rules: &mut impl Values) -> Messages {
        match self.steps[at as usize].what {
            What::Number(number) => of & messages::all_if(self.numbers[number as usize] != 0.0),
            What::Rule(rule) => rules.hit(rule as usize, of),
            What::Not => of & !self.hold(at + 1, of, rules),
            What::All => {
                let possible = of & !self.sure(at, of, rules).no;
                self.operands(at).fold(possible, |left, one| if left == 0 { 0 } else { self.hold(one, left, rules) })
            }
            What::Any => {
                let open = of & !self.sure(at, of, rules).yes;
                let none = self.operands(at).fold(open, |left, one| match left {
                    0 => 0,
                    left => left & !self.hold(one, left, rules),
                });
                of & !none
            }
            What::Sum | What::Binary(_) => messages::those(of, |message| {
                let value = self.value(at, message, rules);
                value != 0.0 && value.is_finite()
            }),
        }
    }

    /// The value of the one at `at` for a message.
    pub fn value(&self, at: u32, message: usize, rules: &mut impl Values) -> f64 {
        match self.steps[at as usize].what {
            What::Number(number) => self.numbers[number as usize],
            What::Rule(rule) => rules.value(rule as usize, message),
            What::All | What::Any | What::Not => truth(self.hold(at, messages::one(message), rules) != 0),
            What::Sum => self.operands(at).map(|one| self.value(one, message, rules)).sum(),
            What::Binary(operator) => {
                let (left, right) = self.sides(at);
                let (mut sum, other) = (self.bounds(left, message, rules), self.bounds(right, message, rules));
                let mut outcome = operator.bounds(sum, other);
                if let What::Sum = self.steps[left as usize].what {
                    let mut terms = self.operands(left);
                    while outcome.0 != outcome.1
                        && let Some(term) = terms.next()
                    {
                        let (least, most) = self.bounds(term, message, rules);
                        if least != most && least.is_finite() && most.is_finite() {
                            let value = self.value(term, message, rules);
                            sum = (sum.0 + value - least, sum.1 + value - most);
                            outcome = operator.bounds(sum, other);
                        }
                    }
                }
                if outcome.0 == outcome.1 {
                    return outcome.0;
                }
                operator.apply(self.value(left, message, rules), self.value(right, message, rules))
            }
        }
    }

    /// What is known of its value for a message without effort.
    fn bounds(&self, at: u32, message: usize, rules: &mut impl Values) -> Bounds {
        match self.steps[at as usize].what {
            What::Number(number) => (self.numbers[number as usize], self.numbers[number as usize]),
            What::Rule(rule) => rules.bounds(rule as usize, message),
            What::All | What::Any | What::Not => match self.sure(at, messages::one(message), rules) {
                Sure { yes: 0, no: 0 } => UNDECIDED,
                Sure { yes: 0, .. } => FALSE,
                Sure { .. } => TRUE,
            },
            What::Sum => self.operands(at).fold((0.0, 0.0), |(least, most), one| {
                let bounds = self.bounds(one, message, rules);
                (least + bounds.0, most + bounds.1)
            }),
            What::Binary(operator) => {
                let (left, right) = self.sides(at);
                operator.bounds(self.bounds(left, message, rules), self.bounds(right, message, rules))
            }
        }
    }

    /// For which of the messages it is true and for which not, as far as that is known without effort.
    pub fn sure(&self, at: u32, of: Messages, rules: &mut impl Values) -> Sure {
        match self.steps[at as usize].what {
            What::Number(number) => {
                let yes = of & messages::all_if(self.numbers[number as usize] != 0.0);
                Sure { yes, no: of & !yes }
            }
            What::Rule(rule) => rules.sure(rule as usize, of),
            What::Not => {
                let Sure { yes, no } = self.sure(at + 1, of, rules);
                Sure { yes: no, no: yes }
            }
            What::All => {
                let mut all = Sure { yes: of, no: 0 };
                for one in self.operands(at) {
                    let one = self.sure(one, of & !all.no, rules);
                    all = Sure { yes: all.yes & one.yes, no: all.no | one.no };
                    if all.no == of {
                        break;
                    }
                }
                all
            }
            What::Any => {
                let mut any = Sure { yes: 0, no: of };
                for one in self.operands(at) {
                    let one = self.sure(one, of & !any.yes, rules);
                    any = Sure { yes: any.yes | one.yes, no: any.no & one.no };
                    if any.yes == of {
                        break;
                    }
                }
                any
            }
            What::Sum | What::Binary(_) => sure(of, |message| self.bounds(at, message, rules)),
        }
    }
}
