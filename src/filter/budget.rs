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
    /// DNS queries of the identity checks, which count for themselves.
    DnsQueries,
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
    /// Milliseconds of processor time for reading and judging.
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
    /// What the symbol adds to the score.
    pub points: f64,
    /// Why this much.
    pub reason: &'static str,
}

/// Points of a limit that was exceeded: honest mail does not, but it alone does not convict.
const POINTS: f64 = 1.0;
/// Points of a message whose rules were not all worked out: it is marked, whatever they would have said.
const POINTS_UNSEEN: f64 = 5.0;

const MIB: u64 = 1024 * 1024;

/// All limits, in the order of [`Limit`].
pub const LIMITS: [LimitRow; 15] = [
    row(Limit::ArchiveBytes, "LIMIT_ARCHIVE_BYTES", 8 * MIB, "enough to find macros and names, far below a bomb"),
    row(Limit::ArchiveDepth, "LIMIT_ARCHIVE_DEPTH", 3, "nobody honest nests deeper by mail"),
    row(Limit::ArchiveEntries, "LIMIT_ARCHIVE_ENTRIES", 1_000, "a source tree still fits"),
    row(Limit::ArchiveRatio, "LIMIT_ARCHIVE_RATIO", 1_000, "deflate's greatest ratio is 1,032"),
    row(Limit::DnsQueries, "LIMIT_DNS_QUERIES", 128, "ten terms of SPF with ten hosts each, ten keys, a few policies"),
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
    LimitRow {
        points: POINTS_UNSEEN,
        ..row(Limit::TimeMillis, "LIMIT_TIME", 2_000, "the other limits keep it below a tenth of this")
    },
    row(Limit::Urls, "LIMIT_URLS", 500, "newsletters have up to 200"),
];

const fn row(limit: Limit, symbol: &'static str, default: u64, reason: &'static str) -> LimitRow {
    LimitRow { limit, symbol, default, points: POINTS, reason }
}

/// What one message has used. A stage asks with [`Budget::take`] before it does the work.
#[derive(Clone, Debug)]
pub struct Budget {
    left: [u64; LIMITS.len()],
    exceeded: u32,
    timer: Option<Timer>,
}

/// Tells milliseconds since any time that stays the same.
pub type Clock = fn() -> u64;

#[derive(Clone, Copy, Debug)]
struct Timer {
    clock: Clock,
    until: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: std::array::from_fn(|place| LIMITS[place].default), exceeded: 0, timer: None }
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

    /// From now on the time is bounded, which `clock` tells and which ran since `began`. Without it there is no such bound.
    pub fn time(&mut self, clock: Clock, began: u64) {
        self.timer = Some(Timer { clock, until: began.saturating_add(self.left(Limit::TimeMillis)) });
    }

    /// Looks at the clock: true if the time is up, and work that is not begun is to be left undone.
    pub fn is_late(&mut self) -> bool {
        if self.timer.is_some_and(|timer| (timer.clock)() > timer.until) {
            self.exceed(Limit::TimeMillis);
        }
        self.was_late()
    }

    /// True if the time was up at the last look at the clock.
    pub fn was_late(&self) -> bool {
        self.exceeded & (1 << Limit::TimeMillis as u32) != 0
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
    fn time_is_up_once_and_stays_so() {
        fn clock() -> u64 {
            2_051
        }
        let mut budget = Budget::default();
        assert!(!budget.is_late(), "nobody looks at a clock");
        budget.time(clock, 51);
        assert!(!budget.is_late());
        budget.time(clock, 50);
        assert!(!budget.was_late() && budget.is_late() && budget.was_late());
        assert_eq!(budget.exceeded().map(|row| (row.symbol, row.points)).collect::<Vec<_>>(), [("LIMIT_TIME", 5.0)]);
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
