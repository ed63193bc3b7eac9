//! The instructions of a backtracking pattern. Pure.
//!
//! A run of one kind of byte is one instruction, and gives back only to places where what follows can begin; a choice looks
//! the next byte up and tries the branches that can begin with it. So most of what backtracking would try is never tried.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::node::{Assertion, Node};
use crate::filter::rules::shape::Bytes;

/// An instruction. Numbers of slots are places in the run's memory, two for each group, then those of counters and marks.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Decides on another turn: it follows behind an [`Op::Turn`], `exit` is behind all of it. With `first` a set, it begins with
    /// one of its bytes; otherwise it can match nothing.
    Again { slot: u32, least: u32, most: u32, greedy: bool, first: u32, exit: u32 },
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
    /// Begins to count turns; where none can begin, goes on at `exit` or, if there must be one, fails.
    Enter { slot: u32, first: u32, must: bool, exit: u32 },
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
    /// What stands at `start` may match once more.
    Repeat { first: u32, greedy: bool, start: u32 },
    /// One byte of a set.
    Set(u32),
    /// Bytes of a set; `follow` is the set of what can come next, or [`ANYTHING`].
    Span { set: u32, least: u32, most: u32, greedy: bool, follow: u32 },
    /// The same, where nothing of the set can come next: it ends where the bytes do.
    SpanAll { set: u32, least: u32, most: u32, follow: u32 },
    /// Counts a turn.
    Turn(u32),
}

/// The number of no set: anything may follow, even nothing.
pub const ANYTHING: u32 = u32::MAX;

/// A set of bytes.
pub struct Table {
    has: [bool; 256],
    /// How a member is found.
    member: Seek,
    /// How one is found that is none.
    other: Seek,
}

/// What is sought in a text.
#[derive(Clone, Copy)]
enum Seek {
    /// One of these.
    One(u8),
    Two(u8, u8),
    Three(u8, u8, u8),
    /// Many bytes, each of which is looked up.
    Many,
}

/// Sets that are shared by patterns: what many of them look up stays in the first cache.
#[derive(Default)]
pub struct Known(HashMap<[bool; 256], Arc<Table>, FixedState>);

/// Bytes that are looked up before a quick search for one of a few is worth its begin.
const LOOKED_UP: usize = 8;

impl Seek {
    fn of(mut bytes: impl Iterator<Item = u8>) -> Self {
        match [bytes.next(), bytes.next(), bytes.next(), bytes.next()] {
            [Some(one), None, ..] => Seek::One(one),
            [Some(one), Some(two), None, _] => Seek::Two(one, two),
            [Some(one), Some(two), Some(three), None] => Seek::Three(one, two, three),
            _ => Seek::Many,
        }
    }

    fn first(self, text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let (head, tail) = text.split_at(text.len().min(LOOKED_UP));
        let found = head.iter().position(|&byte| wanted(byte));
        if found.is_some() || tail.is_empty() {
            return found;
        }
        let found = match self {
            Seek::One(one) => memchr::memchr(one, tail),
            Seek::Two(one, two) => memchr::memchr2(one, two, tail),
            Seek::Three(one, two, three) => memchr::memchr3(one, two, three, tail),
            Seek::Many => tail.iter().position(|&byte| wanted(byte)),
        };
        found.map(|at| LOOKED_UP + at)
    }

    fn last(self, text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let (head, tail) = text.split_at(text.len().saturating_sub(LOOKED_UP));
        if let Some(at) = tail.iter().rposition(|&byte| wanted(byte)) {
            return Some(head.len() + at);
        }
        match self {
            Seek::One(one) => memchr::memrchr(one, head),
            Seek::Two(one, two) => memchr::memrchr2(one, two, head),
            Seek::Three(one, two, three) => memchr::memrchr3(one, two, three, head),
            Seek::Many => head.iter().rposition(|&byte| wanted(byte)),
        }
    }
}

impl Table {
    fn new(set: &Bytes) -> Self {
        let has = std::array::from_fn(|byte| set.has(byte as u8));
        let member = Seek::of((0..=255).filter(|&byte| set.has(byte)));
        let other = Seek::of((0..=255).filter(|&byte| !set.has(byte)));
        Table { has, member, other }
    }

    /// True if the byte is in the set.
    #[inline]
    pub fn has(&self, byte: u8) -> bool {
        self.has[usize::from(byte)]
    }

    /// Bytes of the set that `text` begins with.
    #[inline]
    pub fn span(&self, text: &[u8]) -> usize {
        self.other.first(text, |byte| !self.has(byte)).unwrap_or(text.len())
    }

    /// The place of the first byte of the set.
    pub fn first(&self, text: &[u8]) -> Option<usize> {
        self.member.first(text, |byte| self.has(byte))
    }

    /// The place of the last byte of the set.
    pub fn last(&self, text: &[u8]) -> Option<usize> {
        self.member.last(text, |byte| self.has(byte))
    }
}

