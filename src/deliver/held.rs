//! A lease in the hands of a worker: ended on purpose, or given back by its fall. I/O: calls the queue when dropped.
//!
//! Invariant: no way out of a worker loses a lease. A task that is cut gives it back untouched, so that the item is due again at
//! once; one that panics defers it, because a message that breaks us must neither spin nor stop the mail behind it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock;
use crate::spool::queue::{Lease, MailQueue, Outcome};

/// A message that broke a worker is tried again after this, as after a first deferral.
const PANIC_DELAY: Duration = Duration::from_secs(300);

/// The lease and where it goes if nobody ends it.
pub struct Held {
    lease: Option<Lease>,
    queue: Option<Arc<dyn MailQueue>>,
}

impl Held {
    /// Takes charge of `lease`, which came from `queue`.
    pub fn new(lease: Lease, queue: Arc<dyn MailQueue>) -> Self {
        Held { lease: Some(lease), queue: Some(queue) }
    }

    /// A lease of no queue, for a client that sends one message of its own.
    pub fn loose(lease: Lease) -> Self {
        Held { lease: Some(lease), queue: None }
    }

    /// Takes the lease out, to finish it.
    pub fn into_lease(mut self) -> Lease {
        self.lease.take().expect("a held lease is there until it is taken or dropped")
    }
}

impl Deref for Held {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        self.lease.as_ref().expect("a held lease is there until it is taken or dropped")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Lease {
        self.lease.as_mut().expect("a held lease is there until it is taken or dropped")
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lease.fmt(f)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(lease), Some(queue)) = (self.lease.take(), &self.queue) else {
            return;
        };
        if !std::thread::panicking() {
            return queue.release(lease);
        }
        tracing::error!(id = %lease.id, destination = %lease.destination, "a delivery failed inside; the message waits");
        let next = clock::now() + PANIC_DELAY;
        let deferred = |delay_notified| Outcome::Deferred {
            remote: "a fault inside this server; see its log".to_owned(),
            next,
            delay_notified,
        };
        let outcomes = lease.recipients.iter().map(|to| (to.index, deferred(to.delay_notified))).collect();
        queue.finish(lease, outcomes, Vec::new(), Box::new(|_| ()));
    }
}
