//! One worker: takes leases of its destination and delivers them until none is left. I/O: tokio, through the transports.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;

use super::book::Turn;
use super::engine::{Shared, Snapshot};
use super::held::Held;
use super::pool::Line;
use super::route::destination_of;
use super::transport::open::tls_of;
use super::transport::smtp::{End, Feed, Run};
use super::transport::terms::Wish;
use super::transport::{Answer, Fate, Job, local};
use crate::base::clock;
use crate::config::settings::{DeliverTls, NextHop};
use crate::spool::queue::Lease;
use crate::wire::header::says_tls_not_required;
use crate::wire::reply::Enhanced;

/// Leases asked for at once.
const LEASES: usize = 16;

/// How long a destination rests when this host has no descriptors or memory for a connection.
const REST: Duration = Duration::from_secs(2);

/// Works on `destination` until there is nothing to do; the book has counted it already.
pub(super) fn work(shared: Arc<Shared>, destination: Arc<str>) -> impl Future<Output = ()> + Send {
    let mut cut = shared.cut.subscribe();
    // Made before the task runs for the first time, so that its seat is given up even if it never does.
    let mut worker = Worker { shared, destination, served: 0, carried: VecDeque::new(), seated: true };
    async move {
        tokio::select! {
            () = worker.run() => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    destination: Arc<str>,
    served: usize,
    /// Jobs that go next, over another connection.
    carried: VecDeque<Job>,
    /// The book counts this worker.
    seated: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only a panic or the end of a stop's patience comes here seated.
        if self.seated {
            let left = self.shared.book.lock().leave(&self.destination);
            self.shared.release(left);
        }
        self.carried.clear();
        self.shared.gone.notify_waiters();
        self.shared.wake.notify_one();
    }
}

/// Where a job goes.
struct Way {
    hop: NextHop,
    domain: String,
    line: Line,
}

/// Counts an open connection for as long as it lives, however its conversation ends.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Worker {
    async fn run(&mut self) {
        while let Some(job) = self.next_job() {
            self.handle(job).await;
        }
    }

    fn next_job(&mut self) -> Option<Job> {
        self.carried.pop_front().or_else(|| self.next_lease(true).map(Job::new))
    }

    fn next_lease(&mut self, may_retire: bool) -> Option<Held> {
        loop {
            let turn = self.shared.book.lock().turn(&self.destination, self.served, may_retire, clock::now());
            match turn {
                Turn::Lease(lease) => return Some(self.shared.hold(lease)),
                Turn::Nothing => return None,
                Turn::Retire(left) => {
                    self.seated = false;
                    self.shared.release(left);
                    return None;
                }
                Turn::AskQueue => {
                    if let Some(lease) = self.ask_queue() {
                        return Some(self.shared.hold(lease));
                    }
                }
            }
        }
    }

    fn ask_queue(&self) -> Option<Lease> {
        let now = clock::now();
        let mut leases = self.shared.queue.lease(&self.destination, now, LEASES);
        let more = leases.len() == LEASES;
        let first = if leases.is_empty() { None } else { Some(leases.remove(0)) };
        let begin = self.shared.book.lock().stock(&self.destination, leases, more, now);
        self.shared.begin(&self.destination, begin);
        first
    }

    async fn handle(&mut self, mut job: Job) {
        let snapshot = self.shared.snapshot.load_full();
        let way = way_of(&snapshot, &job);
        set_moved_apart(&snapshot, &mut job, &way);
        match way.hop {
            NextHop::Maildir(_) | NextHop::Store | NextHop::Discard => self.keep(&snapshot, job, way.hop).await,
            _ => self.send(&snapshot, job, way).await,
        }
    }

    /// Final delivery, on a thread that may wait for the disk.
    async fn keep(&mut self, snapshot: &Arc<Snapshot>, job: Job, hop: NextHop) {
        let transport = transport_of(&hop);
        let (shared, snapshot) = (self.shared.clone(), snapshot.clone());
        let destination = self.destination.clone();
        self.served += 1;
        let kept = tokio::task::spawn_blocking(move || {
            let mut job = job;
            let delivered = std::panic::catch_unwind(AssertUnwindSafe(|| {
                local::deliver(&mut job, &hop, &snapshot.config.hostname, &*shared.store);
            }));
            match delivered {
                Ok(()) => shared.book.lock().succeeded(&destination),
                Err(_) => job.answer_rest(&broken_store()),
            }
            shared.conclude(&snapshot, job, transport);
        });
        if let Err(error) = kept.await {
            tracing::error!(destination = %self.destination, %error, "a delivery failed inside");
        }
    }

    async fn send(&mut self, snapshot: &Arc<Snapshot>, mut job: Job, way: Way) {
        let transport = transport_of(&way.hop);
        let meters = self.shared.meters.clone();
        let mut connection = match self.shared.pool.take(&way.line) {
            Some(connection) => {
                meters.connections.with_label_values(&["reused"]).inc();
                connection
            }
            None => {
                let opened = self.shared.opener.open(&snapshot.config, &way.hop, &way.domain, way.line.1).await;
                match opened {
                    Ok(connection) => connection,
                    Err(answer) if answer.is_ours() => return self.rest(&answer, job),
                    Err(answer) => {
                        job.answer_rest(&answer);
                        self.shared.conclude(snapshot, job, transport);
                        self.failed(snapshot, &answer);
                        return;
                    }
                }
            }
        };
        let counted = Counted::new(&meters.open);
        let line = way.line;
        let mut feed = LineFeed { worker: self, snapshot, line: &line, transport };
        let end = Run::new(&mut connection, &snapshot.config.deliver, &mut feed, job).to_end().await;
        drop(counted);
        match end {
            // A place that the destination no longer wants taken is not kept open either.
            End::Dry if !self.shared.book.lock().is_crowded(&self.destination, clock::now()) => {
                if let Some(surplus) = self.shared.pool.put(line, connection) {
                    self.shared.handle.spawn(surplus.quit());
                }
            }
            End::Dry | End::Full => {
                self.shared.handle.spawn(connection.quit());
            }
            End::Broken { answer, untouched, was_in_use } => {
                self.carried.extend(untouched);
                if !was_in_use {
                    self.failed(snapshot, &answer);
                }
            }
        }
    }

    /// Without means of our own nothing was tried: the mail waits a moment, at its next hop, as if it had not been touched.
    fn rest(&self, answer: &Answer, job: Job) {
        let why = answer.line();
        tracing::warn!(destination = %self.destination, why, "no delivery for want of means");
        self.shared.queue.postpone(&self.destination, clock::now() + REST, &why);
        drop(job);
    }

    /// No session came about, or a new one broke.
    fn failed(&self, snapshot: &Snapshot, answer: &Answer) {
        if answer.fate != Fate::Deferred {
            return;
        }
        let why = answer.line();
        let retry = &snapshot.config.retry;
        let dead = self.shared.book.lock().failed(&self.destination, retry, clock::now(), fastrand::f64(), &why);
        if let Some((until, left)) = dead {
            tracing::warn!(destination = %self.destination, why, "destination is unreachable, its mail waits");
            self.shared.release(left);
            self.shared.queue.postpone(&self.destination, until, &why);
        }
    }
}

