//! A backtracking engine for what no linear one can do: look-around, back-references, atomic groups. Pure.
//!
//! Perl's order of trying is kept, so what is found is what Perl finds. Each instruction is a step; a run that takes more steps than it
//! was given ends without a match and says so, whatever the pattern and the text are. The run's memory is bounded by its steps.

mod node;
mod program;

use node::Assertion;
use program::{ANYTHING, Op, Program};
pub use program::{Known, Table};

/// A compiled pattern.
pub struct Pattern(Program);

/// What a run needs, kept from run to run.
#[derive(Default)]
pub struct Memory {
    slots: Vec<u32>,
    todo: Vec<Todo>,
    /// Where counted turns went on: the instruction, the turns and the place.
    gone_on: Vec<[u32; 3]>,
}

/// What is tried when the present way fails.
#[derive(Clone, Copy)]
enum Todo {
    /// The other branches of a choice, a bit each.
    Branch { choice: u32, at: u32, left: u64 },
    /// Another instruction.
    Go { op: u32, at: u32 },
    /// A place of memory had another value.
    Slot { slot: u32, value: u32 },
    /// A run of bytes that can end between these places.
    Span { op: u32, least: u32, most: u32 },
}

/// The value of a place of memory that was not set.
const UNSET: u32 = u32::MAX;
/// Places of counted turns that are remembered.
const GONE_ON_MAX: usize = 32;
/// Bytes of a span that are walked in the time of a step.
const SPAN_BYTES_PER_STEP: usize = 16;

/// There were not enough steps.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfSteps;

impl Pattern {
    /// Compiles what [`super::pattern`] wrote.
    /// # Errors
    /// If it holds what this engine does not do.
    pub fn compile(text: &str) -> Result<Self, String> {
        let (node, groups) = node::parse(text)?;
        program::compile(&node, groups).map(Pattern)
    }

    /// Takes the sets that other patterns have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        self.0.share(known);
    }

    /// The set of a pattern that is one byte of it.
    pub fn set(&self) -> Option<&Table> {
        match self.0.ops[..] {
            [Op::Set(set), Op::Matched] => Some(&self.0.tables[set as usize]),
            _ => None,
        }
    }

    /// The end of the match that begins at `at`; `steps` are taken from.
    /// # Errors
    /// If there were not enough of them.
    pub fn match_at(
        &self,
        text: &[u8],
        at: usize,
        memory: &mut Memory,
        steps: &mut usize,
    ) -> Result<Option<usize>, OutOfSteps> {
        let Program { groups, slots, .. } = self.0;
        // Those of counters and marks are written before they are read.
        if memory.slots.len() < slots as usize {
            memory.slots.resize(slots as usize, UNSET);
        }
        memory.slots[..groups as usize].fill(UNSET);
        memory.todo.clear();
        memory.gone_on.clear();
        Run { program: &self.0, text, memory }.run(at as u32, steps)
    }
}

struct Run<'r> {
    program: &'r Program,
    text: &'r [u8],
    memory: &'r mut Memory,
}

/// What an instruction leads to: on at a place, or [`FAILS`].
type Next = (u32, u32);

/// Back to what is left to try.
const FAILS: Next = (u32::MAX, 0);

fn next_if(holds: bool, next: Next) -> Next {
    if holds { next } else { FAILS }
}

