//! A judged message becomes a row, and perhaps a failure report. I/O: none of its own.

use std::sync::Arc;

use crate::base::content::Content;
use crate::base::unix::now_secs;
use crate::config::Config;
use crate::config::settings::FailureReports;
use crate::flow::house::House;
use crate::verify::decide::{Action, Decision};
use crate::verify::reports::aggregate::{Published, Row};
use crate::verify::reports::failure;
use crate::verify::{self, Outcome, Results};
use crate::wire::envelope::Envelope;
use crate::wire::header::fields;

/// What each subject of an aggregate or TLS report begins with (RFC 9990 §3.1.2, RFC 8460 §3).
const REPORT_SUBJECT: &[u8] = b"report domain:";

/// What is known of a message once it is judged.
#[derive(Clone)]
pub struct Judged {
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    /// Its content.
    pub content: Content,
    /// The client that the results are about.
    pub facts: verify::Facts,
    /// What was found.
    pub results: Results,
    /// What becomes of it.
    pub decision: Decision,
}

impl House {
    /// Counts a message of a domain that wants reports. Never waits.
    pub fn count_for_reports(self: &Arc<Self>, config: &Config, judged: &Judged) {
        let settings = &config.reports;
        let results = &judged.results;
        let Some(record) = results.dmarc.record.as_ref().filter(|_| settings.from.is_some()) else { return };
        if is_about_reports(config, judged) {
            return;
        }
        // A message that is to come again is counted when it does.
        let wanted = !record.aggregate_reports.is_empty() && judged.decision.action != Action::Defer;
        if settings.aggregate && wanted {
            let row = Row::of(results, &judged.decision, judged.facts.ip);
            let head = || Published::of(record);
            let domain = &results.dmarc.policy_domain;
            let noted = self.reports.dmarc.lock().note(domain, head, row, now_secs(), settings.rows);
            self.reports.meters.noted("aggregate", noted.is_ok());
        }
        if settings.failure != FailureReports::Off && failure::is_asked_for(results) {
            self.report_failure(judged);
        }
    }
}

/// True for what would make reports go round: mail of or to our report addresses, and reports of others that are genuine.
fn is_about_reports(config: &Config, judged: &Judged) -> bool {
    let settings = &config.reports;
    let ours = |address: &str| {
        let own = settings.from.iter().chain(&settings.reverse_path).chain(&settings.inbox);
        own.map(|own| own.as_str()).any(|own| own.eq_ignore_ascii_case(address))
    };
    let from_us = judged.results.author.as_ref().is_ok_and(|author| ours(&author.address));
    let recipients = &judged.envelope.recipients;
    let to_us = !recipients.is_empty() && recipients.iter().all(|to| ours(to.mailbox.as_str()));
    from_us || to_us || (judged.results.dmarc.outcome == Outcome::Pass && is_report(&judged.content))
}

fn is_report(content: &[u8]) -> bool {
    let subject = fields(content).find(|field| field.is("Subject"));
    let start = |value: &[u8]| {
        let value = value.trim_ascii_start();
        value.get(..REPORT_SUBJECT.len()).is_some_and(|start| start.eq_ignore_ascii_case(REPORT_SUBJECT))
    };
    subject.is_some_and(|field| start(field.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_known_by_their_subject() {
        assert!(is_report(b"From: a\r\nSUBJECT:  Report Domain: x.example Submitter: y\r\n\r\n"));
        assert!(!is_report(b"Subject: Re: Report Domain: x\r\n\r\n"));
        assert!(!is_report(b"From: a\r\n\r\nSubject: Report Domain: x\r\n"));
    }
}
