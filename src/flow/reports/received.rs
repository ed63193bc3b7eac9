//! Mail to `[reports] inbox` is read as a report about us, beside its delivery. I/O: rayon, for the reading.

use std::sync::Arc;

use crate::base::content::Content;
use crate::config::Config;
use crate::flow::house::House;
use crate::verify::Outcome;
use crate::verify::reports::read;
use crate::verify::reports::received::Received;
use crate::wire::envelope::Envelope;

use super::now_secs;

impl House {
    /// Reads `content` if it went to an inbox. Never waits; what comes while all readers are busy is not read, and counted.
    pub fn read_report(
        self: &Arc<Self>,
        config: &Config,
        envelope: &Envelope,
        content: &Content,
        dmarc: Option<Outcome>,
    ) {
        let inbox = &config.reports.inbox;
        let is_inbox = |address: &str| inbox.iter().any(|own| own.as_str().eq_ignore_ascii_case(address));
        if inbox.is_empty() || !envelope.recipients.iter().any(|to| is_inbox(to.mailbox.as_str())) {
            return;
        }
        let Some(place) = self.reports.readers.enter() else {
            self.reports.meters.received("busy");
            tracing::warn!("a report came while others were read; it is delivered and not summed up");
            return;
        };
        let (house, content) = (self.clone(), content.clone());
        let dmarc = dmarc.map_or(String::new(), |outcome| outcome.as_str().to_owned());
        rayon::spawn(move || {
            house.reports.shelve(&content, dmarc);
            drop(place);
        });
    }
}

impl super::Reports {
    fn shelve(&self, content: &[u8], dmarc: String) {
        match read::read(content) {
            Ok(summary) => {
                self.meters.received(&summary.kind);
                tracing::info!(kind = %summary.kind, domain = %summary.domain, organization = %summary.organization, "a report came");
                let report = Received { at: now_secs(), dmarc, summary };
                let mut shelf = self.shelf.lock();
                shelf.put(report);
                self.fresh.lock().extend(shelf.all().last().cloned());
            }
            Err(error) => {
                self.meters.received("unreadable");
                tracing::warn!(%error, "mail to the inbox for reports is no report");
            }
        }
    }

    /// Reports that came since `since` (seconds since 1970) about `domain` or below it; oldest first.
    pub fn received(&self, domain: Option<&str>, since: u64) -> Vec<Received> {
        self.shelf.lock().list(domain, since)
    }

    /// What waits to be sent: kind, beginning, domain, rows, messages or sessions.
    pub fn waiting(&self) -> Vec<(&'static str, u64, String, usize, u64)> {
        let told = |kind| {
            move |(begin, domain, rows, count): (u64, &str, usize, u64)| (kind, begin, domain.to_owned(), rows, count)
        };
        let mut all: Vec<_> = self.dmarc.lock().waiting().map(told("aggregate")).collect();
        all.extend(self.tls.lock().waiting().map(told("tls")));
        all.sort_unstable();
        all
    }
}
