//! The one line that each message gets when its fate at the door is known. I/O: the event log.
//!
//! No content, no secrets, no recipient addresses; the id leads to `weir queue show` for the rest.

use std::net::IpAddr;
use std::time::Duration;

/// What became of a message at the end of DATA. The word is a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Durable, on its way.
    Accepted,
    /// Refused for now.
    Deferred,
    /// Accepted and thrown away on purpose.
    Discarded,
    /// Durable, held for an operator.
    Held,
    /// Durable, in quarantine.
    Quarantined,
    /// Refused for good.
    Rejected,
}

impl Fate {
    /// All of them, in the order of their numbers.
    pub const ALL: [Fate; 6] =
        [Fate::Accepted, Fate::Deferred, Fate::Discarded, Fate::Held, Fate::Quarantined, Fate::Rejected];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Accepted => "accepted",
            Fate::Deferred => "deferred",
            Fate::Discarded => "discarded",
            Fate::Held => "held",
            Fate::Quarantined => "quarantined",
            Fate::Rejected => "rejected",
        }
    }
}

/// The facts of the line.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Queue id; empty if none was given out.
    pub id: &'a str,
    /// Reverse-path; empty for `<>`.
    pub from: &'a str,
    /// How many recipients were accepted.
    pub recipients: usize,
    /// Content in bytes.
    pub size: u64,
    /// The client.
    pub client: IpAddr,
    /// Its login.
    pub login: Option<&'a str>,
    /// The listener's name.
    pub listener: &'a str,
    /// What became of it.
    pub fate: Fate,
    /// Why: the reason's word, or a short text such as `score 17.2`.
    pub reason: &'a str,
    /// From the last byte of content to the reply.
    pub elapsed: Duration,
}

impl Outcome<'_> {
    /// Writes the line.
    pub fn log(&self) {
        tracing::info!(
            target: "weir::message",
            id = self.id,
            from = self.from,
            recipients = self.recipients,
            size = self.size,
            client = %self.client,
            login = self.login,
            listener = self.listener,
            decision = self.fate.as_str(),
            reason = self.reason,
            ms = self.elapsed.as_micros() as f64 / 1000.0,
            "message"
        );
    }
}
