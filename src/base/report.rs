//! What a report of others says of us, in short, as `verify` reads it and the API tells it. Pure.

use serde::{Deserialize, Serialize};

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// `dmarc`, `tls`, `failure`, or another of RFC 5965's feedback types.
    pub kind: String,
    /// Who reports.
    pub organization: String,
    /// About which domain.
    pub domain: String,
    /// The reporter's id.
    pub id: String,
    /// From, in seconds since 1970.
    pub begin: u64,
    /// To.
    pub end: u64,
    /// Rows.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The sending address (DMARC), or the policy's domain (TLS).
    pub source: String,
    /// Messages, or sessions.
    pub count: u64,
    /// Those that failed: all or none of a DMARC row.
    pub failed: u64,
    /// In words.
    pub detail: String,
}

impl Summary {
    /// Keeps at most `rows_max` rows; the last one then sums up the others.
    pub fn shorten(&mut self, rows_max: usize) {
        if self.rows.len() <= rows_max {
            return;
        }
        let others = self.rows.split_off(rows_max.saturating_sub(1));
        let sum = |count: fn(&Row) -> u64| others.iter().map(count).fold(0, u64::saturating_add);
        let (count, failed) = (sum(|row| row.count), sum(|row| row.failed));
        let detail = format!("{} more rows", others.len());
        self.rows.push(Row { source: "others".to_owned(), count, failed, detail });
    }
}
