//! Admission: how many connections there are, in total, of one client address and of one network. Pure; locks for nanoseconds.
//!
//! Counts are of the whole process, limits are the listener's: a submission listener with a higher `connections` keeps
//! places that strangers on an mx listener can't take. Trusted networks are not counted by address or network, as many
//! users stand behind one of their hosts, and only they may use the last `connections_reserved` places.
//! TLS handshakes are counted too, by the minute: they are the dearest thing that a stranger can have for the asking.
//! A [`Place`] gives back what it took when it is dropped, so no path can leak a count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::service::Refusal;
use crate::config::limits::Limits;

/// Maps apart from each other, so that reactors rarely meet at a lock.
const SHARDS: usize = 16;
/// An IPv4 network is what one customer usually has.
const NET_V4_BITS: u32 = 24;
/// An IPv6 customer has at least a /64 (RFC 6177).
const NET_V6_BITS: u32 = 64;

/// Counts connections of the process.
pub struct Gate {
    total: AtomicUsize,
    /// What the process can hold whatever the configuration says (file descriptors).
    ceiling: usize,
    began: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    counted: HashMap<IpAddr, Counted, foldhash::fast::RandomState>,
    /// Handshakes of this minute by client (IPv6: by network, in which one client has addresses without number).
    handshakes: HashMap<IpAddr, u32, foldhash::fast::RandomState>,
    minute: u64,
}

impl Shard {
    /// Forgets the handshakes of another minute.
    fn turn_to(&mut self, minute: u64) {
        if self.minute != minute {
            self.minute = minute;
            self.handshakes = HashMap::default();
        }
    }
}

/// A client or (under the network's first address) a network.
#[derive(Default)]
struct Counted {
    as_ip: u32,
    as_net: u32,
}

/// A connection's place; dropped with it.
pub struct Place {
    gate: Arc<Gate>,
    named: Option<IpAddr>,
}

impl Gate {
    /// Nobody is there; more than `ceiling` will never be let in. Minutes are counted from `now`.
    pub fn new(ceiling: usize, now: Instant) -> Arc<Self> {
        Arc::new(Gate { total: AtomicUsize::new(0), ceiling, began: now, shards: Default::default() })
    }

    /// Connections now.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes a place in the total alone: for a balancer that has not said yet who its client is, and for the trusted.
    /// # Errors
    /// [`Refusal::Total`].
    pub fn enter_trusted(self: &Arc<Self>, limits: &Limits) -> Result<Place, Refusal> {
        self.enter_total(limits.connections as usize)
    }

    /// Takes a place for a stranger at `ip`.
    /// # Errors
    /// Which bound is reached.
    pub fn enter(self: &Arc<Self>, now: Instant, ip: IpAddr, limits: &Limits) -> Result<Place, Refusal> {
        let mut place = self.enter_total(limits.connections.saturating_sub(limits.connections_reserved) as usize)?;
        place.name(now, ip, limits)?;
        Ok(place)
    }

    /// A client's handshake begins.
    pub fn count_handshake(&self, now: Instant, ip: IpAddr) {
        let key = who_shakes(ip);
        let mut shard = self.shards[shard_of(key)].lock();
        shard.turn_to(self.minute(now));
        *shard.handshakes.entry(key).or_default() += 1;
    }

    fn handshakes(&self, now: Instant, ip: IpAddr) -> u32 {
        let key = who_shakes(ip);
        let mut shard = self.shards[shard_of(key)].lock();
        shard.turn_to(self.minute(now));
        shard.handshakes.get(&key).copied().unwrap_or(0)
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / 60
    }

    fn enter_total(self: &Arc<Self>, limit: usize) -> Result<Place, Refusal> {
        let place = Place { gate: self.clone(), named: None };
        if self.total.fetch_add(1, Ordering::Relaxed) >= limit.min(self.ceiling) {
            return Err(Refusal::Total); // and `place` takes the count back
        }
        Ok(place)
    }

    fn count(&self, key: IpAddr, limit: u32, field: fn(&mut Counted) -> &mut u32) -> bool {
        let mut shard = self.shards[shard_of(key)].lock();
        let counted = shard.counted.entry(key).or_default();
        let count = field(counted);
        let admitted = *count < limit;
        if admitted {
            *count += 1;
        } else if counted.as_ip == 0 && counted.as_net == 0 {
            shard.counted.remove(&key);
        }
        admitted
    }

    fn uncount(&self, key: IpAddr, field: fn(&mut Counted) -> &mut u32) {
        let mut shard = self.shards[shard_of(key)].lock();
        let Some(counted) = shard.counted.get_mut(&key) else { return };
        *field(counted) = field(counted).saturating_sub(1);
        if counted.as_ip == 0 && counted.as_net == 0 {
            shard.counted.remove(&key);
            // An attack from a million addresses must not leave its map behind.
            if shard.counted.is_empty() {
                shard.counted.shrink_to(SHARDS);
            }
        }
    }
}

