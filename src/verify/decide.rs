//! From results to what becomes of the message, by mode and the operator's overrides. Pure.
//!
//! DMARC's owner is obeyed; SPF alone refuses only where the author's domain has no DMARC record and no signature of a domain
//! that is involved holds, for then the fail is the only statement there is (RFC 7208 §8.4, RFC 9989 §5.3). Replies name the policy,
//! whose it is, and our reference.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Results;
use super::author::AuthorError;
use super::dmarc::Policy;
use super::outcome::Outcome;
use crate::config::settings::{Mode, Verify};
use crate::wire::reply::{Enhanced, Reply};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Accept,
    /// Ask to come again: DNS could not say.
    Defer,
    /// Keep it back.
    Quarantine,
    /// Refuse.
    Reject,
}

impl Action {
    /// All of them, for metrics.
    pub const ALL: [Action; 4] = [Action::Accept, Action::Defer, Action::Quarantine, Action::Reject];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Defer => "defer",
            Action::Quarantine => "quarantine",
            Action::Reject => "reject",
        }
    }
}

/// The decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Why, for log, trace and reports.
    pub reason: String,
    /// For `Defer` and `Reject`.
    pub reply: Option<Reply>,
    /// What saved a message from its owner's policy: `local_policy`, `trusted_forwarder` (RFC 9990's words).
    pub overridden: Option<&'static str>,
}

/// The operator's exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Sealing domains whose ARC findings are believed.
    pub trusted_sealers: Vec<String>,
    /// Networks of forwarders: nothing is refused for policy.
    pub trusted_forwarders: Vec<IpNet>,
    /// Author domains whose policy is not enforced.
    pub allowed_domains: Vec<String>,
}

impl Overrides {
    /// Those of `[verify]`.
    pub fn from_settings(settings: &Verify) -> Self {
        Overrides {
            trusted_sealers: settings.trusted_sealers.clone(),
            trusted_forwarders: settings.trusted_forwarders.clone(),
            allowed_domains: settings.allowed_domains.clone(),
        }
    }
}

/// Decides. `reference` is the message's id.
pub fn decide(results: &Results, mode: Mode, overrides: &Overrides, ip: IpAddr, reference: &str) -> Decision {
    if mode != Mode::Enforce {
        return accept("identity is not enforced on this listener");
    }
    let strict = by_policy(results, reference);
    if strict.action == Action::Accept {
        return strict;
    }
    match exception(results, overrides, ip) {
        Some((kind, why)) => Decision {
            action: Action::Accept,
            reason: format!("{}, but {why}", strict.reason),
            reply: None,
            overridden: Some(kind),
        },
        None => strict,
    }
}

fn accept(reason: impl Into<String>) -> Decision {
    Decision { action: Action::Accept, reason: reason.into(), reply: None, overridden: None }
}

fn by_policy(results: &Results, reference: &str) -> Decision {
    let dmarc = &results.dmarc;
    match &results.author {
        Err(AuthorError::NoDomain) => return quarantine(AuthorError::NoDomain.as_str()),
        // RFC 7103 §7.5: what can be read in several ways is not guessed at.
        Err(error) => {
            return refuse(550, Enhanced(5, 6, 0), error.as_str().to_owned(), "RFC 5322 section 3.6", reference);
        }
        Ok(_) => {}
    }
    match (dmarc.outcome, dmarc.disposition) {
        (Outcome::Fail, Policy::Reject) => {
            let reason = format!("rejected by the DMARC policy of {}", dmarc.policy_domain);
            refuse(550, Enhanced(5, 7, 1), reason, "RFC 9989", reference)
        }
        (Outcome::Fail, Policy::Quarantine) => quarantine(&dmarc.reason),
        (Outcome::TempError, _) => {
            let reason = format!("the DMARC policy of {} can't be looked up now", dmarc.domain);
            let reply = Reply::new(451, Enhanced(4, 7, 5), format!("{reason}; ref {reference}"));
            Decision { action: Action::Defer, reason, reply: Some(reply), overridden: None }
        }
        (Outcome::None, _) if results.spf().outcome == Outcome::Fail && !signed_by_someone_involved(results) => {
            refuse_for_spf(results, reference)
        }
        _ => accept(format!("dmarc={}", dmarc.outcome)),
    }
}

fn signed_by_someone_involved(results: &Results) -> bool {
    let involved = [results.spf().domain.as_str(), results.dmarc.domain.as_str()];
    let within =
        |domain: &str, of: &str| domain == of || of.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let mut good = results.dkim.iter().filter(|result| result.outcome == Outcome::Pass);
    good.any(|result| involved.iter().any(|of| within(&result.domain, of)))
}

fn refuse_for_spf(results: &Results, reference: &str) -> Decision {
    let spf = results.spf();
    let mut reason = format!("{} is not allowed to send for {} (SPF)", "this client", spf.domain);
    if let Some(explanation) = &spf.explanation {
        // The text is the domain's, and must be told apart from ours (RFC 7208 §6.2).
        reason.push_str(&format!("; {} explains: {explanation}", spf.domain));
    }
    // RFC 7372 §3.2.
    refuse(550, Enhanced(5, 7, 23), reason, "RFC 7208", reference)
}

fn quarantine(reason: &str) -> Decision {
    Decision { action: Action::Quarantine, reason: reason.to_owned(), reply: None, overridden: None }
}

fn refuse(code: u16, enhanced: Enhanced, reason: String, rfc: &str, reference: &str) -> Decision {
    let reply = Reply::new(code, enhanced, format!("{reason}; see {rfc}; ref {reference}"));
    Decision { action: Action::Reject, reason, reply: Some(reply), overridden: None }
}

fn exception(results: &Results, overrides: &Overrides, ip: IpAddr) -> Option<(&'static str, String)> {
    if overrides.trusted_forwarders.iter().any(|network| network.contains(&ip.to_canonical())) {
        return Some(("trusted_forwarder", format!("{ip} is a trusted forwarder")));
    }
    // Exceptions for a domain need a domain that is certain.
    let author = results.author.as_ref().ok()?;
    if overrides.allowed_domains.iter().any(|domain| domain.eq_ignore_ascii_case(&author.domain)) {
        return Some(("local_policy", format!("{} is exempt here", author.domain)));
    }
    let sealer = believed_sealer(results, overrides)?;
    Some(("local_policy", format!("{sealer} saw it pass (arc=pass)")))
}

/// A good chain whose every sealer is trusted, and whose first one saw DMARC pass for this author's domain.
fn believed_sealer<'a>(results: &'a Results, overrides: &Overrides) -> Option<&'a str> {
    let arc = &results.arc;
    let trusted = |sealer: &String| overrides.trusted_sealers.iter().any(|name| name.eq_ignore_ascii_case(sealer));
    if arc.outcome != Outcome::Pass || arc.sealers.is_empty() || !arc.sealers.iter().all(trusted) {
        return None;
    }
    let domain = &results.author.as_ref().ok()?.domain;
    let first = arc.findings.first()?;
    let passed = first.results.iter().any(|found| {
        let of_author = |(name, value): &(String, String)| name == "header.from" && value.eq_ignore_ascii_case(domain);
        found.method == "dmarc" && found.result == "pass" && found.properties.iter().any(of_author)
    });
    passed.then(|| arc.sealers[0].as_str())
}
