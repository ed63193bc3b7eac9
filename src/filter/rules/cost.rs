//! What each rule has cost: how often it was tried, how often it hit, and how long that took. Pure.
//!
//! Counts are exact; time is taken in one of [`TIMED_ONE_IN`] messages, because reading the clock twice would cost as much as a short
//! expression. Counters are added up in a run and written once at its end, so that cores don't fight for them.

use std::sync::atomic::{AtomicU64, Ordering};

/// One message in so many is timed.
pub const TIMED_ONE_IN: u64 = 64;

/// Counters of one rule since it was loaded.
#[derive(Default)]
pub struct Counters {
    tried: AtomicU64,
    hits: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What one rule has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Times that its expression or function was run.
    pub tried: u64,
    /// Messages that it hit.
    pub hits: u64,
    /// Time of those runs, reckoned from the timed ones.
    pub nanoseconds: u64,
}

impl Counters {
    /// Adds what one message cost.
    pub fn add(&self, cost: Cost) {
        // Each addition keeps other cores from the counter for a while; most have nothing to add.
        for (counter, more) in
            [(&self.tried, cost.tried), (&self.hits, cost.hits), (&self.nanoseconds, cost.nanoseconds)]
        {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// What was added so far.
    pub fn read(&self) -> Cost {
        Cost {
            tried: self.tried.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            nanoseconds: self.nanoseconds.load(Ordering::Relaxed),
        }
    }
}

/// Counts messages.
#[derive(Default)]
pub struct Runs(AtomicU64);

impl Runs {
    /// The number of the next one.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
