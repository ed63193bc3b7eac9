//! Incoming reports to a summary. Pure. RFC 9990, RFC 7489 App. C, RFC 8460, RFC 5965 with RFC 6591.
//!
//! A report comes as a message, or as the bare XML, JSON, gzip or zip that somebody saved. What is decompressed of one input, parts, files,
//! rows and elements are bounded; entities of a DTD are never expanded (the parser knows none). A broken report is an error in words.

use std::io::{Cursor, Read};

use flate2::read::GzDecoder;
use mail_auth::report::tlsrpt::TlsReport;
use mail_auth::report::{ActionDisposition, DeliveryResult, DmarcResult, Feedback, FeedbackType, Report};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use memchr::memmem;

use crate::base::report::{Row, Summary};

/// Bytes that are decompressed or parsed of one input. The largest real reports are of some MiB.
pub const REPORT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A message with a report, encoded.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A JSON value takes ten times its text in memory.
const JSON_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Files of a zip that are looked at.
const ZIP_FILES_MAX: usize = 10;
/// Parts of a message that are looked at.
const PARTS_MAX: usize = 50;
/// Messages within messages.
const NESTING_MAX: usize = 2;
/// Rows of a report.
const ROWS_MAX: usize = 100_000;
/// Signatures, reasons and the like of one row, on average.
const ELEMENTS_PER_ROW_MAX: usize = 10;

/// Reads a report in whatever wrapping.
/// # Errors
/// In words.
pub fn read(bytes: &[u8]) -> Result<Summary, String> {
    let mut budget = REPORT_BYTES_MAX;
    match file(bytes, &mut budget) {
        Some(found) => found,
        None if bytes.len() > MESSAGE_BYTES_MAX => Err("too large for a message with a report".to_owned()),
        None => message(bytes, &mut budget, NESTING_MAX),
    }
}

/// Reads a file by its first bytes; nothing if they are none of a report's. `budget` is of bytes to decompress or parse.
fn file(bytes: &[u8], budget: &mut usize) -> Option<Result<Summary, String>> {
    Some(match bytes {
        [0x1f, 0x8b, ..] => capped(GzDecoder::new(bytes), budget).and_then(|bytes| plain(&bytes)),
        [b'P', b'K', 3, 4, ..] => zipped(bytes, budget),
        _ => match bytes.trim_ascii_start().first() {
            Some(b'<' | b'{' | 0xef) if bytes.len() > *budget => Err("too large".to_owned()),
            Some(b'<' | b'{' | 0xef) => {
                *budget -= bytes.len();
                plain(bytes)
            }
            _ => return None,
        },
    })
}

fn capped(reader: impl Read, budget: &mut usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = *budget as u64 + 1;
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    *budget = budget.saturating_sub(bytes.len());
    if bytes.len() as u64 == limit { Err("too large once decompressed".to_owned()) } else { Ok(bytes) }
}

fn zipped(bytes: &[u8], budget: &mut usize) -> Result<Summary, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut last = Err("the zip has no report".to_owned());
    for index in 0..archive.len().min(ZIP_FILES_MAX) {
        let file = archive.by_index(index).map_err(|error| error.to_string())?;
        last = capped(file, budget).and_then(|bytes| plain(&bytes));
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
    sane(bytes)?;
    let strict = Report::parse_xml(bytes).and_then(|report| dmarc(&report));
    strict.or_else(|error| mended_xml(bytes).ok_or(error))
}

/// A few bytes of XML become some hundred in memory, so elements are counted before they are parsed.
fn sane(xml: &[u8]) -> Result<(), String> {
    let count = |name: &str| memmem::find_iter(xml, name.as_bytes()).count();
    if count("<record") > ROWS_MAX {
        return Err(format!("more than {ROWS_MAX} rows"));
    }
    let repeated = ["<dkim", "<spf", "<reason", "<error", "<extension"];
    if repeated.iter().map(|name| count(name)).sum::<usize>() > ROWS_MAX * ELEMENTS_PER_ROW_MAX {
        return Err("more elements than a report has".to_owned());
    }
    Ok(())
}

