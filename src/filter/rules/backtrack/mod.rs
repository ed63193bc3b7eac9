//! A backtracking engine for what no linear one can do: look-around, back-references, atomic groups. Pure.
//!
//! Perl's order of trying is kept, so what is found is what Perl finds. Each instruction is a step; a run that takes more steps than it
//! was given ends without a match and says so, whatever the pattern and the text are. The run's memory is bounded by its steps.

mod node;
mod program;

use node::Assertion;
use program::{ANYTHING, NO_BRANCH, Op, Program};

/// A compiled pattern.
pub struct Pattern(Program);

/// What a run needs, kept from run to run.
#[derive(Default)]
pub struct Memory {
    slots: Vec<u32>,
    todo: Vec<Todo>,
}

/// What is tried when the present way fails.
#[derive(Clone, Copy)]
enum Todo {
    /// The next branch in a list.
    Branch { op: u32, list: u32, at: u32 },
    /// Another instruction.
    Go { op: u32, at: u32 },
    /// A place of memory had another value.
    Slot { slot: u32, value: u32 },
    /// A run of bytes that can end between these places.
    Span { op: u32, least: u32, most: u32 },
}

/// The value of a place of memory that was not set.
const UNSET: u32 = u32::MAX;
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
        memory.slots.clear();
        memory.slots.resize(self.0.slots as usize, UNSET);
        memory.todo.clear();
        Run { program: &self.0, text, memory }.run(at, steps)
    }
}

struct Run<'r> {
    program: &'r Program,
    text: &'r [u8],
    memory: &'r mut Memory,
}

/// What an instruction leads to: on at a place, or back to what is left to try.
type Next = Option<(usize, usize)>;

