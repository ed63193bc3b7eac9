//! Sender Policy Framework: may this address send for this domain? I/O: DNS, through the look-up seam. RFC 7208.
//!
//! [`record`] parses, [`macros`] expands (both pure), [`evaluate`] asks and matches. Bounds: 10 terms that cause look-ups, 2 void
//! look-ups, 10 MX hosts or PTR names, and the message's own budget of look-ups and time.

pub mod evaluate;
pub mod macros;
pub mod record;

use std::net::IpAddr;

use serde::Serialize;

use super::outcome::Outcome;
pub use evaluate::check;

/// Which identity was checked (RFC 7208 §2.3, §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The name given in HELO or EHLO.
    Helo,
    /// The reverse-path.
    MailFrom,
}

/// What is checked.
#[derive(Clone, Debug)]
pub struct Query {
    /// The client.
    pub ip: IpAddr,
    /// HELO name.
    pub helo: String,
    /// The identity.
    pub identity: Identity,
    /// `local-part@domain`; for HELO, and for a null reverse-path, `postmaster@helo` (RFC 7208 §2.4).
    pub sender: String,
    /// Our own name, for `%{r}`.
    pub receiver: String,
}

impl Query {
    /// The MAIL FROM identity; with the null reverse-path, `postmaster@` the HELO name.
    pub fn mail_from(ip: IpAddr, helo: &str, reverse_path: Option<&str>, receiver: &str) -> Self {
        let sender = match reverse_path {
            Some(path) if !path.is_empty() => path.to_owned(),
            _ => format!("postmaster@{helo}"),
        };
        Query { ip, helo: helo.to_owned(), identity: Identity::MailFrom, sender, receiver: receiver.to_owned() }
    }

    /// The HELO identity.
    pub fn helo(ip: IpAddr, helo: &str, receiver: &str) -> Self {
        let sender = format!("postmaster@{helo}");
        Query { ip, helo: helo.to_owned(), identity: Identity::Helo, sender, receiver: receiver.to_owned() }
    }

    /// The domain whose record is asked for.
    pub fn domain(&self) -> &str {
        self.sender.rsplit_once('@').map_or(self.sender.as_str(), |(_, domain)| domain)
    }

    /// The local part; `postmaster` if there is none (RFC 7208 §4.3).
    pub fn local_part(&self) -> &str {
        match self.sender.rsplit_once('@') {
            Some((local, _)) if !local.is_empty() => local,
            _ => "postmaster",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpfResult {
    /// none, neutral, pass, fail, softfail, temperror or permerror.
    pub outcome: Outcome,
    /// What was checked.
    pub identity: Identity,
    /// The domain.
    pub domain: String,
    /// `local-part@domain`, as checked.
    pub sender: String,
    /// The term that decided, or what went wrong.
    pub reason: String,
    /// The owner's explanation of a fail (RFC 7208 §6.2), printable ASCII.
    pub explanation: Option<String>,
    /// Look-ups that counted against the limit of 10.
    pub lookups: u32,
}
