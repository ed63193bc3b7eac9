//! Mail that leaves again: aliases, rewritten reverse-paths (SRS), and bounces to them. Pure; time is passed in.
//!
//! RFC 5321 §3.9.1 (aliases), RFC 3461 §5.2.7 (DSN requests go along). A reverse-path of a stranger is rewritten for recipients that an
//! alias leads out of our domains, since their hosts would ask that stranger's SPF about us. A bounce to such an address is
//! taken only with the null reverse-path and a hash of ours that is not too old; all else would make us a relay for everybody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::base::unix::secs;
use crate::policy::{Decision, Domains, Reason};
use crate::wire::address::Mailbox;
use crate::wire::envelope::{Envelope, Recipient};
use crate::wire::reply::Enhanced;
use crate::wire::srs::{Srs, SrsError};

const NO_BOUNCE: Decision = Decision::refuse(
    Reason::SrsRefused,
    550,
    Enhanced(5, 7, 1),
    "This address takes delivery reports only (null reverse-path)",
);
const FORGED: Decision =
    Decision::refuse(Reason::SrsRefused, 550, Enhanced(5, 1, 1), "This rewritten address is not one of ours");
const TOO_OLD: Decision =
    Decision::refuse(Reason::SrsRefused, 550, Enhanced(5, 1, 6), "This rewritten address is too old");

/// Decides on a recipient that claims to be a reverse-path of ours; nothing if it does not.
pub fn at_bounce(
    srs: Option<&Srs>,
    reverse_path: Option<&Mailbox>,
    recipient: &Mailbox,
    now: SystemTime,
) -> Option<Decision> {
    let srs = srs.filter(|srs| srs.claims(recipient))?;
    Some(match (reverse_path, srs.reverse(recipient, secs(now))) {
        (Some(_), _) => NO_BOUNCE,
        (None, Ok(_)) => Decision::allow(Reason::SrsBounce),
        (None, Err(SrsError::TooOld)) => TOO_OLD,
        (None, Err(SrsError::Forged | SrsError::NotSrs | SrsError::TooLong)) => FORGED,
    })
}

/// Puts what recipients stand for in their place. Gives the addresses outside of our domains that aliases led to.
pub fn expand(envelope: &mut Envelope, domains: &Domains, srs: Option<&Srs>, now: SystemTime) -> HashSet<String> {
    let mut forwarded = HashSet::new();
    let replaced = |to: &Recipient| domains.alias(&to.mailbox).is_some() || srs.is_some_and(|s| s.claims(&to.mailbox));
    if !envelope.recipients.iter().any(replaced) {
        return forwarded;
    }
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for recipient in std::mem::take(&mut envelope.recipients) {
        let behind = srs.filter(|srs| srs.claims(&recipient.mailbox));
        let behind = behind.and_then(|srs| srs.reverse(&recipient.mailbox, secs(now)).ok());
        let targets = match (&behind, domains.alias(&recipient.mailbox)) {
            (Some(behind), _) => std::slice::from_ref(behind),
            (None, Some(targets)) => {
                let outside = targets.iter().filter(|target| domains.of(target).is_none());
                forwarded.extend(outside.map(|target| target.as_str().to_owned()));
                targets
            }
            (None, None) => std::slice::from_ref(&recipient.mailbox),
        };
        for target in targets.iter().filter(|target| seen.insert(target.as_str().to_owned())) {
            all.push(stand_in(&recipient, target));
        }
    }
    envelope.recipients = all;
    forwarded
}

/// `target` in the place of `recipient`, with what the sender wants to hear of it (RFC 3461 §5.2.7.1).
fn stand_in(recipient: &Recipient, target: &Mailbox) -> Recipient {
    let named = recipient.mailbox.as_str();
    let original = || (named != target.as_str() && named.is_ascii()).then(|| format!("rfc822;{named}"));
    Recipient { mailbox: target.clone(), notify: recipient.notify, orcpt: recipient.orcpt.clone().or_else(original) }
}

/// The envelopes in which a message is kept: one, or two if some recipients need another reverse-path.
pub fn split(
    envelope: &Arc<Envelope>,
    forwarded: &HashSet<String>,
    domains: &Domains,
    srs: Option<&Srs>,
    now: SystemTime,
) -> Vec<Arc<Envelope>> {
    let stranger = envelope.reverse_path.as_ref().filter(|path| domains.of(path).is_none());
    let rewritten = match (srs, stranger) {
        (Some(srs), Some(path)) if !forwarded.is_empty() => srs.forward(path, secs(now)).ok(),
        _ => None,
    };
    let Some(rewritten) = rewritten else { return vec![envelope.clone()] };
    let leaves = |to: &Recipient| forwarded.contains(to.mailbox.as_str());
    let (out, stay): (Vec<Recipient>, Vec<Recipient>) = envelope.recipients.iter().cloned().partition(leaves);
    let with = |recipients, reverse_path| Arc::new(Envelope { recipients, reverse_path, ..Envelope::clone(envelope) });
    let mut envelopes = Vec::new();
    if !stay.is_empty() {
        envelopes.push(with(stay, envelope.reverse_path.clone()));
    }
    if !out.is_empty() {
        envelopes.push(with(out, Some(rewritten)));
    }
    envelopes
}
