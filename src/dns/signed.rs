//! Questions whose answer must come validated: the AD bit of servers that `[dns] trust_ad` names. I/O: DNS over UDP and TCP.
//!
//! RFC 4035 §3.2.3 (AD), RFC 7672 §2.1. Validation itself is the server's, as with Postfix: we set DO and believe its AD bit, so the
//! way to it must be safe (loopback). A CNAME chain comes in one answer, whose AD bit covers all of it; the name it ends at is kept.

use std::sync::Arc;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query};
use hickory_resolver::proto::rr::rdata::TLSA;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

/// One TLSA record (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// 2 or 3 for SMTP.
    pub usage: u8,
    /// 0: the certificate; 1: its SubjectPublicKeyInfo.
    pub selector: u8,
    /// 0: the bytes themselves; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What to compare with.
    pub data: Vec<u8>,
}

impl From<&TLSA> for Tlsa {
    fn from(record: &TLSA) -> Self {
        let TLSA { cert_usage, selector, matching, cert_data, .. } = record;
        let (usage, selector, matching) = ((*cert_usage).into(), (*selector).into(), (*matching).into());
        Tlsa { usage, selector, matching, data: cert_data.clone() }
    }
}

/// Asks servers that validate.
pub(super) struct Signed {
    pool: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    options: DnsRequestOptions,
}

impl Signed {
    pub fn new(servers: Vec<NameServerConfig>, options: &ResolverOpts) -> Result<Self, NetError> {
        let context = Arc::new(PoolContext::new(options.clone(), TlsConfig::new()?));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        let mut asked = DnsRequestOptions::default();
        asked.use_edns = true;
        asked.edns_set_dnssec_ok = true;
        asked.recursion_desired = true;
        asked.edns_payload_len = options.edns_payload_len;
        Ok(Signed { pool: RetryDnsHandle::new(pool, options.attempts), options: asked })
    }

    pub async fn ask(&self, name: Name, kind: RecordType) -> Result<DnsResponse, NetError> {
        self.pool.lookup(Query::query(name, kind), self.options).first_answer().await
    }
}

/// Where the CNAME chain of `response` ends, if it has one. Links out of order are followed too; a circle ends where it closes.
pub(super) fn canonical_name(response: &DnsResponse, asked: &Name) -> Option<Name> {
    let links: Vec<(&Name, &Name)> = response
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::CNAME(target) => Some((&record.name, &target.0)),
            _ => None,
        })
        .collect();
    let mut at = asked;
    for _ in 0..links.len() {
        let Some((_, target)) = links.iter().find(|(from, _)| *from == at) else { break };
        at = target;
    }
    (at != asked).then(|| at.clone())
}
