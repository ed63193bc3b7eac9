//! Which next hop a recipient's mail takes, and the name of its queue. Pure.
//!
//! A destination is the recipient's domain for mail that goes by MX, and the next hop's URL without password
//! otherwise, so that all domains behind one gateway share one queue, window and connections. The next hop itself is looked up again at
//! each attempt: a changed configuration applies to mail that waits already.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::base::unix;
use crate::config::settings::{Config, Domain, NextHop};
use crate::wire::address::Mailbox;
use crate::wire::srs::Srs;

#[derive(Clone, Debug)]
struct Ours {
    hop: NextHop,
    subdomains: bool,
}

/// The routes of one configuration.
#[derive(Clone, Debug)]
pub struct Routes {
    domains: HashMap<String, Ours>,
    others: NextHop,
    hostname: String,
    srs: Option<Srs>,
}

impl Routes {
    /// Indexes `[[domain]]` and `[relay] smarthost`.
    pub fn new(config: &Config) -> Self {
        let ours = |domain: &Domain| Ours { hop: domain.deliver_to.clone(), subdomains: domain.subdomains };
        let domains = config.domains.iter().map(|domain| (domain.name.clone(), ours(domain))).collect();
        Routes {
            domains,
            others: config.relay.smarthost.clone().unwrap_or(NextHop::Mx),
            hostname: config.hostname.clone(),
            srs: config
                .srs
                .as_ref()
                .and_then(|srs| Srs::new(srs.secrets.clone(), &srs.domain).map(|made| made.valid_for(srs.max_age))),
        }
    }

    /// Rewrites reverse-paths, if `[srs]` is set.
    pub fn srs(&self) -> Option<&Srs> {
        self.srs.as_ref()
    }

    /// Where a report for `sender` goes: behind one of our own rewritten addresses to who stands behind it.
    pub fn way_back(&self, sender: &Mailbox, now: SystemTime) -> Option<Mailbox> {
        let secs = unix::secs(now);
        self.srs.as_ref().filter(|srs| srs.claims(sender))?.reverse(sender, secs).ok()
    }

    /// Where mail for `recipient` goes.
    pub fn next_hop(&self, recipient: &Mailbox) -> &NextHop {
        let domain = ascii_domain(recipient.domain());
        if let Some(ours) = self.domains.get(&*domain) {
            return &ours.hop;
        }
        let parents = domain.match_indices('.').map(|(dot, _)| &domain[dot + 1..]);
        let mut above = parents.filter_map(|parent| self.domains.get(parent));
        // A host without domains has a postmaster too (RFC 5321 §4.5.1), and by MX or smarthost his mail would come back here.
        let own_postmaster =
            *domain == self.hostname && recipient.local_part_unquoted().eq_ignore_ascii_case("postmaster");
        let others = if own_postmaster { &NextHop::Store } else { &self.others };
        above.find(|ours| ours.subdomains).map_or(others, |ours| &ours.hop)
    }

    /// The queue in which mail for `recipient` waits.
    pub fn destination(&self, recipient: &Mailbox) -> Arc<str> {
        destination_of(self.next_hop(recipient), recipient.domain())
    }
}

/// The name of the queue for `hop` and, if that goes by MX, `domain`.
pub fn destination_of(hop: &NextHop, domain: &str) -> Arc<str> {
    match hop {
        NextHop::Mx => ascii_domain(domain).into(),
        NextHop::Smtp { host, port, implicit_tls, login, tls } => {
            let scheme = if *implicit_tls { "smtps" } else { "smtp" };
            let tls = tls.map_or_else(String::new, |tls| format!("?tls={}", tls.as_str()));
            let user = login.as_ref().map_or(String::new(), |login| format!("{}@", login.user));
            format!("{scheme}://{user}{}:{port}{tls}", bracketed(host)).into()
        }
        NextHop::Lmtp { host, port } => format!("lmtp://{}:{port}", bracketed(host)).into(),
        NextHop::LmtpUnix(path) => format!("lmtp+unix:{}", path.display()).into(),
        NextHop::Maildir(template) => format!("maildir:{template}").into(),
        NextHop::Store => "store:".into(),
        NextHop::Discard => "discard:".into(),
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]").into() } else { host.into() }
}

/// A-labels; a name that IDNA refuses stays as it is and will not be found in DNS.
fn ascii_domain(domain: &str) -> Cow<'_, str> {
    if domain.is_ascii() {
        return domain.into();
    }
    idna::domain_to_ascii(domain).map_or(domain.into(), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::config::settings::{DeliverTls, Login};

    fn routes() -> Routes {
        let lmtp = NextHop::Lmtp { host: "::1".into(), port: 24 };
        let domains =
            [("example.org", lmtp), ("xn--bcher-kva.example", NextHop::Store), ("relayed.example", NextHop::Mx)];
        let smarthost = NextHop::Smtp {
            host: "out.example.net".into(),
            port: 587,
            implicit_tls: false,
            login: Some(Login { user: "me".into(), password: Secret::new("hush") }),
            tls: Some(DeliverTls::Required),
        };
        let ours =
            |(name, hop): (&str, NextHop)| (name.to_owned(), Ours { hop, subdomains: name == "relayed.example" });
        Routes { domains: domains.map(ours).into(), others: smarthost, hostname: "mx.test".into(), srs: None }
    }

    #[test]
    fn destinations_by_table() {
        let table = [
            ("a@Example.org", "lmtp://[::1]:24"),
            ("a@bücher.example", "store:"),
            ("a@relayed.example", "relayed.example"),
            ("a@host.relayed.example", "host.relayed.example"),
            ("a@sub.example.org", "smtp://me@out.example.net:587?tls=required"),
            ("Postmaster@mx.test", "store:"),
            ("a@mx.test", "smtp://me@out.example.net:587?tls=required"),
            ("a@[192.0.2.1]", "smtp://me@out.example.net:587?tls=required"),
        ];
        for (recipient, destination) in table {
            let mailbox = Mailbox::parse(recipient, true).unwrap();
            assert_eq!(&*routes().destination(&mailbox), destination);
        }
        assert_eq!(&*destination_of(&NextHop::Mx, "BÜCHER.example".to_lowercase().as_str()), "xn--bcher-kva.example");
    }
}
