//! DomainKeys Identified Mail: was this signed by that domain? I/O: DNS, through the look-up seam. RFC 6376, 8301, 8463.
//!
//! [`signature`] and [`key`] parse, [`canonical`] makes the bytes that were signed, [`evaluate`] decides on one signature (all pure);
//! [`check()`] asks for the keys and puts the work where it belongs. At most [`SIGNATURES_MAX`] signatures are looked at.

pub mod canonical;
pub mod check;
pub mod evaluate;
pub mod key;
pub mod keygen;
pub mod sign;
pub mod signature;

use serde::Serialize;

use super::outcome::Outcome;
pub use check::check;

/// Signatures of one message that are looked at; real mail carries one to four.
pub const SIGNATURES_MAX: usize = 10;

/// The result for one signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DkimResult {
    /// pass, fail, policy, neutral, temperror or permerror.
    pub outcome: Outcome,
    /// `d=`, in lower case; empty if it could not be read.
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `i=`, or `@` and the domain.
    pub identity: String,
    /// `a=`
    pub algorithm: String,
    /// The first characters of `b=`, which tell signatures apart (RFC 6008).
    pub signature_start: String,
    /// In words.
    pub reason: String,
    /// The key's owner is testing (`t=y`).
    pub testing: bool,
    /// Bytes of the body that `l=` leaves unsigned.
    pub unsigned_bytes: Option<u64>,
}
