//! DMARC: does what was authenticated belong to the author's domain, and what does its owner ask for? I/O: DNS. RFC 9989, 7489.
//!
//! [`record`] parses and [`decide`] decides (both pure); [`check()`] walks the tree of names (RFC 9989 §4.10), which needs no public
//! suffix list. `pct` of RFC 7489 is honoured too, for its publishers still rely on it.

pub mod check;
pub mod decide;
pub mod record;

use serde::Serialize;

use super::outcome::Outcome;
pub use check::check;
pub use record::{Policy, Record};

/// The result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DmarcResult {
    /// pass, fail, none, temperror or permerror.
    pub outcome: Outcome,
    /// The author's domain; empty if there is none.
    pub domain: String,
    /// Its organizational domain.
    pub organizational_domain: String,
    /// Where the applied record stands.
    pub policy_domain: String,
    /// What the owner asks for this name: `p`, `sp` or `np`.
    pub policy: Option<Policy>,
    /// What that comes to after `t` and `pct`; `None` unless the outcome is fail.
    pub disposition: Policy,
    /// pass if an aligned signature passed.
    pub dkim: Outcome,
    /// pass if SPF passed and is aligned.
    pub spf: Outcome,
    /// In words.
    pub reason: String,
    /// The record, for reports.
    #[serde(skip)]
    pub record: Option<Record>,
}
