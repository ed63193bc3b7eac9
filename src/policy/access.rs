//! May this client talk here, and may it send as this sender? Pure. RFC 4954 §6, RFC 6409 §4.3, §6.1.

use std::net::IpAddr;

use super::decision::{Decision, Reason};
use super::domains::{Domains, unquoted};
use crate::config::Config;
use crate::config::settings::{Listener, Role};
use crate::wire::address::Mailbox;
use crate::wire::envelope::Origin;
use crate::wire::reply::Enhanced;

const CLIENT_NOT_TRUSTED: Decision =
    Decision::refuse(Reason::ClientNotTrusted, 554, Enhanced(5, 7, 1), "This host is not allowed to use this service");
const AUTH_REQUIRED: Decision =
    Decision::refuse(Reason::AuthRequired, 530, Enhanced(5, 7, 0), "Authentication required");
const SENDER_NOT_OWNED: Decision =
    Decision::refuse(Reason::SenderNotOwned, 553, Enhanced(5, 7, 1), "This login may not send as that address");

/// True if the address lies in `relay.networks`. An IPv4 address in IPv6 clothes is the IPv4 address.
pub fn is_trusted(ip: IpAddr, config: &Config) -> bool {
    let ip = ip.to_canonical();
    config.relay.networks.iter().any(|network| network.contains(&ip))
}

/// Decides on a new connection, before the banner. A relay listener without AUTH and an lmtp listener are for trusted networks only.
pub fn at_connect(ip: IpAddr, listener: &Listener, config: &Config) -> Decision {
    match listener.role {
        Role::Mx | Role::Submission => Decision::allow(Reason::Ordinary),
        Role::Relay | Role::Lmtp if is_trusted(ip, config) => Decision::allow(Reason::TrustedNetwork),
        Role::Relay if listener.auth => Decision::allow(Reason::Ordinary),
        Role::Relay | Role::Lmtp => CLIENT_NOT_TRUSTED,
    }
}

/// Decides on MAIL.
pub fn at_mail(
    origin: &Origin,
    reverse_path: Option<&Mailbox>,
    listener: &Listener,
    config: &Config,
    domains: &Domains,
) -> Decision {
    let Some(login) = &origin.login else {
        return match listener.role {
            Role::Submission => AUTH_REQUIRED,
            Role::Relay if is_trusted(origin.ip, config) => Decision::allow(Reason::TrustedNetwork),
            Role::Relay => AUTH_REQUIRED,
            Role::Mx | Role::Lmtp => Decision::allow(Reason::Ordinary),
        };
    };
    if listener.own_sender && reverse_path.is_some_and(|sender| !owns(login, sender, domains)) {
        return SENDER_NOT_OWNED;
    }
    Decision::allow(Reason::Login)
}

/// A login owns the address that it is, and its name at our domains, with any detail. The null reverse-path is
/// everybody's: notifications are sent with it (RFC 8098 §3).
fn owns(login: &str, sender: &Mailbox, domains: &Domains) -> bool {
    let (login_name, login_domain) = login.rsplit_once('@').unwrap_or((login, ""));
    let Some(domain) = domains.find(sender.domain()) else {
        return login.eq_ignore_ascii_case(sender.as_str());
    };
    let right_domain = login_domain.is_empty() || login_domain.eq_ignore_ascii_case(sender.domain());
    let local = unquoted(sender.local_part()).to_lowercase();
    let base = domain.detail_separator.and_then(|mark| local.split_once(mark)).map(|(base, _)| base);
    let name = login_name.to_lowercase();
    right_domain && (local == name || base == Some(name.as_str()))
}
