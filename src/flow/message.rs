//! A complete message: facts, ruling, then into the spool. I/O: the spool's queue; checks on tokio and rayon.
//!
//! Nothing here waits on the reactor's thread. The reply is given by whoever learns the message's fate: at once for a
//! refusal, by the committer once the message is on disk.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::config::Config;
use crate::config::settings::{Listener, Mode, RateAction, RateCount, Role};
use crate::dns::Resolver;
use crate::front::service::{Answered, Later, Peer, Ticket};
use crate::observe::meters::Stage;
use crate::observe::outcome::{Fate, Outcome};
use crate::observe::trace::{Decided, Entry, Record};
use crate::policy::rates::{Hit, RateFacts};
use crate::policy::{access, greylist};
use crate::smtp::server::ask::{Answer, Received};
use crate::spool::queue::Disposition;
use crate::verify::{self, Begun};
use crate::wire::envelope::Envelope;
use crate::wire::header::{HeaderFacts, missing_on_submission};
use crate::wire::reply::Reply;

use super::checks::{self, Found, Question};
use super::forward;
use super::house::House;
use super::judge::{self, Ruling};
use super::lists::Senders;
use super::parcels::{self, Parcel};
use super::record;
use super::reports::Judged;
use super::scanning::Scanned;
use super::service::facts_of;
use super::snapshot::Snapshot;

/// A message on its way through the house.
pub(super) struct Passage {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    pub content: Content,
    /// Addresses outside of our domains that aliases led to.
    pub forwarded: HashSet<String>,
    header: HeaderFacts,
    pub listener: usize,
    submitted: bool,
    pub lmtp: bool,
    /// Replies that the session waits for (RFC 2033 §4.2).
    replies_due: usize,
    /// Milters changed the content; fields that we would cut are theirs.
    pub milled: bool,
    /// It begins its way here, or with a host that may relay.
    outbound: bool,
    pub began: Instant,
    /// What the first ruling took.
    ruled: Duration,
    /// The `[[rate]]` that refused or holds it.
    pub rate: Option<String>,
    /// DMARC's word, once it is known.
    pub dmarc: Option<verify::Outcome>,
}

impl House {
    /// Answers [`crate::smtp::server::ask::Ask::Message`].
    pub fn message(
        self: Arc<Self>,
        snapshot: &Arc<Snapshot>,
        peer: &Peer,
        received: Box<Received>,
        later: &mut dyn Later<Answer>,
    ) -> Answered<Answer> {
        let view = &snapshot.listeners[peer.listener];
        let begin = self.underway.take(peer);
        let mut passage = self.passage(snapshot, peer.listener, *received, begin.host);
        if let Err(error) = self.complete(&mut passage, &snapshot.config.hostname) {
            return Answered::Now(self.no_room(snapshot, &passage, &error));
        }
        let ruling = self.ruling(&mut passage, &snapshot.config.hostname);
        passage.ruled = passage.began.elapsed();
        match ruling {
            Ruling::Refuse { .. } => {
                let parcels = vec![Parcel::whole(&passage.envelope, None, ruling)];
                Answered::Now(self.refused(snapshot, &passage, None, parcels))
            }
            Ruling::Keep { disposition, reason } => {
                if view.waits_for_checks() || passage.outbound && !snapshot.config.dkim.is_empty() {
                    let Some(place) = self.checks_under_way.enter() else {
                        let busy = Ruling::Refuse { reply: Reply::BUSY, reason: "busy" };
                        let parcels = vec![Parcel::whole(&passage.envelope, None, busy)];
                        return Answered::Now(self.refused(snapshot, &passage, None, parcels));
                    };
                    let (snapshot, ticket) = (snapshot.clone(), later.ticket());
                    let runtime = self.runtime.clone();
                    runtime.spawn(async move {
                        self.checked(&snapshot, passage, begin.identity, disposition, ticket).await;
                        drop(place);
                    });
                } else {
                    let parcel = Parcel::whole(&passage.envelope, None, Ruling::Keep { disposition, reason });
                    self.keep(snapshot, passage, None, vec![parcel], later.ticket());
                }
                Answered::Later
            }
        }
    }

