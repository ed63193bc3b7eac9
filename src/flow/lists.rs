//! `[[list]]`: do these recipients want mail of this sender? Pure.
//!
//! An allowed name must be proven, by SPF for the reverse-path or by DMARC or an aligned signature for the author: anybody can
//! write any name. A blocked name need not be. Entries are symbols with points like all others, so that a virus is refused
//! whoever sends it, and the sum is what is printed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::{Line, List, Sender};
use crate::filter::{Judge, Points, Symbol};
use crate::policy::domains::names_of;
use crate::verify::{Outcome, Results};
use crate::wire::address::Mailbox;
use crate::wire::envelope::Envelope;

/// Points of an entry; SpamAssassin's.
const LISTED_POINTS: f64 = 100.0;

/// The lists of a configuration by recipient.
pub struct Lists {
    config: Arc<Config>,
    by_recipient: HashMap<String, Vec<usize>>,
    for_everybody: Vec<usize>,
}

/// Who a message is from, in lower case.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    ip: Option<IpAddr>,
    /// Addresses with what proves them.
    proven: Vec<(String, &'static str)>,
    claimed: Vec<String>,
}

impl Senders {
    /// Of a message with this envelope and these results of the identity checks, if there are any.
    pub fn of(envelope: &Envelope, results: Option<&Results>) -> Self {
        let path = envelope.reverse_path.as_ref().map(|path| path.as_str().to_lowercase());
        let author = results.and_then(|results| results.author.as_ref().ok());
        let address = author.map(|author| author.address.to_lowercase());
        let mut proven = Vec::new();
        let by_spf = results.is_some_and(|r| r.mail_from.as_ref().is_some_and(|spf| spf.outcome == Outcome::Pass));
        match &path {
            Some(path) if envelope.origin.login.is_some() => proven.push((path.clone(), "login")),
            Some(path) if by_spf => proven.push((path.clone(), "SPF")),
            _ => {}
        }
        let by_dmarc = results.is_some_and(|results| results.dmarc.outcome == Outcome::Pass);
        if let (Some(address), true) = (&address, by_dmarc || is_signed(results)) {
            proven.push((address.clone(), if by_dmarc { "DMARC" } else { "DKIM" }));
        }
        let claimed = path.into_iter().chain(address).collect();
        Senders { ip: Some(envelope.origin.ip), proven, claimed }
    }

    /// What an allowing entry means of these, and what proves it.
    fn allowed(&self, entry: &Sender) -> Option<String> {
        match entry {
            Sender::Network(_) => self.blocked(entry),
            _ => {
                let (address, proof) = self.proven.iter().find(|(address, _)| means(entry, address))?;
                Some(format!("{address}, proven by {proof}"))
            }
        }
    }

    fn blocked(&self, entry: &Sender) -> Option<String> {
        match entry {
            Sender::Network(network) => {
                self.ip.filter(|ip| network.contains(&ip.to_canonical())).map(|ip| ip.to_string())
            }
            _ => self.claimed.iter().find(|address| means(entry, address)).cloned(),
        }
    }
}

/// A good signature of the author's own domain.
fn is_signed(results: Option<&Results>) -> bool {
    results.is_some_and(|results| {
        let domain = results.author.as_ref().map_or("", |author| author.domain.as_str());
        results.dkim.iter().any(|found| found.outcome == Outcome::Pass && found.domain.eq_ignore_ascii_case(domain))
    })
}

fn means(entry: &Sender, address: &str) -> bool {
    match entry {
        Sender::Address(own) => own == address,
        Sender::Domain(domain) => address.rsplit_once('@').is_some_and(|(_, own)| own == domain),
        Sender::Network(_) => false,
    }
}

