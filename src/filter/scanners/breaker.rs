//! A circuit breaker: a scanner that fails again and again is left alone for a while. Pure; time is passed in.
//!
//! Closed: all may ask. Open after so many failures in a row: nobody asks, until the pause is over. Then half open: one
//! question tries it; its answer closes the breaker, its failure opens it anew.

use std::time::{Duration, Instant};

/// Whether a scanner may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Closed,
    /// One question is on its way to try it.
    HalfOpen,
    /// It is left alone.
    Open,
}

impl State {
    /// The number for the gauge.
    pub fn number(self) -> i64 {
        match self {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }
    }
}

/// Counts failures of one scanner.
#[derive(Clone, Debug)]
pub struct Breaker {
    failures_max: u32,
    pause: Duration,
    failures: u32,
    state: State,
    until: Option<Instant>,
}

impl Breaker {
    /// Opens after `failures_max` failures in a row, for `pause`.
    pub fn new(failures_max: u32, pause: Duration) -> Self {
        Breaker { failures_max, pause, failures: 0, state: State::Closed, until: None }
    }

    /// True if the scanner may be asked now; whoever is told so reports what came of it.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            // The trial may have been dropped without a report, with its connection; the pause bounds that too.
            State::HalfOpen | State::Open if self.until.is_none_or(|until| now >= until) => {
                self.state = State::HalfOpen;
                self.until = Some(now + self.pause);
                true
            }
            State::HalfOpen | State::Open => false,
        }
    }

    /// What came of a question.
    pub fn report(&mut self, now: Instant, answered: bool) {
        if answered {
            *self = Breaker::new(self.failures_max, self.pause);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.state == State::HalfOpen || self.failures >= self.failures_max {
            self.state = State::Open;
            self.until = Some(now + self.pause);
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_one_question() {
        let (mut breaker, start) = (Breaker::new(3, PAUSE), Instant::now());
        for answered in [false, false, true, false, false] {
            assert!(breaker.admit(start));
            breaker.report(start, answered);
        }
        assert_eq!(breaker.state(), State::Closed, "two in a row are not three");
        breaker.report(start, false);
        assert!(!breaker.admit(start + PAUSE / 2));
        assert!(breaker.admit(start + PAUSE), "one may try");
        assert!(!breaker.admit(start + PAUSE), "but only one");
        breaker.report(start + PAUSE, false);
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.admit(start + 2 * PAUSE));
        breaker.report(start + 2 * PAUSE, true);
        assert!(breaker.admit(start + 2 * PAUSE) && breaker.state() == State::Closed);
    }

    #[test]
    fn a_trial_that_never_reports_does_not_hold_the_breaker_for_ever() {
        let (mut breaker, start) = (Breaker::new(1, PAUSE), Instant::now());
        breaker.report(start, false);
        assert!(breaker.admit(start + PAUSE));
        assert!(!breaker.admit(start + PAUSE));
        assert!(breaker.admit(start + 2 * PAUSE));
    }
}
