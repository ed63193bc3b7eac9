//! Into the spool, in as many parcels as a message has fates. I/O: the spool's queue.
//!
//! The client is answered once all of it is on disk. If one of several parcels can't be kept, the whole message is asked
//! for again, and those who have theirs already may get it twice: better than not at all (RFC 5321 §4.5.3.2.6).

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::config::Config;
use crate::config::settings::Mode;
use crate::filter::Verdict;
use crate::front::service::Ticket;
use crate::observe::outcome::Fate;
use crate::observe::trace::Record;
use crate::smtp::server::ask::Answer;
use crate::spool::queue::{Disposition, Done, MailQueue, NewMessage, SpoolFault};
use crate::wire::envelope::Envelope;
use crate::wire::header::{Field, fields, forged_fields, kept_parts};
use crate::wire::reply::{Enhanced, Reply};

use super::checks::Found;
use super::forward;
use super::house::House;
use super::judge::Ruling;
use super::message::{Passage, said, setting};
use super::parcels::Parcel;
use super::record;
use super::snapshot::Snapshot;
use super::stamp::Stamp;

/// Keeps the parts of one parcel; `done` hears the end of the last.
fn accept_all(spool: &dyn MailQueue, mut parts: Vec<NewMessage>, done: Done) {
    if parts.len() == 1 {
        return spool.accept(parts.remove(0), done);
    }
    let waiting = Arc::new(Mutex::new((parts.len(), Ok(()), Some(done))));
    for part in parts {
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
        spool.accept(part, Box::new(part_done));
    }
}

/// One parcel on its way.
struct Kept {
    id: QueueId,
    recipients: Vec<usize>,
    fate: Fate,
    reason: String,
}

/// A message on its way into the spool.
struct Arrival {
    house: Arc<House>,
    config: Arc<Config>,
    passage: Passage,
    kept: Vec<Kept>,
    /// LMTP: recipients who refuse.
    refused: Vec<(Vec<usize>, Reply)>,
    open: Mutex<Open>,
}

/// What is not known yet.
struct Open {
    left: usize,
    fault: Option<SpoolFault>,
    record: Option<Record>,
    ticket: Option<Box<dyn Ticket<Answer>>>,
}