impl Lists {
    /// Those of `config`.
    pub fn new(config: Arc<Config>) -> Self {
        let mut lists = Lists { by_recipient: HashMap::new(), for_everybody: Vec::new(), config };
        for (place, list) in lists.config.lists.iter().enumerate() {
            if list.recipients.is_empty() {
                lists.for_everybody.push(place);
            }
            for recipient in &list.recipients {
                lists.by_recipient.entry(recipient.clone()).or_default().push(place);
            }
        }
        lists
    }

    /// The symbols of a message to `recipient`: at most one for being allowed and one for being blocked.
    pub fn symbols(&self, recipient: &Mailbox, separator: Option<char>, senders: &Senders) -> Vec<Symbol> {
        if self.config.lists.is_empty() {
            return Vec::new();
        }
        let domain = recipient.domain().to_lowercase();
        let mut keys: Vec<String> = names_of(recipient.local_part(), separator)
            .iter()
            .map(|name| format!("{}@{domain}", name.to_lowercase()))
            .collect();
        keys.push(domain);
        let own = keys.iter().filter_map(|key| self.by_recipient.get(key)).flatten();
        let places: Vec<usize> = own.chain(&self.for_everybody).copied().collect();
        let lists = || places.iter().map(|place| &self.config.lists[*place]);
        let hit = |entries: fn(&List) -> (&[Sender], &Line), test: &dyn Fn(&Sender) -> Option<String>| {
            lists().find_map(|list| {
                let (entries, line) = entries(list);
                let hit = |entry: &Sender| test(entry).map(|who| format!("`{entry}` means {who} ({line})"));
                entries.iter().find_map(hit)
            })
        };
        let allowed = hit(|list| (&list.allow, &list.lines[0]), &|entry| senders.allowed(entry)).map(|evidence| {
            Symbol::new(
                Judge::List,
                "ALLOW_LISTED",
                Points::new(-LISTED_POINTS),
                "The sender is on a list of wanted ones",
            )
            .because(evidence)
        });
        let blocked = hit(|list| (&list.block, &list.lines[1]), &|entry| senders.blocked(entry)).map(|evidence| {
            Symbol::new(
                Judge::List,
                "BLOCK_LISTED",
                Points::new(LISTED_POINTS),
                "The sender is on a list of unwanted ones",
            )
            .because(evidence)
        });
        allowed.into_iter().chain(blocked).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = "[[list]]\nfor = ['alice@weir.test']\nallow = ['@shop.test']\nblock = ['bob@club.test']\n\
        [[list]]\nfor = ['other.test']\nblock = ['@shop.test']\n[[list]]\nblock = ['203.0.113.0/24']\n";

    fn names(to: &str, senders: &Senders) -> Vec<String> {
        let lists = Lists::new(Arc::new(Config::parse(Path::new("weir.toml"), CONFIG).unwrap()));
        let symbols = lists.symbols(&Mailbox::parse(to, false).unwrap(), Some('+'), senders);
        symbols.iter().map(|symbol| format!("{} {}", symbol.name, symbol.evidence.as_deref().unwrap())).collect()
    }

    #[test]
    fn an_allowed_name_must_be_proven_and_a_blocked_one_not() {
        let mut senders = Senders { claimed: vec!["a@shop.test".into()], ..Senders::default() };
        assert!(names("alice@weir.test", &senders).is_empty());
        assert_eq!(names("x@other.test", &senders), ["BLOCK_LISTED `@shop.test` means a@shop.test (weir.toml:7)"]);
        senders.proven = vec![("a@shop.test".into(), "SPF")];
        let allowed = ["ALLOW_LISTED `@shop.test` means a@shop.test, proven by SPF (weir.toml:3)"];
        assert_eq!(names("Alice+news@weir.test", &senders), allowed);
        assert!(names("bob@weir.test", &senders).is_empty());
        senders.ip = Some("203.0.113.9".parse().unwrap());
        assert_eq!(names("bob@weir.test", &senders), ["BLOCK_LISTED `203.0.113.0/24` means 203.0.113.9 (weir.toml:9)"]);
    }
}
