//! What operators see of the queue and do to it, without loading a message. I/O: `show` reads one; acts are journaled.
//!
//! Walks go through the table in pieces, so that nobody waits long for its lock, however many messages there are.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc;
use std::time::SystemTime;

use super::committer::Work;
use super::handle::Spool;
use super::hot;
use super::payload::{Act, ActSet};
use super::queue::{ItemState, SpoolFault};
use super::shared::Shared;
use super::state::State;
use super::table::{HELD, Item, Message, NOTIFIED, QUARANTINED};
use crate::base::audit::Audit;
use crate::base::clock;
use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::base::unix::{from_millis, millis};
use crate::wire::envelope::Envelope;

/// Messages looked at under one lock, and acted upon with one record.
const PIECE_MESSAGES: usize = 10_000;

/// Which items are meant; what is not said does not matter. Texts are compared whole, domains in lower case.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Waiting for this destination.
    pub destination: Option<String>,
    /// From this login or, of mail without login, reverse-path domain.
    pub sender: Option<String>,
    /// With a reverse-path in this domain; the empty text means the null reverse-path.
    pub sender_domain: Option<String>,
    /// With a recipient in this domain.
    pub recipient_domain: Option<String>,
    /// Accepted before.
    pub accepted_before: Option<SystemTime>,
    /// In one of these states; none: in any.
    pub states: Vec<ItemState>,
    /// One of these messages.
    pub ids: Option<Vec<QueueId>>,
}

/// What is done to the items meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deliver no more until released, for this reason.
    Hold(String),
    /// Deliver what was on hold or in quarantine.
    Release,
    /// Make due now.
    Retry,
    /// Not before this time.
    Postpone(SystemTime),
    /// Throw away; counted as dropped. Items that a delivery worker has are left alone.
    Drop,
}

/// All that is known of one item without reading the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemView {
    /// Its destination.
    pub destination: String,
    /// What it is doing.
    pub state: ItemState,
    /// When it is due, by itself.
    pub due: SystemTime,
    /// Until when, and why, its whole destination is postponed.
    pub postponed: Option<(SystemTime, String)>,
    /// The last thing a remote said.
    pub last_reply: String,
    /// Why it is on hold or in quarantine.
    pub reason: String,
    /// Its open recipients.
    pub recipients: Vec<RecipientView>,
}

/// One open recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientView {
    /// Index in the envelope.
    pub index: u32,
    /// Attempts so far.
    pub attempts: u32,
    /// A delay notice was sent.
    pub delay_notified: bool,
    /// On hold or in quarantine.
    pub stopped: bool,
}

/// Why a message is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyFacts {
    /// The message.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// Login or reverse-path domain.
    pub sender: String,
    /// Bytes that it takes in the journal.
    pub bytes: u64,
    /// What it waits for, per destination.
    pub items: Vec<ItemView>,
}

/// A message with its content.
pub struct Shown {
    /// Where it stands.
    pub facts: WhyFacts,
    /// Its envelope.
    pub envelope: Envelope,
    /// The header fields that go in front.
    pub prefix: std::sync::Arc<[u8]>,
    /// The content.
    pub content: Content,
    /// What was said of it when it was accepted.
    pub verdict: String,
}

/// What stands on a message's envelope, read without its content.
pub struct Enveloped {
    /// The envelope.
    pub envelope: Envelope,
    /// What was said of the message when it was accepted.
    pub verdict: String,
    /// Bytes of the content.
    pub content_bytes: u64,
}

/// Items by state, in the order of [`ItemState::ALL`].
pub type StateCounts = [u64; ItemState::ALL.len()];

impl Shared {
    /// Does `action` to all items that `filter` means; returns how many. Blocks until it is durable.
    /// # Errors
    /// When the journal can't be written; what was done before stays done.
    pub(super) fn act(&self, filter: &Filter, action: &Action) -> Result<u64, SpoolFault> {
        let now = millis(clock::now());
        let mut acted = 0;
        let mut from = Some(0);
        while let Some(start) = from {
            let (set, next) = self.piece(filter, start, *action == Action::Drop);
            from = next;
            let count = set.iter().map(|(_, ids)| ids.len() as u64).sum::<u64>();
            if count > 0 {
                self.commit_act(journaled(action, now), now, set)?;
            }
            acted += count;
        }
        Ok(acted)
    }

