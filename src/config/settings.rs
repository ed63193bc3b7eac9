//! The checked settings. Pure values; every field is complete and in range.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::limits::Limits;
use super::scanners::{Scanner, Service};
pub use super::scores::{Bound, Greylist, Kept, Line, List, Scores, Sender, Trace};
use crate::base::secret::Secret;
use crate::wire::address::Mailbox;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Banner, EHLO, `Received`, `Authentication-Results`.
    pub hostname: String,
    /// Spool, store, self-signed certificate.
    pub data_dir: PathBuf,
    /// `[dns]`
    pub dns: Dns,
    /// `[verify]`
    pub verify: Verify,
    /// `[[dkim]]`
    pub dkim: Vec<Dkim>,
    /// `[reports]`
    pub reports: Reports,
    /// `[tls]`
    pub tls: Tls,
    /// `[[listener]]`
    pub listeners: Vec<Listener>,
    /// `[[domain]]`
    pub domains: Vec<Domain>,
    /// `[[alias]]`
    pub aliases: Aliases,
    /// `[srs]`; nothing: mail that is forwarded keeps its reverse-path.
    pub srs: Option<SrsSettings>,
    /// `[relay]`
    pub relay: Relay,
    /// `[auth]`
    pub auth: Auth,
    /// `[limits]`, as listeners inherit them.
    pub limits: Limits,
    /// `[[rate]]`
    pub rates: Vec<Rate>,
    /// `[filter]`
    pub filter: Filter,
    /// `[[scanner]]`
    pub scanners: Vec<Scanner>,
    /// `[service]`
    pub service: Service,
    /// `[[list]]`
    pub lists: Vec<List>,
    /// `[greylist]`
    pub greylist: Greylist,
    /// `[trace]`
    pub trace: Trace,
    /// `[spool]`
    pub spool: Spool,
    /// `[deliver]`
    pub deliver: Deliver,
    /// `[retry]`
    pub retry: Retry,
    /// `[store]`
    pub store: Store,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[security]`
    pub security: Security,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask; empty: the system's. If set, no other source (hosts file, public resolver) is asked.
    pub servers: Vec<SocketAddr>,
    /// For one query, retries included.
    pub timeout: Duration,
    /// The servers validate DNSSEC and their AD bit is believed; needed for DANE.
    pub trust_ad: bool,
    /// Answers kept.
    pub cache_entries: usize,
}

/// `[verify]`
#[derive(Clone, Debug)]
pub struct Verify {
    /// The id of `Authentication-Results`; default: the host name.
    pub authserv_id: String,
    /// Sealing domains whose ARC findings save a message from its author domain's DMARC policy.
    pub trusted_sealers: Vec<String>,
    /// Forwarders: nothing that comes from them is refused for DMARC or SPF.
    pub trusted_forwarders: Vec<IpNet>,
    /// Our own gateways: behind them the client is read from their `Received` fields.
    pub trusted_hops: Vec<IpNet>,
    /// Author domains whose policy is not enforced.
    pub allowed_domains: Vec<String>,
    /// Domain whose `[[dkim]]` key seals the ARC chain of mail that we forward; nothing: no sealing.
    pub seal_as: Option<String>,
}

/// `[[dkim]]`: a key that signs mail of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dkim {
    /// `d=`; mail whose From is of this domain or one below it is signed.
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// PEM file.
    pub key: PathBuf,
}

/// What a DMARC failure report quotes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReports {
    /// Its header section.
    Headers,
    /// None are sent.
    Off,
}

impl FailureReports {
    /// The configuration's words.
    pub const WORDS: [(&str, FailureReports); 2] = [("headers", FailureReports::Headers), ("off", FailureReports::Off)];
}

/// `[reports]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reports {
    /// The author of our reports; nothing: none are collected or sent.
    pub from: Option<Mailbox>,
    /// Where bounces of reports go; nothing: the null reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// Who reports, as readers see it; default: the host name.
    pub organization: String,
    /// DMARC aggregate reports, to those who ask by `rua=`.
    pub aggregate: bool,
    /// DMARC failure reports, to those who ask by `ruf=`.
    pub failure: FailureReports,
    /// Failure reports of one domain in an hour.
    pub failure_per_hour: u32,
    /// Local parts in failure reports are made unreadable (RFC 6590).
    pub redact: bool,
    /// TLS reports, to those who ask in `_smtp._tls`.
    pub tls: bool,
    /// From midnight (UTC).
    pub daily_at: Duration,
    /// Reports are sent at most this much later, so that not all of the world reports at once.
    pub jitter: Duration,
    /// Rows that are collected at most.
    pub rows: usize,
    /// Mail to these addresses is read as reports about us, and delivered as well.
    pub inbox: Vec<Mailbox>,
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// For clients that ask for no name, or for one that no certificate has; absent: a self-signed one is made in `data_dir`.
    pub pair: Option<Pair>,
    /// `[[tls.also]]`: for clients that ask for one of its names (SNI, RFC 6066 §3).
    pub also: Vec<Pair>,
}

