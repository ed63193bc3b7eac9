//! SPF, DKIM, DMARC, ARC: who sent it. I/O: DNS, through the seam in [`lookup`].
//!
//! [`verifier`] is the entry: it begins at MAIL, ends with the content and gives [`Results`]; [`decide`] turns them into an action
//! (pure), [`authres`] writes them down. Every method is ours and pure but for its look-ups; mail-auth reads and writes
//! the XML and JSON of [`reports`]. Words are RFC 8601's throughout ([`outcome`]).

pub mod arc;
pub mod asked;
pub mod author;
pub mod authres;
pub mod decide;
pub mod dkim;
pub mod dmarc;
pub mod early;
pub mod hops;
pub mod lookup;
pub mod message;
pub mod meters;
pub mod offload;
pub mod outcome;
pub mod reports;
pub mod resolver;
pub mod reverse;
pub mod signer;
pub mod spf;
pub mod tags;
pub mod verifier;

pub use asked::Asked;
pub use author::{Author, AuthorError};
pub use message::Message;
pub use outcome::Outcome;
pub use signer::Signer;
pub use verifier::{Begun, Facts, Greeted, LOOKUPS_MAX, Verifier};

/// Everything that was found out about a message's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// SPF of the HELO name.
    pub helo: spf::SpfResult,
    /// SPF of the reverse-path; nothing for `<>`.
    pub mail_from: Option<spf::SpfResult>,
    /// One for each signature that was looked at, in order.
    pub dkim: Vec<dkim::DkimResult>,
    /// DMARC.
    pub dmarc: dmarc::DmarcResult,
    /// ARC.
    pub arc: arc::ArcResult,
    /// The author, or why there is none.
    pub author: Result<Author, AuthorError>,
    /// All DNS look-ups of a message were used up: what came last may have had no answer.
    pub lookups_spent: bool,
}

impl Results {
    /// The SPF result that counts for DMARC: MAIL FROM's, or HELO's for the null reverse-path.
    pub fn spf(&self) -> &spf::SpfResult {
        self.mail_from.as_ref().unwrap_or(&self.helo)
    }
}