impl Place {
    /// The client is known now: counts it by address and network.
    /// # Errors
    /// [`Refusal::Handshakes`], [`Refusal::PerIp`] or [`Refusal::PerNet`].
    pub fn name(&mut self, now: Instant, ip: IpAddr, limits: &Limits) -> Result<(), Refusal> {
        debug_assert!(self.named.is_none(), "a place is named once");
        if self.gate.handshakes(now, ip) >= limits.handshakes_per_minute {
            return Err(Refusal::Handshakes);
        }
        if !self.gate.count(ip, limits.connections_per_ip, |c| &mut c.as_ip) {
            return Err(Refusal::PerIp);
        }
        if !self.gate.count(network_of(ip), limits.connections_per_net, |c| &mut c.as_net) {
            self.gate.uncount(ip, |c| &mut c.as_ip);
            return Err(Refusal::PerNet);
        }
        self.named = Some(ip);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.named {
            self.gate.uncount(ip, |c| &mut c.as_ip);
            self.gate.uncount(network_of(ip), |c| &mut c.as_net);
        }
    }
}

fn who_shakes(ip: IpAddr) -> IpAddr {
    if ip.is_ipv6() { network_of(ip) } else { ip }
}

fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << (32 - NET_V4_BITS))).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - NET_V6_BITS))).into(),
    }
}

fn shard_of(key: IpAddr) -> usize {
    let sum = match key {
        IpAddr::V4(ip) => ip.octets().iter().fold(0u8, |sum, b| sum.wrapping_mul(31) ^ b),
        IpAddr::V6(ip) => ip.octets().iter().fold(0u8, |sum, b| sum.wrapping_mul(31) ^ b),
    };
    usize::from(sum) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 10,
            connections_per_ip: 2,
            connections_per_net: 3,
            connections_reserved: 4,
            ..Limits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_bound_holds_and_a_dropped_place_is_free() {
        let now = Instant::now();
        let gate = Gate::new(100, now);
        let first = gate.enter(now, ip("192.0.2.1"), &limits()).ok().unwrap();
        let second = gate.enter(now, ip("192.0.2.1"), &limits()).ok().unwrap();
        assert_eq!(gate.enter(now, ip("192.0.2.1"), &limits()).err(), Some(Refusal::PerIp));
        let third = gate.enter(now, ip("192.0.2.200"), &limits()).ok().unwrap();
        assert_eq!(gate.enter(now, ip("192.0.2.9"), &limits()).err(), Some(Refusal::PerNet));
        let others: Vec<Place> =
            (1..=3).map(|n| gate.enter(now, ip(&format!("2001:db8:{n}::1")), &limits()).ok().unwrap()).collect();
        assert_eq!(gate.enter(now, ip("198.51.100.1"), &limits()).err(), Some(Refusal::Total));
        let trusted: Vec<Place> = (0..4).map(|_| gate.enter_trusted(&limits()).ok().unwrap()).collect();
        assert_eq!(gate.enter_trusted(&limits()).err(), Some(Refusal::Total));
        drop((first, second, third, others, trusted));
        assert_eq!(gate.total(), 0);
        assert!(gate.shards.iter().all(|shard| shard.lock().counted.is_empty()));
    }

    #[test]
    fn handshakes_are_counted_by_client_and_minute() {
        let began = Instant::now();
        let gate = Gate::new(100, began);
        let limits = Limits { handshakes_per_minute: 2, ..limits() };
        let enter = |now: Instant, text: &str| gate.enter(now, ip(text), &limits).err();
        for client in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"] {
            assert_eq!(enter(began, client), None);
            gate.count_handshake(began, ip(client));
        }
        assert_eq!(enter(began, "192.0.2.1"), Some(Refusal::Handshakes));
        assert_eq!(enter(began, "2001:db8::3"), Some(Refusal::Handshakes), "a client has a whole network of addresses");
        assert_eq!((enter(began, "192.0.2.2"), enter(began, "2001:db8:0:1::1")), (None, None), "others are not meant");
        let later = began + std::time::Duration::from_secs(60);
        assert_eq!(enter(later, "192.0.2.1"), None, "a minute later all is forgotten");
        gate.count_handshake(later, ip("192.0.2.1"));
        assert_eq!(gate.handshakes(later, ip("192.0.2.1")), 1);
    }

    #[test]
    fn the_ceiling_of_the_process_is_above_all() {
        let gate = Gate::new(1, Instant::now());
        let _first = gate.enter_trusted(&limits()).ok().unwrap();
        assert_eq!(gate.enter_trusted(&limits()).err(), Some(Refusal::Total));
    }
}
