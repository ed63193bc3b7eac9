//! The verified name of a client's address: PTR, and an address of that name that leads back. I/O: DNS. RFC 8601 §3 (iprev).
//!
//! A name that does not lead back is whatever the owner of the reverse zone likes to write, and is not told to anybody.

use std::net::IpAddr;

use super::lookup::Lookup;

/// Names of one address that are followed (RFC 7208 §4.6.4 has the same bound for `ptr`).
const NAMES_MAX: usize = 10;

/// The first name of `ip` that leads back to it.
pub async fn verified_name<L: Lookup>(dns: &L, ip: IpAddr) -> Option<String> {
    let names = dns.ptr(ip).await.found()?;
    for name in names.into_iter().take(NAMES_MAX) {
        let leads_back = match ip {
            IpAddr::V4(ip) => dns.a(&name).await.found().is_some_and(|found| found.contains(&ip)),
            IpAddr::V6(ip) => dns.aaaa(&name).await.found().is_some_and(|found| found.contains(&ip)),
        };
        if leads_back {
            return Some(name);
        }
    }
    None
}
