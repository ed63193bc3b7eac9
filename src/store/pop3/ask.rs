//! What a POP3 conversation asks, and what it may be answered. Pure values.

use std::sync::Arc;

use crate::base::secret::Secret;
use crate::wire::sasl::ScramKeys;

/// One message of an opened maildrop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Size with CR LF line endings, before dot-stuffing.
    pub size: u64,
    /// Unique-id (RFC 1939 §7): 1 to 70 graphic ASCII characters, stable.
    pub uidl: Box<str>,
}

/// A question of the conversation. While it is open no input is consumed.
#[derive(Debug)]
pub enum Ask {
    /// Check a password. Answer: `Authenticated`, `Refused`, `TooManyFailures` or `Unavailable`.
    Password {
        /// The login.
        login: String,
        /// The password.
        password: Secret,
    },
    /// Check an APOP digest. Answer: as for `Password`.
    Apop {
        /// The login.
        login: String,
        /// The banner's timestamp, angle brackets included.
        timestamp: Arc<str>,
        /// 32 hexadecimal digits.
        digest: String,
    },
    /// SCRAM needs what is stored for a login. Answer: `ScramKeys` (made up for an unknown one), `TooManyFailures` or `Unavailable`.
    ScramKeys {
        /// The login.
        login: String,
    },
    /// A SCRAM exchange ended without a match; for counting. Answer: `Refused`.
    AuthFailed,
    /// Lock and list the maildrop. Answer: `Opened`, `InUse` or `Unavailable`.
    Open {
        /// The user's name.
        user: Arc<str>,
    },
    /// Read a piece of a message. Answer: `Piece` or `Unavailable`.
    Read {
        /// Place in the list of `Opened`.
        index: usize,
        /// First byte.
        offset: u64,
    },
    /// Remove messages for good. Answer: `Removed`.
    Remove {
        /// Places in the list of `Opened`.
        indexes: Vec<usize>,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// The login is this user's.
    Authenticated(Arc<str>),
    /// Another session has the maildrop.
    InUse,
    /// The maildrop, oldest message first.
    Opened(Vec<Entry>),
    /// Bytes of a message, as stored.
    Piece {
        /// From the offset that was asked for.
        bytes: Vec<u8>,
        /// Nothing comes after them.
        last: bool,
    },
    /// Login or password is wrong.
    Refused,
    /// How many messages could not be removed.
    Removed {
        /// 0 if all went well.
        failed: usize,
    },
    /// What is stored for a login.
    ScramKeys(ScramKeys),
    /// Too many logins failed of late, of this address or for this login.
    TooManyFailures,
    /// Trouble of ours; later may be better.
    Unavailable,
}
