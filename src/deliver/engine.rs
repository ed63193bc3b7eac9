//! The delivery engine: hears of fresh mail, looks for due mail, begins workers. I/O: tokio tasks and timers.
//!
//! The queue's committer hands fresh leases straight to workers; one dispatcher task finds what is due, moves mail of dead
//! destinations out of the way, ends what has waited too long, and closes idle sessions. Never calls the queue with the book locked.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::book::{Book, Offer, Want};
use super::held::Held;
use super::meters::Meters;
use super::mta_sts::Sts;
use super::pool::Pool;
use super::route::Routes;
use super::tls_result::TlsResultSink;
use super::transport::open::Opener;
use super::transport::tls::ClientTls;
use super::transport::{Job, LocalStore};
use super::{schedule, settle, worker};
use crate::base::clock;
use crate::config::settings::Config;
use crate::dns::Resolver;
use crate::spool::queue::{Lease, MailQueue};

/// Destinations looked at in one round.
const DUE_MAX: usize = 1000;
/// Rounds are no further apart than this, and no closer than [`ROUND_MIN`].
const ROUND_MAX: Duration = Duration::from_secs(1);
/// A round that could not place all mail is not repeated at once.
const ROUND_MIN: Duration = Duration::from_millis(50);
/// How often mail that has waited too long is looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// A cut task ends as soon as it is polled.
const CUT_PATIENCE: Duration = Duration::from_secs(2);
/// Leases ended in one go, and goes of one sweep.
const SWEEP_LEASES: usize = 100;
const SWEEP_GOES_MAX: usize = 100;

/// What delivery is made of.
pub struct Parts {
    /// Where the mail waits.
    pub queue: Arc<dyn MailQueue>,
    /// The embedded store.
    pub store: Arc<dyn LocalStore>,
    /// DNS.
    pub resolver: Arc<Resolver>,
    /// TLS as client.
    pub tls: ClientTls,
    /// MTA-STS policies.
    pub sts: Option<Arc<Sts>>,
    /// Where results for TLS-RPT go.
    pub tls_results: TlsResultSink,
    /// Counters.
    pub meters: Meters,
    /// The configuration.
    pub config: Arc<Config>,
}

/// One configuration with what is derived from it.
pub(super) struct Snapshot {
    pub config: Arc<Config>,
    pub routes: Routes,
}

pub(super) struct Shared {
    pub queue: Arc<dyn MailQueue>,
    pub store: Arc<dyn LocalStore>,
    pub opener: Opener,
    pub meters: Meters,
    pub snapshot: ArcSwap<Snapshot>,
    pub book: Mutex<Book>,
    pub pool: Pool,
    pub wake: Notify,
    /// A worker has gone.
    pub gone: Notify,
    /// True once workers are to drop what they do.
    pub cut: watch::Sender<bool>,
    pub handle: Handle,
    started: SystemTime,
    paused: AtomicBool,
    stopping: AtomicBool,
}

/// The running engine. Dropping the handle stops nothing; see [`Delivery::stop`].
#[derive(Clone)]
pub struct Delivery {
    shared: Arc<Shared>,
}

impl Delivery {
    /// Begins to deliver on `handle`'s runtime, unless `[deliver] paused`.
    pub fn start(parts: Parts, handle: Handle) -> Self {
        let paused = parts.config.deliver.paused;
        let opener = Opener::new(parts.resolver, parts.tls, parts.meters.clone());
        let opener = opener.with_results(parts.tls_results).with_sts(parts.sts);
        let shared = Arc::new(Shared {
            queue: parts.queue,
            store: parts.store,
            opener,
            meters: parts.meters,
            snapshot: ArcSwap::from_pointee(Snapshot {
                routes: Routes::new(&parts.config),
                config: parts.config.clone(),
            }),
            book: Mutex::default(),
            pool: Pool::default(),
            wake: Notify::new(),
            gone: Notify::new(),
            cut: watch::Sender::new(false),
            handle: handle.clone(),
            started: clock::now(),
            paused: AtomicBool::new(paused),
            stopping: AtomicBool::new(false),
        });
        shared.set_limits(&parts.config);
        // The queue outlives delivery and must not keep it alive.
        let weak = Arc::downgrade(&shared);
        shared.queue.on_fresh(Arc::new(move |lease| match weak.upgrade() {
            Some(shared) => shared.hear(lease),
            None => Some(lease),
        }));
        handle.spawn(dispatch(shared.clone()));
        Delivery { shared }
    }

