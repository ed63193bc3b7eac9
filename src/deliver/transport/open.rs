//! Opens a session with a next hop: addresses in order, each on its own terms. I/O: DNS, TCP, unix sockets, TLS.
//!
//! Opportunistic TLS that fails is tried again in the clear on a new connection to the same address; where anything
//! demands TLS it never is. A greeting of 5xx means the next address, then a deferral: it says nothing about any recipient.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::connection::Connection;
use super::session::{Failed, Opened, Session};
use super::sick::Sick;
use super::target::{self, Target};
use super::terms::{self, Demand, HostFacts, Terms, Wish};
use super::tls::ClientTls;
use super::{Answer, Fate, LACK_OF_MEANS};
use crate::config::settings::{Config, DeliverTls, Login, NextHop};
use crate::deliver::meters::Meters;
use crate::deliver::mta_sts::{Sts, StsAnswer, applied};
use crate::deliver::tls_result::{AppliedPolicy, FailureType, TlsFailure, TlsResult, TlsResultSink};
use crate::dns::{DnsFault, Resolver, Tlsa};
use crate::smtp::client::Protocol;
use crate::wire::reply::Enhanced;

/// What opening needs.
pub struct Opener {
    /// Names to addresses.
    pub resolver: Arc<Resolver>,
    /// TLS contexts.
    pub tls: ClientTls,
    /// Counters.
    pub meters: Meters,
    /// Policies of receivers; nothing: they are not asked for.
    sts: Option<Arc<Sts>>,
    /// Where results for TLS-RPT go.
    results: TlsResultSink,
    /// Addresses that gave no session lately.
    sick: Sick,
}

/// How any address of a next hop is to be spoken to.
pub(super) struct Manner {
    pub protocol: Protocol,
    pub wish: Wish,
    pub implicit_tls: bool,
    pub login: Option<Login>,
}

/// Whose mail host is sought.
struct Quest<'a> {
    /// The recipients' domain, in A-labels.
    domain: &'a str,
    /// By its MX records: not to ourselves, and its owner may ask for reports.
    by_mx: bool,
    sts: StsAnswer,
}

/// TLS is demanded and not offered: security features not supported (RFC 3463 §3.8).
const NO_TLS: Enhanced = Enhanced(4, 7, 4);
/// TLS does not prove what is demanded: cryptographic failure (RFC 3463 §3.8).
const BAD_TLS: Enhanced = Enhanced(4, 7, 5);
/// Encryption needed (RFC 8689 §4.2.1).
const ENCRYPTION_NEEDED: Enhanced = Enhanced(5, 7, 10);
/// REQUIRETLS needed (RFC 8689 §4.2.1).
const REQUIRETLS_NEEDED: Enhanced = Enhanced(5, 7, 30);
/// Five addresses that each take all the time that RFC 5321 gives them would hold a place in the window for half an hour.
const OPEN_TIMEOUT: Duration = Duration::from_secs(600);

/// TLS wanted towards `hop`: its own setting over the general one.
pub fn tls_of(config: &Config, hop: &NextHop) -> DeliverTls {
    match hop {
        NextHop::Smtp { tls: Some(tls), .. } => *tls,
        // `smtps://` without more asks for TLS; who it is was never promised, so the general setting decides on that.
        NextHop::Smtp { implicit_tls: true, .. } if config.deliver.tls == DeliverTls::None => DeliverTls::Opportunistic,
        // LMTP is for the same host or a trusted network.
        NextHop::Lmtp { .. } | NextHop::LmtpUnix(_) => DeliverTls::None,
        _ => config.deliver.tls,
    }
}

impl Opener {
    /// Opens by these.
    pub fn new(resolver: Arc<Resolver>, tls: ClientTls, meters: Meters) -> Self {
        Opener { resolver, tls, meters, sts: None, results: TlsResultSink::default(), sick: Sick::default() }
    }

    /// The same, telling what became of TLS with mail hosts.
    pub fn with_results(mut self, results: TlsResultSink) -> Self {
        self.results = results;
        self
    }

    /// The same, keeping to the MTA-STS policies of receivers.
    pub fn with_sts(mut self, sts: Option<Arc<Sts>>) -> Self {
        self.sts = sts;
        self
    }

