//! The instructions of a backtracking pattern. Pure.
//!
//! A run of one kind of byte is one instruction, and gives back only to places where what follows can begin; a choice looks the next
//! bytes up and tries the branches that can begin with them. So most of what backtracking would try is never tried.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::node::{Assertion, Node};
use crate::filter::rules::shape::Bytes;

/// An instruction. Numbers of slots are places in the run's memory, two for each group, then those of counters and marks.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Decides on another turn: it follows behind an [`Op::Turn`], `exit` is behind all of it. With `first` a set, it begins with
    /// one of its bytes; otherwise it can match nothing. If it is `sure`, nothing else can stand where a turn can begin. Where it is
    /// `lasting`, what follows depends on the place and the turns alone.
    Again { slot: u32, least: u32, most: u32, greedy: bool, sure: bool, lasting: bool, first: u32, exit: u32 },
    /// Tries the branches that can match here.
    Alternatives(u32),
    /// A condition.
    Assert(Assertion),
    /// What the group matched.
    Back { group: u32, fold: bool },
    /// Goes back so many bytes.
    Behind(u32),
    /// Gives up what was to be tried since the mark; with `restore`, at the place where it was set.
    Cut { slot: u32, restore: bool },
    /// Begins to count turns, as many instructions further on as it says; where none can begin, goes on at `exit` or, if there must be
    /// one, fails.
    Enter { slot: u32, first: u32, must: bool, skip: u32, exit: u32 },
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
    /// Remembers the place.
    Save(u32),
    /// One byte of a set.
    Set(u32),
    /// Bytes of a set; `follow` is the set of what can come next, or so many bytes `ahead` of that, or [`ANYTHING`].
    Span { set: u32, least: u32, most: u32, greedy: bool, follow: u32, ahead: u8 },
    /// The same, where nothing of the set can come next, or nothing is given back: it ends where the bytes do.
    SpanAll { set: u32, least: u32, most: u32, follow: u32 },
    /// Counts a turn; if it can be `idle`, its place is noted.
    Turn { slot: u32, idle: bool },
}

/// The number of no set: anything may follow, even nothing.
pub const ANYTHING: u32 = u32::MAX;

/// A set of bytes.
#[derive(Clone)]
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

/// Sets and classes that are shared by patterns: what many of them look up stays in the first cache.
#[derive(Default)]
pub struct Known {
    sets: HashMap<[bool; 256], Arc<Table>, FixedState>,
    classes: HashMap<[u8; 256], Arc<[u8; 256]>, FixedState>,
}

impl Known {
    /// Puts the table of the same set in its place, if there is one.
    pub fn share(&mut self, table: &mut Arc<Table>) {
        *table = self.sets.entry(table.has).or_insert_with(|| Arc::clone(table)).clone();
    }
}

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
    /// The bytes of `set`.
    pub fn new(set: &Bytes) -> Self {
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

    /// How many bytes of the set there are.
    pub fn count(&self, text: &[u8]) -> usize {
        match self.member {
            Seek::One(one) => memchr::memchr_iter(one, text).count(),
            _ => text.iter().filter(|&&byte| self.has(byte)).count(),
        }
    }

    /// The place of the last byte of the set.
    pub fn last(&self, text: &[u8]) -> Option<usize> {
        self.member.last(text, |byte| self.has(byte))
    }
}

/// Branches by the bytes that they can begin with.
pub struct Choice {
    /// For each byte, its class; patterns share those that are the same.
    classes: Arc<[u8; 256]>,
    masks: Masks,
    /// Where the numbers of the branches' instructions begin.
    pub targets: u32,
    /// No two branches can match at one place.
    plain: bool,
}

/// For each class, the branches that can have one of its bytes at each of the first places, a bit each; the last class is the text's end.
enum Masks {
    /// Of up to 16 branches, as nearly all choices have: few lines of the first cache.
    Few(Box<[[u16; TELLING]]>),
    Many(Box<[[u64; TELLING]]>),
}

impl Masks {
    fn new(masks: Vec<[u64; TELLING]>, branches: usize) -> Self {
        if branches > u16::BITS as usize {
            return Masks::Many(masks.into());
        }
        Masks::Few(masks.into_iter().map(|mask| mask.map(|branches| branches as u16)).collect())
    }
}

/// Bytes of a text that tell which branches can match.
const TELLING: usize = 4;
/// Branches of a choice, a bit each.
const BRANCHES_MAX: usize = u64::BITS as usize;

