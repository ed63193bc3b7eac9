//! The live queue in memory: one compact entry per message and per item, no content, no envelope. Pure.
//!
//! About 170 bytes a message with one recipient. All changes come from records of the journal, applied in their order:
//! at run time behind each commit, after a restart while the journal is read. Leases are the only state that no record knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::ages::{Ages, Stay};
use super::message::{HOLD, IndexPart, QUARANTINE};
use super::names::{NO_NAME, Names};
use super::queue::{ItemState, LeasedRecipient};
use super::schedule::{Schedule, Ticket};
use super::slab::Slab;

/// Different texts of remote replies and reasons kept in memory at most; more are in the journal and the log only.
const NOTES_MAX: usize = 100_000;
/// Bytes kept of one such text: an SMTP reply line (RFC 5321 §4.5.3.1.5).
pub(super) const NOTE_BYTES_MAX: usize = 512;
/// Void tickets that may lie about before they are swept.
const VOID_TICKETS_MAX: usize = 4096;

pub(super) const NOTIFIED: u8 = 1;
pub(super) const HELD: u8 = 2;
pub(super) const QUARANTINED: u8 = 4;
const STOPPED: u8 = HELD | QUARANTINED;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: u64,
}

/// One open recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecipientState {
    pub(super) index: u32,
    pub(super) domain: u32,
    pub(super) attempts: u16,
    pub(super) flags: u8,
}

/// One or several, without a second allocation for the usual one.
enum Recipients {
    One(RecipientState),
    Many(Box<[RecipientState]>),
}

impl Recipients {
    fn new(list: Vec<RecipientState>) -> Self {
        match list[..] {
            [one] => Recipients::One(one),
            _ => Recipients::Many(list.into()),
        }
    }

    fn all(&self) -> &[RecipientState] {
        match self {
            Recipients::One(one) => std::slice::from_ref(one),
            Recipients::Many(many) => many,
        }
    }

    fn all_mut(&mut self) -> &mut [RecipientState] {
        match self {
            Recipients::One(one) => std::slice::from_mut(one),
            Recipients::Many(many) => many,
        }
    }
}

/// One message for one destination.
pub(super) struct Item {
    recipients: Recipients,
    pub(super) due: u64,
    pub(super) message: u32,
    pub(super) destination: u32,
    next: u32,
    stamp: u32,
    pub(super) reply: u32,
    pub(super) reason: u32,
    pub(super) state: ItemState,
}

impl Item {
    pub(super) fn recipients(&self) -> &[RecipientState] {
        self.recipients.all()
    }
}

/// One message.
pub(super) struct Message {
    pub(super) id: u64,
    pub(super) body_bytes: u64,
    pub(super) body_segment: u32,
    body_units: u32,
    /// The segment with its state records; 0 while there is none.
    pub(super) state_segment: u32,
    pub(super) sender: u32,
    pub(super) sender_domain: u32,
    first_item: u32,
}

impl Message {
    pub(super) fn place(&self) -> Place {
        Place { segment: self.body_segment, offset: self.body_units * 8, bytes: self.body_bytes }
    }
}

const NONE: u32 = u32::MAX;

/// What an outcome does to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Ended,
    Deferred { next: u64, notified: bool },
    Held,
}

/// One recipient's outcome, as a record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change<'a> {
    pub(super) index: u32,
    pub(super) attempts: u16,
    pub(super) fate: Fate,
    pub(super) note: &'a str,
}

/// An item as a state record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemFacts<'a> {
    pub(super) destination: &'a str,
    pub(super) due: u64,
    pub(super) reply: &'a str,
    pub(super) reason: &'a str,
    pub(super) recipients: Vec<(RecipientState, &'a str)>,
}

/// Counts of items by state, and of open recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) items: [u64; ItemState::ALL.len()],
    pub(super) recipients: u64,
    pub(super) quarantined_recipients: u64,
}

