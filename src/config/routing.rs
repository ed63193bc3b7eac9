//! `[[domain]]`, `[relay]`, `[auth]`, `[[rate]]`: whose mail we take, where it goes, and how much of it. I/O: reads lists of recipients.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::node::Value;
use super::section::{Section, one_of};
use super::settings::*;
use super::units::{self, Wrong};
use crate::wire::address::{Mailbox, check_domain};

/// A list of recipients has one local part a line; 64 MiB are some millions.
const LIST_FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) fn domains(sections: Vec<Section<'_>>) -> Vec<Domain> {
    let mut domains: Vec<Domain> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    for mut section in sections {
        let domain = domain(&mut section);
        if section.has("name") && !domain.name.is_empty() && !seen.insert(domain.name.clone()) {
            section.fault("name", format!("the domain {} is set twice", domain.name), "");
        }
        section.finish();
        domains.push(domain);
    }
    domains
}

/// The one domain of a Weir without a file.
pub(super) fn localhost() -> Domain {
    Domain {
        name: "localhost".to_owned(),
        deliver_to: NextHop::Store,
        recipients: Recipients::Store,
        subdomains: false,
        detail_separator: Some('+'),
        scores: Scores::default(),
        line: Line::default(),
    }
}

fn domain(section: &mut Section<'_>) -> Domain {
    if !section.has("name") {
        section.fault("name", "a domain needs a `name`", "name = \"example.org\"");
    }
    let name = section.parsed("name", domain_name).unwrap_or_default();
    if !section.has("deliver_to") {
        section.fault(
            "deliver_to",
            "a domain needs `deliver_to`",
            "deliver_to = \"lmtp://127.0.0.1:24\" or \"store:\"",
        );
    }
    let deliver_to = section.parsed("deliver_to", NextHop::parse);
    let base = if deliver_to == Some(NextHop::Store) { Recipients::Store } else { Recipients::Any };
    let domain = Domain {
        recipients: recipients(section, &name).unwrap_or(base),
        subdomains: section.boolean("subdomains", false),
        detail_separator: section.parsed("detail_separator", separator).unwrap_or(Some('+')),
        scores: Scores::table(section, "scores"),
        line: section.line_of("recipients"),
        deliver_to: deliver_to.unwrap_or(NextHop::Discard),
        name,
    };
    if domain.deliver_to == NextHop::Mx {
        let help = "name the host that keeps its mail, such as \"smtp://10.0.0.5:25\"";
        section.fault("deliver_to", "`mx:` of a domain of ours would lead back to us", help);
    }
    let can_ask = matches!(domain.deliver_to, NextHop::Smtp { .. } | NextHop::Lmtp { .. } | NextHop::LmtpUnix(_));
    if matches!(domain.recipients, Recipients::Verify) && !can_ask && section.has("deliver_to") {
        section.fault("recipients", "\"verify\" asks the next hop, but `deliver_to` names none that can be asked", "");
    }
    domain
}

fn domain_name(text: &str) -> Result<String, Wrong> {
    let ascii = idna::domain_to_ascii(text).unwrap_or_default();
    if ascii.starts_with('[') || check_domain(&ascii).is_err() {
        return Err(format!("`{text}` is no domain; write one such as \"example.org\""));
    }
    Ok(ascii)
}

/// One character that may stand in a local part, or `""` for none.
fn separator(text: &str) -> Result<Option<char>, Wrong> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (Some(c), None) if "+-=_#.".contains(c) => Ok(Some(c)),
        _ => Err("write one of + - = _ # . or \"\" for none".to_owned()),
    }
}

fn recipients(section: &mut Section<'_>, domain: &str) -> Option<Recipients> {
    const HELP: &str = "write \"any\", \"store\", \"verify\", { list = [\"alice\"] } or { file = \"names.txt\" }";
    let node = section.node("recipients")?;
    match &node.value {
        Value::String(_) => section.parsed("recipients", recipients_word),
        Value::Table(table) => {
            let mut inner = Section::of(section.cx, "recipients", &node.place, table);
            let list = inner.list("list", |text| local_part(text, domain));
            let file = inner.path("file");
            if inner.node("ldap").is_some() || inner.node("sql").is_some() {
                section.fault("recipients", "LDAP and SQL are not available in this version", HELP);
            } else if list.is_some() == file.is_some() && !inner_faulty(&inner) {
                section.fault("recipients", "`recipients` needs either a list or a file", HELP);
            }
            inner.finish();
            let names = list.map(HashSet::from_iter).or_else(|| read_list(section, &file?, domain));
            names.map(|names| Recipients::List(Arc::new(names)))
        }
        other => {
            section.fault(
                "recipients",
                format!("`recipients` must be a string or a table, not {}", other.kind()),
                HELP,
            );
            None
        }
    }
}

