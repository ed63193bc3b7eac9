//! Results of SPF, DKIM, DMARC and ARC as symbols, under the names that SpamAssassin's users know, with the DNS answer. Pure.
//!
//! They carry no points of their own: rules name them, and `score` lines give them theirs. DNS queries are a limit of the filter's
//! table, which the identity checks count: a message that used up its share has that limit's symbol and points.

use crate::filter::budget::{LIMITS, Limit, LimitRow};
use crate::filter::{Judge, Points, Symbol};
use crate::verify::dmarc::Policy;
use crate::verify::{Asked, LOOKUPS_MAX, Outcome, Results};

const QUERIES: &LimitRow = &LIMITS[Limit::DnsQueries as usize];
const _: () = assert!(QUERIES.default == LOOKUPS_MAX as u64, "what is published is what is in force");

/// The symbols of `results`; `asked` is what DNS said on the way.
pub fn of(results: &Results, asked: &[Asked]) -> Vec<Symbol> {
    let mut found = spf(results, asked);
    found.extend(dkim(results, asked));
    found.extend(dmarc(results, asked));
    found.extend(arc(results));
    found.extend(results.lookups_spent.then(queries));
    found
}

/// Believed when the message is judged again: nobody asks DNS then.
fn queries() -> Symbol {
    Symbol::new(
        Judge::Identity,
        QUERIES.symbol,
        Points::new(QUERIES.points),
        format!("Over the limit of {}", QUERIES.default),
    )
}

fn symbol(name: impl Into<String>, description: String, evidence: Option<String>) -> Symbol {
    Symbol { evidence, ..Symbol::new(Judge::Identity, name, Points::default(), description) }
}

/// What DNS answered about a name: `"v=spf1 -all"` (TXT example.org).
fn answer(asked: &[Asked], question: &str) -> Option<String> {
    let found = asked.iter().find(|asked| asked.question.eq_ignore_ascii_case(question))?;
    Some(format!("{} ({})", found.answer, found.question))
}

fn spf(results: &Results, asked: &[Asked]) -> Vec<Symbol> {
    let of = |prefix: &str, result: &crate::verify::spf::SpfResult| {
        let name = format!("{prefix}{}", result.outcome.as_str().to_uppercase());
        let description = format!("SPF of {}: {}, {}", result.domain, result.outcome, result.reason);
        symbol(name, description, answer(asked, &format!("TXT {}", result.domain)))
    };
    let mut found = vec![of("SPF_HELO_", &results.helo)];
    match &results.mail_from {
        Some(result) => found.push(of("SPF_", result)),
        None => found.push(of("SPF_", &results.helo)),
    }
    found
}

fn dkim(results: &Results, asked: &[Asked]) -> Vec<Symbol> {
    let Some(first) = results.dkim.first() else { return Vec::new() };
    let key = |result: &crate::verify::dkim::DkimResult| {
        answer(asked, &format!("TXT {}._domainkey.{}", result.selector, result.domain))
    };
    let mut found = vec![symbol("DKIM_SIGNED", format!("Signed by {}", first.domain), None)];
    let mut valid = results.dkim.iter().filter(|result| result.outcome == Outcome::Pass).peekable();
    let Some(good) = valid.peek() else {
        found.push(symbol("DKIM_INVALID", format!("No signature holds: {}", first.reason), key(first)));
        return found;
    };
    found.push(symbol("DKIM_VALID", format!("The signature of {} holds", good.domain), key(good)));
    let author = results.author.as_ref().map_or("", |author| author.domain.as_str());
    let sender = results.mail_from.as_ref().map_or("", |spf| spf.domain.as_str());
    for result in valid {
        for (name, domain, whose) in [("DKIM_VALID_AU", author, "author"), ("DKIM_VALID_EF", sender, "sender")] {
            if result.domain.eq_ignore_ascii_case(domain) && !found.iter().any(|symbol| symbol.name == name) {
                found.push(symbol(name, format!("The signature of the {whose}'s domain {domain} holds"), key(result)));
            }
        }
    }
    found
}

fn dmarc(results: &Results, asked: &[Asked]) -> Vec<Symbol> {
    let dmarc = &results.dmarc;
    let evidence = || answer(asked, &format!("TXT _dmarc.{}", dmarc.policy_domain));
    let description = || format!("DMARC of {}: {}", dmarc.domain, dmarc.reason);
    let names: &[&str] = match (dmarc.outcome, dmarc.policy) {
        (Outcome::Pass, _) => &["DMARC_PASS"],
        (Outcome::Fail, Some(Policy::Reject)) => &["DMARC_FAIL", "DMARC_REJECT"],
        (Outcome::Fail, Some(Policy::Quarantine)) => &["DMARC_FAIL", "DMARC_QUAR"],
        (Outcome::Fail, _) => &["DMARC_FAIL", "DMARC_NONE"],
        (Outcome::None, _) => &["DMARC_MISSING"],
        _ => &[],
    };
    names.iter().map(|name| symbol(*name, description(), evidence())).collect()
}

fn arc(results: &Results) -> Vec<Symbol> {
    let arc = &results.arc;
    let name = match arc.outcome {
        Outcome::Pass => "ARC_VALID",
        Outcome::Fail => "ARC_INVALID",
        _ => return Vec::new(),
    };
    let sealers = arc.sealers.join(", ");
    vec![
        symbol("ARC_SIGNED", format!("Sealed by {sealers}"), None),
        symbol(name, format!("ARC chain: {}, {}", arc.outcome, arc.reason), None),
    ]
}
