//! `[[scanner]]` and `[service]`: filters of others that we ask, and our filter for other mail servers. Pure.
//!
//! A scanner is named by a URL: `clamd://127.0.0.1:3310`, `milter://host:8891`, `spamd://host:783`, `rspamd://host:11333`, or
//! `clamd+unix:/path` and likewise for the others. What its failure means is always said: nothing passes unseen by accident.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::listener::{MODES, name};
use super::next_hop::{absolute, host_port_of};
use super::scores::Line;
use super::section::Section;
use super::settings::{Listener, Mode};
use super::units::{self, Wrong};

/// Scanners of one configuration; each is a label of metrics and costs its time for every message.
const SCANNERS_MAX: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// The name under which `listeners` of a scanner means the mail that `[service]` judges.
pub const SERVICE_NAME: &str = "service";

/// What a scanner speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScannerKind {
    /// ClamAV's daemon, by INSTREAM.
    Clamd,
    /// A milter, protocol 6.
    Milter,
    /// Rspamd, by HTTP `/checkv2`.
    Rspamd,
    /// SpamAssassin's daemon.
    Spamd,
}

/// Scheme, kind, and the port where the protocol's usual server listens.
const KINDS: [(&str, ScannerKind, u16); 4] = [
    ("clamd", ScannerKind::Clamd, 3310),
    ("milter", ScannerKind::Milter, 8891),
    ("rspamd", ScannerKind::Rspamd, 11333),
    ("spamd", ScannerKind::Spamd, 783),
];

impl ScannerKind {
    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|row| row.1 == self).expect("every kind has a row").0
    }
}

/// Where a scanner listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScannerPlace {
    /// Name or address, and port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ScannerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScannerPlace::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            ScannerPlace::Tcp(host, port) => write!(f, "{host}:{port}"),
            ScannerPlace::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What it means that a scanner could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// `451 4.7.1`: the client comes again.
    Defer,
    /// As if it had found nothing.
    Open,
    /// The message is kept back.
    Quarantine,
}

const FAILURES: [(&str, OnFailure); 3] =
    [("defer", OnFailure::Defer), ("open", OnFailure::Open), ("quarantine", OnFailure::Quarantine)];

/// What it means that a scanner found something: a virus, or by its own judgement spam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFound {
    /// Accepted and thrown away.
    Discard,
    /// Kept back.
    Quarantine,
    /// `550 5.7.1`.
    Reject,
    /// Its points join the score, nothing else.
    Score,
}

const FOUND: [(&str, OnFound); 4] = [
    ("discard", OnFound::Discard),
    ("quarantine", OnFound::Quarantine),
    ("reject", OnFound::Reject),
    ("score", OnFound::Score),
];

/// `[[scanner]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Scanner {
    /// For logs, metrics and symbols.
    pub name: Arc<str>,
    /// What it speaks.
    pub kind: ScannerKind,
    /// Where.
    pub place: ScannerPlace,
    /// Names of the listeners whose mail it sees; empty: all that filter.
    pub listeners: Vec<String>,
    /// For one answer, connecting and waiting for a free place included.
    pub timeout: Duration,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// What its finding means.
    pub on_found: OnFound,
    /// Points of a virus; factor of spamd's and Rspamd's own score.
    pub weight: f64,
    /// Messages above this many bytes are not sent; they get a symbol.
    pub size: u64,
    /// Questions at once.
    pub concurrency: usize,
    /// Failures in a row after which it is left alone,
    pub breaker_failures: u32,
    /// for this long; then one question tries it.
    pub breaker_pause: Duration,
    /// Where it stands.
    pub line: Line,
}

impl Scanner {
    /// True if it sees mail of `listener`.
    pub fn sees(&self, listener: &Listener) -> bool {
        match self.listeners.as_slice() {
            [] => listener.filter != Mode::Off,
            names => names.iter().any(|name| **name == *listener.name),
        }
    }