/// True if the keys are there but their values were refused already.
fn inner_faulty(inner: &Section<'_>) -> bool {
    inner.has("list") != inner.has("file")
}

fn recipients_word(text: &str) -> Result<Recipients, Wrong> {
    match one_of(text, &[("any", 0), ("store", 1), ("verify", 2)], &["ldap", "sql"])? {
        0 => Ok(Recipients::Any),
        1 => Ok(Recipients::Store),
        _ => Ok(Recipients::Verify),
    }
}

/// A local part in lower case, or the whole address at `domain`.
fn local_part(text: &str, domain: &str) -> Result<String, Wrong> {
    let local = text.strip_suffix(&format!("@{domain}")).unwrap_or(text);
    match Mailbox::parse(&format!("{local}@localhost"), true) {
        Ok(mailbox) => Ok(mailbox.local_part().to_lowercase()),
        Err(_) => Err(format!("`{text}` is no local part of {domain}")),
    }
}

/// One local part a line; empty lines and what follows `#` at the start of a line are left out.
fn read_list(section: &Section<'_>, path: &Path, domain: &str) -> Option<HashSet<String>> {
    let fault = |why: String| section.fault("recipients", format!("{}: {why}", path.display()), "");
    let text = match std::fs::metadata(path) {
        Ok(facts) if facts.len() > LIST_FILE_BYTES_MAX => Err(format!("larger than {LIST_FILE_BYTES_MAX} bytes")),
        _ => std::fs::read_to_string(path).map_err(|error| error.to_string()),
    };
    let text = text.map_err(&fault).ok()?;
    let mut names = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match local_part(line, domain) {
            Ok(name) => drop(names.insert(name)),
            Err(wrong) => fault(format!("line {}: {wrong}", number + 1)),
        }
    }
    Some(names)
}

/// `users = { file = "users.toml" }`.
pub(super) fn users_file(section: &mut Section<'_>) -> Option<PathBuf> {
    const LATER: [&str; 6] = ["passwd", "ldap", "sql", "dovecot", "oauth", "pam"];
    let node = section.node("users")?;
    let Value::Table(table) = &node.value else {
        section.fault("users", "`users` must be a table", "users = { file = \"users.toml\" }");
        return None;
    };
    let mut inner = Section::of(section.cx, "users", &node.place, table);
    let file = inner.path("file");
    let later: Vec<&str> = LATER.into_iter().filter(|key| inner.node(key).is_some()).collect();
    for key in &later {
        inner.fault(
            key,
            format!("users from `{key}` are not available in this version"),
            "users = { file = \"users.toml\" }",
        );
    }
    if file.is_none() && later.is_empty() && !inner.has("file") {
        section.fault("users", "`users` needs a `file`", "users = { file = \"users.toml\" }");
    }
    inner.finish();
    file
}

pub(super) fn relay(mut section: Section<'_>, listeners: &[Listener]) -> Relay {
    let default = || vec!["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
    let relay = Relay {
        networks: section.list("networks", relay_network).unwrap_or_else(default),
        smarthost: section.parsed("smarthost", smarthost),
    };
    if let Some(NextHop::Smtp { host, port, .. }) = &relay.smarthost
        && listeners.iter().any(|listener| is_listener(listener, host, *port))
    {
        section.fault("smarthost", "the smarthost is a listener of this configuration: mail would go in a circle", "");
    }
    section.finish();
    relay
}

/// Networks wider than these hold strangers, whoever owns them: IPv4 /8, IPv6 /16.
const RELAY_PREFIX_V4_MIN: u8 = 8;
const RELAY_PREFIX_V6_MIN: u8 = 16;

fn relay_network(text: &str) -> Result<IpNet, Wrong> {
    let network = units::network(text)?;
    let least = if matches!(network, IpNet::V4(_)) { RELAY_PREFIX_V4_MIN } else { RELAY_PREFIX_V6_MIN };
    if network.prefix_len() < least {
        return Err(format!("`{text}` would make an open relay; name the networks of your own hosts"));
    }
    Ok(network)
}

fn smarthost(text: &str) -> Result<NextHop, Wrong> {
    match NextHop::parse(text)? {
        hop @ (NextHop::Smtp { .. } | NextHop::Discard) => Ok(hop),
        other => Err(format!("`{other}` takes no mail for other domains; write \"smtp://host:587\"")),
    }
}

fn is_listener(listener: &Listener, host: &str, port: u16) -> bool {
    let here = |ip: std::net::IpAddr| {
        ip == listener.address.ip() || (listener.address.ip().is_unspecified() && ip.is_loopback())
    };
    let by_name =
        host == "localhost" && (listener.address.ip().is_loopback() || listener.address.ip().is_unspecified());
    listener.address.port() == port && (by_name || host.parse().is_ok_and(here))
}

const RATE_KEYS: [(&str, RateKey); 9] = [
    ("helo", RateKey::Helo),
    ("ip", RateKey::Ip),
    ("listener", RateKey::Listener),
    ("login", RateKey::Login),
    ("net", RateKey::Net),
    ("recipient", RateKey::Recipient),
    ("recipient_domain", RateKey::RecipientDomain),
    ("sender", RateKey::Sender),
    ("sender_domain", RateKey::SenderDomain),
];
const RATE_COUNTS: [(&str, RateCount); 6] = [
    ("messages", RateCount::Messages),
    ("recipients", RateCount::Recipients),
    ("bytes", RateCount::Bytes),
    ("connections", RateCount::Connections),
    ("auth_failures", RateCount::AuthFailures),
    ("unknown_recipients", RateCount::UnknownRecipients),
];
const RATE_ACTIONS: [(&str, RateAction); 4] = [
    ("defer", RateAction::Defer),
    ("reject", RateAction::Reject),
    ("hold", RateAction::Hold),
    ("alert", RateAction::Alert),
];

impl RateKey {
    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        word_of(&RATE_KEYS, self)
    }
}

