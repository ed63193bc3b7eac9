//! The look-up seam over hickory, for tools and until flow hands in the house's resolver. I/O: DNS.
//!
//! Only what a server said becomes "no data" or "no such name"; everything else is temporary. The hosts file and search
//! lists are never used: an identity must not depend on this machine's settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::lookup::{Answer, Lookup};

/// Tries of one query, the first included.
const ATTEMPTS: usize = 2;

/// Asks the system's or the given servers.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// A resolver over `servers`, or the system's if there are none; each try waits `timeout` at most.
    /// # Errors
    /// If the system's configuration can't be read.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, NetError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(name_server).collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = timeout;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        Ok(Resolver(builder.build()?))
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<Vec<T>> {
        // With the root's dot, so that no search list applies.
        // Raw labels: a name that SPF macros made may hold any byte.
        let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
        let Ok(mut name) = Name::from_labels(labels) else { return Answer::NxDomain };
        name.set_fqdn(true);
        match self.0.lookup(name, kind).await {
            Ok(found) => {
                let values: Vec<T> = found.answers().iter().filter_map(|record| pick(&record.data)).collect();
                if values.is_empty() { Answer::NoData } else { Answer::Found(values) }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Answer::NxDomain,
                ResponseCode::NoError => Answer::NoData,
                _ => Answer::Temporary,
            },
            Err(_) => Answer::Temporary,
        }
    }
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

fn host(name: &Name) -> String {
    name.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(".")
}

impl Lookup for Resolver {
    async fn txt(&self, name: &str) -> Answer<Vec<Vec<u8>>> {
        let joined = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()),
            _ => None,
        };
        self.ask(name, RecordType::TXT, joined).await
    }

    async fn mx(&self, name: &str) -> Answer<Vec<String>> {
        let pick = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, host(&mx.exchange))),
            _ => None,
        };
        self.ask(name, RecordType::MX, pick).await.map(|mut hosts| {
            hosts.sort();
            hosts.into_iter().map(|(_, host)| host).collect()
        })
    }

    async fn a(&self, name: &str) -> Answer<Vec<Ipv4Addr>> {
        let pick = |data: &RData| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        };
        self.ask(name, RecordType::A, pick).await
    }

    async fn aaaa(&self, name: &str) -> Answer<Vec<Ipv6Addr>> {
        let pick = |data: &RData| match data {
            RData::AAAA(aaaa) => Some(aaaa.0),
            _ => None,
        };
        self.ask(name, RecordType::AAAA, pick).await
    }

    async fn ptr(&self, ip: IpAddr) -> Answer<Vec<String>> {
        let pick = |data: &RData| match data {
            RData::PTR(ptr) => Some(host(&ptr.0)),
            _ => None,
        };
        self.ask(&Name::from(ip).to_ascii(), RecordType::PTR, pick).await
    }
}
