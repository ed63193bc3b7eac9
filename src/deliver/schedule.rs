//! When a deferred recipient is tried again, when it has waited too long, and when its sender hears of it. Pure.
//!
//! RFC 5321 §4.5.4.1. Invariant: the schedule always ends; whatever `[retry]` says, each step moves at least
//! [`DELAY_MIN`] forward and none goes beyond expiry.

use std::time::{Duration, SystemTime};

use crate::config::settings::Retry;

/// Never sooner than this, whatever the configuration says.
pub const DELAY_MIN: Duration = Duration::from_secs(1);
/// Share of the delay by which it may grow at random, so that what failed together does not come back together.
const JITTER: f64 = 0.1;

/// What follows a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has waited too long.
    Expire,
    /// Try again then.
    Retry {
        /// When.
        next: SystemTime,
        /// A delay notice is due.
        notify_delay: bool,
    },
}

/// What the schedule needs to know of a recipient.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// When its message was accepted.
    pub accepted: SystemTime,
    /// Since when this server runs.
    pub started: SystemTime,
    /// Attempts made, with the one that just failed.
    pub attempts: u32,
    /// The reverse-path is null.
    pub null_sender: bool,
    /// A delay notice was sent already.
    pub delay_notified: bool,
}

/// Delay after attempt number `attempts` (from 1): `first` times `factor` each time, at most `max`; `random` in 0..1 adds up to a tenth.
pub fn delay(retry: &Retry, attempts: u32, random: f64) -> Duration {
    let growth = retry.factor.max(1.0).powi(attempts.saturating_sub(1).min(1000) as i32);
    let secs = (retry.first.as_secs_f64() * growth).min(retry.max.as_secs_f64()) * (1.0 + JITTER * random);
    Duration::try_from_secs_f64(secs).unwrap_or(retry.max).max(DELAY_MIN)
}

/// How long a message may wait.
pub fn lifetime(retry: &Retry, null_sender: bool) -> Duration {
    if null_sender { retry.expire_null_sender } else { retry.expire }
}

/// How long a server that has just started gives up no mail, so that what waited through a downtime is tried before, and nothing
/// is lost to a clock that is wrong at the start.
pub fn rest_after_start(retry: &Retry, null_sender: bool) -> Duration {
    retry.max.min(lifetime(retry, null_sender))
}

/// When mail that was accepted then is given up by a server that runs since `started`.
pub fn expires(retry: &Retry, null_sender: bool, accepted: SystemTime, started: SystemTime) -> SystemTime {
    (accepted + lifetime(retry, null_sender)).max(started + rest_after_start(retry, null_sender))
}

/// What follows an attempt that failed for now.
pub fn after_deferral(retry: &Retry, waiting: Waiting, now: SystemTime, random: f64) -> Step {
    let expires = expires(retry, waiting.null_sender, waiting.accepted, waiting.started);
    if now >= expires {
        return Step::Expire;
    }
    let wanted = now + delay(retry, waiting.attempts, random);
    let due = !retry.delay_notice.is_zero() && now >= waiting.accepted + retry.delay_notice;
    let next = wanted.min(expires.max(now + DELAY_MIN));
    Step::Retry { next, notify_delay: due && !waiting.delay_notified && !waiting.null_sender }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3600;

    fn retry() -> Retry {
        Retry {
            first: Duration::from_secs(300),
            factor: 2.0,
            max: Duration::from_secs(4 * HOUR),
            expire: Duration::from_secs(120 * HOUR),
            expire_null_sender: Duration::from_secs(24 * HOUR),
            delay_notice: Duration::from_secs(4 * HOUR),
        }
    }

    #[test]
    fn delays_double_up_to_the_ceiling() {
        let secs: Vec<u64> = (1..=8).map(|n| delay(&retry(), n, 0.0).as_secs()).collect();
        assert_eq!(secs, [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]);
        let classic = Retry { first: Duration::from_secs(1800), factor: 1.0, ..retry() };
        assert_eq!(delay(&classic, 50, 0.0), Duration::from_secs(1800));
        assert!(delay(&classic, 50, 0.99) < Duration::from_secs(1980));
    }

    #[test]
    fn expiry_and_notice_by_table() {
        let accepted = SystemTime::UNIX_EPOCH;
        // hours since acceptance, null sender, notified -> expired?, notice?
        let table = [
            (1, false, false, false, false),
            (4, false, false, false, true),
            (5, false, true, false, false),
            (5, true, false, false, false),
            (24, true, false, true, false),
            (119, false, true, false, false),
            (120, false, true, true, false),
        ];
        for (hours, null_sender, delay_notified, expired, notice) in table {
            let now = accepted + Duration::from_secs(hours * HOUR);
            let waiting = Waiting { accepted, started: accepted, attempts: 3, null_sender, delay_notified };
            match after_deferral(&retry(), waiting, now, 0.0) {
                Step::Expire => assert!(expired, "{hours}"),
                Step::Retry { notify_delay, next } => {
                    assert!(!expired && notify_delay == notice && next > now, "{hours}");
                }
            }
        }
    }

    #[test]
    fn what_waited_through_a_downtime_has_a_round_of_retries() {
        let hours = |n| SystemTime::UNIX_EPOCH + Duration::from_secs(n * HOUR);
        // sender is null, hours of the start and of the attempt -> expired?
        let table = [
            (false, 1000, 1000, false),
            (false, 1000, 1003, false),
            (false, 1000, 1004, true),
            (true, 48, 51, false),
            (true, 48, 52, true),
            (false, 119, 121, false),
            (false, 100, 120, true),
        ];
        for (null_sender, start, attempt, expired) in table {
            let waiting =
                Waiting { accepted: hours(0), started: hours(start), attempts: 9, null_sender, delay_notified: true };
            let step = after_deferral(&retry(), waiting, hours(attempt), 0.0);
            assert_eq!(step == Step::Expire, expired, "{null_sender} {start} {attempt}: {step:?}");
        }
    }

    proptest! {
        #[test]
        fn every_schedule_ends(first in 0u64..100_000, factor in 0.0f64..10.0, max in 0u64..1_000_000, expire in 0u64..2_000_000, random in 0.0f64..1.0) {
            let secs = Duration::from_secs;
            let retry = Retry { first: secs(first), factor, max: secs(max), expire: secs(expire), expire_null_sender: secs(0), delay_notice: secs(0) };
            let accepted = SystemTime::UNIX_EPOCH;
            let (mut now, mut attempts) = (accepted, 0u32);
            let bound = expire as u32 + 2;
            loop {
                attempts += 1;
                prop_assert!(attempts <= bound);
                // A million one-second steps prove nothing more than a thousand.
                if attempts > 1000 { break; }
                match after_deferral(&retry, Waiting { accepted, started: accepted, attempts, null_sender: false, delay_notified: false }, now, random) {
                    Step::Expire => break,
                    Step::Retry { next, .. } => {
                        prop_assert!(next >= now + DELAY_MIN);
                        prop_assert!(next <= (accepted + retry.expire).max(now + DELAY_MIN));
                        now = next;
                    }
                }
            }
        }
    }
}