impl Choice {
    /// The branches that can match at `at`, a bit each.
    #[inline]
    pub fn candidates(&self, text: &[u8], at: usize) -> u64 {
        let rest = &text[at..];
        match &self.masks {
            Masks::Few(masks) => self.fitting(masks, rest),
            Masks::Many(masks) => self.fitting(masks, rest),
        }
    }

    #[inline]
    fn fitting<M: Copy + Into<u64>>(&self, masks: &[[M; TELLING]], text: &[u8]) -> u64 {
        if let Some(&[one, two, three, four]) = text.first_chunk::<TELLING>() {
            let mask = |byte: u8, place: usize| masks[usize::from(self.classes[usize::from(byte)])][place].into();
            return mask(one, 0) & mask(two, 1) & mask(three, 2) & mask(four, 3);
        }
        let class = |place| text.get(place).map_or(masks.len() - 1, |&byte| self.classes[usize::from(byte)].into());
        (0..TELLING).fold(u64::MAX, |fitting, place| fitting & masks[class(place)][place].into())
    }
}

/// What can come behind a piece of a pattern.
#[derive(Clone, Default)]
struct Then {
    /// It begins with one of these.
    first: Bytes,
    /// Or there may be anything, even nothing.
    anything: bool,
    /// The bytes of its first places, as far as they are certain.
    places: Vec<Bytes>,
}

/// Places of it that are known.
const PLACES_MAX: usize = 8;
/// Bits that a place further on must say more than the first to be sought instead of it.
const RARER_BITS_MIN: f32 = 1.0;

impl Then {
    const ANYTHING: Then = Then { first: Bytes::NONE, anything: true, places: Vec::new() };

    /// What `node` and, behind it, this can begin with.
    fn before(&self, node: &Node) -> Then {
        let (mut first, mut places) = (Bytes::NONE, Vec::new());
        if node.places(PLACES_MAX, &mut places) {
            let left = PLACES_MAX - places.len();
            places.extend(self.places.iter().take(left));
        }
        let idle = node.first(&mut first);
        if idle {
            first.add(&self.first);
        }
        Then { first, anything: idle && self.anything, places }
    }

    /// This or the other.
    fn or(mut self, other: &Then) -> Then {
        self.first.add(&other.first);
        self.anything |= other.anything;
        self.places.truncate(if self.anything { 0 } else { other.places.len() });
        self.places.iter_mut().zip(&other.places).for_each(|(own, other)| own.add(other));
        self
    }

    /// True if this byte, or the end, can stand at a place.
    fn has(&self, place: usize, byte: Option<u8>) -> bool {
        let set = if place == 0 { Some(&self.first) } else { self.places.get(place) };
        self.anything || set.is_none_or(|set| byte.is_some_and(|byte| set.has(byte)))
    }

    /// The place behind the first whose bytes are so rare that they are sought sooner than those of the first, and its bytes.
    fn rarest(&self) -> Option<(u8, Bytes)> {
        let (ahead, rare) = (0..).zip(&self.places).skip(1).max_by(|(_, a), (_, b)| a.bits().total_cmp(&b.bits()))?;
        (rare.bits() >= self.first.bits() + RARER_BITS_MIN).then_some((ahead, *rare))
    }

    /// True if none of these bytes can come.
    fn is_apart(&self, set: &Bytes) -> bool {
        !self.anything && !self.first.meets(set)
    }
}

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
    pub choices: Vec<Choice>,
    /// The instructions that their branches begin with.
    pub targets: Vec<u32>,
    /// Places of memory.
    pub slots: u32,
    /// How many of them are those of groups.
    pub groups: u32,
    /// How many counted turns, atoms and looks around are being written, within each other.
    within: u32,
}

/// Instructions of one pattern; the largest of those in use has some thousands.
const OPS_MAX: usize = 200_000;
/// Instructions of a turn that is written twice so that all but the last leave nothing to be tried.
const TURN_OPS_MAX: usize = 64;

