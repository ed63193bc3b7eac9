//! Opens a session with a next hop: addresses in order, TLS as asked, greeting to ready. I/O: DNS, TCP, unix sockets, TLS.
//!
//! Opportunistic TLS that fails is tried again in the clear on a new connection to the same address; required
//! TLS never is. A greeting of 5xx means the next address, then a deferral: it says nothing about any recipient.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::connection::{Connection, Wire};
use super::sick::Sick;
use super::target::{self, Target};
use super::tls::ClientTls;
use super::{Answer, Fate};
use crate::config::settings::{Config, DeliverTls, Login, NextHop};
use crate::deliver::meters::Meters;
use crate::deliver::tls_result::{AppliedPolicy, FailureType, TlsFailure, TlsResult, TlsResultSink};
use crate::dns::Resolver;
use crate::smtp::client::Protocol;
use crate::smtp::client::handshake::{Handshake, HandshakeFault, HandshakeOptions, Next};
use crate::wire::reply::Enhanced;

/// What opening needs.
pub struct Opener {
    /// Names to addresses.
    pub resolver: Arc<Resolver>,
    /// TLS contexts.
    pub tls: ClientTls,
    /// Counters.
    pub meters: Meters,
    /// Where results for TLS-RPT go.
    results: TlsResultSink,
    /// Addresses that gave no session lately.
    sick: Sick,
}

/// How one address is to be spoken to.
#[derive(Clone)]
struct Manner {
    protocol: Protocol,
    tls: DeliverTls,
    implicit_tls: bool,
    login: Option<Login>,
    /// For mail by MX: what TLS-RPT tells of.
    policy: Option<Arc<AppliedPolicy>>,
}

/// TLS is required and not offered: security features not supported (RFC 3463 §3.8).
pub const NO_TLS: Enhanced = Enhanced(4, 7, 4);

/// Why one attempt failed.
enum Failed {
    /// TLS itself, where plain text may be tried.
    Tls(String),
    /// Anything else.
    Other(Answer),
}

