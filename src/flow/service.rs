//! Answers what an SMTP conversation asks. I/O: none of its own; what waits leaves through a ticket.
//!
//! Called on the reactor threads. Access, relay and rates are pure functions of the session and the configuration of
//! the moment; passwords go to the rayon pool, call-ahead and message checks to tokio.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::base::machine::TlsFacts;
use crate::base::secret::Secret;
use crate::config::settings::{Mode, RateCount, Role};
use crate::deliver::call_ahead::Existence;
use crate::front::service::{Admission, Answered, Later, Peer, Refusal, Service};
use crate::policy::rates::{Hit, RateFacts};
use crate::policy::relay::{Known, Lookup, at_rcpt, lookup_for};
use crate::policy::{Decision, Reason, access};
use crate::smtp::server::ask::{Answer, Ask};
use crate::smtp::server::session::Session;
use crate::verify;
use crate::wire::address::Mailbox;
use crate::wire::envelope::{Origin, Recipient};
use crate::wire::reply::{Enhanced, Reply};

use super::door::{Visit, origin_at_connect};
use super::forward::at_bounce;
use super::house::House;
use super::scanning;
use super::snapshot::Snapshot;

const WRONG_PASSWORD: Reply = Reply::fixed(535, Enhanced(5, 7, 8), "Authentication failed");
const TOO_MANY_CHECKS: Reply = Reply::fixed(454, Enhanced(4, 7, 0), "Too many logins at the moment, try again later");

/// The SMTP and LMTP service on the reactors.
pub struct SmtpService {
    house: Arc<House>,
}

type Ticket<'a> = &'a mut dyn Later<Answer>;

impl SmtpService {
    /// Serves for `house`.
    pub fn new(house: Arc<House>) -> Self {
        SmtpService { house }
    }

    fn connect(&self, snapshot: &Snapshot, peer: &Peer, ip: std::net::IpAddr, began: Instant) -> Answer {
        let listener = &snapshot.listeners[peer.listener].listener;
        let facts = RateFacts { ip, listener: &listener.name, helo: "", login: None, sender: None, recipient: None };
        let mut decision = self
            .refused_by_rate(RateCount::Connections, &facts, 1)
            .unwrap_or_else(|| access::at_connect(ip, listener, &snapshot.config));
        if decision.is_allowed() {
            let _entered = self.house.runtime.enter();
            self.house.underway.connected(peer, ip, listener, &snapshot.checks);
            self.house.meters.policy.decided("connect", &decision);
            return Answer::Go;
        }
        decision.reply =
            decision.reply.map(|reply| Reply { code: if reply.is_transient() { 421 } else { 554 }, ..reply });
        let origin = origin_at_connect(SocketAddr::new(ip, peer.remote.port()), listener);
        let (listener, known) = (peer.listener, Known::NotAsked);
        let visit = Visit { stage: "connect", listener, origin: &origin, from: None, to: None, known, began };
        self.house.heard(snapshot, &visit, decision)
    }

    fn hello(&self, snapshot: &Snapshot, peer: &Peer, origin: &Origin) -> Answer {
        let listener = &snapshot.listeners[peer.listener].listener;
        let _entered = self.house.runtime.enter();
        self.house.underway.greeted(peer, origin, listener, &snapshot.checks);
        Answer::Go
    }

    fn password(&self, origin: &Origin, login: String, password: Secret, later: Ticket<'_>) -> Answered<Answer> {
        if let Some(decision) = self.house.refused_for_failures(&facts_of_login(origin, &login)) {
            return Answered::Now(answer_of(decision));
        }
        let (house, origin, ticket) = (self.house.clone(), origin.clone(), later.ticket());
        let tried = login.clone();
        // The ticket must survive a full queue to give its answer, so it waits in a slot that both sides can empty.
        let slot = Arc::new(parking_lot::Mutex::new(Some(ticket)));
        let held = slot.clone();
        let taken = self.house.passwords.check(login, password, move |verified| {
            let Some(ticket) = held.lock().take() else { return };
            ticket.answer(match verified {
                Some(login) => Answer::Authenticated(login),
                None => {
                    house.auth_failed(&origin, &tried);
                    Answer::Refuse(WRONG_PASSWORD)
                }
            });
        });
        if !taken && let Some(ticket) = slot.lock().take() {
            ticket.answer(Answer::Refuse(TOO_MANY_CHECKS));
        }
        Answered::Later
    }

