//! Delivery status notifications: multipart/report for what failed, waits, was relayed or delivered. Pure.
//!
//! RFC 3461 (when), RFC 3464 (message/delivery-status), RFC 6522 (multipart/report), RFC 6533 (UTF-8), RFC 3834 (Auto-Submitted).
//! Invariant: nothing that a stranger wrote can add a field or a line: every value is one line, without
//! control characters, and the part that quotes the original is fenced by a boundary that it does not contain.

use std::fmt::Write;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use memchr::memmem;

use super::transport::Answer;
use crate::base::id::QueueId;
use crate::smtp::client::content::ContentNeeds;
use crate::wire::envelope::{Envelope, Recipient, Return};
use crate::wire::reply::Enhanced;

/// RET=FULL is honoured up to this size of the original; above it the header section is returned. Postfix: 50,000.
const FULL_BYTES_MAX: usize = 256 * 1024;
/// Header section that is returned at most.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Longest value of a field that quotes a stranger.
const VALUE_CHARS_MAX: usize = 900;

/// `Action` of RFC 3464 §2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Still tried.
    Delayed,
    /// Given up.
    Failed,
    /// Handed to a system that sends no reports.
    Relayed,
    /// In the mailbox.
    Delivered,
}

impl Action {
    /// The word in the report and the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Failed => "failed",
            Action::Relayed => "relayed",
        }
    }
}

/// One recipient of a report.
pub struct Row<'a> {
    /// Whom.
    pub recipient: &'a Recipient,
    /// What became of it.
    pub action: Action,
    /// What was said.
    pub answer: &'a Answer,
}

/// What a report is about.
pub struct Subject<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// Id of the report itself.
    pub id: QueueId,
    /// Id of the message it is about.
    pub about: QueueId,
    /// Its envelope; its reverse-path is not null.
    pub envelope: &'a Envelope,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// Until when it is tried, for delays.
    pub expires: SystemTime,
    /// Now.
    pub now: SystemTime,
    /// Its content.
    pub content: &'a [u8],
}

/// The report's whole content.
pub fn report(subject: &Subject<'_>, rows: &[Row<'_>]) -> Vec<u8> {
    let utf8 = is_utf8(subject.envelope);
    let quoted = quote(subject, utf8);
    let boundary = boundary(subject.id, &quoted.bytes);
    let mut out = String::new();
    write_header(&mut out, subject, rows, &boundary);
    line(&mut out, format_args!("--{boundary}"));
    line(&mut out, format_args!("Content-Type: text/plain; charset=utf-8"));
    line(&mut out, format_args!("Content-Transfer-Encoding: 8bit\r\n"));
    write_explanation(&mut out, subject, rows);
    line(&mut out, format_args!("\r\n--{boundary}"));
    let kind = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    line(&mut out, format_args!("Content-Type: {kind}\r\n"));
    write_status(&mut out, subject, rows, utf8);
    line(&mut out, format_args!("--{boundary}"));
    line(&mut out, format_args!("Content-Type: {}", quoted.kind));
    if !quoted.bytes.is_ascii() {
        line(&mut out, format_args!("Content-Transfer-Encoding: 8bit"));
    }
    out.push_str("\r\n");
    let mut bytes = out.into_bytes();
    bytes.extend_from_slice(&quoted.bytes);
    bytes.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    bytes
}

/// True if the report itself must travel by SMTPUTF8 (RFC 6533 §3).
pub fn is_utf8(envelope: &Envelope) -> bool {
    let sender = envelope.reverse_path.iter().any(|path| !path.as_str().is_ascii());
    sender || (envelope.smtputf8 && envelope.recipients.iter().any(|recipient| !recipient.mailbox.as_str().is_ascii()))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any write");
    out.push_str("\r\n");
}

fn worst(rows: &[Row<'_>]) -> Action {
    let order = [Action::Failed, Action::Delayed, Action::Relayed];
    order.into_iter().find(|action| rows.iter().any(|row| row.action == *action)).unwrap_or(Action::Delivered)
}

fn write_header(out: &mut String, subject: &Subject<'_>, rows: &[Row<'_>], boundary: &str) {
    let title = match worst(rows) {
        Action::Delayed => "Your message is delayed",
        Action::Delivered => "Your message was delivered",
        Action::Failed => "Your message could not be delivered",
        Action::Relayed => "Your message was passed on",
    };
    let to = subject.envelope.reverse_path.as_ref().map_or("", |path| path.as_str());
    line(out, format_args!("Date: {}", date(subject.now)));
    line(out, format_args!("From: Mail Delivery System <MAILER-DAEMON@{}>", subject.hostname));
    line(out, format_args!("To: <{to}>"));
    line(out, format_args!("Subject: {title}"));
    line(out, format_args!("Message-ID: <{}@{}>", subject.id, subject.hostname));
    line(out, format_args!("Auto-Submitted: auto-replied"));
    line(out, format_args!("MIME-Version: 1.0"));
    line(
        out,
        format_args!("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n"),
    );
}

