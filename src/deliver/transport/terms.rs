//! What a session with one host must prove before it gets mail. Pure.
//!
//! In this order: DANE where the host has validated TLSA records (RFC 7672; RFC 8461 §2: MTA-STS never overrides it), the
//! receiver's MTA-STS policy (RFC 8461 §5), the message's REQUIRETLS (RFC 8689 §4.2.1), the operator's own setting. Without any of them TLS is
//! opportunistic. "TLS-Required: No" (RFC 8689 §5) sets the receiver's policies aside, not the operator's.

use std::sync::Arc;

use super::judge::TlsaSet;
use crate::config::settings::DeliverTls;
use crate::deliver::dane;
use crate::deliver::mta_sts::policy::Mode;
use crate::deliver::mta_sts::shelf::StsPolicy;
use crate::deliver::mta_sts::{self, StsAnswer};
use crate::deliver::tls_result::{AppliedPolicy, FailureType, PolicyType, TlsFailure};
use crate::dns::{DnsFault, Tlsa};

/// What mail asks of its session; sessions of one wish may be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The operator's setting.
    pub tls: DeliverTls,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// The message says `TLS-Required: No`.
    pub relaxed: bool,
}

impl From<DeliverTls> for Wish {
    fn from(tls: DeliverTls) -> Self {
        Wish { tls, require_tls: false, relaxed: false }
    }
}

/// What a session must do.
#[derive(Clone, Debug)]
pub enum Demand {
    /// TLS if offered, plain text else; `observed`: what verification would say is of interest (MTA-STS `testing`).
    Any {
        /// Ask for the finding.
        observed: bool,
    },
    /// TLS with anybody: the host has TLSA records, none of which can be used (RFC 7672 §2.2).
    Encrypted,
    /// Plain text.
    Plain,
    /// TLS with a certificate that is valid for the host's name.
    Pkix,
    /// TLS with the certificate that the records name.
    Tlsa(Arc<TlsaSet>),
}

impl Demand {
    /// True if plain text will not do.
    pub fn is_mandatory(&self) -> bool {
        matches!(self, Demand::Encrypted | Demand::Pkix | Demand::Tlsa(_))
    }

    /// The words of the handshake machine.
    pub fn as_setting(&self) -> DeliverTls {
        match self {
            Demand::Any { .. } => DeliverTls::Opportunistic,
            Demand::Plain => DeliverTls::None,
            Demand::Encrypted | Demand::Pkix | Demand::Tlsa(_) => DeliverTls::Required,
        }
    }
}

/// Terms for one host.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What must be proven.
    pub demand: Demand,
    /// Who demands it, for the log and metrics: `dane`, `sts`, `requiretls`, `required`, `opportunistic`, `none`.
    pub because: &'static str,
    /// For TLS-RPT.
    pub policy: Arc<AppliedPolicy>,
    /// A failure that counts for the report although mail goes on: a host outside of a policy in `testing`.
    pub noted: Option<TlsFailure>,
}

/// The name that TLSA records stand below, and the records.
pub type TlsaBelow = (Arc<str>, Arc<[Tlsa]>);

/// Facts of one host.
pub struct HostFacts<'a> {
    /// Its name, without brackets.
    pub host: &'a str,
    /// TLSA records and the name that they stand below; nothing where DNS is not secure.
    pub tlsa: Result<Option<TlsaBelow>, DnsFault>,
    /// The name is the operator's, the recipients' own domain, or from a validated MX record.
    pub named_securely: bool,
    /// Further names for DANE-TA.
    pub names: Vec<Arc<str>>,
    /// The recipients' domain.
    pub domain: &'a str,
    /// Its MTA-STS policy.
    pub sts: &'a StsAnswer,
}

