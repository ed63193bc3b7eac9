//! The instructions of a backtracking pattern. Pure.
//!
//! A run of one kind of byte is one instruction, and gives back only to places where what follows can begin; a choice looks
//! the next byte up and tries the branches that can begin with it. So most of what backtracking would try is never tried.

use super::node::{Assertion, Node};
use crate::filter::rules::shape::Bytes;

/// An instruction. Numbers of slots are places in the run's memory, two for each group, then those of counters and marks.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Decides on another turn: `body` follows as [`Op::Turn`], `exit` is behind.
    Again { slot: u32, least: u32, most: u32, greedy: bool, exit: u32 },
    /// Tries the branches that can begin here.
    Alternatives(u32),
    /// A condition.
    Assert(Assertion),
    /// What the group matched.
    Back { group: u32, fold: bool },
    /// Goes back so many bytes.
    Behind(u32),
    /// Gives up what was to be tried since the mark; with `restore`, at the place where it was set.
    Cut { slot: u32, restore: bool },
    /// Begins to count turns.
    Enter(u32),
    /// What must not match did: fails, with all that was to be tried since the mark.
    Fail(u32),
    /// Goes on elsewhere.
    Jump(u32),
    /// These bytes.
    Literal { start: u32, length: u32, fold: bool },
    /// Marks how much there is to be tried, and the place.
    Mark(u32),
    /// The end.
    Matched,
    /// What follows up to [`Op::Fail`] must not match; goes on behind it otherwise.
    Not { slot: u32, after: u32 },
    /// What follows may be left out.
    Optional { first: u32, greedy: bool, exit: u32 },
    /// Remembers the place.
    Save(u32),
    /// One byte of a set.
    Set(u32),
    /// Bytes of a set; `follow` is the set of what can come next, or [`ANYTHING`].
    Span { set: u32, least: u32, most: u32, greedy: bool, follow: u32 },
    /// Counts a turn.
    Turn(u32),
}

/// The number of no set: anything may follow, even nothing.
pub const ANYTHING: u32 = u32::MAX;

/// A set of bytes by look-up.
pub type Table = Box<[bool; 256]>;

/// Branches by the byte that they can begin with.
pub struct Choice {
    /// For each byte, and last for the end of the text, where its branches stand in `lists`.
    pub by_byte: Box<[u32; 257]>,
    /// Instructions to go to, in their order; each list ends with [`NO_BRANCH`].
    pub lists: Vec<u32>,
}

/// The end of a list of branches.
pub const NO_BRANCH: u32 = u32::MAX;

/// See the module.
#[derive(Default)]
pub struct Program {
    /// From the first to [`Op::Matched`].
    pub ops: Vec<Op>,
    /// All literals.
    pub bytes: Vec<u8>,
    /// All sets.
    pub tables: Vec<Table>,
    sets: Vec<Bytes>,
    /// All choices.
    pub choices: Vec<Choice>,
    /// Places of memory.
    pub slots: u32,
}

/// Instructions of one pattern; the largest of those in use has some thousands.
const OPS_MAX: usize = 200_000;

/// Compiles a tree with so many groups.
/// # Errors
/// If it is too large, or looks behind for something without a certain length.
pub fn compile(node: &Node, groups: usize) -> Result<Program, String> {
    let mut program = Program { slots: 2 * groups as u32, ..Program::default() };
    program.node(node)?;
    program.ops.push(Op::Matched);
    program.sets = Vec::new();
    Ok(program)
}

impl Program {
    fn here(&self) -> u32 {
        self.ops.len() as u32
    }

    fn slot(&mut self) -> u32 {
        self.slots += 2;
        self.slots - 2
    }

    fn set(&mut self, set: Bytes) -> u32 {
        let known = self.sets.iter().position(|known| *known == set);
        let place = known.unwrap_or_else(|| {
            self.sets.push(set);
            self.tables.push(Box::new(std::array::from_fn(|byte| set.has(byte as u8))));
            self.sets.len() - 1
        });
        place as u32
    }

