//! Reports as the admin API says them. Pure.

use crate::admin::model::{ReportFilter, ReportReceived, ReportRow, ReportWaiting};
use crate::verify::reports::read::Row;
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
    newest.into_iter().map(told).collect()
}

fn told(received: Received) -> ReportReceived {
    let (at, dmarc, summary) = (received.at, received.dmarc, received.summary);
    let row = |Row { source, count, failed, detail }| ReportRow { source, count, failed, detail };
    ReportReceived {
        at,
        dmarc,
        kind: summary.kind,
        organization: summary.organization,
        domain: summary.domain,
        id: summary.id,
        begin: summary.begin,
        end: summary.end,
        rows: summary.rows.into_iter().map(row).collect(),
    }
}
