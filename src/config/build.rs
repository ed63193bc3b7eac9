//! Sections to settings: every key, its default and its range. I/O: reads the machine's name, and certificate and key to check them.
//!
//! The defaults stand here and nowhere else; deploy/weir.toml shows them, and a test holds the two together.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits::Limits;
use super::section::Section;
use super::settings::*;
use super::{dkim, forwarding, listener, reports, routing, scanners, scores, units};
use crate::base::secret::Secret;
use crate::wire::address::check_domain;

/// Where a packaged Weir keeps its data.
const DATA_DIR: &str = "/var/lib/weir";
/// Longest duration that any key takes: a year.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Reads all of it.
pub(super) fn config(mut top: Section<'_>, data_dir: Option<&Path>) -> Config {
    let hostname = top.parsed("hostname", host_name).unwrap_or_else(system_hostname);
    let data_dir =
        data_dir.map(Path::to_owned).or_else(|| top.path("data_dir")).unwrap_or_else(|| PathBuf::from(DATA_DIR));
    let limits = limits(top.section("limits"), &Limits::default());
    let auth = auth(top.section("auth"), &data_dir);
    let tls = tls(top.section("tls"));
    // Neither listeners nor domains: what `weir serve` does without a file.
    let bare = !top.has("listener") && !top.has("domain");
    let listeners = match top.sections("listener") {
        Some(sections) => listener::listeners(sections, &limits),
        None => listener::loopback(&limits),
    };
    let domains = match top.sections("domain") {
        Some(sections) => routing::domains(sections),
        None if bare => vec![routing::localhost()],
        None => Vec::new(),
    };
    let dkim: Vec<Dkim> = top.sections("dkim").map(dkim::dkim).unwrap_or_default();
    let config = Config {
        reports: reports::reports(top.section("reports"), &hostname, &dkim),
        dns: dns(top.section("dns")),
        verify: verify(top.section("verify"), &hostname),
        dkim,
        aliases: top.sections("alias").map(|all| forwarding::aliases(all, &domains)).unwrap_or_default(),
        srs: forwarding::srs(top.section("srs"), &domains),
        relay: routing::relay(top.section("relay"), &listeners),
        rates: routing::rates(top.sections("rate").unwrap_or_default()),
        filter: filter(top.section("filter")),
        scanners: top.sections("scanner").map(|sections| scanners::scanners(sections, &listeners)).unwrap_or_default(),
        service: scanners::service(top.section("service")),
        lists: top.sections("list").map(scores::lists).unwrap_or_default(),
        greylist: scores::greylist(top.section("greylist")),
        trace: scores::trace(top.section("trace")),
        spool: spool(top.section("spool"), &data_dir, &limits),
        deliver: deliver(top.section("deliver")),
        retry: retry(top.section("retry")),
        store: store(top.section("store"), &data_dir),
        admin: admin(top.section("admin")),
        log: log(top.section("log")),
        security: security(top.section("security")),
        hostname,
        data_dir,
        tls,
        listeners,
        domains,
        auth,
        limits,
    };
    listener::check_addresses(&mut top, &config);
    top.finish();
    config
}

pub(super) fn host_name(text: &str) -> Result<String, units::Wrong> {
    if text.starts_with('[') || check_domain(text).is_err() || !text.is_ascii() {
        return Err(format!("`{text}` is no host name; write one such as \"mx1.example.org\""));
    }
    Ok(text.to_ascii_lowercase())
}

/// The kernel's name of this machine, or `localhost`.
fn system_hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host_name(text.trim()).unwrap_or_else(|_| "localhost".to_owned())
}

fn dns(mut section: Section<'_>) -> Dns {
    let dns = Dns {
        servers: section.list("servers", units::address).unwrap_or_default(),
        timeout: section.duration("timeout", 5 * SECOND, SECOND / 10..=MINUTE),
        trust_ad: section.boolean("trust_ad", false),
        cache_entries: section.number("cache_entries", 100_000, 0..=100_000_000) as usize,
    };
    if dns.trust_ad && dns.servers.is_empty() {
        section.fault(
            "trust_ad",
            "`trust_ad` needs `servers`",
            "name the servers that validate DNSSEC and are reached safely",
        );
    }
    section.finish();
    dns
}