/// TLS wanted towards `hop`: its own setting over the general one; REQUIRETLS asks for verified TLS (RFC 8689 §4.2.1).
pub fn tls_of(config: &Config, hop: &NextHop, require_tls: bool) -> DeliverTls {
    match hop {
        _ if require_tls => DeliverTls::Required,
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
        Opener { resolver, tls, meters, results: TlsResultSink::default(), sick: Sick::default() }
    }

    /// The same, telling what became of TLS with mail hosts.
    pub fn with_results(mut self, results: TlsResultSink) -> Self {
        self.results = results;
        self
    }

    /// A session with `hop` (by MX: of `domain`) that is ready for mail.
    /// # Errors
    /// The answer for all recipients there.
    pub async fn open(
        &self,
        config: &Config,
        hop: &NextHop,
        domain: &str,
        tls: DeliverTls,
    ) -> Result<Connection, Answer> {
        let opened = timeout(OPEN_TIMEOUT, self.open_any(config, hop, domain, tls)).await;
        opened.unwrap_or_else(|_| Err(unreachable_answer("no session in time with any of its hosts".to_owned())))
    }

    async fn open_any(
        &self,
        config: &Config,
        hop: &NextHop,
        domain: &str,
        tls: DeliverTls,
    ) -> Result<Connection, Answer> {
        let plain = |protocol| Manner { protocol, tls, implicit_tls: false, login: None, policy: None };
        match hop {
            NextHop::Mx => {
                let targets = target::by_mx(&self.resolver, config, domain).await?;
                let policy = Some(Arc::new(AppliedPolicy::none(domain)));
                let manner = Manner { policy, ..plain(Protocol::Smtp) };
                self.first_of(config, &targets, &manner, !config.deliver.allow_local).await
            }
            NextHop::Smtp { host, port, implicit_tls, login, .. } => {
                let targets = target::by_name(&self.resolver, host, *port).await?;
                let manner = Manner { implicit_tls: *implicit_tls, login: login.clone(), ..plain(Protocol::Smtp) };
                self.first_of(config, &targets, &manner, false).await
            }
            NextHop::Lmtp { host, port } => {
                let targets = target::by_name(&self.resolver, host, *port).await?;
                self.first_of(config, &targets, &plain(Protocol::Lmtp), false).await
            }
            NextHop::LmtpUnix(path) => self.open_unix(config, path, &plain(Protocol::Lmtp)).await,
            NextHop::Maildir(_) | NextHop::Store | NextHop::Discard => {
                Err(unreachable_answer("this next hop has no connections".to_owned()))
            }
        }
    }

    async fn first_of(
        &self,
        config: &Config,
        targets: &[Target],
        manner: &Manner,
        refuse_self: bool,
    ) -> Result<Connection, Answer> {
        let mut last = unreachable_answer("no address to try".to_owned());
        for target in self.sick.healthy_first(targets, Instant::now()) {
            let mut tried = self.try_target(config, target, manner, refuse_self).await;
            self.record(target, manner, &tried);
            if let Err(Failed::Tls(why)) = &tried
                && manner.tls == DeliverTls::Opportunistic
                && !manner.implicit_tls
                && manner.login.is_none()
            {
                tracing::info!(host = %target.host, address = %target.address, why, "TLS failed, trying plain text");
                let plain = Manner { tls: DeliverTls::None, ..manner.clone() };
                tried = self.try_target(config, target, &plain, refuse_self).await;
            }
            self.count(target.address, tried.is_ok());
            match tried {
                Ok(connection) => return Ok(connection),
                Err(Failed::Other(answer)) => last = answer,
                Err(Failed::Tls(why)) => {
                    let answer = Answer::local(Fate::Deferred, Enhanced(4, 7, 5), format!("TLS failed: {why}"));
                    last = Answer { remote: Some(peer_name(target)), ..answer };
                }
            }
        }
        Err(last)
    }

    /// What TLS-RPT hears of one session.
    fn record(&self, target: &Target, manner: &Manner, tried: &Result<Connection, Failed>) {
        let Some(policy) = manner.policy.as_ref().filter(|_| self.results.is_wanted()) else { return };
        let failure = match tried {
            Ok(connection) if connection.encrypted => None,
            Ok(_) => Some(TlsFailure::new(FailureType::StarttlsNotSupported, "STARTTLS is not offered")),
            Err(Failed::Tls(why)) => Some(TlsFailure::new(FailureType::ValidationFailure, why)),
            Err(Failed::Other(_)) => return,
        };
        self.results.put(TlsResult {
            policy: policy.clone(),
            at: SystemTime::now(),
            mx_host: Some(target.host.clone()),
            sending_ip: None,
            receiving_ip: Some(target.address.ip()),
            failure,
        });
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
        refuse_self: bool,
    ) -> Result<Connection, Failed> {
        let peer = peer_name(target);
        let other = |text: String| Failed::Other(Answer { remote: Some(peer.clone()), ..unreachable_answer(text) });
        let connect = timeout(config.deliver.connect_timeout, TcpStream::connect(target.address));
        let stream = match connect.await {
            Err(_) => return Err(other("no connection in time".to_owned())),
            Ok(Err(error)) => return Err(other(format!("no connection: {error}"))),
            Ok(Ok(stream)) => stream,
        };
        // Talking to an address of ours, both ends are the same: mail would come back in at our own door.
        if refuse_self && stream.local_addr().is_ok_and(|local| local.ip() == target.address.ip()) {
            return Err(other("the mail host's address is one of this host".to_owned()));
        }
        stream.set_nodelay(true).map_err(|error| other(error.to_string()))?;
        let session = Session { opener: self, config, manner, host: &target.host, peer: peer.clone() };
        session.begin(Box::new(stream)).await
    }

    async fn open_unix(&self, config: &Config, path: &Path, manner: &Manner) -> Result<Connection, Answer> {
        let peer: Arc<str> = path.display().to_string().into();
        let connected = timeout(config.deliver.connect_timeout, UnixStream::connect(path)).await;
        let stream = match connected {
            Err(_) => return Err(unreachable_answer(format!("{peer}: no connection in time"))),
            Ok(Err(error)) => return Err(unreachable_answer(format!("{peer}: {error}"))),
            Ok(Ok(stream)) => stream,
        };
        let session = Session { opener: self, config, manner, host: "localhost", peer };
        let begun = session.begin(Box::new(stream)).await;
        let outcome = if begun.is_ok() { "opened" } else { "failed" };
        self.meters.connections.with_label_values(&[outcome]).inc();
        begun.map_err(|failed| match failed {
            Failed::Other(answer) => answer,
            Failed::Tls(why) => unreachable_answer(why),
        })
    }
}

/// One attempt over one stream.
struct Session<'a> {
    opener: &'a Opener,
    config: &'a Config,
    manner: &'a Manner,
    host: &'a str,
    peer: Arc<str>,
}

