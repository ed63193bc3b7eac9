//! One attempt over one stream: TLS on the terms given, greeting to ready. I/O: the stream.
//!
//! RFC 3207, RFC 7672 §8.1 (SNI is the TLSA base domain), RFC 8689 §4.2.1 (REQUIRETLS must be offered after the handshake). A session that
//! does not keep its terms is given up before a word about the mail is said.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Wire};
use super::judge::{Judge, failure_type, in_words};
use super::open::{Manner, unreachable_answer};
use super::terms::{Demand, Terms};
use super::tls::ClientTls;
use super::{Answer, Fate};
use crate::config::settings::Config;
use crate::deliver::meters::Meters;
use crate::deliver::tls_result::{FailureType, TlsFailure};
use crate::smtp::client::handshake::{Handshake, HandshakeFault, HandshakeOptions, Next};
use crate::wire::reply::Enhanced;

/// A connector, who judges, and the name asked for.
type Connector<'s> = (TlsConnector, Option<Arc<Judge>>, &'s str);

/// A handshake takes a few round trips; Postfix waits 300 s for it, which helps nobody.
const TLS_TIMEOUT: Duration = Duration::from_secs(60);

/// Why one attempt failed.
pub(super) enum Failed {
    /// The server does not pass REQUIRETLS on.
    NoRequireTls,
    /// TLS, or what it should have proven.
    Tls(TlsFailure),
    /// Anything else.
    Other(Answer),
}

/// A session that keeps its terms.
pub(super) struct Opened {
    pub connection: Connection,
    /// What verification would have said, where that is only observed.
    pub finding: Option<TlsFailure>,
}

/// One attempt.
pub(super) struct Session<'a> {
    pub tls: &'a ClientTls,
    pub meters: &'a Meters,
    pub config: &'a Config,
    pub manner: &'a Manner,
    pub terms: &'a Terms,
    pub host: &'a str,
    pub peer: Arc<str>,
}

impl Session<'_> {
    pub async fn begin(&self, mut wire: Box<dyn Wire>) -> Result<Opened, Failed> {
        let mut finding = None;
        if self.manner.implicit_tls {
            (wire, finding) = self.start_tls(wire).await?;
        }
        let mut handshake = Handshake::new(HandshakeOptions {
            protocol: self.manner.protocol,
            hello: self.config.hostname.clone(),
            tls: self.terms.demand.as_setting(),
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
                    let wire;
                    (wire, finding) = self.start_tls(connection.into_wire()).await?;
                    connection = Connection::new(wire, self.manner.protocol, self.peer.clone());
                    handshake.handle_tls(&mut connection.out);
                }
                Next::Ready => break,
                Next::Failed(fault) => return Err(self.refused(fault)),
            }
        }
        connection.encrypted = handshake.is_encrypted();
        connection.tls = self.level(connection.encrypted);
        connection.offers = handshake.into_capabilities();
        if self.manner.wish.require_tls && !connection.offers.require_tls {
            connection.quit().await;
            return Err(Failed::NoRequireTls);
        }
        self.meters.tls.with_label_values(&[connection.tls]).inc();
        Ok(Opened { connection, finding })
    }

    /// What the session has come to, in the words of the metric.
    fn level(&self, encrypted: bool) -> &'static str {
        match self.terms.demand {
            _ if !encrypted => "plain",
            Demand::Tlsa(_) => "dane",
            Demand::Pkix if self.terms.because == "sts" => "sts",
            Demand::Pkix => "verified",
            _ => "unverified",
        }
    }

    /// The connector for these terms, who judges, and the name asked for.
    fn connector(&self) -> Result<Connector<'_>, Arc<str>> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        match &self.terms.demand {
            Demand::Pkix => Ok((self.tls.connector(true)?, None, host)),
            Demand::Tlsa(set) => {
                let (connector, judge) = self.tls.by_tlsa(set.clone());
                Ok((connector, Some(judge), &set.base))
            }
            Demand::Any { observed: true } => match self.tls.observing() {
                Ok((connector, judge)) => Ok((connector, Some(judge), host)),
                Err(_) => Ok((self.tls.connector(false)?, None, host)),
            },
            _ => Ok((self.tls.connector(false)?, None, host)),
        }
    }

    async fn start_tls(&self, wire: Box<dyn Wire>) -> Result<(Box<dyn Wire>, Option<TlsFailure>), Failed> {
        let failed = |failure: TlsFailure| {
            self.meters.tls.with_label_values(&["failed"]).inc();
            Failed::Tls(failure)
        };
        let general = |why: &str| failed(TlsFailure::new(FailureType::ValidationFailure, why));
        let (connector, judge, host) = self.connector().map_err(|why| general(&why))?;
        // A name that is none (an underscore, a literal's brackets) can't be verified; unverified, any name will do.
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if !matches!(self.terms.demand, Demand::Pkix) => {
                ServerName::try_from("invalid.invalid").expect("a valid name")
            }
            Err(error) => return Err(general(&format!("{host}: {error}"))),
        };
        let handshake = timeout(self.config.deliver.command_timeout.min(TLS_TIMEOUT), connector.connect(name, wire));
        let finding = || judge.as_ref().and_then(|judge| judge.finding());
        match handshake.await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown");
                let cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
                let cipher = cipher.and_then(|suite| suite.as_str()).unwrap_or("unknown");
                self.meters.tls_sessions.with_label_values(&[version, cipher]).inc();
                Ok((Box::new(stream), finding()))
            }
            Ok(Err(error)) => Err(failed(finding().unwrap_or_else(|| failure_of(&error)))),
            Err(_) => Err(general("the TLS handshake was not finished in time")),
        }
    }

    fn other(&self, text: String) -> Failed {
        Failed::Other(Answer { remote: Some(self.peer.clone()), ..unreachable_answer(text) })
    }

    fn refused(&self, fault: HandshakeFault) -> Failed {
        let local = |status, text: &str| {
            let answer = Answer::local(Fate::Deferred, status, text);
            Failed::Other(Answer { remote: Some(self.peer.clone()), ..answer })
        };
        match fault {
            HandshakeFault::Refused { at, reply } => {
                let said = Answer::from_reply(&reply, &self.peer, false);
                let status = Enhanced(4, said.status.1, said.status.2);
                let text = format!("{} (to {at})", said.text);
                Failed::Other(Answer { fate: Fate::Deferred, status, text, ..said })
            }
            HandshakeFault::NoTls => {
                self.meters.tls.with_label_values(&["failed"]).inc();
                let by = match self.terms.because {
                    "dane" => " by the TLSA records of the host",
                    "sts" => " by the MTA-STS policy of the domain",
                    "requiretls" => " by the message (REQUIRETLS)",
                    _ => "",
                };
                let detail = format!("TLS is required{by} and the server does not offer it");
                Failed::Tls(TlsFailure::new(FailureType::StarttlsNotSupported, &detail))
            }
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

fn failure_of(error: &std::io::Error) -> TlsFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => TlsFailure::new(failure_type(inner), &in_words(inner)),
        None => TlsFailure::new(FailureType::ValidationFailure, &error.to_string()),
    }
}

/// 18 random bytes, as base64 text.
fn nonce() -> Result<String, Failed> {
    let mut bytes = [0u8; 18];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failed::Other(unreachable_answer("no random numbers for AUTH".to_owned())))?;
    Ok(STANDARD.encode(bytes))
}
