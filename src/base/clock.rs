//! The time that the queue goes by: the system's, as long as that does not jump. I/O: [`now`] reads both clocks.
//!
//! Clocks are set wrong and set right again, by years at times. By theirs all mail would be too old at once, or be tried again in
//! years only. Invariants: this time never goes backwards, and passes at least half and at most twice as fast as time does, until
//! it has met the system's again. Not here: a clock that is wrong at the start, of which nothing can be known; see `deliver::schedule`.

use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

/// A time that follows a clock without its jumps.
struct Steady {
    shown: SystemTime,
    at: Instant,
}

impl Steady {
    /// The time `at`, when the system's clock says `wall`.
    fn read(&mut self, wall: SystemTime, at: Instant) -> SystemTime {
        let passed = at.saturating_duration_since(self.at);
        self.shown = wall.clamp(self.shown + passed / 2, self.shown + passed * 2);
        self.at = self.at.max(at);
        self.shown
    }
}

static QUEUE: Mutex<Option<Steady>> = Mutex::new(None);

/// The time that it is for the queue. The first call believes the system's clock; whoever needs it to be steady calls it every few
/// seconds, as the dispatcher of deliveries does.
pub fn now() -> SystemTime {
    let mut queue = QUEUE.lock();
    let (wall, at) = (SystemTime::now(), Instant::now());
    queue.get_or_insert(Steady { shown: wall, at }).read(wall, at)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const DAY: u64 = 24 * 3600;

    /// Shows what each second of `walls` (seconds since 1970) looks like from `start` on.
    fn shown(start: u64, walls: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let secs = Duration::from_secs;
        let at = Instant::now();
        let mut steady = Steady { shown: UNIX_EPOCH + secs(start), at };
        let read = |(n, wall)| steady.read(UNIX_EPOCH + secs(wall), at + secs(n));
        let times = (1..).zip(walls).map(read);
        times.map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs()).collect()
    }

    #[test]
    fn a_clock_that_does_not_jump_is_followed() {
        assert_eq!(shown(100, [101, 102, 103, 103, 105]), [101, 102, 103, 103, 105]);
    }

    #[test]
    fn jumps_are_made_up_for_little_by_little() {
        let (start, year) = (100 * DAY, 365 * DAY);
        assert_eq!(shown(start, [start + 10 * year, start + 10 * year + 1]), [start + 2, start + 4]);
        assert_eq!(
            shown(start, [start - DAY, start - DAY + 1, start - DAY + 2, start - DAY + 3])[1..],
            [start + 1, start + 1, start + 2]
        );
        assert_eq!(shown(start, (1..=9).map(|n| start + 100 * n)).last(), Some(&(start + 18)), "a clock that runs");
        // An hour wrong by ten years, then right again: two hours later both are one.
        let wrong = (1..=3600).map(|n| start + 10 * year + n);
        let right = (3601..=3600 * 3 + 1).map(|n| start + n);
        let times = shown(start, wrong.chain(right));
        assert_eq!(times[3599], start + 7200);
        assert_eq!(times.last(), Some(&(start + 3 * 3600 + 1)));
        assert!(times.is_sorted());
    }
}