    /// A new configuration: routes and limits change at once, sessions of the old one are closed.
    pub fn configure(&self, config: Arc<Config>) {
        self.shared.snapshot.store(Arc::new(Snapshot { routes: Routes::new(&config), config: config.clone() }));
        self.shared.set_limits(&config);
        self.shared.close(true);
    }

    /// Delivers nothing more until [`Delivery::resume`]; what is under way is finished.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Relaxed);
        self.shared.halt();
    }

    /// Goes on.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Relaxed);
        self.shared.halt();
        self.shared.wake.notify_one();
    }

    /// True while paused.
    pub fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Relaxed)
    }

    /// Forgets that a destination, or any, is dead, and looks for due mail. Making mail due is the queue's part.
    pub fn retry_now(&self, destination: Option<&str>) {
        self.shared.book.lock().revive(destination);
        self.shared.wake.notify_one();
    }

    /// A sentence about a destination, for `queue why`.
    pub fn why(&self, destination: &str) -> String {
        if self.is_paused() {
            return "delivery is paused".to_owned();
        }
        self.shared.book.lock().why(destination, clock::now())
    }

    /// Looks for due mail at once: the queue has become due by other means than time (an operator's release or retry).
    /// For mail to a destination that may be dead, see [`Delivery::retry_now`].
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Begins nothing new and waits up to `deadline` for what is under way; what lasts longer is cut, its leases go back. True if
    /// nothing had to be cut.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.halt();
        self.shared.wake.notify_one();
        let ended = tokio::time::timeout(deadline, self.shared.all_gone()).await.is_ok();
        if !ended {
            self.shared.cut.send_replace(true);
            // Only a store that hangs on a thread of its own outlasts this; its lease then ends with the process.
            let _ = tokio::time::timeout(CUT_PATIENCE, self.shared.all_gone()).await;
        }
        for connection in self.shared.pool.reap(true) {
            connection.quit().await;
        }
        ended
    }
}

impl Shared {
    fn set_limits(&self, config: &Config) {
        let mut book = self.book.lock();
        book.workers_max = config.deliver.concurrency.max(1);
        book.window_max = config.deliver.destination_concurrency.max(1);
        drop(book);
        self.halt();
    }

    /// Brings the book in line with pause and stop; leases that wait in memory go back.
    fn halt(&self) {
        let halted = self.paused.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed);
        let mut book = self.book.lock();
        book.halted = halted;
        let left = if halted { book.drain() } else { Vec::new() };
        drop(book);
        self.release(left);
    }

    fn hear(self: &Arc<Self>, lease: Lease) -> Option<Lease> {
        let destination = lease.destination.clone();
        let offer = self.book.lock().offer(lease, clock::now());
        match offer {
            Offer::Taken(begin) => {
                if begin {
                    self.begin(&destination, 1);
                }
                None
            }
            Offer::Back(lease) => Some(lease),
        }
    }

    pub fn begin(self: &Arc<Self>, destination: &Arc<str>, workers: usize) {
        for _ in 0..workers {
            self.handle.spawn(worker::work(self.clone(), destination.clone()));
        }
    }

    /// Takes charge of a lease of our queue.
    pub fn hold(&self, lease: Lease) -> Held {
        Held::new(lease, self.queue.clone())
    }

    pub fn release(&self, leases: Vec<Lease>) {
        for lease in leases {
            self.queue.release(lease);
        }
    }

    /// Closes sessions that are idle for too long, or all that are idle.
    fn close(&self, all: bool) {
        for connection in self.pool.reap(all) {
            self.handle.spawn(connection.quit());
        }
    }

    /// True once the rest behind the start is over, for whichever mail it is over first.
    fn gives_up(&self) -> bool {
        let retry = &self.snapshot.load().config.retry;
        let rests = [true, false].map(|null_sender| schedule::rest_after_start(retry, null_sender));
        clock::now() >= self.started + rests[0].min(rests[1])
    }

    async fn all_gone(&self) {
        loop {
            let gone = self.gone.notified();
            if self.book.lock().workers() == 0 {
                return;
            }
            gone.await;
        }
    }

    /// Settles `job` and ends its lease.
    pub fn conclude(&self, snapshot: &Snapshot, job: Job, transport: &'static str) {
        let now = clock::now();
        let facts = settle::Facts {
            hostname: &snapshot.config.hostname,
            retry: &snapshot.config.retry,
            routes: &snapshot.routes,
            now,
            started: self.started,
            random: fastrand::f64(),
            is_final: !matches!(transport, "smtp"),
        };
        let settled = settle::settle(&job, &facts, || self.queue.next_id());
        self.meters.concluded(&job, &settled, transport, now);
        let id = job.lease.id;
        let done = move |result: Result<(), crate::spool::queue::SpoolFault>| {
            if let Err(fault) = result {
                tracing::error!(%id, %fault, "the outcome of a delivery is not kept; it may be delivered again");
            }
        };
        self.queue.finish(
            job.lease.into_lease(),
            settled.outcomes,
            settled.report.into_iter().collect(),
            Box::new(done),
        );
    }
}

