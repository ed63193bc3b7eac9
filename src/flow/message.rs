//! A complete message: facts, ruling, then into the spool. I/O: the spool's queue; checks on tokio and rayon.
//!
//! Nothing here waits on the reactor's thread. The reply is given by whoever learns the message's fate: at once for a
//! refusal, by the committer once the message is on disk.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::config::settings::{RateAction, RateCount, Role};
use crate::dns::Resolver;
use crate::front::service::{Answered, Later, Peer, Ticket};
use crate::observe::meters::Stage;
use crate::observe::outcome::{Fate, Outcome};
use crate::policy::access;
use crate::policy::rates::RateFacts;
use crate::smtp::server::ask::{Answer, Received};
use crate::spool::queue::{Disposition, Done, MailQueue, NewMessage, SpoolFault};
use crate::verify::{self, Begun};
use crate::wire::envelope::Envelope;
use crate::wire::header::{forged_fields, kept_parts, missing_on_submission};
use crate::wire::reply::{Enhanced, Reply};

use super::checks::{self, Question};
use super::forward;
use super::house::House;
use super::judge::{self, ContentFacts, Ruling};
use super::reports::Judged;
use super::scanning::Scanned;
use super::service::facts_of;
use super::snapshot::Snapshot;
use super::stamp::Stamp;

