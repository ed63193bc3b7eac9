//! What every conversation shares: the stages, as handles. I/O: none of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::runtime::Handle;

use crate::base::content::ContentSource;
use crate::config::settings::RateCount;
use crate::deliver::call_ahead::CallAhead;
use crate::front::service::Peer;
use crate::observe::meters::QueueMeters;
use crate::observe::trace::Trace;
use crate::policy::greylist::Greylist;
use crate::policy::rates::{Hit, RateFacts, Rates};
use crate::smtp::server::counters::SessionCounters;
use crate::spool::queue::MailQueue;
use crate::store::users::Users;

use super::clock::DateClock;
use super::meters::Meters;
use super::passwords::Passwords;
use super::reports::Reports;
use super::snapshot::Snapshot;
use super::underway::Underway;

/// The stages.
pub struct House {
    /// The configuration of the moment.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where messages are kept.
    pub spool: Arc<dyn MailQueue>,
    /// Where content grows.
    pub content: ContentSource,
    /// Logins.
    pub users: Arc<Users>,
    /// Where passwords are checked.
    pub passwords: Passwords,
    /// `[[rate]]`.
    pub rates: ArcSwap<Rates>,
    /// Asks next hops whether a recipient exists.
    pub call_ahead: CallAhead,
    /// What is collected for reports.
    pub reports: Reports,
    /// What was begun for conversations before their messages are there.
    pub underway: Underway,
    /// Messages whose checks are under way.
    pub checks_under_way: Places,
    /// Who is asked to come again.
    pub greylist: Greylist,
    /// What was decided, for those who ask.
    pub trace: Trace,
    /// What is counted.
    pub meters: Meters,
    /// For what waits.
    pub runtime: Handle,
    /// For `Received`.
    pub clock: DateClock,
}

/// A bounded number of places for work that left the reactors: a queue between threads, which is counted as one.
#[derive(Clone)]
pub struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
    meters: QueueMeters,
}

/// One of them; given back when dropped.
pub struct Place {
    taken: Arc<AtomicUsize>,
    depth: IntGauge,
}

impl Places {
    /// `most` places.
    pub fn new(most: usize, meters: QueueMeters) -> Self {
        Places { taken: Arc::default(), most, meters }
    }

    /// A place, or nothing if all are taken.
    pub fn enter(&self) -> Option<Place> {
        self.meters.depth.inc();
        let place = Place { taken: self.taken.clone(), depth: self.meters.depth.clone() };
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.most {
            return Some(place);
        }
        self.meters.full.inc();
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.depth.dec();
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl House {
    /// Counts against `[[rate]]`; the limits that were reached, a refusing one first.
    pub fn charge(&self, count: RateCount, facts: &RateFacts<'_>, amount: u64) -> Vec<Hit> {
        let hits = self.rates.load().charge(count, facts, amount, SystemTime::now());
        for hit in &hits {
            self.meters.policy.rate_reached(hit.action);
            tracing::warn!(rate = %hit.rate, key = %hit.key, action = hit.action.as_str(), "rate reached");
        }
        hits
    }

    /// A conversation is over: its counters join the process's.
    pub fn session_closed(&self, peer: &Peer, counters: &SessionCounters) {
        self.underway.closed(peer);
        self.meters.session_closed(&self.snapshot.load().listeners[peer.listener], counters);
    }
}
