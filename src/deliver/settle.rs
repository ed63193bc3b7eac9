//! From the answers of an attempt to outcomes for the queue and reports for the sender. Pure: time, chance and ids are passed in.
//!
//! RFC 3461 §5.2, RFC 5321 §6.1. Invariant: each leased recipient gets exactly one outcome; nobody hears of a message with a null reverse-path.

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
    /// Since when this server runs.
    pub started: SystemTime,
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
        started: facts.started,
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
    let mut about = lease.envelope.clone();
    let mut sender = about.reverse_path.clone().expect("null senders get no reports");
    if let Some(behind) = facts.routes.way_back(&sender, facts.now) {
        Arc::make_mut(&mut about).reverse_path = Some(behind.clone());
        sender = behind;
    }
    let subject = Subject {
        hostname: facts.hostname,
        id,
        about: lease.id,
        envelope: &about,
        accepted: lease.accepted,
        expires: schedule::expires(facts.retry, false, lease.accepted, facts.started),
        now: facts.now,
        content: &lease.content,
    };
    let content = bounce::report(&subject, rows);
    let utf8 = bounce::is_utf8(&about);
    let received = format!("Received: by {} id {id};\r\n\t{}\r\n", facts.hostname, bounce::date(facts.now));
    let to = vec![Recipient::plain(sender.clone())];
    let envelope = Envelope {
        body: if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
        smtputf8: utf8,
        require_tls: lease.envelope.require_tls,
        ..Envelope::plain(Origin::local("report"), None, to)
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

/// The answer for recipients of mail that waited too long at a destination that was never tried.
pub fn expired_answer(why: &str) -> Answer {
    Answer::local(Fate::Deferred, Enhanced(4, 4, 7), format!("waited too long; {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::held::Held;
    use crate::smtp::client::reply::RemoteReply;
    use crate::spool::queue::{Lease, LeasedRecipient};
    use crate::wire::address::Mailbox;
    use crate::wire::envelope::Return;

    const HOUR: u64 = 3600;

    fn retry() -> Retry {
        let hours = |n| Duration::from_secs(n * HOUR);
        Retry {
            first: Duration::from_secs(300),
            factor: 2.0,
            max: hours(4),
            expire: hours(120),
            expire_null_sender: hours(24),
            delay_notice: hours(4),
        }
    }

    fn reply(code: u16, text: &str) -> Answer {
        let enhanced = text.starts_with("5.1.1").then_some(Enhanced(5, 1, 1));
        let text = text.trim_start_matches("5.1.1 ").into();
        let reply = RemoteReply { code, enhanced, text };
        Answer::from_reply(&reply, &"mx.example.org [192.0.2.1]".into(), false)
    }

    /// A job to `recipients`, accepted at 1,000,000 s, all answered with `answer`.
    fn job(sender: &str, recipients: &[&str], answer: &Answer) -> Job {
        let mailbox = |text: &str| Mailbox::parse(text, true).expect("a test's address");
        let to = recipients.iter().map(|text| Recipient::plain(mailbox(text))).collect();
        let envelope = Envelope {
            smtputf8: true,
            ret: Some(Return::Headers),
            envid: Some("QQ314159".into()),
            ..Envelope::plain(Origin::local("report"), (!sender.is_empty()).then(|| mailbox(sender)), to)
        };
        let leased = |index| LeasedRecipient { index, attempts: 0, delay_notified: false };
        let mut job = Job::new(Held::loose(Lease {
            id: QueueId(1 << 40),
            envelope: Arc::new(envelope),
            destination: "example.org".into(),
            recipients: (0..recipients.len() as u32).map(leased).collect(),
            accepted: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            prefix: Arc::from(&b"X: y\r\n"[..]),
            content: Content::from_bytes(b"Subject: hello\r\nFrom: a@sender.example\r\n\r\nbody\r\n".to_vec()),
        }));
        job.answer_rest(answer);
        job
    }

    fn run(job: &Job, hours: u64, is_final: bool) -> Settled {
        let config = crate::config::Config::default_for(std::path::Path::new("/nonexistent"));
        let now = job.lease.accepted + Duration::from_secs(hours * HOUR);
        let (routes, retry) = (Routes::new(&config), retry());
        let started = job.lease.accepted;
        let facts =
            Facts { hostname: "weir.example", retry: &retry, routes: &routes, now, started, random: 0.0, is_final };
        settle(job, &facts, || QueueId(2 << 40))
    }

    fn text(settled: &Settled) -> String {
        String::from_utf8(settled.report.as_ref().expect("a report").content.to_vec()).expect("UTF-8")
    }

    /// Compares with the file, which stands as it goes over the wire but for line ends.
    fn same_as(file: &str, settled: &Settled) {
        let path = format!("{}/tests/deliver/reports/{file}.eml", env!("CARGO_MANIFEST_DIR"));
        let report = text(settled).replace("\r\n", "\n");
        if std::env::var_os("WEIR_WRITE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &report).expect("the snapshot can be written");
        }
        assert_eq!(report, std::fs::read_to_string(&path).expect("the snapshot exists"), "{path}");
    }

    #[test]
    fn reports_read_as_their_snapshots() {
        let failed = job("a@sender.example", &["b@example.org", "c@example.org"], &reply(550, "5.1.1 no such user"));
        same_as("failed", &run(&failed, 1, false));
        let delayed = job("a@sender.example", &["b@example.org"], &reply(451, "later"));
        same_as("delayed", &run(&delayed, 5, false));
        same_as("expired", &run(&delayed, 121, false));
        let utf8 = job("ä@sender.example", &["ü@example.org"], &reply(550, "nö"));
        same_as("failed_utf8", &run(&utf8, 1, false));
    }

    #[test]
    fn success_is_reported_only_on_request_and_by_the_last_who_can() {
        let mut job = job("a@sender.example", &["b@example.org"], &reply(250, "ok"));
        assert!(run(&job, 1, true).report.is_none());
        Arc::make_mut(&mut job.lease.envelope).recipients[0].notify = Some(Notify { success: true, ..Notify::NEVER });
        assert_eq!(run(&job, 1, true).reported, [Action::Delivered]);
        assert_eq!(run(&job, 1, false).reported, [Action::Relayed]);
        job.answers[0].as_mut().expect("answered").reports_success = true;
        assert!(run(&job, 1, false).report.is_none(), "the next hop reports it");
    }

    #[test]
    fn nobody_hears_of_null_senders_or_against_notify() {
        let answer = reply(550, "no");
        assert!(run(&job("", &["b@example.org"], &answer), 1, false).report.is_none());
        let mut never = job("a@sender.example", &["b@example.org"], &answer);
        Arc::make_mut(&mut never.lease.envelope).recipients[0].notify = Some(Notify::NEVER);
        let settled = run(&never, 1, false);
        assert!(settled.report.is_none() && matches!(settled.outcomes[0].1, Outcome::Bounced { .. }));
    }

    #[test]
    fn strangers_can_not_inject_into_reports() {
        let mut job =
            job("a@sender.example", &["b@example.org"], &reply(550, "x\r\nBcc: evil@example.org\r\n\r\n--=_"));
        let hostile = "Subject: x\r\nX: --=_0000200000000\r\nY: a\rb\nc\0d\r\n\r\nbody";
        job.lease.content = Content::from_bytes(hostile.as_bytes().to_vec());
        Arc::make_mut(&mut job.lease.envelope).envid = Some("a\r\nBcc: evil@example.org".into());
        let text = text(&run(&job, 1, false));
        assert!(!text.contains("\nBcc:") && !text.contains('\0'));
        assert!(text.contains("Y: a b c d\r\n"), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    }
}