    fn passage(&self, snapshot: &Snapshot, listener: usize, received: Received, host: Option<String>) -> Passage {
        let id = self.spool.next_id();
        let config = &snapshot.config;
        let role = snapshot.listeners[listener].listener.role;
        let is_submission = judge::is_submission(role, received.envelope.origin.login.is_some());
        let mut envelope = received.envelope;
        // What a proxy that may say so told us stands.
        envelope.origin.host = envelope.origin.host.or(host);
        for recipient in &mut envelope.recipients {
            if let Some(settled) = snapshot.domains.settled(&recipient.mailbox) {
                recipient.mailbox = settled;
            }
        }
        // LMTP answers for each recipient by its place, and its peers have followed aliases already.
        let forwarded = match role {
            Role::Lmtp => HashSet::new(),
            _ => forward::expand(&mut envelope, &snapshot.domains, snapshot.routes.srs(), SystemTime::now()),
        };
        Passage {
            forwarded,
            ruled: Duration::ZERO,
            id,
            header: received.header,
            content: received.content,
            listener,
            submitted: is_submission,
            lmtp: role == Role::Lmtp,
            replies_due: if role == Role::Lmtp { envelope.recipients.len() } else { 1 },
            milled: false,
            outbound: is_submission || role == Role::Relay && access::is_trusted(envelope.origin.ip, config),
            envelope: Arc::new(envelope),
            rate: None,
            dmarc: None,
            began: Instant::now(),
        }
    }

    /// Adds what RFC 6409 §8 lets a submission server add. The result may be as large as the message, and lies where that may lie.
    fn complete(&self, passage: &mut Passage, hostname: &str) -> io::Result<()> {
        let header = &passage.header;
        if passage.submitted && (header.date == 0 || header.message_id == 0) {
            let message_id = format!("{}@{hostname}", passage.id);
            let missing = missing_on_submission(header, &message_id, SystemTime::now());
            passage.content = self.content.join(&[missing.as_bytes(), &passage.content])?;
        }
        Ok(())
    }

    pub(super) fn no_room(&self, snapshot: &Snapshot, passage: &Passage, error: &io::Error) -> Answer {
        tracing::error!(id = %passage.id, %error, "no room for the content");
        let ruling = Ruling::Refuse { reply: Reply::NO_SPACE, reason: "spool" };
        self.refused(snapshot, passage, None, vec![Parcel::whole(&passage.envelope, None, ruling)])
    }

    /// The answer to a message that nobody takes.
    fn refused(&self, snapshot: &Snapshot, passage: &Passage, found: Option<&Found>, parcels: Vec<Parcel>) -> Answer {
        let (reply, reason) = parcels::refusal_of(&parcels).expect("whoever refuses says why");
        let reply = reply.referring(&passage.id.to_string());
        self.meters.flow.replied(reply.code, reason);
        let fate = if reply.is_transient() { Fate::Deferred } else { Fate::Rejected };
        self.count_outcome(passage, fate);
        self.log_outcome(passage, passage.id, passage.envelope.recipients.len(), fate, reason);
        if let Some(mut record) = self.record(snapshot, passage, found, fate) {
            record.parcels =
                parcels.iter().map(|parcel| record::parcel(parcel, &passage.envelope, &record.id, fate)).collect();
            record.decided = Decided {
                reason: reason.to_owned(),
                reply: said(&reply),
                setting: setting(snapshot, passage, found, &parcels, reason),
            };
            self.remember(&snapshot.config, passage, record, fate);
        }
        Answer::Message(passage.replies(&reply))
    }

    /// Checks the message, then keeps or refuses it. A hold that was ruled before stands, unless the message is refused.
    async fn checked(
        self: Arc<Self>,
        snapshot: &Snapshot,
        mut passage: Passage,
        begun: Option<Begun<Resolver>>,
        before: Disposition,
        ticket: Box<dyn Ticket<Answer>>,
    ) {
        let listener = &snapshot.listeners[passage.listener].listener;
        let reference = passage.id.to_string();
        let question = Question {
            listener,
            envelope: &passage.envelope,
            content: &passage.content,
            reference: &reference,
            signs: passage.outbound,
            forwards: passage.envelope.recipients.iter().any(|to| snapshot.domains.of(&to.mailbox).is_none()),
        };
        let mut found = snapshot.checks.gather(&question, begun, &self.meters.flow).await;
        let told = self.tell(snapshot, &passage, &found);
        let mut parcels = self.parcels(snapshot, &question, &found);
        parcels::reconcile(&mut parcels, passage.lmtp);
        // What is refused already needs no milter.
        if !parcels.iter().all(Parcel::is_refused) {
            snapshot.checks.complete(&question, &mut found).await;
            parcels.iter_mut().for_each(|parcel| parcel.heed(listener, &found.scanned));
        }
        if parcels.iter().all(Parcel::is_refused) && !passage.lmtp {
            return ticket.answer(self.refused(snapshot, &passage, Some(&found), parcels));
        }
        if before != Disposition::Deliver {
            for parcel in parcels.iter_mut().filter(|parcel| !parcel.is_refused()) {
                parcel.ruling = Ruling::Keep { disposition: before.clone(), reason: "rate".into() };
            }
        }
        passage.dmarc = told;
        passage.take_over(&found.scanned, &mut parcels);
        self.keep(snapshot, passage, Some(found), parcels, ticket);
    }