    fn commit_act(&self, act: Act, at_ms: u64, set: ActSet) -> Result<(), SpoolFault> {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| sender.send(result).unwrap_or(()));
        self.submissions.submit(Work::Act { act, at_ms, set }, done);
        receiver.recv().unwrap_or(Err(SpoolFault::Stopping))
    }

    /// The items meant among the next messages from id `start`, and where to go on. With `take`, they are leased, so that nobody
    /// delivers what is about to be dropped.
    fn piece(&self, filter: &Filter, start: u64, take: bool) -> (ActSet, Option<u64>) {
        let mut state = self.state.lock();
        let (ids, next) = candidates(&state, filter, start);
        let mut set: BTreeMap<std::sync::Arc<str>, Vec<u64>> = BTreeMap::new();
        let mut taken = Vec::new();
        for id in ids {
            let Some(message) = state.table.find(id) else { continue };
            for (number, item) in state.table.items_of(message) {
                let busy = take && item.state == ItemState::Leased;
                if !busy && matches(&state, filter, message, item) {
                    set.entry(state.table.destination(item)).or_default().push(id);
                    taken.push(number);
                }
            }
        }
        if take {
            taken.into_iter().for_each(|number| state.table.lend(number));
        }
        (set.into_iter().collect(), next)
    }
}

impl Spool {
    /// Does `action` to all items that `filter` means; returns how many. Blocks until it is durable.
    /// # Errors
    /// When the journal can't be written; what was done before stays done.
    pub fn act(&self, filter: &Filter, action: &Action) -> Result<u64, SpoolFault> {
        self.shared.act(filter, action)
    }

    /// Up to `most` messages with an item that `filter` means, oldest first, from id `from` on.
    pub fn list(&self, filter: &Filter, from: QueueId, most: usize) -> Vec<WhyFacts> {
        let mut listed = Vec::new();
        let mut start = Some(from.0);
        while let Some(at) = start.filter(|_| listed.len() < most) {
            let state = self.shared.state.lock();
            let (ids, next) = candidates(&state, filter, at);
            let messages = ids.into_iter().filter_map(|id| state.table.find(id));
            let meant = messages.filter(|message| {
                state.table.items_of(message).any(|(_, item)| matches(&state, filter, message, item))
            });
            listed.extend(meant.take(most - listed.len()).map(|message| view(&state, message)));
            start = next;
        }
        listed
    }

    /// Why a message is where it is; nothing if it is not in the queue.
    pub fn why(&self, id: QueueId) -> Option<WhyFacts> {
        let state = self.shared.state.lock();
        state.table.find(id.0).map(|message| view(&state, message))
    }

    /// A message with its content; nothing if it is not in the queue.
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn show(&self, id: QueueId) -> io::Result<Option<Shown>> {
        let (facts, file, seal, place) = {
            let state = self.shared.state.lock();
            let Some(message) = state.table.find(id.0) else { return Ok(None) };
            let Some(segment) = state.segments.get(message.body_segment) else { return Ok(None) };
            (view(&state, message), segment.file.clone(), segment.seal, message.place())
        };
        let (stored, content) = hot::read_message(&file, seal, place, id.0)?;
        let (envelope, prefix, verdict) = (stored.envelope, stored.prefix, stored.verdict);
        Ok(Some(Shown { facts, envelope, prefix, content, verdict }))
    }

    /// A message's envelope; nothing if it is not in the queue.
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn envelope(&self, id: QueueId) -> io::Result<Option<Enveloped>> {
        let (file, seal, place) = {
            let state = self.shared.state.lock();
            let Some(message) = state.table.find(id.0) else { return Ok(None) };
            let Some(segment) = state.segments.get(message.body_segment) else { return Ok(None) };
            (segment.file.clone(), segment.seal, message.place())
        };
        let (stored, content_bytes) = hot::read_stored(&file, seal, place, id.0)?;
        Ok(Some(Enveloped { envelope: stored.envelope, verdict: stored.verdict, content_bytes }))
    }

    /// Why nothing would be accepted now; nothing if it would.
    pub fn trouble(&self) -> Option<SpoolFault> {
        self.shared.trouble()
    }

    /// Items by state.
    pub fn counts(&self) -> StateCounts {
        self.shared.state.lock().table.counts.items
    }

