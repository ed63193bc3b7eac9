//! Ways to hand mail over, and what they answer. Pure here; the I/O is in the modules below.

pub mod connection;
mod form;
pub mod judge;
pub mod local;
pub mod maildir;
pub mod open;
mod session;
pub mod sick;
pub mod smtp;
pub mod target;
pub mod terms;
pub mod tls;

use std::fmt;
use std::sync::Arc;

use crate::deliver::held::Held;
use crate::smtp::client::reply::RemoteReply;
use crate::wire::address::Mailbox;
use crate::wire::envelope::Recipient;
use crate::wire::reply::{Enhanced, Reply};

/// What an attempt came to for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not now.
    Deferred,
    /// Handed over.
    Delivered,
    /// Thrown away as configured.
    Discarded,
    /// Never.
    Failed,
    /// The configuration names another next hop since the mail was queued: try again there at once.
    Moved,
}

/// What a next hop, a store or the network said, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it came to.
    pub fate: Fate,
    /// Status code of RFC 3463.
    pub status: Enhanced,
    /// One printable line: the reply, or what failed.
    pub text: String,
    /// The text is the reply of an SMTP or LMTP server.
    pub is_reply: bool,
    /// `mx.example.org [192.0.2.1]`.
    pub remote: Option<Arc<str>>,
    /// The next hop takes DSN requests and reports success itself (RFC 3461 §5.2.2).
    pub reports_success: bool,
    /// The next hop asks to be pushed less.
    pub slow_down: bool,
    /// What TLS it was said over: `plain`, `unverified`, `verified`, `sts`, `dane`; nothing without a session.
    pub tls: &'static str,
}

/// This host has no descriptor or memory left (RFC 3463 §3.4: system full).
const LACK_OF_MEANS: Enhanced = Enhanced(4, 3, 1);

impl Answer {
    /// True if what failed is a means of this host: the next hop is not to blame, and the mail was not tried.
    pub fn is_ours(&self) -> bool {
        !self.is_reply && self.status == LACK_OF_MEANS
    }

    /// What a server replied about a recipient.
    pub fn from_reply(reply: &RemoteReply, remote: &Arc<str>, reports_success: bool) -> Self {
        let status = reply.status();
        let fate = match reply.code {
            200..300 => Fate::Delivered,
            500.. if !is_about_us(status) => Fate::Failed,
            _ => Fate::Deferred,
        };
        let slow_down = matches!(reply.code, 421 | 432) || (fate == Fate::Deferred && status.1 == 7);
        let remote = Some(remote.clone());
        Answer { fate, status, text: reply.one_line(), is_reply: true, remote, reports_success, slow_down, tls: "" }
    }

    /// Something of ours or of the network; `fate` says whether for now or for ever.
    pub fn local(fate: Fate, status: Enhanced, text: impl Into<String>) -> Self {
        let text: String = text.into().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Answer { fate, status, text, is_reply: false, remote: None, reports_success: false, slow_down: false, tls: "" }
    }

    /// A refusal that we decide on behalf of a next hop.
    pub fn unfit(reply: &Reply, remote: &Arc<str>) -> Self {
        let status = reply.enhanced.unwrap_or(Enhanced(5, 0, 0));
        Answer { remote: Some(remote.clone()), ..Answer::local(Fate::Failed, status, reply.text.as_ref()) }
    }

    /// The line for the queue and the log: text and who said it.
    pub fn line(&self) -> String {
        match &self.remote {
            Some(remote) => format!("{} ({remote})", self.text),
            None => self.text.clone(),
        }
    }
}

/// Exchange Online's 5xx that say nothing about the message or its recipient. They must not bounce a whole queue:
/// hourly limits of a recipient (5.2.121, 5.2.122), and our own address or certificate not let in (5.7.64 without the
/// right certificate; 5.7.508, 5.7.606 to 5.7.649 and 5.7.708 for a throttled or banned address), which an operator mends.
fn is_about_us(status: Enhanced) -> bool {
    matches!(status, Enhanced(5, 2, 121 | 122) | Enhanced(5, 7, 64 | 508 | 606..=649 | 708))
}