fn write_explanation(out: &mut String, subject: &Subject<'_>, rows: &[Row<'_>]) {
    line(out, format_args!("This is the mail system at {}, about your message", subject.hostname));
    line(out, format_args!("of {} (queue id {}).\r\n", date(subject.accepted), subject.about));
    for row in rows {
        let mailbox = &row.recipient.mailbox;
        match row.action {
            Action::Delayed => line(
                out,
                format_args!("<{mailbox}>: not delivered yet. It will be tried until {}.", date(subject.expires)),
            ),
            Action::Delivered => line(out, format_args!("<{mailbox}>: delivered.")),
            Action::Failed => {
                line(out, format_args!("<{mailbox}>: could not be delivered, and will not be tried again."))
            }
            Action::Relayed => {
                line(out, format_args!("<{mailbox}>: passed on to a system that sends no further reports."))
            }
        }
        line(out, format_args!("    {}\r\n", value(&row.answer.line())));
    }
}

fn write_status(out: &mut String, subject: &Subject<'_>, rows: &[Row<'_>], utf8: bool) {
    line(out, format_args!("Reporting-MTA: dns; {}", subject.hostname));
    if let Some(envid) = &subject.envelope.envid {
        line(out, format_args!("Original-Envelope-Id: {}", value(envid)));
    }
    line(out, format_args!("Arrival-Date: {}\r\n", date(subject.accepted)));
    for row in rows {
        write_recipient(out, subject, row, utf8);
    }
}

fn write_recipient(out: &mut String, subject: &Subject<'_>, row: &Row<'_>, utf8: bool) {
    if let Some((kind, address)) = row.recipient.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
        line(out, format_args!("Original-Recipient: {};{}", value(kind), ascii_or(&value(address), utf8)));
    }
    let address = row.recipient.mailbox.as_str();
    let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
    line(out, format_args!("Final-Recipient: {kind};{}", ascii_or(address, utf8)));
    line(out, format_args!("Action: {}", row.action.as_str()));
    line(out, format_args!("Status: {}", status(row)));
    if let Some(remote) = &row.answer.remote {
        let host = remote.split(' ').next().unwrap_or_default();
        line(out, format_args!("Remote-MTA: dns; {}", value(host)));
    }
    let kind = if row.answer.is_reply { "smtp" } else { "x-weir" };
    line(out, format_args!("Diagnostic-Code: {kind}; {}", ascii_or(&value(&row.answer.text), utf8)));
    line(out, format_args!("Last-Attempt-Date: {}", date(subject.now)));
    if row.action == Action::Delayed {
        line(out, format_args!("Will-Retry-Until: {}", date(subject.expires)));
    }
    out.push_str("\r\n");
}

/// The class must fit the action (RFC 3464 §2.3.4): a message that expired with 4.4.1 fails with 4.4.7.
fn status(row: &Row<'_>) -> Enhanced {
    match (row.action, row.answer.status) {
        (Action::Failed, status) if status.0 == 4 => Enhanced(4, 4, 7),
        (Action::Relayed | Action::Delivered, status) if status.0 != 2 => Enhanced(2, 0, 0),
        (_, status) => status,
    }
}

/// One line, printable, bounded.
fn value(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(VALUE_CHARS_MAX).collect()
}

/// In a message/delivery-status only ASCII may stand (RFC 3464 §2.1).
fn ascii_or(text: &str, utf8: bool) -> String {
    text.chars().map(|c| if utf8 || c.is_ascii() { c } else { '?' }).collect()
}

struct Quoted {
    kind: &'static str,
    bytes: Vec<u8>,
}

/// The original: whole if asked for and small, else its header section.
fn quote(subject: &Subject<'_>, utf8: bool) -> Quoted {
    let content = subject.content;
    let needs = ContentNeeds::of(content);
    let whole =
        subject.envelope.ret == Some(Return::Full) && content.len() <= FULL_BYTES_MAX && !needs.bare && !needs.nul;
    if whole {
        let kind = if utf8 || needs.utf8_header { "message/global" } else { "message/rfc822" };
        return Quoted { kind, bytes: content.to_vec() };
    }
    let kind = if utf8 || needs.utf8_header { "message/global-headers" } else { "text/rfc822-headers" };
    Quoted { kind, bytes: header_section(content) }
}

/// Whole lines of the header section, up to the bound; bare CR, LF and NUL become spaces.
fn header_section(content: &[u8]) -> Vec<u8> {
    let end = memmem::find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    let mut header = &content[..end];
    if header.len() > HEADER_BYTES_MAX {
        header = &header[..HEADER_BYTES_MAX];
        header = &header[..memmem::rfind(header, b"\r\n").map_or(0, |at| at + 2)];
    }
    let mut out = Vec::with_capacity(header.len());
    let mut rest = header;
    while let Some((first, after)) = rest.split_first() {
        match rest {
            [b'\r', b'\n', ..] => {
                out.extend_from_slice(b"\r\n");
                rest = &rest[2..];
                continue;
            }
            [b'\r' | b'\n' | 0, ..] => out.push(b' '),
            _ => out.push(*first),
        }
        rest = after;
    }
    out
}

/// A boundary that the quoted part does not hold.
fn boundary(id: QueueId, quoted: &[u8]) -> String {
    let mut boundary = format!("=_{id}");
    while memmem::find(quoted, boundary.as_bytes()).is_some() {
        boundary.push('_');
    }
    boundary
}

/// RFC 5322 date, UTC.
pub fn date(time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    rfc2822::to_string(&zoned).unwrap_or_default()
}