impl Tls {
    /// All that are configured.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pair.iter().chain(&self.also)
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// LMTP: trusted peers hand over mail for our domains, one reply a recipient.
    Lmtp,
    /// Mail from strangers for our domains, filtered.
    Mx,
    /// Mail from trusted networks to anywhere.
    Relay,
    /// Mail from logins to anywhere; AUTH required.
    Submission,
}

impl Role {
    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Lmtp => "lmtp",
            Role::Mx => "mx",
            Role::Relay => "relay",
            Role::Submission => "submission",
        }
    }
}

/// TLS of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerTls {
    /// From the first byte.
    Implicit,
    /// Never.
    None,
    /// When the client asks.
    StartTls,
}

/// What a stage may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Results are computed, written and acted upon.
    Enforce,
    /// Not run.
    Off,
    /// Results are computed and written; nothing is refused for them.
    Tag,
}

/// What to do with bare CR or LF in DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareLf {
    /// Take it as it is (it is made CR LF before any DATA of ours).
    Accept,
    /// Make it CR LF on arrival.
    Normalize,
    /// `550 5.5.2`; the default.
    Reject,
}

/// `[[listener]]`
#[derive(Clone, Debug)]
pub struct Listener {
    /// For logs and metrics; default: the role.
    pub name: Arc<str>,
    /// Where to listen.
    pub address: SocketAddr,
    /// What for.
    pub role: Role,
    /// TLS.
    pub tls: ListenerTls,
    /// AUTH is offered (submission: always; relay: yes; mx: no, unless set).
    pub auth: bool,
    /// AUTH is offered without TLS too.
    pub auth_plaintext: bool,
    /// Peers that must speak PROXY v1 or v2 before anything else.
    pub proxy_protocol: Vec<IpNet>,
    /// Peers that may use XCLIENT.
    pub xclient: Vec<IpNet>,
    /// SPF, DKIM, DMARC, ARC.
    pub verify: Mode,
    /// Rules, classifier, scanners.
    pub filter: Mode,
    /// Bare CR or LF in DATA.
    pub bare_lf: BareLf,
    /// Scores laid over those of `[filter]`.
    pub scores: Scores,
    /// Where it stands.
    pub line: Line,
    /// A login may only use reverse-paths of its own: its name, or its name at a domain of ours.
    pub own_sender: bool,
    /// `[limits]` with this listener's own values laid over.
    pub limits: Limits,
}

/// Who reads mail of a domain.
#[derive(Clone, Debug)]
pub enum Recipients {
    /// Every local part.
    Any,
    /// These local parts, lower case, from the configuration or a file.
    List(Arc<std::collections::HashSet<String>>),
    /// The users of the embedded store.
    Store,
    /// Ask the next hop by RCPT and remember the answer.
    Verify,
}

/// `[[domain]]`
#[derive(Clone, Debug)]
pub struct Domain {
    /// Lower case, A-labels.
    pub name: String,
    /// Its next hop or store.
    pub deliver_to: NextHop,
    /// Who exists.
    pub recipients: Recipients,
    /// Names below it (`host.example.org`) are ours too.
    pub subdomains: bool,
    /// `user+detail` is delivered to `user`; the character, if any.
    pub detail_separator: Option<char>,
    /// Scores for its mail, laid over the listener's.
    pub scores: Scores,
    /// Where its `recipients` stand, or itself.
    pub line: Line,
}

/// `[[alias]]`: addresses of ours that stand for others, followed to the last.
#[derive(Clone, Debug, Default)]
pub struct Aliases(pub Arc<std::collections::HashMap<String, Vec<Mailbox>>>);

impl Aliases {
    /// How an address is looked up: without regard to case, in A-labels.
    pub fn key(mailbox: &Mailbox) -> String {
        let domain = idna::domain_to_ascii(mailbox.domain()).unwrap_or_else(|_| mailbox.domain().to_lowercase());
        format!("{}@{domain}", mailbox.local_part_unquoted().to_lowercase())
    }
}

/// `[srs]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrsSettings {
    /// The domain of ours that rewritten reverse-paths are of.
    pub domain: String,
    /// The first signs, all verify.
    pub secrets: Vec<Secret>,
    /// How long a rewritten address leads back.
    pub max_age: Duration,
}

