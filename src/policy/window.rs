//! One sliding window: how much was counted in the last so many milliseconds. Pure; time is passed in.
//!
//! The period is cut into [`SLOTS`] slots; the sum of them and of the one under way never covers less than the period, so
//! **no span of that length ever holds more than the limit**, and what was counted comes back an eighth of a period late at most.

use crate::config::settings::RateWindow;

/// Whole slots that one period is cut into.
pub(super) const SLOTS: u64 = 8;
const CELLS: usize = SLOTS as usize + 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Number of the newest slot since the epoch.
    pub newest: u64,
    /// Counts by slot number modulo their number.
    pub cells: [u64; CELLS],
}

fn slot_of(now_millis: u64, rule: RateWindow) -> u64 {
    now_millis / slot_millis(rule)
}

/// Length of a slot, rounded up, so that the slots never cover less than the period.
fn slot_millis(rule: RateWindow) -> u64 {
    u64::try_from(rule.period.as_millis()).unwrap_or(u64::MAX / 2).div_ceil(SLOTS).max(1)
}

impl Window {
    /// What was counted, once `now` is where the window ends. A clock that went back stands still instead.
    pub fn used(&mut self, now_millis: u64, rule: RateWindow) -> u64 {
        let slot = slot_of(now_millis, rule).max(self.newest);
        let steps = (slot - self.newest).min(CELLS as u64);
        for step in 1..=steps {
            self.cells[((slot - steps + step) % CELLS as u64) as usize] = 0;
        }
        self.newest = slot;
        self.cells.iter().sum()
    }

    /// True if `amount` more fits.
    pub fn has_room(&mut self, amount: u64, now_millis: u64, rule: RateWindow) -> bool {
        self.used(now_millis, rule).checked_add(amount).is_some_and(|sum| sum <= rule.limit)
    }

    /// Counts `amount`; call [`Window::used`] first.
    pub fn add(&mut self, amount: u64) {
        let cell = &mut self.cells[(self.newest % CELLS as u64) as usize];
        *cell = cell.saturating_add(amount);
    }

    /// Takes back what was just added.
    pub fn take_back(&mut self, amount: u64) {
        let cell = &mut self.cells[(self.newest % CELLS as u64) as usize];
        *cell = cell.saturating_sub(amount);
    }

    /// Milliseconds until `amount` fits, as far as the slots tell.
    pub fn wait_millis(&mut self, amount: u64, now_millis: u64, rule: RateWindow) -> u64 {
        let mut sum = self.used(now_millis, rule);
        for age in (0..CELLS as u64).rev() {
            if sum.saturating_add(amount) <= rule.limit {
                break;
            }
            let slot = self.newest.saturating_sub(age);
            sum -= self.cells[(slot % CELLS as u64) as usize];
            if sum.saturating_add(amount) <= rule.limit || age == 0 {
                return ((slot + CELLS as u64) * slot_millis(rule)).saturating_sub(now_millis);
            }
        }
        0
    }

    /// True if nothing of it counts any more.
    pub fn is_over(&self, now_millis: u64, rule: RateWindow) -> bool {
        slot_of(now_millis, rule) >= self.newest + CELLS as u64 || self.cells.iter().all(|cell| *cell == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against an exact log of what was let through: never above the limit in any span, always refilled after a
        /// period and one slot.
        #[test]
        fn never_above_the_limit_and_always_refilled(
            limit in 1u64..50,
            period in 1000u64..100_000,
            steps in prop::collection::vec((0u64..20_000, 1u64..5), 1..200),
        ) {
            let rule = RateWindow { limit, period: Duration::from_millis(period) };
            let (mut window, mut now) = (Window::default(), 1_700_000_000_000u64);
            let mut log: Vec<(u64, u64)> = Vec::new();
            for (pause, amount) in steps {
                now += pause;
                let recent: u64 = log.iter().filter(|(at, _)| at + period > now).map(|(_, n)| n).sum();
                let older = log.iter().filter(|(at, _)| at + period + 2 * slot_millis(rule) > now).map(|(_, n)| n).sum::<u64>();
                if window.has_room(amount, now, rule) {
                    prop_assert!(recent + amount <= limit, "{recent} + {amount} > {limit}");
                    window.add(amount);
                    log.push((now, amount));
                } else {
                    prop_assert!(older + amount > limit, "refused with {older} + {amount} <= {limit}");
                    let wait = window.wait_millis(amount, now, rule);
                    prop_assert!(amount > limit || window.clone().has_room(amount, now + wait, rule));
                }
            }
            prop_assert!(window.has_room(limit, now + period + 2 * slot_millis(rule), rule));
            prop_assert!(window.is_over(now + period + 2 * slot_millis(rule), rule));
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_refill() {
        let rule = RateWindow { limit: 2, period: Duration::from_secs(60) };
        let mut window = Window::default();
        assert!(window.has_room(2, 1_000_000, rule));
        window.add(2);
        assert!(!window.has_room(1, 500_000, rule));
        assert!(!window.has_room(1, 1_000_001, rule));
    }
}
