//! Judges messages of other mail servers with the gateway's own checks. I/O: through the stages.
//!
//! The same facts are gathered and the same ruling is made as for mail that we take ourselves; only what follows is another's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use crate::base::content::{Content, ContentSource};
use crate::base::id::QueueId;
use crate::config::scanners::Service;
use crate::config::settings::{Listener, Mode};
use crate::filter::Verdict;
use crate::filter::classifier::Label;
use crate::observe::outcome as observe;
use crate::observe::trace::Decided;
use crate::services::{Answer, Case, Fate, Judge, Judgement};
use crate::spool::queue::Disposition;
use crate::verify::{self, Message};
use crate::wire::address::Mailbox;
use crate::wire::checkv2::Symbol;
use crate::wire::envelope::{BodyType, Envelope, Origin, Recipient};
use crate::wire::header::{fields, forged_fields};

use super::checks::{Found, Question};
use super::house::House;
use super::judge::Ruling;
use super::keep::fate_of as fate_of_disposition;
use super::message::{said, setting_of};
use super::parcels::{self, Parcel};
use super::record;
use super::snapshot::Snapshot;

/// The judge of the services.
pub struct Counsel(pub Arc<House>);

impl Judge for Counsel {
    fn settings(&self) -> Service {
        self.0.snapshot.load().config.service.clone()
    }

    fn content(&self) -> ContentSource {
        self.0.content.clone()
    }

    fn judge(&self, case: Case) -> Answer<'_, Option<Judgement>> {
        Box::pin(async move {
            let _place = self.0.checks_under_way.enter()?;
            Some(self.0.counsel(case).await)
        })
    }

    fn learn(&self, content: Content, spam: bool) -> Answer<'_, bool> {
        Box::pin(self.0.teach(if spam { Label::Spam } else { Label::Ham }, content, None))
    }
}

impl House {
    async fn counsel(&self, case: Case) -> Judgement {
        let snapshot = self.snapshot.load_full();
        let began = Instant::now();
        let reference = self.spool.next_id();
        let id = reference.to_string();
        let mut listener = snapshot.service.clone();
        let envelope = envelope_of(&case, &snapshot, &mut listener);
        let question = Question {
            listener: &listener,
            envelope: &envelope,
            content: &case.content,
            reference: &id,
            signs: false,
            forwards: false,
        };
        let found = snapshot.checks.gather(&question, None, &self.meters.flow).await;
        let mut parcels = self.parcels(&snapshot, &question, &found);
        // The protocols have one answer for all recipients, and no way to split a message.
        parcels::reconcile(&mut parcels, false);
        self.record_counsel(&snapshot, &question, reference, &found, &parcels, began);
        let parcel = parcels.into_iter().next().expect("a message has a parcel at least");
        let verdict = parcel.verdict.as_ref().or(found.verdict());
        let marks = verdict.map(Verdict::header_fields).unwrap_or_default();
        let symbols = verdict.map_or_else(Vec::new, |verdict| {
            verdict.symbols.iter().filter(|symbol| !symbol.shadow).map(symbol_of).collect()
        });
        Judgement {
            fate: fate_of(parcel.ruling),
            score: verdict.map_or(0.0, |verdict| verdict.score.value()),
            tag: verdict.map_or(f64::INFINITY, |verdict| verdict.thresholds.tag),
            reject: verdict.map_or(f64::INFINITY, |verdict| verdict.thresholds.reject),
            spam: verdict.is_some_and(|verdict| verdict.is_spam()),
            symbols,
            fields: (snapshot.checks.fields(&found) + &marks).into_bytes(),
            forged: forged_of(&case.content, &snapshot.checks.authserv_id, verdict.is_some()),
            seconds: began.elapsed().as_secs_f64(),
            id,
        }
    }
}

impl House {
    /// What other servers asked about is remembered like mail of our own.
    fn record_counsel(
        &self,
        snapshot: &Snapshot,
        question: &Question<'_>,
        id: QueueId,
        found: &Found,
        parcels: &[Parcel],
        began: Instant,
    ) {
        let fate = parcels.iter().map(|parcel| kept_as(&parcel.ruling)).next().unwrap_or(observe::Fate::Accepted);
        let judged = found.verdict.is_some() || found.identity.is_some();
        if !record::is_kept(snapshot.config.trace.record, judged, fate) {
            return;
        }
        let mut record = record::begin(id, question.envelope, question.content, false, found.checks.clone());
        record::add_findings(&mut record, found);
        let one =
            |parcel: &Parcel| record::parcel(parcel, question.envelope, question.reference, kept_as(&parcel.ruling));
        record.parcels = parcels.iter().map(one).collect();
        let ruling = parcels.first().map(|parcel| &parcel.ruling);
        let reason = ruling.map_or("", Ruling::reason).to_owned();
        let reply = match ruling {
            Some(Ruling::Refuse { reply, .. }) => said(reply),
            _ => format!("told the server that asked ({})", question.envelope.origin.protocol),
        };
        let setting = setting_of(question.listener, Some(found), parcels, &reason);
        record.decided = Decided { reason, reply, setting };
        self.hand_over(&snapshot.config, record, fate, question.content, began);
    }
}

