//! Sends a failure report about one message. I/O: DNS, the queue.
//!
//! Counted by policy domain and hour, so that a flood of forgeries is not answered by a flood of reports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::base::unix::now_secs;
use crate::flow::house::House;
use crate::verify::Message;
use crate::verify::reports::destination::{Tag, verified};
use crate::verify::reports::failure::{About, feedback, is_automatic, quoted_header};
use crate::verify::reports::letter::{Head, Part, compose};
use crate::verify::reports::redact::Redactor;
use crate::verify::reports::{Reporter, plain};
use crate::wire::date::rfc5322;

use super::send::Outcome;
use super::{Judged, reporter};

/// Domains that are counted in one hour; beyond, nobody gets failure reports.
const DOMAINS_MAX: usize = 10_000;
const HOUR_SECS: u64 = 3600;

/// Failure reports of this hour.
#[derive(Debug, Default)]
pub(super) struct Counts {
    hour: u64,
    domains: HashMap<String, u32>,
}

impl Counts {
    /// True if one more may go out about `domain`; it is counted then.
    fn take(&mut self, domain: &str, now: u64, most: u32) -> bool {
        let hour = now / HOUR_SECS;
        if self.hour != hour {
            *self = Counts { hour, domains: HashMap::new() };
        }
        if !self.domains.contains_key(domain) && self.domains.len() >= DOMAINS_MAX {
            return false;
        }
        let count = self.domains.entry(domain.to_owned()).or_insert(0);
        *count += 1;
        *count <= most
    }
}

impl House {
    /// Reports about `judged`, whose domain asks for it, unless the rate is reached or the message is a machine's. Never waits.
    pub(super) fn report_failure(self: &Arc<Self>, judged: &Judged) {
        let message = Message::parse(judged.content.clone());
        if judged.facts.reverse_path.is_none() || is_automatic(&message) {
            return;
        }
        let most = self.snapshot.load().config.reports.failure_per_hour;
        let taken = self.reports.failures.lock().take(&judged.results.dmarc.policy_domain, now_secs(), most);
        let Some(place) = self.reports.places.enter().filter(|_| taken) else {
            self.reports.meters.noted("failure", false);
            return;
        };
        self.reports.meters.noted("failure", true);
        let (house, judged) = (self.clone(), judged.clone());
        self.runtime.spawn(async move {
            let domain = judged.results.dmarc.policy_domain.clone();
            let outcome = house.send_failure(&judged, &message).await;
            house.told("failure", &domain, outcome);
            drop(place);
        });
    }

    async fn send_failure(&self, judged: &Judged, message: &Message) -> Outcome {
        let (snapshot, mut outcome) = (self.snapshot.load_full(), Outcome::default());
        let dmarc = &judged.results.dmarc;
        let (Some(reporter), Some(record)) = (reporter(&snapshot.config), &dmarc.record) else { return outcome };
        let wanted = &record.failure_reports;
        let found = verified(&*self.reports.resolver, &dmarc.policy_domain, wanted, Tag::Failure).await;
        if found.addresses.is_empty() {
            outcome.not.push(format!("anybody: none takes failure reports about {}", dmarc.policy_domain));
        }
        let redactor = snapshot.config.reports.redact.then_some(&self.reports.redactor);
        for one in &found.addresses {
            let letter = letter(judged, message, &reporter, redactor, one.address.as_str());
            if one.bytes_max.is_some_and(|most| letter.len() as u64 > most) {
                outcome.not.push(format!("{}: {} bytes are more than it takes", one.address, letter.len()));
                continue;
            }
            match self.mail_report(&snapshot, &one.address, letter, &dmarc.policy_domain).await {
                Ok(id) => outcome.to.push(format!("{} ({id})", one.address)),
                Err(why) => outcome.not.push(format!("{}: {why}", one.address)),
            }
        }
        outcome
    }
}

/// RFC 5965 §2, RFC 9991 §4.
fn letter(judged: &Judged, message: &Message, reporter: &Reporter, redactor: Option<&Redactor>, to: &str) -> Vec<u8> {
    let (now, domain) = (rfc5322(SystemTime::now()), plain(&judged.results.dmarc.domain, 255));
    let about = About {
        ip: judged.facts.ip,
        results: &judged.results,
        decision: &judged.decision,
        mail_from: judged.facts.reverse_path.as_deref().unwrap_or_default(),
        arrived: &now,
        message,
    };
    let text = format!(
        "This is a DMARC failure report from {} about a message from {}\nwhose author's domain is {domain}.\n\nIt was: {}\nQuestions: {}\n",
        reporter.organization, about.ip, judged.results.dmarc.reason, reporter.address
    );
    let head = Head {
        from: (&reporter.organization, &reporter.address),
        to,
        subject: &format!("DMARC failure report for {domain} from {}", about.ip),
        date: &now,
        message_id: &format!("{}.{}@{}", now_secs(), fastrand::u64(..), reporter.hostname),
        multipart: "report;\r\n\treport-type=feedback-report",
        more: "",
    };
    let feedback = feedback(&about, reporter, redactor);
    let header = quoted_header(message, redactor);
    compose(
        &head,
        &[
            Part::text(&text),
            Part::ascii("message/feedback-report", feedback),
            Part::ascii("text/rfc822-headers", header),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_its_share_and_the_next_one_begins_anew() {
        let mut counts = Counts::default();
        let taken = |counts: &mut Counts, now| (0..5).filter(|_| counts.take("a", now, 2)).count();
        assert_eq!((taken(&mut counts, 10), taken(&mut counts, 20), taken(&mut counts, HOUR_SECS)), (2, 0, 2));
        let taken = (0..DOMAINS_MAX + 5).filter(|n| counts.take(&n.to_string(), HOUR_SECS, 1)).count();
        assert_eq!(taken, DOMAINS_MAX - 1, "one is there already");
        assert!(counts.domains.len() == DOMAINS_MAX && !counts.take("new", HOUR_SECS, 1));
    }
}
