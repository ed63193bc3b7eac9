//! Which destination has what due, in which order. Pure; times are milliseconds since 1970, passed in.
//!
//! Items that wait stand in one heap by due time; once due, they queue at their destination, one line per sender, and the senders
//! take turns. Tickets (item and stamp) are never searched for and removed: one whose stamp is no longer the item's is void.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use super::names::{NO_NAME, Names};
use super::slab::Slab;

/// A place in a line; void once the item has another stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket {
    pub(super) due: u64,
    pub(super) item: u32,
    pub(super) stamp: u32,
}

type Fast = foldhash::fast::RandomState;

struct Destination {
    name: Arc<str>,
    /// Items that exist, in whatever state.
    items: u32,
    /// Items that are due and not leased.
    ready: u32,
    /// How it stands in `Schedule::ready`, if it does.
    listed: Option<u64>,
    postponed_until: u64,
    why: u32,
    lines: HashMap<u32, VecDeque<Ticket>, Fast>,
    turns: VecDeque<u32>,
}

/// All destinations.
#[derive(Default)]
pub(super) struct Schedule {
    destinations: Slab<Destination>,
    numbers: HashMap<Arc<str>, u32, Fast>,
    ready: BTreeSet<(u64, u32)>,
    postponed: BTreeSet<(u64, u32)>,
    waiting: BinaryHeap<Reverse<Ticket>>,
    reasons: Names,
}

impl Schedule {
    /// The number of destination `name`, which has one item more from now on.
    pub(super) fn add_item(&mut self, name: &str) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add_destination(name),
        };
        self.destinations.get_mut(number).expect("it has a number").items += 1;
        number
    }

    fn add_destination(&mut self, name: &str) -> u32 {
        let name: Arc<str> = name.into();
        let number = self.destinations.insert(Destination {
            name: name.clone(),
            items: 0,
            ready: 0,
            listed: None,
            postponed_until: 0,
            why: NO_NAME,
            lines: HashMap::default(),
            turns: VecDeque::new(),
        });
        self.numbers.insert(name, number);
        number
    }

    /// The destination has one item less; without items it is forgotten.
    pub(super) fn remove_item(&mut self, number: u32) {
        let destination = self.destinations.get_mut(number).expect("its item was there");
        destination.items -= 1;
        if destination.items > 0 {
            return;
        }
        let destination = self.destinations.remove(number).expect("looked up above");
        self.numbers.remove(&destination.name);
        self.reasons.drop(destination.why);
        self.postponed.remove(&(destination.postponed_until, number));
        if let Some(since) = destination.listed {
            self.ready.remove(&(since, number));
        }
    }

    pub(super) fn name(&self, number: u32) -> Arc<str> {
        self.destinations.get(number).expect("an item's destination exists").name.clone()
    }

    pub(super) fn name_of(&self, number: u32) -> &str {
        &self.destinations.get(number).expect("an item's destination exists").name
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The item waits until its ticket is due.
    pub(super) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(Reverse(ticket));
    }

    /// Takes the next ticket that is due at `now`, void or not.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<Ticket> {
        match self.waiting.peek() {
            Some(Reverse(ticket)) if ticket.due <= now => self.waiting.pop().map(|Reverse(ticket)| ticket),
            _ => None,
        }
    }

    /// Tickets in the heap, void ones included.
    pub(super) fn waiting_tickets(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets the void tickets.
    pub(super) fn retain_waiting(&mut self, valid: impl Fn(&Ticket) -> bool) {
        self.waiting.retain(|Reverse(ticket)| valid(ticket));
    }

    /// Destinations postponed until `now` may be tried again.
    pub(super) fn end_postponements(&mut self, now: u64) {
        while let Some((until, number)) = self.postponed.first().copied().filter(|(until, _)| *until <= now) {
            self.postponed.remove(&(until, number));
            self.set_postponed(number, 0, NO_NAME);
        }
    }

    /// No item of the destination is due before `until`.
    pub(super) fn postpone(&mut self, number: u32, until: u64, why: &str) {
        let before = self.destinations.get(number).map_or(0, |d| d.postponed_until);
        self.postponed.remove(&(before, number));
        let why = self.reasons.take(why);
        self.postponed.insert((until, number));
        self.set_postponed(number, until, why);
    }

    fn set_postponed(&mut self, number: u32, until: u64, why: u32) {
        let destination = self.destinations.get_mut(number).expect("a postponed destination exists");
        self.reasons.drop(std::mem::replace(&mut destination.why, why));
        destination.postponed_until = until;
        self.list(number);
    }

    /// Until when and why the destination is postponed.
    pub(super) fn postponement(&self, number: u32) -> Option<(u64, String)> {
        let destination = self.destinations.get(number)?;
        (destination.postponed_until > 0)
            .then(|| (destination.postponed_until, self.reasons.text(destination.why).to_owned()))
    }

    /// The item joins its sender's line.
    pub(super) fn make_ready(&mut self, number: u32, sender: u32, ticket: Ticket) {
        let destination = self.destinations.get_mut(number).expect("an item's destination exists");
        destination.ready += 1;
        let line = destination.lines.entry(sender).or_insert_with(|| {
            destination.turns.push_back(sender);
            VecDeque::new()
        });
        line.push_back(ticket);
        if destination.listed.is_none() {
            self.list(number);
        }
    }

    /// The item leaves its line (leased, held, gone); its ticket is void already.
    pub(super) fn unready(&mut self, number: u32) {
        let destination = self.destinations.get_mut(number).expect("an item's destination exists");
        destination.ready -= 1;
        if destination.ready == 0 {
            destination.lines = HashMap::default();
            destination.turns = VecDeque::new();
            self.list(number);
        }
    }

    /// The next ticket of the sender whose turn it is.
    pub(super) fn next_ticket(&mut self, number: u32) -> Option<Ticket> {
        let destination = self.destinations.get_mut(number)?;
        let sender = destination.turns.pop_front()?;
        let line = destination.lines.get_mut(&sender)?;
        let ticket = line.pop_front();
        if line.is_empty() {
            destination.lines.remove(&sender);
        } else {
            destination.turns.push_back(sender);
        }
        ticket
    }

    /// Puts the destination where it belongs in the order of those with something due.
    pub(super) fn list(&mut self, number: u32) {
        let Some(destination) = self.destinations.get_mut(number) else { return };
        let head = destination.turns.front().and_then(|sender| destination.lines.get(sender)?.front());
        let since = match head {
            Some(ticket) if destination.ready > 0 && destination.postponed_until == 0 => Some(ticket.due),
            _ => None,
        };
        if let Some(before) = std::mem::replace(&mut destination.listed, since) {
            self.ready.remove(&(before, number));
        }
        if let Some(since) = since {
            self.ready.insert((since, number));
        }
    }

    /// Destinations with something due, longest waiting first: number, items, since when.
    pub(super) fn due(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.ready.iter().map(|(since, number)| {
            (*number, self.destinations.get(*number).expect("a listed destination exists").ready, *since)
        })
    }

    /// When something changes by itself, if ever; may be early, never late.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        let ready = self.ready.first().map(|_| now);
        let waiting = self.waiting.peek().map(|Reverse(ticket)| ticket.due);
        let postponed = self.postponed.first().map(|(until, _)| *until);
        [ready, waiting, postponed].into_iter().flatten().min()
    }
}