async fn dispatch(shared: Arc<Shared>) {
    let mut swept: Option<Instant> = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        let sweep_due = shared.gives_up() && swept.is_none_or(|at| at.elapsed() >= SWEEP_PERIOD);
        if sweep_due {
            swept = Some(Instant::now());
        }
        // Without this task no deferred mail would ever move again: a fault of one round must not end it.
        if std::panic::catch_unwind(AssertUnwindSafe(|| round(&shared, sweep_due))).is_err() {
            tracing::error!("a round of the dispatcher failed inside");
        }
        let until_due = shared.queue.next_due().and_then(|due| due.duration_since(clock::now()).ok());
        let pause = until_due.unwrap_or(ROUND_MIN).clamp(ROUND_MIN, ROUND_MAX);
        let pause = if shared.queue.next_due().is_none() { ROUND_MAX } else { pause };
        let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
    }
}

fn round(shared: &Arc<Shared>, sweep_due: bool) {
    let now = clock::now();
    if !shared.paused.load(Ordering::Relaxed) {
        place_due(shared, now);
    }
    if sweep_due {
        sweep(shared, now);
    }
    shared.close(false);
    let book = shared.book.lock();
    shared.meters.dead.set(book.dead(now) as i64);
    shared.meters.known.set(book.known() as i64);
}

/// Begins workers for what is due.
fn place_due(shared: &Arc<Shared>, now: SystemTime) {
    let mut all_served = true;
    for due in shared.queue.due(now, DUE_MAX) {
        let want = shared.book.lock().want(&due.destination, due.due, now);
        match want {
            Want::Workers(count) => shared.begin(&due.destination, count),
            Want::Postpone(until, why) => shared.queue.postpone(&due.destination, until, &why),
            Want::Full => all_served = false,
        }
    }
    if all_served {
        shared.book.lock().all_served();
    }
}

/// Ends mail that has waited too long, also where its destination is never tried.
fn sweep(shared: &Arc<Shared>, now: SystemTime) {
    let snapshot = shared.snapshot.load_full();
    let retry = &snapshot.config.retry;
    for null_sender in [true, false] {
        let Some(before) = now.checked_sub(schedule::lifetime(retry, null_sender)) else {
            continue;
        };
        if now < shared.started + schedule::rest_after_start(retry, null_sender) {
            continue;
        }
        for _ in 0..SWEEP_GOES_MAX {
            let leases = shared.queue.lease_older_than(before, null_sender, SWEEP_LEASES);
            let is_last = leases.len() < SWEEP_LEASES;
            for lease in leases {
                let why = shared.book.lock().why(&lease.destination, now);
                let mut job = Job::new(shared.hold(lease));
                job.answer_rest(&settle::expired_answer(&why));
                shared.conclude(&snapshot, job, "none");
            }
            if is_last {
                break;
            }
        }
    }
}
