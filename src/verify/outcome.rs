//! The result words of RFC 8601 §2.7, one type for all methods. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a method found out. Each method uses the words that its RFC gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was forged, altered or not authorised.
    Fail,
    /// Nothing was claimed or signed.
    None,
    /// The owner makes no statement, or the statement can't be understood.
    Neutral,
    /// A persistent fault of the owner's records or the message.
    PermError,
    /// It holds.
    Pass,
    /// It holds, but in a way that this receiver does not accept.
    Policy,
    /// Probably not authorised (SPF `~`).
    SoftFail,
    /// DNS could not say; a later try may.
    TempError,
}

impl Outcome {
    /// All of them, for metrics.
    pub const ALL: [Outcome; 8] = [
        Outcome::Fail,
        Outcome::None,
        Outcome::Neutral,
        Outcome::PermError,
        Outcome::Pass,
        Outcome::Policy,
        Outcome::SoftFail,
        Outcome::TempError,
    ];

    /// The RFC's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Fail => "fail",
            Outcome::None => "none",
            Outcome::Neutral => "neutral",
            Outcome::PermError => "permerror",
            Outcome::Pass => "pass",
            Outcome::Policy => "policy",
            Outcome::SoftFail => "softfail",
            Outcome::TempError => "temperror",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