    fn mail(
        &self,
        snapshot: &Snapshot,
        peer: &Peer,
        origin: &Origin,
        reverse_path: Option<&Mailbox>,
        began: Instant,
    ) -> Answer {
        let listener = &snapshot.listeners[peer.listener].listener;
        let mut decision = access::at_mail(origin, reverse_path, listener, &snapshot.config, &snapshot.domains);
        if decision.is_allowed() {
            let facts = RateFacts { sender: Some(reverse_path), ..facts_of(origin) };
            if let Some(refusal) = self.refused_by_rate(RateCount::Messages, &facts, 1) {
                decision = refusal;
            }
        }
        if decision.is_allowed() && listener.verify != Mode::Off {
            let facts = verify::Facts {
                ip: origin.ip,
                helo: origin.helo.clone(),
                reverse_path: reverse_path.map(|path| path.as_str().to_owned()),
            };
            let _entered = self.house.runtime.enter();
            self.house.underway.mail(peer, facts, listener, &snapshot.checks);
        }
        let (listener, known) = (peer.listener, Known::NotAsked);
        let visit = Visit { stage: "mail", listener, origin, from: reverse_path, to: None, known, began };
        self.house.heard(snapshot, &visit, decision)
    }

    fn rcpt(
        &self,
        snapshot: &Arc<Snapshot>,
        peer: &Peer,
        question: RcptQuestion,
        later: Ticket<'_>,
    ) -> Answered<Answer> {
        let (reverse_path, recipient) = (question.reverse_path.as_ref(), &question.recipient.mailbox);
        let listener = &snapshot.listeners[peer.listener].listener;
        // What is followed for no LMTP peer is not believed there either.
        let srs = snapshot.routes.srs().filter(|_| listener.role != Role::Lmtp);
        if let Some(decision) = at_bounce(srs, reverse_path, recipient, SystemTime::now()) {
            let decision = self.house.rcpt_charged(&question, decision);
            return Answered::Now(self.house.rcpt_heard(snapshot, peer.listener, &question, Known::NotAsked, decision));
        }
        let known = match lookup_for(&question.recipient.mailbox, listener, &snapshot.domains) {
            Lookup::None => Known::NotAsked,
            Lookup::Store(names) => {
                let found = names.iter().any(|name| self.house.users.find(name).is_some());
                if found { Known::Yes } else { Known::No }
            }
            Lookup::NextHop(next_hop) => {
                let (house, ticket) = (self.house.clone(), later.ticket());
                let (snapshot, next_hop, listener) = (snapshot.clone(), next_hop.clone(), peer.listener);
                self.house.runtime.spawn(async move {
                    let known =
                        match house.call_ahead.ask(&snapshot.config, &next_hop, &question.recipient.mailbox).await {
                            Existence::Yes => Known::Yes,
                            Existence::No => Known::No,
                            Existence::Unknown => Known::Later,
                        };
                    let decision = house.rcpt_decided(&snapshot, listener, &question, known);
                    let decision = scanning::milters_at_rcpt(&snapshot, listener, &question, decision).await;
                    ticket.answer(house.rcpt_heard(&snapshot, listener, &question, known, decision));
                });
                return Answered::Later;
            }
        };
        let decision = self.house.rcpt_decided(snapshot, peer.listener, &question, known);
        self.house.with_milters(snapshot, peer.listener, question, (known, decision), later)
    }

    /// The refusal of a `[[rate]]` that is reached; rates that only hold or alert are counted here and acted upon at the end of the message.
    fn refused_by_rate(&self, count: RateCount, facts: &RateFacts<'_>, amount: u64) -> Option<Decision> {
        self.house.charge(count, facts, amount).iter().find(|hit| hit.refuses()).map(Hit::decision)
    }
}

/// What [`Ask::Rcpt`] asks.
pub struct RcptQuestion {
    /// Where the session comes from.
    pub origin: Arc<Origin>,
    /// The reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// Whom.
    pub recipient: Recipient,
    /// Recipients accepted before.
    pub accepted: u32,
    /// When it was asked.
    pub began: Instant,
}

impl House {
    fn rcpt_decided(&self, snapshot: &Snapshot, listener: usize, question: &RcptQuestion, known: Known) -> Decision {
        let listener = &snapshot.listeners[listener].listener;
        let (origin, mailbox) = (&question.origin, &question.recipient.mailbox);
        let decision = at_rcpt(origin, mailbox, known, listener, &snapshot.config, &snapshot.domains);
        self.rcpt_charged(question, decision)
    }

    /// Counts a decision on RCPT against `[[rate]]`, which may refuse what was allowed.
    fn rcpt_charged(&self, question: &RcptQuestion, mut decision: Decision) -> Decision {
        let (origin, mailbox) = (&question.origin, &question.recipient.mailbox);
        let facts =
            RateFacts { sender: Some(question.reverse_path.as_ref()), recipient: Some(mailbox), ..facts_of(origin) };
        let count = match decision.reason {
            Reason::UnknownUser => Some(RateCount::UnknownRecipients),
            _ if decision.is_allowed() => Some(RateCount::Recipients),
            _ => None,
        };
        if let Some(count) = count
            && let Some(hit) = self.charge(count, &facts, 1).into_iter().find(Hit::refuses)
        {
            decision = hit.decision();
        }
        decision
    }