fn verify(mut section: Section<'_>, hostname: &str) -> Verify {
    let verify = Verify {
        authserv_id: section.parsed("authserv_id", host_name).unwrap_or_else(|| hostname.to_owned()),
        trusted_sealers: section.list("trusted_sealers", host_name).unwrap_or_default(),
        trusted_forwarders: section.list("trusted_forwarders", units::network).unwrap_or_default(),
        trusted_hops: section.list("trusted_hops", units::network).unwrap_or_default(),
        allowed_domains: section.list("allowed_domains", host_name).unwrap_or_default(),
        seal_as: section.parsed("seal_as", host_name),
    };
    section.finish();
    verify
}

/// The keys; that each one is there and can sign is checked by whoever loads them, so that the text is read once.
fn tls(mut section: Section<'_>) -> Tls {
    let also = section.sections("also").unwrap_or_default();
    Tls { pair: pair(section), also: also.into_iter().filter_map(further_pair).collect() }
}

/// One of `[[tls.also]]`, which needs both files.
fn further_pair(section: Section<'_>) -> Option<Pair> {
    if !section.has("certificate") && !section.has("key") {
        section.fault("certificate", "`[[tls.also]]` needs `certificate` and `key`", "");
    }
    pair(section)
}

/// `certificate` and `key`, checked; nothing if neither is set.
fn pair(mut section: Section<'_>) -> Option<Pair> {
    let pair = match (section.path("certificate"), section.path("key")) {
        (Some(certificate), Some(key)) => {
            listener::check_certificate(&section, &certificate, &key);
            Some(Pair { certificate, key })
        }
        (Some(_), None) => {
            section.fault("certificate", "`certificate` needs its `key`", "key = \"privkey.pem\"");
            None
        }
        (None, Some(_)) => {
            section.fault("key", "`key` needs its `certificate`", "certificate = \"fullchain.pem\"");
            None
        }
        (None, None) => None,
    };
    section.finish();
    pair
}

fn auth(mut section: Section<'_>, data_dir: &Path) -> Auth {
    let users_file = routing::users_file(&mut section).unwrap_or_else(|| data_dir.join("users.toml"));
    section.finish();
    Auth { users_file }
}

/// `[limits]`, each key falling back to `base`.
fn limits(mut section: Section<'_>, base: &Limits) -> Limits {
    let limits = read_limits(&mut section, base);
    section.finish();
    limits
}

/// All keys of [`Limits`] that `section` has, over `base`; a listener's own too.
pub(super) fn read_limits(section: &mut Section<'_>, base: &Limits) -> Limits {
    const COUNT: RangeInclusive<u32> = 1..=10_000_000;
    // The floor of a command line is RFC 5321 §4.5.3.1.4's 512, of a text line §4.5.3.1.6's 1000.
    let times = SECOND..=DAY;
    let mut limits = Limits {
        size: section.size("size", base.size, 64 * 1024..=4 * GIB),
        recipients: section.number32("recipients", base.recipients, COUNT),
        messages_per_connection: section.number32("messages_per_connection", base.messages_per_connection, COUNT),
        connections: section.number32("connections", base.connections, COUNT),
        connections_per_ip: section.number32("connections_per_ip", base.connections_per_ip, COUNT),
        connections_per_net: section.number32("connections_per_net", base.connections_per_net, COUNT),
        connections_reserved: section.number32("connections_reserved", base.connections_reserved, 0..=10_000_000),
        handshakes_per_minute: section.number32("handshakes_per_minute", base.handshakes_per_minute, COUNT),
        errors: section.number32("errors", base.errors, COUNT),
        unknown_recipients: section.number32("unknown_recipients", base.unknown_recipients, COUNT),
        auth_failures: section.number32("auth_failures", base.auth_failures, COUNT),
        junk_commands: section.number32("junk_commands", base.junk_commands, COUNT),
        command_bytes: section.size("command_bytes", base.command_bytes.into(), 512..=65_536) as u32,
        header_bytes: section.size("header_bytes", base.header_bytes.into(), 4096..=16 * MIB) as u32,
        hops: section.number32("hops", base.hops, 10..=1000),
        command_timeout: section.duration("command_timeout", base.command_timeout, times.clone()),
        data_timeout: section.duration("data_timeout", base.data_timeout, times.clone()),
        handshake_timeout: section.duration("handshake_timeout", base.handshake_timeout, times.clone()),
        session_timeout: section.duration("session_timeout", base.session_timeout, times.clone()),
        data_rate_min: section.number32("data_rate_min", base.data_rate_min, 0..=1_000_000),
        data_grace: section.duration("data_grace", base.data_grace, times),
    };
    if !section.has("connections_reserved") {
        // Whoever lowers `connections` need not think of the reserve: it stays a tenth at most.
        limits.connections_reserved = limits.connections_reserved.min(limits.connections / 10);
    }
    if limits.connections_reserved >= limits.connections {
        let message = "`connections_reserved` must be less than `connections`, or no stranger is let in";
        section.fault("connections_reserved", message, "");
    }
    limits
}

