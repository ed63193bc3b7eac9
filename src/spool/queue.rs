//! What a queue of mail promises to those who fill it and those who empty it. Pure: the contract, no storage.
//!
//! Content is kept once a message; what is leased and finished is an *item*: one message for one destination, with
//! all its recipients there. A destination is an opaque text that `flow` derives from the configuration (a
//! domain for mail that goes by MX, a next hop's URL otherwise); concurrency, back-off and fairness are per destination.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::wire::envelope::Envelope;
use crate::wire::reply::Reply;

/// What becomes of a message once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Deliver as soon as possible.
    Deliver,
    /// Keep until an operator releases it, with the reason.
    Hold(String),
    /// Keep as spam until released, dropped or too old, with the reason.
    Quarantine(String),
    /// Accepted and thrown away on purpose: counted, not kept; with the reason.
    Discard(String),
}

/// A message to be kept.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its id, from the spool's own source.
    pub id: QueueId,
    /// The envelope; recipients are referred to by their index from here on.
    pub envelope: Arc<Envelope>,
    /// The destination of each recipient, in the envelope's order.
    pub destinations: Vec<Arc<str>>,
    /// Header fields that we add in front (`Received`, `Authentication-Results` …), each ended by CR LF.
    pub prefix: Arc<[u8]>,
    /// The content as received.
    pub content: Content,
    /// What to do with it.
    pub disposition: Disposition,
    /// One line about the verdict, for `queue show` and the audit; no content, no secrets.
    pub verdict: Arc<str>,
}

/// Why the spool did not take a message. The message is not kept, and the client keeps the duty for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolFault {
    /// Below the free-space floor or above the queue's bound: `452 4.3.1`.
    Full,
    /// The write or sync failed: `451 4.3.0`. The text is for the log.
    Failed(Arc<str>),
    /// The bounded queue to the committer is full: `451 4.3.2`.
    Busy,
    /// The spool is closed or closing: `421 4.3.2`.
    Stopping,
}

impl fmt::Display for SpoolFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpoolFault::Full => f.write_str("the spool is full"),
            SpoolFault::Failed(why) => write!(f, "the spool failed: {why}"),
            SpoolFault::Busy => f.write_str("the spool is busy"),
            SpoolFault::Stopping => f.write_str("the spool is stopping"),
        }
    }
}

impl std::error::Error for SpoolFault {}

impl SpoolFault {
    /// The reply that a client gets.
    pub fn reply(&self) -> Reply {
        match self {
            SpoolFault::Full => Reply::NO_SPACE,
            SpoolFault::Failed(_) => Reply::LOCAL_TROUBLE,
            SpoolFault::Busy => Reply::BUSY,
            SpoolFault::Stopping => Reply::STOPPING,
        }
    }
}

/// Called once, from the committer's thread, when the fate of a write is known. Must be quick and must not block.
pub type Done = Box<dyn FnOnce(Result<(), SpoolFault>) + Send>;

/// One recipient of a leased item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedRecipient {
    /// Index in the envelope's recipients.
    pub index: u32,
    /// Attempts made before this lease.
    pub attempts: u32,
    /// True once a delay notice was sent for it.
    pub delay_notified: bool,
}

/// One message for one destination, lent to a delivery worker. Not leased again until finished or released.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    /// The destination that the item waited for.
    pub destination: Arc<str>,
    /// The recipients at this destination that still wait.
    pub recipients: Vec<LeasedRecipient>,
    /// When the message was accepted.
    pub accepted: SystemTime,
    /// Header fields to send before the content.
    pub prefix: Arc<[u8]>,
    /// The content: still hot in memory, or mapped from its segment.
    pub content: Content,
}

