//! Who is turned away before there is a message: a reply with a reference, and a small record of why. I/O: the trace's queue.
//!
//! An accepted command never comes here. Records are bounded by the trace's [`Allowance`](crate::observe::trace::allowance) and
//! have a share of the disk of their own; beyond it a refusal has its reason, but no reference, since nothing would be found by it.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use crate::config::settings::{Listener, Recipients};
use crate::observe::outcome::Fate;
use crate::observe::trace::{Check, Decided, Entry, Record};
use crate::policy::relay::Known;
use crate::policy::{Decision, Reason};
use crate::smtp::server::ask::Answer;
use crate::wire::address::Mailbox;
use crate::wire::envelope::Origin;

use super::house::House;
use super::message::said;
use super::record;
use super::snapshot::Snapshot;

/// The command of a session that is decided upon.
pub(super) struct Visit<'a> {
    /// `connect`, `mail` or `rcpt`.
    pub stage: &'static str,
    /// Index of the listener.
    pub listener: usize,
    /// Where the session comes from.
    pub origin: &'a Origin,
    /// The reverse-path; nothing for `<>`.
    pub from: Option<&'a Mailbox>,
    /// The recipient, at RCPT.
    pub to: Option<&'a Mailbox>,
    /// What was found out about it.
    pub known: Known,
    /// When the command came.
    pub began: Instant,
}

/// What is known of a client that has said nothing yet.
pub(super) fn origin_at_connect(remote: SocketAddr, listener: &Listener) -> Origin {
    Origin { ip: remote.ip(), port: remote.port(), protocol: "SMTP", ..Origin::local(&listener.name) }
}

impl House {
    /// What the client hears. Counts the decision; a refusal gets a reference and a record.
    pub(super) fn heard(&self, snapshot: &Snapshot, visit: &Visit<'_>, decision: Decision) -> Answer {
        self.meters.policy.decided(visit.stage, &decision);
        let Some(reply) = &decision.reply else { return Answer::Go };
        self.meters.flow.replied(reply.code, decision.reason.as_str());
        self.turned_away(snapshot, visit, decision)
    }

    fn turned_away(&self, snapshot: &Snapshot, visit: &Visit<'_>, decision: Decision) -> Answer {
        let setting = setting_of(snapshot, visit, &decision);
        let Decision { reply, reason, .. } = decision;
        let reply = reply.expect("whoever is turned away is told so");
        let fate = if reply.is_transient() { Fate::Deferred } else { Fate::Rejected };
        let is_kept = record::is_kept(snapshot.config.trace.record, false, fate);
        if !is_kept || !self.trace.has_room_for_door(visit.origin.ip, SystemTime::now()) {
            return Answer::Refuse(reply);
        }
        let id = self.spool.next_id();
        let reply = reply.referring(&id.to_string());
        let owned = |mailbox: &Mailbox| mailbox.as_str().to_owned();
        let took = visit.began.elapsed();
        tracing::info!(
            id = %id,
            stage = visit.stage,
            client = %visit.origin.ip,
            listener = %visit.origin.listener,
            decision = fate.as_str(),
            reason = reason.as_str(),
            setting,
            "turned away"
        );
        let record = Record {
            id: id.to_string(),
            at: record::millis(id),
            fate: fate.as_str().to_owned(),
            client: record::client(visit.origin),
            from: visit.from.map(owned),
            to: visit.to.map(owned).into_iter().collect(),
            message_id: String::new(),
            size: 0,
            outbound: false,
            micros: took.as_micros() as u64,
            stage: visit.stage.to_owned(),
            checks: vec![check(snapshot, visit, reason, took)],
            dns: Vec::new(),
            symbols: Vec::new(),
            probability: None,
            parcels: Vec::new(),
            decided: Decided { reason: reason.as_str().to_owned(), reply: said(&reply), setting },
            content: None,
        };
        self.trace.add(Entry::Decision(Box::new(record)), None);
        Answer::Refuse(reply)
    }
}

/// What was looked at, and whom we asked.
fn check(snapshot: &Snapshot, visit: &Visit<'_>, reason: Reason, took: std::time::Duration) -> Check {
    let known = match visit.known {
        Known::NotAsked => "",
        Known::Yes => ", who is there",
        Known::No => ", who is not there",
        Known::Later => ", who can't be asked now",
    };
    let domain = visit.to.and_then(|to| snapshot.domains.of(to));
    let asked = match domain.map(|domain| (&domain.recipients, &domain.deliver_to)) {
        Some((Recipients::Store, _)) if !known.is_empty() => format!(": a user of the store{known}"),
        Some((Recipients::Verify, next_hop)) if !known.is_empty() => format!(": asked {next_hop}{known}"),
        _ => String::new(),
    };
    record::check(visit.stage, took, format!("{}{asked}", reason.as_str()))
}

/// The setting that is responsible, and the line where it stands.
fn setting_of(snapshot: &Snapshot, visit: &Visit<'_>, decision: &Decision) -> String {
    let listener = &snapshot.listeners[visit.listener].listener;
    let of_listener = |setting: String| format!("{setting} of listener {} ({})", listener.name, listener.line);
    let role = || of_listener(format!("role = {}", listener.role.as_str()));
    let domain = visit.to.and_then(|to| snapshot.domains.of(to));
    match decision.reason {
        _ if !decision.setting.is_empty() => decision.setting.clone(),
        Reason::UnknownUser | Reason::UserUnverified => domain.map_or_else(String::new, |domain| {
            let who = match domain.recipients {
                Recipients::Any => "any",
                Recipients::List(_) => "a list",
                Recipients::Store => "store",
                Recipients::Verify => "verify",
            };
            format!("recipients = {who} of domain {} ({})", domain.name, domain.line)
        }),
        Reason::RelayDenied => {
            let to = visit.to.map_or("", Mailbox::domain);
            format!("{to} is no [[domain]]; {}", role())
        }
        Reason::ClientNotTrusted => format!("[relay] networks; {}", role()),
        Reason::AuthRequired => role(),
        Reason::SenderNotOwned => of_listener("own_sender = true".to_owned()),
        Reason::SrsRefused => "[srs]".to_owned(),
        // What remains has no setting: such addresses are refused everywhere.
        _ => "always".to_owned(),
    }
}