    /// What a client hears of its recipient.
    pub(super) fn rcpt_heard(
        &self,
        snapshot: &Snapshot,
        listener: usize,
        question: &RcptQuestion,
        known: Known,
        decision: Decision,
    ) -> Answer {
        let (from, to) = (question.reverse_path.as_ref(), Some(&question.recipient.mailbox));
        let (origin, began) = (&*question.origin, question.began);
        self.heard(snapshot, &Visit { stage: "rcpt", listener, origin, from, to, known, began }, decision)
    }

    fn auth_failed(&self, origin: &Origin, login: &str) {
        tracing::warn!(client = %origin.ip, login = %login, listener = %origin.listener, "authentication failed");
        self.login_failed(&facts_of_login(origin, login));
    }
}

/// What rates may be keyed by, before MAIL.
pub fn facts_of(origin: &Origin) -> RateFacts<'_> {
    RateFacts {
        ip: origin.ip,
        listener: &origin.listener,
        helo: &origin.helo,
        login: origin.login.as_deref(),
        sender: None,
        recipient: None,
    }
}

/// The same of an attempt to log in.
fn facts_of_login<'a>(origin: &'a Origin, login: &'a str) -> RateFacts<'a> {
    RateFacts { login: Some(login), ..facts_of(origin) }
}

fn answer_of(decision: Decision) -> Answer {
    decision.reply.map_or(Answer::Go, Answer::Refuse)
}

impl Service for SmtpService {
    type Machine = Session;

    fn open(&self, now: Instant, peer: &Peer, tls: Option<TlsFacts>) -> Admission<Session> {
        let snapshot = self.house.snapshot.load();
        let listener = &snapshot.listeners[peer.listener];
        listener.sessions.opened.inc();
        listener.sessions.open.inc();
        Admission::Open(Session::new(
            listener.session.clone(),
            self.house.content.clone(),
            peer.remote.ip(),
            peer.remote.port(),
            tls,
            now,
        ))
    }

    fn refuse(&self, why: Refusal, _: &Peer) -> Vec<u8> {
        let reply = match why {
            Refusal::Handshakes => Reply::fixed(421, Enhanced(4, 7, 0), "Too many TLS handshakes from your address"),
            Refusal::PerIp => Reply::fixed(421, Enhanced(4, 7, 0), "Too many connections from your address"),
            Refusal::PerNet => Reply::fixed(421, Enhanced(4, 7, 0), "Too many connections from your network"),
            Refusal::Total => Reply::fixed(421, Enhanced(4, 3, 2), "Too many connections, try again later"),
            Refusal::Stopping => Reply::STOPPING,
            Refusal::Descriptors => Reply::fixed(421, Enhanced(4, 3, 2), "No resources at the moment, try again later"),
        };
        let mut text = Vec::new();
        reply.write_to(&mut text);
        text
    }

    fn answer(&self, now: Instant, peer: &Peer, ask: Ask, later: Ticket<'_>) -> Answered<Answer> {
        let snapshot = self.house.snapshot.load();
        match ask {
            Ask::Connect { ip } => Answered::Now(self.connect(&snapshot, peer, ip, now)),
            Ask::Hello { origin } => Answered::Now(self.hello(&snapshot, peer, &origin)),
            Ask::Password { origin, login, password } => self.password(&origin, login, password, later),
            Ask::ScramKeys { origin, login } => {
                Answered::Now(match self.house.refused_for_failures(&facts_of_login(&origin, &login)) {
                    Some(decision) => answer_of(decision),
                    None => Answer::ScramKeys(self.house.users.scram_keys(&login)),
                })
            }
            Ask::AuthFailed { origin, login } => {
                self.house.auth_failed(&origin, &login);
                Answered::Now(Answer::Go)
            }
            Ask::Mail { origin, reverse_path, .. } => {
                Answered::Now(self.mail(&snapshot, peer, &origin, reverse_path.as_ref(), now))
            }
            Ask::Rcpt { origin, reverse_path, recipient, accepted } => {
                let question = RcptQuestion { origin, reverse_path, recipient, accepted, began: now };
                self.rcpt(&snapshot, peer, question, later)
            }
            Ask::Message(received) => self.house.clone().message(&snapshot, peer, received, later),
        }
    }

    fn closed(&self, peer: &Peer, session: Session) {
        self.house.session_closed(peer, session.counters());
    }
}
