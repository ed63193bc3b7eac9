//! The look-up seam over the house's resolver. I/O: DNS, through [`crate::dns`].
//!
//! The resolver's cache and time-outs hold here too; a bound of one message is [`super::lookup::Bounded`]'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::lookup::{Answer, Lookup};
use crate::dns::{DnsFault, Resolver};

fn answer<T>(result: Result<T, DnsFault>) -> Answer<T> {
    match result {
        Ok(found) => Answer::Found(found),
        Err(DnsFault::NotFound { name_exists: true }) => Answer::NoData,
        Err(DnsFault::NotFound { name_exists: false }) => Answer::NxDomain,
        Err(DnsFault::Temporary(_)) => Answer::Temporary,
    }
}

impl Lookup for Resolver {
    async fn txt(&self, name: &str) -> Answer<Vec<Vec<u8>>> {
        let texts = answer(Resolver::txt(self, name).await);
        texts.map(|texts| texts.iter().map(|text| text.to_vec()).collect())
    }

    async fn mx(&self, name: &str) -> Answer<Vec<String>> {
        let records = answer(Resolver::mx(self, name).await);
        records.map(|records| records.iter().map(|record| record.host.clone()).collect())
    }

    async fn a(&self, name: &str) -> Answer<Vec<Ipv4Addr>> {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        };
        answer(Resolver::a(self, name).await).map(|found| found.iter().filter_map(v4).collect())
    }

    async fn aaaa(&self, name: &str) -> Answer<Vec<Ipv6Addr>> {
        let v6 = |ip: &IpAddr| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        };
        answer(Resolver::aaaa(self, name).await).map(|found| found.iter().filter_map(v6).collect())
    }

    async fn ptr(&self, ip: IpAddr) -> Answer<Vec<String>> {
        answer(Resolver::ptr(self, ip).await).map(|names| names.to_vec())
    }
}
