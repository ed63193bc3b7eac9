//! May this recipient be reached from here? The decision that keeps us from being an open relay. Pure. RFC 5321 §3.6.
//!
//! It looks at the one canonical address only. Source routes never get here (the parser drops them, RFC 5321 §4.1.1.3);
//! the other ways to hide a route are refused at our own domains whoever asks, because what stands behind us might follow them.

use super::access::is_trusted;
use super::decision::{Decision, Reason};
use super::domains::{Domains, is_postmaster, names_of, unquoted};
use crate::config::Config;
use crate::config::settings::{Domain, Listener, NextHop, Recipients, Role};
use crate::wire::address::Mailbox;
use crate::wire::envelope::Origin;
use crate::wire::reply::Enhanced;

const ADDRESS_LITERAL: Decision =
    Decision::refuse(Reason::AddressLiteral, 550, Enhanced(5, 1, 2), "Address literals are not accepted here");
const RELAY_DENIED: Decision = Decision::refuse(Reason::RelayDenied, 550, Enhanced(5, 7, 1), "Relaying denied");
const HIDDEN_ROUTE: Decision = Decision::refuse(
    Reason::HiddenRoute,
    550,
    Enhanced(5, 7, 1),
    "Relaying denied: routes in the local part are not followed",
);
const BAD_LOCAL_PART: Decision =
    Decision::refuse(Reason::BadLocalPart, 550, Enhanced(5, 1, 3), "This local part is not accepted here");
const UNKNOWN_USER: Decision = Decision::refuse(Reason::UnknownUser, 550, Enhanced(5, 1, 1), "No such user here");
const USER_UNVERIFIED: Decision = Decision::refuse(
    Reason::UserUnverified,
    450,
    Enhanced(4, 1, 1),
    "Whether this user exists can't be verified now, try again later",
);

/// What must be found out before [`at_rcpt`] can decide.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Nothing.
    None,
    /// Does the embedded store have a user of one of these names (lower case, most exact first)?
    Store(Vec<String>),
    /// Does this next hop take the recipient?
    NextHop(&'a NextHop),
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing was asked.
    NotAsked,
    /// There is such a user.
    Yes,
    /// There is none.
    No,
    /// The one who knows can't be asked now.
    Later,
}

/// Which look-up [`at_rcpt`] needs for this recipient; none for those that it refuses anyway.
pub fn lookup_for<'a>(recipient: &Mailbox, listener: &Listener, domains: &'a Domains) -> Lookup<'a> {
    let Some(domain) = domains.of(recipient) else { return Lookup::None };
    if is_postmaster(recipient) || trick(recipient).is_some() || is_alias(recipient, listener, domains) {
        return Lookup::None;
    }
    match domain.recipients {
        Recipients::Any | Recipients::List(_) => Lookup::None,
        Recipients::Store => Lookup::Store(names_of(recipient.local_part(), domain.detail_separator)),
        Recipients::Verify => Lookup::NextHop(&domain.deliver_to),
    }
}

/// Decides on RCPT.
pub fn at_rcpt(
    origin: &Origin,
    recipient: &Mailbox,
    known: Known,
    listener: &Listener,
    config: &Config,
    domains: &Domains,
) -> Decision {
    if recipient.literal().is_some() {
        return ADDRESS_LITERAL;
    }
    match domains.of(recipient) {
        Some(_) if trick(recipient).is_none() && is_alias(recipient, listener, domains) => {
            Decision::allow(Reason::Alias)
        }
        Some(domain) => at_our_domain(recipient, known, domain),
        None => at_foreign_domain(origin, listener, config),
    }
}

/// True if `recipient` stands for others. An LMTP peer is answered for each recipient that it named, and has followed its own
/// aliases: what it names must be there.
fn is_alias(recipient: &Mailbox, listener: &Listener, domains: &Domains) -> bool {
    listener.role != Role::Lmtp && domains.alias(recipient).is_some()
}

fn at_foreign_domain(origin: &Origin, listener: &Listener, config: &Config) -> Decision {
    match listener.role {
        Role::Lmtp => RELAY_DENIED,
        Role::Mx | Role::Relay | Role::Submission if origin.login.is_some() => Decision::allow(Reason::Login),
        Role::Relay if is_trusted(origin.ip, config) => Decision::allow(Reason::TrustedNetwork),
        Role::Mx | Role::Relay | Role::Submission => RELAY_DENIED,
    }
}

