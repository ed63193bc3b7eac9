//! From a domain to the addresses to try, in order. I/O: DNS, through the resolver.
//!
//! RFC 5321 §5.1 (MX order, implicit MX), RFC 7505 (null MX). Mail by MX never goes to loopback, private or our own
//! addresses unless `[deliver] allow_local`: DNS is written by strangers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Answer, Fate};
use crate::config::settings::Config;
use crate::dns::{DnsFault, Found, Host, Kind, Mx, Records, Resolver};
use crate::wire::reply::Enhanced;

/// Addresses tried for one connection. Postfix: 5.
pub const ADDRESSES_MAX: usize = 5;
/// Of these, addresses of one host when there are several hosts, so that a second MX gets its chance.
const ADDRESSES_PER_HOST_MAX: usize = 2;

/// One address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host's name, for TLS and the log.
    pub host: Arc<str>,
    /// Where to connect.
    pub address: SocketAddr,
    /// DNSSEC vouches for the way here: its addresses, or its own CNAME at least, and, if it came from one, the MX record.
    pub secure: bool,
    /// Nobody but the domain's owner or the operator can have chosen the name: DNSSEC vouches for the MX record, or there was none.
    pub named_securely: bool,
    /// Where the CNAME chain of the name ended, if DNSSEC vouches for all of it.
    pub canonical: Option<Arc<str>>,
}

impl Target {
    /// An address that nothing is known of.
    pub fn new(host: &str, address: SocketAddr) -> Self {
        Target { host: host.into(), address, secure: false, named_securely: false, canonical: None }
    }
}

/// Addresses for mail to `domain` by MX.
/// # Errors
/// An answer for all recipients there: failed if the domain can't get mail, deferred on trouble.
pub async fn by_mx(resolver: &Resolver, config: &Config, domain: &str) -> Result<Vec<Target>, Answer> {
    if let Some(address) = literal(domain) {
        return checked(vec![literal_target(domain, address, config.deliver.port)], config);
    }
    let (hosts, mx_secure) = match resolver.find(Kind::Mx, domain).await {
        Ok(Found { records: Records::Mx(records), secure, .. }) => (ordered(&records, &config.hostname)?, secure),
        // Without MX the name is the domain's own; whether that holds, its addresses' signatures tell (RFC 7672 §2.2.2).
        Ok(_) | Err(DnsFault::NotFound { name_exists: true }) => (vec![domain.to_owned()], true),
        Err(fault) => return Err(unresolved(domain, &fault)),
    };
    let per_host = if hosts.len() > 1 { ADDRESSES_PER_HOST_MAX } else { ADDRESSES_MAX };
    let (mut targets, mut last) = (Vec::new(), DnsFault::NotFound { name_exists: true });
    for host in &hosts {
        match resolver.host(host).await {
            Ok(found) => {
                let made = made_of(host, found, config.deliver.port, mx_secure);
                targets.extend(made.take(per_host));
            }
            Err(fault @ DnsFault::Temporary(_)) => last = fault,
            Err(_) => {}
        }
        if targets.len() >= ADDRESSES_MAX {
            break;
        }
    }
    targets.truncate(ADDRESSES_MAX);
    match (targets.is_empty(), last) {
        (false, _) => checked(targets, config),
        (true, DnsFault::NotFound { .. }) => Err(Answer::local(
            Fate::Failed,
            Enhanced(5, 4, 4),
            format!("no host that takes mail for {domain} has an address"),
        )),
        (true, fault) => Err(unresolved(domain, &fault)),
    }
}

/// Addresses of a next hop that the configuration names; it may be anywhere.
/// # Errors
/// Deferred always: a typing error in the configuration must not bounce the mail.
pub async fn by_name(resolver: &Resolver, host: &str, port: u16) -> Result<Vec<Target>, Answer> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![literal_target(host, address, port)]);
    }
    match resolver.host(host).await {
        Ok(found) => Ok(made_of(host, found, port, true).take(ADDRESSES_MAX).collect()),
        Err(fault) => {
            let text = format!("the next hop {host} can't be resolved: {fault}");
            Err(Answer::local(Fate::Deferred, Enhanced(4, 4, 3), text))
        }
    }
}

fn literal_target(host: &str, address: IpAddr, port: u16) -> Target {
    Target { named_securely: true, ..Target::new(host, SocketAddr::new(address, port)) }
}

fn made_of(host: &str, found: Host, port: u16, named_securely: bool) -> impl Iterator<Item = Target> {
    let secure = named_securely && (found.secure || found.alias_secure);
    // A chain that leaves the signed zones says nothing of the name it ends at (RFC 7672 §2.2.2).
    let canonical = found.canonical.filter(|_| found.secure);
    let model = Target { secure, named_securely, canonical, ..Target::new(host, ([0; 4], port).into()) };
    found.addresses.into_iter().map(move |address| Target { address: SocketAddr::new(address, port), ..model.clone() })
}