/// TLS towards a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverTls {
    /// Plain text.
    None,
    /// TLS if offered, unverified, unless the receiver publishes a policy (DANE, MTA-STS).
    Opportunistic,
    /// TLS with a certificate that verifies, or no delivery.
    Required,
    /// TLS with a certificate that validated TLSA records name, or no delivery.
    Dane,
}

impl DeliverTls {
    /// The configuration's words.
    pub const WORDS: [(&str, DeliverTls); 4] = [
        ("none", DeliverTls::None),
        ("opportunistic", DeliverTls::Opportunistic),
        ("required", DeliverTls::Required),
        ("dane", DeliverTls::Dane),
    ];

    /// The configuration's word.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliverTls::None => "none",
            DeliverTls::Opportunistic => "opportunistic",
            DeliverTls::Required => "required",
            DeliverTls::Dane => "dane",
        }
    }
}

/// What becomes of 8-bit content for a next hop without 8BITMIME (RFC 6152 §3), and of binary content for one without BINARYMIME
/// (RFC 3030 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EightBit {
    /// It is returned to its sender.
    Bounce,
    /// It is converted to quoted-printable and base64; what can't be is returned.
    Convert,
    /// 8-bit content is sent as it is; binary content, for which DATA has no form, is returned.
    Send,
}

impl EightBit {
    /// The configuration's words.
    pub const WORDS: [(&str, EightBit); 3] =
        [("bounce", EightBit::Bounce), ("convert", EightBit::Convert), ("send", EightBit::Send)];
}

/// User name and password for a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The login.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Where mail goes: `smtp://`, `smtps://`, `lmtp://`, `lmtp+unix:/path`, `maildir:/path`, `store:`, `mx:`, `discard:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A host by SMTP, without MX look-up.
    Smtp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// `smtps://`: TLS from the first byte.
        implicit_tls: bool,
        /// AUTH.
        login: Option<Login>,
        /// `?tls=`, over `[deliver] tls`.
        tls: Option<DeliverTls>,
    },
    /// LMTP over TCP.
    Lmtp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// LMTP over a unix socket.
    LmtpUnix(PathBuf),
    /// A Maildir; `{user}` and `{domain}` in the path are replaced.
    Maildir(String),
    /// The embedded store.
    Store,
    /// By MX of the recipient's domain.
    Mx,
    /// Count it and throw it away.
    Discard,
}

/// `[relay]`
#[derive(Clone, Debug)]
pub struct Relay {
    /// May relay without AUTH on a relay listener.
    pub networks: Vec<IpNet>,
    /// Takes all mail for other domains; default: MX.
    pub smarthost: Option<NextHop>,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// File of users; default: `users.toml` in `data_dir`.
    pub users_file: PathBuf,
}

/// `[[rate]]`
#[derive(Clone, Debug)]
pub struct Rate {
    /// The facts that make up the key (`ip`, `login`, …).
    pub key: Vec<RateKey>,
    /// What is counted.
    pub count: RateCount,
    /// Several windows at once.
    pub windows: Vec<RateWindow>,
    /// What happens above.
    pub action: RateAction,
    /// Where it stands.
    pub line: Line,
}

/// One window of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindow {
    /// How many.
    pub limit: u64,
    /// In how long.
    pub period: Duration,
}

/// A fact that a rate is keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// HELO name.
    Helo,
    /// Client address.
    Ip,
    /// Listener.
    Listener,
    /// Login.
    Login,
    /// Client network, /24 or /64.
    Net,
    /// Recipient.
    Recipient,
    /// Recipient's domain.
    RecipientDomain,
    /// Reverse-path.
    Sender,
    /// Reverse-path's domain.
    SenderDomain,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateCount {
    /// Failed AUTH attempts.
    AuthFailures,
    /// Bytes of content.
    Bytes,
    /// Connections.
    Connections,
    /// Messages.
    Messages,
    /// Recipients.
    Recipients,
    /// Refused recipients.
    UnknownRecipients,
}

/// What happens above a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateAction {
    /// Log and count only.
    Alert,
    /// `450 4.7.1`.
    Defer,
    /// Accept and hold.
    Hold,
    /// `550 5.7.1`.
    Reject,
}

/// `[filter]`
#[derive(Clone, Debug)]
pub struct Filter {
    /// `.cf` files and folders of them.
    pub rules: Vec<PathBuf>,
    /// `rules` is absent: those that are built in are used.
    pub rules_shipped: bool,
    /// Scores from which something is done.
    pub scores: Scores,
    /// The same for mail that goes out, laid over.
    pub outbound: Scores,
    /// What a marked subject begins with.
    pub subject_mark: String,
    /// `[filter.classifier]`
    pub classifier: Classifier,
    /// `[filter.duplicates]`
    pub duplicates: Duplicates,
}

