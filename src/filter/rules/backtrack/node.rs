//! A pattern with look-around, back-references, atomic groups or possessive quantifiers, as a tree. Pure.
//!
//! What is read is what [`super::super::pattern`] writes. Names, conditions, `\K` and `\G` are not read here; nothing of
//! what mail rules are made of needs them, and such a pattern is left to another engine.

use regex_syntax::hir::{Class, HirKind};

use crate::filter::rules::linear::parse as parse_expression;
use crate::filter::rules::relax::class_end;
use crate::filter::rules::shape::Bytes;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// One of these, the first that leads to a match.
    Alternatives(Vec<Node>),
    /// What stands around a place.
    Around { ahead: bool, negated: bool, inner: Box<Node> },
    /// A condition on a place.
    Assert(Assertion),
    /// Once matched, it gives nothing back.
    Atomic(Box<Node>),
    /// What a group matched, once more.
    Back { group: usize, fold: bool },
    /// A group that is remembered.
    Group(usize, Box<Node>),
    /// These bytes; in lower case and without regard to case with `fold`.
    Literal { bytes: Vec<u8>, fold: bool },
    /// So many times; `most` is `u32::MAX` without a bound.
    Repeat { inner: Box<Node>, least: u32, most: u32, greedy: bool },
    /// One after the other.
    Sequence(Vec<Node>),
    /// One byte of a set.
    Set(Bytes),
}

/// A condition on a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assertion {
    /// The text begins.
    Start,
    /// A line begins.
    StartLine,
    /// The text ends.
    End,
    /// A line ends.
    EndLine,
    /// A word begins or ends.
    Word,
    /// No word begins or ends.
    NotWord,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_all: bool,
}

/// Groups within each other.
const DEPTH_MAX: usize = 100;

