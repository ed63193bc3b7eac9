//! TLS towards next hops. I/O: reads root certificates once.
//!
//! Opportunistic TLS encrypts without asking who is there (RFC 7435): against a listener on the line it helps, against an active
//! attacker it can't, and a certificate that fails must not cost the mail. Where the receiver publishes a policy (DANE,
//! MTA-STS) or the operator requires it, a [`Judge`] decides on the certificate.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::judge::{Judge, Proof, TlsaSet};

/// Makes TLS sessions as client.
#[derive(Clone)]
pub struct ClientTls {
    provider: Arc<CryptoProvider>,
    unverified: TlsConnector,
    /// Shared by all clones, so that other authorities hold for all of them.
    verified: Arc<ArcSwap<Result<Verified, Arc<str>>>>,
}

#[derive(Clone)]
struct Verified {
    connector: TlsConnector,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ClientTls {
    /// Loads the system's roots. Their absence is an error only when a verified connection is wanted.
    pub fn new() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(loaded.certs);
        match added {
            0 => Self::with_roots(Err("this system has no root certificates (package ca-certificates)".into())),
            _ => Self::with_roots(Ok(roots)),
        }
    }

    /// The roots of `ca_file` (PEM), or the system's.
    /// # Errors
    /// When the file can't be read or has no certificate.
    pub fn open(ca_file: Option<&Path>) -> Result<Self, String> {
        let Some(path) = ca_file else { return Ok(Self::new()) };
        let named = |error: String| format!("ca_file {}: {error}", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(error.to_string()))? {
            let certificate = certificate.map_err(|error| named(error.to_string()))?;
            roots.add(certificate).map_err(|error| named(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(named("no certificate in it".to_owned()));
        }
        Ok(Self::with_roots(Ok(roots)))
    }

    /// With these roots, or the reason why there are none.
    pub fn with_roots(roots: Result<RootCertStore, Arc<str>>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let anyone = Judge::new(Proof::Nothing, provider.clone());
        let unverified = connector(&provider, Arc::new(anyone));
        let verified = roots.and_then(|roots| {
            let made = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
            let verifier = made.map_err(|error| Arc::from(error.to_string()))?;
            Ok(Verified { connector: connector(&provider, verifier.clone()), verifier })
        });
        ClientTls { provider, unverified, verified: Arc::new(ArcSwap::from_pointee(verified)) }
    }

    /// Believes the authorities that `other` does from now on, and so do all clones of this.
    pub fn turn_to(&self, other: &ClientTls) {
        self.verified.store(other.verified.load_full());
    }

    fn verified(&self) -> Result<Verified, Arc<str>> {
        self.verified.load().as_ref().clone()
    }

    /// The connector whose sessions are resumed.
    /// # Errors
    /// When verification is wanted and there are no roots.
    pub fn connector(&self, verify: bool) -> Result<TlsConnector, Arc<str>> {
        if verify { self.verified().map(|verified| verified.connector) } else { Ok(self.unverified.clone()) }
    }

    /// For one session with a host that has TLSA records. Nothing is resumed: the records may have changed.
    pub fn by_tlsa(&self, records: Arc<TlsaSet>) -> (TlsConnector, Arc<Judge>) {
        self.judged(Proof::Tlsa(records))
    }

    /// For one session that takes any certificate and remembers what verification would have said.
    /// # Errors
    /// When there are no roots.
    pub fn observing(&self) -> Result<(TlsConnector, Arc<Judge>), Arc<str>> {
        let verifier = self.verified()?.verifier;
        Ok(self.judged(Proof::Observed(verifier)))
    }

    fn judged(&self, proof: Proof) -> (TlsConnector, Arc<Judge>) {
        let judge = Arc::new(Judge::new(proof, self.provider.clone()));
        (connector(&self.provider, judge.clone()), judge)
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
