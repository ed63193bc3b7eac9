//! Reports as the admin API says them. Pure.

use crate::admin::model::{ReportFilter, ReportReceived, ReportWaiting};
use crate::verify::reports::received::Received;

use super::Reports;

/// What waits for a report of ours.
pub fn waiting(reports: &Reports, most: usize) -> Vec<ReportWaiting> {
    let told = |(kind, begin, domain, rows, count): (&str, u64, String, usize, u64)| ReportWaiting {
        kind: kind.to_owned(),
        domain,
        begin,
        rows: rows as u64,
        count,
    };
    reports.waiting().into_iter().take(most).map(told).collect()
}

/// The newest reports of others that the filter means, oldest first.
pub fn received(reports: &Reports, filter: &ReportFilter, most: usize) -> Vec<ReportReceived> {
    let mut found = reports.received(filter.domain.as_deref(), filter.since);
    let newest = found.split_off(found.len().saturating_sub(most));
    newest.into_iter().map(|Received { at, dmarc, summary }| ReportReceived { at, dmarc, summary }).collect()
}