    /// Items by destination and state.
    pub fn counts_by_destination(&self) -> Vec<(std::sync::Arc<str>, StateCounts)> {
        let mut counts: BTreeMap<std::sync::Arc<str>, StateCounts> = BTreeMap::new();
        let mut start = Some(0);
        while let Some(at) = start {
            let state = self.shared.state.lock();
            let (ids, next) = candidates(&state, &Filter::default(), at);
            for message in ids.into_iter().filter_map(|id| state.table.find(id)) {
                for (_, item) in state.table.items_of(message) {
                    counts.entry(state.table.destination(item)).or_default()[item.state as usize] += 1;
                }
            }
            start = next;
        }
        counts.into_iter().collect()
    }

    /// The equation `accepted = delivered + bounced + expired + discarded + dropped + queued` (in recipients) for the hours from
    /// `from` to `to`.
    pub fn audit(&self, from: SystemTime, to: SystemTime) -> Audit {
        let state = self.shared.state.lock();
        let counts = state.table.counts;
        state.ledger.audit(millis(from), millis(to), counts.recipients as i64, counts.quarantined_recipients as i64)
    }
}

fn journaled(action: &Action, now: u64) -> Act {
    match action {
        Action::Hold(reason) => Act::Hold { reason: reason.clone() },
        Action::Release => Act::Release { due: now },
        Action::Retry => Act::Retry { due: now },
        Action::Postpone(until) => Act::Retry { due: millis(*until) },
        Action::Drop => Act::Drop,
    }
}

/// The next ids to look at, and where to go on.
fn candidates(state: &State, filter: &Filter, start: u64) -> (Vec<u64>, Option<u64>) {
    if let Some(ids) = &filter.ids {
        let mut ids: Vec<u64> = ids.iter().map(|id| id.0).filter(|id| *id >= start).collect();
        ids.sort_unstable();
        ids.dedup();
        let next = ids.get(PIECE_MESSAGES).copied();
        ids.truncate(PIECE_MESSAGES);
        return (ids, next);
    }
    let end = filter.accepted_before.map_or(u64::MAX, |before| millis(before) << 20);
    let ids: Vec<u64> = state.table.ids_from(start).take_while(|id| *id < end).take(PIECE_MESSAGES).collect();
    let next = ids.last().filter(|_| ids.len() == PIECE_MESSAGES).map(|last| last + 1);
    (ids, next)
}

fn matches(state: &State, filter: &Filter, message: &Message, item: &Item) -> bool {
    let table = &state.table;
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let to_domain = |wanted: &String| item.recipients().iter().any(|r| table.domains.text(r.domain) == wanted);
    (filter.states.is_empty() || filter.states.contains(&item.state))
        && filter.accepted_before.is_none_or(|before| message.id < millis(before) << 20)
        && is(&filter.destination, table.schedule.name_of(item.destination))
        && is(&filter.sender, table.senders.text(message.sender))
        && is(&filter.sender_domain, table.domains.text(message.sender_domain))
        && filter.recipient_domain.as_ref().is_none_or(to_domain)
}

fn view(state: &State, message: &Message) -> WhyFacts {
    let table = &state.table;
    let item_view = |item: &Item| ItemView {
        destination: table.schedule.name_of(item.destination).to_owned(),
        state: item.state,
        due: from_millis(table.due(item)),
        postponed: table.schedule.postponement(item.destination).map(|(until, why)| (from_millis(until), why)),
        last_reply: table.notes.text(item.reply).to_owned(),
        reason: table.notes.text(item.reason).to_owned(),
        recipients: item.recipients().iter().map(recipient_view).collect(),
    };
    WhyFacts {
        id: QueueId(message.id),
        accepted: QueueId(message.id).time(),
        sender: table.senders.text(message.sender).to_owned(),
        bytes: message.body_bytes,
        items: table.items_of(message).map(|(_, item)| item_view(item)).collect(),
    }
}

fn recipient_view(recipient: &super::table::RecipientState) -> RecipientView {
    RecipientView {
        index: recipient.index,
        attempts: recipient.attempts.into(),
        delay_notified: recipient.flags & NOTIFIED != 0,
        stopped: recipient.flags & (HELD | QUARANTINED) != 0,
    }
}