    /// As a decision names it: `[[scanner]] clamd (weir.toml:12)`.
    pub fn setting(&self) -> String {
        format!("[[scanner]] {} ({})", self.name, self.line)
    }
}

fn place(text: &str) -> Result<(ScannerKind, ScannerPlace), Wrong> {
    let wrong =
        || format!("`{text}` names no scanner; write clamd:// milter:// spamd:// rspamd:// or clamd+unix:/path …");
    let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
    let plain = scheme.strip_suffix("+unix").unwrap_or(scheme);
    let (_, kind, port) = KINDS.iter().find(|row| row.0 == plain).ok_or_else(wrong)?;
    if plain != scheme {
        let path = absolute(rest, &format!("{plain}+unix:/run/{plain}.sock"))?;
        return Ok((*kind, ScannerPlace::Unix(path.into())));
    }
    let authority = rest.strip_prefix("//").ok_or_else(wrong)?;
    let (host, port) = host_port_of(authority.strip_suffix('/').unwrap_or(authority), *port)?;
    Ok((*kind, ScannerPlace::Tcp(host, port)))
}

pub(super) fn scanners(sections: Vec<Section<'_>>, listeners: &[Listener]) -> Vec<Scanner> {
    let mut scanners = Vec::new();
    let mut seen = HashSet::new();
    for mut section in sections {
        let scanner = scanner(&mut section);
        let is_known = |name: &str| name == SERVICE_NAME || listeners.iter().any(|listener| *listener.name == *name);
        if let Some(unknown) = scanner.listeners.iter().find(|name| !is_known(name)) {
            let names: Vec<&str> = listeners.iter().map(|listener| &*listener.name).collect();
            let help = format!("there is {}", names.join(", "));
            section.fault("listeners", format!("no listener is named `{unknown}`"), help);
        }
        if !seen.insert(scanner.name.clone()) {
            let message = format!("another scanner is named `{}`", scanner.name);
            section.fault("name", message, "give it a `name` of its own");
        }
        if seen.len() > SCANNERS_MAX {
            section.fault("url", format!("more than {SCANNERS_MAX} scanners"), "");
        }
        section.finish();
        scanners.push(scanner);
    }
    scanners
}

fn scanner(section: &mut Section<'_>) -> Scanner {
    if !section.has("url") {
        section.fault("url", "a scanner needs a `url`", "url = \"clamd://127.0.0.1:3310\"");
    }
    let fallback = (ScannerKind::Clamd, ScannerPlace::Unix(PathBuf::new()));
    let (kind, place) = section.parsed("url", place).unwrap_or(fallback);
    // A virus scanner or a milter that is passed over lets through what it is there to stop; opinions on spam are one of several.
    let vital = matches!(kind, ScannerKind::Clamd | ScannerKind::Milter);
    let found = if kind == ScannerKind::Clamd { OnFound::Reject } else { OnFound::Score };
    let points = if kind == ScannerKind::Clamd { 20.0 } else { 1.0 };
    Scanner {
        name: section.parsed("name", name).unwrap_or_else(|| kind.as_str().into()),
        kind,
        place,
        listeners: section.list("listeners", |text| Ok(text.to_owned())).unwrap_or_default(),
        timeout: section.duration("timeout", 15 * SECOND, SECOND / 10..=600 * SECOND),
        on_failure: section.word("on_failure", &FAILURES, &[]).unwrap_or(if vital {
            OnFailure::Defer
        } else {
            OnFailure::Open
        }),
        on_found: section.word("on_found", &FOUND, &[]).unwrap_or(found),
        weight: section.float("weight", points, 0.0..=1000.0),
        // clamd's StreamMaxLength is 25M unless set.
        size: section.size("size", 25 * MIB, 1024..=4096 * MIB),
        concurrency: section.number("concurrency", 32, 1..=10_000) as usize,
        breaker_failures: section.number32("breaker_failures", 5, 1..=1_000_000),
        breaker_pause: section.duration("breaker_pause", 30 * SECOND, SECOND / 10..=3600 * SECOND),
        line: section.line_of("url"),
    }
}