/// The live queue.
#[derive(Default)]
pub(super) struct Table {
    messages: Slab<Message>,
    items: Slab<Item>,
    by_id: BTreeMap<u64, u32>,
    null_senders: BTreeSet<u64>,
    pub(super) schedule: Schedule,
    pub(super) domains: Names,
    pub(super) senders: Names,
    pub(super) notes: Names,
    pub(super) counts: Counts,
    stamp: u32,
    /// While the journal is read nothing is queued for delivery; [`Table::start`] does it once.
    started: bool,
    now: u64,
    delay_max: u64,
    ages: Ages,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn find(&self, id: u64) -> Option<&Message> {
        self.messages.get(*self.by_id.get(&id)?)
    }

    pub(super) fn find_mut(&mut self, id: u64) -> Option<&mut Message> {
        self.messages.get_mut(*self.by_id.get(&id)?)
    }

    pub(super) fn message(&self, number: u32) -> &Message {
        self.messages.get(number).expect("an item's message exists")
    }

    pub(super) fn item(&self, number: u32) -> &Item {
        self.items.get(number).expect("a listed item exists")
    }

    pub(super) fn last_id(&self) -> u64 {
        self.by_id.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Ids in order from `from`.
    pub(super) fn ids_from(&self, from: u64) -> impl Iterator<Item = u64> {
        self.by_id.range(from..).map(|(id, _)| *id)
    }

    /// The oldest message in `stay`, if there is one; nothing while the search for it goes on.
    pub(super) fn oldest(&mut self, stay: Stay) -> Option<Option<u64>> {
        let is_meant = |state: &&ItemState| Stay::from(**state) == stay;
        if ItemState::ALL.iter().filter(is_meant).all(|state| self.counts.items[*state as usize] == 0) {
            return Some(None);
        }
        let mut ages = std::mem::take(&mut self.ages);
        let is_there = |number: u32| self.items_of(self.message(number)).any(|(_, item)| is_meant(&&item.state));
        let ids = self.by_id.range(ages.from(stay)..).map(|(id, number)| (*id, is_there(*number)));
        let found = ages.search(stay, ids);
        self.ages = ages;
        found.map(Some)
    }

    pub(super) fn items_of(&self, message: &Message) -> impl Iterator<Item = (u32, &Item)> {
        let mut at = message.first_item;
        std::iter::from_fn(move || {
            let item = self.items.get(at)?;
            Some((std::mem::replace(&mut at, item.next), item))
        })
    }

    pub(super) fn set_body(&mut self, id: u64, place: Place) {
        if let Some(message) = self.find_mut(id) {
            message.body_segment = place.segment;
            message.body_units = place.offset / 8;
            message.body_bytes = place.bytes;
        }
    }

    /// Adds a message; with `lent`, its items start leased (to the one who gets them hot).
    pub(super) fn insert(&mut self, part: &IndexPart, place: Place, lent: bool) {
        if self.by_id.contains_key(&part.id) {
            return self.set_body(part.id, place);
        }
        let number = self.insert_bare(part.id, part.sender, part.sender_domain, part.null_sender, place);
        let flags = match part.disposition {
            HOLD => HELD,
            QUARANTINE => QUARANTINED,
            _ => 0,
        };
        let mut groups: Vec<(u32, Vec<RecipientState>)> = Vec::with_capacity(1);
        for (index, (destination, domain)) in part.recipients.iter().enumerate() {
            let domain = self.domains.take(part.names[*domain as usize]);
            let recipient = RecipientState { index: index as u32, domain, attempts: 0, flags };
            match groups.iter_mut().rfind(|(known, _)| known == destination) {
                Some((_, list)) => list.push(recipient),
                None => groups.push((*destination, vec![recipient])),
            }
        }
        let (start, lent) = (part.accepted_ms, lent && flags == 0);
        for (destination, recipients) in groups {
            let reason = self.notes.take_bounded(part.reason, NOTES_MAX);
            self.add_item(number, part.names[destination as usize], start, NO_NAME, reason, recipients, lent);
        }
    }

    pub(super) fn insert_bare(&mut self, id: u64, sender: &str, domain: &str, null: bool, place: Place) -> u32 {
        let number = self.messages.insert(Message {
            id,
            body_bytes: place.bytes,
            body_segment: place.segment,
            body_units: place.offset / 8,
            state_segment: 0,
            sender: self.senders.take(sender),
            sender_domain: self.domains.take(domain),
            first_item: NONE,
        });
        self.by_id.insert(id, number);
        if null {
            self.null_senders.insert(id);
        }
        number
    }

    #[allow(clippy::too_many_arguments)] // One value per column of an item.
    fn add_item(
        &mut self,
        message: u32,
        destination: &str,
        due: u64,
        reply: u32,
        reason: u32,
        recipients: Vec<RecipientState>,
        lent: bool,
    ) {
        let destination = self.schedule.add_item(destination);
        let Message { first_item: first, id, .. } = *self.messages.get(message).expect("the caller made it");
        self.counts.recipients += recipients.len() as u64;
        self.counts.quarantined_recipients += quarantined(&recipients);
        let state = if lent { ItemState::Leased } else { ItemState::Waiting };
        self.counts.items[state as usize] += 1;
        self.ages.note(state.into(), id);
        let number = self.items.insert(Item {
            recipients: Recipients::new(recipients),
            due,
            message,
            destination,
            next: first,
            stamp: 0,
            reply,
            reason,
            state,
        });
        self.messages.get_mut(message).expect("looked up above").first_item = number;
        if !lent {
            self.settle(number);
        }
    }

    /// Removes a message with all its items.
    pub(super) fn remove(&mut self, id: u64) -> Option<Message> {
        let number = self.by_id.remove(&id)?;
        self.null_senders.remove(&id);
        self.clear_items(number);
        let message = self.messages.remove(number)?;
        self.senders.drop(message.sender);
        self.domains.drop(message.sender_domain);
        Some(message)
    }

    fn clear_items(&mut self, number: u32) {
        let mut at =
            std::mem::replace(&mut self.messages.get_mut(number).expect("the caller knows it").first_item, NONE);
        while at != NONE {
            at = self.free_item(at);
        }
    }

    /// Frees an item that no list holds any more; gives the next one of its message.
    fn free_item(&mut self, number: u32) -> u32 {
        self.set_state(number, ItemState::Waiting);
        let item = self.items.remove(number).expect("the list holds what exists");
        self.counts.items[ItemState::Waiting as usize] -= 1;
        self.counts.recipients -= item.recipients().len() as u64;
        self.counts.quarantined_recipients -= quarantined(item.recipients());
        item.recipients().iter().for_each(|r| self.domains.drop(r.domain));
        self.notes.drop(item.reply);
        self.notes.drop(item.reason);
        self.schedule.remove_item(item.destination);
        item.next
    }

    /// Takes an item out of its message; the message goes with its last.
    fn remove_item(&mut self, number: u32) -> Option<Message> {
        let owner = self.item(number).message;
        let next = self.item(number).next;
        let message = self.messages.get_mut(owner).expect("an item's message exists");
        let id = message.id;
        if message.first_item == number {
            message.first_item = next;
        } else {
            let mut at = message.first_item;
            while self.item(at).next != number {
                at = self.item(at).next;
            }
            self.items.get_mut(at).expect("it was just walked over").next = next;
        }
        self.free_item(number);
        if self.message(owner).first_item == NONE { self.remove(id) } else { None }
    }

    /// Applies outcomes, sorted by index; gives the message if that was its end.
    pub(super) fn change(&mut self, id: u64, changes: &[Change]) -> Option<Message> {
        let owner = self.find(id)?;
        let touches = |item: &Item| item.recipients().iter().any(|r| find_change(changes, r.index).is_some());
        let touched: Vec<u32> = self.items_of(owner).filter(|(_, item)| touches(item)).map(|(n, _)| n).collect();
        touched.into_iter().filter_map(|number| self.change_item(number, changes)).next()
    }

    fn change_item(&mut self, number: u32, changes: &[Change]) -> Option<Message> {
        let item = self.items.get_mut(number).expect("the caller listed it");
        let before = item.recipients().to_vec();
        let mut left = Vec::with_capacity(before.len());
        let (mut due, mut note) = (u64::MAX, None);
        for mut recipient in before.iter().copied() {
            if let Some(change) = find_change(changes, recipient.index) {
                recipient.attempts = change.attempts;
                note = Some(change.note).filter(|note| !note.is_empty()).or(note);
                match change.fate {
                    Fate::Ended => {
                        self.domains.drop(recipient.domain);
                        continue;
                    }
                    Fate::Deferred { next, notified } => {
                        due = due.min(next);
                        recipient.flags |= if notified { NOTIFIED } else { 0 };
                    }
                    Fate::Held => recipient.flags |= HELD,
                }
            }
            left.push(recipient);
        }
        self.counts.recipients -= (before.len() - left.len()) as u64;
        self.counts.quarantined_recipients -= quarantined(&before) - quarantined(&left);
        let held = left.iter().all(|r| r.flags & STOPPED != 0);
        item.recipients = Recipients::new(left);
        if item.recipients().is_empty() {
            return self.remove_item(number);
        }
        if due != u64::MAX {
            item.due = due;
        }
        self.set_note(number, note, held);
        self.settle(number);
        None
    }

    /// The last reply; or, of an item that is now held, the reason.
    fn set_note(&mut self, number: u32, note: Option<&str>, held: bool) {
        let Some(note) = note else { return };
        let note = self.notes.take_bounded(clip(note), NOTES_MAX);
        let item = self.items.get_mut(number).expect("the caller knows it");
        let place = if held { &mut item.reason } else { &mut item.reply };
        self.notes.drop(std::mem::replace(place, note));
    }

    /// Replaces all items of a message by `facts`.
    pub(super) fn replace(&mut self, id: u64, facts: &[ItemFacts]) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let leased = self.leased_destinations(number);
        self.clear_items(number);
        for fact in facts.iter().rev() {
            let recipients = fact.recipients.iter();
            let recipients =
                recipients.map(|(r, domain)| RecipientState { domain: self.domains.take(domain), ..*r }).collect();
            let reply = self.notes.take_bounded(fact.reply, NOTES_MAX);
            let reason = self.notes.take_bounded(fact.reason, NOTES_MAX);
            let lent = leased.iter().any(|destination| **destination == *fact.destination);
            self.add_item(number, fact.destination, fact.due, reply, reason, recipients, lent);
        }
    }

