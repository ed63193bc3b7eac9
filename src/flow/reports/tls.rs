//! TLS reports: sessions of our deliveries are counted for domains that ask, and reported. I/O: DNS, the queue, HTTPS. RFC 8460.
//!
//! Who asks is looked up when the first session of a domain is told, from the resolver's cache afterwards, so that domains that do not ask
//! cost no memory.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::base::unix::{self, now_secs};
use crate::deliver::tls_result::{TlsResult, TlsResultSink};
use crate::flow::house::House;
use crate::flow::snapshot::Snapshot;
use crate::verify::lookup::{Answer, Lookup};
use crate::verify::reports::destination::{TlsDestination, of_tls_record};
use crate::verify::reports::ledger::Due;
use crate::verify::reports::letter::gzip;
use crate::verify::reports::tls::{Failure, Policy, Row, json, report_id};
use crate::verify::reports::{Reporter, plain};

use super::carry::{Form, letter};
use super::send::{AGE_SECS_MAX, Outcome, Told};
use super::{UNDER_WAY_MAX, https};

/// Lines of a policy, or patterns of it, that are kept.
const LINES_MAX: usize = 20;
/// Characters of such a line; a TLSA record of a whole certificate is longer and cut.
const LINE_CHARS_MAX: usize = 500;
/// The media type of a report (RFC 8460 §6.5).
const MEDIA_TYPE: &str = "application/tlsrpt+gzip";

/// Counts what delivery tells, until the sink is gone; what the sink dropped counts as dropped.
pub async fn count_tls(house: Arc<House>, sink: TlsResultSink, mut results: mpsc::Receiver<TlsResult>) {
    let (places, mut dropped) = (Arc::new(Semaphore::new(UNDER_WAY_MAX)), 0);
    while let Some(result) = results.recv().await {
        (dropped..sink.dropped()).for_each(|_| house.reports.meters.noted("tls", false));
        dropped = sink.dropped();
        let settings = &house.snapshot.load().config.reports;
        if settings.from.is_none() || !settings.tls {
            continue;
        }
        // While all places wait for DNS the sink fills, and drops.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let house = house.clone();
        tokio::spawn(async move {
            house.count_session(&result).await;
            drop(place);
        });
    }
}

fn row_of(result: &TlsResult) -> Row {
    let lines = |lines: &[String]| lines.iter().take(LINES_MAX).map(|line| plain(line, LINE_CHARS_MAX)).collect();
    let policy = &result.policy;
    Row {
        policy: Policy {
            kind: policy.kind.as_str().to_owned(),
            domain: policy.domain.clone(),
            strings: lines(&policy.strings),
            mx_hosts: lines(&policy.mx_patterns),
        },
        failure: result.failure.as_ref().map(|failure| Failure {
            kind: failure.kind.as_str().to_owned(),
            sending_ip: result.sending_ip,
            mx_host: result.mx_host.as_deref().map(str::to_owned),
            receiving_ip: result.receiving_ip,
            detail: plain(&failure.detail, LINE_CHARS_MAX),
        }),
    }
}

impl House {
    async fn count_session(&self, result: &TlsResult) {
        let domain = &result.policy.recipient_domain;
        let Answer::Found(texts) = Lookup::txt(&*self.reports.resolver, &format!("_smtp._tls.{domain}")).await else {
            return;
        };
        let destinations = of_tls_record(&texts);
        if destinations.is_empty() {
            return;
        }
        let at = unix::secs(result.at);
        let rows_max = self.snapshot.load().config.reports.rows;
        let noted = self.reports.tls.lock().note(domain, || destinations, row_of(result), at, rows_max);
        self.reports.meters.noted("tls", noted.is_ok());
    }

    /// One domain's TLS report.
    pub(super) async fn tls_report(
        &self,
        snapshot: &Snapshot,
        reporter: &Reporter,
        begin: u64,
        domain: String,
    ) -> Option<Told> {
        let due = self.reports.tls.lock().report(begin, &domain)?;
        let mut outcome = Outcome::default();
        let (file, form) = (gzip(json(&due, reporter).as_bytes()), form(&due, reporter));
        for destination in &due.tally.head {
            let (name, sent) = match destination {
                TlsDestination::Mail(one) => {
                    let letter = letter(&due, reporter, &form, one.address.as_str(), &file);
                    let sent = self.mail_report(snapshot, &one.address, letter, &domain).await;
                    (one.address.to_string(), sent.map(|id| format!(" ({id})")))
                }
                TlsDestination::Post(uri) => {
                    let settings = &snapshot.config.deliver;
                    let sent = https::post(&self.reports.resolver, uri, MEDIA_TYPE, file.clone(), settings).await;
                    (uri.clone(), sent.map(|()| String::new()))
                }
            };
            match sent {
                Ok(how) => outcome.to.push(format!("{name}{how}")),
                Err(why) => outcome.not.push(format!("{name}: {why}")),
            }
        }
        // RFC 8460 §5.6: a delivery that fails is tried again, up to a day; one place that has it is enough.
        outcome.again = outcome.to.is_empty() && begin + AGE_SECS_MAX >= now_secs();
        if !outcome.again {
            self.reports.tls.lock().done(begin, &domain);
        }
        Some(self.told("tls", &domain, outcome))
    }
}

/// RFC 8460 §5.3.
fn form(due: &Due<Vec<TlsDestination>, Row>, reporter: &Reporter) -> Form {
    Form {
        id: report_id(due, reporter),
        what: "an aggregate TLS report",
        summary: String::new(),
        ending: "json.gz",
        media_type: MEDIA_TYPE,
        multipart: "report; report-type=\"tlsrpt\"",
        more: format!("TLS-Report-Domain: {}\r\nTLS-Report-Submitter: {}\r\n", due.domain, reporter.hostname),
    }
}
