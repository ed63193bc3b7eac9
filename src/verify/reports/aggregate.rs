//! DMARC aggregate reports: what a row is, and the XML. Pure. RFC 9990 (version 1.0, namespace dmarc-2.0).
//!
//! Written is what RFC 9990 asks for: disposition `pass`, `np`, `fo`, `testing`, `discovery_method`, no `pct`. Readers of RFC 7489 App. C find
//! all that they know, but for `pct` and the new word `pass`.

use std::net::IpAddr;

use mail_auth::report as wire;
use serde::{Deserialize, Serialize};

use super::super::Results;
use super::super::decide::{Action, Decision};
use super::super::dmarc::Policy;
use super::super::dmarc::record::{Record, ReportAddress};
use super::super::outcome::Outcome;
use super::ledger::Due;
use super::{Reporter, plain};

/// Signatures told of in one row (RFC 9990 §3.1.1.9 lets us choose).
const SIGNATURES_MAX: usize = 4;
/// Characters of a name; DNS has none that is longer.
const NAME_CHARS_MAX: usize = 255;
/// Characters of a comment.
const COMMENT_CHARS_MAX: usize = 200;
/// What writes the reports.
const GENERATOR: &str = concat!("Weir/", env!("CARGO_PKG_VERSION"));

/// What the owner published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// `rua=`; each still has to be verified.
    pub addresses: Vec<ReportAddress>,
    /// `p`, `sp`, `np`
    pub policies: [Policy; 3],
    /// `adkim=s`, `aspf=s`
    pub strict: [bool; 2],
    /// `t=y`
    pub testing: bool,
    /// `fo=`
    pub failure_options: String,
}

impl Published {
    /// Of a record.
    pub fn of(record: &Record) -> Self {
        Published {
            addresses: record.aggregate_reports.clone(),
            policies: [record.policy, record.subdomain_policy, record.nonexistent_policy],
            strict: [record.strict_dkim, record.strict_spf],
            testing: record.testing,
            failure_options: plain(&record.failure_options, COMMENT_CHARS_MAX),
        }
    }
}

/// Why the owner's policy was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excuse {
    /// Our own choice.
    LocalPolicy,
    /// `t=y`, or the part of `pct`.
    PolicyTestMode,
    /// It came from a forwarder that we trust.
    TrustedForwarder,
}

/// What is counted: messages with the same facts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Row {
    ip: IpAddr,
    header_from: String,
    envelope_from: String,
    passed: bool,
    disposition: Policy,
    dkim_aligned: bool,
    spf_aligned: bool,
    excuse: Option<(Excuse, String)>,
    spf: (String, Outcome),
    dkim: Vec<(String, String, Outcome)>,
}

impl Row {
    /// Of a message that was judged.
    pub fn of(results: &Results, decision: &Decision, ip: IpAddr) -> Self {
        let (dmarc, spf) = (&results.dmarc, results.spf());
        let signatures = results.dkim.iter().filter(|dkim| !dkim.domain.is_empty()).take(SIGNATURES_MAX);
        let name = |text: &str| plain(text, NAME_CHARS_MAX);
        Row {
            ip: ip.to_canonical(),
            header_from: name(&dmarc.domain),
            envelope_from: results.mail_from.as_ref().map(|spf| name(&spf.domain)).unwrap_or_default(),
            passed: dmarc.outcome == Outcome::Pass,
            disposition: match decision.action {
                Action::Accept | Action::Defer => Policy::None,
                Action::Quarantine => Policy::Quarantine,
                Action::Reject => Policy::Reject,
            },
            dkim_aligned: dmarc.dkim == Outcome::Pass,
            spf_aligned: dmarc.spf == Outcome::Pass,
            excuse: excuse(results, decision),
            spf: (name(&spf.domain), spf.outcome),
            dkim: signatures.map(|dkim| (name(&dkim.domain), name(&dkim.selector), dkim.outcome)).collect(),
        }
    }
}

/// Why less was done than `p=`, `sp=` or `np=` says.
fn excuse(results: &Results, decision: &Decision) -> Option<(Excuse, String)> {
    let dmarc = &results.dmarc;
    let asked = dmarc.policy.filter(|policy| dmarc.outcome == Outcome::Fail && *policy != Policy::None)?;
    match decision.overridden {
        Some("trusted_forwarder") => return Some((Excuse::TrustedForwarder, comment(&decision.reason))),
        Some(_) => return Some((Excuse::LocalPolicy, comment(&decision.reason))),
        None => {}
    }
    if dmarc.disposition != asked {
        return Some((Excuse::PolicyTestMode, String::new()));
    }
    let done = matches!(decision.action, Action::Quarantine | Action::Reject);
    (!done).then(|| (Excuse::LocalPolicy, comment(&decision.reason)))
}

fn comment(text: &str) -> String {
    plain(text, COMMENT_CHARS_MAX)
}

