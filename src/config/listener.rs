//! `[[listener]]` and `[tls]`: where we listen, for what, and with which certificate. I/O: reads certificate and key to check them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::build::read_limits;
use super::limits::Limits;
use super::scanners::SERVICE_NAME;
use super::section::Section;
use super::settings::*;
use super::units;

const ROLES: [(&str, Role); 4] =
    [("mx", Role::Mx), ("submission", Role::Submission), ("relay", Role::Relay), ("lmtp", Role::Lmtp)];
const TLS: [(&str, ListenerTls); 3] =
    [("none", ListenerTls::None), ("starttls", ListenerTls::StartTls), ("implicit", ListenerTls::Implicit)];
pub(super) const MODES: [(&str, Mode); 3] = [("enforce", Mode::Enforce), ("tag", Mode::Tag), ("off", Mode::Off)];
const BARE_LF: [(&str, BareLf); 3] =
    [("reject", BareLf::Reject), ("normalize", BareLf::Normalize), ("accept", BareLf::Accept)];

/// Listeners that one process holds at most; each costs a socket on every reactor.
const LISTENERS_MAX: usize = 64;

pub(super) fn listeners(sections: Vec<Section<'_>>, limits: &Limits) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut seen: HashMap<SocketAddr, ()> = HashMap::new();
    for mut section in sections {
        let listener = listener(&mut section, limits);
        if seen.insert(listener.address, ()).is_some() && listener.address.port() != 0 {
            section.fault("address", format!("another listener has {} already", listener.address), "");
        }
        if listeners.len() == LISTENERS_MAX {
            section.fault("address", format!("more than {LISTENERS_MAX} listeners"), "");
        }
        section.finish();
        listeners.push(listener);
    }
    listeners
}

/// What is listened on when no `[[listener]]` is set.
pub(super) fn loopback(limits: &Limits) -> Vec<Listener> {
    [(Role::Mx, 2525), (Role::Submission, 2587)]
        .map(|(role, port)| Listener { address: (Ipv4Addr::LOCALHOST, port).into(), ..of_role(role, limits) })
        .into()
}

impl Config {
    /// The listener, bound nowhere, with which `[service]` judges.
    pub fn service_listener(&self) -> Listener {
        let (verify, filter) = (self.service.verify, self.service.filter);
        Listener { name: SERVICE_NAME.into(), verify, filter, ..of_role(Role::Mx, &self.limits) }
    }

    /// True if anything here asks the filter.
    pub fn filters(&self) -> bool {
        let service = &self.service;
        let serves = service.milter.or(service.spamd).or(service.rspamd).is_some();
        self.listeners.iter().any(|listener| listener.filter != Mode::Off) || serves && service.filter != Mode::Off
    }
}

/// The defaults of a role; the address is a placeholder.
fn of_role(role: Role, limits: &Limits) -> Listener {
    let judged = if role == Role::Mx { Mode::Enforce } else { Mode::Off };
    Listener {
        name: role.as_str().into(),
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        role,
        tls: if role == Role::Lmtp { ListenerTls::None } else { ListenerTls::StartTls },
        auth: matches!(role, Role::Submission | Role::Relay),
        auth_plaintext: false,
        proxy_protocol: Vec::new(),
        xclient: Vec::new(),
        verify: judged,
        filter: judged,
        bare_lf: BareLf::Reject,
        own_sender: false,
        scores: Scores::default(),
        line: Line::default(),
        limits: limits.clone(),
    }
}

fn listener(section: &mut Section<'_>, limits: &Limits) -> Listener {
    let role = section.word("role", &ROLES, &[]);
    if !section.has("role") {
        section.fault("role", "a listener needs a `role`", "role = \"mx\", \"submission\", \"relay\" or \"lmtp\"");
    }
    let base = of_role(role.unwrap_or(Role::Mx), limits);
    if !section.has("address") {
        section.fault("address", "a listener needs an `address`", "address = \"0.0.0.0:25\"");
    }
    let listener = Listener {
        name: section.parsed("name", name).unwrap_or(base.name),
        address: section.parsed("address", units::address).unwrap_or(base.address),
        tls: section.word("tls", &TLS, &[]).unwrap_or(base.tls),
        auth: section.boolean("auth", base.auth),
        auth_plaintext: section.boolean("auth_plaintext", base.auth_plaintext),
        proxy_protocol: section.list("proxy_protocol", units::network).unwrap_or_default(),
        xclient: section.list("xclient", units::network).unwrap_or_default(),
        verify: section.word("verify", &MODES, &[]).unwrap_or(base.verify),
        filter: section.word("filter", &MODES, &[]).unwrap_or(base.filter),
        bare_lf: section.word("bare_lf", &BARE_LF, &[]).unwrap_or(base.bare_lf),
        own_sender: section.boolean("own_sender", base.own_sender),
        scores: Scores::table(section, "scores"),
        line: section.line_of("role"),
        limits: read_limits(section, limits),
        role: base.role,
    };
    if role.is_some() {
        check(section, &listener);
    }
    listener
}

