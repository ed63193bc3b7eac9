//! Authenticated Received Chain: what did those before us find, and may we believe them? I/O: DNS. RFC 8617.
//!
//! [`chain`] validates, [`seal`] adds our own set. Whether a good chain overrides a DMARC failure is decided elsewhere, by
//! which sealers the operator trusts: a chain proves who handled a message, not that they are honest.

pub mod chain;
pub mod seal;

use serde::Serialize;

use super::authres::AuthenticationResults;
use super::outcome::Outcome;
pub use chain::check;

/// RFC 8617 §4.2.1.
pub const SETS_MAX: usize = 50;

/// The chain's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArcResult {
    /// none, pass, fail, or temperror.
    pub outcome: Outcome,
    /// In words.
    pub reason: String,
    /// Sealing domains, oldest first.
    pub sealers: Vec<String>,
    /// Lowest instance whose message signature still holds; 0 if all do (RFC 8617 §5.2).
    pub oldest_pass: Option<usize>,
    /// What each sealer found, oldest first; empty unless the chain passes.
    #[serde(skip)]
    pub findings: Vec<AuthenticationResults>,
    /// The newest seal says `cv=fail`: nobody seals after that.
    #[serde(skip)]
    pub ended: bool,
}

impl ArcResult {
    /// Of a message that nobody sealed.
    pub fn none() -> Self {
        ArcResult {
            outcome: Outcome::None,
            reason: String::new(),
            sealers: Vec::new(),
            oldest_pass: None,
            findings: Vec::new(),
            ended: false,
        }
    }
}
