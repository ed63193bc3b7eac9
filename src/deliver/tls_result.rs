//! What became of TLS with a mail host, as TLS-RPT counts it: the policy that applied and how the session ended. Pure. RFC 8460 §4.
//!
//! One [`TlsResult`] a session that was tried with an MX host, and one a policy that could not be had. Delivery puts them into a
//! [`TlsResultSink`], whose other end whoever makes reports empties: it is bounded, and what does not fit is dropped and counted, for
//! a report that lacks a session is worth less than mail that waits.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;

/// Results that wait for the one who counts them: some seconds of the fastest delivery.
pub const RESULTS_MAX: usize = 10_000;
/// Characters of a failure's detail.
const DETAIL_CHARS_MAX: usize = 500;

/// `policy-type` (RFC 8460 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyType {
    /// Neither DANE nor MTA-STS.
    NoPolicyFound,
    /// MTA-STS.
    Sts,
    /// DANE.
    Tlsa,
}

impl PolicyType {
    /// The word in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyType::NoPolicyFound => "no-policy-found",
            PolicyType::Sts => "sts",
            PolicyType::Tlsa => "tlsa",
        }
    }
}

/// `result-type` (RFC 8460 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureType {
    /// The certificate is out of date.
    CertificateExpired,
    /// The certificate is for another host.
    CertificateHostMismatch,
    /// The certificate comes from nobody that we trust.
    CertificateNotTrusted,
    /// We ask for DANE and the host has none.
    DaneRequired,
    /// DNSSEC validation failed.
    DnssecInvalid,
    /// The server offers no STARTTLS.
    StarttlsNotSupported,
    /// The policy can't be fetched.
    StsPolicyFetchError,
    /// What was fetched is no policy.
    StsPolicyInvalid,
    /// The policy's own host has no valid certificate.
    StsWebpkiInvalid,
    /// No TLSA record matches, or none can be used.
    TlsaInvalid,
    /// Anything else.
    ValidationFailure,
}

impl FailureType {
    /// The word in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureType::CertificateExpired => "certificate-expired",
            FailureType::CertificateHostMismatch => "certificate-host-mismatch",
            FailureType::CertificateNotTrusted => "certificate-not-trusted",
            FailureType::DaneRequired => "dane-required",
            FailureType::DnssecInvalid => "dnssec-invalid",
            FailureType::StarttlsNotSupported => "starttls-not-supported",
            FailureType::StsPolicyFetchError => "sts-policy-fetch-error",
            FailureType::StsPolicyInvalid => "sts-policy-invalid",
            FailureType::StsWebpkiInvalid => "sts-webpki-invalid",
            FailureType::TlsaInvalid => "tlsa-invalid",
            FailureType::ValidationFailure => "validation-failure",
        }
    }
}

/// A policy as a report tells of it (RFC 8460 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppliedPolicy {
    /// `policy-type`.
    pub kind: PolicyType,
    /// `policy-domain`: the recipients' domain, or the TLSA base domain for DANE (RFC 8460 §4.2).
    pub domain: String,
    /// The recipients' domain, whose owner is told by `_smtp._tls`.
    pub recipient_domain: String,
    /// `policy-string`: the lines of the MTA-STS policy, or the TLSA records as text.
    pub strings: Vec<String>,
    /// `mx-host`: the patterns of the MTA-STS policy.
    pub mx_patterns: Vec<String>,
}

impl AppliedPolicy {
    /// Mail for `domain` without DANE and MTA-STS.
    pub fn none(domain: &str) -> Self {
        let (domain, recipient_domain) = (domain.to_owned(), domain.to_owned());
        let kind = PolicyType::NoPolicyFound;
        AppliedPolicy { kind, domain, recipient_domain, strings: Vec::new(), mx_patterns: Vec::new() }
    }
}

/// Why a session failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// `result-type`.
    pub kind: FailureType,
    /// `failure-reason-code`: our own words, one line.
    pub detail: String,
}

impl TlsFailure {
    /// With a detail made fit for one line.
    pub fn new(kind: FailureType, detail: &str) -> Self {
        let detail = detail.chars().take(DETAIL_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
        TlsFailure { kind, detail }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

/// One session, or one policy that could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsResult {
    /// What applied.
    pub policy: Arc<AppliedPolicy>,
    /// When it ended.
    pub at: SystemTime,
    /// `receiving-mx-hostname`; nothing for a failure of the policy itself.
    pub mx_host: Option<Arc<str>>,
    /// `sending-mta-ip`.
    pub sending_ip: Option<IpAddr>,
    /// `receiving-ip`.
    pub receiving_ip: Option<IpAddr>,
    /// Nothing: a successful session.
    pub failure: Option<TlsFailure>,
}

/// Where delivery puts results. Never waits.
#[derive(Clone, Debug, Default)]
pub struct TlsResultSink {
    sender: Option<mpsc::Sender<TlsResult>>,
    dropped: Arc<AtomicU64>,
}

impl TlsResultSink {
    /// A sink and the end from which it is emptied; at most `most` results wait in between.
    pub fn bounded(most: usize) -> (Self, mpsc::Receiver<TlsResult>) {
        let (sender, receiver) = mpsc::channel(most.max(1));
        (TlsResultSink { sender: Some(sender), dropped: Arc::default() }, receiver)
    }

    /// True if somebody counts.
    pub fn is_wanted(&self) -> bool {
        self.sender.is_some()
    }

    /// Hands over one result, or drops it.
    pub fn put(&self, result: TlsResult) {
        let full = self.sender.as_ref().is_some_and(|sender| sender.try_send(result).is_err());
        if full {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Results that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> TlsResult {
        TlsResult {
            policy: Arc::new(AppliedPolicy::none("a.example")),
            at: SystemTime::UNIX_EPOCH,
            mx_host: None,
            sending_ip: None,
            receiving_ip: None,
            failure: Some(TlsFailure::new(FailureType::TlsaInvalid, "a\r\nb")),
        }
    }

    #[test]
    fn a_full_sink_drops_and_counts() {
        let (sink, mut results) = TlsResultSink::bounded(2);
        for _ in 0..5 {
            sink.put(result());
        }
        assert_eq!(sink.dropped(), 3);
        assert_eq!(results.try_recv().map(|r| r.failure.map(|f| f.to_string())), Ok(Some("tlsa-invalid: a??b".into())));
        let nobody = TlsResultSink::default();
        nobody.put(result());
        assert_eq!((nobody.is_wanted(), nobody.dropped()), (false, 0));
    }
}