fn filter(mut section: Section<'_>) -> Filter {
    let rules = section.paths("rules");
    let filter = Filter {
        rules_shipped: rules.is_none(),
        rules: rules.unwrap_or_default(),
        scores: Scores::of_filter(&mut section),
        outbound: Scores::table(&mut section, "outbound"),
        subject_mark: section.parsed("subject_mark", subject_mark).unwrap_or_else(|| "[SPAM] ".to_owned()),
        classifier: classifier(section.section("classifier")),
        duplicates: duplicates(section.section("duplicates")),
    };
    section.finish();
    filter
}

/// A subject is one line; what is not ASCII would need an encoding of its own there.
fn subject_mark(text: &str) -> Result<String, units::Wrong> {
    const CHARS_MAX: usize = 40; // leaves room for the subject in a list of messages
    if text.is_empty() || text.len() > CHARS_MAX || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return Err(format!("write 1 to {CHARS_MAX} printable ASCII characters"));
    }
    Ok(text.to_owned())
}

fn classifier(mut section: Section<'_>) -> Classifier {
    let classifier = Classifier {
        size: section.size("size", 16 * MIB, 256 * KIB..=GIB),
        seed: section.boolean("seed", true),
        per_domain: section.boolean("per_domain", false),
        domains_max: section.number32("domains_max", 64, 1..=10_000),
        junk: section.string("junk").unwrap_or_else(|| "Junk".to_owned()),
        junk_every: section.duration("junk_every", MINUTE, SECOND..=DAY),
    };
    if classifier.junk.contains(['/', '\0']) {
        section.fault(
            "junk",
            "a folder of the store has no `/` in its name",
            "`Junk`, or `Spam.Learn` for a folder within one",
        );
    }
    section.finish();
    classifier
}

fn duplicates(mut section: Section<'_>) -> Duplicates {
    let duplicates = Duplicates {
        entries: section.number32("entries", 65_536, 0..=16_777_216),
        half_life: section.duration("half_life", 6 * HOUR, MINUTE..=YEAR),
    };
    section.finish();
    duplicates
}

fn spool(mut section: Section<'_>, data_dir: &Path, limits: &Limits) -> Spool {
    let spool = Spool {
        directory: section.path("directory").unwrap_or_else(|| data_dir.join("spool")),
        segment_bytes: section.size("segment_bytes", 64 * MIB, MIB..=4 * GIB),
        free_space_min: section.size("free_space_min", 256 * MIB, 0..=1024 * GIB),
        messages_max: section.number("messages_max", 5_000_000, 1..=1_000_000_000),
        memory: section.size("memory", 256 * MIB, MIB..=1024 * GIB),
        spill_at: section.size("spill_at", MIB, 16 * 1024..=GIB),
        quarantine_keep: section.duration("quarantine_keep", 30 * DAY, HOUR..=YEAR),
    };
    if spool.spill_at > spool.memory {
        section.fault("spill_at", "`spill_at` must not be above `memory`", "");
    }
    if spool.free_space_min < limits.size && section.has("free_space_min") {
        section.fault("free_space_min", "`free_space_min` must leave room for one message of `[limits] size`", "");
    }
    section.finish();
    spool
}

