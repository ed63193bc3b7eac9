//! Who is asked to come again: a mail server does, most programs that send spam do not. Pure; time is passed in. RFC 6647.
//!
//! A triplet is client network (/24, /64), sender and recipient. It is let through once it comes back after `delay` and within
//! `window`; a network that did so often enough is not asked any more. Bounded: when full, the oldest tenth is forgotten, which
//! costs their senders one more wait, never a message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::base::unix::secs;
use crate::config::settings::Greylist as Settings;

/// Share of the entries that is forgotten when there is no room: one in so many.
const FORGOTTEN: usize = 10;
const MAGIC: &[u8; 9] = b"WEIRGREY1";
const ENTRY_BYTES: usize = 24;
const CRC_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    first: u64,
    last: u64,
    /// Of a triplet: it was let through. Of a network: how often one of its triplets was.
    passed: u32,
}

/// What to do with a triplet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It came back in time, or its network always does.
    Pass,
    /// Ask to come again, not before this long.
    Wait(Duration),
}

/// The triplets and networks of a gateway.
#[derive(Default)]
pub struct Greylist {
    seen: Mutex<HashMap<u64, Seen>>,
}

impl Greylist {
    /// Counts a try of `ip`'s network to write from `sender` to `recipient`, and decides.
    pub fn ask(&self, settings: &Settings, ip: IpAddr, sender: &str, recipient: &str, now: SystemTime) -> Answer {
        let (now, network) = (secs(now), network(ip));
        let mut seen = self.seen.lock();
        let network_key = key(&[&network]);
        if settings.auto_allow > 0
            && let Some(known) = seen.get_mut(&network_key)
            && known.passed >= settings.auto_allow
            && now.saturating_sub(known.last) < settings.keep.as_secs()
        {
            known.last = now;
            return Answer::Pass;
        }
        make_room(&mut seen, settings.entries);
        let triplet = key(&[&network, &sender.to_lowercase(), &recipient.to_lowercase()]);
        let fresh = Seen { first: now, last: now, passed: 0 };
        let entry = seen.entry(triplet).or_insert(fresh);
        let age = now.saturating_sub(entry.first);
        let idle = now.saturating_sub(entry.last);
        if entry.passed > 0 && idle < settings.keep.as_secs() {
            entry.last = now;
            return Answer::Pass;
        }
        if entry.passed > 0 || age > settings.window.as_secs() {
            *entry = fresh;
            return Answer::Wait(settings.delay);
        }
        if age < settings.delay.as_secs() {
            entry.last = now;
            return Answer::Wait(Duration::from_secs(settings.delay.as_secs() - age));
        }
        (entry.last, entry.passed) = (now, 1);
        let network = seen.entry(network_key).or_insert(fresh);
        (network.last, network.passed) = (now, network.passed.saturating_add(1));
        Answer::Pass
    }

    /// Triplets and networks known.
    pub fn len(&self) -> usize {
        self.seen.lock().len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it as bytes: magic, entries (key, first, last: 48 bits in the low part, passed above), CRC32C; little-endian.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (key, seen) in self.seen.lock().iter() {
            bytes.extend(key.to_le_bytes());
            bytes.extend(seen.first.to_le_bytes());
            bytes.extend((seen.last & LOW_48 | u64::from(seen.passed.min(0xffff)) << 48).to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// What a snapshot holds; nothing if it is damaged.
    pub fn restore(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_BYTES)?)?;
        let entries = body.strip_prefix(MAGIC)?;
        if crc32c::crc32c(body).to_le_bytes() != crc || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let number = |entry: &[u8], at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
        let read = |entry: &[u8]| {
            let packed = number(entry, 16);
            (number(entry, 0), Seen { first: number(entry, 8), last: packed & LOW_48, passed: (packed >> 48) as u32 })
        };
        Some(Greylist { seen: Mutex::new(entries.chunks_exact(ENTRY_BYTES).map(read).collect()) })
    }
}

const LOW_48: u64 = (1 << 48) - 1;

fn make_room(seen: &mut HashMap<u64, Seen>, most: usize) {
    if seen.len() + 2 <= most {
        return;
    }
    let mut ages: Vec<u64> = seen.values().map(|seen| seen.last).collect();
    let place = ages.len() / FORGOTTEN;
    let (_, bound, _) = ages.select_nth_unstable(place);
    let bound = *bound;
    seen.retain(|_, seen| seen.last > bound);
}

/// A hash that is the same after a restart (FNV-1a); the parts are kept apart.
fn key(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn network(ip: IpAddr) -> String {
    let prefix = if ip.to_canonical().is_ipv4() { 24 } else { 64 };
    ipnet::IpNet::new(ip.to_canonical(), prefix).map_or_else(|_| ip.to_string(), |network| network.trunc().to_string())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const SETTINGS: Settings = Settings {
        delay: Duration::from_secs(300),
        window: Duration::from_secs(7_200),
        keep: Duration::from_secs(100_000),
        auto_allow: 2,
        entries: 100,
    };

    fn ask(list: &Greylist, ip: &str, to: &str, at: u64) -> bool {
        list.ask(&SETTINGS, ip.parse().unwrap(), "A@b.test", to, UNIX_EPOCH + Duration::from_secs(at)) == Answer::Pass
    }

    #[test]
    fn who_comes_back_in_time_is_let_through_and_remembered() {
        let list = Greylist::default();
        assert!(!ask(&list, "192.0.2.1", "x@weir.test", 1_000));
        assert!(!ask(&list, "192.0.2.1", "x@weir.test", 1_299), "too early");
        assert!(ask(&list, "192.0.2.77", "X@weir.test", 1_300), "the same network, any case");
        let list = Greylist::restore(&list.snapshot()).unwrap();
        assert!(ask(&list, "192.0.2.1", "x@weir.test", 50_000));
        assert!(!ask(&list, "192.0.2.1", "x@weir.test", 200_000), "forgotten");
        assert!(!ask(&list, "198.51.100.1", "y@weir.test", 1_000));
        assert!(!ask(&list, "198.51.100.1", "y@weir.test", 10_000), "too late");
    }

    #[test]
    fn a_network_that_always_comes_back_is_not_asked() {
        let list = Greylist::default();
        for (place, to) in ["a@w.test", "b@w.test"].into_iter().enumerate() {
            assert!(!ask(&list, "2001:db8::1", to, 1_000 + place as u64));
            assert!(ask(&list, "2001:db8::1", to, 2_000));
        }
        assert!(ask(&list, "2001:db8::ffff", "c@w.test", 2_001));
        assert!(!ask(&list, "2001:db8:1::1", "c@w.test", 2_001));
    }

    #[test]
    fn memory_is_bounded_and_damage_is_seen() {
        let list = Greylist::default();
        for number in 0..1_000 {
            ask(&list, "192.0.2.1", &format!("{number}@w.test"), number);
        }
        assert!(list.len() <= SETTINGS.entries);
        let mut bytes = list.snapshot();
        bytes[20] ^= 1;
        assert!(Greylist::restore(&bytes).is_none() && Greylist::restore(b"WEIR").is_none());
    }
}