/// `[filter.duplicates]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// Keys of digests that are remembered, six a message; 0: none.
    pub entries: u32,
    /// Time in which a count fades to its half.
    pub half_life: Duration,
}

/// `[filter.classifier]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// Bytes of the model's file at most; a file that is there already keeps its size.
    pub size: u64,
    /// A new model begins with the one that is built in.
    pub seed: bool,
    /// Each of our domains has a model of its own beside the one for all.
    pub per_domain: bool,
    /// Domains that may have one.
    pub domains_max: u32,
    /// The store's folder whose mail is spam, as its users say; empty: moves teach nothing.
    pub junk: String,
    /// How often it is looked at.
    pub junk_every: Duration,
}

/// `[spool]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Where; default: `spool` in `data_dir`.
    pub directory: PathBuf,
    /// Bytes of one journal segment file.
    pub segment_bytes: u64,
    /// Below this much free disk space: `452 4.3.1`.
    pub free_space_min: u64,
    /// Messages in the queue at most; then `452 4.3.1`.
    pub messages_max: u64,
    /// Heap for message content in flight, in bytes, of the whole process.
    pub memory: u64,
    /// A message above this many bytes is kept in a file while it comes in.
    pub spill_at: u64,
    /// How long quarantined mail is kept.
    pub quarantine_keep: Duration,
}

/// `[deliver]`
#[derive(Clone, Debug)]
pub struct Deliver {
    /// Accept and keep, deliver nothing until resumed.
    pub paused: bool,
    /// TLS towards next hops.
    pub tls: DeliverTls,
    /// 8-bit content for next hops that take 7 bits.
    pub eight_bit: EightBit,
    /// Keep to the MTA-STS policies of receivers.
    pub mta_sts: bool,
    /// Port of their web servers; another than 443 is for tests.
    pub mta_sts_port: u16,
    /// PEM file of the certificate authorities that are believed; nothing: the system's.
    pub ca_file: Option<PathBuf>,
    /// Deliveries at once in total.
    pub concurrency: usize,
    /// Connections to one destination at most; grows from 2 on success, shrinks on failure.
    pub destination_concurrency: usize,
    /// Recipients of one transaction. Exchange Online takes 200, Postfix sends 50.
    pub recipients_per_transaction: usize,
    /// Messages of one connection.
    pub messages_per_connection: usize,
    /// Port of MX hosts; another than 25 is for tests.
    pub port: u16,
    /// Allow delivery by MX to loopback and private addresses; for tests and labs.
    pub allow_local: bool,
    /// TCP connect.
    pub connect_timeout: Duration,
    /// Greeting, EHLO, MAIL, RCPT (RFC 5321 §4.5.3.2).
    pub command_timeout: Duration,
    /// Reply to DATA.
    pub data_timeout: Duration,
    /// Reply to the final dot.
    pub final_dot_timeout: Duration,
}

/// `[retry]`
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// After the first failure.
    pub first: Duration,
    /// Growth.
    pub factor: f64,
    /// Ceiling.
    pub max: Duration,
    /// A message this old bounces.
    pub expire: Duration,
    /// The same for the null reverse-path; it is then dropped, never bounced.
    pub expire_null_sender: Duration,
    /// When the sender hears of the delay; zero: never.
    pub delay_notice: Duration,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Where; default: `mail` in `data_dir`.
    pub directory: PathBuf,
    /// POP3 with STLS; none: not served.
    pub pop3: Option<SocketAddr>,
    /// POP3 with implicit TLS.
    pub pop3s: Option<SocketAddr>,
    /// USER/PASS and APOP without TLS.
    pub plaintext_login: bool,
    /// Connections of one address.
    pub connections_per_ip: u32,
    /// Connections in total.
    pub connections: u32,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// API and /metrics; none: not served.
    pub address: Option<SocketAddr>,
    /// Bearer token for everything that changes state; default: a random one in `data_dir/admin.token`.
    pub token: Option<Secret>,
    /// Names, besides loopback's, the host's and any address, under which it may be called.
    pub hosts: Vec<String>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// `[security]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// Run as this user once the ports are bound; only when started as root.
    pub user: Option<String>,
    /// Landlock: only `data_dir` and the configured files can be reached.
    pub landlock: bool,
    /// seccomp: no process can be started, no kernel interface used that a mail server does not need.
    pub seccomp: bool,
}