impl Run<'_> {
    fn run(&mut self, at: u32, steps: &mut usize) -> Result<Option<usize>, OutOfSteps> {
        let (mut op, mut at) = (0, at);
        loop {
            *steps = steps.checked_sub(1).ok_or(OutOfSteps)?;
            let instruction = &self.program.ops[op as usize];
            let mut next = match *instruction {
                Op::Matched => return Ok(Some(at as usize)),
                Op::Literal { start, length, fold } => {
                    next_if(self.has(start, length, fold, at), (op + 1, at + length))
                }
                Op::Set(set) => next_if(self.fits(set, at), (op + 1, at + 1)),
                Op::Span { set, least, most, .. } => {
                    let end = self.span(set, at, most);
                    *steps = steps.saturating_sub((end - at) as usize / SPAN_BYTES_PER_STEP);
                    if end - at < least { FAILS } else { self.end_span(op, at + least, end, steps) }
                }
                Op::SpanAll { set, least, most, follow } => {
                    let end = self.span(set, at, most);
                    *steps = steps.saturating_sub((end - at) as usize / SPAN_BYTES_PER_STEP);
                    next_if(end - at >= least && (follow == ANYTHING || self.fits(follow, end)), (op + 1, end))
                }
                Op::Alternatives(choice) => {
                    let left = self.program.choices[choice as usize].candidates(self.text, at as usize);
                    self.branch(choice, left, at, steps)
                }
                Op::Enter { slot, first, must, skip, exit } => {
                    if first == ANYTHING || self.fits(first, at) {
                        self.put(slot, 0);
                        (op + skip, at)
                    } else {
                        next_if(!must, (exit, at))
                    }
                }
                Op::Turn { slot, idle } => {
                    self.put(slot, self.memory.slots[slot as usize] + 1);
                    if idle {
                        self.put(slot + 1, at);
                    }
                    (op + 1, at)
                }
                Op::Again { .. } => self.again(op, at),
                Op::Jump(target) => (target, at),
                Op::Assert(assertion) => next_if(assertion.holds(self.text, at as usize), (op + 1, at)),
                _ => self.seldom(op, at),
            };
            if next == FAILS {
                match self.back(steps)? {
                    None => return Ok(None),
                    Some(found) => next = found,
                }
            }
            (op, at) = next;
        }
    }

    /// Goes on one way, and leaves the other to be tried.
    fn divide(&mut self, greedy: bool, more: u32, exit: u32, at: u32) -> Next {
        let (now, then) = if greedy { (more, exit) } else { (exit, more) };
        self.memory.todo.push(Todo::Go { op: then, at });
        (now, at)
    }

    #[inline]
    fn fits(&self, set: u32, at: u32) -> bool {
        self.text.get(at as usize).is_some_and(|&byte| self.program.tables[set as usize].has(byte))
    }

    /// What occurs less often than the others.
    #[inline(never)]
    fn seldom(&mut self, op: u32, at: u32) -> Next {
        match self.program.ops[op as usize] {
            Op::Save(slot) => {
                self.put(slot, at);
                (op + 1, at)
            }
            Op::Back { group, fold } => match self.again_group(group as usize, fold, at as usize) {
                Some(end) => (op + 1, end as u32),
                None => FAILS,
            },
            Op::Behind(length) => at.checked_sub(length).map_or(FAILS, |at| (op + 1, at)),
            Op::Mark(slot) => {
                self.mark(slot, at);
                (op + 1, at)
            }
            Op::Cut { slot, restore } => {
                self.cut(self.memory.slots[slot as usize] as usize);
                let at = if restore { self.memory.slots[slot as usize + 1] } else { at };
                (op + 1, at)
            }
            Op::Not { slot, after } => {
                self.mark(slot, at);
                self.memory.todo.push(Todo::Go { op: after, at });
                (op + 1, at)
            }
            Op::Fail(slot) => {
                let height = self.memory.slots[slot as usize] as usize;
                self.drop_to(height);
                FAILS
            }
            _ => FAILS,
        }
    }

    #[inline]
    fn has(&self, start: u32, length: u32, fold: bool, at: u32) -> bool {
        let literal = &self.program.bytes[start as usize..(start + length) as usize];
        let Some(piece) = self.text.get(at as usize..at as usize + literal.len()) else { return false };
        if fold {
            (0..literal.len()).all(|place| piece[place].to_ascii_lowercase() == literal[place])
        } else {
            piece == literal
        }
    }

    /// The end of bytes of a set.
    #[inline]
    fn span(&self, set: u32, at: u32, most: u32) -> u32 {
        let limit = self.text.len().min(at as usize + most as usize);
        at + self.program.tables[set as usize].span(&self.text[at as usize..limit]) as u32
    }

    /// Ends a span at the first good place in its order, and leaves the others to be tried. Each at which what follows fails is a step.
    fn end_span(&mut self, op: u32, mut least: u32, mut most: u32, steps: &mut usize) -> Next {
        let Op::Span { greedy, follow, ahead, .. } = self.program.ops[op as usize] else { return FAILS };
        let ahead = usize::from(ahead);
        loop {
            let end = self.text.len().min(most as usize + 1 + ahead);
            let Some(places) = self.text.get(least as usize + ahead..end) else { return FAILS };
            let found = if follow != ANYTHING {
                let follow = &self.program.tables[follow as usize];
                if greedy { follow.last(places) } else { follow.first(places) }
            } else if let Some((lower, upper)) = self.head_of_group(op + 1) {
                if greedy { memchr::memrchr2(lower, upper, places) } else { memchr::memchr2(lower, upper, places) }
            } else {
                Some(if greedy { most - least } else { 0 } as usize)
            };
            let Some(place) = found.map(|place| least + place as u32) else { return FAILS };
            let left = if greedy {
                (least < place).then(|| (least, place - 1))
            } else {
                (place < most).then(|| (place + 1, most))
            };
            if self.may_go_on(op + 1, place) {
                if let Some((least, most)) = left {
                    self.memory.todo.push(Todo::Span { op, least, most });
                }
                return (op + 1, place);
            }
            *steps = steps.saturating_sub(1);
            let Some(rest) = left else { return FAILS };
            (least, most) = rest;
        }
    }

    /// False if the instruction fails at this place, as far as that is told at once.
    fn may_go_on(&self, op: u32, at: u32) -> bool {
        match self.program.ops[op as usize] {
            Op::Literal { start, length, fold } => self.has(start, length, fold, at),
            Op::Alternatives(choice) => self.program.choices[choice as usize].candidates(self.text, at as usize) != 0,
            Op::Assert(assertion) => assertion.holds(self.text, at as usize),
            _ => true,
        }
    }

    /// What the text must begin with where the instruction asks for a group once more, in either case.
    fn head_of_group(&self, op: u32) -> Option<(u8, u8)> {
        let Op::Back { group, .. } = self.program.ops[op as usize] else { return None };
        let (start, end) = (self.memory.slots[2 * group as usize], self.memory.slots[2 * group as usize + 1]);
        // One that matched nothing stands everywhere; one that did not match, nowhere.
        let head = self.text.get(start as usize).filter(|_| start < end)?;
        Some((head.to_ascii_lowercase(), head.to_ascii_uppercase()))
    }

    /// The next of these branches, with the others left to be tried. Each that fails at its word is a step.
    fn branch(&mut self, choice: u32, mut left: u64, at: u32, steps: &mut usize) -> Next {
        let targets = &self.program.targets[self.program.choices[choice as usize].targets as usize..];
        while left != 0 {
            let target = targets[left.trailing_zeros() as usize];
            left &= left - 1;
            let next = match self.program.ops[target as usize] {
                // Most branches are words, and most words fail.
                Op::Literal { start, length, fold } => {
                    next_if(self.has(start, length, fold, at), (target + 1, at + length))
                }
                _ => (target, at),
            };
            if next != FAILS {
                if left != 0 {
                    self.memory.todo.push(Todo::Branch { choice, at, left });
                }
                return next;
            }
            *steps = steps.saturating_sub(1);
        }
        FAILS
    }

    /// Decides on another turn, and takes it where that is tried first.
    fn again(&mut self, op: u32, at: u32) -> Next {
        let Op::Again { slot, least, most, greedy, sure, lasting, first, exit } = self.program.ops[op as usize] else {
            return FAILS;
        };
        let turns = self.memory.slots[slot as usize];
        if lasting && turns > 0 {
            // Whoever comes here once more was led back because what follows failed, and it would fail again.
            let here = [op, turns, at];
            if self.memory.gone_on.contains(&here) {
                return FAILS;
            }
            if self.memory.gone_on.len() < GONE_ON_MAX {
                self.memory.gone_on.push(here);
            }
        }
        // A turn of nothing leads nowhere but to the next of the same.
        let idle = first == ANYTHING && turns > 0 && self.memory.slots[slot as usize + 1] == at;
        if turns >= most || idle {
            return (exit, at);
        }
        if first != ANYTHING && !self.fits(first, at) {
            return next_if(turns >= least, (exit, at));
        }
        if turns < least || sure { (op + 1, at) } else { self.divide(greedy, op + 1, exit, at) }
    }

    /// The end of what a group matched, where it stands once more.
    fn again_group(&self, group: usize, fold: bool, at: usize) -> Option<usize> {
        let (start, end) = (self.memory.slots[2 * group], self.memory.slots[2 * group + 1]);
        if start == UNSET || end == UNSET {
            return None;
        }
        let piece = self.text.get(start as usize..end as usize)?;
        let other = self.text.get(at..at + piece.len())?;
        let same = if fold { piece.eq_ignore_ascii_case(other) } else { piece == other };
        same.then_some(at + piece.len())
    }

    /// Changes a place of memory, and takes note of what it held for whoever goes back to what was left before.
    #[inline]
    fn put(&mut self, slot: u32, value: u32) {
        let before = std::mem::replace(&mut self.memory.slots[slot as usize], value);
        let noted = match self.memory.todo.last() {
            None => true,
            Some(Todo::Slot { slot: last, .. }) => *last == slot,
            Some(_) => false,
        };
        if !noted {
            self.memory.todo.push(Todo::Slot { slot, value: before });
        }
    }

    /// What a mark held before is of no use: nothing goes back into what it was for.
    fn mark(&mut self, slot: u32, at: u32) {
        self.memory.slots[slot as usize] = self.memory.todo.len() as u32;
        self.memory.slots[slot as usize + 1] = at;
    }

    /// Forgets what was to be tried above a height, but not what memory held.
    fn cut(&mut self, height: usize) {
        let mut kept = height;
        for place in height..self.memory.todo.len() {
            if matches!(self.memory.todo[place], Todo::Slot { .. }) {
                self.memory.todo[kept] = self.memory.todo[place];
                kept += 1;
            }
        }
        self.memory.todo.truncate(kept);
    }

    /// Takes back everything above a height.
    fn drop_to(&mut self, height: usize) {
        while self.memory.todo.len() > height {
            if let Some(Todo::Slot { slot, value }) = self.memory.todo.pop() {
                self.memory.slots[slot as usize] = value;
            }
        }
    }

    /// Goes back to what is left to try; nothing if there is nothing.
    fn back(&mut self, steps: &mut usize) -> Result<Option<Next>, OutOfSteps> {
        while let Some(todo) = self.memory.todo.pop() {
            *steps = steps.checked_sub(1).ok_or(OutOfSteps)?;
            let next = match todo {
                Todo::Go { op, at } => (op, at),
                Todo::Span { op, least, most } => self.end_span(op, least, most, steps),
                Todo::Branch { choice, at, left } => self.branch(choice, left, at, steps),
                Todo::Slot { slot, value } => {
                    self.memory.slots[slot as usize] = value;
                    FAILS
                }
            };
            if next != FAILS {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }
}

impl Assertion {
    fn holds(self, text: &[u8], at: usize) -> bool {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let before = at.checked_sub(1).map(|before| text[before]);
        let word = || before.as_ref().is_some_and(is_word) != text.get(at).is_some_and(is_word);
        match self {
            Assertion::Start => at == 0,
            Assertion::StartLine => before.is_none_or(|byte| byte == b'\n'),
            Assertion::End => at == text.len(),
            Assertion::EndLine => text.get(at).is_none_or(|&byte| byte == b'\n'),
            Assertion::Word => word(),
            Assertion::NotWord => !word(),
        }
    }
}

#[cfg(test)]
mod tests {
    use fancy_regex::{BytesMode, RegexBuilder, RegexInput};

    use super::*;

    fn first(pattern: &str, text: &[u8]) -> Option<(usize, usize)> {
        let pattern = Pattern::compile(pattern).unwrap();
        let mut memory = Memory::default();
        (0..=text.len()).find_map(|at| Some((at, pattern.match_at(text, at, &mut memory, &mut 100_000).unwrap()?)))
    }

    /// Texts over the letters that the patterns are made of.
    fn texts(mut seed: u64) -> impl Iterator<Item = Vec<u8>> {
        std::iter::repeat_with(move || {
            let mut next = |below: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) % below
            };
            (0..next(40)).map(|_| b"aAbBc1 \n-"[next(9) as usize]).collect()
        })
    }

    #[test]
    fn what_it_finds_another_engine_finds() {
        let patterns = [
            r"(a+)(b|\1)+c?",
            r"(?<!a)b(?=c|-)",
            r"(?i)(?<=ab|c)[a-b]{2,3}?(?!c)",
            r"(?>a|ab)(?:c|-)",
            r"a*+b|(?:a|b)*?c",
            r"\b(?:a|ab|abc)(?:\s|$)",
            r"(?m)^(a?b?)*\1$",
            r"(?s)^(?!.*c).*b.?\z",
            r"(?:(a)|b)*\1",
            r"(?i)(?:a(?:b|c)?|b){2,4}(?-i:A)",
            r"(?:a{0,2}b{1,}?){2}-?",
            r"(?!(?:a|b){2})[a-c](?!\B)",
            r"(?=(a|b)c?)\1+-|1(?<=.1)",
            r"(?:|a|b)+c",
            // Spans that end where their bytes do, or where what follows can begin, near and far.
            r"a+[bc]|[aA]{2,}?-",
            r"[^-]*?-[^\n]*1[^b]*b",
            r"(?s).*?c.*\n",
            // Behind a span, a word, a choice or a condition, which fail at most of its ends.
            r"[^-]*?(?:ab|c1|\n-)|a[^\n]{0,9}(?i:AB)c",
            r"(?ms)^a.*?^b|[^1]+\b-|1[^-]*bc",
            // Behind a span, a rarer byte some places on.
            r"[ab ]*[ab]{2}1[-c]|[^\n1]{1,9}?(?:a|b)c?-",
            r"(?i)[^-]{0,4}[ab][a-c ]1|(?s)(?:.*?a){2}\n-",
            // Turns without a count, and with one that may not begin.
            r"(?:ab|c)+1|(?:b|1a)+?c",
            r"(?:ab|1)*-(?:bb?)*?c",
            r"(?:a[bB]){0,3}c(?:1|-){1,2}b?",
            // What was matched once more, far behind.
            r"(?i)(a|b)[^1]*\1",
            r"(a?)[^c]{1,9}?\1c",
            // Turns that leave nothing to be tried, all of them or all but the last.
            r"(?:[ab]{2,}[\s-]+){2}",
            r"(?i)(?:(?:a|bc)[1-]){2}c",
            r"(?:(?:ab?|[cC]-?)\s){2,3}(?:1|[^1]-)",
            r"(?:(?:b{1,2}-){2}a?)+1|(?:a(?:b|c)+-)*1",
            r"(?:(?:[ab]+-)+1)+\n|(?:b(?:a|\1)){2}(c?)",
            // Turns that come to the same place by several ways.
            r"(?:a?(?:b|ab)?[\s-]{0,2}(?:[-c]|\s){1,3}){3}1|(?:(?:a|ab)b?){2,3}c",
            // What an atom takes does not depend on what follows.
            r"(?>[ab]+)ab|(?=[ab]+(c))\1",
            // Words of one begin, up to the end.
            r"(?i)(?:aba|abb|ab|a b|a[b1]c|ac?b|(?:ba|cb)-|b a?|\nb)+?(?:c|$)",
        ];
        for pattern in patterns {
            let other = RegexBuilder::new(pattern).bytes_mode(BytesMode::Ascii).build().unwrap();
            for text in texts(7).take(2_000) {
                let expected = other.find_input(RegexInput::new(&text[..])).unwrap();
                let expected = expected.map(|found| (found.start(), found.end()));
                assert_eq!(first(pattern, &text), expected, "{pattern} in {:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn steps_are_a_bound() {
        let pattern = Pattern::compile(r"(?:a+)+\1(b)").unwrap();
        let mut steps = 10_000;
        let found = pattern.match_at(&[b'a'; 1_000], 0, &mut Memory::default(), &mut steps);
        assert_eq!((found, steps), (Err(OutOfSteps), 0));
    }

    #[test]
    fn what_it_does_not_do_is_an_error() {
        for pattern in [r"(?(1)a|b)", r"a\Kb", r"(?<n>a)\k<n>", r"(?<=a+)b", "(?#", "(a", "a)", "*a", r"(a)\2", r"a*\1"]
        {
            assert!(Pattern::compile(pattern).is_err(), "{pattern}");
        }
    }
}
