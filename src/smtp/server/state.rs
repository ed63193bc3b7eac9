//! The protocol states of a conversation. Pure.
//!
//! Each variant owns what is true in it and nothing else; a transition consumes it.

use super::auth::Exchange;
use super::chunk::{Chunking, Refused};
use super::context::Hello;
use super::data::Receiving;
use super::transaction::Transaction;
use crate::wire::envelope::Recipient;
use crate::wire::sasl::ScramFirst;

/// Where a conversation stands.
pub(super) enum State {
    /// A question is open.
    Asked(Asked),
    /// AUTH waits for the client's next line.
    Authenticating(Exchange),
    /// BDAT has begun (RFC 3030).
    Chunking(Box<Chunking>),
    /// It is over.
    Closed,
    /// The driver makes the TLS handshake.
    Handshake,
    /// Between transactions.
    Ready,
    /// DATA's content comes in.
    Receiving(Box<Receiving>),
    /// A chunk that was refused is swallowed.
    Refused(Box<Refused>),
    /// STARTTLS was taken; its reply leaves with the control.
    StartTls,
    /// MAIL was taken.
    Transaction(Box<Transaction>),
}

/// What was asked.
pub(super) enum Asked {
    /// A SCRAM mismatch was reported.
    AuthFailed,
    /// May the client talk?
    Connect,
    /// Who it says it is.
    Hello(Hello),
    /// May it send from there?
    Mail(Box<Transaction>),
    /// What becomes of the message? LMTP answers to so many recipients.
    Message {
        /// Replies due.
        replies: usize,
    },
    /// Is the password right?
    Password,
    /// May it send to there?
    Rcpt(Box<Transaction>, Box<Recipient>),
    /// What is stored for the login?
    ScramKeys(Box<ScramFirst>),
}
