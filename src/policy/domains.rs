//! Which domains are ours, found in constant time. Pure.
//!
//! One per configuration; a reload makes a new one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::Domain;
use crate::wire::address::Mailbox;

/// Our domains by name.
#[derive(Clone, Debug)]
pub struct Domains {
    config: Arc<Config>,
    by_name: HashMap<Box<str>, usize>,
}

impl Domains {
    /// Indexes the domains of `config`.
    pub fn new(config: Arc<Config>) -> Self {
        let by_name = config.domains.iter().enumerate().map(|(at, domain)| (domain.name.as_str().into(), at)).collect();
        Domains { config, by_name }
    }

    /// The domain of ours that `name` is, or, where the configuration says so, that it lies below.
    pub fn find(&self, name: &str) -> Option<&Domain> {
        let name = ascii(name)?;
        if let Some(domain) = self.exact(&name) {
            return Some(domain);
        }
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        parents.filter_map(|parent| self.exact(parent)).find(|domain| domain.subdomains)
    }

    /// The domain of ours that `mailbox` belongs to. The host's own name stands for the first domain when it is asked for
    /// its postmaster: `RCPT TO:<Postmaster>` is completed with it (RFC 5321 §4.1.1.3).
    pub fn of(&self, mailbox: &Mailbox) -> Option<&Domain> {
        let own_postmaster = || (is_postmaster(mailbox) && mailbox.domain() == self.config.hostname).then_some(());
        self.find(mailbox.domain()).or_else(|| own_postmaster().and(self.config.domains.first()))
    }

    /// Where mail for the host's own postmaster is read, if the host's name is no domain of ours: the first domain's
    /// postmaster. A next hop would not know the address that the client used.
    pub fn settled(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let foreign = is_postmaster(mailbox) && self.find(mailbox.domain()).is_none();
        foreign.then(|| self.of(mailbox).map(|domain| Mailbox::postmaster(&domain.name)))?
    }

    /// What the alias that `mailbox` is stands for, its detail left out if only so it is one.
    pub fn alias(&self, mailbox: &Mailbox) -> Option<&[Mailbox]> {
        let aliases = &self.config.aliases.0;
        if aliases.is_empty() {
            return None;
        }
        let separator = self.find(mailbox.domain())?.detail_separator;
        let domain = ascii(mailbox.domain())?;
        let names = names_of(mailbox.local_part(), separator);
        names.iter().find_map(|name| aliases.get(&format!("{name}@{domain}"))).map(Vec::as_slice)
    }

    fn exact(&self, name: &str) -> Option<&Domain> {
        self.by_name.get(name).map(|at| &self.config.domains[*at])
    }
}

/// A name in A-labels; nothing if it has none and so can't be ours.
fn ascii(name: &str) -> Option<Cow<'_, str>> {
    if name.is_ascii() { Some(name.into()) } else { idna::domain_to_ascii(name).ok().map(Cow::Owned) }
}

/// True for `postmaster`, in any case (RFC 5321 §2.3.11, §4.5.1).
pub fn is_postmaster(mailbox: &Mailbox) -> bool {
    unquoted(mailbox.local_part()).eq_ignore_ascii_case("postmaster")
}

/// A local part without quotes and backslashes: `"alice"` is the same name as `alice` (RFC 5321 §4.1.2).
pub fn unquoted(local_part: &str) -> Cow<'_, str> {
    let Some(inner) = local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local_part.into();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text.into()
}

/// The names under which a local part may be known, the most exact first, in lower case: `alice+news`, then `alice`.
pub fn names_of(local_part: &str, detail_separator: Option<char>) -> Vec<String> {
    let whole = unquoted(local_part).to_lowercase();
    let base = detail_separator.and_then(|mark| whole.split_once(mark)).map(|(base, _)| base.to_owned());
    let base = base.filter(|base| !base.is_empty());
    std::iter::once(whole).chain(base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_its_quotes_and_its_detail() {
        assert_eq!(unquoted(r#""al\"ice""#), r#"al"ice"#);
        assert_eq!(names_of("Alice+News", Some('+')), ["alice+news", "alice"]);
        assert_eq!(names_of("+x", Some('+')), ["+x"]);
        assert_eq!(names_of("a+b", None), ["a+b"]);
    }
}