/// A second try for two faults that are in the field: bytes that are no UTF-8, and a schema wrapped around the report.
fn mended_xml(bytes: &[u8]) -> Option<Summary> {
    let text = String::from_utf8_lossy(bytes);
    let start = text.find("<feedback")?;
    Report::parse_xml(text[start..].as_bytes()).and_then(|report| dmarc(&report)).ok()
}

fn json(bytes: &[u8]) -> Result<Summary, String> {
    if bytes.len() > JSON_BYTES_MAX {
        return Err("too large for a TLS report".to_owned());
    }
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // RFC 8460's own example (§A) gives a single host as a string where its schema wants a list.
    for policy in value.get_mut("policies").and_then(|all| all.as_array_mut()).into_iter().flatten() {
        if let Some(host) = policy.pointer_mut("/policy/mx-host").filter(|host| host.is_string()) {
            *host = serde_json::Value::Array(vec![host.take()]);
        }
    }
    TlsReport::parse_json(value.to_string().as_bytes()).map(|report| tls(&report)).map_err(|error| format!("{error:?}"))
}

/// Looks into each part; a report that somebody forwarded lies in a message of its own.
fn message(bytes: &[u8], budget: &mut usize, nesting: usize) -> Result<Summary, String> {
    let parsed = MessageParser::new().parse(bytes).ok_or("neither a report nor a message")?;
    let mut last = Err("the message has no report".to_owned());
    for part in parsed.parts.iter().take(PARTS_MAX) {
        if part.is_content_type("message", "feedback-report") {
            return feedback(part.contents(), &parsed);
        }
        let found = match &part.body {
            PartType::Message(inner) if nesting > 0 => Some(message(inner.raw_message(), budget, nesting - 1)),
            PartType::Message(_) | PartType::Multipart(_) => None,
            _ if part.is_content_type("text", "html") => None,
            _ => file(part.contents(), budget),
        };
        match found {
            Some(Ok(summary)) => return Ok(summary),
            Some(error) => last = error,
            None => {}
        }
    }
    last
}

/// About one message: abuse (RFC 5965), or DMARC (RFC 6591, RFC 9991).
fn feedback(bytes: &[u8], carrier: &mail_parser::Message<'_>) -> Result<Summary, String> {
    let report = Feedback::parse_arf(bytes).ok_or("the feedback report says not of what type it is")?;
    let kind = match report.feedback_type() {
        FeedbackType::AuthFailure => "failure",
        FeedbackType::Abuse => "abuse",
        FeedbackType::Fraud => "fraud",
        FeedbackType::NotSpam => "not-spam",
        FeedbackType::Virus => "virus",
        FeedbackType::Other => "other",
    };
    let author = carrier.from().and_then(|from| from.first()).and_then(|from| from.address.as_deref());
    let organization = author.and_then(|author| author.rsplit_once('@')).map(|(_, domain)| domain);
    let at = seconds(report.arrival_date().unwrap_or(0));
    let count = u64::from(report.incidents());
    let told = [
        ("mail-from", report.original_mail_from()),
        ("dkim-domain", report.dkim_domain()),
        ("rcpt-to", report.original_rcpt_to()),
    ];
    let mut detail = format!("delivery={}", delivery(report.delivery_result()));
    told.iter().filter_map(|(name, value)| Some((name, (*value)?))).for_each(|(name, value)| {
        detail.push_str(&format!(" {name}={value}"));
    });
    Ok(Summary {
        kind: kind.to_owned(),
        organization: organization.or(report.reporting_mta()).unwrap_or_default().to_owned(),
        domain: report.reported_domain().first().map(|domain| domain.to_string()).unwrap_or_default(),
        id: carrier.message_id().unwrap_or_default().to_owned(),
        begin: at,
        end: at,
        rows: vec![Row {
            source: report.source_ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
            count,
            failed: count,
            detail,
        }],
    })
}

