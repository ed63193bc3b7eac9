//! Judges the certificate of a mail host: by nobody, by PKIX without consequence, or by TLSA records. Pure.
//!
//! RFC 7672 §3.1: DANE-EE(3) is a match of the server's own certificate, whatever its names and dates; DANE-TA(2) makes a
//! certificate of the chain the only trust anchor, below which names and dates count (§3.2.2). The handshake's signatures are always
//! checked. What was found stands in [`Judge::finding`], in words and with its type of RFC 8460.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::deliver::dane::{self, Certificate, Match};
use crate::deliver::tls_result::{FailureType, TlsFailure};
use crate::dns::Tlsa;

/// Certificates of a chain that are looked at; OpenSSL reads 100, real chains have up to five.
const CHAIN_MAX: usize = 10;
/// Records named in a failure.
const RECORDS_SHOWN: usize = 3;

/// TLSA records of one host, validated, at least one usable.
#[derive(Debug)]
pub struct TlsaSet {
    /// The name below which they stand; SNI, and the first name that a certificate may bear.
    pub base: Arc<str>,
    /// Other names for DANE-TA: the host before its CNAME, the recipients' domain.
    pub names: Vec<Arc<str>>,
    /// The records.
    pub records: Arc<[Tlsa]>,
}

/// What a certificate must prove.
#[derive(Debug)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// Nothing, but what PKIX says is remembered.
    Observed(Arc<WebPkiServerVerifier>),
    /// That it is the one the records name.
    Tlsa(Arc<TlsaSet>),
}

/// Judges one session's certificate.
#[derive(Debug)]
pub struct Judge {
    proof: Proof,
    provider: Arc<CryptoProvider>,
    finding: Mutex<Option<TlsFailure>>,
}

impl Judge {
    /// Asks for `proof`.
    pub fn new(proof: Proof, provider: Arc<CryptoProvider>) -> Self {
        Judge { proof, provider, finding: Mutex::default() }
    }

    /// Why the proof was not given.
    pub fn finding(&self) -> Option<TlsFailure> {
        self.finding.lock().clone()
    }

    fn by_tlsa(&self, set: &TlsaSet, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsFailure> {
        // A certificate that does not parse can still be matched whole.
        let keys: Vec<_> = chain
            .iter()
            .map(|der| ParsedCertificate::try_from(der).map(|parsed| parsed.subject_public_key_info()).ok())
            .collect();
        let certificates: Vec<Certificate<'_>> = chain
            .iter()
            .zip(&keys)
            .map(|(der, key)| Certificate { der, public_key_info: key.as_deref().unwrap_or_default() })
            .collect();
        match dane::compare(&set.records, &certificates) {
            Match::EndEntity => Ok(()),
            Match::TrustAnchor(at) => self.below_anchor(set, chain, at, now),
            Match::Mismatch | Match::Unusable => {
                let shown: Vec<String> = set.records.iter().take(RECORDS_SHOWN).map(describe).collect();
                let detail = format!("TLSA of {} matches nothing: {}", set.base, shown.join(", "));
                Err(TlsFailure::new(FailureType::TlsaInvalid, &detail))
            }
        }
    }

    fn below_anchor(
        &self,
        set: &TlsaSet,
        chain: &[CertificateDer<'_>],
        at: usize,
        now: UnixTime,
    ) -> Result<(), TlsFailure> {
        let failed = |error: &Error| {
            let detail = format!("{} below the trust anchor that TLSA of {} names", in_words(error), set.base);
            TlsFailure::new(failure_type(error), &detail)
        };
        let mut roots = RootCertStore::empty();
        roots.add(chain[at].clone().into_owned()).map_err(|error| failed(&error))?;
        let made = WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone()).build();
        let verifier = made.map_err(|error| TlsFailure::new(FailureType::TlsaInvalid, &error.to_string()))?;
        let mut last = TlsFailure::new(FailureType::CertificateHostMismatch, "no name to verify");
        for name in std::iter::once(&set.base).chain(&set.names) {
            let Ok(name) = ServerName::try_from(name.to_string()) else { continue };
            match verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now) {
                Ok(_) => return Ok(()),
                Err(error) => last = failed(&error),
            }
        }
        Err(last)
    }
}