/// Hands a connection the jobs that may go over it.
struct LineFeed<'a> {
    worker: &'a mut Worker,
    snapshot: &'a Arc<Snapshot>,
    line: &'a Line,
    transport: &'static str,
}

impl Feed for LineFeed<'_> {
    fn next(&mut self) -> Option<Job> {
        if !self.worker.carried.is_empty() {
            return None;
        }
        let mut job = Job::new(self.worker.next_lease(false)?);
        let current = self.worker.shared.snapshot.load();
        let way = way_of(&current, &job);
        if way.line != *self.line || !Arc::ptr_eq(&current, self.snapshot) {
            self.worker.carried.push_back(job);
            return None;
        }
        set_moved_apart(&current, &mut job, &way);
        Some(job)
    }

    fn done(&mut self, job: Job) {
        self.worker.served += 1;
        let shared = self.worker.shared.clone();
        let mut book = shared.book.lock();
        let mut slowed = None;
        for answer in job.answers.iter().flatten() {
            match answer.fate {
                // A connection that breaks or hangs within a transaction asks for less in its own way.
                Fate::Deferred if answer.slow_down || !answer.is_reply => slowed = Some(answer.line()),
                // Any other reply about a recipient shows that the destination is alive.
                _ => book.succeeded(&self.worker.destination),
            }
        }
        // Once for a message, however many recipients it has there.
        if let Some(why) = &slowed {
            book.slowed(&self.worker.destination, why);
        }
        drop(book);
        if slowed.is_some() {
            let idle = shared.pool.take_all(&self.worker.destination);
            idle.into_iter().for_each(|connection| drop(shared.handle.spawn(connection.quit())));
        }
        shared.conclude(self.snapshot, job, self.transport);
    }
}

fn broken_store() -> Answer {
    Answer::local(Fate::Deferred, Enhanced(4, 3, 0), "a fault inside the store; see this server's log")
}

fn way_of(snapshot: &Snapshot, job: &Job) -> Way {
    let mailbox = &job.recipient(0).mailbox;
    let hop = snapshot.routes.next_hop(mailbox).clone();
    let line = (destination_of(&hop, mailbox.domain()), wish_of(snapshot, job, &hop));
    Way { domain: mailbox.domain().to_owned(), hop, line }
}

fn wish_of(snapshot: &Snapshot, job: &Job, hop: &NextHop) -> Wish {
    let tls = tls_of(&snapshot.config, hop);
    let require_tls = job.lease.envelope.require_tls && !stays_here(hop);
    // Only the receiver's own policies can be set aside, and only SMTP has them. REQUIRETLS wins (RFC 8689 §4.1).
    let has_policies = matches!(hop, NextHop::Mx | NextHop::Smtp { .. }) && tls != DeliverTls::None;
    let relaxed = has_policies && !require_tls && says_tls_not_required(&job.lease.content);
    Wish { tls, require_tls, relaxed }
}

/// LMTP that never leaves this machine needs no TLS to be safe from the network.
fn stays_here(hop: &NextHop) -> bool {
    match hop {
        NextHop::LmtpUnix(_) => true,
        NextHop::Lmtp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        _ => false,
    }
}

/// Recipients that the configuration sends elsewhere by now are tried there on their own.
fn set_moved_apart(snapshot: &Snapshot, job: &mut Job, way: &Way) {
    if job.waiting.len() < 2 {
        return;
    }
    for position in job.waiting.clone() {
        if snapshot.routes.destination(&job.recipient(position).mailbox) != way.line.0 {
            job.answer(position, Answer::local(Fate::Moved, Enhanced(4, 4, 0), "the route changed"));
        }
    }
}

fn transport_of(hop: &NextHop) -> &'static str {
    match hop {
        NextHop::Discard => "discard",
        NextHop::Lmtp { .. } | NextHop::LmtpUnix(_) => "lmtp",
        NextHop::Maildir(_) => "maildir",
        NextHop::Mx | NextHop::Smtp { .. } => "smtp",
        NextHop::Store => "store",
    }
}