/// Compiles a tree with so many groups.
/// # Errors
/// If it is too large, asks for a group that it has not, or looks behind for something without a certain length.
pub fn compile(node: &Node, groups: usize) -> Result<Program, String> {
    let (mut wanted, mut unknown) = (vec![false; groups], None);
    node.each_back(&mut |group| match wanted.get_mut(group) {
        Some(wanted) => *wanted = true,
        None => unknown = Some(group),
    });
    if let Some(group) = unknown {
        return Err(format!("\\{group} is the number of no group"));
    }
    let slots = if wanted.contains(&true) { 2 * groups as u32 } else { 0 };
    let mut program = Program { slots, groups: slots, wanted, ..Program::default() };
    program.node(node, &Then::ANYTHING)?;
    program.ops.push(Op::Matched);
    program.shorten_jumps();
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

    /// The number of the set of what can come, or [`ANYTHING`].
    fn follow(&mut self, then: &Then) -> u32 {
        if then.anything || then.first == Bytes::ALL { ANYTHING } else { self.set(then.first) }
    }

    fn node(&mut self, node: &Node, then: &Then) -> Result<(), String> {
        if self.ops.len() > OPS_MAX {
            return Err("the pattern is too large".to_owned());
        }
        if let Some(set) = byte_of(node) {
            let set = self.set(set);
            self.ops.push(Op::Set(set));
            return Ok(());
        }
        match node {
            Node::Alternatives(branches) => self.alternatives(branches, then)?,
            Node::Around { ahead, negated, inner } => self.around(*ahead, *negated, inner)?,
            Node::Assert(assertion) => self.ops.push(Op::Assert(*assertion)),
            Node::Atomic(inner) if let Some((set, least, most)) = run_of(inner) => {
                let set = self.set(set);
                self.ops.push(Op::SpanAll { set, least, most, follow: ANYTHING });
            }
            Node::Atomic(inner) => {
                let slot = self.slot();
                self.ops.push(Op::Mark(slot));
                // What it takes does not depend on what follows.
                self.within(|program| program.node(inner, &Then::ANYTHING))?;
                self.ops.push(Op::Cut { slot, restore: false });
            }
            Node::Back { group, fold } => self.ops.push(Op::Back { group: *group as u32, fold: *fold }),
            Node::Group(number, inner) if !self.wanted[*number] => self.node(inner, then)?,
            Node::Group(number, inner) => {
                self.ops.push(Op::Save(2 * *number as u32));
                self.node(inner, then)?;
                self.ops.push(Op::Save(2 * *number as u32 + 1));
            }
            Node::Literal { bytes, fold } => {
                let (start, length) = (self.bytes.len() as u32, bytes.len() as u32);
                self.bytes.extend(bytes);
                self.ops.push(Op::Literal { start, length, fold: *fold });
            }
            Node::Repeat { inner, least, most, greedy } => self.repeat(inner, *least, *most, *greedy, then)?,
            Node::Sequence(parts) => self.sequence(parts, then)?,
            Node::Set(_) => unreachable!("a set is one byte"),
        }
        Ok(())
    }

    fn sequence(&mut self, parts: &[Node], then: &Then) -> Result<(), String> {
        let mut thens = vec![then.clone()];
        for part in parts.iter().skip(1).rev() {
            thens.push(thens[thens.len() - 1].before(part));
        }
        parts.iter().zip(thens.iter().rev()).try_for_each(|(part, then)| self.node(part, then))
    }

    fn repeat(&mut self, inner: &Node, least: u32, most: u32, greedy: bool, then: &Then) -> Result<(), String> {
        let (at, endless) = (self.here(), most == u32::MAX);
        if let Some(bytes) = byte_of(inner) {
            let set = self.set(bytes);
            let op = if then.is_apart(&bytes) {
                Op::SpanAll { set, least, most, follow: self.follow(then) }
            } else {
                let (ahead, follow) = match then.rarest() {
                    Some((ahead, rare)) => (ahead, self.set(rare)),
                    None => (0, self.follow(then)),
                };
                Op::Span { set, least, most, greedy, follow, ahead }
            };
            self.ops.push(op);
            return Ok(());
        }
        let mut bytes = Bytes::NONE;
        let idle = inner.first(&mut bytes);
        let first = if idle { ANYTHING } else { self.set(bytes) };
        // Where a turn can begin nothing else can: it is taken, and nothing is left to be tried.
        let sure = !idle && then.is_apart(&bytes);
        // A turn is followed by another or by what is behind all of them.
        let mut again = then.before(inner).or(then);
        again.places.truncate(1);
        if (least, most) == (0, 1) || least == 0 && endless && !idle {
            let choice = self.open_choice();
            let turn = self.here();
            self.node(inner, if endless { &again } else { then })?;
            if endless {
                self.ops.push(Op::Jump(at));
            }
            let exit = self.here();
            let behind = if endless { again.before(inner) } else { then.before(inner) };
            self.close_choice(choice, ordered(greedy, [(turn, behind), (exit, then.clone())]));
        } else if least == 1 && endless && !idle {
            self.node(inner, &again)?;
            let choice = self.open_choice();
            let exit = self.here();
            self.close_choice(choice, ordered(greedy, [(at, again.before(inner)), (exit, then.clone())]));
        } else if least == most && least > 1 && !idle && !sure && self.turns_but_last(inner, least, bytes)? {
            self.node(inner, then)?;
        } else {
            self.turns(inner, [least, most], greedy, first, sure, &again)?;
        }
        Ok(())
    }

    fn within(&mut self, write: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.within += 1;
        let written = write(self);
        self.within -= 1;
        written
    }

    /// Counted turns; true if they leave nothing to be tried.
    fn turns(
        &mut self,
        inner: &Node,
        [least, most]: [u32; 2],
        greedy: bool,
        first: u32,
        sure: bool,
        again: &Then,
    ) -> Result<bool, String> {
        let (at, slot) = (self.here(), self.slot());
        self.ops.extend([Op::Matched; 3]);
        self.within(|program| program.node(inner, again))?;
        let plain = (sure || least == most) && self.leaves_nothing(at + 3);
        self.ops.push(Op::Jump(at + 1));
        let (exit, idle) = (self.here(), first == ANYTHING);
        // The first turn is decided on where it is entered, unless it may be left out.
        let skip = if sure || least > 0 && !idle { 2 } else { 1 };
        self.ops[at as usize] = Op::Enter { slot, first, must: least > 0, skip, exit };
        let lasting = !plain && !idle && self.within == 0 && !self.wanted.contains(&true);
        self.ops[at as usize + 1] = Op::Again { slot, least, most, greedy, sure, lasting, first, exit };
        self.ops[at as usize + 2] = Op::Turn { slot, idle };
        Ok(plain)
    }

    /// All turns but the last, if they leave nothing to be tried: each of them is followed by another, whatever is behind the last. True if
    /// they were written.
    fn turns_but_last(&mut self, inner: &Node, turns: u32, bytes: Bytes) -> Result<bool, String> {
        let (ops, slots, literals) = (self.ops.len(), self.slots, self.bytes.len());
        let (choices, targets) = (self.choices.len(), self.targets.len());
        let again = Then { first: bytes, ..Then::default() };
        let first = self.set(bytes);
        let plain = self.turns(inner, [turns - 1; 2], true, first, false, &again)?;
        let written = plain && self.ops.len() - ops <= TURN_OPS_MAX;
        if !written {
            self.ops.truncate(ops);
            self.bytes.truncate(literals);
            self.choices.truncate(choices);
            self.targets.truncate(targets);
            self.slots = slots;
        }
        Ok(written)
    }

    /// True if nothing from here on leaves anything to be tried.
    fn leaves_nothing(&self, from: u32) -> bool {
        self.ops[from as usize..].iter().all(|op| match op {
            Op::Alternatives(choice) => self.choices[*choice as usize].plain,
            Op::Again { least, most, sure, .. } => *sure || least == most,
            Op::Assert(_) | Op::Back { .. } | Op::Enter { .. } | Op::Jump(_) | Op::Literal { .. } => true,
            Op::Save(_) | Op::Set(_) | Op::SpanAll { .. } | Op::Turn { .. } => true,
            _ => false,
        })
    }

    /// Lets no jump lead to another, or to the end.
    fn shorten_jumps(&mut self) {
        // From behind, so that what a jump leads to is short already, unless it leads back.
        for at in (0..self.ops.len()).rev() {
            if let Op::Jump(target) = self.ops[at]
                && let next @ (Op::Jump(_) | Op::Matched) = self.ops[target as usize]
            {
                self.ops[at] = next;
            }
        }
    }

    fn alternatives(&mut self, branches: &[Node], then: &Then) -> Result<(), String> {
        // What is too much for one choice is the last branch of it.
        let most = if branches.len() > BRANCHES_MAX { BRANCHES_MAX - 1 } else { branches.len() };
        let (now, rest) = branches.split_at(most);
        self.choose(now.len() + usize::from(!rest.is_empty()), |program, number| match now.get(number) {
            Some(branch) => program.node(branch, then).map(|()| then.before(branch)),
            None => {
                let all = rest.iter().map(|branch| then.before(branch)).reduce(|all, one| all.or(&one));
                program.alternatives(rest, then).map(|()| all.unwrap_or_default())
            }
        })
    }

    /// Branches in their order, each written by `write`, which tells what it and what is behind it begin with.
    fn choose(
        &mut self,
        branches: usize,
        mut write: impl FnMut(&mut Self, usize) -> Result<Then, String>,
    ) -> Result<(), String> {
        let choice = self.open_choice();
        let (mut ways, mut jumps) = (Vec::new(), Vec::new());
        for branch in 0..branches {
            let start = self.here();
            ways.push((start, write(self, branch)?));
            jumps.push(self.ops.len());
            self.ops.push(Op::Matched);
        }
        let end = self.here();
        jumps.into_iter().for_each(|jump| self.ops[jump] = Op::Jump(end));
        self.close_choice(choice, ways);
        Ok(())
    }

    /// A choice whose branches are not yet known.
    fn open_choice(&mut self) -> usize {
        let (classes, masks, targets) = (Arc::new([0; 256]), Masks::new(Vec::new(), 0), self.targets.len() as u32);
        self.choices.push(Choice { classes, masks, targets, plain: false });
        self.ops.push(Op::Alternatives(self.choices.len() as u32 - 1));
        self.choices.len() - 1
    }

    /// Tells the branches of a choice, in their order: where each begins, and what it and what is behind it begin with.
    fn close_choice(&mut self, choice: usize, ways: Vec<(u32, Then)>) {
        let mut known: HashMap<[u64; TELLING], u8, FixedState> = HashMap::default();
        let mut masks = Vec::new();
        let fitting = |byte: Option<u8>| -> [u64; TELLING] {
            std::array::from_fn(|place| {
                let fits = ways.iter().enumerate().filter(|(_, (_, then))| then.has(place, byte));
                fits.fold(0, |fitting, (number, _)| fitting | 1 << number)
            })
        };
        let classes = Arc::new(std::array::from_fn(|byte| {
            *known.entry(fitting(Some(byte as u8))).or_insert_with_key(|mask| {
                masks.push(*mask);
                masks.len() as u8 - 1
            })
        }));
        masks.push(fitting(None));
        let both = |one: usize, other: usize, place: usize| {
            masks.iter().any(|mask| mask[place] >> one & 1 == 1 && mask[place] >> other & 1 == 1)
        };
        let apart = |one, other| (0..TELLING).any(|place| !both(one, other, place));
        let plain = (0..ways.len()).all(|one| (0..one).all(|other| apart(one, other)));
        let masks = Masks::new(masks, ways.len());
        let targets = self.targets.len() as u32;
        self.targets.extend(ways.into_iter().map(|(start, _)| start));
        self.choices[choice] = Choice { classes, masks, targets, plain };
    }

    /// Takes the sets and classes that others have, too, from them.
    pub fn share(&mut self, known: &mut Known) {
        for table in &mut self.tables {
            known.share(table);
        }
        for choice in &mut self.choices {
            let classes = &mut choice.classes;
            *classes = known.classes.entry(**classes).or_insert_with(|| Arc::clone(classes)).clone();
        }
    }

    fn around(&mut self, ahead: bool, negated: bool, inner: &Node) -> Result<(), String> {
        let slot = self.slot();
        let at = self.ops.len();
        self.ops.push(Op::Mark(slot));
        self.within(|program| match inner {
            _ if ahead => program.node(inner, &Then::ANYTHING),
            // Each branch has a length of its own.
            Node::Alternatives(branches) if branches.len() <= BRANCHES_MAX => program
                .choose(branches.len(), |program, number| program.behind(&branches[number]).map(|()| Then::ANYTHING)),
            _ => program.behind(inner),
        })?;
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
        self.node(inner, &Then::ANYTHING)
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

/// The set of a part that is a greedy run of such bytes, with how many of them there are.
fn run_of(node: &Node) -> Option<(Bytes, u32, u32)> {
    match node {
        Node::Repeat { inner, least, most, greedy: true } => Some((byte_of(inner)?, *least, *most)),
        Node::Sequence(parts) if parts.len() == 1 => run_of(&parts[0]),
        _ => None,
    }
}

/// What is tried first, first.
fn ordered(greedy: bool, [more, exit]: [(u32, Then); 2]) -> Vec<(u32, Then)> {
    if greedy { vec![more, exit] } else { vec![exit, more] }
}