/// `[service]`: our filter for other mail servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Milter protocol 6, for Postfix and Sendmail; none: not served.
    pub milter: Option<SocketAddr>,
    /// SpamAssassin's protocol, for spamc and those that speak as it does.
    pub spamd: Option<SocketAddr>,
    /// Rspamd's `/checkv2` over HTTP.
    pub rspamd: Option<SocketAddr>,
    /// Who may connect.
    pub networks: Vec<IpNet>,
    /// SPF, DKIM, DMARC, ARC.
    pub verify: Mode,
    /// Rules and classifier; `tag`: verdicts refuse nothing.
    pub filter: Mode,
    /// Connections at once, of each of the three.
    pub connections: usize,
    /// Silence of a client after which it is cut.
    pub timeout: Duration,
    /// Messages above this many bytes are refused unread.
    pub size: u64,
    /// TELL, `/learnspam` and `/learnham` teach the classifier.
    pub learn: bool,
}

pub(super) fn service(mut section: Section<'_>) -> Service {
    let loopback = || vec!["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
    let address = |text: &str| if text == "off" { Ok(None) } else { units::address(text).map(Some) };
    let service = Service {
        milter: section.parsed("milter", address).flatten(),
        spamd: section.parsed("spamd", address).flatten(),
        rspamd: section.parsed("rspamd", address).flatten(),
        networks: section.list("networks", units::network).unwrap_or_else(loopback),
        verify: section.word("verify", &MODES, &[]).unwrap_or(Mode::Enforce),
        filter: section.word("filter", &MODES, &[]).unwrap_or(Mode::Enforce),
        connections: section.number("connections", 200, 1..=100_000) as usize,
        timeout: section.duration("timeout", 600 * SECOND, SECOND..=7200 * SECOND),
        size: section.size("size", 50 * MIB, 64 * 1024..=4096 * MIB),
        learn: section.boolean("learn", false),
    };
    if service.networks.iter().any(|network| network.prefix_len() == 0) {
        section.fault("networks", "`networks` must not name the whole internet", "name your mail servers");
    }
    if service.verify == Mode::Off && service.filter == Mode::Off {
        section.fault("filter", "a service without `verify` and `filter` has nothing to say", "");
    }
    section.finish();
    service
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let listener = "[[listener]]\naddress = '127.0.0.1:1'\nrole = 'mx'\n";
        Config::parse(Path::new("weir.toml"), &format!("{text}\n{listener}")).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_scanner_is_a_url_and_what_its_silence_means() {
        let config =
            parse("[[scanner]]\nurl = 'clamd+unix:/run/c'\n[[scanner]]\nurl = 'rspamd://[::1]'\nlisteners = ['mx']");
        let [clamd, rspamd] = &config.unwrap().scanners[..] else { panic!() };
        assert_eq!(
            (clamd.place.to_string().as_str(), clamd.on_failure, clamd.on_found),
            ("/run/c", OnFailure::Defer, OnFound::Reject)
        );
        assert_eq!((rspamd.place.to_string().as_str(), rspamd.on_failure), ("[::1]:11333", OnFailure::Open));
        for wrong in ["http://h", "clamd:h", "milter+unix:rel", "spamd://a b"] {
            assert!(parse(&format!("[[scanner]]\nurl = '{wrong}'")).is_err(), "{wrong}");
        }
        let told =
            parse("[[scanner]]\nurl = 'clamd://h'\nlisteners = ['out']\n[[scanner]]\nurl = 'clamd://i'").unwrap_err();
        assert!(told.contains("no listener is named `out`") && told.contains("another scanner is named"), "{told}");
    }

    #[test]
    fn nothing_is_served_unless_asked_for() {
        let service = parse("").unwrap().service;
        assert_eq!((service.milter, service.spamd, service.rspamd, service.learn), (None, None, None, false));
        assert!(parse("[service]\nnetworks = ['0.0.0.0/0']").is_err());
    }
}
