//! TLS towards next hops. I/O: reads the system's root certificates once.
//!
//! Opportunistic TLS encrypts without asking who is there (RFC 7435): against a listener on the line it helps, against an active
//! attacker it can't, and a certificate that fails must not cost the mail. `required` verifies against the system's roots.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// The two ways of doing TLS as client.
#[derive(Clone)]
pub struct ClientTls {
    unverified: TlsConnector,
    verified: Result<TlsConnector, Arc<str>>,
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

    /// With these roots, or the reason why there are none.
    pub fn with_roots(roots: Result<RootCertStore, Arc<str>>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("the provider has TLS 1.2 and 1.3")
        };
        let anyone = Arc::new(AnyServer(provider.clone()));
        let unverified = builder().dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
        let verified = roots
            .map(|roots| TlsConnector::from(Arc::new(builder().with_root_certificates(roots).with_no_client_auth())));
        ClientTls { unverified: TlsConnector::from(Arc::new(unverified)), verified }
    }

    /// The connector.
    /// # Errors
    /// When verification is wanted and there are no roots.
    pub fn connector(&self, verify: bool) -> Result<TlsConnector, Arc<str>> {
        if verify { self.verified.clone() } else { Ok(self.unverified.clone()) }
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes any certificate; the handshake's signatures are still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