    fn leased_destinations(&self, number: u32) -> Vec<Arc<str>> {
        let items = self.items_of(self.message(number)).filter(|(_, item)| item.state == ItemState::Leased);
        items.map(|(_, item)| self.destination(item)).collect()
    }

    /// Stops, frees or moves the item of `id` at `destination`.
    pub(super) fn set_stopped(&mut self, id: u64, destination: &str, stop: Option<&str>, due: Option<u64>) {
        let Some(number) = self.item_at(id, destination) else { return };
        let item = self.items.get_mut(number).expect("item_at found it");
        for recipient in item.recipients.all_mut() {
            let was_quarantined = recipient.flags & QUARANTINED != 0;
            match stop {
                Some(_) => recipient.flags |= HELD,
                None => recipient.flags &= !STOPPED,
            }
            if was_quarantined && stop.is_none() {
                self.counts.quarantined_recipients -= 1;
            }
        }
        if let Some(due) = due {
            item.due = due;
        }
        let reason = self.notes.take_bounded(clip(stop.unwrap_or("")), NOTES_MAX);
        self.notes.drop(std::mem::replace(&mut item.reason, reason));
        if item.state != ItemState::Leased {
            self.settle(number);
        }
    }

    /// Moves the due time of an item, whatever else holds for it.
    pub(super) fn set_due(&mut self, id: u64, destination: &str, due: u64) {
        let Some(number) = self.item_at(id, destination) else { return };
        let item = self.items.get_mut(number).expect("item_at found it");
        item.due = due;
        if item.state != ItemState::Leased {
            self.settle(number);
        }
    }

