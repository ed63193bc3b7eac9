//! Alignment and policy, once all facts are there. Pure. RFC 9989 §4.4, §5.3.

use super::super::author::AuthorError;
use super::super::outcome::Outcome;
use super::DmarcResult;
use super::record::{Policy, PublicSuffix, Record};

/// Records found while walking up from a name, the name's own first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Where the walk began.
    pub start: String,
    /// Names and their records.
    pub records: Vec<(String, Record)>,
    /// DNS could not say for a name on the way.
    pub temporary: bool,
}

impl Walk {
    /// The organizational domain (RFC 9989 §4.10.2).
    pub fn organizational_domain(&self) -> &str {
        for (name, record) in &self.records {
            match record.public_suffix {
                PublicSuffix::No => return name,
                PublicSuffix::Yes if *name != self.start => return one_label_below(&self.start, name),
                _ => {}
            }
        }
        self.records.last().map_or(self.start.as_str(), |(name, _)| name)
    }

    /// The record that applies to the start (RFC 9989 §4.10.1): its own, its organization's, its suffix's.
    pub fn policy_record(&self) -> Option<(&str, &Record)> {
        let organization = self.organizational_domain();
        let own = self.records.iter().find(|(name, _)| *name == self.start);
        let of_organization = || self.records.iter().find(|(name, _)| name == organization);
        let of_suffix = || self.records.iter().find(|(_, record)| record.public_suffix == PublicSuffix::Yes);
        own.or_else(of_organization).or_else(of_suffix).map(|(name, record)| (name.as_str(), record))
    }
}

/// The part of `name` that has one label more than `suffix`.
fn one_label_below<'a>(name: &'a str, suffix: &str) -> &'a str {
    let above = name.len().saturating_sub(suffix.len() + 1);
    let from = name[..above].rfind('.').map_or(0, |dot| dot + 1);
    &name[from..]
}

/// An authenticated identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifier {
    /// Its domain.
    pub domain: String,
    /// The domain's organization, where relaxed alignment needed to know.
    pub organizational_domain: String,
}

/// Everything that the decision rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The walk from the author's domain.
    pub walk: &'a Walk,
    /// The author's domain does not exist.
    pub nonexistent: bool,
    /// Domains of good signatures.
    pub dkim: &'a [Identifier],
    /// SPF's domain, if it passed.
    pub spf: Option<&'a Identifier>,
    /// Some look-up of SPF or DKIM was temporary.
    pub undecided: bool,
    /// 0 to 99, drawn for this message; `pct` is compared with it.
    pub roll: u8,
}

/// A message without one author domain.
pub fn no_author(error: AuthorError) -> DmarcResult {
    DmarcResult { outcome: Outcome::PermError, reason: error.as_str().to_owned(), ..empty(String::new()) }
}

