//! Makes and sends the reports that are due. I/O: DNS, the queue, HTTPS.
//!
//! A report's rows go only once it is durable in the queue, or can't be sent at all. While DNS or the spool can't say, they stay for the
//! next try, up to [`AGE_SECS_MAX`].

use std::pin::Pin;
use std::sync::Arc;

use crate::base::unix::now_secs;
use crate::flow::house::House;
use crate::flow::snapshot::Snapshot;
use crate::verify::lookup::join_all;
use crate::verify::reports::aggregate::{self, Published, Row};
use crate::verify::reports::destination::{Tag, verified};
use crate::verify::reports::ledger::Due;
use crate::verify::reports::letter::gzip;
use crate::verify::reports::{DAY_SECS, Reporter};

use super::carry::{Form, letter};
use super::reporter;

/// Reports that are made at once; what takes time is DNS.
const AT_ONCE_MAX: usize = 16;
/// Older rows are given up: nobody waits for a report of last week.
pub(super) const AGE_SECS_MAX: u64 = 3 * DAY_SECS;

/// What sending came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Reports that are on their way, one a destination.
    pub sent: u64,
    /// Those that are not.
    pub failed: u64,
    /// A line for each domain.
    pub lines: Vec<String>,
}

/// What became of one domain's report.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Whom it was sent to.
    pub to: Vec<String>,
    /// Why not to others.
    pub not: Vec<String>,
    /// A later try may do better.
    pub again: bool,
}

impl House {
    /// Sends what is due; with `close`, also what was seen today until now.
    pub async fn send_reports(self: &Arc<Self>, close: bool) -> Sent {
        let _one_at_a_time = self.reports.sending.lock().await;
        let (snapshot, now) = (self.snapshot.load_full(), now_secs());
        let Some(reporter) = reporter(&snapshot.config) else {
            return Sent { lines: vec!["[reports] has no `from`, so none are sent".to_owned()], ..Sent::default() };
        };
        if close {
            self.reports.dmarc.lock().close(now);
            self.reports.tls.lock().close(now);
        }
        let mut sent = Sent::default();
        let dmarc = self.reports.dmarc.lock().due(now);
        for some in dmarc.chunks(AT_ONCE_MAX) {
            let one = |(begin, domain): &(u64, String)| -> Pin<Box<dyn Future<Output = _> + Send + '_>> {
                Box::pin(self.aggregate(&snapshot, &reporter, *begin, domain.clone()))
            };
            join_all(some.iter().map(one).collect()).await.into_iter().for_each(|told| sent.add(told));
        }
        let tls = self.reports.tls.lock().due(now);
        for some in tls.chunks(AT_ONCE_MAX) {
            let one = |(begin, domain): &(u64, String)| -> Pin<Box<dyn Future<Output = _> + Send + '_>> {
                Box::pin(self.tls_report(&snapshot, &reporter, *begin, domain.clone()))
            };
            join_all(some.iter().map(one).collect()).await.into_iter().for_each(|told| sent.add(told));
        }
        self.reports.dmarc.lock().prune(now);
        self.reports.tls.lock().prune(now);
        let house = self.clone();
        // A panic in there is logged; the rows are still in memory and written with the next ones.
        let _ = tokio::task::spawn_blocking(move || house.reports.keep()).await;
        tracing::info!(sent = sent.sent, failed = sent.failed, domains = sent.lines.len(), "reports sent");
        sent
    }

    /// One domain's aggregate report.
    async fn aggregate(&self, snapshot: &Snapshot, reporter: &Reporter, begin: u64, domain: String) -> Option<Told> {
        let due = self.reports.dmarc.lock().report(begin, &domain)?;
        let outcome = self.send_aggregate(snapshot, reporter, &due).await;
        let given_up = begin + AGE_SECS_MAX < now_secs();
        if !outcome.again || given_up {
            self.reports.dmarc.lock().done(begin, &domain);
        }
        Some(self.told("aggregate", &domain, outcome))
    }

    async fn send_aggregate(&self, snapshot: &Snapshot, reporter: &Reporter, due: &Due<Published, Row>) -> Outcome {
        let wanted = &due.tally.head.addresses;
        let found = verified(&*self.reports.resolver, &due.domain, wanted, Tag::Aggregate).await;
        let mut outcome = Outcome { again: found.undecided && found.addresses.is_empty(), ..Outcome::default() };
        for one in wanted.iter().filter(|one| found.addresses.iter().all(|known| known.address != one.address)) {
            outcome.not.push(format!("{}: does not say that it takes reports about {}", one.address, due.domain));
        }
        if found.addresses.is_empty() {
            return outcome;
        }
        let (file, form) = (gzip(aggregate::xml(due, reporter).as_bytes()), form(due, reporter));
        for one in &found.addresses {
            let letter = letter(due, reporter, &form, one.address.as_str(), &file);
            if one.bytes_max.is_some_and(|most| letter.len() as u64 > most) {
                outcome.not.push(format!("{}: {} bytes are more than it takes", one.address, letter.len()));
                continue;
            }
            match self.mail_report(snapshot, &one.address, letter, &due.domain).await {
                Ok(id) => outcome.to.push(format!("{} ({id})", one.address)),
                Err(why) => {
                    outcome.again |= outcome.to.is_empty();
                    outcome.not.push(format!("{}: {why}", one.address));
                }
            }
        }
        // Who has it already must not get it twice.
        outcome.again &= outcome.to.is_empty();
        outcome
    }

    /// Counts and logs an outcome.
    pub(super) fn told(&self, kind: &'static str, domain: &str, outcome: Outcome) -> Told {
        outcome.to.iter().for_each(|_| self.reports.meters.sent(kind, true));
        outcome.not.iter().for_each(|_| self.reports.meters.sent(kind, false));
        let (to, not) = (outcome.to.join(", "), outcome.not.join("; "));
        tracing::info!(kind, domain, %to, %not, again = outcome.again, "report");
        let parts = [(to.is_empty(), format!("sent to {to}")), (not.is_empty(), format!("not sent to {not}"))];
        let text: Vec<String> = parts.into_iter().filter(|(empty, _)| !empty).map(|(_, text)| text).collect();
        let again = if outcome.again { "; tried again later" } else { "" };
        Told {
            sent: outcome.to.len() as u64,
            failed: outcome.not.len() as u64,
            line: format!("{kind} {domain}: {}{again}", text.join("; ")),
        }
    }
}

/// An [`Outcome`] as it is answered.
pub(super) struct Told {
    sent: u64,
    failed: u64,
    line: String,
}

impl Sent {
    pub(super) fn add(&mut self, told: Option<Told>) {
        let Some(told) = told else { return };
        self.sent += told.sent;
        self.failed += told.failed;
        self.lines.push(told.line);
    }
}

/// RFC 9990 §3.1.2.
fn form(due: &Due<Published, Row>, reporter: &Reporter) -> Form {
    Form {
        id: aggregate::report_id(due, reporter),
        what: "a DMARC aggregate report",
        summary: format!("Messages: {}\n", due.tally.rows.values().sum::<u64>()),
        ending: "xml.gz",
        media_type: "application/gzip",
        multipart: "mixed",
        more: String::new(),
    }
}
