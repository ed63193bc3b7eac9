//! TLSA of a domain's mail hosts: what DANE makes of them, and why it makes nothing of them. I/O: DNS; our certificate's file.
//!
//! RFC 7672 §2.2: records count only where the MX record, the host's address (or its own CNAME) and the records themselves are
//! validated by DNSSEC, which only a resolver can tell that `[dns] trust_ad` names.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;

use super::{Finding, State};
use crate::config::Config;
use crate::deliver::dane::{self, Certificate, Match};
use crate::dns::{DnsFault, Found, Kind, Records, Resolver, Tlsa};

/// What is known of a host when its TLSA records are looked at.
struct Facts<'a> {
    name: String,
    /// Nothing: this resolver can't tell.
    unsigned: Option<Option<String>>,
    records: Result<(Vec<Tlsa>, bool), DnsFault>,
    /// Our own certificate, if the host is us.
    own: Option<&'a [CertificateDer<'static>]>,
}

/// The finding on one mail host of `domain`.
pub(super) async fn finding(dns: &Resolver, config: &Config, domain: &str, host: &str) -> Finding {
    let name = format!("_{}._tcp.{host}", config.deliver.port);
    let records = match dns.find(Kind::Tlsa, &name).await {
        Ok(Found { records: Records::Tlsa(records), secure, .. }) => Ok((records.to_vec(), secure)),
        Ok(_) => Ok((Vec::new(), false)),
        Err(DnsFault::NotFound { .. }) => Ok((Vec::new(), false)),
        Err(fault) => Err(fault),
    };
    let unsigned = if dns.trusts_ad() { Some(unsigned(dns, domain, host).await) } else { None };
    let own = if host.eq_ignore_ascii_case(&config.hostname) { own_chain(config) } else { None };
    judged(&Facts { name, unsigned, records, own: own.as_deref() })
}

/// What on the way to the host is not signed; nothing if all of it is.
async fn unsigned(dns: &Resolver, domain: &str, host: &str) -> Option<String> {
    let mx_secure = dns.find(Kind::Mx, domain).await.is_ok_and(|found| found.secure);
    if !mx_secure {
        return Some(format!("the MX record of {domain} is not signed (DNSSEC)"));
    }
    let address = dns.host(host).await.ok()?;
    let is_secure = address.secure || address.alias_secure;
    (!is_secure).then(|| format!("the address of {host} is not signed (DNSSEC)"))
}

fn own_chain(config: &Config) -> Option<Vec<CertificateDer<'static>>> {
    let pair = config.tls.pair.as_ref()?;
    CertificateDer::pem_file_iter(&pair.certificate).ok()?.collect::<Result<Vec<_>, _>>().ok()
}

fn judged(facts: &Facts<'_>) -> Finding {
    let (name, finding) = (&facts.name, |state, text: String| Finding::new("tlsa", state, text));
    let (records, secure) = match &facts.records {
        Ok((records, secure)) => (records, *secure),
        Err(fault) => {
            return finding(
                State::Bad,
                format!("{name}: {fault}; senders with DANE keep their mail until that is mended"),
            );
        }
    };
    let shown = format!("{name}: {}", records.iter().map(dane::show).collect::<Vec<_>>().join(", "));
    match (&facts.unsigned, records.is_empty()) {
        (None, true) => finding(State::Missing, format!("{name}: no DANE")).publish_own(facts),
        (None, false) => {
            let why = "whether they are signed can't be told: [dns] trust_ad is false, or its servers do not validate";
            finding(State::Unknown, format!("{shown}; {why}"))
        }
        (Some(Some(why)), true) => finding(State::Missing, format!("{name}: no DANE, and {why}")),
        (Some(Some(why)), false) => finding(State::Bad, format!("{shown}; no DANE, for {why}")),
        (Some(None), true) => {
            finding(State::Missing, format!("{name}: no DANE, though the zone is signed")).publish_own(facts)
        }
        (Some(None), false) if !secure => {
            finding(State::Bad, format!("{shown}; no DANE, for they are not signed (DNSSEC)"))
        }
        (Some(None), false) => usable(facts, records, shown),
    }
}