fn deliver(mut section: Section<'_>) -> Deliver {
    let deliver = Deliver {
        paused: section.boolean("paused", false),
        tls: section.word("tls", &DeliverTls::WORDS, &[]).unwrap_or(DeliverTls::Opportunistic),
        eight_bit: section.word("eight_bit", &EightBit::WORDS, &[]).unwrap_or(EightBit::Convert),
        mta_sts: section.boolean("mta_sts", true),
        mta_sts_port: section.number("mta_sts_port", 443, 1..=65_535) as u16,
        ca_file: section.path("ca_file"),
        concurrency: section.number("concurrency", 1000, 1..=100_000) as usize,
        destination_concurrency: section.number("destination_concurrency", 20, 1..=10_000) as usize,
        recipients_per_transaction: section.number("recipients_per_transaction", 50, 1..=10_000) as usize,
        messages_per_connection: section.number("messages_per_connection", 100, 1..=1_000_000) as usize,
        port: section.number("port", 25, 1..=65_535) as u16,
        allow_local: section.boolean("allow_local", false),
        connect_timeout: section.duration("connect_timeout", 30 * SECOND, SECOND..=HOUR),
        command_timeout: section.duration("command_timeout", 5 * MINUTE, SECOND..=HOUR),
        data_timeout: section.duration("data_timeout", 2 * MINUTE, SECOND..=HOUR),
        final_dot_timeout: section.duration("final_dot_timeout", 10 * MINUTE, SECOND..=HOUR),
    };
    if let Some(file) = &deliver.ca_file {
        listener::check_authorities(&section, file);
    }
    section.finish();
    deliver
}

fn retry(mut section: Section<'_>) -> Retry {
    let retry = Retry {
        first: section.duration("first", 5 * MINUTE, SECOND..=DAY),
        factor: section.float("factor", 2.0, 1.0..=10.0),
        max: section.duration("max", 4 * HOUR, SECOND..=7 * DAY),
        expire: section.duration("expire", 5 * DAY, SECOND..=YEAR),
        expire_null_sender: section.duration("expire_null_sender", DAY, SECOND..=YEAR),
        delay_notice: section.duration("delay_notice", 4 * HOUR, Duration::ZERO..=YEAR),
    };
    if retry.first > retry.max {
        let show = units::show_duration;
        let message = format!("`first` ({}) must not be above `max` ({})", show(retry.first), show(retry.max));
        section.fault("first", message, "");
    }
    if retry.max > retry.expire {
        section.fault("max", "`max` must not be above `expire`, or mail bounces before its second attempt", "");
    }
    section.finish();
    retry
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An address, or `"off"`.
fn optional_address(section: &mut Section<'_>, key: &'static str, default: Option<SocketAddr>) -> Option<SocketAddr> {
    let parse = |text: &str| if text == "off" { Ok(None) } else { units::address(text).map(Some) };
    section.parsed(key, parse).unwrap_or(default)
}

fn store(mut section: Section<'_>, data_dir: &Path) -> Store {
    let store = Store {
        directory: section.path("directory").unwrap_or_else(|| data_dir.join("mail")),
        pop3: optional_address(&mut section, "pop3", Some(loopback(2110))),
        pop3s: optional_address(&mut section, "pop3s", Some(loopback(2995))),
        plaintext_login: section.boolean("plaintext_login", false),
        connections_per_ip: section.number32("connections_per_ip", 20, 1..=100_000),
        connections: section.number32("connections", 1000, 1..=1_000_000),
    };
    section.finish();
    store
}

fn admin(mut section: Section<'_>) -> Admin {
    const TOKEN_CHARS_MIN: usize = 16; // shorter ones can be guessed over the network
    let admin = Admin {
        address: optional_address(&mut section, "address", Some(loopback(8025))),
        token: section.string("token").map(Secret::new),
        hosts: section.list("hosts", host_name).unwrap_or_default(),
    };
    if admin.token.as_ref().is_some_and(|token| token.expose().len() < TOKEN_CHARS_MIN) {
        section.fault("token", format!("`token` must have at least {TOKEN_CHARS_MIN} characters"), "");
    }
    if admin.address.is_some_and(|address| !address.ip().is_loopback()) && admin.token.is_none() {
        let help = "the API is plain HTTP; bind it to 127.0.0.1, or set `token` and put TLS before it";
        section.fault("address", "an `address` beyond loopback needs a `token`", help);
    }
    section.finish();
    admin
}

fn log(mut section: Section<'_>) -> Log {
    const LEVELS: [(&str, &str); 5] =
        [("error", "error"), ("warn", "warn"), ("info", "info"), ("debug", "debug"), ("trace", "trace")];
    let level = section.word("level", &LEVELS, &[]).unwrap_or("info").to_owned();
    let json = section.boolean("json", false);
    section.finish();
    Log { level, json }
}

fn security(mut section: Section<'_>) -> Security {
    let security = Security {
        user: section.string("user"),
        landlock: section.boolean("landlock", true),
        seccomp: section.boolean("seccomp", true),
    };
    section.finish();
    security
}
