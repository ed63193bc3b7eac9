//! Call-ahead: asks a next hop by RCPT whether it takes a recipient, and remembers the answer. I/O: network.
//!
//! `recipients = "verify"` refuses unknown recipients at the door instead of bouncing to forged senders later. The question is
//! put with the null reverse-path and no content ever follows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::transport::Answer;
use super::transport::connection::{Connection, WireFault};
use super::transport::open::{Opener, tls_of};
use crate::config::settings::{Config, NextHop};
use crate::smtp::client::reply::RemoteReply;
use crate::wire::address::Mailbox;

/// A recipient that exists is asked for again after this long. Exim: 24 h; Postfix refreshes after 7 d.
const YES_KEPT: Duration = Duration::from_secs(24 * 3600);
/// One that does not exist may be made at any time. Exim: 2 h.
const NO_KEPT: Duration = Duration::from_secs(2 * 3600);
/// Answers remembered; when full, all are forgotten.
const ANSWERS_MAX: usize = 100_000;
/// The client waits at RCPT meanwhile (RFC 5321 §4.5.3.2.3 gives 5 minutes).
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What a next hop says of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// It takes it.
    Yes,
    /// It refuses it for good.
    No,
    /// It can't be asked, or does not say.
    Unknown,
}

type Answers = HashMap<(Arc<str>, Box<str>), (Existence, Instant)>;

/// Asks and remembers.
pub struct CallAhead {
    opener: Opener,
    answers: Mutex<Answers>,
}

impl CallAhead {
    /// Asks through `opener`.
    pub fn new(opener: Opener) -> Self {
        CallAhead { opener, answers: Mutex::default() }
    }

    /// Does `hop` take `recipient`?
    pub async fn ask(&self, config: &Config, hop: &NextHop, recipient: &Mailbox) -> Existence {
        let key = (super::route::destination_of(hop, recipient.domain()), Box::from(recipient.as_str()));
        if let Some(known) = self.known(&key, Instant::now()) {
            return known;
        }
        let asked = tokio::time::timeout(QUESTION_TIMEOUT, self.converse(config, hop, recipient)).await;
        let existence = match asked {
            Ok(Ok(reply)) if reply.is_positive() => Existence::Yes,
            Ok(Ok(reply)) if reply.is_permanent() => Existence::No,
            _ => Existence::Unknown,
        };
        self.remember(key, existence, Instant::now());
        existence
    }

    fn known(&self, key: &(Arc<str>, Box<str>), now: Instant) -> Option<Existence> {
        self.answers.lock().get(key).filter(|(_, until)| *until > now).map(|(existence, _)| *existence)
    }

    fn remember(&self, key: (Arc<str>, Box<str>), existence: Existence, now: Instant) {
        let kept = match existence {
            Existence::Yes => YES_KEPT,
            Existence::No => NO_KEPT,
            Existence::Unknown => return,
        };
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, (existence, now + kept));
    }

    async fn converse(&self, config: &Config, hop: &NextHop, recipient: &Mailbox) -> Result<RemoteReply, Answer> {
        let mut connection = self.opener.open(config, hop, recipient.domain(), tls_of(config, hop).into()).await?;
        let answer = question(&mut connection, recipient, config.deliver.command_timeout).await;
        connection.quit().await;
        answer.map_err(|fault| {
            let status = crate::wire::reply::Enhanced(4, 4, 2);
            Answer::local(super::transport::Fate::Deferred, status, fault.to_string())
        })
    }
}

/// MAIL and RCPT; gives the reply to RCPT, or the one that refused MAIL as a temporary one.
async fn question(connection: &mut Connection, recipient: &Mailbox, wait: Duration) -> Result<RemoteReply, WireFault> {
    connection.put(b"MAIL FROM:<>\r\n", wait).await?;
    connection.flush(wait).await?;
    let mail = connection.reply(wait).await?;
    if !mail.is_positive() {
        return Ok(RemoteReply { code: 450, ..mail });
    }
    connection.put(format!("RCPT TO:<{recipient}>\r\n").as_bytes(), wait).await?;
    connection.flush(wait).await?;
    connection.reply(wait).await
}
