//! The way from the begin of a match to a place in it: how long it is, and over which bytes it leads. Pure.

use regex_syntax::hir::Hir;

use super::shape::Bytes;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// Bytes at most, if that is bounded.
    pub most: Option<usize>,
    /// All bytes that can stand on it, and maybe others.
    pub over: Bytes,
}

impl Way {
    /// To where a match begins.
    pub const NONE: Way = Way { most: Some(0), over: Bytes::NONE };

    /// The same and, behind it, a part of the expression.
    pub fn through(self, part: &Hir) -> Self {
        self.then(&Way { most: part.properties().maximum_len(), over: Bytes::of_matches(part) })
    }

    /// The same and, behind it, another.
    pub fn then(mut self, other: &Way) -> Self {
        self.most = self.most.zip(other.most).map(|(own, other)| own + other);
        self.over.add(&other.over);
        self
    }

    /// This or another.
    pub fn or(mut self, other: &Way) -> Self {
        self.most = self.most.zip(other.most).map(|(own, other)| own.max(other));
        self.over.add(&other.over);
        self
    }
}
