//! How hard a destination is pushed: a window of connections that grows on success and shrinks on failure. Pure.
//!
//! A destination that can't be reached at all is dead: it is left alone for a time that grows as the retry schedule
//! does, then probed by one connection. Mail that waits for it is moved as a whole, never one by one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::schedule;
use crate::config::settings::Retry;

/// Connections at first. Postfix starts with 5, KumoMTA with 10; `[deliver]` promises 2.
const WINDOW_START: usize = 2;
/// Failures in a row, with only one connection left, after which a destination counts as dead.
const FAILURES_UNTIL_DEAD: u32 = 2;

/// State of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    window: usize,
    /// Successes since the window last grew.
    successes: usize,
    /// Connection failures in a row.
    failures: u32,
    dead: Option<Dead>,
    /// What the destination said last.
    last_reply: Arc<str>,
}

/// Why a destination is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Since when.
    pub since: SystemTime,
    /// When it is probed.
    pub until: SystemTime,
    /// What failed last.
    pub why: Arc<str>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { window: WINDOW_START, successes: 0, failures: 0, dead: None, last_reply: "".into() }
    }
}

impl Shape {
    /// Connections that may be open at `now`; none while it is dead, one to probe it.
    pub fn window(&self, now: SystemTime) -> usize {
        match &self.dead {
            Some(dead) if now < dead.until => 0,
            Some(_) => 1,
            None => self.window,
        }
    }

    /// Until when it is left alone, if it is at `now`.
    pub fn dead(&self, now: SystemTime) -> Option<&Dead> {
        self.dead.as_ref().filter(|dead| now < dead.until)
    }

    /// A message went through. The window grows by one for each window's worth of messages, up to `most`.
    pub fn succeeded(&mut self, most: usize) {
        self.failures = 0;
        self.dead = None;
        self.successes += 1;
        if self.successes >= self.window {
            self.successes = 0;
            self.window = (self.window + 1).min(most.max(1));
        }
    }

    /// A reply asks to slow down (421, 432, 451 4.7.x …): half the window.
    pub fn slowed(&mut self, reply: &str) {
        self.successes = 0;
        self.window = (self.window / 2).max(1);
        self.last_reply = reply.into();
    }

    /// No session came about, or it broke. Gives the time until which the destination is to be left alone, if it counts as dead.
    pub fn failed(&mut self, retry: &Retry, now: SystemTime, random: f64, why: &str) -> Option<SystemTime> {
        // Those that fail together, as they were begun together, count as one probe.
        if let Some(dead) = self.dead(now) {
            return Some(dead.until);
        }
        self.slowed(why);
        self.failures += 1;
        if self.failures < FAILURES_UNTIL_DEAD {
            return None;
        }
        let probes = self.failures.saturating_sub(FAILURES_UNTIL_DEAD) + 1;
        let until = now + schedule::delay(retry, probes, random);
        let since = self.dead.as_ref().map_or(now, |dead| dead.since);
        self.dead = Some(Dead { since, until, why: why.into() });
        Some(until)
    }

    /// An operator wants it tried now.
    pub fn revive(&mut self) {
        self.dead = None;
        self.failures = 0;
    }

    /// A sentence for `queue why`.
    pub fn sentence(&self, destination: &str, now: SystemTime, connections: usize) -> String {
        if let Some(dead) = self.dead(now) {
            let (since, wait) = (seconds(now, dead.since), seconds(dead.until, now));
            return format!(
                "{destination} has been unreachable for {since} s and is tried again in {wait} s; last: {}",
                dead.why
            );
        }
        let last =
            if self.last_reply.is_empty() { String::new() } else { format!("; last trouble: {}", self.last_reply) };
        format!("{destination} is up, {connections} of {} connections in use{last}", self.window(now))
    }
}

fn seconds(later: SystemTime, earlier: SystemTime) -> u64 {
    later.duration_since(earlier).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        let secs = Duration::from_secs;
        Retry {
            first: secs(60),
            factor: 2.0,
            max: secs(600),
            expire: secs(9999),
            expire_null_sender: secs(999),
            delay_notice: secs(0),
        }
    }

    #[test]
    fn the_window_grows_by_one_a_round_and_halves_on_trouble() {
        let (mut shape, now) = (Shape::default(), SystemTime::UNIX_EPOCH);
        for _ in 0..2 + 3 + 4 {
            shape.succeeded(4);
        }
        assert_eq!(shape.window(now), 4, "the bound holds");
        shape.slowed("432");
        assert_eq!(shape.window(now), 2);
        shape.slowed("432");
        shape.slowed("432");
        assert_eq!(shape.window(now), 1, "one connection is always left");
    }

    #[test]
    fn a_dead_destination_is_probed_ever_more_rarely_until_it_lives() {
        let (mut shape, mut now) = (Shape::default(), SystemTime::UNIX_EPOCH);
        assert_eq!(shape.failed(&retry(), now, 0.0, "refused"), None);
        for secs in [60, 120, 240, 480, 600, 600] {
            let until = shape.failed(&retry(), now, 0.0, "refused").unwrap();
            assert_eq!(until, now + Duration::from_secs(secs));
            assert_eq!(shape.failed(&retry(), now, 0.0, "refused"), Some(until), "a second failure of the same moment");
            assert_eq!(shape.window(now), 0);
            now = until;
            assert_eq!(shape.window(now), 1);
        }
        assert!(shape.sentence("x", now - Duration::from_secs(5), 0).contains("is tried again in 5 s; last: refused"));
        shape.succeeded(10);
        assert_eq!((shape.window(now), shape.dead(now)), (2, None));
    }
}