fn empty(domain: String) -> DmarcResult {
    DmarcResult {
        outcome: Outcome::None,
        organizational_domain: domain.clone(),
        domain,
        policy_domain: String::new(),
        policy: None,
        disposition: Policy::None,
        dkim: Outcome::None,
        spf: Outcome::None,
        reason: String::new(),
        record: None,
    }
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> DmarcResult {
    let walk = facts.walk;
    let mut result = empty(walk.start.clone());
    result.organizational_domain = walk.organizational_domain().to_owned();
    let Some((policy_domain, record)) = walk.policy_record() else {
        let (outcome, reason) = if walk.temporary {
            (Outcome::TempError, format!("DNS has no answer about the policy of {}", walk.start))
        } else {
            (Outcome::None, format!("{} has no DMARC record", walk.start))
        };
        return DmarcResult { outcome, reason, ..result };
    };
    let policy = applied(facts, policy_domain, record);
    let aligned = |identifier: &Identifier, strict: bool| is_aligned(walk, identifier, strict);
    let word = |pass: bool| if pass { Outcome::Pass } else { Outcome::Fail };
    result.dkim = word(facts.dkim.iter().any(|identifier| aligned(identifier, record.strict_dkim)));
    result.spf = word(facts.spf.is_some_and(|identifier| aligned(identifier, record.strict_spf)));
    result.policy_domain = policy_domain.to_owned();
    result.policy = Some(policy);
    result.record = Some(record.clone());
    if result.dkim == Outcome::Pass || result.spf == Outcome::Pass {
        let by = if result.dkim == Outcome::Pass { "DKIM" } else { "SPF" };
        return DmarcResult { outcome: Outcome::Pass, reason: format!("{by} is aligned"), ..result };
    }
    // What could still pass on a later try is not yet a failure (RFC 9989 §5.3.4).
    let identifiers = !facts.dkim.is_empty() || facts.spf.is_some();
    let policy_unsure = walk.temporary && (policy_domain != walk.start || identifiers);
    if facts.undecided || policy_unsure {
        return DmarcResult { outcome: Outcome::TempError, reason: "DNS has no answer yet".to_owned(), ..result };
    }
    let softened = record.testing || facts.roll >= record.percent;
    result.disposition = if softened { policy.milder() } else { policy };
    let reason =
        format!("neither SPF nor DKIM is aligned with {}; {policy_domain} asks for {}", walk.start, policy.as_str());
    DmarcResult { outcome: Outcome::Fail, reason, ..result }
}

fn applied(facts: &Facts<'_>, policy_domain: &str, record: &Record) -> Policy {
    if policy_domain == facts.walk.start {
        record.policy
    } else if facts.nonexistent {
        record.nonexistent_policy
    } else {
        record.subdomain_policy
    }
}

fn is_aligned(walk: &Walk, identifier: &Identifier, strict: bool) -> bool {
    identifier.domain == walk.start || (!strict && identifier.organizational_domain == walk.organizational_domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(start: &str, records: &[(&str, &str)]) -> Walk {
        let parse = |(name, text): &(&str, &str)| ((*name).to_owned(), Record::parse(text).unwrap());
        Walk { start: start.to_owned(), records: records.iter().map(parse).collect(), temporary: false }
    }

    #[test]
    fn the_organization_is_found_by_the_tree() {
        const NONE: &str = "v=DMARC1; p=none";
        let (psd, org) = ("v=DMARC1; p=reject; psd=y", "v=DMARC1; p=none; psd=n");
        assert_eq!(walk("a.b.example", &[]).organizational_domain(), "a.b.example");
        assert_eq!(
            walk("a.b.example", &[("a.b.example", NONE), ("b.example", NONE)]).organizational_domain(),
            "b.example"
        );
        assert_eq!(walk("x.a.b.example", &[("b.example", psd)]).organizational_domain(), "a.b.example");
        assert_eq!(walk("x.a.b.example", &[("a.b.example", org)]).organizational_domain(), "a.b.example");
        assert_eq!(walk("b.example", &[("b.example", psd)]).organizational_domain(), "b.example");
    }

    #[test]
    fn a_test_flag_and_a_percentage_soften() {
        let decide_with = |text: &str, roll: u8| {
            let walk = walk("a.example", &[("a.example", text)]);
            decide(&Facts { walk: &walk, nonexistent: false, dkim: &[], spf: None, undecided: false, roll }).disposition
        };
        assert_eq!(decide_with("v=DMARC1; p=reject", 99), Policy::Reject);
        assert_eq!(decide_with("v=DMARC1; p=reject; t=y", 0), Policy::Quarantine);
        assert_eq!(decide_with("v=DMARC1; p=quarantine; t=y", 0), Policy::None);
        assert_eq!(decide_with("v=DMARC1; p=reject; pct=50", 50), Policy::Quarantine);
        assert_eq!(decide_with("v=DMARC1; p=reject; pct=50", 49), Policy::Reject);
    }

    #[test]
    fn a_name_that_does_not_exist_has_its_own_policy() {
        let walk = walk("x.a.example", &[("a.example", "v=DMARC1; p=none; sp=quarantine; np=reject")]);
        let facts = Facts { walk: &walk, nonexistent: true, dkim: &[], spf: None, undecided: false, roll: 0 };
        assert_eq!(decide(&facts).disposition, Policy::Reject);
        assert_eq!(decide(&Facts { nonexistent: false, ..facts }).disposition, Policy::Quarantine);
    }
}