impl Session<'_> {
    async fn begin(&self, mut wire: Box<dyn Wire>) -> Result<Connection, Failed> {
        if self.manner.implicit_tls {
            wire = self.start_tls(wire).await?;
        }
        let mut handshake = Handshake::new(HandshakeOptions {
            protocol: self.manner.protocol,
            hello: self.config.hostname.clone(),
            tls: self.manner.tls,
            encrypted: self.manner.implicit_tls,
            login: self.manner.login.clone(),
            nonce: nonce()?,
        });
        let mut connection = Connection::new(wire, self.manner.protocol, self.peer.clone());
        let wait = self.config.deliver.command_timeout;
        loop {
            let at = handshake.step();
            let broken = |fault| self.other(format!("{at}: {fault}"));
            connection.flush(wait).await.map_err(broken)?;
            let reply = connection.reply(wait).await.map_err(broken)?;
            match handshake.handle_reply(reply, &mut connection.out) {
                Next::Await => {}
                Next::StartTls => {
                    let wire = self.start_tls(connection.into_wire()).await?;
                    connection = Connection::new(wire, self.manner.protocol, self.peer.clone());
                    handshake.handle_tls(&mut connection.out);
                }
                Next::Ready => break,
                Next::Failed(fault) => return Err(Failed::Other(self.refused(fault))),
            }
        }
        connection.encrypted = handshake.is_encrypted();
        let verified = self.manner.tls == DeliverTls::Required;
        let tls = if !connection.encrypted {
            "plain"
        } else if verified {
            "verified"
        } else {
            "unverified"
        };
        self.opener.meters.tls.with_label_values(&[tls]).inc();
        connection.offers = handshake.into_capabilities();
        Ok(connection)
    }

    async fn start_tls(&self, wire: Box<dyn Wire>) -> Result<Box<dyn Wire>, Failed> {
        let failed = |why: String| {
            self.opener.meters.tls.with_label_values(&["failed"]).inc();
            Failed::Tls(why)
        };
        let verify = self.manner.tls == DeliverTls::Required;
        let connector = self.opener.tls.connector(verify).map_err(|why| failed(why.to_string()))?;
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        // A name that is none (an underscore, a literal's brackets) can't be verified; unverified, any name will do.
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if !verify => ServerName::try_from("invalid.invalid").expect("a valid name"),
            Err(error) => return Err(failed(format!("{host}: {error}"))),
        };
        let handshake = timeout(self.config.deliver.command_timeout.min(TLS_TIMEOUT), connector.connect(name, wire));
        match handshake.await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown");
                let cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
                let cipher = cipher.and_then(|suite| suite.as_str()).unwrap_or("unknown");
                self.opener.meters.tls_sessions.with_label_values(&[version, cipher]).inc();
                Ok(Box::new(stream))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the TLS handshake was not finished in time".to_owned())),
        }
    }

    fn other(&self, text: String) -> Failed {
        Failed::Other(Answer { remote: Some(self.peer.clone()), ..unreachable_answer(text) })
    }

    fn refused(&self, fault: HandshakeFault) -> Answer {
        let local = |status, text: &str| Answer {
            remote: Some(self.peer.clone()),
            ..Answer::local(Fate::Deferred, status, text)
        };
        match fault {
            HandshakeFault::Refused { at, reply } => {
                let said = Answer::from_reply(&reply, &self.peer, false);
                let status = Enhanced(4, said.status.1, said.status.2);
                Answer { fate: Fate::Deferred, status, text: format!("{} (to {at})", said.text), ..said }
            }
            HandshakeFault::NoTls => local(NO_TLS, "TLS is required and the server does not offer it"),
            HandshakeFault::NoMechanism => local(
                Enhanced(4, 7, 0),
                "the server offers no way to log in that keeps the password secret (TLS or SCRAM-SHA-256)",
            ),
            HandshakeFault::BadServerProof => {
                local(Enhanced(4, 7, 0), "the server can't prove that it knows the password")
            }
        }
    }
}

/// Five addresses that each take all the time that RFC 5321 gives them would hold a place in the window for half an hour.
const OPEN_TIMEOUT: Duration = Duration::from_secs(600);
/// A handshake takes a few round trips; Postfix waits 300 s for it, which helps nobody.
const TLS_TIMEOUT: Duration = Duration::from_secs(60);

/// 18 random bytes, as base64 text.
fn nonce() -> Result<String, Failed> {
    let mut bytes = [0u8; 18];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failed::Other(unreachable_answer("no random numbers for AUTH".to_owned())))?;
    Ok(STANDARD.encode(bytes))
}

fn peer_name(target: &Target) -> Arc<str> {
    let ip = target.address.ip();
    if *target.host == *ip.to_string() { format!("[{ip}]").into() } else { format!("{} [{ip}]", target.host).into() }
}

fn unreachable_answer(text: String) -> Answer {
    Answer::local(Fate::Deferred, Enhanced(4, 4, 1), text)
}
