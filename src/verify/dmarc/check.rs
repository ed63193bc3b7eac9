//! Gathers what the DMARC decision needs. I/O: DNS. RFC 9989 §4.10 (tree walk).

use super::super::author::{Author, AuthorError, normal_domain};
use super::super::dkim::{self, DkimResult};
use super::super::lookup::{Answer, Lookup};
use super::super::outcome::Outcome;
use super::super::spf::SpfResult;
use super::DmarcResult;
use super::decide::{Facts, Identifier, Walk, decide, no_author};
use super::record::{PublicSuffix, Record};

/// RFC 9989 §4.10: a walk asks at most eight names; deeper names jump to seven labels.
const LABELS_MAX: usize = 8;

/// Checks. `roll` is 0 to 99, drawn for this message.
pub async fn check<L: Lookup>(
    dns: &L,
    author: Result<&Author, AuthorError>,
    spf: Option<&SpfResult>,
    signatures: &[DkimResult],
    roll: u8,
) -> DmarcResult {
    let author = match author {
        Ok(author) => author,
        Err(error) => return no_author(error),
    };
    let author_walk = walk(dns, &author.domain).await;
    let Some((policy_domain, record)) = author_walk.policy_record() else {
        let facts = Facts { walk: &author_walk, nonexistent: false, dkim: &[], spf: None, undecided: false, roll };
        return decide(&facts);
    };
    // A subdomain without a record of its own: does it exist at all?
    let nonexistent = policy_domain != author.domain && matches!(dns.a(&author.domain).await, Answer::NxDomain);
    let mut dkim_domains: Vec<&str> = Vec::new();
    for result in signatures.iter().filter(|result| result.outcome == Outcome::Pass) {
        if !dkim_domains.contains(&result.domain.as_str()) {
            dkim_domains.push(&result.domain);
        }
    }
    let mut dkim_identifiers = Vec::new();
    for domain in dkim_domains {
        dkim_identifiers.push(identifier(dns, &author_walk, domain, record.strict_dkim).await);
    }
    let spf_identifier = match spf.filter(|result| result.outcome == Outcome::Pass) {
        Some(result) => {
            let domain = normal_domain(&result.domain).unwrap_or_default();
            Some(identifier(dns, &author_walk, &domain, record.strict_spf).await)
        }
        None => None,
    };
    let undecided = dkim::check::is_undecided(signatures) || spf.is_some_and(|spf| spf.outcome == Outcome::TempError);
    decide(&Facts {
        walk: &author_walk,
        nonexistent,
        dkim: &dkim_identifiers,
        spf: spf_identifier.as_ref(),
        undecided,
        roll,
    })
}

/// The organization is only asked for where it decides: relaxed, another name, and within the author's organization.
async fn identifier<L: Lookup>(dns: &L, author: &Walk, domain: &str, strict: bool) -> Identifier {
    let organization = author.organizational_domain();
    let within = domain == organization || domain.strip_suffix(organization).is_some_and(|rest| rest.ends_with('.'));
    let organizational_domain = if strict || domain == author.start || !within {
        domain.to_owned()
    } else {
        walk(dns, domain).await.organizational_domain().to_owned()
    };
    Identifier { domain: domain.to_owned(), organizational_domain }
}

/// Walks from `domain` towards the root.
pub async fn walk<L: Lookup>(dns: &L, domain: &str) -> Walk {
    let mut found = Walk { start: domain.to_owned(), ..Walk::default() };
    for name in names(domain) {
        match dns.txt(&format!("_dmarc.{name}")).await {
            Answer::Found(texts) => {
                let Some(record) = Record::select(&texts) else { continue };
                let ends = record.public_suffix != PublicSuffix::Unknown;
                found.records.push((name.to_owned(), record));
                if ends {
                    break;
                }
            }
            Answer::NoData | Answer::NxDomain => {}
            Answer::Temporary => found.temporary = true,
        }
    }
    found
}

/// The names of a walk.
fn names(domain: &str) -> impl Iterator<Item = &str> {
    let labels = domain.split('.').count();
    let parents = domain.match_indices('.').map(|(dot, _)| &domain[dot + 1..]);
    let skipped = labels.saturating_sub(LABELS_MAX);
    std::iter::once(domain).chain(parents.skip(skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_asks_at_most_eight_names() {
        assert_eq!(names("a.b.example").collect::<Vec<_>>(), ["a.b.example", "b.example", "example"]);
        let deep = "a.b.c.d.e.f.g.h.i.j.mail.example.com";
        let asked: Vec<_> = names(deep).collect();
        assert_eq!(asked.len(), LABELS_MAX);
        assert_eq!(asked[1], "g.h.i.j.mail.example.com");
    }
}