/// What the server that asked will do, if it does as it is told.
fn kept_as(ruling: &Ruling) -> observe::Fate {
    match ruling {
        Ruling::Refuse { reply, .. } if reply.is_transient() => observe::Fate::Deferred,
        Ruling::Refuse { .. } => observe::Fate::Rejected,
        Ruling::Keep { disposition, .. } => fate_of_disposition(disposition),
    }
}

/// The envelope as far as it is known. Where the protocol does not tell the client, the topmost `Received` field does; without one
/// there is nobody to ask SPF about, and identity is left out.
fn envelope_of(case: &Case, snapshot: &Snapshot, listener: &mut Listener) -> Envelope {
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let hop = || {
        let own = ["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
        let trusted = [&own[..], &snapshot.checks.trusted_hops].concat();
        verify::hops::client(&Message::parse(case.content.clone()), LOOPBACK, &trusted)
    };
    let (ip, helo) = match case.ip {
        Some(ip) => (ip, case.helo.clone()),
        None => match hop() {
            Some(hop) => (hop.ip, hop.helo),
            None => {
                listener.verify = Mode::Off;
                (LOOPBACK, case.helo.clone())
            }
        },
    };
    let mailbox = |text: &String| Mailbox::parse(text, true).ok();
    Envelope {
        origin: Origin {
            ip,
            port: case.port,
            helo,
            host: case.host.clone(),
            login: case.login.as_deref().map(Into::into),
            tls: None,
            protocol: case.protocol,
            listener: listener.name.clone(),
        },
        reverse_path: mailbox(&case.sender),
        recipients: case.recipients.iter().filter_map(mailbox).map(Recipient::plain).collect(),
        body: BodyType::EightBitMime,
        smtputf8: true,
        require_tls: false,
        ret: None,
        envid: None,
    }
}

fn symbol_of(symbol: &crate::filter::Symbol) -> Symbol {
    Symbol {
        name: symbol.name.clone(),
        score: symbol.points.value(),
        description: symbol.description.clone(),
        options: symbol.evidence.iter().cloned().collect(),
    }
}

fn fate_of(ruling: Ruling) -> Fate {
    match ruling {
        Ruling::Refuse { reply, .. } => Fate::Refuse(reply),
        Ruling::Keep { disposition: Disposition::Deliver, .. } => Fate::Deliver,
        Ruling::Keep { disposition: Disposition::Discard(_), .. } => Fate::Discard,
        Ruling::Keep { disposition: Disposition::Hold(reason) | Disposition::Quarantine(reason), .. } => {
            Fate::Quarantine(reason)
        }
    }
}

/// Fields that only we may assert: their names, and which of that name each is, from 1.
fn forged_of(content: &[u8], authserv_id: &str, judged: bool) -> Vec<(String, u32)> {
    let forged = forged_fields(content, authserv_id, judged);
    let mut found = Vec::new();
    for range in forged {
        let Some(field) = fields(content).find(|field| field.range == range) else { continue };
        let same = |other: &crate::wire::header::Field<'_>| other.name.eq_ignore_ascii_case(field.name);
        let index = fields(content).take_while(|other| other.range.start <= range.start).filter(same).count();
        found.push((String::from_utf8_lossy(field.name).into_owned(), index as u32));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_fields_are_counted_among_their_name() {
        let mail =
            b"Authentication-Results: other.test; x\r\nReturn-Path: <a>\r\nauthentication-results: mx.test; y\r\nX-Spam-Flag: NO\r\n\r\n";
        let found = forged_of(mail, "mx.test", false);
        assert_eq!(found, [("Return-Path".to_owned(), 1), ("authentication-results".to_owned(), 2)]);
        assert_eq!(forged_of(mail, "mx.test", true)[2], ("X-Spam-Flag".to_owned(), 1));
    }
}
