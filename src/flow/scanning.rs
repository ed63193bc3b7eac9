//! Scanners and milters as a message meets them: at RCPT, and once its content is there. I/O: through the scanners.
//!
//! What they say becomes symbols of the verdict, a ruling, other content, another envelope. The conversation at RCPT is one of its
//! own, without content; the whole of it is played again at the end of DATA, where the message is changed.

use std::sync::Arc;

use crate::base::content::Content;
use crate::config::scanners::SERVICE_NAME;
use crate::config::settings::{Listener, Mode};
use crate::filter::Symbol;
use crate::filter::scanners::milter::Transaction;
use crate::filter::scanners::{Consequence, Milled, Report, edit};
use crate::front::service::{Answered, Later};
use crate::policy::relay::Known;
use crate::policy::{Decision, Reason};
use crate::smtp::server::ask::Answer;
use crate::spool::queue::Disposition;
use crate::wire::address::Mailbox;
use crate::wire::envelope::{Envelope, Origin, Recipient};
use crate::wire::header::{forged_fields, kept_parts};
use crate::wire::milter::Edit;

use super::checks::{Checks, Question};
use super::house::House;
use super::judge::Ruling;
use super::service::RcptQuestion;
use super::snapshot::Snapshot;

/// What scanners and milters made of a message.
#[derive(Default)]
pub struct Scanned {
    pub(super) reports: Vec<Report>,
    pub(super) milled: Milled,
}

impl Scanned {
    /// What joins the verdict.
    pub fn symbols(&self) -> Vec<Symbol> {
        self.reports.iter().flat_map(|report| report.symbols.clone()).collect()
    }

    /// Header fields that scanners want added.
    pub fn fields(&self) -> String {
        let fields = self.reports.iter().flat_map(|report| &report.fields);
        fields
            .map(|(name, value)| format!("{name}: {}\r\n", String::from_utf8_lossy(&edit::folded(value.as_bytes()))))
            .collect()
    }

    /// The content as milters left it, if they changed it.
    pub fn content(&self) -> Option<&Content> {
        self.milled.content.as_ref()
    }

    /// `ruling`, or what a scanner or milter asks for where that is harsher. On a listener that only tags nothing is refused.
    pub fn rule(&self, listener: &Listener, ruling: Ruling) -> Ruling {
        if listener.filter == Mode::Tag {
            return ruling;
        }
        let asked = self.reports.iter().filter_map(|report| report.consequence.as_ref());
        let asked = asked.chain(&self.milled.consequence).map(ruling_of);
        asked.fold(ruling, |harshest, next| if severity(&next) > severity(&harshest) { next } else { harshest })
    }

    /// The settings of those who ask for more than points.
    pub fn settings(&self) -> String {
        let asked = self.reports.iter().filter(|report| report.consequence.is_some()).map(|report| &*report.setting);
        let milled = self.milled.consequence.iter().map(|_| &*self.milled.setting);
        asked.chain(milled).collect::<Vec<_>>().join("; ")
    }

    /// The envelope as milters left it; nothing if they changed nothing that can be done.
    pub fn envelope(&self, before: &Envelope) -> Option<Envelope> {
        let mut envelope = before.clone();
        for edit in &self.milled.envelope {
            match edit {
                Edit::AddRecipient(path) => add(&mut envelope, path),
                Edit::ChangeSender(path) => change_sender(&mut envelope, path),
                Edit::RemoveRecipient(path) => {
                    let gone = bare(path);
                    envelope.recipients.retain(|recipient| !recipient.mailbox.as_str().eq_ignore_ascii_case(gone));
                }
                Edit::AddHeader { .. }
                | Edit::ChangeHeader { .. }
                | Edit::InsertHeader { .. }
                | Edit::ReplaceBody(_) => {}
            }
        }
        (envelope != *before).then_some(envelope)
    }
}

fn bare(path: &str) -> &str {
    path.trim().trim_start_matches('<').trim_end_matches('>')
}

fn add(envelope: &mut Envelope, path: &str) {
    match Mailbox::parse(bare(path), envelope.smtputf8) {
        Ok(mailbox) if envelope.recipients.iter().all(|known| known.mailbox != mailbox) => {
            envelope.recipients.push(Recipient::plain(mailbox));
        }
        Ok(_) => {}
        Err(_) => tracing::warn!(%path, "a milter adds what is no recipient"),
    }
}

fn change_sender(envelope: &mut Envelope, path: &str) {
    match bare(path) {
        "" => envelope.reverse_path = None,
        sender => match Mailbox::parse(sender, envelope.smtputf8) {
            Ok(mailbox) => envelope.reverse_path = Some(mailbox),
            Err(_) => tracing::warn!(%path, "a milter sets what is no sender"),
        },
    }
}

