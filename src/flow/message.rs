//! A complete message: facts, ruling, then into the spool. I/O: the spool's queue; checks on tokio and rayon.
//!
//! Nothing here waits on the reactor's thread. The reply is given by whoever learns the message's fate: at once for a
//! refusal, by the committer once the message is on disk.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::config::settings::{RateAction, RateCount, Role};
use crate::front::service::{Answered, Later, Ticket};
use crate::observe::meters::Stage;
use crate::observe::outcome::{Fate, Outcome};
use crate::policy::rates::RateFacts;
use crate::smtp::server::ask::{Answer, Received};
use crate::spool::queue::{Disposition, NewMessage};
use crate::wire::envelope::Envelope;
use crate::wire::header::{forged_fields, kept_parts, missing_on_submission};
use crate::wire::reply::{Enhanced, Reply};

use super::house::House;
use super::judge::{self, ContentFacts, Ruling};
use super::service::facts_of;
use super::snapshot::Snapshot;
use super::stamp::Stamp;

/// A message on its way through the house.
struct Passage {
    id: QueueId,
    envelope: Arc<Envelope>,
    content: Content,
    facts: ContentFacts,
    listener: usize,
    lmtp: bool,
    began: Instant,
}

impl House {
    /// Answers [`crate::smtp::server::ask::Ask::Message`].
    pub fn message(
        self: Arc<Self>,
        snapshot: &Arc<Snapshot>,
        listener: usize,
        received: Box<Received>,
        later: &mut dyn Later<Answer>,
    ) -> Answered<Answer> {
        let view = &snapshot.listeners[listener];
        let passage = Passage {
            id: self.spool.next_id(),
            facts: ContentFacts::of(received.header, &received.content, &snapshot.config.hostname),
            content: received.content,
            listener,
            lmtp: view.listener.role == Role::Lmtp,
            envelope: Arc::new(received.envelope),
            began: Instant::now(),
        };
        match self.ruling(&passage, &view.listener.limits) {
            Ruling::Refuse { reply, reason } => {
                self.meters.flow.replied(reply.code, reason);
                let fate = if reply.is_transient() { Fate::Deferred } else { Fate::Rejected };
                self.log_outcome(&passage, fate, reason);
                Answered::Now(Answer::Message(passage.replies(&reply)))
            }
            Ruling::Keep { disposition, reason } => {
                self.keep(snapshot, passage, Vec::new(), disposition, reason, later.ticket());
                Answered::Later
            }
        }
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
            Some(hit) => {
                Ruling::Keep { disposition: Disposition::Hold(format!("{} {}", hit.rate, hit.key)), reason: "rate" }
            }
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
        reason: &'static str,
        ticket: Box<dyn Ticket<Answer>>,
    ) {
        let prefix = self.prefix(snapshot, &passage, fields);
        let destinations = passage
            .envelope
            .recipients
            .iter()
            .map(|recipient| snapshot.routes.destination(&recipient.mailbox))
            .collect();
        let message = NewMessage {
            id: passage.id,
            envelope: passage.envelope.clone(),
            destinations,
            prefix: prefix.into(),
            content: self.cleaned(snapshot, &passage),
            disposition,
            verdict: reason.into(),
        };
        let fate = fate_of(&message.disposition);
        let house = self.clone();
        self.spool.accept(
            message,
            Box::new(move |result| {
                let reply = match result {
                    Ok(()) => {
                        house.log_outcome(&passage, fate, reason);
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
        let now = SystemTime::now();
        let (config, envelope) = (&snapshot.config, &passage.envelope);
        let mut out = more;
        Stamp { hostname: &config.hostname, id: passage.id, envelope, date: &self.clock.date(now) }.received(&mut out);
        let role = snapshot.listeners[passage.listener].listener.role;
        if judge::is_submission(role, envelope.origin.login.is_some()) {
            let message_id = format!("{}@{}", passage.id, config.hostname);
            out.extend_from_slice(missing_on_submission(&passage.facts.header, &message_id, now).as_bytes());
        }
        out
    }

    /// The content without fields that only we may assert; the same bytes where there are none. A login's own mail is left as it is.
    fn cleaned(&self, snapshot: &Snapshot, passage: &Passage) -> Content {
        let cut = forged_fields(&passage.content, &snapshot.config.verify.authserv_id);
        if cut.is_empty() {
            return passage.content.clone();
        }
        Content::from_bytes(kept_parts(&passage.content, &cut).concat())
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

impl Passage {
    /// One reply for SMTP, one a recipient for LMTP (RFC 2033 §4.2).
    fn replies(&self, reply: &Reply) -> Vec<Reply> {
        vec![reply.clone(); if self.lmtp { self.envelope.recipients.len() } else { 1 }]
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
