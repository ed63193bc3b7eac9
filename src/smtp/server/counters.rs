//! What happened in one conversation, as plain numbers that cost an addition each. Pure.
//!
//! The service reads them when the conversation ends, and feeds its metrics from them.

/// A bound that can end or refuse something, by its configuration key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `auth_failures`
    AuthFailures,
    /// `command_bytes`
    CommandBytes,
    /// `command_timeout`
    CommandTimeout,
    /// `data_rate_min`
    DataRate,
    /// `data_timeout`
    DataTimeout,
    /// `errors`
    Errors,
    /// `handshake_timeout`
    HandshakeTimeout,
    /// `header_bytes`
    HeaderBytes,
    /// `hops`
    Hops,
    /// `junk_commands`
    JunkCommands,
    /// `messages_per_connection`
    MessagesPerConnection,
    /// `recipients`
    Recipients,
    /// `session_timeout`
    SessionTimeout,
    /// `size`
    Size,
    /// `unknown_recipients`
    UnknownRecipients,
}

impl Limit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Limit; 15] = [
        Limit::AuthFailures,
        Limit::CommandBytes,
        Limit::CommandTimeout,
        Limit::DataRate,
        Limit::DataTimeout,
        Limit::Errors,
        Limit::HandshakeTimeout,
        Limit::HeaderBytes,
        Limit::Hops,
        Limit::JunkCommands,
        Limit::MessagesPerConnection,
        Limit::Recipients,
        Limit::SessionTimeout,
        Limit::Size,
        Limit::UnknownRecipients,
    ];

    /// The configuration's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::AuthFailures => "auth_failures",
            Limit::CommandBytes => "command_bytes",
            Limit::CommandTimeout => "command_timeout",
            Limit::DataRate => "data_rate_min",
            Limit::DataTimeout => "data_timeout",
            Limit::Errors => "errors",
            Limit::HandshakeTimeout => "handshake_timeout",
            Limit::HeaderBytes => "header_bytes",
            Limit::Hops => "hops",
            Limit::JunkCommands => "junk_commands",
            Limit::MessagesPerConnection => "messages_per_connection",
            Limit::Recipients => "recipients",
            Limit::SessionTimeout => "session_timeout",
            Limit::Size => "size",
            Limit::UnknownRecipients => "unknown_recipients",
        }
    }
}

/// Codes that are counted one by one; the rest falls to its class's first.
const CODES: [u16; 30] = [
    250, 354, 220, 221, 550, 450, 451, 452, 421, 200, 214, 235, 252, 300, 334, 400, 454, 500, 501, 502, 503, 504, 530,
    535, 538, 551, 552, 553, 554, 555,
];

/// Replies by code.
#[derive(Clone, Debug, Default)]
pub struct ReplyCounts([u32; CODES.len()]);

impl ReplyCounts {
    /// Counts one reply with `code`.
    pub fn add(&mut self, code: u16) {
        let find = |code: u16| CODES.iter().position(|c| *c == code);
        if let Some(index) = find(code).or_else(|| find(code / 100 * 100)) {
            self.0[index] += 1;
        }
    }

    /// Codes that were sent, and how often; `n00` stands for codes of its class that have no count of their own.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        CODES.iter().copied().zip(self.0.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

/// What happened in one conversation.
#[derive(Clone, Debug, Default)]
pub struct SessionCounters {
    /// Replies by code.
    pub replies: ReplyCounts,
    hits: [u32; Limit::ALL.len()],
    /// Lines taken as commands, good or bad.
    pub commands: u32,
    /// Messages answered with 2xx (LMTP: to at least one recipient).
    pub messages: u32,
    /// Bytes of content taken in, refused content included.
    pub content_bytes: u64,
    /// Times that the client went on talking where RFC 2920 §3.1 makes it wait (EHLO, DATA, STARTTLS, the banner).
    pub pipelining_faults: u32,
    /// DATA with bare CR or LF, or NUL, that was refused.
    pub bare_refused: u32,
}

impl SessionCounters {
    /// How often `limit` was hit.
    pub fn hits(&self, limit: Limit) -> u32 {
        self.hits[limit as usize]
    }

    /// Limits that were hit, and how often.
    pub fn limits(&self) -> impl Iterator<Item = (Limit, u32)> + '_ {
        Limit::ALL.into_iter().zip(self.hits.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Counts a hit of `limit`.
    pub(super) fn hit(&mut self, limit: Limit) {
        self.hits[limit as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbered_in_their_order() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }

    #[test]
    fn a_rare_code_falls_to_its_class() {
        let mut counts = ReplyCounts::default();
        for code in [250, 250, 251, 599] {
            counts.add(code);
        }
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(250, 2), (200, 1), (500, 1)]);
    }
}