/// What one delivery attempt came to for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop or store took it.
    Delivered {
        /// What it said, and who: `250 2.0.0 ok (mx.example.org [192.0.2.1])`.
        remote: String,
    },
    /// Not now.
    Deferred {
        /// What the remote or the network said.
        remote: String,
        /// When to try again.
        next: SystemTime,
        /// True if a delay notice goes out with this attempt.
        delay_notified: bool,
    },
    /// Never; a bounce was made where one is due.
    Bounced {
        /// What the remote said.
        remote: String,
    },
    /// Too old; a bounce was made where one is due.
    Expired {
        /// The last thing a remote said.
        remote: String,
    },
    /// Thrown away because the configuration says so.
    Discarded,
    /// Put on hold by the delivery side (an operator's choice or a limit).
    Held {
        /// Why.
        reason: String,
    },
}

/// A destination with something due, as [`MailQueue::due`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDestination {
    /// The destination.
    pub destination: Arc<str>,
    /// Items due now.
    pub due: usize,
    /// Since when the oldest of them is due.
    pub oldest_due: SystemTime,
}

/// A queue of mail. All calls return quickly; none waits for the disk, except that content may be paged in when read.
pub trait MailQueue: Send + Sync {
    /// The next id.
    fn next_id(&self) -> QueueId;

    /// Takes `message`; `done(Ok)` means that it is on stable storage.
    fn accept(&self, message: NewMessage, done: Done);

    /// Destinations with items due at `now` and not leased, at most `most`, longest waiting first.
    fn due(&self, now: SystemTime, most: usize) -> Vec<DueDestination>;

    /// When the next item becomes due, if any waits.
    fn next_due(&self) -> Option<SystemTime>;

    /// Lends up to `most` items of `destination` that are due at `now`, fair between senders (reverse-path domain or login), oldest first within one.
    fn lease(&self, destination: &str, now: SystemTime, most: usize) -> Vec<Lease>;

    /// Lends up to `most` items, of whatever destination and not leased, whose message was accepted before `accepted_before`,
    /// so that mail to a destination that is never tried can still expire.
    fn lease_older_than(&self, accepted_before: SystemTime, null_sender_only: bool, most: usize) -> Vec<Lease>;

    /// Ends a lease: `outcomes` names each leased recipient once by its index; messages in `generated` (bounces, delay
    /// notices) are accepted in the same commit, so that neither exists without the other.
    ///
    /// `done(Err)` says that it is not durable yet: the spool keeps the outcomes and writes them as soon as the disk lets
    /// it, and until then the item is not leased again, so that a sick disk makes no duplicates.
    fn finish(&self, lease: Lease, outcomes: Vec<(u32, Outcome)>, generated: Vec<NewMessage>, done: Done);

    /// Gives a lease back untouched; the item is due again at once.
    fn release(&self, lease: Lease);

    /// Moves all waiting items of `destination` that are due before `until` to `until`, without touching them one by one: the
    /// destination is known to be down. `why` is what `queue why` answers for each of them.
    fn postpone(&self, destination: &str, until: SystemTime, why: &str);

    /// Registers the callback that hears of new due items; called from the committer's thread, must be quick. It is
    /// given a lease on an item whose content is still hot, and may keep it or hand it back to be leased later.
    fn on_fresh(&self, hear: FreshListener);
}

/// What an item is waiting for, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ItemState {
    /// Its time has not come.
    Waiting = 0,
    /// Due, and not leased yet.
    Ready = 1,
    /// With a delivery worker.
    Leased = 2,
    /// Stopped by an operator, a limit or damage.
    Held = 3,
    /// Kept as spam.
    Quarantined = 4,
}

impl ItemState {
    /// All of them, in the order of their numbers.
    pub const ALL: [ItemState; 5] =
        [ItemState::Waiting, ItemState::Ready, ItemState::Leased, ItemState::Held, ItemState::Quarantined];

    /// The name in lists and metrics.
    pub fn name(self) -> &'static str {
        match self {
            ItemState::Waiting => "waiting",
            ItemState::Ready => "ready",
            ItemState::Leased => "leased",
            ItemState::Held => "held",
            ItemState::Quarantined => "quarantined",
        }
    }
}

/// Hears of each fresh item; `None` means taken, `Some(lease)` hands it back.
pub type FreshListener = Arc<dyn Fn(Lease) -> Option<Lease> + Send + Sync>;
