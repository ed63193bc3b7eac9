//! Incoming reports to a summary. Pure. RFC 9990, RFC 7489 App. C, RFC 8460.
//!
//! A report comes as a message, or as the bare XML, JSON, gzip or zip that somebody saved. Decompression stops at
//! [`REPORT_BYTES_MAX`]; a broken report is an error in words.

use std::io::{Cursor, Read};

use flate2::read::GzDecoder;
use mail_auth::report::tlsrpt::TlsReport;
use mail_auth::report::{ActionDisposition, DmarcResult, Report};
use serde::Serialize;

/// Bytes of a report once decompressed. The largest real ones are of some MiB.
pub const REPORT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Files of a zip that are looked at.
const ZIP_FILES_MAX: usize = 10;

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `dmarc` or `tls`.
    pub kind: &'static str,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// Reads a report in whatever wrapping.
/// # Errors
/// In words.
pub fn read(bytes: &[u8]) -> Result<Summary, String> {
    match bytes {
        [0x1f, 0x8b, ..] => plain(&capped(GzDecoder::new(bytes))?),
        [b'P', b'K', 3, 4, ..] => zipped(bytes),
        _ if bytes.len() > REPORT_BYTES_MAX => Err("too large".to_owned()),
        _ => match bytes.trim_ascii_start().first() {
            Some(b'<' | b'{' | 0xef) => plain(bytes),
            _ => message(bytes),
        },
    }
}

fn capped(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = REPORT_BYTES_MAX as u64 + 1;
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == limit { Err("too large once decompressed".to_owned()) } else { Ok(bytes) }
}

fn zipped(bytes: &[u8]) -> Result<Summary, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut last = Err("the zip has no report".to_owned());
    for index in 0..archive.len().min(ZIP_FILES_MAX) {
        let file = archive.by_index(index).map_err(|error| error.to_string())?;
        last = capped(file).and_then(|bytes| plain(&bytes));
        if last.is_ok() {
            break;
        }
    }
    last
}

fn plain(bytes: &[u8]) -> Result<Summary, String> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        return json(bytes);
    }
    let strict = Report::parse_xml(bytes).and_then(|report| dmarc(&report));
    strict.or_else(|error| mended_xml(bytes).ok_or(error))
}

/// A second try for two faults that are in the field: bytes that are no UTF-8, and a schema wrapped around the report.
fn mended_xml(bytes: &[u8]) -> Option<Summary> {
    let text = String::from_utf8_lossy(bytes);
    let start = text.find("<feedback")?;
    Report::parse_xml(text[start..].as_bytes()).and_then(|report| dmarc(&report)).ok()
}

fn json(bytes: &[u8]) -> Result<Summary, String> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // RFC 8460's own example (§A) gives a single host as a string where its schema wants a list.
    for policy in value.get_mut("policies").and_then(|all| all.as_array_mut()).into_iter().flatten() {
        if let Some(host) = policy.pointer_mut("/policy/mx-host").filter(|host| host.is_string()) {
            *host = serde_json::Value::Array(vec![host.take()]);
        }
    }
    TlsReport::parse_json(value.to_string().as_bytes()).map(|report| tls(&report)).map_err(|error| format!("{error:?}"))
}

fn message(bytes: &[u8]) -> Result<Summary, String> {
    let aggregate = Report::parse_rfc5322(bytes, REPORT_BYTES_MAX).map_err(|error| format!("{error:?}"));
    let first = match aggregate.and_then(|report| dmarc(&report)) {
        Ok(summary) => return Ok(summary),
        Err(error) => error,
    };
    TlsReport::parse_rfc5322(bytes, REPORT_BYTES_MAX).map(|report| tls(&report)).map_err(|_| first)
}

fn dmarc(report: &Report) -> Result<Summary, String> {
    if report.domain().is_empty() {
        return Err("no report: it names no domain".to_owned());
    }
    let row = |record: &mail_auth::report::Record| {
        let pass = record.dmarc_dkim_result() == DmarcResult::Pass || record.dmarc_spf_result() == DmarcResult::Pass;
        let count = u64::from(record.count());
        Row {
            source: record.source_ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
            count,
            failed: if pass { 0 } else { count },
            detail: format!(
                "from {} dkim={} spf={} disposition={}",
                record.header_from(),
                word(record.dmarc_dkim_result()),
                word(record.dmarc_spf_result()),
                action(record.action_disposition()),
            ),
        }
    };
    Ok(Summary {
        kind: "dmarc",
        organization: report.org_name().to_owned(),
        domain: report.domain().to_owned(),
        id: report.report_id().to_owned(),
        begin: report.date_range_begin(),
        end: report.date_range_end(),
        rows: report.records().iter().map(row).collect(),
    })
}

fn word(result: DmarcResult) -> &'static str {
    match result {
        DmarcResult::Pass => "pass",
        DmarcResult::Fail => "fail",
        DmarcResult::Unspecified => "none",
    }
}

fn action(disposition: ActionDisposition) -> &'static str {
    match disposition {
        ActionDisposition::None | ActionDisposition::Pass | ActionDisposition::Unspecified => "none",
        ActionDisposition::Quarantine => "quarantine",
        ActionDisposition::Reject => "reject",
    }
}

fn tls(report: &TlsReport) -> Summary {
    let row = |policy: &mail_auth::report::tlsrpt::Policy| {
        let details = policy.failure_details.iter().map(|failure| format!("{:?}", failure.result_type));
        let (good, bad) = (u64::from(policy.summary.total_success), u64::from(policy.summary.total_failure));
        Row {
            source: policy.policy.policy_domain.clone(),
            count: good + bad,
            failed: bad,
            detail: details.collect::<Vec<_>>().join(", "),
        }
    };
    let rows: Vec<Row> = report.policies.iter().map(row).collect();
    let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    Summary {
        kind: "tls",
        organization: report.organization_name.clone().unwrap_or_default(),
        domain: rows.first().map(|row| row.source.clone()).unwrap_or_default(),
        id: report.report_id.clone(),
        begin: seconds(report.date_range.start_datetime.to_timestamp()),
        end: seconds(report.date_range.end_datetime.to_timestamp()),
        rows,
    }
}
