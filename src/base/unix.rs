//! Times as numbers since 1970 (UTC), as journals, wires and the API have them. I/O: [`now_secs`] reads the clock.
//!
//! A time before 1970 counts as 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time that it is, in whole seconds.
pub fn now_secs() -> u64 {
    secs(SystemTime::now())
}

/// Whole seconds.
pub fn secs(time: SystemTime) -> u64 {
    since_epoch(time).as_secs()
}

/// Whole milliseconds.
pub fn millis(time: SystemTime) -> u64 {
    since_epoch(time).as_millis() as u64
}

/// The time of so many milliseconds.
pub fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