    /// Who shares which decision.
    pub(super) fn parcels(&self, snapshot: &Snapshot, question: &Question<'_>, found: &Found) -> Vec<Parcel> {
        let mut parcels = self.split(snapshot, question, found);
        parcels.iter().for_each(|parcel| snapshot.checks.count(parcel.verdict.as_ref(), parcel.ruling.reason()));
        parcels.iter_mut().for_each(|parcel| parcel.heed(question.listener, &found.scanned));
        parcels
    }

    fn split(&self, snapshot: &Snapshot, question: &Question<'_>, found: &Found) -> Vec<Parcel> {
        let Question { listener, envelope, .. } = *question;
        if let Some(ruling) = checks::by_identity(found) {
            return vec![Parcel::whole(envelope, found.verdict.clone(), ruling)];
        }
        let Some(verdict) = &found.verdict else {
            let ruling = Ruling::Keep { disposition: Disposition::Deliver, reason: "ordinary".into() };
            return vec![Parcel::whole(envelope, None, ruling)];
        };
        let facts = parcels::Facts {
            config: &snapshot.config,
            domains: &snapshot.domains,
            lists: &snapshot.lists,
            listener,
            envelope,
            senders: Senders::of(envelope, found.identity.as_ref().map(|identity| &identity.results)),
            outbound: question.signs,
            reference: question.reference,
        };
        let sender = envelope.reverse_path.as_ref().map_or("", |path| path.as_str());
        let came_again = |place: usize| {
            let (settings, to) = (&snapshot.config.greylist, envelope.recipients[place].mailbox.as_str());
            let ask = || self.greylist.ask(settings, envelope.origin.ip, sender, to, SystemTime::now());
            listener.filter != Mode::Enforce || ask() == greylist::Answer::Pass
        };
        parcels::split(&facts, verdict, &came_again)
    }

    /// Tells those who collect for reports who sent the message. What begins its way here is no business of theirs.
    /// Gives DMARC's word.
    fn tell(self: &Arc<Self>, snapshot: &Snapshot, passage: &Passage, found: &Found) -> Option<verify::Outcome> {
        let (facts, results, decision) = found.identity()?;
        let wanted = snapshot.config.reports.from.is_some() && results.dmarc.record.is_some();
        if passage.outbound || !wanted {
            return Some(results.dmarc.outcome);
        }
        let judged = Judged {
            envelope: passage.envelope.clone(),
            content: passage.content.clone(),
            facts: facts.clone(),
            results: results.clone(),
            decision: decision.clone(),
        };
        self.count_for_reports(&snapshot.config, &judged);
        Some(results.dmarc.outcome)
    }

    /// What the content and the rates say, before anything that waits.
    fn ruling(&self, passage: &mut Passage, hostname: &str) -> Ruling {
        let ruling = judge::at_content(&passage.header, &passage.content, hostname);
        let Ruling::Keep { .. } = ruling else { return ruling };
        let origin = &passage.envelope.origin;
        let facts = RateFacts { sender: Some(passage.envelope.reverse_path.as_ref()), ..facts_of(origin) };
        let hits = self.charge(RateCount::Bytes, &facts, passage.content.len() as u64);
        let held = |hit: &&Hit| hit.action == RateAction::Hold;
        let Some(hit) = hits.iter().find(|hit| hit.refuses()).or_else(|| hits.iter().find(held)) else { return ruling };
        passage.rate = Some(hit.setting());
        match hit.decision().reply {
            Some(reply) => Ruling::Refuse { reply, reason: "rate" },
            None => {
                let disposition = Disposition::Hold(format!("{} {}", hit.rate, hit.key));
                Ruling::Keep { disposition, reason: "rate".into() }
            }
        }
    }

