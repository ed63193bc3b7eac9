//! Dates of header fields (RFC 5322 §3.3), always in UTC. Pure.

use std::time::SystemTime;

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{Timestamp, tz::TimeZone};

/// `Sun, 22 Nov 2026 10:00:00 +0000`. A time outside of years -9999 to 9999 becomes the epoch.
pub fn rfc5322(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new()
        .zoned_to_string(&timestamp.to_zoned(TimeZone::UTC))
        .expect("the printer takes every year that a timestamp can hold but negative ones")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_date_reads_as_in_rfc_5322() {
        let time = UNIX_EPOCH + Duration::from_secs(1_795_341_600);
        assert_eq!(rfc5322(time), "Sun, 22 Nov 2026 10:00:00 +0000");
        assert_eq!(rfc5322(UNIX_EPOCH), "Thu, 1 Jan 1970 00:00:00 +0000");
    }
}
