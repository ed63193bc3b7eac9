//! From what was found and decided to the record that explains it. Pure.

use std::time::Duration;

use crate::base::id::QueueId;
use crate::base::unix;
use crate::config::settings::Kept;
use crate::filter::{Judge, Symbol, Verdict};
use crate::observe::outcome::Fate;
use crate::observe::trace::{self, Check, Client, Decided, Reason, Record};
use crate::verify;
use crate::wire::envelope::{Envelope, Origin};
use crate::wire::header::fields;

use super::checks::Found;
use super::parcels::Parcel;

/// Bytes of a `Message-ID` that are kept: a line's worth.
const MESSAGE_ID_BYTES_MAX: usize = 998;

/// True if a message with this fate, judged or not, is one of those that are `kept`.
pub fn is_kept(kept: Kept, judged: bool, fate: Fate) -> bool {
    match kept {
        Kept::None => false,
        Kept::Refused => fate != Fate::Accepted,
        Kept::Judged => judged || fate != Fate::Accepted,
        Kept::All => true,
    }
}

/// A record without decision.
pub fn begin(id: QueueId, envelope: &Envelope, content: &[u8], outbound: bool, checks: Vec<Check>) -> Record {
    let origin = &envelope.origin;
    Record {
        id: id.to_string(),
        at: millis(id),
        fate: String::new(),
        client: client(origin),
        stage: String::new(),
        from: envelope.reverse_path.as_ref().map(|path| path.as_str().to_owned()),
        to: envelope.recipients.iter().map(|recipient| recipient.mailbox.as_str().to_owned()).collect(),
        message_id: message_id(content),
        size: content.len() as u64,
        outbound,
        micros: 0,
        checks,
        dns: Vec::new(),
        symbols: Vec::new(),
        probability: None,
        parcels: Vec::new(),
        decided: Decided::default(),
        content: None,
    }
}

/// When an id was given out, in milliseconds since 1970.
pub fn millis(id: QueueId) -> u64 {
    unix::millis(id.time())
}

/// Where it came from.
pub fn client(origin: &Origin) -> Client {
    Client {
        ip: origin.ip,
        port: origin.port,
        helo: origin.helo.clone(),
        host: origin.host.clone(),
        login: origin.login.as_deref().map(str::to_owned),
        tls: origin.tls.clone(),
        protocol: origin.protocol.to_owned(),
        listener: origin.listener.to_string(),
    }
}

fn message_id(content: &[u8]) -> String {
    let field = fields(content).find(|field| field.is("Message-ID"));
    let value = field.map_or(&b""[..], |field| field.value.trim_ascii());
    String::from_utf8_lossy(&value[..value.len().min(MESSAGE_ID_BYTES_MAX)]).into_owned()
}

/// A check with what came of it.
pub fn check(name: &str, took: Duration, result: impl Into<String>) -> Check {
    Check { name: name.to_owned(), micros: took.as_micros() as u64, result: result.into() }
}

/// What was asked of DNS.
fn asked(asked: &[verify::Asked]) -> Vec<trace::Asked> {
    let one = |asked: &verify::Asked| trace::Asked {
        question: asked.question.clone(),
        answer: asked.answer.clone(),
        micros: asked.took.as_micros() as u64,
    };
    asked.iter().map(one).collect()
}

/// What the checks found.
pub fn add_findings(record: &mut Record, found: &Found) {
    record.dns = found.identity.as_ref().map(|identity| asked(&identity.asked)).unwrap_or_default();
    record.symbols = found.verdict.as_ref().map(sheet).unwrap_or_default();
    record.probability = found.verdict.as_ref().and_then(|verdict| verdict.probability);
}

/// The sheet that all recipients share.
fn sheet(verdict: &Verdict) -> Vec<Reason> {
    verdict.symbols.iter().map(reason).collect()
}

/// One parcel, as it was decided; `id` is its own.
pub fn parcel(parcel: &Parcel, envelope: &Envelope, id: &str, fate: Fate) -> trace::Parcel {
    let bounds = crate::config::scores::ACTIONS.iter().filter_map(|name| Some((*name, parcel.scores.bound(name)?)));
    let on = bounds.filter(|(_, bound)| bound.score.is_finite());
    let verdict = parcel.verdict.as_ref();
    trace::Parcel {
        id: id.to_owned(),
        to: parcel.recipients.iter().map(|at| envelope.recipients[*at].mailbox.as_str().to_owned()).collect(),
        score: verdict.map(|verdict| verdict.score.value()),
        scores: on.map(|(name, bound)| (name.to_owned(), bound.score, bound.line.to_string())).collect(),
        more: parcel.more.iter().map(reason).collect(),
        action: verdict.map_or_else(String::new, |verdict| verdict.action.as_str().to_owned()),
        fate: fate.as_str().to_owned(),
    }
}

fn reason(symbol: &Symbol) -> Reason {
    Reason {
        name: symbol.name.clone(),
        points: symbol.points.value(),
        description: symbol.description.clone(),
        evidence: symbol.evidence.clone(),
        shadow: symbol.shadow,
        judge: judge_word(symbol.judge).to_owned(),
        found: symbol.found.map(|(judge, points)| (judge_word(judge).to_owned(), points.value())),
    }
}

fn judge_word(judge: Judge) -> &'static str {
    match judge {
        Judge::Attachment => "attachment",
        Judge::Classifier => "classifier",
        Judge::Identity => "identity",
        Judge::Limit => "limit",
        Judge::List => "list",
        Judge::Rule => "rule",
        Judge::Scanner => "scanner",
    }
}