/// Why a store did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// No such mailbox: `5.1.1`.
    NoSuchUser,
    /// It is full: deferred, `4.2.2`.
    OverQuota,
    /// The disk or a lock: deferred, `4.3.0`; the text is for the log.
    Failed(String),
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreFault::NoSuchUser => f.write_str("no such mailbox here"),
            StoreFault::OverQuota => f.write_str("the mailbox is full"),
            StoreFault::Failed(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for StoreFault {}

impl From<StoreFault> for Answer {
    fn from(fault: StoreFault) -> Self {
        let (fate, status) = match fault {
            StoreFault::NoSuchUser => (Fate::Failed, Enhanced(5, 1, 1)),
            StoreFault::OverQuota => (Fate::Deferred, Enhanced(4, 2, 2)),
            StoreFault::Failed(_) => (Fate::Deferred, Enhanced(4, 3, 0)),
        };
        Answer::local(fate, status, fault.to_string())
    }
}

/// The embedded store, as delivery sees it. Called on a thread that may block.
pub trait LocalStore: Send + Sync {
    /// Puts one message into the mailbox of `recipient`, durably. `prefix` has all fields that we add, `Return-Path` first, each ended by CR LF.
    /// # Errors
    /// See [`StoreFault`].
    fn deliver(&self, recipient: &Mailbox, prefix: &[u8], content: &[u8]) -> Result<(), StoreFault>;
}

/// A lease on its way, with the answers so far.
#[derive(Debug)]
pub struct Job {
    /// The lease.
    pub lease: Held,
    /// Positions in the lease's recipients that still have no answer.
    pub waiting: Vec<usize>,
    /// By position.
    pub answers: Vec<Option<Answer>>,
}

impl Job {
    /// A job without answers.
    pub fn new(lease: Held) -> Self {
        let count = lease.recipients.len();
        Job { lease, waiting: (0..count).collect(), answers: vec![None; count] }
    }

    /// The recipient at `position`.
    pub fn recipient(&self, position: usize) -> &Recipient {
        &self.lease.envelope.recipients[self.lease.recipients[position].index as usize]
    }

    /// Gives the answer for one recipient.
    pub fn answer(&mut self, position: usize, answer: Answer) {
        self.waiting.retain(|waiting| *waiting != position);
        self.answers[position] = Some(answer);
    }

    /// Gives the same answer for all that wait.
    pub fn answer_rest(&mut self, answer: &Answer) {
        for position in std::mem::take(&mut self.waiting) {
            self.answers[position] = Some(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::reply::ReplyReader;

    #[test]
    fn what_large_receivers_say_is_understood() {
        use Fate::{Deferred, Delivered, Failed};
        // reply -> fate, slow down
        let table = [
            ("250 2.6.0 <x> Queued mail for delivery", Delivered, false),
            ("451 4.7.500 Server busy. Please try again later", Deferred, true),
            ("451 4.7.651 The mail server has been temporarily rate limited", Deferred, true),
            ("451 4.7.850 IP throttled", Deferred, true),
            ("432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", Deferred, true),
            ("452 4.5.3 Too many recipients", Deferred, false),
            ("452 4.2.2 Mailbox full", Deferred, false),
            ("450 4.2.0 Greylisted", Deferred, false),
            ("421 4.3.2 Service not active", Deferred, true),
            ("421 4.7.28 rate of unsolicited mail", Deferred, true),
            ("451 4.7.26 Unauthenticated mail over IPv6", Deferred, true),
            ("550 5.2.121 Recipient's per hour message receive limit exceeded", Deferred, false),
            ("550 5.2.122 Recipient's per hour limit from this sender exceeded", Deferred, false),
            ("550 5.7.64 TenantAttribution; Relay Access Denied", Deferred, true),
            ("550 5.7.508 Access denied, sending IP exceeded permitted limits", Deferred, true),
            ("550 5.7.606 Access denied, banned sending IP", Deferred, true),
            ("550 5.7.649 Access denied, banned sending IP", Deferred, true),
            ("550 5.7.708 Access denied, traffic not accepted from this IP", Deferred, true),
            ("550 5.7.705 Access denied, tenant has exceeded threshold", Failed, false),
            ("550 5.7.750 Service unavailable. Client blocked", Failed, false),
            ("550 5.7.25 PTR required", Failed, false),
            ("550 5.4.1 Recipient address rejected: Access denied", Failed, false),
            ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", Failed, false),
            ("550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", Failed, false),
            ("554 5.4.14 Hop count exceeded", Failed, false),
            ("552 5.3.4 Message too big", Failed, false),
            ("553 no enhanced code", Failed, false),
            ("454 TLS not available", Deferred, false),
        ];
        for (line, fate, slow_down) in table {
            let mut reader = ReplyReader::default();
            reader.feed(format!("{line}\r\n").as_bytes());
            let reply = reader.next_reply().expect("a reply").expect("a whole one");
            let answer = Answer::from_reply(&reply, &"x".into(), false);
            assert_eq!((answer.fate, answer.slow_down), (fate, slow_down), "{line}");
        }
    }
}