    /// A session with `hop` (by MX: of `domain`) that is ready for mail.
    /// # Errors
    /// The answer for all recipients there.
    pub async fn open(&self, config: &Config, hop: &NextHop, domain: &str, wish: Wish) -> Result<Connection, Answer> {
        let opened = timeout(OPEN_TIMEOUT, self.open_any(config, hop, domain, wish)).await;
        opened.unwrap_or_else(|_| Err(unreachable_answer("no session in time with any of its hosts".to_owned())))
    }

    async fn open_any(&self, config: &Config, hop: &NextHop, domain: &str, wish: Wish) -> Result<Connection, Answer> {
        let plain = |protocol| Manner { protocol, wish, implicit_tls: false, login: None };
        let quest = |by_mx, sts| Quest { domain, by_mx, sts };
        match hop {
            NextHop::Mx => {
                let targets = target::by_mx(&self.resolver, config, domain);
                let (targets, sts) = tokio::join!(targets, self.policy_of(config, domain, wish));
                self.first_of(config, &targets?, &plain(Protocol::Smtp), &quest(true, sts)).await
            }
            NextHop::Smtp { host, port, implicit_tls, login, .. } => {
                let targets = target::by_name(&self.resolver, host, *port).await?;
                let manner = Manner { implicit_tls: *implicit_tls, login: login.clone(), ..plain(Protocol::Smtp) };
                self.first_of(config, &targets, &manner, &quest(false, StsAnswer::default())).await
            }
            NextHop::Lmtp { host, port } => {
                let targets = target::by_name(&self.resolver, host, *port).await?;
                self.first_of(config, &targets, &plain(Protocol::Lmtp), &quest(false, StsAnswer::default())).await
            }
            NextHop::LmtpUnix(path) => self.open_unix(config, path, &plain(Protocol::Lmtp)).await,
            NextHop::Maildir(_) | NextHop::Store | NextHop::Discard => {
                Err(unreachable_answer("this next hop has no connections".to_owned()))
            }
        }
    }

    /// The MTA-STS policy of `domain`; one that could not be had is reported.
    async fn policy_of(&self, config: &Config, domain: &str, wish: Wish) -> StsAnswer {
        let wanted = config.deliver.mta_sts && (wish.tls != DeliverTls::None || wish.require_tls);
        let Some(sts) = self.sts.as_ref().filter(|_| wanted && !domain.starts_with('[')) else {
            return StsAnswer::default();
        };
        let answer = sts.find(&config.deliver, domain).await;
        if let Some(failure) = &answer.failure {
            let policy = Arc::new(applied(domain, answer.policy.as_deref()));
            self.put(policy, None, None, Some(failure.clone()));
        }
        answer
    }

