//! The coding of all records but the accepted ones: attempts, states, admin acts, the dead, segment heads. Pure.

use super::codec::{Reader, Writer};
use super::ledger::{Account, Ledger};
use super::table::{Change, Fate, ItemFacts, RecipientState};

/// An attempt: outcomes of one message at one time, sorted by recipient.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) id: u64,
    pub(super) at_ms: u64,
    /// The segment that the body stands in.
    pub(super) body: u32,
    /// Nothing of the message is left, whatever earlier records a reader may miss.
    pub(super) ends: bool,
    /// The account that each ended recipient goes to.
    pub(super) changes: Vec<(Change<'a>, Option<Account>)>,
}

const DEFERRED: u8 = 0;
const DEFERRED_NOTIFIED: u8 = 1;
const HELD: u8 = 2;
const DELIVERED: u8 = 3;
const BOUNCED: u8 = 4;
const EXPIRED: u8 = 5;
const DISCARDED: u8 = 6;

pub(super) fn write_attempt(w: &mut Writer, attempt: &Attempt) {
    w.fixed(attempt.id);
    w.number(attempt.at_ms);
    w.number(attempt.body.into());
    w.byte(attempt.ends as u8);
    w.number(attempt.changes.len() as u64);
    for (change, account) in &attempt.changes {
        w.number(change.index.into());
        w.number(change.attempts.into());
        w.byte(match (&change.fate, account) {
            (Fate::Deferred { notified: false, .. }, _) => DEFERRED,
            (Fate::Deferred { notified: true, .. }, _) => DEFERRED_NOTIFIED,
            (Fate::Held, _) => HELD,
            (Fate::Ended, Some(Account::Delivered)) => DELIVERED,
            (Fate::Ended, Some(Account::Bounced)) => BOUNCED,
            (Fate::Ended, Some(Account::Expired)) => EXPIRED,
            (Fate::Ended, _) => DISCARDED,
        });
        if let Fate::Deferred { next, .. } = change.fate {
            w.number(next);
        }
        w.text(change.note);
    }
}

pub(super) fn read_attempt<'a>(r: &mut Reader<'a>) -> Option<Attempt<'a>> {
    let (id, at_ms, body, ends, count) = (r.fixed()?, r.number()?, r.small()?, r.byte()? != 0, r.count()?);
    let changes = (0..count).map(|_| read_change(r)).collect::<Option<Vec<_>>>()?;
    Some(Attempt { id, at_ms, body, ends, changes })
}

fn read_change<'a>(r: &mut Reader<'a>) -> Option<(Change<'a>, Option<Account>)> {
    let (index, attempts) = (r.small()?, r.number()?.try_into().ok()?);
    let (fate, account) = match r.byte()? {
        DEFERRED => (Fate::Deferred { next: r.number()?, notified: false }, None),
        DEFERRED_NOTIFIED => (Fate::Deferred { next: r.number()?, notified: true }, None),
        HELD => (Fate::Held, None),
        DELIVERED => (Fate::Ended, Some(Account::Delivered)),
        BOUNCED => (Fate::Ended, Some(Account::Bounced)),
        EXPIRED => (Fate::Ended, Some(Account::Expired)),
        DISCARDED => (Fate::Ended, Some(Account::Discarded)),
        _ => return None,
    };
    Some((Change { index, attempts, fate, note: r.text()? }, account))
}

pub(super) fn write_facts(w: &mut Writer, facts: &[ItemFacts]) {
    w.number(facts.len() as u64);
    for item in facts {
        w.text(item.destination);
        w.number(item.due);
        w.text(item.reply);
        w.text(item.reason);
        w.number(item.recipients.len() as u64);
        for (recipient, domain) in &item.recipients {
            w.number(recipient.index.into());
            w.number(recipient.attempts.into());
            w.byte(recipient.flags);
            w.text(if *domain == item.destination { "" } else { domain });
        }
    }
}

pub(super) fn read_facts<'a>(r: &mut Reader<'a>) -> Option<Vec<ItemFacts<'a>>> {
    let count = r.count()?;
    (0..count).map(|_| read_item(r)).collect()
}

fn read_item<'a>(r: &mut Reader<'a>) -> Option<ItemFacts<'a>> {
    let (destination, due, reply, reason) = (r.text()?, r.number()?, r.text()?, r.text()?);
    let count = r.count()?;
    let read_one = |r: &mut Reader<'a>| {
        let (index, attempts, flags) = (r.small()?, r.number()?.try_into().ok()?, r.byte()?);
        let domain = Some(r.text()?).filter(|domain| !domain.is_empty()).unwrap_or(destination);
        Some((RecipientState { index, domain: 0, attempts, flags }, domain))
    };
    let recipients = (0..count).map(|_| read_one(r)).collect::<Option<Vec<_>>>()?;
    Some(ItemFacts { destination, due, reply, reason, recipients })
}

/// What an operator does to a set of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Hold { reason: String },
    Release { due: u64 },
    Retry { due: u64 },
    Drop,
}