impl House {
    /// Writes the message to the spool; the committer answers.
    pub(super) fn keep(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        passage: Passage,
        found: Option<Found>,
        parcels: Vec<Parcel>,
        ticket: Box<dyn Ticket<Answer>>,
    ) {
        let fields = found.as_ref().map(|found| snapshot.checks.fields(found)).unwrap_or_default();
        let (mut kept, mut refused, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        for parcel in &parcels {
            match &parcel.ruling {
                Ruling::Refuse { reply, reason } => {
                    self.meters.flow.replied(reply.code, reason);
                    refused.push((parcel.replies.clone(), reply.clone()));
                }
                Ruling::Keep { disposition, reason } => {
                    let id = if kept.is_empty() { passage.id } else { self.spool.next_id() };
                    let fate = fate_of(disposition);
                    match self.new_message(snapshot, &passage, parcel, id, &fields) {
                        Ok(message) => messages.push(self.parts(snapshot, &passage, message)),
                        Err(error) => return ticket.answer(self.no_room(snapshot, &passage, &error)),
                    }
                    kept.push(Kept { id, recipients: parcel.recipients.clone(), fate, reason: reason.to_string() });
                }
            }
        }
        let fate = kept.iter().map(|kept| kept.fate).min_by_key(|fate| favour(*fate)).unwrap_or(Fate::Rejected);
        let mut record = self.record(snapshot, &passage, found.as_ref(), fate);
        if let Some(record) = &mut record {
            let mut ids = kept.iter().map(|kept| (kept.id.to_string(), kept.fate));
            let one = |parcel: &Parcel| {
                let (id, fate) = if parcel.is_refused() { None } else { ids.next() }
                    .unwrap_or_else(|| (passage.id.to_string(), Fate::Rejected));
                record::parcel(parcel, &passage.envelope, &id, fate)
            };
            record.parcels = parcels.iter().map(one).collect();
            let reason = kept.first().map_or("", |kept| kept.reason.as_str());
            record.decided.setting = setting(snapshot, &passage, found.as_ref(), &parcels, reason);
        }
        let open = Open { left: messages.len(), fault: None, record, ticket: Some(ticket) };
        let arrival = Arrival {
            house: self.clone(),
            config: snapshot.config.clone(),
            passage,
            kept,
            refused,
            open: Mutex::new(open),
        };
        let arrival = Arc::new(arrival);
        if messages.is_empty() {
            return arrival.answer();
        }
        for (place, parts) in messages.into_iter().enumerate() {
            let arrival = arrival.clone();
            accept_all(&*self.spool, parts, Box::new(move |result| arrival.landed(place, result)));
        }
    }

    /// The message, or two of it where some recipients need another reverse-path.
    fn parts(&self, snapshot: &Snapshot, passage: &Passage, message: NewMessage) -> Vec<NewMessage> {
        if passage.forwarded.is_empty() {
            return vec![message];
        }
        let (routes, now) = (&snapshot.routes, SystemTime::now());
        let envelopes = forward::split(&message.envelope, &passage.forwarded, &snapshot.domains, routes.srs(), now);
        let part = |(nth, envelope): (usize, Arc<Envelope>)| NewMessage {
            id: if nth == 0 { message.id } else { self.spool.next_id() },
            destinations: envelope.recipients.iter().map(|to| routes.destination(&to.mailbox)).collect(),
            envelope,
            ..message.clone()
        };
        envelopes.into_iter().enumerate().map(part).collect()
    }

    fn new_message(
        &self,
        snapshot: &Snapshot,
        passage: &Passage,
        parcel: &Parcel,
        id: QueueId,
        fields: &str,
    ) -> io::Result<NewMessage> {
        let Ruling::Keep { disposition, reason } = &parcel.ruling else { unreachable!("only what is kept is written") };
        let envelope = envelope_of(&passage.envelope, &parcel.recipients);
        let to = |recipient: &crate::wire::envelope::Recipient| snapshot.routes.destination(&recipient.mailbox);
        let marked = parcel.verdict.as_ref().is_some_and(Verdict::marks_subject)
            && snapshot.listeners[passage.listener].listener.filter == Mode::Enforce;
        let subject = if marked { subject_of(&passage.content) } else { None };
        let mut prefix = fields.as_bytes().to_vec();
        if let Some(verdict) = &parcel.verdict {
            prefix.extend_from_slice(verdict.header_fields().as_bytes());
            prefix.extend_from_slice(format!("X-Weir-Id: {id}\r\n").as_bytes());
        }
        let date = self.clock.date(SystemTime::now());
        Stamp { hostname: &snapshot.config.hostname, id, envelope: &envelope, date: &date }.received(&mut prefix);
        if marked {
            prefix.extend(marked_subject(&snapshot.config.filter.subject_mark, subject.as_ref()));
        }
        Ok(NewMessage {
            id,
            destinations: envelope.recipients.iter().map(to).collect(),
            prefix: prefix.into(),
            content: self.cleaned(snapshot, passage, subject.as_ref())?,
            disposition: disposition.clone(),
            verdict: (&**reason).into(),
            envelope,
        })
    }

    /// The content without fields that only we may assert, and without `subject`; the same bytes where there are none. Milters have
    /// seen it cleaned already, and what they added is theirs.
    fn cleaned(&self, snapshot: &Snapshot, passage: &Passage, subject: Option<&Field<'_>>) -> io::Result<Content> {
        let content = &passage.content;
        let authserv_id = &snapshot.config.verify.authserv_id;
        let judged = snapshot.listeners[passage.listener].listener.filter != Mode::Off;
        let mut cut = if passage.milled { Vec::new() } else { forged_fields(content, authserv_id, judged) };
        cut.extend(subject.map(|field| field.range.clone()));
        if cut.is_empty() {
            return Ok(content.clone());
        }
        cut.sort_by_key(|range| range.start);
        self.content.join(&kept_parts(content, &cut))
    }
}

/// The envelope for some of its recipients.
fn envelope_of(envelope: &Arc<Envelope>, recipients: &[usize]) -> Arc<Envelope> {
    if recipients.len() == envelope.recipients.len() {
        return envelope.clone();
    }
    let some = recipients.iter().map(|place| envelope.recipients[*place].clone()).collect();
    Arc::new(Envelope { recipients: some, ..Envelope::clone(envelope) })
}

fn subject_of(content: &[u8]) -> Option<Field<'_>> {
    fields(content).find(|field| field.is("Subject"))
}