fn unresolved(domain: &str, fault: &DnsFault) -> Answer {
    let (fate, status) = match fault {
        DnsFault::NotFound { .. } => (Fate::Failed, Enhanced(5, 1, 2)),
        DnsFault::Temporary(_) => (Fate::Deferred, Enhanced(4, 4, 3)),
    };
    Answer::local(fate, status, format!("{domain}: {fault}"))
}

/// Hosts by preference, at random among equals; where we are one of them, only those that are preferred over us (RFC 5321 §5.1).
fn ordered(records: &[Mx], own: &str) -> Result<Vec<String>, Answer> {
    if records.iter().all(|record| record.host.is_empty()) {
        return Err(Answer::local(Fate::Failed, Enhanced(5, 1, 10), "the domain takes no mail (null MX)"));
    }
    let own_preference =
        records.iter().filter(|record| record.host.eq_ignore_ascii_case(own)).map(|record| record.preference).min();
    let mut hosts: Vec<(u16, u32, &str)> = records
        .iter()
        .filter(|record| !record.host.is_empty() && own_preference.is_none_or(|own| record.preference < own))
        .map(|record| (record.preference, fastrand::u32(..), record.host.as_str()))
        .collect();
    hosts.sort_unstable();
    if hosts.is_empty() {
        return Err(loops());
    }
    Ok(hosts.into_iter().map(|(_, _, host)| host.to_owned()).collect())
}

fn loops() -> Answer {
    Answer::local(
        Fate::Failed,
        Enhanced(5, 4, 6),
        "the best MX of this domain is this host, which has no other route for it",
    )
}

/// Drops addresses that mail by MX must not go to.
fn checked(targets: Vec<Target>, config: &Config) -> Result<Vec<Target>, Answer> {
    if config.deliver.allow_local {
        return Ok(targets);
    }
    let own = |address: IpAddr| config.listeners.iter().any(|listener| listener.address.ip() == address);
    let kept: Vec<Target> =
        targets.into_iter().filter(|target| !is_local(target.address.ip()) && !own(target.address.ip())).collect();
    if kept.is_empty() {
        let text = "the domain's mail hosts have only private or local addresses";
        return Err(Answer::local(Fate::Failed, Enhanced(5, 4, 4), text));
    }
    Ok(kept)
}

/// Loopback, private, link-local, shared, unspecified or multicast: nowhere that strangers' DNS may send our mail.
pub fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            let shared = four.octets()[0] == 100 && four.octets()[1] & 0xc0 == 64; // RFC 6598
            four.is_loopback()
                || four.is_private()
                || four.is_link_local()
                || four.is_multicast()
                || four.is_broadcast()
                || four.octets()[0] == 0
                || shared
        }
        IpAddr::V6(six) => is_local_v6(six),
    }
}

fn is_local_v6(six: Ipv6Addr) -> bool {
    six.is_loopback()
        || six.is_unspecified()
        || six.is_multicast()
        || six.is_unique_local()
        || six.is_unicast_link_local()
}

fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner[5..].parse().ok(),
        _ => inner.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(u16, &str)]) -> Vec<Mx> {
        list.iter().map(|(preference, host)| Mx { preference: *preference, host: (*host).into() }).collect()
    }

    #[test]
    fn hosts_come_by_preference_and_at_random_among_equals() {
        fastrand::seed(7);
        let list = records(&[(20, "c"), (10, "a"), (10, "b")]);
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let hosts = ordered(&list, "me").unwrap();
            assert_eq!(hosts[2], "c");
            first.insert(hosts[0].clone());
        }
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn null_mx_and_loops_fail_for_good() {
        assert_eq!(ordered(&records(&[(0, "")]), "me").unwrap_err().status, Enhanced(5, 1, 10));
        assert_eq!(ordered(&records(&[(10, "ME"), (20, "a"), (5, "b")]), "me").unwrap(), ["b"]);
        assert_eq!(ordered(&records(&[(10, "me"), (10, "a")]), "me").unwrap_err().status, Enhanced(5, 4, 6));
    }

    #[test]
    fn local_addresses_by_table() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "224.0.0.1",
        ] {
            assert!(is_local(text.parse().unwrap()), "{text}");
        }
        for text in ["192.0.2.1", "100.128.0.1", "2001:db8::1", "8.8.8.8"] {
            assert!(!is_local(text.parse().unwrap()), "{text}");
        }
        assert_eq!(literal("[IPv6:2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
    }
}
