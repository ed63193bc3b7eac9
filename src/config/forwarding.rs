//! `[[alias]]` and `[srs]`: addresses of ours that stand for others, and how mail that leaves again is sent. Pure.
//!
//! Aliases are followed here to their last addresses, so that a circle is an error of the file and never a loop of mail.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::section::Section;
use super::settings::{Aliases, Domain, SrsSettings};
use super::units::Wrong;
use crate::base::secret::Secret;
use crate::wire::address::Mailbox;

/// Last addresses of one alias; a list of more is a mailing list, which needs a program of its own.
const TARGETS_MAX: usize = 1000;
/// Shorter secrets can be found by trying.
const SECRET_CHARS_MIN: usize = 16;
const DAY: Duration = Duration::from_secs(86_400);

/// One `[[alias]]` as written.
struct Written {
    key: String,
    to: Vec<Mailbox>,
}

pub(super) fn aliases(sections: Vec<Section<'_>>, domains: &[Domain]) -> Aliases {
    let mut written: Vec<Written> = Vec::new();
    for mut section in sections {
        let address = section.parsed("address", mailbox);
        let to = section.list("to", mailbox).unwrap_or_default();
        for key in ["address", "to"].into_iter().filter(|key| !section.has(key)) {
            let help = "address = \"sales@example.org\", to = [\"ann@example.org\", \"bob@example.net\"]";
            section.fault(key, format!("an alias needs `{key}`"), help);
        }
        if let Some(address) = address {
            let key = Aliases::key(&address);
            if !is_ours(address.domain(), domains) {
                section.fault("address", format!("{} is no [[domain]] of this file", address.domain()), "");
            }
            if written.iter().any(|other| other.key == key) {
                section.fault("address", format!("the alias {address} is set twice"), "");
            }
            written.push(Written { key, to });
            if let Err(wrong) = follow(&written) {
                section.fault("to", wrong, "");
                written.pop();
            }
        }
        section.finish();
    }
    Aliases(Arc::new(follow(&written).unwrap_or_default()))
}

fn mailbox(text: &str) -> Result<Mailbox, Wrong> {
    Mailbox::parse(text, true).map_err(|error| format!("`{text}` is no address: {error}"))
}

fn is_ours(name: &str, domains: &[Domain]) -> bool {
    let name = idna::domain_to_ascii(name).unwrap_or_default();
    let below = |domain: &Domain| domain.subdomains && name.ends_with(&format!(".{}", domain.name));
    domains.iter().any(|domain| domain.name == name || below(domain))
}

/// The last addresses of all aliases.
fn follow(written: &[Written]) -> Result<HashMap<String, Vec<Mailbox>>, Wrong> {
    let by_key: HashMap<&str, &Written> = written.iter().map(|alias| (alias.key.as_str(), alias)).collect();
    let mut found = HashMap::new();
    for alias in written {
        let (mut targets, mut seen) = (Vec::new(), HashSet::new());
        walk(alias, &by_key, &mut vec![&alias.key], &mut seen, &mut targets)?;
        found.insert(alias.key.clone(), targets);
    }
    Ok(found)
}

fn walk<'a>(
    alias: &'a Written,
    by_key: &HashMap<&str, &'a Written>,
    trail: &mut Vec<&'a str>,
    seen: &mut HashSet<String>,
    targets: &mut Vec<Mailbox>,
) -> Result<(), Wrong> {
    for to in &alias.to {
        let key = Aliases::key(to);
        match by_key.get(key.as_str()) {
            // An alias that names itself keeps a copy.
            Some(next) if next.key != alias.key => {
                if trail.contains(&next.key.as_str()) {
                    return Err(format!("the alias leads in a circle: {} -> {}", trail.join(" -> "), next.key));
                }
                trail.push(&next.key);
                walk(next, by_key, trail, seen, targets)?;
                trail.pop();
            }
            _ if seen.insert(key) => targets.push(to.clone()),
            _ => {}
        }
        if targets.len() > TARGETS_MAX {
            return Err(format!("the alias leads to more than {TARGETS_MAX} addresses"));
        }
    }
    Ok(())
}

pub(super) fn srs(mut section: Section<'_>, domains: &[Domain]) -> Option<SrsSettings> {
    let domain = section.parsed("domain", |text| match is_ours(text, domains) {
        true => Ok(idna::domain_to_ascii(text).unwrap_or_default()),
        false => Err(format!("{text} is no [[domain]] of this file, so bounces would not come here")),
    });
    let secrets = section.list("secrets", |text| match text.len() {
        SECRET_CHARS_MIN.. => Ok(Secret::new(text)),
        _ => Err(format!("a secret must have at least {SECRET_CHARS_MIN} characters")),
    });
    let max_age = section.duration("max_age", 21 * DAY, DAY..=365 * DAY);
    if section.has("domain") != section.has("secrets") {
        let (there, wanted) = if section.has("domain") { ("domain", "secrets") } else { ("secrets", "domain") };
        section.fault(there, format!("`{there}` needs `{wanted}`"), "");
    }
    section.finish();
    let secrets = secrets.filter(|secrets| !secrets.is_empty())?;
    Some(SrsSettings { domain: domain?, secrets, max_age })
}
