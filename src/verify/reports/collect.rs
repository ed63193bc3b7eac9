//! Counts what was seen of each domain that asks for reports, and makes the report. I/O: DNS, to verify destinations. RFC 9990.
//!
//! Rows with the same facts are one row with a count. Both the domains and each domain's rows are bounded; what does not fit is counted
//! and said in the report. Kept in memory: a restart loses at most a day of counts, never mail.

use std::collections::HashMap;
use std::net::IpAddr;

use mail_auth::report as wire;

use super::super::Results;
use super::super::decide::{Action, Decision};
use super::super::dmarc::{Policy, Record};
use super::super::lookup::{Answer, Lookup};
use super::super::outcome::Outcome;
use super::super::spf::Identity;

/// Domains at most; the next ones are not reported on that day.
const DOMAINS_MAX: usize = 10_000;
/// Different rows of one domain.
const ROWS_MAX: usize = 10_000;
/// Signatures told of in one row.
const SIGNATURES_MAX: usize = 4;

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// Our organization: the host name.
    pub organization: String,
    /// The author of reports, and whom to ask about them.
    pub address: String,
}

/// Counts since the last report.
#[derive(Debug, Default)]
pub struct Collector {
    domains: HashMap<String, Tally>,
}

#[derive(Debug)]
struct Tally {
    record: Record,
    begin: u64,
    rows: HashMap<wire::Record, u32>,
    left_out: u64,
}

/// A report that is due.
#[derive(Debug)]
pub struct Due {
    /// The policy's domain.
    pub domain: String,
    /// `rua=`; each still has to be verified by [`destinations`].
    pub addresses: Vec<String>,
    report: wire::Report,
}

impl Collector {
    /// Counts a message. `now` in seconds since 1970. Reports about reports would go round for ever: what `reporter` wrote is not counted.
    pub fn note(&mut self, results: &Results, decision: &Decision, ip: IpAddr, reporter: &Reporter, now: u64) {
        let dmarc = &results.dmarc;
        let Some(record) = dmarc.record.as_ref().filter(|record| !record.aggregate_reports.is_empty()) else { return };
        if results.author.as_ref().is_ok_and(|author| author.address.eq_ignore_ascii_case(&reporter.address)) {
            return;
        }
        if self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(&dmarc.policy_domain) {
            return;
        }
        let tally = self.domains.entry(dmarc.policy_domain.clone()).or_insert_with(|| Tally {
            record: record.clone(),
            begin: now,
            rows: HashMap::new(),
            left_out: 0,
        });
        let row = row(results, decision, ip);
        if tally.rows.len() >= ROWS_MAX && !tally.rows.contains_key(&row) {
            tally.left_out += 1;
        } else {
            *tally.rows.entry(row).or_insert(0) += 1;
        }
    }

    /// Takes everything that began at least `period_secs` ago, as reports.
    pub fn due(&mut self, reporter: &Reporter, now: u64, period_secs: u64) -> Vec<Due> {
        let ready = self.domains.extract_if(|_, tally| tally.begin.saturating_add(period_secs) <= now);
        ready.map(|(domain, tally)| report(domain, tally, reporter, now)).collect()
    }
}

impl Due {
    /// The whole message for these addresses, to be signed and sent with the null reverse-path.
    /// # Errors
    /// Never in practice: only memory is written to.
    pub fn message(&self, reporter: &Reporter, addresses: &[String]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let to = addresses.iter().map(String::as_str);
        self.report.write_rfc5322(&reporter.organization, reporter.address.as_str(), to, &mut out)?;
        Ok(out)
    }
}

/// The addresses that may be written to: within the organization, or those whose domain says that it takes reports (RFC 9990 §4).
pub async fn destinations<L: Lookup>(
    dns: &L,
    policy_domain: &str,
    organization: &str,
    addresses: &[String],
) -> Vec<String> {
    let mut verified = Vec::new();
    for address in addresses {
        let Some((_, host)) = address.rsplit_once('@') else { continue };
        let host = host.to_ascii_lowercase();
        let within = host == organization || host.strip_suffix(organization).is_some_and(|rest| rest.ends_with('.'));
        if within || agrees(dns, policy_domain, &host).await {
            verified.push(address.clone());
        }
    }
    verified
}