fn at_our_domain(recipient: &Mailbox, known: Known, domain: &Domain) -> Decision {
    if let Some(refusal) = trick(recipient) {
        return refusal;
    }
    if is_postmaster(recipient) {
        return Decision::allow(Reason::Postmaster);
    }
    let exists = match &domain.recipients {
        Recipients::Any => Known::Yes,
        Recipients::List(names) => {
            let listed =
                names_of(recipient.local_part(), domain.detail_separator).iter().any(|name| names.contains(name));
            if listed { Known::Yes } else { Known::No }
        }
        Recipients::Store | Recipients::Verify => known,
    };
    match exists {
        Known::Yes => Decision::allow(Reason::OurDomain),
        Known::No => UNKNOWN_USER,
        Known::Later | Known::NotAsked => USER_UNVERIFIED,
    }
}

/// A route or a command hidden in the local part. A leading dash is an option to programs (Postfix's allow_min_user), a leading
/// bar or slash a command or file to old delivery agents.
fn trick(recipient: &Mailbox) -> Option<Decision> {
    let local = unquoted(recipient.local_part());
    if local.contains(['%', '!', '@']) {
        return Some(HIDDEN_ROUTE);
    }
    let (first, quoted_route) = (local.chars().next(), local.contains(':') && local.contains(','));
    let bad = matches!(first, None | Some('-' | '|' | '/' | '\\')) || local.contains("../") || quoted_route;
    bad.then_some(BAD_LOCAL_PART)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::access::{at_connect, at_mail};
    use super::*;

    const CONFIG: &str = include_str!("../../tests/policy/weir.toml");
    const TABLE: &str = include_str!("../../tests/policy/decisions.txt");

    fn origin(ip: &str, login: &str, listener: &Listener) -> Origin {
        Origin {
            ip: ip.parse().unwrap(),
            helo: "client.example".into(),
            login: (login != "-").then(|| login.into()),
            ..Origin::local(&listener.name)
        }
    }

    fn mailbox(text: &str) -> Option<Mailbox> {
        (text != "<>").then(|| Mailbox::parse(text, true).unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    /// One row's answer: at connect, else MAIL, else RCPT; the first that refuses.
    fn answer(row: &[&str], config: &Config, domains: &Domains) -> String {
        let [listener, ip, login, from, to, known] = row[..] else { panic!("six columns: {row:?}") };
        let listener = config.listeners.iter().find(|l| &*l.name == listener).unwrap_or_else(|| panic!("{listener}"));
        let origin = origin(ip, login, listener);
        let known = match known {
            "-" => Known::NotAsked,
            "yes" => Known::Yes,
            "no" => Known::No,
            "later" => Known::Later,
            other => panic!("{other}"),
        };
        let mut decision = at_connect(origin.ip, listener, config);
        if decision.is_allowed() {
            decision = at_mail(&origin, mailbox(from).as_ref(), listener, config, domains);
        }
        if decision.is_allowed() {
            let to = mailbox(to).expect("a recipient");
            assert_eq!(
                known != Known::NotAsked,
                lookup_for(&to, listener, domains) != Lookup::None,
                "look-up for {to}"
            );
            decision = at_rcpt(&origin, &to, known, listener, config, domains);
        }
        let code = decision.reply.as_ref().map(|reply| format!("{} {}", reply.code, reply.enhanced.unwrap()));
        format!("{} {}", code.unwrap_or("ok".into()), decision.reason.as_str())
    }

    #[test]
    fn the_table_of_decisions_holds() {
        let config = Arc::new(Config::parse(std::path::Path::new("tests/policy/weir.toml"), CONFIG).unwrap());
        let domains = Domains::new(config.clone());
        let rows = TABLE.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let mut count = 0;
        for line in rows {
            let (facts, expected) = line.split_once("=>").unwrap_or_else(|| panic!("no => in {line}"));
            let facts: Vec<&str> = facts.split(" | ").map(str::trim).collect();
            assert_eq!(answer(&facts, &config, &domains), expected.trim(), "{line}");
            count += 1;
        }
        assert!(count >= 50, "the table is gone");
    }
}