fn usable(facts: &Facts<'_>, records: &[Tlsa], shown: String) -> Finding {
    let of_no_use: Vec<String> = records.iter().filter(|record| !dane::is_usable(record)).map(dane::show).collect();
    if of_no_use.len() == records.len() {
        let text = format!(
            "{shown}; none can be used for mail (usage 2 or 3, RFC 7672 §3.1): TLS is demanded, nobody is authenticated"
        );
        return Finding::new("tlsa", State::Bad, text).publish_own(facts);
    }
    if facts.own.is_some_and(|chain| !names_chain(records, chain)) {
        let text = format!("{shown}; none of them names our certificate: senders with DANE will not deliver");
        return Finding::new("tlsa", State::Bad, text).publish_own(facts);
    }
    if of_no_use.is_empty() {
        return Finding::new("tlsa", State::Good, shown);
    }
    Finding::new("tlsa", State::Bad, format!("{shown}; of no use for mail: {}", of_no_use.join(", ")))
}

fn key_of(der: &CertificateDer<'_>) -> Vec<u8> {
    ParsedCertificate::try_from(der).map(|parsed| parsed.subject_public_key_info().to_vec()).unwrap_or_default()
}

fn names_chain(records: &[Tlsa], chain: &[CertificateDer<'_>]) -> bool {
    let keys: Vec<Vec<u8>> = chain.iter().map(key_of).collect();
    let pairs = chain.iter().zip(&keys);
    let certificates: Vec<_> = pairs.map(|(der, key)| Certificate { der, public_key_info: key }).collect();
    matches!(dane::compare(records, &certificates), Match::EndEntity | Match::TrustAnchor(_))
}

impl Finding {
    /// The record that names our own key (3 1 1, as RFC 7672 §3.1.1 advises), if the host is us.
    fn publish_own(self, facts: &Facts<'_>) -> Self {
        let Some(own) = facts.own.and_then(|chain| chain.first()) else { return self };
        let hash = digest(&SHA256, &key_of(own));
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: hash.as_ref().to_vec() };
        let text = format!("{}. IN TLSA {}", facts.name, dane::show(&record));
        self.publish(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(unsigned: Option<Option<&str>>, usages: &[u8], secure: bool) -> String {
        let record = |usage: &u8| Tlsa { usage: *usage, selector: 1, matching: 1, data: vec![7; 32] };
        let facts = Facts {
            name: "_25._tcp.mx.test".to_owned(),
            unsigned: unsigned.map(|why| why.map(str::to_owned)),
            records: Ok((usages.iter().map(record).collect(), secure)),
            own: None,
        };
        let finding = judged(&facts);
        format!("{:?} {}", finding.state, finding.text.replace(&"07".repeat(32), "07"))
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let why = Some(Some("the MX record of a.test is not signed (DNSSEC)"));
        for (given, expected) in [
            (
                said(None, &[3], false),
                "Unknown _25._tcp.mx.test: 3 1 1 07; whether they are signed can't be told: [dns] trust_ad",
            ),
            (said(None, &[], false), "Missing _25._tcp.mx.test: no DANE"),
            (
                said(why, &[3], true),
                "Bad _25._tcp.mx.test: 3 1 1 07; no DANE, for the MX record of a.test is not signed (DNSSEC)",
            ),
            (said(why, &[], true), "Missing _25._tcp.mx.test: no DANE, and the MX record of a.test"),
            (said(Some(None), &[], false), "Missing _25._tcp.mx.test: no DANE, though the zone is signed"),
            (said(Some(None), &[3], false), "Bad _25._tcp.mx.test: 3 1 1 07; no DANE, for they are not signed"),
            (said(Some(None), &[1], true), "Bad _25._tcp.mx.test: 1 1 1 07; none can be used for mail"),
            (said(Some(None), &[3, 1], true), "Bad _25._tcp.mx.test: 3 1 1 07, 1 1 1 07; of no use for mail: 1 1 1"),
            (said(Some(None), &[3, 2], true), "Good _25._tcp.mx.test: 3 1 1 07, 2 1 1 07"),
        ] {
            assert!(given.starts_with(expected), "{given}");
        }
    }
}