/// The id of a report: the same whenever it is made, so that a second copy is known as one.
pub fn report_id(due: &Due<Published, Row>, reporter: &Reporter) -> String {
    format!("{}.{}.{}@{}", due.begin, due.end, due.domain, reporter.hostname)
}

/// The report in XML.
pub fn xml(due: &Due<Published, Row>, reporter: &Reporter) -> String {
    let head = &due.tally.head;
    let [p, sp, np] = head.policies.map(|policy| match policy {
        Policy::None => wire::Disposition::None,
        Policy::Quarantine => wire::Disposition::Quarantine,
        Policy::Reject => wire::Disposition::Reject,
    });
    let [adkim, aspf] =
        head.strict.map(|strict| if strict { wire::Alignment::Strict } else { wire::Alignment::Relaxed });
    let mut report = wire::Report::new()
        .with_version(1.0)
        .with_org_name(reporter.organization.clone())
        .with_email(reporter.address.clone())
        .with_report_id(report_id(due, reporter))
        .with_date_range_begin(due.begin)
        .with_date_range_end(due.end)
        .with_domain(due.domain.clone())
        .with_adkim(adkim)
        .with_aspf(aspf)
        .with_p(p)
        .with_sp(sp)
        .with_np(np)
        .with_fo(head.failure_options.clone())
        .with_testing(head.testing)
        .with_discovery_method(wire::Discovery::Treewalk)
        .with_generator(GENERATOR);
    if due.tally.left_out > 0 {
        let left_out = due.tally.left_out;
        report = report.with_error(format!("{left_out} messages are not in this report: too many different rows"));
    }
    for (row, count) in &due.tally.rows {
        report.add_record(record(row, *count));
    }
    report.to_xml()
}

fn record(row: &Row, count: u64) -> wire::Record {
    let aligned = |yes: bool| if yes { wire::DmarcResult::Pass } else { wire::DmarcResult::Fail };
    let (spf_domain, spf) = &row.spf;
    // The null reverse-path's identity is postmaster@HELO, in the scope of MAIL FROM (RFC 7208 §2.4).
    let spf = wire::SPFAuthResult::new()
        .with_domain(spf_domain.clone())
        .with_scope(wire::SPFDomainScope::MailFrom)
        .with_result(spf_word(*spf));
    let mut record = wire::Record::new()
        .with_source_ip(row.ip)
        .with_count(u32::try_from(count).unwrap_or(u32::MAX))
        .with_action_disposition(disposition(row))
        .with_dmarc_dkim_result(aligned(row.dkim_aligned))
        .with_dmarc_spf_result(aligned(row.spf_aligned))
        .with_header_from(row.header_from.clone())
        .with_envelope_from(row.envelope_from.clone())
        .with_spf_auth_result(spf);
    for (domain, selector, outcome) in &row.dkim {
        let told = wire::DKIMAuthResult::new().with_domain(domain.clone()).with_selector(selector.clone());
        record = record.with_dkim_auth_result(told.with_result(dkim_word(*outcome)));
    }
    let Some((excuse, comment)) = &row.excuse else { return record };
    let mut reason = wire::PolicyOverrideReason::new(match excuse {
        Excuse::LocalPolicy => wire::PolicyOverride::LocalPolicy,
        Excuse::PolicyTestMode => wire::PolicyOverride::PolicyTestMode,
        Excuse::TrustedForwarder => wire::PolicyOverride::TrustedForwarder,
    });
    if !comment.is_empty() {
        reason = reason.with_comment(comment.clone());
    }
    record.with_policy_override_reason(reason)
}

fn disposition(row: &Row) -> wire::ActionDisposition {
    match row.disposition {
        Policy::None if row.passed => wire::ActionDisposition::Pass,
        Policy::None => wire::ActionDisposition::None,
        Policy::Quarantine => wire::ActionDisposition::Quarantine,
        Policy::Reject => wire::ActionDisposition::Reject,
    }
}

fn spf_word(outcome: Outcome) -> wire::SpfResult {
    match outcome {
        Outcome::Fail => wire::SpfResult::Fail,
        Outcome::None | Outcome::Policy => wire::SpfResult::None,
        Outcome::Neutral => wire::SpfResult::Neutral,
        Outcome::PermError => wire::SpfResult::PermError,
        Outcome::Pass => wire::SpfResult::Pass,
        Outcome::SoftFail => wire::SpfResult::SoftFail,
        Outcome::TempError => wire::SpfResult::TempError,
    }
}

fn dkim_word(outcome: Outcome) -> wire::DkimResult {
    match outcome {
        Outcome::Fail | Outcome::SoftFail => wire::DkimResult::Fail,
        Outcome::None => wire::DkimResult::None,
        Outcome::Neutral => wire::DkimResult::Neutral,
        Outcome::PermError => wire::DkimResult::PermError,
        Outcome::Pass => wire::DkimResult::Pass,
        Outcome::Policy => wire::DkimResult::Policy,
        Outcome::TempError => wire::DkimResult::TempError,
    }
}