/// Longest name of a listener: it is a label of metrics.
const NAME_CHARS_MAX: usize = 32;

pub(super) fn name(text: &str) -> Result<Arc<str>, units::Wrong> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(fits) {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores"));
    }
    Ok(text.into())
}

/// What contradicts itself within one listener.
fn check(section: &Section<'_>, listener: &Listener) {
    if listener.role == Role::Submission && !listener.auth {
        section.fault(
            "auth",
            "a submission listener can't be without AUTH",
            "for trusted networks use role = \"relay\"",
        );
    }
    if listener.auth && listener.tls == ListenerTls::None && !listener.auth_plaintext {
        let help =
            "set tls = \"starttls\" or \"implicit\"; or auth_plaintext = true if passwords may be seen on the wire";
        let role = listener.role.as_str();
        match listener.role {
            Role::Submission => section.fault("tls", "a submission listener without TLS can't offer AUTH", help),
            _ if section.has("auth") => section.fault("auth", format!("AUTH on a {role} listener needs TLS"), help),
            _ => {}
        }
    }
    if listener.auth && matches!(listener.role, Role::Lmtp) {
        section.fault("auth", "an lmtp listener knows no AUTH", "");
    }
    for (key, networks) in [("proxy_protocol", &listener.proxy_protocol), ("xclient", &listener.xclient)] {
        if networks.iter().any(|network| network.prefix_len() == 0) {
            let message = format!("`{key}` must not name the whole internet: any peer could then claim any address");
            section.fault(key, message, "name the balancers");
        }
    }
    if listener.own_sender && !listener.auth {
        section.fault("own_sender", "`own_sender` has no meaning without AUTH", "");
    }
}

/// POP3 and the API, which have default addresses, must not stand on an address that a listener has, nor on each other's.
pub(super) fn check_addresses(top: &mut Section<'_>, config: &Config) {
    let mut taken: Vec<(SocketAddr, &str)> =
        config.listeners.iter().map(|listener| (listener.address, "a listener")).collect();
    let others = [
        ("store", "pop3", config.store.pop3),
        ("store", "pop3s", config.store.pop3s),
        ("admin", "address", config.admin.address),
        ("service", "milter", config.service.milter),
        ("service", "spamd", config.service.spamd),
        ("service", "rspamd", config.service.rspamd),
    ];
    for (table, key, address) in others {
        let Some(address) = address else { continue };
        let other = taken.iter().find(|(used, _)| *used == address && address.port() != 0);
        if let Some((_, whose)) = other {
            let message = format!("`[{table}] {key}` is {address}, but {whose} has that already");
            top.section(table).fault(key, message, "set another, or \"off\"");
        }
        taken.push((address, key));
    }
}

/// That `ca_file` holds certificates.
pub(super) fn check_authorities(section: &Section<'_>, file: &Path) {
    match CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(found) if found.is_empty() => section.fault("ca_file", "the file holds no PEM certificate", ""),
        Ok(_) => {}
        Err(error) => section.fault("ca_file", format!("the certificates can't be read: {error}"), ""),
    }
}

/// Reads certificate and key, and proves that they belong together.
pub(super) fn check_certificate(section: &Section<'_>, certificate: &Path, key: &Path) {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = match chain {
        Ok(chain) if chain.is_empty() => {
            return section.fault("certificate", "the file holds no PEM certificate", "");
        }
        Ok(chain) => chain,
        Err(error) => return section.fault("certificate", format!("the certificate can't be read: {error}"), ""),
    };
    let key = match PrivateKeyDer::from_pem_file(key) {
        Ok(key) => key,
        Err(error) => return section.fault("key", format!("the key can't be read: {error}"), ""),
    };
    let pair = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    if let Err(error) = pair.and_then(|pair| pair.keys_match()) {
        section.fault("key", format!("certificate and key don't work together: {error}"), "");
    }
}
