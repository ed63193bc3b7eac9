//! How many refusals before DATA are recorded. Pure; time is passed in.
//!
//! Who guesses addresses by the thousand must not keep the writer busy, nor crowd out what others would ask about. Memory is
//! fixed: networks that share a cell share its allowance.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Cells for networks; with this many busy ones two rarely meet.
const CELLS: usize = 4096;
/// Of one network (IPv4 /24, IPv6 /64) in a minute: more than people cause who mistype, less than who guesses.
pub const NETWORK_A_MINUTE: u32 = 60;
/// Of all in a second: a record has about half a kilobyte, which no disk notices.
pub const ALL_A_SECOND: u32 = 100;

/// Counts what was recorded of late.
pub struct Allowance {
    cells: Vec<AtomicU64>,
    all: AtomicU64,
    hasher: foldhash::fast::RandomState,
}

impl Default for Allowance {
    fn default() -> Self {
        Allowance {
            cells: (0..CELLS).map(|_| AtomicU64::default()).collect(),
            all: AtomicU64::default(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl Allowance {
    /// True if one more may be recorded for this client.
    pub fn take(&self, ip: IpAddr, now: SystemTime) -> bool {
        use std::hash::BuildHasher;
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let cell = self.hasher.hash_one(network_of(ip)) as usize % CELLS;
        count(&self.cells[cell], seconds / 60, NETWORK_A_MINUTE) && count(&self.all, seconds, ALL_A_SECOND)
    }
}

fn network_of(ip: IpAddr) -> (bool, u64) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (false, u64::from(ip.to_bits() >> 8)),
        IpAddr::V6(ip) => (true, (ip.to_bits() >> 64) as u64),
    }
}

/// One more in `period`, unless there were `most`. A cell holds the period in its upper half, the count in its lower.
fn count(cell: &AtomicU64, period: u64, most: u32) -> bool {
    let period = period & u64::from(u32::MAX);
    let next = |old: u64| {
        let used = if old >> 32 == period { old as u32 } else { 0 };
        (used < most).then(|| period << 32 | u64::from(used + 1))
    };
    cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_guesses_is_cut_off_and_others_are_not() {
        let (allowance, now) = (Allowance::default(), UNIX_EPOCH + Duration::from_secs(6000));
        let guesser: IpAddr = "192.0.2.7".parse().unwrap();
        let late = now + Duration::from_secs(30);
        let taken = (0..1000).filter(|nth| allowance.take(guesser, if nth % 2 == 0 { now } else { late })).count();
        assert_eq!(taken, NETWORK_A_MINUTE as usize);
        assert!(!allowance.take("192.0.2.250".parse().unwrap(), late), "the same network");
        assert!(allowance.take(guesser, now + Duration::from_secs(60)), "the next minute");
    }

    #[test]
    fn all_together_have_a_bound() {
        let (allowance, now) = (Allowance::default(), UNIX_EPOCH + Duration::from_secs(6000));
        let taken = (0u32..5000).filter(|nth| allowance.take(IpAddr::V4((nth << 8).into()), now)).count();
        assert_eq!(taken, ALL_A_SECOND as usize);
    }
}
