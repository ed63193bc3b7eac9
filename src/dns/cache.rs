//! Answers kept for their time to live, within a bound. Pure: time is passed in.
//!
//! Temporary failures are kept too, for a few seconds that double with each failure of the same name: a dead zone
//! costs one wait at a time and other zones nothing (RFC 2308 §7 allows up to five minutes).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{DnsFault, Found, Kind};

/// First time that a failure is kept.
const FAILURE_TTL: Duration = Duration::from_secs(2);
/// Doublings of it: 2 s · 2^5 = 64 s.
const FAILURE_DOUBLINGS_MAX: u32 = 5;
/// Entries looked at to find one to drop when the cache is full.
const EVICTION_SAMPLE: usize = 16;

/// An answer with its time to live.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The answer.
    pub result: Result<Found, DnsFault>,
    /// How long it holds; not used for temporary failures.
    pub ttl: Duration,
}

struct Entry {
    result: Result<Found, DnsFault>,
    until: Instant,
    failures: u32,
}

/// The cache.
pub struct Cache {
    entries: HashMap<(Kind, String), Entry, foldhash::fast::RandomState>,
    limit: usize,
}

impl Cache {
    /// A cache of at most `limit` answers.
    pub fn new(limit: usize) -> Self {
        Cache { entries: HashMap::default(), limit: limit.max(1) }
    }

    /// What is known and still holds.
    pub fn get(&self, kind: Kind, name: &str, now: Instant) -> Option<Result<Found, DnsFault>> {
        let entry = self.entries.get(&(kind, name.to_owned()))?;
        (entry.until > now).then(|| entry.result.clone())
    }

    /// Consecutive failures of a name; zero if it is healthy or unknown.
    pub fn failures(&self, kind: Kind, name: &str) -> u32 {
        self.entries.get(&(kind, name.to_owned())).map_or(0, |entry| entry.failures)
    }

    /// Keeps an answer.
    pub fn put(&mut self, kind: Kind, name: String, cached: Cached, now: Instant) {
        let failures = match cached.result {
            Err(DnsFault::Temporary(_)) => self.failures(kind, &name) + 1,
            _ => 0,
        };
        let ttl = match failures {
            0 => cached.ttl,
            n => FAILURE_TTL * 2u32.pow((n - 1).min(FAILURE_DOUBLINGS_MAX)),
        };
        let key = (kind, name);
        if !self.entries.contains_key(&key) && self.entries.len() >= self.limit {
            self.evict();
        }
        self.entries.insert(key, Entry { result: cached.result, until: now + ttl, failures });
    }

    /// Drops the entry of a small sample that ends first; the map's order is random enough.
    fn evict(&mut self) {
        let sample = self.entries.iter().take(EVICTION_SAMPLE);
        let Some(victim) = sample.min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone()) else {
            return;
        };
        self.entries.remove(&victim);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Records;
    use super::*;

    fn found() -> Cached {
        let records = Records::Names(["x".to_owned()].into());
        Cached { result: Ok(Found { records, secure: false, canonical: None }), ttl: Duration::from_secs(10) }
    }

    fn failed() -> Cached {
        Cached { result: Err(DnsFault::Temporary("x".into())), ttl: Duration::ZERO }
    }

    #[test]
    fn answers_hold_for_their_ttl() {
        let (mut cache, now) = (Cache::new(10), Instant::now());
        cache.put(Kind::Ptr, "a".into(), found(), now);
        assert!(cache.get(Kind::Ptr, "a", now + Duration::from_secs(9)).is_some());
        assert!(cache.get(Kind::Ptr, "a", now + Duration::from_secs(10)).is_none());
        assert!(cache.get(Kind::Txt, "a", now).is_none());
    }

    #[test]
    fn failures_hold_longer_each_time_and_success_clears_them() {
        let (mut cache, now) = (Cache::new(10), Instant::now());
        for (nth, secs) in [2, 4, 8, 16, 32, 64, 64].into_iter().enumerate() {
            cache.put(Kind::A, "a".into(), failed(), now);
            assert_eq!(cache.failures(Kind::A, "a"), nth as u32 + 1);
            assert!(cache.get(Kind::A, "a", now + Duration::from_secs(secs - 1)).is_some());
            assert!(cache.get(Kind::A, "a", now + Duration::from_secs(secs)).is_none());
        }
        cache.put(Kind::A, "a".into(), found(), now);
        assert_eq!(cache.failures(Kind::A, "a"), 0);
    }

    #[test]
    fn the_bound_holds() {
        let (mut cache, now) = (Cache::new(50), Instant::now());
        for n in 0..1000 {
            cache.put(Kind::A, n.to_string(), found(), now);
        }
        assert_eq!(cache.entries.len(), 50);
    }
}