fn delivery(result: DeliveryResult) -> &'static str {
    match result {
        DeliveryResult::Delivered => "delivered",
        DeliveryResult::Spam => "spam",
        DeliveryResult::Policy => "policy",
        DeliveryResult::Reject => "reject",
        DeliveryResult::Other => "other",
        DeliveryResult::Unspecified => "unknown",
    }
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
        kind: "dmarc".to_owned(),
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

fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
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
    Summary {
        kind: "tls".to_owned(),
        organization: report.organization_name.clone().unwrap_or_default(),
        domain: rows.first().map(|row| row.source.clone()).unwrap_or_default(),
        id: report.report_id.clone(),
        begin: seconds(report.date_range.start_datetime.to_timestamp()),
        end: seconds(report.date_range.end_datetime.to_timestamp()),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: &str = "<feedback><report_metadata><org_name>&x;o</org_name></report_metadata><policy_published><domain>a.example</domain>\
        </policy_published><record><row><source_ip>192.0.2.1</source_ip><count>3</count></row></record></feedback>";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        super::super::letter::gzip(bytes)
    }

    fn zip(files: &[&[u8]]) -> Vec<u8> {
        use std::io::Write;
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (index, bytes) in files.iter().enumerate() {
            archive.start_file(format!("{index}.xml"), zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn bombs_are_cut_off() {
        let bomb = gzip(&vec![b' '; REPORT_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(read(&bomb).unwrap_err(), "too large once decompressed");
        let half = vec![b' '; REPORT_BYTES_MAX / 2 + 1];
        // Two halves share one budget.
        assert_eq!(read(&zip(&[&half, &half])).unwrap_err(), "too large once decompressed");
        let rows = format!("<feedback>{}</feedback>", "<record></record>".repeat(ROWS_MAX + 1));
        assert_eq!(read(&gzip(rows.as_bytes())).unwrap_err(), format!("more than {ROWS_MAX} rows"));
        let elements = format!("<feedback><record>{}", "<dkim/>".repeat(ROWS_MAX * ELEMENTS_PER_ROW_MAX + 1));
        assert_eq!(read(elements.as_bytes()).unwrap_err(), "more elements than a report has");
        let deep = format!("{{\"policies\":{}", "[".repeat(1_000_000));
        assert!(read(deep.as_bytes()).is_err());
    }

    #[test]
    fn entities_are_not_expanded() {
        let lol = "<!DOCTYPE f [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY x \"&a;&a;&a;&a;\"><!ENTITY y SYSTEM \"file:///etc/passwd\">]>";
        for entity in ["&x;", "&y;"] {
            let text = format!("{lol}{}", SMALL.replace("&x;", entity));
            let found = read(text.as_bytes()).map(|summary| summary.organization).unwrap_or_default();
            assert!(!found.contains("aaa") && !found.contains("root"), "{found}");
        }
    }

    #[test]
    fn a_forwarded_report_is_found_and_nesting_ends() {
        let encoded = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            gzip(SMALL.replace("&x;", "").as_bytes()),
        );
        let mut text =
            format!("Content-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n");
        for _ in 0..NESTING_MAX {
            text = format!("Content-Type: message/rfc822\r\n\r\n{text}");
            let summary = read(text.as_bytes()).unwrap();
            assert_eq!((summary.domain.as_str(), summary.rows[0].count), ("a.example", 3));
        }
        assert!(read(format!("Content-Type: message/rfc822\r\n\r\n{text}").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), how in 0u8..5) {
            let damaged = |whole: Vec<u8>| {
                let mut whole = whole;
                for (at, byte) in bytes.iter().enumerate().take(8) {
                    let place = (at * 131 + usize::from(*byte) * 7) % whole.len();
                    whole[place] = *byte;
                }
                whole
            };
            let _ = match how {
                0 => read(&bytes),
                1 => read(&gzip(&bytes)),
                2 => read(&damaged(zip(&[SMALL.as_bytes()]))),
                3 => read(&damaged(gzip(SMALL.as_bytes()))),
                _ => read(&damaged(SMALL.as_bytes().to_vec())),
            };
        }
    }
}
