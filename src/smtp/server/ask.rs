//! What a server conversation asks, and what it may be answered. Pure values.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::content::Content;
use crate::base::secret::Secret;
use crate::wire::address::Mailbox;
use crate::wire::envelope::{Envelope, Origin, Recipient};
use crate::wire::header::HeaderFacts;
use crate::wire::reply::Reply;
use crate::wire::sasl::ScramKeys;

/// A question of the conversation. While it is open no input is consumed.
#[derive(Debug)]
pub enum Ask {
    /// A client is there (asked before the banner, and again after XCLIENT). Answer: `Go` or `Refuse` (then the session closes).
    Connect {
        /// The client's address.
        ip: IpAddr,
    },
    /// HELO, EHLO or LHLO: what is known of the client is whole now, and look-ups may begin. Answer: `Go` or `Refuse`.
    Hello {
        /// Where the session comes from.
        origin: Arc<Origin>,
    },
    /// Check a password (PLAIN, LOGIN). Answer: `Authenticated` or `Refuse`.
    Password {
        /// Where the session comes from.
        origin: Arc<Origin>,
        /// The login.
        login: String,
        /// The password.
        password: Secret,
    },
    /// SCRAM needs what is stored for a login. Answer: `ScramKeys` (for an unknown login too: made up, stable, never matching).
    ScramKeys {
        /// Where the session comes from.
        origin: Arc<Origin>,
        /// The login.
        login: String,
    },
    /// A SCRAM exchange ended without a match; for counting. Answer: `Go` or `Refuse`.
    AuthFailed {
        /// Where the session comes from.
        origin: Arc<Origin>,
        /// The login that was tried.
        login: String,
    },
    /// MAIL. Answer: `Go` or `Refuse`.
    Mail {
        /// Where the session comes from.
        origin: Arc<Origin>,
        /// The reverse-path; nothing for `<>`.
        reverse_path: Option<Mailbox>,
        /// `SIZE=`, if given.
        size: Option<u64>,
    },
    /// RCPT. Answer: `Go`, `Refuse`, or `Refuse` with a 4xx.
    Rcpt {
        /// Where the session comes from.
        origin: Arc<Origin>,
        /// The reverse-path; nothing for `<>`.
        reverse_path: Option<Mailbox>,
        /// Whom.
        recipient: Recipient,
        /// Recipients accepted before in this transaction.
        accepted: u32,
    },
    /// End of the content. Answer: `Message` with one reply (SMTP), or one a recipient (LMTP).
    Message(Box<Received>),
}

/// A whole message as it came in.
#[derive(Debug)]
pub struct Received {
    /// Envelope and origin.
    pub envelope: Envelope,
    /// Content after dot-unstuffing (DATA) or as it was (BDAT).
    pub content: Content,
    /// It came by BDAT.
    pub chunked: bool,
    /// It has a bare CR or LF (BDAT, or a listener that accepts them), or a NUL.
    pub bare: bool,
    /// What its header section holds.
    pub header: HeaderFacts,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// Go on; the machine sends its standard positive reply.
    Go,
    /// Say this instead of a positive reply. A 421 closes the session after it.
    Refuse(Reply),
    /// The login is who it says it is. Holds its canonical name.
    Authenticated(Arc<str>),
    /// What is stored for a login.
    ScramKeys(ScramKeys),
    /// One reply for SMTP; for LMTP one a recipient, in order.
    Message(Vec<Reply>),
}