/// Reads a pattern; with the number of its groups, the whole match counted as one.
/// # Errors
/// If it holds what is not read here.
pub fn parse(text: &str) -> Result<(Node, usize), String> {
    let mut reader = Reader { text, at: 0, groups: 1, depth: 0 };
    let node = reader.alternatives(Flags::default())?;
    if reader.at < text.len() {
        return Err("a parenthesis is closed that was not opened".to_owned());
    }
    Ok((node, reader.groups))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    groups: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.rest().starts_with(word);
        self.at += if taken { word.len() } else { 0 };
        taken
    }

    /// Branches up to the end of the group.
    fn alternatives(&mut self, mut flags: Flags) -> Result<Node, String> {
        let mut branches = Vec::new();
        loop {
            branches.push(self.sequence(&mut flags)?);
            if !self.take("|") {
                break;
            }
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Alternatives(branches) })
    }

    fn sequence(&mut self, flags: &mut Flags) -> Result<Node, String> {
        let mut parts = Vec::new();
        while !self.rest().is_empty() && !self.rest().starts_with(['|', ')']) {
            let Some(atom) = self.atom(flags)? else { continue };
            let part = self.quantified(atom)?;
            match (parts.last_mut(), part) {
                (Some(Node::Literal { bytes, fold }), Node::Literal { bytes: more, fold: too }) if *fold == too => {
                    // What is quantified stands alone: the next one is looked at first.
                    bytes.extend(more);
                }
                (_, part) => parts.push(part),
            }
        }
        Ok(Node::Sequence(parts))
    }

    fn quantified(&mut self, atom: Node) -> Result<Node, String> {
        let (least, most) = match self.rest().as_bytes().first() {
            Some(b'*') => (0, u32::MAX),
            Some(b'+') => (1, u32::MAX),
            Some(b'?') => (0, 1),
            Some(b'{') => return self.counted(atom),
            _ => return Ok(atom),
        };
        self.at += 1;
        Ok(self.repeat(atom, least, most))
    }

    fn counted(&mut self, atom: Node) -> Result<Node, String> {
        let end = self.rest().find('}').ok_or("a count has no end")?;
        let inner = &self.rest()[1..end];
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no count"));
        let (least, most) = match inner.split_once(',') {
            None => (number(inner)?, number(inner)?),
            Some((least, "")) => (number(least)?, u32::MAX),
            Some((least, most)) => (number(least)?, number(most)?),
        };
        self.at += end + 1;
        Ok(self.repeat(atom, least, most))
    }

    fn repeat(&mut self, atom: Node, least: u32, most: u32) -> Node {
        let greedy = !self.take("?");
        let repeat = Node::Repeat { inner: Box::new(atom), least, most, greedy };
        if greedy && self.take("+") { Node::Atomic(Box::new(repeat)) } else { repeat }
    }

    fn atom(&mut self, flags: &mut Flags) -> Result<Option<Node>, String> {
        let rest = self.rest();
        let c = rest.chars().next().ok_or("an operand is missing")?;
        match c {
            '(' => return self.group(flags),
            '[' => {
                let end = class_end(rest).ok_or("a class has no end")?;
                let set = set_of(&rest[..end], flags.fold)?;
                self.at += end;
                return Ok(Some(set));
            }
            '\\' => return self.escape(*flags).map(Some),
            '*' | '+' | '?' => return Err("nothing is quantified".to_owned()),
            _ => {}
        }
        self.at += c.len_utf8();
        Ok(Some(match c {
            '.' if flags.dot_all => Node::Set(Bytes::of(|_| true)),
            '.' => Node::Set(Bytes::of(|byte| byte != b'\n')),
            '^' => Node::Assert(if flags.lines { Assertion::StartLine } else { Assertion::Start }),
            '$' => Node::Assert(if flags.lines { Assertion::EndLine } else { Assertion::End }),
            c => literal(c.to_string().as_bytes(), flags.fold),
        }))
    }

    fn escape(&mut self, flags: Flags) -> Result<Node, String> {
        let c = self.rest()[1..].chars().next().ok_or("a backslash ends the pattern")?;
        self.at += 1 + c.len_utf8();
        Ok(match c {
            'b' => Node::Assert(Assertion::Word),
            'B' => Node::Assert(Assertion::NotWord),
            'A' => Node::Assert(Assertion::Start),
            'z' => Node::Assert(Assertion::End),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => set_of(&format!("\\{c}"), flags.fold)?,
            'x' => {
                let digits = self.rest().get(..2).ok_or("a byte has two digits")?;
                let byte = u8::from_str_radix(digits, 16).map_err(|_| format!("`{digits}` is no byte"))?;
                self.at += 2;
                literal(&[byte], flags.fold)
            }
            '1'..='9' => Node::Back { group: c as usize - '0' as usize, fold: flags.fold },
            'a' => literal(&[7], flags.fold),
            'f' => literal(&[12], flags.fold),
            'n' => literal(b"\n", flags.fold),
            'r' => literal(b"\r", flags.fold),
            't' => literal(b"\t", flags.fold),
            c if c.is_ascii_punctuation() => literal(&[c as u8], flags.fold),
            c => return Err(format!("\\{c} is not read")),
        })
    }

    /// A group, or flags for what follows in the group around.
    fn group(&mut self, flags: &mut Flags) -> Result<Option<Node>, String> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("groups are nested too deeply".to_owned());
        }
        let around = |ahead, negated| move |inner| Node::Around { ahead, negated, inner: Box::new(inner) };
        let made: Box<dyn Fn(Node) -> Node> = if self.take("?=") {
            Box::new(around(true, false))
        } else if self.take("?!") {
            Box::new(around(true, true))
        } else if self.take("?<=") {
            Box::new(around(false, false))
        } else if self.take("?<!") {
            Box::new(around(false, true))
        } else if self.take("?>") {
            Box::new(|inner| Node::Atomic(Box::new(inner)))
        } else if self.take("?") {
            return self.flagged(flags);
        } else {
            let group = self.groups;
            self.groups += 1;
            Box::new(move |inner| Node::Group(group, Box::new(inner)))
        };
        let inner = self.closed(*flags)?;
        Ok(Some(made(inner)))
    }

    fn flagged(&mut self, flags: &mut Flags) -> Result<Option<Node>, String> {
        let (mut inner, mut on) = (*flags, true);
        loop {
            let c = self.rest().chars().next().ok_or("a group has no end")?;
            self.at += c.len_utf8();
            match c {
                'i' => inner.fold = on,
                'm' => inner.lines = on,
                's' => inner.dot_all = on,
                '-' => on = false,
                ':' => return self.closed(inner).map(Some),
                ')' => {
                    *flags = inner;
                    self.depth -= 1;
                    return Ok(None);
                }
                c => return Err(format!("a group `(?{c}` is not read")),
            }
        }
    }

    fn closed(&mut self, flags: Flags) -> Result<Node, String> {
        let inner = self.alternatives(flags)?;
        self.depth -= 1;
        if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) }
    }
}

fn literal(bytes: &[u8], fold: bool) -> Node {
    let bytes = if fold { bytes.to_ascii_lowercase() } else { bytes.to_vec() };
    Node::Literal { bytes, fold }
}