    /// Drops the item of `id` at `destination`; gives the message if that was its end.
    pub(super) fn drop_item(&mut self, id: u64, destination: &str) -> Option<Message> {
        self.item_at(id, destination).and_then(|number| self.remove_item(number))
    }

    /// The item of a message at a destination.
    pub(super) fn item_at(&self, id: u64, destination: &str) -> Option<u32> {
        let destination = self.schedule.number(destination)?;
        self.items_of(self.find(id)?).find(|(_, item)| item.destination == destination).map(|(number, _)| number)
    }

    /// Puts an item that is not leased (any more) where its flags and due time say.
    pub(super) fn settle(&mut self, number: u32) {
        self.settle_at(number, self.due(self.item(number)));
    }

    fn settle_at(&mut self, number: u32, due: u64) {
        let item = self.item(number);
        let (owner, destination) = (item.message, item.destination);
        let flags =
            item.recipients().iter().fold(STOPPED, |all, r| if r.flags & STOPPED == 0 { 0 } else { all & r.flags });
        let any_waits = item.recipients().iter().any(|r| r.flags & STOPPED == 0);
        let state = match any_waits {
            true if self.started && due <= self.now => ItemState::Ready,
            true => ItemState::Waiting,
            false if flags & QUARANTINED != 0 => ItemState::Quarantined,
            false => ItemState::Held,
        };
        self.set_state(number, state);
        let ticket = Ticket { due, item: number, stamp: self.item(number).stamp };
        match state {
            ItemState::Ready => self.schedule.make_ready(destination, self.message(owner).sender, ticket),
            ItemState::Waiting if self.started => self.schedule.wait(ticket),
            _ => {}
        }
    }