/// Branches by the byte that they can begin with.
pub struct Choice {
    /// For each byte, which of the places behind `first` in [`Program::starts`] says where its list begins.
    kinds: [u8; 256],
    first: u32,
    /// Where the list for the end of the text begins.
    end: u32,
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
    /// All sets; patterns share those that are the same.
    pub tables: Vec<Arc<Table>>,
    sets: Vec<Bytes>,
    /// Whether something asks what a group matched.
    wanted: Vec<bool>,
    /// All choices.
    choices: Vec<Choice>,
    starts: Vec<u32>,
    /// Their lists: instructions to go to, in their order; each ends with [`NO_BRANCH`].
    pub lists: Vec<u32>,
    /// Places of memory.
    pub slots: u32,
}

/// Instructions of one pattern; the largest of those in use has some thousands.
const OPS_MAX: usize = 200_000;

/// Compiles a tree with so many groups.
/// # Errors
/// If it is too large, or looks behind for something without a certain length.
pub fn compile(node: &Node, groups: usize) -> Result<Program, String> {
    let mut wanted = vec![false; groups];
    node.each_back(&mut |group| wanted.iter_mut().skip(group).take(1).for_each(|wanted| *wanted = true));
    let slots = if wanted.contains(&true) { 2 * groups as u32 } else { 0 };
    let mut program = Program { slots, wanted, ..Program::default() };
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
            self.tables.push(Arc::new(Table::new(&set)));
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
        if let Some(set) = byte_of(node) {
            let set = self.set(set);
            self.ops.push(Op::Set(set));
            return Ok(());
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
            Node::Group(number, inner) if !self.wanted[*number] => self.node(inner)?,
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
            Node::Set(_) => unreachable!("a set is one byte"),
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
        let (at, endless) = (self.here(), most == u32::MAX);
        if let Some(set) = byte_of(inner) {
            let apart = follow != ANYTHING && !self.sets[follow as usize].meets(&set);
            let set = self.set(set);
            self.ops.push(match apart {
                true => Op::SpanAll { set, least, most, follow },
                false => Op::Span { set, least, most, greedy, follow },
            });
            return Ok(());
        }
        let mut first = Bytes::default();
        let idle = inner.first(&mut first);
        let first = if idle { ANYTHING } else { self.set(first) };
        if (least, most) == (0, 1) || least == 0 && endless && !idle {
            self.ops.push(Op::Matched);
            self.node(inner)?;
            if endless {
                self.ops.push(Op::Jump(at));
            }
            self.ops[at as usize] = Op::Optional { first, greedy, exit: self.here() };
        } else if least == 1 && endless && !idle {
            self.node(inner)?;
            self.ops.push(Op::Repeat { first, greedy, start: at });
        } else {
            let slot = self.slot();
            self.ops.extend([Op::Matched, Op::Matched, Op::Turn(slot)]);
            self.node(inner)?;
            self.ops.push(Op::Jump(at + 1));
            self.ops[at as usize] = Op::Enter { slot, first, must: least > 0, exit: self.here() };
            self.ops[at as usize + 1] = Op::Again { slot, least, most, greedy, first, exit: self.here() };
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
        self.choices.push(Choice { kinds: [0; 256], first: 0, end: 0 });
        self.ops.push(Op::Alternatives(choice as u32));
        let (mut starts, mut jumps) = (Vec::new(), Vec::new());
        for branch in branches {
            starts.push(write(self, branch)?);
            jumps.push(self.ops.len());
            self.ops.push(Op::Matched);
        }
        let end = self.here();
        jumps.into_iter().for_each(|jump| self.ops[jump] = Op::Jump(end));
        self.choices[choice] = self.choice(&starts);
        Ok(())
    }

    /// Branches by where they begin, what they can begin with, and whether they can be empty.
    fn choice(&mut self, branches: &[(u32, Bytes, bool)]) -> Choice {
        let first = self.starts.len() as u32;
        let mut known: HashMap<Vec<u32>, u8, FixedState> = HashMap::default();
        let list = |fits: &dyn Fn(&Bytes) -> bool| {
            let fits = |(_, first, empty): &&(u32, Bytes, bool)| *empty || fits(first);
            let mut list: Vec<u32> = branches.iter().filter(fits).map(|(start, ..)| *start).collect();
            list.push(NO_BRANCH);
            list
        };
        let kinds = std::array::from_fn(|byte| {
            let kinds = known.len() as u8;
            *known.entry(list(&|first| first.has(byte as u8))).or_insert_with_key(|list| {
                self.starts.push(self.lists.len() as u32);
                self.lists.extend(list);
                kinds
            })
        });
        let end = self.lists.len() as u32;
        self.lists.extend(list(&|_| false));
        Choice { kinds, first, end }
    }

    /// Where the list of branches begins that can begin with this byte, or at the end of the text.
    #[inline]
    pub fn branches(&self, choice: u32, byte: Option<&u8>) -> u32 {
        let choice = &self.choices[choice as usize];
        match byte {
            Some(&byte) => self.starts[choice.first as usize + usize::from(choice.kinds[usize::from(byte)])],
            None => choice.end,
        }
    }

    /// Takes the sets that others have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        for table in &mut self.tables {
            *table = known.0.entry(table.has).or_insert_with(|| Arc::clone(table)).clone();
        }
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