    /// The set of what these can begin with, or [`ANYTHING`].
    fn first<'n>(&mut self, mut parts: impl Iterator<Item = &'n Node>) -> u32 {
        let mut first = Bytes::default();
        if parts.all(|part| part.first(&mut first)) { ANYTHING } else { self.set(first) }
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        if self.ops.len() > OPS_MAX {
            return Err("the pattern is too large".to_owned());
        }
        match node {
            Node::Alternatives(branches) => self.alternatives(branches)?,
            Node::Around { ahead, negated, inner } => self.around(*ahead, *negated, inner)?,
            Node::Assert(assertion) => self.ops.push(Op::Assert(*assertion)),
            Node::Atomic(inner) => {
                let slot = self.slot();
                self.ops.push(Op::Mark(slot));
                self.node(inner)?;
                self.ops.push(Op::Cut { slot, restore: false });
            }
            Node::Back { group, fold } => self.ops.push(Op::Back { group: *group as u32, fold: *fold }),
            Node::Group(number, inner) => {
                self.ops.push(Op::Save(2 * *number as u32));
                self.node(inner)?;
                self.ops.push(Op::Save(2 * *number as u32 + 1));
            }
            Node::Literal { bytes, fold } => {
                let (start, length) = (self.bytes.len() as u32, bytes.len() as u32);
                self.bytes.extend(bytes);
                self.ops.push(Op::Literal { start, length, fold: *fold });
            }
            Node::Repeat { inner, least, most, greedy } => self.repeat(inner, *least, *most, *greedy, ANYTHING)?,
            Node::Sequence(parts) => self.sequence(parts)?,
            Node::Set(set) => {
                let set = self.set(*set);
                self.ops.push(Op::Set(set));
            }
        }
        Ok(())
    }

    fn sequence(&mut self, parts: &[Node]) -> Result<(), String> {
        for (place, part) in parts.iter().enumerate() {
            if let Node::Repeat { inner, least, most, greedy } = part {
                let follow = self.first(parts[place + 1..].iter());
                self.repeat(inner, *least, *most, *greedy, follow)?;
            } else {
                self.node(part)?;
            }
        }
        Ok(())
    }

    fn repeat(&mut self, inner: &Node, least: u32, most: u32, greedy: bool, follow: u32) -> Result<(), String> {
        if let Some(set) = byte_of(inner) {
            let set = self.set(set);
            self.ops.push(Op::Span { set, least, most, greedy, follow });
        } else if (least, most) == (0, 1) {
            let (first, at) = (self.first([inner].into_iter()), self.ops.len());
            self.ops.push(Op::Matched);
            self.node(inner)?;
            self.ops[at] = Op::Optional { first, greedy, exit: self.here() };
        } else {
            let slot = self.slot();
            self.ops.push(Op::Enter(slot));
            let again = self.ops.len();
            self.ops.extend([Op::Matched, Op::Turn(slot)]);
            self.node(inner)?;
            self.ops.push(Op::Jump(again as u32));
            self.ops[again] = Op::Again { slot, least, most, greedy, exit: self.here() };
        }
        Ok(())
    }

    fn alternatives(&mut self, branches: &[Node]) -> Result<(), String> {
        self.choose(branches, |program, branch| {
            let mut first = Bytes::default();
            let empty = branch.first(&mut first);
            let start = (program.here(), first, empty);
            program.node(branch).map(|()| start)
        })
    }

    /// Branches in their order, each written by `write`, which tells where it begins, by which bytes, and whether it can be empty.
    fn choose(
        &mut self,
        branches: &[Node],
        mut write: impl FnMut(&mut Self, &Node) -> Result<(u32, Bytes, bool), String>,
    ) -> Result<(), String> {
        let choice = self.choices.len();
        self.choices.push(Choice { by_byte: Box::new([0; 257]), lists: Vec::new() });
        self.ops.push(Op::Alternatives(choice as u32));
        let (mut starts, mut jumps) = (Vec::new(), Vec::new());
        for branch in branches {
            starts.push(write(self, branch)?);
            jumps.push(self.ops.len());
            self.ops.push(Op::Matched);
        }
        let end = self.here();
        jumps.into_iter().for_each(|jump| self.ops[jump] = Op::Jump(end));
        self.choices[choice] = Choice::new(&starts);
        Ok(())
    }

    fn around(&mut self, ahead: bool, negated: bool, inner: &Node) -> Result<(), String> {
        let slot = self.slot();
        let at = self.ops.len();
        self.ops.push(Op::Mark(slot));
        match inner {
            _ if ahead => self.node(inner)?,
            // Each branch has a length of its own.
            Node::Alternatives(branches) => self.choose(branches, |program, branch| {
                let start = (program.here(), Bytes::default(), true);
                program.behind(branch).map(|()| start)
            })?,
            _ => self.behind(inner)?,
        }
        if negated {
            self.ops.push(Op::Fail(slot));
            self.ops[at] = Op::Not { slot, after: self.here() };
        } else {
            self.ops.push(Op::Cut { slot, restore: true });
        }
        Ok(())
    }

    fn behind(&mut self, inner: &Node) -> Result<(), String> {
        let length = inner.length().ok_or("what stands behind has no certain length")?;
        self.ops.push(Op::Behind(length as u32));
        self.node(inner)
    }
}

/// The set of a part that is always one byte.
fn byte_of(node: &Node) -> Option<Bytes> {
    match node {
        Node::Set(set) => Some(*set),
        Node::Literal { bytes, .. } if bytes.len() == 1 => {
            let mut set = Bytes::default();
            node.first(&mut set);
            Some(set)
        }
        Node::Sequence(parts) if parts.len() == 1 => byte_of(&parts[0]),
        _ => None,
    }
}

impl Choice {
    /// Branches by where they begin, what they can begin with, and whether they can be empty.
    fn new(branches: &[(u32, Bytes, bool)]) -> Self {
        let mut choice = Choice { by_byte: Box::new([0; 257]), lists: Vec::new() };
        for place in 0..=256 {
            let fits = |(_, first, empty): &&(u32, Bytes, bool)| *empty || place < 256 && first.has(place as u8);
            let mut list: Vec<u32> = branches.iter().filter(fits).map(|(start, ..)| *start).collect();
            list.push(NO_BRANCH);
            // Neighbours often have the same list.
            let known = choice.lists.windows(list.len()).position(|window| window == list);
            choice.by_byte[place] = known.unwrap_or(choice.lists.len()) as u32;
            if known.is_none() {
                choice.lists.extend(list);
            }
        }
        choice
    }
}