impl Run<'_> {
    fn run(&mut self, at: usize, steps: &mut usize) -> Result<Option<usize>, OutOfSteps> {
        let mut next = Some((0, at));
        loop {
            if *steps == 0 {
                return Err(OutOfSteps);
            }
            *steps -= 1;
            let Some((op, at)) = next else {
                match self.back() {
                    None => return Ok(None),
                    Some(found) => next = found,
                }
                continue;
            };
            next = match self.program.ops[op] {
                Op::Matched => return Ok(Some(at)),
                Op::Literal { start, length, fold } => {
                    let literal = &self.program.bytes[start as usize..(start + length) as usize];
                    self.has(literal, at, fold).then_some((op + 1, at + literal.len()))
                }
                Op::Set(set) => {
                    let fits =
                        self.text.get(at).is_some_and(|&byte| self.program.tables[set as usize][usize::from(byte)]);
                    fits.then_some((op + 1, at + 1))
                }
                Op::Span { set, least, most, .. } => {
                    let end = self.span(set, at, most);
                    *steps = steps.saturating_sub((end - at) / SPAN_BYTES_PER_STEP);
                    if end - at < least as usize { None } else { self.end_span(op, at + least as usize, end) }
                }
                Op::Alternatives(choice) => {
                    let choice = &self.program.choices[choice as usize];
                    let place = self.text.get(at).map_or(256, |&byte| usize::from(byte));
                    self.branch(op, choice.by_byte[place], at)
                }
                other => self.seldom(other, op, at),
            };
        }
    }

    /// What occurs less often than the others.
    fn seldom(&mut self, instruction: Op, op: usize, at: usize) -> Next {
        match instruction {
            Op::Assert(assertion) => assertion.holds(self.text, at).then_some((op + 1, at)),
            Op::Jump(target) => Some((target as usize, at)),
            Op::Save(slot) => {
                self.put(slot, at as u32);
                Some((op + 1, at))
            }
            Op::Optional { first, greedy, exit } => self.optional(first, greedy, exit, op, at),
            Op::Enter(slot) => {
                self.put(slot, 0);
                self.put(slot + 1, UNSET);
                Some((op + 1, at))
            }
            Op::Turn(slot) => {
                self.put(slot, self.memory.slots[slot as usize] + 1);
                self.put(slot + 1, at as u32);
                Some((op + 1, at))
            }
            Op::Again { slot, least, most, greedy, exit } => self.again(slot, (least, most), greedy, exit, op, at),
            Op::Back { group, fold } => self.again_group(group as usize, fold, at).map(|end| (op + 1, end)),
            Op::Behind(length) => at.checked_sub(length as usize).map(|at| (op + 1, at)),
            Op::Mark(slot) => {
                self.mark(slot, at);
                Some((op + 1, at))
            }
            Op::Cut { slot, restore } => {
                self.cut(self.memory.slots[slot as usize] as usize);
                let at = if restore { self.memory.slots[slot as usize + 1] as usize } else { at };
                Some((op + 1, at))
            }
            Op::Not { slot, after } => {
                self.mark(slot, at);
                self.memory.todo.push(Todo::Go { op: after, at: at as u32 });
                Some((op + 1, at))
            }
            Op::Fail(slot) => {
                let height = self.memory.slots[slot as usize] as usize;
                self.drop_to(height);
                None
            }
            _ => None,
        }
    }

    fn has(&self, literal: &[u8], at: usize, fold: bool) -> bool {
        let Some(piece) = self.text.get(at..at + literal.len()) else { return false };
        if fold {
            piece.iter().zip(literal).all(|(byte, wanted)| byte.to_ascii_lowercase() == *wanted)
        } else {
            piece == literal
        }
    }

    /// The end of bytes of a set.
    fn span(&self, set: u32, at: usize, most: u32) -> usize {
        let table = &self.program.tables[set as usize];
        let limit = self.text.len().min(at.saturating_add(most as usize));
        let length = self.text[at..limit].iter().position(|&byte| !table[usize::from(byte)]);
        length.map_or(limit, |length| at + length)
    }

    /// Ends a span at the first good place in its order, and leaves the others to be tried.
    fn end_span(&mut self, op: usize, least: usize, most: usize) -> Next {
        let Op::Span { greedy, follow, .. } = self.program.ops[op] else { return None };
        let follows = |at: usize| {
            follow == ANYTHING
                || self.text.get(at).is_some_and(|&byte| self.program.tables[follow as usize][usize::from(byte)])
        };
        let mut places = least..=most;
        let at = if greedy { places.rfind(|&at| follows(at)) } else { places.find(|&at| follows(at)) }?;
        let left = if greedy { (least < at).then(|| (least, at - 1)) } else { (at < most).then(|| (at + 1, most)) };
        if let Some((least, most)) = left {
            self.memory.todo.push(Todo::Span { op: op as u32, least: least as u32, most: most as u32 });
        }
        Some((op + 1, at))
    }

    /// The next branch of a list, with the rest left to be tried.
    fn branch(&mut self, op: usize, list: u32, at: usize) -> Next {
        let Op::Alternatives(choice) = self.program.ops[op] else { return None };
        let lists = &self.program.choices[choice as usize].lists;
        let target = lists[list as usize];
        if target == NO_BRANCH {
            return None;
        }
        if lists[list as usize + 1] != NO_BRANCH {
            self.memory.todo.push(Todo::Branch { op: op as u32, list: list + 1, at: at as u32 });
        }
        Some((target as usize, at))
    }

    fn optional(&mut self, first: u32, greedy: bool, exit: u32, op: usize, at: usize) -> Next {
        let fits = first == ANYTHING
            || self.text.get(at).is_some_and(|&byte| self.program.tables[first as usize][usize::from(byte)]);
        if !fits {
            return Some((exit as usize, at));
        }
        let (now, then) = if greedy { (op as u32 + 1, exit) } else { (exit, op as u32 + 1) };
        self.memory.todo.push(Todo::Go { op: then, at: at as u32 });
        Some((now as usize, at))
    }

    fn again(&mut self, slot: u32, (least, most): (u32, u32), greedy: bool, exit: u32, op: usize, at: usize) -> Next {
        let turns = self.memory.slots[slot as usize];
        // A turn of nothing leads nowhere but to the next of the same.
        let idle = turns > 0 && self.memory.slots[slot as usize + 1] == at as u32;
        if turns >= most || idle {
            return Some((exit as usize, at));
        }
        if turns < least {
            return Some((op + 1, at));
        }
        let (now, then) = if greedy { (op as u32 + 1, exit) } else { (exit, op as u32 + 1) };
        self.memory.todo.push(Todo::Go { op: then, at: at as u32 });
        Some((now as usize, at))
    }

    /// The end of what a group matched, where it stands once more.
    fn again_group(&self, group: usize, fold: bool, at: usize) -> Option<usize> {
        let (start, end) = (*self.memory.slots.get(2 * group)?, *self.memory.slots.get(2 * group + 1)?);
        if start == UNSET || end == UNSET {
            return None;
        }
        let piece = self.text.get(start as usize..end as usize)?;
        let other = self.text.get(at..at + piece.len())?;
        let same = if fold { piece.eq_ignore_ascii_case(other) } else { piece == other };
        same.then_some(at + piece.len())
    }

    fn put(&mut self, slot: u32, value: u32) {
        let before = std::mem::replace(&mut self.memory.slots[slot as usize], value);
        self.memory.todo.push(Todo::Slot { slot, value: before });
    }

    fn mark(&mut self, slot: u32, at: usize) {
        // The old values go below the mark, and stay when it is cut.
        self.put(slot, 0);
        self.put(slot + 1, at as u32);
        self.memory.slots[slot as usize] = self.memory.todo.len() as u32;
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
    fn back(&mut self) -> Option<Next> {
        loop {
            match self.memory.todo.pop()? {
                Todo::Go { op, at } => return Some(Some((op as usize, at as usize))),
                Todo::Span { op, least, most } => {
                    return Some(self.end_span(op as usize, least as usize, most as usize));
                }
                Todo::Branch { op, list, at } => return Some(self.branch(op as usize, list, at as usize)),
                Todo::Slot { slot, value } => self.memory.slots[slot as usize] = value,
            }
        }
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
            (0..next(14)).map(|_| b"aAbBc1 \n-"[next(9) as usize]).collect()
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
        for pattern in [r"(?(1)a|b)", r"a\Kb", r"(?<n>a)\k<n>", r"(?<=a+)b", "(?#", "(a", "a)", "*a"] {
            assert!(Pattern::compile(pattern).is_err(), "{pattern}");
        }
    }
}
