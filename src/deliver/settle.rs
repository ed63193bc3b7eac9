//! From the answers of an attempt to outcomes for the queue and reports for the sender. Pure: time, chance and ids are passed in.
//!
//! RFC 3461 §5.2, RFC 5321 §6.1. Invariant: each leased recipient gets exactly one outcome; nobody hears of a message with a null reverse-path.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bounce::{self, Action, Row, Subject};
use super::route::Routes;
use super::schedule::{self, Step, Waiting};
use super::transport::{Answer, Fate, Job};
use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::config::settings::Retry;
use crate::spool::queue::{Disposition, NewMessage, Outcome};
use crate::wire::envelope::{BodyType, Envelope, Notify, Origin, Recipient};
use crate::wire::reply::Enhanced;

/// A recipient whose route changed is tried there after this.
const MOVED_DELAY: Duration = Duration::from_secs(1);

/// What settling needs to know.
pub struct Facts<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// `[retry]`.
    pub retry: &'a Retry,
    /// For the way back to the sender.
    pub routes: &'a Routes,
    /// Now.
    pub now: SystemTime,
    /// 0..1.
    pub random: f64,
    /// The hop keeps the mail itself, so that success is `delivered` and not `relayed`.
    pub is_final: bool,
}

/// What [`settle`] gives.
#[derive(Debug, Default)]
pub struct Settled {
    /// By envelope index.
    pub outcomes: Vec<(u32, Outcome)>,
    /// At most one report, if the sender is to hear of something.
    pub report: Option<NewMessage>,
    /// What the report says of each recipient in it.
    pub reported: Vec<Action>,
}

/// Settles a job whose recipients all have answers. `report_id` is the id a report gets.
pub fn settle(job: &Job, facts: &Facts<'_>, report_id: impl FnOnce() -> QueueId) -> Settled {
    let mut settled = Settled::default();
    let mut rows = Vec::new();
    for (position, leased) in job.lease.recipients.iter().enumerate() {
        let answer = job.answers[position].as_ref().expect("a settled job has all answers");
        let (outcome, action) = decide(job, position, answer, facts);
        settled.outcomes.push((leased.index, outcome));
        let recipient = job.recipient(position);
        if let Some(action) = action.filter(|action| wanted(recipient.notify, *action)) {
            rows.push(Row { recipient, action, answer });
        }
    }
    if let (Some(_), false) = (&job.lease.envelope.reverse_path, rows.is_empty()) {
        settled.reported = rows.iter().map(|row| row.action).collect();
        settled.report = Some(report(job, facts, report_id(), &rows));
    }
    settled
}

fn decide(job: &Job, position: usize, answer: &Answer, facts: &Facts<'_>) -> (Outcome, Option<Action>) {
    let remote = answer.line();
    match answer.fate {
        Fate::Delivered => {
            let action = match (facts.is_final, answer.reports_success) {
                (true, _) => Some(Action::Delivered),
                (false, true) => None,
                (false, false) => Some(Action::Relayed),
            };
            (Outcome::Delivered { remote }, action)
        }
        Fate::Discarded => (Outcome::Discarded, None),
        Fate::Failed => (Outcome::Bounced { remote }, Some(Action::Failed)),
        Fate::Moved => {
            let delay_notified = job.lease.recipients[position].delay_notified;
            (Outcome::Deferred { remote, next: facts.now + MOVED_DELAY, delay_notified }, None)
        }
        Fate::Deferred => deferred(job, position, remote, facts),
    }
}

fn deferred(job: &Job, position: usize, remote: String, facts: &Facts<'_>) -> (Outcome, Option<Action>) {
    let leased = &job.lease.recipients[position];
    let waiting = Waiting {
        accepted: job.lease.accepted,
        attempts: leased.attempts + 1,
        null_sender: job.lease.envelope.reverse_path.is_none(),
        delay_notified: leased.delay_notified,
    };
    match schedule::after_deferral(facts.retry, waiting, facts.now, facts.random) {
        Step::Expire => (Outcome::Expired { remote }, Some(Action::Failed)),
        Step::Retry { next, notify_delay } => {
            // Remembered even if NOTIFY forbids the notice: it is decided once.
            let delay_notified = leased.delay_notified || notify_delay;
            (Outcome::Deferred { remote, next, delay_notified }, notify_delay.then_some(Action::Delayed))
        }
    }
}

/// What NOTIFY asks for (RFC 3461 §4.1); success only if it says so.
fn wanted(notify: Option<Notify>, action: Action) -> bool {
    let notify = notify.unwrap_or(Notify::DEFAULT);
    match action {
        Action::Delayed => notify.delay,
        Action::Failed => notify.failure,
        Action::Delivered | Action::Relayed => notify.success,
    }
}

fn report(job: &Job, facts: &Facts<'_>, id: QueueId, rows: &[Row<'_>]) -> NewMessage {
    let lease = &job.lease;
    let sender = lease.envelope.reverse_path.clone().expect("null senders get no reports");
    let subject = Subject {
        hostname: facts.hostname,
        id,
        about: lease.id,
        envelope: &lease.envelope,
        accepted: lease.accepted,
        expires: lease.accepted + schedule::lifetime(facts.retry, false),
        now: facts.now,
        content: &lease.content,
    };
    let content = bounce::report(&subject, rows);
    let utf8 = bounce::is_utf8(&lease.envelope);
    let received = format!("Received: by {} id {id};\r\n\t{}\r\n", facts.hostname, bounce::date(facts.now));
    let envelope = Envelope {
        origin: own_origin(),
        reverse_path: None,
        body: if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
        smtputf8: utf8,
        require_tls: lease.envelope.require_tls,
        ret: None,
        envid: None,
        recipients: vec![Recipient::plain(sender.clone())],
    };
    NewMessage {
        id,
        destinations: vec![facts.routes.destination(&sender)],
        envelope: Arc::new(envelope),
        prefix: received.into_bytes().into(),
        content: Content::from_bytes(content),
        disposition: Disposition::Deliver,
        verdict: format!("report about {}", lease.id).into(),
    }
}

/// Where mail of our own comes from.
fn own_origin() -> Origin {
    Origin {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        helo: String::new(),
        host: None,
        login: None,
        tls: None,
        protocol: "local",
        listener: "report".into(),
    }
}

/// The answer for recipients of mail that waited too long at a destination that was never tried.
pub fn expired_answer(why: &str) -> Answer {
    Answer::local(Fate::Deferred, Enhanced(4, 4, 7), format!("waited too long; {why}"))
}