    /// Sets an item's state and voids its tickets.
    fn set_state(&mut self, number: u32, state: ItemState) {
        self.stamp = self.stamp.wrapping_add(1);
        let item = self.items.get_mut(number).expect("the caller knows it");
        item.stamp = self.stamp;
        let before = std::mem::replace(&mut item.state, state);
        self.counts.items[before as usize] -= 1;
        self.counts.items[state as usize] += 1;
        let (destination, owner) = (item.destination, item.message);
        if before == ItemState::Ready {
            self.schedule.unready(destination);
        }
        if Stay::from(before) != Stay::from(state) {
            self.ages.note(state.into(), self.message(owner).id);
        }
    }

    /// When an item is due. Its own time may have been said by a clock that was wrong: what was never tried is due, and what was
    /// does not wait longer than any schedule has it wait.
    pub(super) fn due(&self, item: &Item) -> u64 {
        let is_fresh = item.recipients().iter().all(|r| r.attempts == 0);
        let latest = if is_fresh { self.now } else { self.now.saturating_add(self.delay_max) };
        if self.started { item.due.min(latest) } else { item.due }
    }

    pub(super) fn set_delay_max(&mut self, most: Duration) {
        self.delay_max = most.as_millis() as u64;
    }

    /// Begins to queue for delivery: the journal is read.
    pub(super) fn start(&mut self, now: u64, delay_max: Duration) {
        self.set_delay_max(delay_max);
        self.started = true;
        self.now = now;
        let messages: Vec<u32> = self.by_id.values().copied().collect();
        for number in messages {
            let items: Vec<u32> = self.items_of(self.message(number)).map(|(n, _)| n).collect();
            items.into_iter().for_each(|item| self.settle(item));
        }
    }

