//! Addresses that gave no session lately, so that a mail host that hangs costs its time-out once and not for each connection.
//! Pure: time is passed in.
//!
//! They are tried last, not left out: the order of MX stays the rule among those that live, and the last resort stays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::target::Target;

/// How long a failure counts: a restart takes about a minute.
const SICK_TIME: Duration = Duration::from_secs(60);
/// Addresses remembered; when full, all are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// The memory.
#[derive(Default)]
pub struct Sick(Mutex<HashMap<SocketAddr, Instant, foldhash::fast::RandomState>>);

impl Sick {
    /// Remembers whether `address` failed.
    pub fn note(&self, address: SocketAddr, failed: bool, now: Instant) {
        let mut until = self.0.lock();
        if !failed {
            until.remove(&address);
            return;
        }
        if until.len() >= ADDRESSES_MAX {
            until.clear();
        }
        until.insert(address, now + SICK_TIME);
    }

    /// The same targets, those that failed lately at the end; otherwise in their order.
    pub fn healthy_first<'a>(&self, targets: &'a [Target], now: Instant) -> Vec<&'a Target> {
        let until = self.0.lock();
        let mut sorted: Vec<&Target> = targets.iter().collect();
        sorted.sort_by_key(|target| until.get(&target.address).is_some_and(|until| *until > now));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_goes_last_for_a_while() {
        let target = |n: u8| Target::new("x", ([192, 0, 2, n], 25).into());
        let targets = [target(1), target(2), target(3)];
        let (sick, now) = (Sick::default(), Instant::now());
        let order =
            |now| sick.healthy_first(&targets, now).iter().map(|t| t.address.ip().to_string()).collect::<Vec<_>>();
        sick.note(targets[0].address, true, now);
        assert_eq!(order(now), ["192.0.2.2", "192.0.2.3", "192.0.2.1"]);
        assert_eq!(order(now + SICK_TIME), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        sick.note(targets[0].address, false, now);
        assert_eq!(order(now)[0], "192.0.2.1");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (sick, now) = (Sick::default(), Instant::now());
        for n in 0..20_000u16 {
            sick.note(([192, 0, 2, 1], n).into(), true, now);
        }
        assert!(sick.0.lock().len() <= ADDRESSES_MAX);
    }
}