async fn agrees<L: Lookup>(dns: &L, policy_domain: &str, host: &str) -> bool {
    match dns.txt(&format!("{policy_domain}._report._dmarc.{host}")).await {
        Answer::Found(texts) => texts.iter().any(|text| text.trim_ascii_start().starts_with(b"v=DMARC1")),
        _ => false,
    }
}

fn row(results: &Results, decision: &Decision, ip: IpAddr) -> wire::Record {
    let spf = results.spf();
    let scope = match spf.identity {
        Identity::Helo => wire::SPFDomainScope::Helo,
        Identity::MailFrom => wire::SPFDomainScope::MailFrom,
    };
    let mut row = wire::Record::new()
        .with_source_ip(ip)
        .with_action_disposition(disposition(decision))
        .with_dmarc_dkim_result(aligned(results.dmarc.dkim))
        .with_dmarc_spf_result(aligned(results.dmarc.spf))
        .with_header_from(results.dmarc.domain.clone())
        .with_envelope_from(results.mail_from.as_ref().map(|spf| spf.domain.clone()).unwrap_or_default())
        .with_spf_auth_result(
            wire::SPFAuthResult::new()
                .with_domain(spf.domain.clone())
                .with_scope(scope)
                .with_result(spf_word(spf.outcome)),
        );
    for dkim in results.dkim.iter().filter(|dkim| !dkim.domain.is_empty()).take(SIGNATURES_MAX) {
        let told = wire::DKIMAuthResult::new().with_domain(dkim.domain.clone()).with_selector(dkim.selector.clone());
        row = row.with_dkim_auth_result(told.with_result(dkim_word(dkim.outcome)));
    }
    let kind = match decision.overridden {
        Some("trusted_forwarder") => wire::PolicyOverride::TrustedForwarder,
        Some(_) => wire::PolicyOverride::LocalPolicy,
        None => return row,
    };
    row.with_policy_override_reason(wire::PolicyOverrideReason::new(kind).with_comment(decision.reason.clone()))
}

fn disposition(decision: &Decision) -> wire::ActionDisposition {
    match decision.action {
        Action::Accept | Action::Defer => wire::ActionDisposition::None,
        Action::Quarantine => wire::ActionDisposition::Quarantine,
        Action::Reject => wire::ActionDisposition::Reject,
    }
}

fn aligned(outcome: Outcome) -> wire::DmarcResult {
    if outcome == Outcome::Pass { wire::DmarcResult::Pass } else { wire::DmarcResult::Fail }
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

fn report(domain: String, tally: Tally, reporter: &Reporter, now: u64) -> Due {
    let record = &tally.record;
    let asked = |policy: Policy| match policy {
        Policy::None => wire::Disposition::None,
        Policy::Quarantine => wire::Disposition::Quarantine,
        Policy::Reject => wire::Disposition::Reject,
    };
    let mode = |strict: bool| if strict { wire::Alignment::Strict } else { wire::Alignment::Relaxed };
    let mut report = wire::Report::new()
        .with_version(1.0)
        .with_org_name(reporter.organization.clone())
        .with_email(reporter.address.clone())
        .with_report_id(format!("{}.{domain}", tally.begin))
        .with_date_range_begin(tally.begin)
        .with_date_range_end(now)
        .with_domain(domain.clone())
        .with_adkim(mode(record.strict_dkim))
        .with_aspf(mode(record.strict_spf))
        .with_p(asked(record.policy))
        .with_sp(asked(record.subdomain_policy))
        .with_np(asked(record.nonexistent_policy))
        .with_testing(record.testing)
        .with_discovery_method(wire::Discovery::Treewalk)
        .with_generator("Weir");
    if tally.left_out > 0 {
        report =
            report.with_error(format!("{} messages are not in this report: too many different rows", tally.left_out));
    }
    for (row, count) in tally.rows {
        report.add_record(row.with_count(count));
    }
    Due { domain, addresses: tally.record.aggregate_reports.clone(), report }
}