    /// The record of a message with this fate, without its parcels; nothing if none is kept.
    pub(super) fn record(
        &self,
        snapshot: &Snapshot,
        passage: &Passage,
        found: Option<&Found>,
        fate: Fate,
    ) -> Option<Record> {
        let judged = found.is_some_and(|found| found.verdict.is_some() || found.identity.is_some());
        if !record::is_kept(snapshot.config.trace.record, judged, fate) {
            return None;
        }
        let mut checks = vec![record::check("loops, header section, rates", passage.ruled, "ordinary")];
        checks.extend(found.iter().flat_map(|found| found.checks.iter().cloned()));
        let mut record = record::begin(passage.id, &passage.envelope, &passage.content, passage.outbound, checks);
        if let Some(found) = found {
            record::add_findings(&mut record, found);
        }
        Some(record)
    }

    /// Hands a record over to the trace, with the message's bytes where they are kept.
    pub(super) fn remember(&self, config: &Config, passage: &Passage, record: Record, fate: Fate) {
        self.hand_over(config, record, fate, &passage.content, passage.began);
    }

    /// The same for whatever content.
    pub(super) fn hand_over(&self, config: &Config, mut record: Record, fate: Fate, content: &Content, began: Instant) {
        let settings = &config.trace;
        fate.as_str().clone_into(&mut record.fate);
        record.micros = began.elapsed().as_micros() as u64;
        let judged = !record.symbols.is_empty() || record.checks.len() > 1;
        let keeps = record.size <= settings.content_bytes && record::is_kept(settings.content, judged, fate);
        self.trace.add(Entry::Decision(Box::new(record)), keeps.then(|| content.clone()));
    }

    pub(super) fn count_outcome(&self, passage: &Passage, fate: Fate) {
        self.meters.flow.message(fate, passage.content.len() as u64);
        self.meters.flow.stage(Stage::Whole, passage.began.elapsed());
    }

    pub(super) fn log_outcome(&self, passage: &Passage, id: QueueId, recipients: usize, fate: Fate, reason: &str) {
        let (envelope, elapsed) = (&passage.envelope, passage.began.elapsed());
        let size = passage.content.len() as u64;
        Outcome {
            id: &id.to_string(),
            from: envelope.reverse_path.as_ref().map_or("", |path| path.as_str()),
            recipients,
            size,
            client: envelope.origin.ip,
            login: envelope.origin.login.as_deref(),
            listener: &envelope.origin.listener,
            fate,
            reason,
            elapsed,
        }
        .log();
    }
}

/// The setting that is responsible for a decision, and the line where it stands.
pub(super) fn setting(
    snapshot: &Snapshot,
    passage: &Passage,
    found: Option<&Found>,
    parcels: &[Parcel],
    reason: &str,
) -> String {
    let listener = &snapshot.listeners[passage.listener].listener;
    match &passage.rate {
        Some(rate) if reason == "rate" => rate.clone(),
        _ => setting_of(listener, found, parcels, reason),
    }
}

/// The same where no rate is.
pub(super) fn setting_of(listener: &Listener, found: Option<&Found>, parcels: &[Parcel], reason: &str) -> String {
    match reason {
        "identity" => format!("verify = enforce of listener {} ({})", listener.name, listener.line),
        "scanner" => found.map_or_else(String::new, |found| found.scanned.settings()),
        _ => {
            let settings: Vec<String> = parcels.iter().map(Parcel::setting).filter(|text| !text.is_empty()).collect();
            settings.join("; ")
        }
    }
}

/// A reply in a line.
pub(super) fn said(reply: &Reply) -> String {
    let mut bytes = Vec::new();
    reply.write_to(&mut bytes);
    String::from_utf8_lossy(&bytes).trim_end().replace("\r\n", " ")
}

impl Passage {
    /// One reply for SMTP, one a recipient for LMTP (RFC 2033 §4.2).
    pub(super) fn replies(&self, reply: &Reply) -> Vec<Reply> {
        vec![reply.clone(); self.replies_due]
    }

    /// Makes the changes that milters asked for; parcels follow the envelope.
    fn take_over(&mut self, scanned: &Scanned, parcels: &mut Vec<Parcel>) {
        if let Some(content) = scanned.content() {
            self.content = content.clone();
            self.milled = true;
        }
        let Some(envelope) = scanned.envelope(&self.envelope) else { return };
        parcels::follow(parcels, &self.envelope, &envelope);
        self.envelope = Arc::new(envelope);
    }
}