/// The subject with its mark, once however often a message comes by. The rest of the value stays as it was encoded.
fn marked_subject(mark: &str, subject: Option<&Field<'_>>) -> Vec<u8> {
    let value = subject.map_or(&b"\r\n"[..], |field| field.value.trim_ascii_start());
    let mark = if value.starts_with(mark.as_bytes()) { "" } else { mark };
    let end = if value.ends_with(b"\n") { &b""[..] } else { b"\r\n" };
    [b"Subject: ", mark.as_bytes(), value, end].concat()
}

impl Arrival {
    /// The client hears before anything is written down about it, which would hold up this answer and those behind it.
    fn landed(&self, place: usize, result: Result<(), SpoolFault>) {
        let kept = &self.kept[place];
        let fault = result.err();
        let fate = if fault.is_none() { kept.fate } else { Fate::Deferred };
        self.house.count_outcome(&self.passage, fate);
        let is_last = {
            let mut open = self.open.lock();
            open.fault = open.fault.take().or_else(|| fault.clone());
            open.left -= 1;
            open.left == 0
        };
        if is_last {
            self.answer();
        }
        if let Some(fault) = &fault {
            tracing::error!(id = %kept.id, %fault, "not accepted");
        }
        let reason = if fault.is_some() { "spool" } else { &kept.reason };
        self.house.log_outcome(&self.passage, kept.id, kept.recipients.len(), fate, reason);
    }

    fn answer(&self) {
        let (fault, record, ticket) = {
            let mut open = self.open.lock();
            (open.fault.take(), open.record.take(), open.ticket.take())
        };
        let taken = || Reply::new(250, Enhanced(2, 0, 0), format!("Ok: queued as {}", self.passage.id));
        let reply = fault.as_ref().map_or_else(taken, SpoolFault::reply);
        let mut replies = self.passage.replies(&reply);
        for (recipients, refusal) in &self.refused {
            recipients.iter().for_each(|place| replies[*place] = refusal.clone());
        }
        let words = record.is_some().then(|| said_by(&replies));
        if let Some(ticket) = ticket {
            ticket.answer(Answer::Message(replies));
        }
        let fate = match &fault {
            Some(_) => Fate::Deferred,
            None => self.kept.iter().map(|kept| kept.fate).min_by_key(|fate| favour(*fate)).unwrap_or(Fate::Rejected),
        };
        if fate == Fate::Accepted {
            let (house, passage) = (&self.house, &self.passage);
            house.read_report(&self.config, &passage.envelope, &passage.content, passage.dmarc);
        }
        if let Some(mut record) = record {
            let reason = if fault.is_some() { "spool" } else { self.kept.first().map_or("spam", |kept| &kept.reason) };
            reason.clone_into(&mut record.decided.reason);
            record.decided.reply = words.unwrap_or_default();
            self.house.remember(&self.config, &self.passage, record, fate);
        }
    }
}

/// What all of them say, each once.
fn said_by(replies: &[Reply]) -> String {
    let mut words: Vec<String> = replies.iter().map(said).collect();
    words.dedup();
    words.join(" | ")
}

/// What a recipient would like best comes first.
fn favour(fate: Fate) -> u8 {
    match fate {
        Fate::Accepted => 0,
        Fate::Held => 1,
        Fate::Quarantined => 2,
        Fate::Discarded => 3,
        Fate::Deferred => 4,
        Fate::Rejected => 5,
    }
}

pub(super) fn fate_of(disposition: &Disposition) -> Fate {
    match disposition {
        Disposition::Deliver => Fate::Accepted,
        Disposition::Hold(_) => Fate::Held,
        Disposition::Quarantine(_) => Fate::Quarantined,
        Disposition::Discard(_) => Fate::Discarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_marked_once_and_made_where_there_is_none() {
        let marked =
            |content: &[u8]| String::from_utf8(marked_subject("[SPAM] ", subject_of(content).as_ref())).unwrap();
        assert_eq!(marked(b"Subject: =?x?=\r\n\tmore\r\n\r\n"), "Subject: [SPAM] =?x?=\r\n\tmore\r\n");
        assert_eq!(marked(b"subject:[SPAM] a\r\n\r\n"), "Subject: [SPAM] a\r\n");
        assert_eq!(marked(b"From: a\r\n\r\n"), "Subject: [SPAM] \r\n");
    }
}