fn ruling_of(consequence: &Consequence) -> Ruling {
    let keep = |disposition| Ruling::Keep { disposition, reason: "scanner".into() };
    match consequence.clone() {
        Consequence::Discard(reason) => keep(Disposition::Discard(reason)),
        Consequence::Quarantine(reason) => keep(Disposition::Quarantine(reason)),
        Consequence::Refuse(reply) => Ruling::Refuse { reply, reason: "scanner" },
    }
}

fn severity(ruling: &Ruling) -> u8 {
    match ruling {
        Ruling::Refuse { reply, .. } if reply.is_permanent() => 5,
        Ruling::Refuse { .. } => 4,
        Ruling::Keep { disposition: Disposition::Discard(_), .. } => 3,
        Ruling::Keep { disposition: Disposition::Quarantine(_), .. } => 2,
        Ruling::Keep { disposition: Disposition::Hold(_), .. } => 1,
        Ruling::Keep { disposition: Disposition::Deliver, .. } => 0,
    }
}

impl Checks {
    /// Asks all scanners but milters.
    pub(super) async fn scan(&self, question: &Question<'_>) -> Scanned {
        let mut scanned = Scanned::default();
        if self.scanners.see(question.listener) {
            let subject = self.subject(question, question.content.clone());
            scanned.reports = self.scanners.scan(question.listener, &subject).await;
        }
        scanned
    }

    /// Plays the message through the milters. They see it without the fields that only we may assert.
    pub(super) async fn mill(&self, question: &Question<'_>) -> Milled {
        // The changes that a milter makes can't be carried to another server; it is asked about our own mail only.
        if !self.scanners.see(question.listener) || *question.listener.name == *SERVICE_NAME {
            return Milled::default();
        }
        let cut = forged_fields(question.content, &self.authserv_id, question.listener.filter != Mode::Off);
        let content = match cut.as_slice() {
            [] => question.content.clone(),
            cut => Content::from_bytes(kept_parts(question.content, cut).concat()),
        };
        self.scanners.mill(question.listener, &self.subject(question, content)).await
    }

    fn subject(&self, question: &Question<'_>, content: Content) -> Transaction {
        let envelope = question.envelope;
        let recipients = envelope.recipients.iter().map(|recipient| recipient.mailbox.as_str().to_owned()).collect();
        Transaction {
            id: question.reference.to_owned(),
            content: Some(content),
            ..self.transaction(&envelope.origin, envelope.reverse_path.as_ref(), recipients)
        }
    }

    fn transaction(&self, origin: &Origin, reverse_path: Option<&Mailbox>, recipients: Vec<String>) -> Transaction {
        Transaction {
            hostname: self.scanners.hostname().to_owned(),
            listener: origin.listener.to_string(),
            id: String::new(),
            ip: Some(origin.ip),
            port: origin.port,
            host: origin.host.clone(),
            helo: origin.helo.clone(),
            login: origin.login.as_deref().map(str::to_owned),
            tls: origin.tls.clone(),
            sender: reverse_path.map_or_else(String::new, |path| path.as_str().to_owned()),
            recipients,
            content: None,
        }
    }
}

impl House {
    /// `decision`, unless it is a yes that milters want to be asked about first.
    pub(super) fn with_milters(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        listener: usize,
        question: RcptQuestion,
        (known, decision): (Known, Decision),
        later: &mut dyn Later<Answer>,
    ) -> Answered<Answer> {
        let view = &snapshot.listeners[listener];
        let asks = snapshot.checks.scanners.see_rcpt(&view.listener, question.accepted == 0);
        if !asks || !decision.is_allowed() {
            return Answered::Now(self.rcpt_heard(snapshot, listener, &question, known, decision));
        }
        let (house, snapshot, ticket) = (self.clone(), snapshot.clone(), later.ticket());
        self.runtime.spawn(async move {
            let decision = milters_at_rcpt(&snapshot, listener, &question, decision).await;
            ticket.answer(house.rcpt_heard(&snapshot, listener, &question, known, decision));
        });
        Answered::Later
    }
}

/// What milters say of one recipient that we would take.
pub(super) async fn milters_at_rcpt(
    snapshot: &Snapshot,
    listener: usize,
    question: &RcptQuestion,
    decision: Decision,
) -> Decision {
    let listener = &snapshot.listeners[listener].listener;
    let (checks, first) = (&snapshot.checks, question.accepted == 0);
    let tags = listener.filter == Mode::Tag;
    if tags || !decision.is_allowed() || !checks.scanners.see_rcpt(listener, first) {
        return decision;
    }
    let recipients = vec![question.recipient.mailbox.as_str().to_owned()];
    let subject = checks.transaction(&question.origin, question.reverse_path.as_ref(), recipients);
    match checks.scanners.rcpt(listener, &subject, first).await {
        Some((reply, setting)) => Decision { reply: Some(reply), reason: Reason::Scanner, setting },
        None => decision,
    }
}