/// The set of a class or an escape that stands for one.
fn set_of(text: &str, fold: bool) -> Result<Node, String> {
    let hir = parse_expression(&format!("{}{text}", if fold { "(?i)" } else { "" }))?;
    match hir.kind() {
        HirKind::Class(Class::Bytes(class)) => {
            let within = |byte| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&byte));
            Ok(Node::Set(Bytes::of(within)))
        }
        HirKind::Literal(bytes) if bytes.0.len() == 1 => Ok(Node::Set(Bytes::of(|byte| byte == bytes.0[0]))),
        _ => Err(format!("`{text}` is no set of bytes")),
    }
}

impl Node {
    /// Adds what it can begin with to `first`; true if it can be empty.
    pub fn first(&self, first: &mut Bytes) -> bool {
        match self {
            Node::Alternatives(all) => all.iter().filter(|one| one.first(first)).count() > 0,
            Node::Assert(_) | Node::Around { .. } => true,
            Node::Atomic(inner) | Node::Group(_, inner) => inner.first(first),
            Node::Back { .. } => {
                first.add(&Bytes::of(|_| true));
                true
            }
            Node::Literal { bytes, fold } => {
                let Some(&head) = bytes.first() else { return true };
                first.add(&Bytes::of(|byte| byte == head || *fold && byte.to_ascii_lowercase() == head));
                false
            }
            Node::Repeat { inner, least, .. } => inner.first(first) || *least == 0,
            Node::Sequence(parts) => parts.iter().all(|part| part.first(first)),
            Node::Set(set) => {
                first.add(set);
                false
            }
        }
    }

    /// Adds the bytes that can stand at its first places, up to so many of them in all; true if what follows it begins behind these.
    pub fn places(&self, most: usize, places: &mut Vec<Bytes>) -> bool {
        match self {
            _ if places.len() == most => false,
            Node::Alternatives(all) => {
                let known = places.len();
                let each = all.iter().map(|one| {
                    let mut places = places.clone();
                    one.places(most, &mut places);
                    places
                });
                let both = each.reduce(|mut both, one| {
                    both.truncate(one.len());
                    both.iter_mut().zip(&one).skip(known).for_each(|(both, one)| both.add(one));
                    both
                });
                *places = both.unwrap_or_default();
                false
            }
            Node::Assert(_) | Node::Around { .. } => true,
            Node::Atomic(inner) | Node::Group(_, inner) => inner.places(most, places),
            Node::Back { .. } => false,
            Node::Literal { bytes, fold } => {
                let left = most - places.len();
                places.extend(bytes.iter().take(left).map(|&byte| {
                    let mut set = Bytes::NONE;
                    literal(&[byte], *fold).first(&mut set);
                    set
                }));
                places.len() < most
            }
            Node::Repeat { inner, least, most: turns, .. } => {
                (0..*least).take(most).all(|_| inner.places(most, places)) && least == turns
            }
            Node::Sequence(parts) => parts.iter().all(|part| part.places(most, places)),
            Node::Set(set) => {
                places.push(*set);
                true
            }
        }
    }

    /// Calls `visit` with each group that is asked for once more.
    pub fn each_back(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Node::Back { group, .. } => visit(*group),
            Node::Alternatives(all) | Node::Sequence(all) => all.iter().for_each(|one| one.each_back(visit)),
            Node::Around { inner, .. } | Node::Atomic(inner) | Node::Group(_, inner) | Node::Repeat { inner, .. } => {
                inner.each_back(visit);
            }
            Node::Assert(_) | Node::Literal { .. } | Node::Set(_) => {}
        }
    }

    /// Its length, if that is always the same.
    pub fn length(&self) -> Option<usize> {
        match self {
            Node::Alternatives(all) => {
                let first = all.first()?.length()?;
                all.iter().all(|one| one.length() == Some(first)).then_some(first)
            }
            Node::Assert(_) | Node::Around { .. } => Some(0),
            Node::Atomic(inner) | Node::Group(_, inner) => inner.length(),
            Node::Back { .. } => None,
            Node::Literal { bytes, .. } => Some(bytes.len()),
            Node::Repeat { inner, least, most, .. } if least == most => Some(inner.length()? * *least as usize),
            Node::Repeat { .. } => None,
            Node::Sequence(parts) => parts.iter().map(Node::length).sum(),
            Node::Set(_) => Some(1),
        }
    }
}
