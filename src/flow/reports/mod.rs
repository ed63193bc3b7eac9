//! Reports about identity and transport: collected while mail flows, kept over a restart, sent once a day. I/O: one folder; DNS; the queue.
//!
//! [`judged`] counts a message, [`tls`] a session of a delivery; [`daily`] says when, [`send`] makes what is due, [`carry`] the message
//! that brings it; [`received`] reads what others send us. No report is ever about a report: mail from or to our report addresses, and reports that pass, are not counted; what a
//! machine sent causes no failure report; our own carry `Auto-Submitted` and the null reverse-path.

mod carry;
mod daily;
mod failure;
mod https;
mod judged;
mod mail;
mod received;
mod send;
mod tls;
pub mod view;

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;

use crate::config::Config;
use crate::dns::Resolver;
use crate::observe::meters::QueueMeters;
use crate::verify::reports::aggregate::{self, Published};
use crate::verify::reports::destination::TlsDestination;
use crate::verify::reports::journal::Journal;
use crate::verify::reports::ledger::{Entry, Ledger};
use crate::verify::reports::meters::Meters;
use crate::verify::reports::received::{Received, Shelf};
use crate::verify::reports::redact::Redactor;
use crate::verify::reports::{Reporter, tls as verify_tls};

use super::house::Places;

pub use daily::run;
pub use judged::Judged;
pub use send::Sent;
pub use tls::count_tls;

/// The folder in `data_dir`.
const FOLDER: &str = "reports";
/// Failure reports that are worked on at once, and incoming reports that wait; what is beyond is dropped and counted.
const UNDER_WAY_MAX: usize = 64;

type DmarcLedger = Ledger<Published, aggregate::Row>;
type TlsLedger = Ledger<Vec<TlsDestination>, verify_tls::Row>;

/// Everything that is collected.
pub struct Reports {
    dmarc: Mutex<DmarcLedger>,
    tls: Mutex<TlsLedger>,
    shelf: Mutex<Shelf>,
    fresh: Mutex<Vec<Received>>,
    disk: Mutex<Disk>,
    failures: Mutex<failure::Counts>,
    redactor: Redactor,
    resolver: Arc<Resolver>,
    places: Places,
    desk: Mutex<received::Desk>,
    sending: tokio::sync::Mutex<()>,
    /// What is counted.
    pub meters: Meters,
}

struct Disk {
    dmarc: Journal<Entry<Published, aggregate::Row>>,
    tls: Journal<Entry<Vec<TlsDestination>, verify_tls::Row>>,
    received: Journal<Received>,
}

impl Reports {
    /// Reads what was collected before. `queue` counts the reports of others that wait to be read.
    /// # Errors
    /// In words: if the folder can't be made or read, or a metric's name is taken.
    pub fn open(
        config: &Config,
        resolver: Arc<Resolver>,
        registry: &Registry,
        queue: QueueMeters,
    ) -> Result<Self, String> {
        let folder = config.data_dir.join(FOLDER);
        let (mut dmarc, mut tls, mut shelf) = (DmarcLedger::default(), TlsLedger::default(), Shelf::default());
        let rows = config.reports.rows;
        let opened = std::fs::create_dir_all(&folder).and_then(|()| {
            Ok(Disk {
                dmarc: open(&folder.join("dmarc"), |entry| dmarc.restore(entry, rows))?,
                tls: open(&folder.join("tls"), |entry| tls.restore(entry, rows))?,
                received: open(&folder.join("received"), |report| shelf.put(report))?,
            })
        });
        let disk = opened.map_err(|error| format!("{}: {error}", folder.display()))?;
        let reports = Reports {
            dmarc: Mutex::new(dmarc),
            tls: Mutex::new(tls),
            shelf: Mutex::new(shelf),
            fresh: Mutex::default(),
            disk: Mutex::new(disk),
            failures: Mutex::default(),
            redactor: Redactor::new()?,
            resolver,
            places: Places::new(UNDER_WAY_MAX, queue),
            desk: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            meters: Meters::register(registry).map_err(|error| error.to_string())?,
        };
        reports.count_rows();
        Ok(reports)
    }

    /// Writes down what changed. Blocks on the disk.
    pub fn keep(&self) {
        let mut disk = self.disk.lock();
        let (dmarc, tls) = (self.dmarc.lock().changes(), self.tls.lock().changes());
        let fresh = std::mem::take(&mut *self.fresh.lock());
        let kept = disk.dmarc.append(&dmarc).and_then(|()| disk.tls.append(&tls));
        let kept = kept.and_then(|()| disk.received.append(&fresh)).and_then(|()| self.shorten(&mut disk));
        if let Err(error) = kept {
            self.meters.unkept.inc();
            tracing::error!(%error, "rows of reports can't be kept; they are lost if this process ends");
        }
        self.count_rows();
    }

    fn shorten(&self, disk: &mut Disk) -> io::Result<()> {
        if disk.dmarc.is_mostly_history() {
            let everything = self.dmarc.lock().everything();
            disk.dmarc.rewrite(&everything)?;
        }
        if disk.tls.is_mostly_history() {
            let everything = self.tls.lock().everything();
            disk.tls.rewrite(&everything)?;
        }
        if disk.received.is_mostly_history() {
            let everything: Vec<Received> = self.shelf.lock().all().cloned().collect();
            disk.received.rewrite(&everything)?;
        }
        Ok(())
    }

    fn count_rows(&self) {
        self.meters.rows("aggregate", self.dmarc.lock().rows());
        self.meters.rows("tls", self.tls.lock().rows());
    }
}

fn open<T: serde::Serialize + serde::de::DeserializeOwned>(
    path: &Path,
    restore: impl FnMut(T),
) -> io::Result<Journal<T>> {
    let opened = Journal::open(path)?;
    if opened.damaged > 0 {
        tracing::warn!(file = %path.display(), lines = opened.damaged, "rows of reports can't be read and are left out");
    }
    opened.entries.into_iter().for_each(restore);
    Ok(opened.journal)
}

/// Who reports; nothing while no reports are sent.
fn reporter(config: &Config) -> Option<Reporter> {
    let from = config.reports.from.as_ref()?;
    Some(Reporter {
        organization: config.reports.organization.clone(),
        hostname: config.hostname.clone(),
        address: from.to_string(),
    })
}