fn describe(record: &Tlsa) -> String {
    let Tlsa { usage, selector, matching, .. } = record;
    format!("usage {usage} selector {selector} matching {matching}")
}

/// The failure of RFC 8460 §4.3 that an error of a handshake is.
pub fn failure_type(error: &Error) -> FailureType {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
    };
    match error {
        Error::InvalidCertificate(what) => match what {
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                FailureType::CertificateExpired
            }
            NotValidForName | NotValidForNameContext { .. } => FailureType::CertificateHostMismatch,
            _ => FailureType::CertificateNotTrusted,
        },
        _ => FailureType::ValidationFailure,
    }
}

/// What went wrong, for people.
pub fn in_words(error: &Error) -> String {
    match (failure_type(error), error) {
        (FailureType::CertificateExpired, _) => "the certificate is out of date".to_owned(),
        (FailureType::CertificateHostMismatch, _) => "the certificate is for another host".to_owned(),
        (_, Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the certificate is from nobody that is trusted".to_owned()
        }
        (_, other) => other.to_string(),
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.proof {
            Proof::Nothing => {}
            Proof::Observed(pkix) => {
                let verified = pkix.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                let failure = verified.err().map(|error| TlsFailure::new(failure_type(&error), &in_words(&error)));
                *self.finding.lock() = failure;
            }
            Proof::Tlsa(set) => {
                let whole = std::iter::once(end_entity).chain(intermediates.iter().take(CHAIN_MAX - 1));
                let chain: Vec<CertificateDer<'_>> = whole.cloned().collect();
                if let Err(failure) = self.by_tlsa(set, &chain, now) {
                    *self.finding.lock() = Some(failure);
                    return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    /// A chain of a host and its CA.
    fn chain(names: &[&str], ended: bool) -> Vec<CertificateDer<'static>> {
        let key = || rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (ca_key, own_key) = (key(), key());
        let root = ca.self_signed(&ca_key).unwrap();
        let mut own = rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        if ended {
            own.not_after = rcgen::date_time_ymd(2001, 1, 1);
            own.not_before = rcgen::date_time_ymd(2000, 1, 1);
        }
        let own = own.signed_by(&own_key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
        vec![own.der().clone(), root.der().clone()]
    }

    fn judged(usage: u8, of: &CertificateDer<'_>, chain: &[CertificateDer<'static>]) -> Result<(), FailureType> {
        let data = digest(&SHA256, of).as_ref().to_vec();
        let records: Arc<[Tlsa]> = [Tlsa { usage, selector: 0, matching: 1, data }].into();
        let set = TlsaSet { base: "mx.example".into(), names: vec!["example".into()], records };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let judge = Judge::new(Proof::Tlsa(Arc::new(set)), provider);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from("mx.example").unwrap();
        let verified = judge.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
        verified.map(|_| ()).map_err(|_| judge.finding().expect("a refusal has its reason").kind)
    }

    #[test]
    fn names_and_dates_count_below_a_trust_anchor_only() {
        let (good, other, old) =
            (chain(&["mx.example"], false), chain(&["other.example"], false), chain(&["mx.example"], true));
        let by_domain = chain(&["example"], false);
        assert_eq!(judged(3, &good[0], &good), Ok(()));
        assert_eq!(judged(3, &other[0], &other), Ok(()), "usage 3 knows no names");
        assert_eq!(judged(3, &old[0], &old), Ok(()), "nor dates");
        assert_eq!(judged(3, &good[1], &good), Err(FailureType::TlsaInvalid), "the CA is not the host");
        assert_eq!(judged(2, &good[1], &good), Ok(()));
        assert_eq!(judged(2, &by_domain[1], &by_domain), Ok(()), "the recipients' domain is a name too");
        assert_eq!(judged(2, &other[1], &other), Err(FailureType::CertificateHostMismatch));
        assert_eq!(judged(2, &old[1], &old), Err(FailureType::CertificateExpired));
        assert_eq!(judged(2, &good[1], &other[..1]), Err(FailureType::TlsaInvalid));
        let foreign = [good[0].clone(), other[1].clone()];
        assert_eq!(judged(2, &other[1], &foreign), Err(FailureType::CertificateNotTrusted), "signed by another");
    }
}
