//! Summaries of reports that others sent us, the newest of them. Pure.
//!
//! A report that comes again (same reporter and id) replaces its first copy. Reports and rows are bounded; the oldest leave.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::base::report::Summary;

/// Reports that are kept.
const REPORTS_MAX: usize = 5_000;
/// Rows of one report that are kept; the others are summed up by [`Summary::shorten`].
pub const ROWS_KEPT_MAX: usize = 500;
/// Rows of all reports together.
const ROWS_TOTAL_MAX: usize = 200_000;

/// One report that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// When, in seconds since 1970.
    pub at: u64,
    /// DMARC's word for the message that brought it; empty if it was not asked.
    pub dmarc: String,
    /// What it says.
    pub summary: Summary,
}

/// All that is kept.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    reports: VecDeque<Received>,
    rows: usize,
}

impl Shelf {
    /// Puts one there.
    pub fn put(&mut self, mut report: Received) {
        report.summary.shorten(ROWS_KEPT_MAX);
        let same = |other: &Received| {
            let (a, b) = (&other.summary, &report.summary);
            (&a.kind, &a.organization, &a.id, &a.domain) == (&b.kind, &b.organization, &b.id, &b.domain)
                && !b.id.is_empty()
        };
        if let Some(place) = self.reports.iter().position(same) {
            self.rows -= self.reports.remove(place).map_or(0, |old| old.summary.rows.len());
        }
        self.rows += report.summary.rows.len();
        self.reports.push_back(report);
        while self.reports.len() > REPORTS_MAX || self.rows > ROWS_TOTAL_MAX {
            let Some(oldest) = self.reports.pop_front() else { break };
            self.rows -= oldest.summary.rows.len();
        }
    }

    /// Those about `domain` or below it, that came since `since`; oldest first.
    pub fn list(&self, domain: Option<&str>, since: u64) -> Vec<Received> {
        let about = |report: &&Received| {
            domain.is_none_or(|domain| {
                let own = report.summary.domain.to_ascii_lowercase();
                own == domain || own.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
            })
        };
        self.reports.iter().filter(|report| report.at >= since).filter(about).cloned().collect()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Received> {
        self.reports.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::report::Row;

    fn report(at: u64, id: &str, rows: usize) -> Received {
        let row = Row { source: "192.0.2.1".into(), count: 2, failed: 1, detail: String::new() };
        let summary = Summary {
            kind: "dmarc".into(),
            organization: "o".into(),
            domain: "a.example".into(),
            id: id.into(),
            begin: 0,
            end: 0,
            rows: vec![row; rows],
        };
        Received { at, dmarc: "pass".into(), summary }
    }

    #[test]
    fn copies_replace_and_the_oldest_leave() {
        let mut shelf = Shelf::default();
        shelf.put(report(1, "x", 2));
        shelf.put(report(2, "x", 3));
        shelf.put(report(3, "", 1));
        shelf.put(report(4, "", 1));
        let found = shelf.list(Some("a.example"), 0);
        assert_eq!(found.iter().map(|one| one.at).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(shelf.list(Some("b.example"), 0).is_empty() && shelf.list(None, 4).len() == 1);
        (0..500).for_each(|at| shelf.put(report(at, &at.to_string(), 9_999)));
        assert!(shelf.rows <= ROWS_TOTAL_MAX && shelf.reports.len() <= 400, "{}", shelf.rows);
        let kept = &shelf.reports.back().unwrap().summary;
        assert_eq!(kept.rows.len(), ROWS_KEPT_MAX);
        assert_eq!(kept.rows.iter().map(|row| row.count).sum::<u64>(), 2 * 9_999);
    }
}