/// Terms on which mail may go to the host.
/// # Errors
/// Why the host must not get it, whatever certificate it has, with the policy that says so.
pub fn decide(wish: Wish, facts: HostFacts<'_>) -> Result<Terms, (TlsFailure, Arc<AppliedPolicy>)> {
    let sts = facts.sts.policy.as_deref().filter(|sts| sts.policy.mode != Mode::None && !wish.relaxed);
    let none = || Arc::new(AppliedPolicy::none(facts.domain));
    let terms = |demand, because, policy| Terms { demand, because, policy, noted: None };
    if wish.tls == DeliverTls::None && !wish.require_tls {
        return Ok(terms(Demand::Plain, "none", none()));
    }
    let records = match &facts.tlsa {
        _ if wish.relaxed && wish.tls != DeliverTls::Dane => None,
        Ok(found) => found.as_ref(),
        Err(fault) => {
            let detail = format!("TLSA of {} can't be had: {fault}", facts.host);
            let policy = AppliedPolicy { kind: PolicyType::Tlsa, ..AppliedPolicy::none(facts.domain) };
            return Err((TlsFailure::new(FailureType::DnssecInvalid, &detail), Arc::new(policy)));
        }
    };
    let is_usable = records.is_some_and(|(_, records)| records.iter().any(dane::is_usable));
    if let Some((base, records)) = records.filter(|_| is_usable) {
        let policy = tlsa_policy(facts.domain, base, records);
        let set = TlsaSet { base: base.clone(), names: facts.names, records: records.clone() };
        return Ok(terms(Demand::Tlsa(Arc::new(set)), "dane", policy));
    }
    if wish.tls == DeliverTls::Dane {
        let detail = format!("DANE is required and {} has no usable TLSA records that are validated", facts.host);
        return Err((TlsFailure::new(FailureType::DaneRequired, &detail), none()));
    }
    if let Some(terms) = by_sts(sts, facts.host, facts.domain, wish.require_tls)? {
        return Ok(terms);
    }
    if wish.require_tls {
        if !facts.named_securely && sts.is_none_or(|sts| !sts.policy.allows(facts.host)) {
            let detail = format!("neither DNSSEC nor MTA-STS says that {} is a host of {}", facts.host, facts.domain);
            return Err((TlsFailure::new(FailureType::ValidationFailure, &detail), none()));
        }
        return Ok(terms(Demand::Pkix, "requiretls", none()));
    }
    if wish.tls == DeliverTls::Required {
        return Ok(terms(Demand::Pkix, "required", none()));
    }
    if let Some((base, records)) = records {
        return Ok(terms(Demand::Encrypted, "dane", tlsa_policy(facts.domain, base, records)));
    }
    Ok(opportunistic(sts, facts.host, facts.domain))
}

fn tlsa_policy(domain: &str, base: &Arc<str>, records: &[Tlsa]) -> Arc<AppliedPolicy> {
    Arc::new(AppliedPolicy {
        kind: PolicyType::Tlsa,
        domain: base.to_string(),
        recipient_domain: domain.to_owned(),
        strings: records.iter().map(dane::show).collect(),
        mx_patterns: Vec::new(),
    })
}

/// Terms by a policy in `enforce`.
fn by_sts(
    sts: Option<&StsPolicy>,
    host: &str,
    domain: &str,
    require_tls: bool,
) -> Result<Option<Terms>, (TlsFailure, Arc<AppliedPolicy>)> {
    let Some(sts) = sts.filter(|sts| sts.policy.mode == Mode::Enforce) else { return Ok(None) };
    let policy = Arc::new(mta_sts::applied(domain, Some(sts)));
    if !sts.policy.allows(host) {
        return Err((outside(host, domain), policy));
    }
    let because = if require_tls { "requiretls" } else { "sts" };
    Ok(Some(Terms { demand: Demand::Pkix, because, policy, noted: None }))
}

fn outside(host: &str, domain: &str) -> TlsFailure {
    let detail = format!("{host} is no mail host by the MTA-STS policy of {domain}");
    TlsFailure::new(FailureType::ValidationFailure, &detail)
}

