//! One message, several recipients, perhaps several policies: who shares a decision, and what it is. Pure.
//!
//! SMTP has one reply for all recipients. Where some would have it and some not, it is taken, and for those who
//! would have refused it, it goes into quarantine: nothing is lost without a word. LMTP has a reply for each.

use crate::config::Config;
use crate::config::settings::{Listener, Mode, Scores};
use crate::filter::{Action, Symbol, Thresholds, Verdict};
use crate::policy::Domains;
use crate::spool::queue::Disposition;
use crate::wire::envelope::Envelope;
use crate::wire::reply::{Enhanced, Reply};

use super::judge::Ruling;
use super::lists::{Lists, Senders};
use super::scanning::Scanned;

/// Recipients who share a decision.
pub struct Parcel {
    /// Their places in the envelope.
    pub recipients: Vec<usize>,
    /// The replies that are theirs, where each has one: their places in the envelope as it came.
    pub replies: Vec<usize>,
    /// The scores that hold for them.
    pub scores: Scores,
    /// Symbols of theirs alone.
    pub more: Vec<Symbol>,
    /// The verdict; nothing if nobody judged.
    pub verdict: Option<Verdict>,
    /// What becomes of it.
    pub ruling: Ruling,
}

/// What is known when a message is split.
pub struct Facts<'a> {
    /// The settings.
    pub config: &'a Config,
    /// Our domains.
    pub domains: &'a Domains,
    /// `[[list]]`.
    pub lists: &'a Lists,
    /// The listener.
    pub listener: &'a Listener,
    /// The envelope.
    pub envelope: &'a Envelope,
    /// Who it is from.
    pub senders: Senders,
    /// It came from a login or a host that may relay.
    pub outbound: bool,
    /// The message's id.
    pub reference: &'a str,
}

impl Parcel {
    /// All recipients of `envelope` with one ruling that no verdict made.
    pub fn whole(envelope: &Envelope, verdict: Option<Verdict>, ruling: Ruling) -> Self {
        let recipients: Vec<usize> = (0..envelope.recipients.len()).collect();
        Parcel { replies: recipients.clone(), recipients, scores: Scores::default(), more: Vec::new(), verdict, ruling }
    }

    /// Takes over what scanners and milters ask for, where that is harsher.
    pub fn heed(&mut self, listener: &Listener, scanned: &Scanned) {
        self.ruling = scanned.rule(listener, self.ruling.clone());
    }

    /// True if it is refused.
    pub fn is_refused(&self) -> bool {
        matches!(self.ruling, Ruling::Refuse { .. })
    }

    /// The setting that its verdict's action comes from, with its line.
    pub fn setting(&self) -> String {
        let Some(verdict) = &self.verdict else { return String::new() };
        let name = if verdict.action == Action::Accept { "tag" } else { verdict.action.as_str() };
        let Some(bound) = self.scores.bound(name) else { return String::new() };
        let below = if verdict.action == Action::Accept { "below " } else { "" };
        format!("{below}{name} = {} ({})", bound.score, bound.line)
    }
}

/// The scores for one recipient: those of `[filter]`, over them those for outbound mail, the listener's, the domain's.
fn scores_for(facts: &Facts<'_>, recipient: usize) -> Scores {
    let filter = &facts.config.filter;
    let direction = if facts.outbound { filter.outbound.over(&filter.scores) } else { filter.scores.clone() };
    let scores = facts.listener.scores.over(&direction);
    match facts.domains.of(&facts.envelope.recipients[recipient].mailbox) {
        Some(domain) => domain.scores.over(&scores),
        None => scores,
    }
}

/// The one parcel of a message whose recipients nobody told.
fn for_nobody(facts: &Facts<'_>, verdict: &Verdict) -> Parcel {
    let scores = facts.listener.scores.over(&facts.config.filter.scores);
    let own = verdict.under(Thresholds { greylist: f64::INFINITY, ..thresholds(facts, &scores) }, []);
    Parcel { scores, ..Parcel::whole(facts.envelope, Some(own.clone()), rule(&own, facts)) }
}

/// Judges for each recipient, and puts those together for whom it comes to the same.
pub fn split(facts: &Facts<'_>, verdict: &Verdict, came_again: &dyn Fn(usize) -> bool) -> Vec<Parcel> {
    if facts.envelope.recipients.is_empty() {
        return vec![for_nobody(facts, verdict)];
    }
    let mut parcels: Vec<Parcel> = Vec::new();
    for (place, recipient) in facts.envelope.recipients.iter().enumerate() {
        let scores = scores_for(facts, place);
        let separator = facts.domains.of(&recipient.mailbox).and_then(|domain| domain.detail_separator);
        let more = facts.lists.symbols(&recipient.mailbox, separator, &facts.senders);
        let own = verdict.under(thresholds(facts, &scores), more.iter().cloned());
        let own = if own.action == Action::Greylist && came_again(place) { own.beyond_greylist() } else { own };
        let same = parcels.iter_mut().find(|parcel| parcel.scores == scores && parcel.verdict.as_ref() == Some(&own));
        match same {
            Some(parcel) => {
                parcel.recipients.push(place);
                parcel.replies.push(place);
            }
            None => parcels.push(Parcel {
                replies: vec![place],
                recipients: vec![place],
                ruling: rule(&own, facts),
                verdict: Some(own),
                scores,
                more,
            }),
        }
    }
    parcels
}

