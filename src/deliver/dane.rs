//! DANE for SMTP: does a certificate chain match a host's TLSA records? Pure. RFC 6698 §2.1, RFC 7672 §3.1.
//!
//! Only usages 2 (DANE-TA) and 3 (DANE-EE) count for SMTP; a host whose records are all unusable still demands TLS, unauthenticated.
//! Names and dates of the certificate do not matter for usage 3 (RFC 7672 §3.1.1). That the records were validated by DNSSEC is
//! for the caller to know.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, SHA512, digest};

use crate::dns::Tlsa;

/// TLSA records of one host that are looked at.
const RECORDS_MAX: usize = 32;

/// A certificate of the chain, in the two forms that records may speak of.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// DER of the whole certificate.
    pub der: &'a [u8],
    /// DER of its SubjectPublicKeyInfo.
    pub public_key_info: &'a [u8],
}

/// What the records say of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The server's own certificate is named: authenticated.
    EndEntity,
    /// No usable record matches: do not deliver.
    Mismatch,
    /// The certificate at this place of the chain is named as trust anchor: the chain up to it and the host name must still be verified.
    TrustAnchor(usize),
    /// No usable record: TLS is demanded, but nobody is authenticated (RFC 7672 §2.2).
    Unusable,
}

/// Usable for SMTP: parameters that are known, data of the right length.
pub fn is_usable(record: &Tlsa) -> bool {
    let length_fits = match record.matching {
        0 => !record.data.is_empty(),
        1 => record.data.len() == 32,
        2 => record.data.len() == 64,
        _ => false,
    };
    matches!(record.usage, 2 | 3) && record.selector <= 1 && length_fits
}

fn names(record: &Tlsa, certificate: &Certificate<'_>) -> bool {
    let subject = if record.selector == 0 { certificate.der } else { certificate.public_key_info };
    match record.matching {
        0 => subject == record.data,
        1 => digest(&SHA256, subject).as_ref() == record.data,
        _ => digest(&SHA512, subject).as_ref() == record.data,
    }
}

/// A record as a zone file and a report write it, its data cut short.
pub fn show(record: &Tlsa) -> String {
    const DATA_BYTES_SHOWN: usize = 64;
    let mut text = format!("{} {} {} ", record.usage, record.selector, record.matching);
    for byte in record.data.iter().take(DATA_BYTES_SHOWN) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Compares; `chain` is the server's certificate first.
pub fn compare(records: &[Tlsa], chain: &[Certificate<'_>]) -> Match {
    let usable: Vec<&Tlsa> = records.iter().filter(|record| is_usable(record)).take(RECORDS_MAX).collect();
    if usable.is_empty() {
        return Match::Unusable;
    }
    let own = chain.first();
    if usable.iter().any(|record| record.usage == 3 && own.is_some_and(|own| names(record, own))) {
        return Match::EndEntity;
    }
    let anchors = chain.iter().position(|certificate| usable.iter().any(|r| r.usage == 2 && names(r, certificate)));
    anchors.map_or(Match::Mismatch, Match::TrustAnchor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_match_by_usage_selector_and_digest() {
        let (own, ca) = (
            Certificate { der: b"own", public_key_info: b"ownkey" },
            Certificate { der: b"ca", public_key_info: b"cakey" },
        );
        let sha256 = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
        let record = |usage, selector, matching, data: Vec<u8>| Tlsa { usage, selector, matching, data };
        let chain = [own, ca];
        for (records, expected) in [
            (vec![record(3, 1, 1, sha256(b"ownkey"))], Match::EndEntity),
            (vec![record(3, 0, 0, b"own".to_vec())], Match::EndEntity),
            (vec![record(3, 1, 1, sha256(b"cakey"))], Match::Mismatch),
            (vec![record(2, 0, 1, sha256(b"ca"))], Match::TrustAnchor(1)),
            (vec![record(2, 0, 2, digest(&SHA512, b"ca").as_ref().to_vec())], Match::TrustAnchor(1)),
            (vec![record(1, 0, 1, sha256(b"own")), record(3, 2, 1, sha256(b"own"))], Match::Unusable),
            (vec![record(3, 1, 1, b"short".to_vec())], Match::Unusable),
            (vec![record(0, 1, 1, sha256(b"x")), record(3, 1, 1, sha256(b"ownkey"))], Match::EndEntity),
        ] {
            assert_eq!(compare(&records, &chain), expected, "{records:?}");
        }
        assert_eq!(compare(&[record(3, 1, 1, sha256(b"x"))], &[]), Match::Mismatch);
    }
}
