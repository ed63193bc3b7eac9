//! Dates of header fields (RFC 5322 §3.3), always in UTC. Pure.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `time` as `Sun, 22 Nov 2026 00:57:04 +0000`; a time beyond what a date can say becomes the epoch.
pub fn rfc5322(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = timestamp.to_zoned(TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&date).unwrap_or_else(|_| EPOCH.to_owned())
}

const EPOCH: &str = "Thu, 1 Jan 1970 00:00:00 +0000";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_date_reads_as_rfc_5322_has_it() {
        assert_eq!(rfc5322(UNIX_EPOCH + Duration::from_secs(1_795_309_024)), "Sun, 22 Nov 2026 00:57:04 +0000");
        assert_eq!(rfc5322(UNIX_EPOCH), EPOCH);
        assert_eq!(rfc5322(UNIX_EPOCH + Duration::from_secs(1 << 60)), EPOCH);
    }
}
