//! DMARC failure reports: whether one is asked for, and what it says. Pure. RFC 9991, RFC 6591, RFC 5965.
//!
//! About one message that failed. Only the header section is quoted, and by default without readable local parts: the body is its
//! recipients' matter. A message that is a report or an automatic answer itself never causes one, so that none can go round.

use std::fmt::Write;
use std::net::IpAddr;

use super::super::decide::{Action, Decision};
use super::super::message::{Message, unfold};
use super::super::outcome::Outcome;
use super::super::{Results, authres};
use super::redact::Redactor;
use super::{Reporter, plain};

/// Bytes of the header section that are quoted.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Characters of one field of the report.
const VALUE_CHARS_MAX: usize = 500;

/// True if the owner asks to hear of this message (RFC 9991 §3, `fo`).
pub fn is_asked_for(results: &Results) -> bool {
    let dmarc = &results.dmarc;
    let Some(record) = dmarc.record.as_ref().filter(|record| !record.failure_reports.is_empty()) else { return false };
    let failed = |outcome: Outcome| matches!(outcome, Outcome::Fail | Outcome::PermError | Outcome::Policy);
    let asked = |option: &str| match option {
        "0" => dmarc.outcome == Outcome::Fail,
        "1" => dmarc.dkim != Outcome::Pass || dmarc.spf != Outcome::Pass,
        "d" | "D" => results.dkim.iter().any(|dkim| failed(dkim.outcome)),
        "s" | "S" => failed(results.spf().outcome) || results.spf().outcome == Outcome::SoftFail,
        _ => false,
    };
    let decided = matches!(dmarc.outcome, Outcome::Pass | Outcome::Fail);
    decided && record.failure_options.split(':').any(|option| asked(option.trim()))
}

/// True if the message is an answer or a report of a machine, which must not cause another (RFC 3834 §2).
pub fn is_automatic(message: &Message) -> bool {
    let auto = |field| !unfold(message.value(field)).eq_ignore_ascii_case("no");
    let is_report = |field| {
        let kind = unfold(message.value(field)).to_ascii_lowercase();
        kind.starts_with("multipart/report") || kind.starts_with("message/feedback-report")
    };
    message.named("Auto-Submitted").any(auto) || message.named("Content-Type").any(is_report)
}

/// The message that a report is about.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The client.
    pub ip: IpAddr,
    /// What was found.
    pub results: &'a Results,
    /// What became of it.
    pub decision: &'a Decision,
    /// Reverse-path; empty for `<>`.
    pub mail_from: &'a str,
    /// As in RFC 5322 §3.3.
    pub arrived: &'a str,
    /// Itself.
    pub message: &'a Message,
}

/// The `message/feedback-report` part.
pub fn feedback(about: &About<'_>, reporter: &Reporter, redactor: Option<&Redactor>) -> String {
    let (results, dmarc) = (about.results, &about.results.dmarc);
    let hidden = |text: &str| ascii(&redactor.map_or_else(|| text.to_owned(), |redactor| redactor.redact(text)));
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        writeln!(out, "{name}: {}\r", plain(value, VALUE_CHARS_MAX)).expect("a String takes any write");
    };
    field("Feedback-Type", "auth-failure");
    field("User-Agent", concat!("Weir/", env!("CARGO_PKG_VERSION")));
    field("Version", "1");
    field("Original-Mail-From", &hidden(&format!("<{}>", about.mail_from)));
    field("Arrival-Date", about.arrived);
    field("Source-IP", &about.ip.to_string());
    field("Reported-Domain", &ascii(&dmarc.domain));
    let findings = unfold(authres::write_value(&reporter.hostname, results).as_bytes());
    field("Authentication-Results", &hidden(&findings));
    field("Auth-Failure", "dmarc");
    field("Delivery-Result", delivery(about.decision));
    field("Identity-Alignment", alignment(results));
    let broken = results.dkim.iter().find(|dkim| dkim.outcome != Outcome::Pass && !dkim.domain.is_empty());
    if let Some(dkim) = broken {
        field("DKIM-Domain", &ascii(&dkim.domain));
        field("DKIM-Identity", &hidden(&dkim.identity));
        field("DKIM-Selector", &ascii(&dkim.selector));
    }
    out
}

/// Which mechanisms gave an aligned pass (RFC 9991 §4).
fn alignment(results: &Results) -> &'static str {
    match (results.dmarc.dkim == Outcome::Pass, results.dmarc.spf == Outcome::Pass) {
        (true, true) => "dkim, spf",
        (true, false) => "dkim",
        (false, true) => "spf",
        (false, false) => "none",
    }
}

/// RFC 6591 §3.2.2.
fn delivery(decision: &Decision) -> &'static str {
    match decision.action {
        Action::Accept => "delivered",
        Action::Defer => "other",
        Action::Quarantine => "policy",
        Action::Reject => "reject",
    }
}

/// The header section in ASCII, whole lines of it up to a bound; every line ends with CR LF.
pub fn quoted_header(message: &Message, redactor: Option<&Redactor>) -> String {
    let mut out = String::new();
    for field in message.fields() {
        let raw = String::from_utf8_lossy(message.raw(field)).into_owned();
        let shown = redactor.map_or_else(|| raw.clone(), |redactor| redactor.redact(&raw));
        let lines: Vec<String> = shown.lines().map(|line| ascii(&plain(line, usize::MAX))).collect();
        let text = lines.join("\r\n");
        if out.len() + text.len() > HEADER_BYTES_MAX {
            break;
        }
        out.push_str(&text);
        out.push_str("\r\n");
    }
    out
}

/// In a part that is not encoded only ASCII may stand.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::content::Content;

    fn message(text: &str) -> Message {
        Message::parse(Content::from_bytes(text.as_bytes().to_vec()))
    }

    #[test]
    fn machines_are_known_by_what_they_say() {
        for automatic in ["Auto-Submitted: auto-generated", "Content-Type: Multipart/Report; x=y", "AUTO-SUBMITTED: x"]
        {
            assert!(is_automatic(&message(&format!("{automatic}\r\n\r\n"))), "{automatic}");
        }
        assert!(!is_automatic(&message("Auto-Submitted: no\r\nContent-Type: text/plain\r\n\r\n")));
    }

    #[test]
    fn a_quoted_header_is_ascii_lines_without_local_parts() {
        let text = "From: \"x\" <ann@a.example>\r\nX: é\0\r\n folded@b.example\r\n\r\nsecret\r\n";
        let header = quoted_header(&message(text), Some(&Redactor::new().unwrap()));
        assert!(
            header.is_ascii() && !header.contains("ann@") && !header.contains("folded") && !header.contains("secret")
        );
        assert!(header.contains("@a.example>\r\nX: ?\r\n ") && header.ends_with("@b.example\r\n"), "{header:?}");
        assert_eq!(quoted_header(&message(&"A: b\r\n".repeat(20_000)), None).len() / 1024, 31);
    }
}
