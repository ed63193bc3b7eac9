//! The equation of the queue's books, as the spool reckons it and the API tells it. Pure.

use serde::{Deserialize, Serialize};

/// `opening + accepted = delivered + bounced + expired + discarded + dropped + lost + closing` for a period, in recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// In the queue (all states, quarantine too) when the period began.
    pub opening: i64,
    /// Taken from clients or made by Weir itself (bounces).
    pub accepted: i64,
    /// Given to a next hop or store.
    pub delivered: i64,
    /// Returned.
    pub bounced: i64,
    /// Too old.
    pub expired: i64,
    /// Thrown away by configuration.
    pub discarded: i64,
    /// Thrown away by an operator or the quarantine's age.
    pub dropped: i64,
    /// Lost to damage of the disk, or (negative) found again.
    pub lost: i64,
    /// In the queue when the period ended, by the books.
    pub closing: i64,
    /// In the queue now, counted one by one.
    pub queued_now: i64,
    /// Of these in quarantine.
    pub quarantined_now: i64,
    /// True if the books of all time agree with the queue as counted.
    pub balanced: bool,
}