impl RateCount {
    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        word_of(&RATE_COUNTS, self)
    }
}

impl RateAction {
    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        word_of(&RATE_ACTIONS, self)
    }
}

fn word_of<T: PartialEq>(words: &'static [(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map(|(word, _)| *word).expect("the table names every value")
}

/// Windows of one rate; each costs a cell per key.
const RATE_WINDOWS_MAX: usize = 4;

/// Failed logins in an hour, where no rate of the file counts them: enough for who mistypes, and a guesser gets 480 a day. By
/// login it is looser, so that a stranger does not lock its owner out so soon. Stalwart bans an address after 100 a day.
const AUTH_FAILURES_MAX: [(RateKey, u64); 3] = [(RateKey::Ip, 20), (RateKey::Net, 60), (RateKey::Login, 100)];
const AUTH_FAILURES_PERIOD: Duration = Duration::from_secs(3600);

/// `[[rate]]`, and the defaults against guessing of passwords.
pub(super) fn rates(sections: Vec<Section<'_>>) -> Vec<Rate> {
    let mut rates: Vec<Rate> = sections.into_iter().map(rate).collect();
    if !rates.iter().any(|rate| rate.count == RateCount::AuthFailures) {
        rates.extend(AUTH_FAILURES_MAX.map(|(key, limit)| Rate {
            key: vec![key],
            count: RateCount::AuthFailures,
            windows: vec![RateWindow { limit, period: AUTH_FAILURES_PERIOD }],
            action: RateAction::Defer,
            line: Line::default(),
        }));
    }
    rates
}

fn rate(mut section: Section<'_>) -> Rate {
    if !section.has("limit") {
        section.fault("limit", "a rate needs a `limit`", "limit = \"200/1h, 1000/1d\"");
    }
    if !section.has("key") {
        section.fault("key", "a rate needs a `key`", "key = [\"login\"]");
    }
    let rate = Rate {
        key: section.words("key", &RATE_KEYS, &["asn", "country"]).unwrap_or_default(),
        count: section.word("count", &RATE_COUNTS, &[]).unwrap_or(RateCount::Messages),
        windows: section.parsed("limit", units::windows).unwrap_or_default(),
        action: section.word("action", &RATE_ACTIONS, &["slow", "block"]).unwrap_or(RateAction::Defer),
        line: section.line_of("limit"),
    };
    if section.has("key") && rate.key.is_empty() && section.cx.sink.is_empty() {
        section.fault("key", "`key` must name at least one fact", "key = [\"login\"]");
    }
    if rate.windows.len() > RATE_WINDOWS_MAX {
        section.fault("limit", format!("at most {RATE_WINDOWS_MAX} windows for one rate"), "write another [[rate]]");
    }
    check_known_at(&section, &rate);
    section.finish();
    rate
}

/// A connection or a failed login has no recipient yet; such a rate would never count.
fn check_known_at(section: &Section<'_>, rate: &Rate) {
    let early: &[RateKey] = match rate.count {
        RateCount::Connections => &[RateKey::Ip, RateKey::Net, RateKey::Listener],
        RateCount::AuthFailures => &[RateKey::Ip, RateKey::Net, RateKey::Listener, RateKey::Helo, RateKey::Login],
        RateCount::Messages | RateCount::Bytes | RateCount::Recipients | RateCount::UnknownRecipients => return,
    };
    let mut seen = HashMap::new();
    for key in rate.key.iter().filter(|key| !early.contains(key)) {
        if seen.insert(*key, ()).is_none() {
            let message = format!("\"{}\" is not known yet when {} are counted", key.as_str(), rate.count.as_str());
            section.fault("key", message, "");
        }
    }
}
