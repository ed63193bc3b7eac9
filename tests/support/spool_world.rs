//! Words of the spool's tests: messages that know their own content, and calls that wait for the answer.
#![allow(clippy::unwrap_used, dead_code)] // Each test file uses some of them.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use weir::base::content::Content;
use weir::base::id::QueueId;
use weir::spool::queue::{Disposition, Lease, MailQueue, NewMessage, Outcome, SpoolFault};
use weir::spool::{Options, Spool, meters::Meters};
use weir::wire::address::Mailbox;
use weir::wire::envelope::{Envelope, Origin, Recipient};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn small() -> Options {
    Options { segment_bytes: 1 << 20, segments_ahead: 1, free_space_min: 0, ..Options::default() }
}

pub fn open(directory: &Path) -> Spool {
    Spool::open(directory, small(), Meters::unregistered()).unwrap()
}

/// Content that follows from the id, so that a wrong body is seen.
pub fn content(id: QueueId, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(id.0);
    (0..bytes).map(|_| random.u8(b' '..b'~')).collect()
}

pub fn is_intact(lease: &Lease) -> bool {
    lease.content[..] == content(lease.id, lease.content.len())[..]
}

pub fn message(spool: &Spool, destination: &str, bytes: usize) -> NewMessage {
    message_with(spool.next_id(), "example.org", &[destination], bytes)
}

pub fn message_from(spool: &Spool, sender: &str, destination: &str, bytes: usize) -> NewMessage {
    message_with(spool.next_id(), sender, &[destination], bytes)
}

pub fn message_with(id: QueueId, sender: &str, destinations: &[&str], bytes: usize) -> NewMessage {
    let recipient = |n| Recipient::plain(Mailbox::parse(&format!("r{n}@example.net"), false).unwrap());
    let origin = Origin { ip: [192, 0, 2, 1].into(), helo: "client".into(), ..Origin::local("mx") };
    let sender = Mailbox::parse(&format!("s@{sender}"), false).unwrap();
    let envelope = Envelope::plain(origin, Some(sender), (0..destinations.len()).map(recipient).collect());
    NewMessage {
        id,
        envelope: Arc::new(envelope),
        destinations: destinations.iter().map(|d| Arc::from(*d)).collect(),
        prefix: b"Received: by us\r\n"[..].into(),
        content: Content::from_bytes(content(id, bytes)),
        disposition: Disposition::Deliver,
        verdict: "ok".into(),
    }
}

pub fn accept(spool: &Spool, message: NewMessage) -> Result<QueueId, SpoolFault> {
    let (sender, receiver) = mpsc::channel();
    let id = message.id;
    spool.accept(message, Box::new(move |result| sender.send(result).unwrap_or(())));
    receiver.recv_timeout(PATIENCE).expect("the spool answers").map(|()| id)
}

pub fn lease_one(spool: &Spool, destination: &str) -> Lease {
    spool.lease(destination, SystemTime::now(), 1).pop().expect("something is due")
}

pub fn delivered() -> Outcome {
    Outcome::Delivered { remote: "250 ok".into() }
}

/// The same outcome for all recipients.
pub fn finish(spool: &Spool, lease: Lease, outcome: Outcome) -> Result<(), SpoolFault> {
    let outcomes = lease.recipients.iter().map(|r| (r.index, outcome.clone())).collect();
    let (sender, receiver) = mpsc::channel();
    spool.finish(lease, outcomes, Vec::new(), Box::new(move |result| sender.send(result).unwrap_or(())));
    receiver.recv_timeout(PATIENCE).expect("the spool answers")
}
