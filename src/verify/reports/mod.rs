//! Reports about identity and transport: DMARC aggregate (RFC 9990), DMARC failure (RFC 9991), TLS (RFC 8460). I/O: DNS, one folder.
//!
//! [`ledger`] counts rows by day and domain, bounded; [`journal`] keeps them on disk. [`aggregate`], [`failure`] and [`tls`] say what a row is
//! and write the report, [`letter`] makes a message of it, [`destination`] asks whether it may be sent there. [`read`] makes a
//! summary of what others send us, [`received`] keeps those. mail-auth knows the XML of DMARC; its types stay inside these files.
//! Not here: when reports are sent, and sending them.

pub mod aggregate;
pub mod destination;
pub mod failure;
pub mod journal;
pub mod ledger;
pub mod letter;
pub mod meters;
pub mod read;
pub mod received;
pub mod redact;
pub mod tls;

/// Seconds of a day; reports are of days in UTC (RFC 9990 §3.1.1.2).
pub const DAY_SECS: u64 = 86_400;

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// Our organization, as readers see it.
    pub organization: String,
    /// Our host name: the submitter.
    pub hostname: String,
    /// The author of reports, and whom to ask about them.
    pub address: String,
}

/// `text` in one line without control characters: what strangers said goes into XML and header fields, where they have no place.
pub(crate) fn plain(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}