    async fn first_of(
        &self,
        config: &Config,
        targets: &[Target],
        manner: &Manner,
        quest: &Quest<'_>,
    ) -> Result<Connection, Answer> {
        let mut refusals = Refusals::default();
        for target in self.sick.healthy_first(targets, Instant::now()) {
            let terms = match self.terms(target, manner, quest).await {
                Ok(terms) => terms,
                Err((failure, policy)) => {
                    self.meters.tls.with_label_values(&["failed"]).inc();
                    if quest.by_mx {
                        self.put(policy, Some(target), None, Some(failure.clone()));
                    }
                    refusals.add(Failed::Tls(failure), peer_name(target));
                    continue;
                }
            };
            match self.try_on_terms(config, target, manner, &terms, quest).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => refusals.add(failed, peer_name(target)),
            }
        }
        Err(refusals.answer(manner.wish))
    }

    /// One address; in the clear if TLS fails that nobody demands.
    async fn try_on_terms(
        &self,
        config: &Config,
        target: &Target,
        manner: &Manner,
        terms: &Terms,
        quest: &Quest<'_>,
    ) -> Result<Connection, Failed> {
        let refuse_self = quest.by_mx && !config.deliver.allow_local;
        let mut local = None;
        let mut tried = self.try_target(config, target, manner, terms, (refuse_self, &mut local)).await;
        if quest.by_mx {
            self.record(target, terms, &tried, local);
        }
        if let Err(Failed::Tls(failure)) = &tried
            && matches!(terms.demand, Demand::Any { .. })
            && !manner.implicit_tls
            && manner.login.is_none()
        {
            tracing::info!(host = %target.host, address = %target.address, why = failure.detail, "TLS failed, trying plain text");
            let plain = Terms { demand: Demand::Plain, ..terms.clone() };
            tried = self.try_target(config, target, manner, &plain, (refuse_self, &mut local)).await;
        }
        if !matches!(&tried, Err(Failed::Other(answer)) if answer.is_ours()) {
            self.count(target.address, tried.is_ok());
        }
        tried.map(|opened| opened.connection)
    }

    /// What a session with `target` must prove.
    async fn terms(
        &self,
        target: &Target,
        manner: &Manner,
        quest: &Quest<'_>,
    ) -> Result<Terms, (TlsFailure, Arc<AppliedPolicy>)> {
        let wish = manner.wish;
        let wanted = self.resolver.trusts_ad()
            && target.secure
            && manner.protocol == Protocol::Smtp
            && (wish.tls != DeliverTls::None || wish.require_tls)
            && (!wish.relaxed || wish.tls == DeliverTls::Dane);
        let tlsa = if wanted { self.tlsa(target).await } else { Ok(None) };
        let mut names = vec![target.host.clone()];
        if quest.by_mx {
            names.push(quest.domain.into());
        }
        let facts = HostFacts {
            host: &target.host,
            tlsa,
            named_securely: target.named_securely,
            names,
            domain: quest.domain,
            sts: &quest.sts,
        };
        terms::decide(wish, facts)
    }

    /// TLSA records, below the name that a CNAME of the host leads to or else its own (RFC 7672 §2.2.2).
    async fn tlsa(&self, target: &Target) -> Result<Option<(Arc<str>, Arc<[Tlsa]>)>, DnsFault> {
        for base in target.canonical.iter().chain([&target.host]) {
            match self.resolver.tlsa(&format!("_{}._tcp.{base}", target.address.port())).await {
                Ok(records) => return Ok(Some((base.clone(), records))),
                Err(DnsFault::NotFound { .. }) => {}
                Err(fault @ DnsFault::Temporary(_)) => return Err(fault),
            }
        }
        Ok(None)
    }

    /// What TLS-RPT hears of one session.
    fn record(&self, target: &Target, terms: &Terms, tried: &Result<Opened, Failed>, local: Option<IpAddr>) {
        let failure = match tried {
            Ok(opened) if !opened.connection.encrypted => {
                Some(TlsFailure::new(FailureType::StarttlsNotSupported, "STARTTLS is not offered"))
            }
            Ok(opened) => terms.noted.clone().or_else(|| opened.finding.clone()),
            Err(Failed::Tls(failure)) => Some(failure.clone()),
            Err(Failed::NoRequireTls) => None,
            Err(Failed::Other(_)) => return,
        };
        self.put(terms.policy.clone(), Some(target), local, failure);
    }

    fn put(
        &self,
        policy: Arc<AppliedPolicy>,
        target: Option<&Target>,
        sending_ip: Option<IpAddr>,
        failure: Option<TlsFailure>,
    ) {
        if self.results.is_wanted() {
            let (at, mx_host) = (SystemTime::now(), target.map(|target| target.host.clone()));
            let receiving_ip = target.map(|target| target.address.ip());
            self.results.put(TlsResult { policy, at, mx_host, sending_ip, receiving_ip, failure });
        }
    }

    fn count(&self, address: SocketAddr, opened: bool) {
        let outcome = if opened { "opened" } else { "failed" };
        self.meters.connections.with_label_values(&[outcome]).inc();
        self.sick.note(address, !opened, Instant::now());
    }

    async fn try_target(
        &self,
        config: &Config,
        target: &Target,
        manner: &Manner,
        terms: &Terms,
        (refuse_self, local): (bool, &mut Option<IpAddr>),
    ) -> Result<Opened, Failed> {
        let peer = peer_name(target);
        let other = |text: String| Failed::Other(Answer { remote: Some(peer.clone()), ..unreachable_answer(text) });
        let connect = timeout(config.deliver.connect_timeout, TcpStream::connect(target.address));
        let stream = match connect.await {
            Err(_) => return Err(other("no connection in time".to_owned())),
            Ok(Err(error)) => return Err(Failed::Other(no_connection(&error, peer))),
            Ok(Ok(stream)) => stream,
        };
        *local = stream.local_addr().ok().map(|address| address.ip());
        // Talking to an address of ours, both ends are the same: mail would come back in at our own door.
        if refuse_self && *local == Some(target.address.ip()) {
            return Err(other("the mail host's address is one of this host".to_owned()));
        }
        stream.set_nodelay(true).map_err(|error| other(error.to_string()))?;
        self.session(config, manner, terms, &target.host, peer.clone()).begin(Box::new(stream)).await
    }

    fn session<'a>(
        &'a self,
        config: &'a Config,
        manner: &'a Manner,
        terms: &'a Terms,
        host: &'a str,
        peer: Arc<str>,
    ) -> Session<'a> {
        Session { tls: &self.tls, meters: &self.meters, config, manner, terms, host, peer }
    }

    async fn open_unix(&self, config: &Config, path: &Path, manner: &Manner) -> Result<Connection, Answer> {
        let peer: Arc<str> = path.display().to_string().into();
        let connected = timeout(config.deliver.connect_timeout, UnixStream::connect(path)).await;
        let stream = match connected {
            Err(_) => return Err(unreachable_answer(format!("{peer}: no connection in time"))),
            Ok(Err(error)) => return Err(no_connection(&error, peer)),
            Ok(Ok(stream)) => stream,
        };
        let policy = Arc::new(AppliedPolicy::none("localhost"));
        let terms = Terms { demand: Demand::Plain, because: "none", policy, noted: None };
        let begun = self.session(config, manner, &terms, "localhost", peer.clone()).begin(Box::new(stream)).await;
        let outcome = if begun.is_ok() { "opened" } else { "failed" };
        self.meters.connections.with_label_values(&[outcome]).inc();
        begun.map(|opened| opened.connection).map_err(|failed| {
            let mut refusals = Refusals::default();
            refusals.add(failed, peer);
            refusals.answer(manner.wish)
        })
    }
}