/// The items of one act: for each destination the ids, ascending.
pub(super) type ActSet = Vec<(std::sync::Arc<str>, Vec<u64>)>;

/// `dropped` is how many recipients a drop ends; the books must not depend on what is still known when they are read.
pub(super) fn write_act(w: &mut Writer, act: &Act, at_ms: u64, dropped: u64, set: &ActSet) {
    w.number(at_ms);
    w.number(dropped);
    match act {
        Act::Hold { reason } => {
            w.byte(0);
            w.text(reason);
        }
        Act::Release { due } => {
            w.byte(1);
            w.number(*due);
        }
        Act::Retry { due } => {
            w.byte(2);
            w.number(*due);
        }
        Act::Drop => w.byte(3),
    }
    w.number(set.len() as u64);
    for (destination, ids) in set {
        w.text(destination);
        write_ids(w, ids);
    }
}

pub(super) fn read_act(r: &mut Reader) -> Option<(Act, u64, u64, ActSet)> {
    let (at_ms, dropped) = (r.number()?, r.number()?);
    let act = match r.byte()? {
        0 => Act::Hold { reason: r.text()?.to_owned() },
        1 => Act::Release { due: r.number()? },
        2 => Act::Retry { due: r.number()? },
        3 => Act::Drop,
        _ => return None,
    };
    let count = r.count()?;
    let set = (0..count).map(|_| Some((r.text()?.into(), read_ids(r)?))).collect::<Option<ActSet>>()?;
    Some((act, at_ms, dropped, set))
}

/// Ascending ids as differences: three or four bytes each.
fn write_ids(w: &mut Writer, ids: &[u64]) {
    w.number(ids.len() as u64);
    let mut last = 0;
    for id in ids {
        w.number(id.wrapping_sub(last));
        last = *id;
    }
}

fn read_ids(r: &mut Reader) -> Option<Vec<u64>> {
    let count = r.count()?;
    let mut last = 0u64;
    let mut next = || {
        last = last.wrapping_add(r.number()?);
        Some(last)
    };
    (0..count).map(|_| next()).collect()
}

/// Finished messages whose end must stay known, and the segments that their bodies may stand in.
pub(super) struct Dead {
    pub(super) ids: Vec<u64>,
    pub(super) bodies: Vec<u32>,
}

pub(super) fn write_dead(w: &mut Writer, dead: &Dead) {
    write_ids(w, &dead.ids);
    w.number(dead.bodies.len() as u64);
    dead.bodies.iter().for_each(|body| w.number((*body).into()));
}

pub(super) fn read_dead(r: &mut Reader) -> Option<Dead> {
    let ids = read_ids(r)?;
    let count = r.count()?;
    Some(Dead { ids, bodies: (0..count).map(|_| r.small()).collect::<Option<_>>()? })
}

/// A message that was thrown away on purpose.
pub(super) struct Discarded<'a> {
    pub(super) id: u64,
    pub(super) at_ms: u64,
    pub(super) recipients: u64,
    pub(super) reason: &'a str,
}

pub(super) fn write_discarded(w: &mut Writer, discarded: &Discarded) {
    w.fixed(discarded.id);
    w.number(discarded.at_ms);
    w.number(discarded.recipients);
    w.text(discarded.reason);
}

pub(super) fn read_discarded<'a>(r: &mut Reader<'a>) -> Option<Discarded<'a>> {
    Some(Discarded { id: r.fixed()?, at_ms: r.number()?, recipients: r.number()?, reason: r.text()? })
}

/// The head of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) generation: u32,
    /// The highest id given out so far, so that none is given out twice.
    pub(super) last_id: u64,
    /// Segments whose last batch failed, with the bytes before it: nothing behind them is to be believed.
    pub(super) poisoned: Vec<(u32, u32)>,
    /// Pieces that were found damaged or torn and reported: segment, offset, bytes.
    pub(super) damage: Vec<(u32, u32, u32)>,
    pub(super) ledger: Ledger,
}

pub(super) fn write_head(w: &mut Writer, head: &SegmentHead) {
    w.number(head.generation.into());
    w.fixed(head.last_id);
    w.number(head.poisoned.len() as u64);
    for (segment, bytes) in &head.poisoned {
        w.number((*segment).into());
        w.number((*bytes).into());
    }
    w.number(head.damage.len() as u64);
    for (segment, offset, bytes) in &head.damage {
        w.number((*segment).into());
        w.number((*offset).into());
        w.number((*bytes).into());
    }
    head.ledger.write(w);
}

pub(super) fn read_head(r: &mut Reader) -> Option<SegmentHead> {
    let (generation, last_id, count) = (r.small()?, r.fixed()?, r.count()?);
    let poisoned = (0..count).map(|_| Some((r.small()?, r.small()?))).collect::<Option<Vec<_>>>()?;
    let count = r.count()?;
    let damage = (0..count).map(|_| Some((r.small()?, r.small()?, r.small()?))).collect::<Option<Vec<_>>>()?;
    Some(SegmentHead { generation, last_id, poisoned, damage, ledger: Ledger::read(r)? })
}