fn opportunistic(sts: Option<&StsPolicy>, host: &str, domain: &str) -> Terms {
    let observed = sts.is_some();
    let noted = sts.filter(|sts| !sts.policy.allows(host)).map(|_| outside(host, domain));
    let policy = match sts {
        Some(sts) => mta_sts::applied(domain, Some(sts)),
        None => AppliedPolicy::none(domain),
    };
    Terms { demand: Demand::Any { observed }, because: "opportunistic", policy: Arc::new(policy), noted }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// What the terms are, in a word, or the failure.
    fn said(wish: Wish, tlsa: Option<u8>, sts: Option<&str>, named_securely: bool) -> String {
        let text = |mode| format!("version: STSv1\nmode: {mode}\nmx: *.a.example\nmax_age: 1000\n");
        let policy = sts.map(|mode| Arc::new(StsPolicy::new("1", &text(mode), SystemTime::UNIX_EPOCH).unwrap()));
        let sts = StsAnswer { policy, failure: None };
        let record = |usage| Tlsa { usage, selector: 1, matching: 1, data: vec![0; 32] };
        let tlsa = match tlsa {
            Some(9) => Err(DnsFault::Temporary("SERVFAIL".into())),
            Some(usage) => Ok(Some(("mx.a.example".into(), [record(usage)].into()))),
            None => Ok(None),
        };
        let facts =
            HostFacts { host: "mx.a.example", tlsa, named_securely, names: Vec::new(), domain: "a.example", sts: &sts };
        match decide(wish, facts) {
            Ok(terms) => {
                let demand = match terms.demand {
                    Demand::Any { observed: true } => "observed",
                    Demand::Any { observed: false } => "any",
                    Demand::Encrypted => "encrypted",
                    Demand::Plain => "plain",
                    Demand::Pkix => "pkix",
                    Demand::Tlsa(_) => "tlsa",
                };
                format!("{demand} by {}, {}", terms.because, terms.policy.kind.as_str())
            }
            Err((failure, policy)) => format!("{}, {}", failure.kind.as_str(), policy.kind.as_str()),
        }
    }

    #[test]
    fn terms_by_table() {
        use DeliverTls::{Dane, None as Plain, Opportunistic, Required};
        let wish = |tls| Wish::from(tls);
        let strict = |tls| Wish { require_tls: true, ..Wish::from(tls) };
        let relaxed = |tls| Wish { relaxed: true, ..Wish::from(tls) };
        // wish, usage of the TLSA record (9: no answer), mode of MTA-STS, MX validated -> terms
        let table = [
            (wish(Opportunistic), None, None, false, "any by opportunistic, no-policy-found"),
            (wish(Plain), Some(3), Some("enforce"), true, "plain by none, no-policy-found"),
            (wish(Required), None, None, false, "pkix by required, no-policy-found"),
            (wish(Opportunistic), Some(3), Some("enforce"), true, "tlsa by dane, tlsa"),
            (wish(Opportunistic), Some(2), None, true, "tlsa by dane, tlsa"),
            (wish(Opportunistic), Some(1), None, true, "encrypted by dane, tlsa"),
            (wish(Opportunistic), Some(1), Some("enforce"), true, "pkix by sts, sts"),
            (wish(Required), Some(1), None, true, "pkix by required, no-policy-found"),
            (wish(Opportunistic), Some(9), Some("enforce"), true, "dnssec-invalid, tlsa"),
            (wish(Opportunistic), None, Some("enforce"), false, "pkix by sts, sts"),
            (wish(Opportunistic), None, Some("testing"), false, "observed by opportunistic, sts"),
            (wish(Opportunistic), None, Some("none"), false, "any by opportunistic, no-policy-found"),
            (wish(Dane), Some(3), None, true, "tlsa by dane, tlsa"),
            (wish(Dane), None, Some("enforce"), true, "dane-required, no-policy-found"),
            (wish(Dane), Some(1), None, true, "dane-required, no-policy-found"),
            (strict(Opportunistic), None, None, false, "validation-failure, no-policy-found"),
            (strict(Opportunistic), None, None, true, "pkix by requiretls, no-policy-found"),
            (strict(Plain), Some(3), None, true, "tlsa by dane, tlsa"),
            (strict(Opportunistic), None, Some("enforce"), false, "pkix by requiretls, sts"),
            (strict(Opportunistic), None, Some("testing"), false, "pkix by requiretls, no-policy-found"),
            (relaxed(Opportunistic), Some(3), Some("enforce"), true, "any by opportunistic, no-policy-found"),
            (relaxed(Opportunistic), Some(9), None, true, "any by opportunistic, no-policy-found"),
            (relaxed(Required), Some(3), None, true, "pkix by required, no-policy-found"),
            (relaxed(Dane), Some(3), None, true, "tlsa by dane, tlsa"),
        ];
        for (wish, tlsa, sts, named_securely, expected) in table {
            assert_eq!(said(wish, tlsa, sts, named_securely), expected, "{wish:?} {tlsa:?} {sts:?} {named_securely}");
        }
    }

    #[test]
    fn a_host_outside_of_the_policy_gets_nothing_unless_it_only_tests() {
        let text = "version: STSv1\nmode: enforce\nmx: other.example\nmax_age: 1000\n";
        let policy = |text: &str| Some(Arc::new(StsPolicy::new("1", text, SystemTime::UNIX_EPOCH).unwrap()));
        let run = |text: &str| {
            let sts = StsAnswer { policy: policy(text), failure: None };
            let (host, domain) = ("mx.a.example", "a.example");
            let facts = HostFacts { host, tlsa: Ok(None), named_securely: false, names: Vec::new(), domain, sts: &sts };
            decide(DeliverTls::Opportunistic.into(), facts)
        };
        let (failure, policy) = run(text).unwrap_err();
        assert_eq!((failure.kind, policy.kind), (FailureType::ValidationFailure, PolicyType::Sts));
        let terms = run(&text.replace("enforce", "testing")).unwrap();
        assert!(terms.noted.is_some() && !terms.demand.is_mandatory());
    }
}