/// Why the addresses tried so far gave no session.
#[derive(Default)]
struct Refusals {
    /// The network or the server, for now.
    passing: Option<Answer>,
    /// What a session failed to prove.
    unproven: Option<Answer>,
    last_is_passing: bool,
}

impl Refusals {
    fn add(&mut self, failed: Failed, peer: Arc<str>) {
        let local =
            |status, text: String| Some(Answer { remote: Some(peer), ..Answer::local(Fate::Deferred, status, text) });
        self.last_is_passing = matches!(failed, Failed::Other(_));
        match failed {
            Failed::Other(answer) => self.passing = Some(answer),
            Failed::NoRequireTls => {
                self.unproven = local(REQUIRETLS_NEEDED, "the server does not offer REQUIRETLS".to_owned());
            }
            Failed::Tls(failure) if failure.kind == FailureType::StarttlsNotSupported => {
                self.unproven = local(NO_TLS, failure.detail);
            }
            // An answer that can't be had now may be had later: it says nothing about the host.
            Failed::Tls(failure) if failure.kind == FailureType::DnssecInvalid => {
                self.passing = local(BAD_TLS, failure.detail);
                self.last_is_passing = true;
            }
            Failed::Tls(failure) => self.unproven = local(BAD_TLS, format!("TLS failed: {}", failure.detail)),
        }
    }

    /// One answer for all: what was said last, but REQUIRETLS waits for a host that can't be reached now before it gives
    /// up, and then gives up for good (RFC 8689 §4.2.1).
    fn answer(self, wish: Wish) -> Answer {
        let Refusals { passing, unproven, last_is_passing } = self;
        match (passing, unproven) {
            (None, None) => unreachable_answer("no address to try".to_owned()),
            (None, Some(answer)) if wish.require_tls => {
                let status = if answer.status == REQUIRETLS_NEEDED { REQUIRETLS_NEEDED } else { ENCRYPTION_NEEDED };
                Answer { fate: Fate::Failed, status, ..answer }
            }
            (Some(answer), _) if wish.require_tls || last_is_passing => answer,
            (_, Some(answer)) | (Some(answer), None) => answer,
        }
    }
}

fn peer_name(target: &Target) -> Arc<str> {
    let ip = target.address.ip();
    if *target.host == *ip.to_string() { format!("[{ip}]").into() } else { format!("{} [{ip}]", target.host).into() }
}

/// What a failed connect says. Without descriptors or memory of our own it says nothing of the host.
fn no_connection(error: &std::io::Error, peer: Arc<str>) -> Answer {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let is_ours = Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno));
    let status = if is_ours { LACK_OF_MEANS } else { Enhanced(4, 4, 1) };
    Answer { remote: Some(peer), ..Answer::local(Fate::Deferred, status, format!("no connection: {error}")) }
}

pub(super) fn unreachable_answer(text: String) -> Answer {
    Answer::local(Fate::Deferred, Enhanced(4, 4, 1), text)
}
