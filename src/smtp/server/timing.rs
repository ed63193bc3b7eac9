//! When a conversation has waited long enough. Pure. RFC 5321 §4.5.3.2.
//!
//! A command has to be whole within `command_timeout` of the reply before it, however it is dripped; content
//! must go on within `data_timeout` and keep its average rate; the session as a whole has its own end. While a question
//! is open it is not the client who is late, and nothing runs.

use std::time::{Duration, Instant};

use super::counters::Limit;
use super::session::Session;
use super::state::State;
use crate::config::limits::Limits;
use crate::wire::reply::{Enhanced, Reply};

/// A client whose transaction was let finish while the server stops has this long for its next command.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(5);

/// When content that began at `began` and has `bytes` so far falls below its floor, should nothing more come.
pub(super) fn rate_deadline(limits: &Limits, began: Instant, bytes: u64) -> Option<Instant> {
    let paid = Duration::from_secs(bytes.checked_div(u64::from(limits.data_rate_min))?);
    began.checked_add(paid.max(limits.data_grace))
}

impl Session {
    /// The next deadline, and what it is of.
    pub(super) fn deadline(&self) -> Option<(Instant, Limit)> {
        let limits = &self.context.settings.limits;
        let since = self.context.waiting_since;
        let waiting = match &self.state {
            State::Asked(_) | State::Closed => return None,
            State::Handshake | State::StartTls => (since + limits.handshake_timeout, Limit::HandshakeTimeout),
            State::Receiving(receiving) => self.content_deadline(receiving.began(), receiving.bytes()),
            State::Chunking(chunking) if chunking.is_inside() => {
                self.content_deadline(chunking.began(), chunking.chunk_bytes())
            }
            State::Refused(refused) => self.content_deadline(refused.began(), refused.bytes()),
            _ if self.context.stopping => (since + STOPPING_TIMEOUT.min(limits.command_timeout), Limit::CommandTimeout),
            _ => (since + limits.command_timeout, Limit::CommandTimeout),
        };
        let session = (self.opened + limits.session_timeout, Limit::SessionTimeout);
        Some(if session.0 < waiting.0 { session } else { waiting })
    }

    fn content_deadline(&self, began: Instant, bytes: u64) -> (Instant, Limit) {
        let limits = &self.context.settings.limits;
        let silent = (self.context.waiting_since + limits.data_timeout, Limit::DataTimeout);
        match rate_deadline(limits, began, bytes) {
            Some(slow) if slow < silent.0 => (slow, Limit::DataRate),
            _ => silent,
        }
    }

    /// Ends the session if its deadline has passed.
    pub(super) fn time_out(&mut self, now: Instant) {
        let Some((at, limit)) = self.deadline() else { return };
        if now < at {
            return;
        }
        self.context.counters.hit(limit);
        self.state = match limit {
            // The peer speaks TLS now, or nothing; a reply in the clear would only spoil its handshake.
            Limit::HandshakeTimeout => self.context.close(),
            _ if self.context.stopping => self.context.reply_and_close(&Reply::STOPPING),
            limit => {
                let reply = self.timeout_reply(limit);
                self.context.reply_and_close(&reply)
            }
        };
    }

    fn timeout_reply(&self, limit: Limit) -> Reply {
        let limits = &self.context.settings.limits;
        let text = match limit {
            Limit::DataRate => {
                format!("Content came slower than {} bytes a second (data_rate_min)", limits.data_rate_min)
            }
            Limit::DataTimeout => format!("No content for {} seconds (data_timeout)", limits.data_timeout.as_secs()),
            Limit::SessionTimeout => {
                format!("Session lasted {} seconds (session_timeout)", limits.session_timeout.as_secs())
            }
            _ => format!("No command for {} seconds (command_timeout)", limits.command_timeout.as_secs()),
        };
        Reply::new(421, Enhanced(4, 4, 2), text)
    }
}