/// A message on its way through the house.
struct Passage {
    id: QueueId,
    envelope: Arc<Envelope>,
    content: Content,
    /// Replies that the session waits for (RFC 2033 §4.2).
    replies_due: usize,
    /// Addresses outside of our domains that aliases led to.
    forwarded: HashSet<String>,
    /// Milters changed the content; fields that we would cut are theirs.
    milled: bool,
    facts: ContentFacts,
    listener: usize,
    submitted: bool,
    signs: bool,
    /// DMARC's word, once it is known.
    dmarc: Option<verify::Outcome>,
    began: Instant,
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
            return Answered::Now(self.no_room(&passage, &error));
        }
        match self.ruling(&passage, &view.listener.limits) {
            Ruling::Refuse { reply, reason } => Answered::Now(self.refused(&passage, reply, reason)),
            Ruling::Keep { disposition, reason } => {
                if view.waits_for_checks() || passage.signs && !snapshot.config.dkim.is_empty() {
                    let Some(place) = self.checks_under_way.enter() else {
                        return Answered::Now(self.refused(&passage, Reply::BUSY, "busy"));
                    };
                    let (snapshot, ticket) = (snapshot.clone(), later.ticket());
                    let runtime = self.runtime.clone();
                    runtime.spawn(async move {
                        self.checked(&snapshot, passage, begin.identity, disposition, ticket).await;
                        drop(place);
                    });
                } else {
                    self.keep(snapshot, passage, Vec::new(), disposition, reason, later.ticket());
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
        let replies_due = if role == Role::Lmtp { envelope.recipients.len() } else { 1 };
        let forwarded = forward::expand(&mut envelope, &snapshot.domains, snapshot.routes.srs(), SystemTime::now());
        Passage {
            id,
            forwarded,
            facts: ContentFacts::of(received.header, &received.content, &config.hostname),
            content: received.content,
            listener,
            submitted: is_submission,
            replies_due,
            milled: false,
            signs: is_submission || role == Role::Relay && access::is_trusted(envelope.origin.ip, config),
            envelope: Arc::new(envelope),
            dmarc: None,
            began: Instant::now(),
        }
    }

    /// Adds what RFC 6409 §8 lets a submission server add. The result may be as large as the message, and lies where that may lie.
    fn complete(&self, passage: &mut Passage, hostname: &str) -> io::Result<()> {
        let header = &passage.facts.header;
        if passage.submitted && (header.date == 0 || header.message_id == 0) {
            let message_id = format!("{}@{hostname}", passage.id);
            let missing = missing_on_submission(header, &message_id, SystemTime::now());
            passage.content = self.content.join(&[missing.as_bytes(), &passage.content])?;
        }
        Ok(())
    }

    fn no_room(&self, passage: &Passage, error: &io::Error) -> Answer {
        tracing::error!(id = %passage.id, %error, "no room for the content");
        self.refused(passage, Reply::NO_SPACE, "spool")
    }

    fn refused(&self, passage: &Passage, reply: Reply, reason: &'static str) -> Answer {
        self.meters.flow.replied(reply.code, reason);
        let fate = if reply.is_transient() { Fate::Deferred } else { Fate::Rejected };
        self.log_outcome(passage, fate, reason);
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
            signs: passage.signs,
            forwards: passage.envelope.recipients.iter().any(|to| snapshot.domains.of(&to.mailbox).is_none()),
        };
        let found = snapshot.checks.gather(&question, begun, &self.meters.flow).await;
        self.tell(snapshot, &mut passage, &found);
        match checks::rule(listener, &found, &reference) {
            Ruling::Refuse { reply, reason } => ticket.answer(self.refused(&passage, reply, reason)),
            Ruling::Keep { disposition, reason } => {
                let disposition = if before == Disposition::Deliver { disposition } else { before };
                let fields = snapshot.checks.fields(&found);
                passage.take_over(&found.scanned);
                let disposition = passage.without_recipients().unwrap_or(disposition);
                self.keep(snapshot, passage, fields, disposition, reason, ticket);
            }
        }
    }

    /// Tells those who collect for reports who sent the message. What begins its way here is no business of theirs.
    fn tell(self: &Arc<Self>, snapshot: &Snapshot, passage: &mut Passage, found: &checks::Found) {
        let Some((facts, results, decision)) = found.identity() else { return };
        passage.dmarc = Some(results.dmarc.outcome);
        let wanted = snapshot.config.reports.from.is_some() && results.dmarc.record.is_some();
        if passage.signs || !wanted {
            return;
        }
        let judged = Judged {
            envelope: passage.envelope.clone(),
            content: passage.content.clone(),
            facts: facts.clone(),
            results: results.clone(),
            decision: decision.clone(),
        };
        self.count_for_reports(&snapshot.config, &judged);
    }

    /// What the content and the rates say, before anything that waits.
    fn ruling(&self, passage: &Passage, limits: &crate::config::limits::Limits) -> Ruling {
        let ruling = judge::at_content(&passage.facts, limits);
        let Ruling::Keep { .. } = ruling else { return ruling };
        let origin = &passage.envelope.origin;
        let facts = RateFacts { sender: Some(passage.envelope.reverse_path.as_ref()), ..facts_of(origin) };
        let hits = self.charge(RateCount::Bytes, &facts, passage.content.len() as u64);
        if let Some(reply) = hits.iter().find(|hit| hit.refuses()).and_then(|hit| hit.decision().reply) {
            return Ruling::Refuse { reply, reason: "rate" };
        }
        match hits.iter().find(|hit| hit.action == RateAction::Hold) {
            Some(hit) => Ruling::Keep {
                disposition: Disposition::Hold(format!("{} {}", hit.rate, hit.key)),
                reason: "rate".into(),
            },
            None => ruling,
        }
    }

    /// Writes the message to the spool; the committer answers.
    fn keep(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        passage: Passage,
        fields: Vec<u8>,
        disposition: Disposition,
        reason: Cow<'static, str>,
        ticket: Box<dyn Ticket<Answer>>,
    ) {
        let content = match self.cleaned(snapshot, &passage) {
            Ok(content) => content,
            Err(error) => return ticket.answer(self.no_room(&passage, &error)),
        };
        let prefix = self.prefix(snapshot, &passage, fields);
        let (routes, now) = (&snapshot.routes, SystemTime::now());
        let envelopes = forward::split(&passage.envelope, &passage.forwarded, &snapshot.domains, routes.srs(), now);
        let prefix: Arc<[u8]> = prefix.into();
        let message = |nth: usize, envelope: Arc<Envelope>| NewMessage {
            id: if nth == 0 { passage.id } else { self.spool.next_id() },
            destinations: envelope.recipients.iter().map(|to| routes.destination(&to.mailbox)).collect(),
            envelope,
            prefix: prefix.clone(),
            content: content.clone(),
            disposition: disposition.clone(),
            verdict: (&*reason).into(),
        };
        let messages: Vec<NewMessage> =
            envelopes.into_iter().enumerate().map(|(nth, envelope)| message(nth, envelope)).collect();
        let fate = fate_of(&disposition);
        let (house, config, content) = (self.clone(), snapshot.config.clone(), content.clone());
        accept_all(
            &*self.spool,
            messages,
            Box::new(move |result| {
                let reply = match result {
                    Ok(()) => {
                        house.log_outcome(&passage, fate, &reason);
                        if fate == Fate::Accepted {
                            house.read_report(&config, &passage.envelope, &content, passage.dmarc);
                        }
                        Reply::new(250, Enhanced(2, 0, 0), format!("Ok: queued as {}", passage.id))
                    }
                    Err(fault) => {
                        tracing::error!(id = %passage.id, %fault, "not accepted");
                        house.log_outcome(&passage, Fate::Deferred, "spool");
                        fault.reply()
                    }
                };
                ticket.answer(Answer::Message(passage.replies(&reply)));
            }),
        );
    }

    /// The fields that go before the content.
    fn prefix(&self, snapshot: &Snapshot, passage: &Passage, more: Vec<u8>) -> Vec<u8> {
        let (config, envelope) = (&snapshot.config, &passage.envelope);
        let date = self.clock.date(SystemTime::now());
        let mut out = more;
        Stamp { hostname: &config.hostname, id: passage.id, envelope, date: &date }.received(&mut out);
        out
    }

    /// The content without fields that only we may assert; the same bytes where there are none. A login's own mail is left as it is.
    fn cleaned(&self, snapshot: &Snapshot, passage: &Passage) -> io::Result<Content> {
        if passage.milled {
            return Ok(passage.content.clone());
        }
        let cut = forged_fields(&passage.content, &snapshot.config.verify.authserv_id);
        if cut.is_empty() {
            return Ok(passage.content.clone());
        }
        self.content.join(&kept_parts(&passage.content, &cut))
    }

    fn log_outcome(&self, passage: &Passage, fate: Fate, reason: &str) {
        let (envelope, elapsed) = (&passage.envelope, passage.began.elapsed());
        let size = passage.content.len() as u64;
        self.meters.flow.message(fate, size);
        self.meters.flow.stage(Stage::Whole, elapsed);
        Outcome {
            id: &passage.id.to_string(),
            from: envelope.reverse_path.as_ref().map_or("", |path| path.as_str()),
            recipients: envelope.recipients.len(),
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

/// Keeps the messages that one became; `done` hears the end of the last. A part that is kept while another is not is delivered
/// again when the client comes again, as after any lost reply (RFC 5321 §4.5.4.2).
fn accept_all(spool: &dyn MailQueue, mut messages: Vec<NewMessage>, done: Done) {
    if messages.len() == 1 {
        return spool.accept(messages.remove(0), done);
    }
    let waiting = Arc::new(Mutex::new((messages.len(), Ok(()), Some(done))));
    for message in messages {
        let waiting = waiting.clone();
        let part_done = move |result: Result<(), SpoolFault>| {
            let mut all = waiting.lock();
            all.0 -= 1;
            if result.is_err() {
                all.1 = result;
            }
            if all.0 == 0
                && let Some(done) = all.2.take()
            {
                let whole = std::mem::replace(&mut all.1, Ok(()));
                drop(all);
                done(whole);
            }
        };
        spool.accept(message, Box::new(part_done));
    }
}

impl Passage {
    /// One reply for SMTP, one a recipient for LMTP (RFC 2033 §4.2).
    fn replies(&self, reply: &Reply) -> Vec<Reply> {
        vec![reply.clone(); self.replies_due]
    }

    /// Makes the changes that milters asked for.
    fn take_over(&mut self, scanned: &Scanned) {
        if let Some(content) = scanned.content() {
            self.content = content.clone();
            self.milled = true;
        }
        if let Some(envelope) = scanned.envelope(&self.envelope) {
            self.envelope = Arc::new(envelope);
        }
    }

    /// What becomes of a message whose recipients were all removed.
    fn without_recipients(&self) -> Option<Disposition> {
        self.envelope.recipients.is_empty().then(|| Disposition::Discard("a milter removed all recipients".into()))
    }
}

fn fate_of(disposition: &Disposition) -> Fate {
    match disposition {
        Disposition::Deliver => Fate::Accepted,
        Disposition::Hold(_) => Fate::Held,
        Disposition::Quarantine(_) => Fate::Quarantined,
        Disposition::Discard(_) => Fate::Discarded,
    }
}
