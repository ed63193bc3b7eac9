//! What looking into one message may cost, and what was over it. Pure.
//!
//! Every walk over a stranger's bytes asks here before it goes on. What is over budget is left unseen and named in the
//! verdict by its symbol, so a message can neither crash the filter nor pass for being too large to read.

/// A thing that is bounded per message. The order is that of [`LIMITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes taken out of archives.
    ArchiveBytes,
    /// Archives within archives.
    ArchiveDepth,
    /// Entries of all archives.
    ArchiveEntries,
    /// Unpacked size over packed size of one entry.
    ArchiveRatio,
    /// Bytes of the top header section.
    HeaderBytes,
    /// Fields of the top header section.
    HeaderFields,
    /// Multiparts and messages within each other.
    Nesting,
    /// Faults of the MIME parser.
    ParserFaults,
    /// Leaf parts.
    Parts,
    /// Steps of the backtracking engine.
    RegexSteps,
    /// Bytes of the message that are read at all, and so decoded: no transfer encoding makes more of them.
    ScanBytes,
    /// Bytes of text that rules and classifier see.
    TextBytes,
    /// Milliseconds of reading and rules.
    TimeMillis,
    /// URLs.
    Urls,
}

/// One row of the published table of limits.
pub struct LimitRow {
    /// Which.
    pub limit: Limit,
    /// The symbol of a message that is over it.
    pub symbol: &'static str,
    /// The bound.
    pub default: u64,
    /// Why this much.
    pub reason: &'static str,
}

const MIB: u64 = 1024 * 1024;

/// All limits, in the order of [`Limit`].
pub const LIMITS: [LimitRow; 14] = [
    row(Limit::ArchiveBytes, "LIMIT_ARCHIVE_BYTES", 8 * MIB, "enough to find macros and names, far below a bomb"),
    row(Limit::ArchiveDepth, "LIMIT_ARCHIVE_DEPTH", 3, "nobody honest nests deeper by mail"),
    row(Limit::ArchiveEntries, "LIMIT_ARCHIVE_ENTRIES", 1_000, "a source tree still fits"),
    row(Limit::ArchiveRatio, "LIMIT_ARCHIVE_RATIO", 1_000, "deflate's greatest ratio is 1,032"),
    row(Limit::HeaderBytes, "LIMIT_HEADER_BYTES", 256 * 1024, "Exchange's own bound"),
    row(Limit::HeaderFields, "LIMIT_HEADER_FIELDS", 1_000, "100 Received fields with their signatures fit"),
    row(Limit::Nesting, "LIMIT_NESTING", 64, "Postfix's mime_nesting_limit is 100, Rspamd's 64"),
    row(Limit::ParserFaults, "LIMIT_PARSER_FAULTS", 0, "a message that breaks the MIME parser is read as plain text"),
    row(Limit::Parts, "LIMIT_PARTS", 1_000, "a digest of a busy list fits"),
    row(Limit::RegexSteps, "LIMIT_REGEX_STEPS", 2_000_000, "about 20 ms of backtracking"),
    row(Limit::ScanBytes, "LIMIT_SCAN_BYTES", 8 * MIB, "spam of this size is unknown; time stays below a second"),
    row(
        Limit::TextBytes,
        "LIMIT_TEXT_BYTES",
        256 * 1024,
        "a book's chapter; SpamAssassin skips mail above 500 KiB whole",
    ),
    row(Limit::TimeMillis, "LIMIT_TIME", 2_000, "the other limits keep it below a tenth of this"),
    row(Limit::Urls, "LIMIT_URLS", 500, "newsletters have up to 200"),
];

const fn row(limit: Limit, symbol: &'static str, default: u64, reason: &'static str) -> LimitRow {
    LimitRow { limit, symbol, default, reason }
}

/// What one message has used. A stage asks with [`Budget::take`] before it does the work.
#[derive(Clone, Debug)]
pub struct Budget {
    left: [u64; LIMITS.len()],
    exceeded: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: std::array::from_fn(|place| LIMITS[place].default), exceeded: 0 }
    }
}

impl Budget {
    /// True if `amount` was still there and is now used; false once it is not, and the limit counts as exceeded.
    pub fn take(&mut self, limit: Limit, amount: u64) -> bool {
        let left = &mut self.left[limit as usize];
        if amount > *left {
            self.exceeded |= 1 << limit as u32;
            return false;
        }
        *left -= amount;
        true
    }

    /// The part of `amount` that is still there; using less than asked counts as exceeded.
    pub fn take_up_to(&mut self, limit: Limit, amount: usize) -> usize {
        let granted = (amount as u64).min(self.left[limit as usize]);
        self.left[limit as usize] -= granted;
        if granted < amount as u64 {
            self.exceeded |= 1 << limit as u32;
        }
        granted as usize
    }

    /// What is left of `limit`.
    pub fn left(&self, limit: Limit) -> u64 {
        self.left[limit as usize]
    }

    /// Marks `limit` as exceeded by a check that counts for itself.
    pub fn exceed(&mut self, limit: Limit) {
        self.exceeded |= 1 << limit as u32;
    }

    /// The limits that were exceeded.
    pub fn exceeded(&self) -> impl Iterator<Item = &'static LimitRow> + '_ {
        LIMITS.iter().filter(|row| self.exceeded & (1 << row.limit as u32) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (place, row) in LIMITS.iter().enumerate() {
            assert_eq!(row.limit as usize, place, "{}", row.symbol);
        }
    }

    #[test]
    fn what_is_over_budget_is_refused_and_named() {
        let mut budget = Budget::default();
        assert!(budget.take(Limit::Nesting, 64));
        assert!(!budget.take(Limit::Nesting, 1));
        assert_eq!(budget.take_up_to(Limit::Urls, 501), 500);
        let names: Vec<_> = budget.exceeded().map(|row| row.symbol).collect();
        assert_eq!(names, ["LIMIT_NESTING", "LIMIT_URLS"]);
    }
}
