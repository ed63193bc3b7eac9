//! Mail to `[reports] inbox` is read as a report about us, beside its delivery. I/O: rayon, for the reading.
//!
//! Reports come in bursts, when the day of UTC ends. Few are read at once; the others wait in line.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::content::Content;
use crate::base::unix::now_secs;
use crate::config::Config;
use crate::flow::house::House;
use crate::verify::Outcome;
use crate::verify::reports::read;
use crate::verify::reports::received::Received;
use crate::wire::envelope::Envelope;

use super::UNDER_WAY_MAX;

/// Reports that are read at once; one may take a hundred MiB while it is read.
const READERS_MAX: usize = 2;

/// The line in front of the readers.
#[derive(Default)]
pub(super) struct Desk {
    waiting: VecDeque<(Content, String)>,
    readers: usize,
}

/// What a report at the end of the line needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing: a reader comes to it.
    Nothing,
    /// One more reader.
    Reader,
    /// A shorter line. It was not taken.
    Room,
}

impl Desk {
    fn put(&mut self, content: Content, dmarc: String) -> Needs {
        if self.waiting.len() >= UNDER_WAY_MAX {
            return Needs::Room;
        }
        self.waiting.push_back((content, dmarc));
        if self.readers == READERS_MAX {
            return Needs::Nothing;
        }
        self.readers += 1;
        Needs::Reader
    }

    /// The next report for a reader; without one the reader is gone.
    fn next(&mut self) -> Option<(Content, String)> {
        let next = self.waiting.pop_front();
        self.readers -= usize::from(next.is_none());
        next
    }
}

impl House {
    /// Reads `content` if it went to an inbox. Never waits; what finds the line full is not read, and counted.
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
        let dmarc = dmarc.map_or(String::new(), |outcome| outcome.as_str().to_owned());
        let needs = self.reports.desk.lock().put(content.clone(), dmarc);
        match needs {
            Needs::Nothing => {}
            Needs::Reader => {
                let house = self.clone();
                rayon::spawn(move || house.reports.read_all());
            }
            Needs::Room => {
                self.reports.meters.received("busy");
                tracing::warn!("too many reports wait to be read; this one is delivered and not summed up");
            }
        }
    }
}

impl super::Reports {
    /// A reader's work, until nothing waits.
    fn read_all(&self) {
        let next = || self.desk.lock().next();
        while let Some((content, dmarc)) = next() {
            self.shelve(&content, dmarc);
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_waits_in_line_and_the_readers_go_when_it_is_done() {
        let mut desk = Desk::default();
        let put = |desk: &mut Desk| desk.put(Content::from_bytes(b"x".to_vec()), String::new());
        let all: Vec<Needs> = (0..=UNDER_WAY_MAX).map(|_| put(&mut desk)).collect();
        assert_eq!(all[..READERS_MAX], [Needs::Reader; READERS_MAX]);
        assert!(all[READERS_MAX..UNDER_WAY_MAX].iter().all(|needs| *needs == Needs::Nothing));
        assert_eq!(all[UNDER_WAY_MAX], Needs::Room);
        assert_eq!(std::iter::from_fn(|| desk.next()).count(), UNDER_WAY_MAX);
        assert!(desk.next().is_none());
        assert_eq!((desk.readers, put(&mut desk)), (0, Needs::Reader));
    }
}