/// A login comes again by itself, so there is nothing to learn from asking it to.
fn thresholds(facts: &Facts<'_>, scores: &Scores) -> Thresholds {
    let thresholds = Thresholds::from(scores);
    if facts.outbound { Thresholds { greylist: f64::INFINITY, ..thresholds } } else { thresholds }
}

fn rule(verdict: &Verdict, facts: &Facts<'_>) -> Ruling {
    let summary = verdict.summary();
    let keep = |disposition| Ruling::Keep { disposition, reason: summary.clone().into() };
    if facts.listener.filter != Mode::Enforce {
        return keep(Disposition::Deliver);
    }
    let reference = facts.reference;
    match verdict.action {
        Action::Accept | Action::Tag | Action::Subject => keep(Disposition::Deliver),
        Action::Hold => keep(Disposition::Hold(summary.clone())),
        Action::Quarantine => keep(Disposition::Quarantine(summary.clone())),
        Action::Discard => keep(Disposition::Discard(summary.clone())),
        Action::Greylist => Ruling::Refuse {
            reply: Reply::new(451, Enhanced(4, 7, 1), format!("Please come again in some minutes; ref {reference}")),
            reason: "greylist",
        },
        Action::Reject => {
            Ruling::Refuse { reply: Reply::new(550, Enhanced(5, 7, 1), refusal(verdict, reference)), reason: "spam" }
        }
    }
}

/// Reasons that a refusal names; the whole sheet is the operator's.
const REASONS_NAMED: usize = 3;
/// Characters of each.
const REASON_CHARS_MAX: usize = 80;

/// `Refused as spam (score 17.2): a program is attached, …; ref ID`
fn refusal(verdict: &Verdict, reference: &str) -> String {
    let weighty = verdict.symbols.iter().filter(|symbol| !symbol.shadow && symbol.points > Default::default());
    let words = weighty.take(REASONS_NAMED).map(|symbol| {
        let text = if symbol.description.is_empty() { &symbol.name } else { &symbol.description };
        text.chars().filter(char::is_ascii).take(REASON_CHARS_MAX).collect::<String>()
    });
    let words: Vec<String> = words.collect();
    format!("Refused as spam (score {}): {}; ref {reference}", verdict.score, words.join(", "))
}

/// Where there is one reply for all, and some take the message, those who would refuse it take it in their own way.
pub fn reconcile(parcels: &mut [Parcel], has_reply_each: bool) {
    if has_reply_each || parcels.iter().all(Parcel::is_refused) || !parcels.iter().any(Parcel::is_refused) {
        return;
    }
    for parcel in parcels.iter_mut().filter(|parcel| parcel.is_refused()) {
        let verdict = parcel.verdict.as_ref().expect("only a verdict refuses some recipients and not others");
        let summary = verdict.summary();
        let disposition = match verdict.action {
            Action::Greylist => Disposition::Deliver,
            _ => Disposition::Quarantine(format!("{summary}; not refused because of other recipients")),
        };
        parcel.ruling = Ruling::Keep { disposition, reason: summary.into() };
    }
}

/// Brings the parcels from one envelope to another: who is gone is gone, who is new joins the first that is kept.
pub fn follow(parcels: &mut Vec<Parcel>, before: &Envelope, after: &Envelope) {
    if after.recipients.is_empty() {
        let reason = "a milter removed all recipients";
        let disposition = Disposition::Discard(reason.to_owned());
        *parcels = vec![Parcel::whole(after, None, Ruling::Keep { disposition, reason: reason.into() })];
        return;
    }
    let place_of = |old: &usize| {
        let mailbox = &before.recipients[*old].mailbox;
        after.recipients.iter().position(|recipient| recipient.mailbox == *mailbox)
    };
    for parcel in parcels.iter_mut() {
        parcel.recipients = parcel.recipients.iter().filter_map(place_of).collect();
    }
    let is_new = |place: &usize| !parcels.iter().any(|parcel| parcel.recipients.contains(place));
    let new: Vec<usize> = (0..after.recipients.len()).filter(is_new).collect();
    if let Some(first) = parcels.iter_mut().find(|parcel| !parcel.is_refused()) {
        first.recipients.extend(new);
    }
    parcels.retain(|parcel| parcel.is_refused() || !parcel.recipients.is_empty());
}

/// The one reply for all who refuse: to come again, if anybody asks for that.
pub fn refusal_of(parcels: &[Parcel]) -> Option<(Reply, &'static str)> {
    let refusals = parcels.iter().filter_map(|parcel| match &parcel.ruling {
        Ruling::Refuse { reply, reason } => Some((reply.clone(), *reason)),
        Ruling::Keep { .. } => None,
    });
    refusals.min_by_key(|(reply, _)| reply.code)
}