    /// Lets time pass: what is due joins its line.
    pub(super) fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(ticket) = self.schedule.pop_due(now) {
            if self.is_valid(&ticket, ItemState::Waiting) {
                self.settle_at(ticket.item, ticket.due);
            }
        }
        self.schedule.end_postponements(now);
    }

    fn is_valid(&self, ticket: &Ticket, state: ItemState) -> bool {
        self.items.get(ticket.item).is_some_and(|item| item.stamp == ticket.stamp && item.state == state)
    }

    /// Forgets void tickets once they are many.
    pub(super) fn sweep(&mut self) {
        if self.schedule.waiting_tickets()
            > 2 * self.counts.items[ItemState::Waiting as usize] as usize + VOID_TICKETS_MAX
        {
            let mut schedule = std::mem::take(&mut self.schedule);
            schedule.retain_waiting(|ticket| self.is_valid(ticket, ItemState::Waiting));
            self.schedule = schedule;
        }
    }

    /// Leases up to `most` items that are due at a destination, the senders taking turns.
    pub(super) fn lease(&mut self, destination: &str, most: usize) -> Vec<u32> {
        let Some(number) = self.schedule.number(destination) else { return Vec::new() };
        if self.schedule.postponement(number).is_some() {
            return Vec::new();
        }
        let mut leased = Vec::new();
        while leased.len() < most {
            let Some(ticket) = self.schedule.next_ticket(number) else { break };
            if self.is_valid(&ticket, ItemState::Ready) {
                self.lend(ticket.item);
                leased.push(ticket.item);
            }
        }
        self.schedule.list(number);
        leased
    }

    /// Marks an item as leased.
    pub(super) fn lend(&mut self, number: u32) {
        self.set_state(number, ItemState::Leased);
    }

    /// The numbers of items that may be leased, of messages before `before`, oldest first.
    pub(super) fn older_than(&self, before: u64, null_only: bool, most: usize) -> Vec<u32> {
        let waits = |item: &Item| matches!(item.state, ItemState::Ready | ItemState::Waiting);
        let of = |id: &u64| {
            let message = self.find(*id).expect("ids and messages go together");
            self.items_of(message).filter(|(_, item)| waits(item)).map(|(n, _)| n).collect::<Vec<_>>()
        };
        match null_only {
            true => self.null_senders.range(..before).flat_map(of).take(most).collect(),
            false => self.by_id.range(..before).map(|(id, _)| id).flat_map(of).take(most).collect(),
        }
    }

    /// What a lease says of an item's recipients: those that wait.
    pub(super) fn leased_recipients(&self, item: &Item) -> Vec<LeasedRecipient> {
        let waiting = item.recipients().iter().filter(|r| r.flags & STOPPED == 0);
        waiting
            .map(|r| LeasedRecipient {
                index: r.index,
                attempts: r.attempts.into(),
                delay_notified: r.flags & NOTIFIED != 0,
            })
            .collect()
    }

    /// The state of a message, as a state record says it.
    pub(super) fn facts(&self, message: &Message) -> Vec<ItemFacts<'_>> {
        self.items_of(message).map(|(_, item)| self.item_facts(item)).collect()
    }

    fn item_facts(&self, item: &Item) -> ItemFacts<'_> {
        ItemFacts {
            destination: self.schedule.name_of(item.destination),
            due: item.due,
            reply: self.notes.text(item.reply),
            reason: self.notes.text(item.reason),
            recipients: item.recipients().iter().map(|r| (*r, self.domains.text(r.domain))).collect(),
        }
    }

    pub(super) fn has_null_sender(&self, id: u64) -> bool {
        self.null_senders.contains(&id)
    }

    pub(super) fn destination(&self, item: &Item) -> Arc<str> {
        self.schedule.name(item.destination)
    }
}

fn find_change<'a, 'b>(changes: &'a [Change<'b>], index: u32) -> Option<&'a Change<'b>> {
    changes.binary_search_by_key(&index, |change| change.index).ok().map(|at| &changes[at])
}

fn quarantined(recipients: &[RecipientState]) -> u64 {
    recipients.iter().filter(|r| r.flags & QUARANTINED != 0).count() as u64
}

/// At most [`NOTE_BYTES_MAX`] bytes of a note.
pub(super) fn clip(note: &str) -> &str {
    &note[..note.floor_char_boundary(NOTE_BYTES_MAX)]
}
