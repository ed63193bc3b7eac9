//! Admission: how many connections there are, in total, of one client address and of one network. Pure; locks for nanoseconds.
//!
//! Counts are of the whole process, limits are the listener's: a submission listener with a higher `connections` keeps
//! places that strangers on an mx listener can't take. Trusted networks are not counted by address or network, as many
//! users stand behind one of their hosts, and only they may use the last `connections_reserved` places.
//! A [`Place`] gives back what it took when it is dropped, so no path can leak a count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    shards: [Mutex<HashMap<IpAddr, Counted, foldhash::fast::RandomState>>; SHARDS],
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
    /// Nobody is there; more than `ceiling` will never be let in.
    pub fn new(ceiling: usize) -> Arc<Self> {
        Arc::new(Gate { total: AtomicUsize::new(0), ceiling, shards: Default::default() })
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
    pub fn enter(self: &Arc<Self>, ip: IpAddr, limits: &Limits) -> Result<Place, Refusal> {
        let mut place = self.enter_total(limits.connections.saturating_sub(limits.connections_reserved) as usize)?;
        place.name(ip, limits)?;
        Ok(place)
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
        let counted = shard.entry(key).or_default();
        let count = field(counted);
        let admitted = *count < limit;
        if admitted {
            *count += 1;
        } else if counted.as_ip == 0 && counted.as_net == 0 {
            shard.remove(&key);
        }
        admitted
    }

    fn uncount(&self, key: IpAddr, field: fn(&mut Counted) -> &mut u32) {
        let mut shard = self.shards[shard_of(key)].lock();
        let Some(counted) = shard.get_mut(&key) else { return };
        *field(counted) = field(counted).saturating_sub(1);
        if counted.as_ip == 0 && counted.as_net == 0 {
            shard.remove(&key);
            // An attack from a million addresses must not leave its map behind.
            if shard.is_empty() {
                shard.shrink_to(SHARDS);
            }
        }
    }
}

impl Place {
    /// The client is known now: counts it by address and network.
    /// # Errors
    /// [`Refusal::PerIp`] or [`Refusal::PerNet`].
    pub fn name(&mut self, ip: IpAddr, limits: &Limits) -> Result<(), Refusal> {
        debug_assert!(self.named.is_none(), "a place is named once");
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
        let gate = Gate::new(100);
        let first = gate.enter(ip("192.0.2.1"), &limits()).ok().unwrap();
        let second = gate.enter(ip("192.0.2.1"), &limits()).ok().unwrap();
        assert_eq!(gate.enter(ip("192.0.2.1"), &limits()).err(), Some(Refusal::PerIp));
        let third = gate.enter(ip("192.0.2.200"), &limits()).ok().unwrap();
        assert_eq!(gate.enter(ip("192.0.2.9"), &limits()).err(), Some(Refusal::PerNet));
        let others: Vec<Place> =
            (1..=3).map(|n| gate.enter(ip(&format!("2001:db8:{n}::1")), &limits()).ok().unwrap()).collect();
        assert_eq!(gate.enter(ip("198.51.100.1"), &limits()).err(), Some(Refusal::Total));
        let trusted: Vec<Place> = (0..4).map(|_| gate.enter_trusted(&limits()).ok().unwrap()).collect();
        assert_eq!(gate.enter_trusted(&limits()).err(), Some(Refusal::Total));
        drop((first, second, third, others, trusted));
        assert_eq!(gate.total(), 0);
        assert!(gate.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn the_ceiling_of_the_process_is_above_all() {
        let gate = Gate::new(1);
        let _first = gate.enter_trusted(&limits()).ok().unwrap();
        assert_eq!(gate.enter_trusted(&limits()).err(), Some(Refusal::Total));
    }
}
