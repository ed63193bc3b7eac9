//! Who works on what: destinations with their windows, fresh leases and workers. Pure: time is passed in.
//!
//! Invariant: a destination with fresh leases has a worker; workers in total never exceed the limit. A worker leaves only through
//! [`Book::turn`] (or [`Book::leave`] if it died), so that no lease arrives between its last look and its going.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::shape::Shape;
use crate::config::settings::Retry;
use crate::spool::queue::Lease;

/// Fresh leases that wait in memory for one destination; more go back to the queue.
const FRESH_MAX: usize = 256;
/// Messages that a worker sends before it makes room for a destination that waits for one.
const QUANTUM: usize = 64;
/// Leases from memory after which older mail in the queue gets its turn, so that a flood does not starve it.
const FRESH_RUN: usize = 64;
/// Destinations remembered; to remember another, those at rest are forgotten, dead ones last.
const DESTINATIONS_MAX: usize = 100_000;

#[derive(Default)]
struct Destination {
    shape: Shape,
    fresh: VecDeque<Lease>,
    workers: usize,
    /// Fresh leases given since the queue was asked last.
    fresh_run: usize,
    /// The queue has, or may have, more that is due.
    backlog: bool,
}

impl Destination {
    fn at_rest(&self) -> bool {
        self.workers == 0 && self.fresh.is_empty()
    }
}

/// What a worker does next.
pub enum Turn {
    /// Deliver this.
    Lease(Lease),
    /// Ask the queue.
    AskQueue,
    /// Nothing now, but the seat is kept.
    Nothing,
    /// The seat is given up; these go back to the queue.
    Retire(Vec<Lease>),
}

/// What becomes of a fresh lease.
pub enum Offer {
    /// Kept; begin a worker if true.
    Taken(bool),
    /// Not now.
    Back(Lease),
}

/// What to do about a destination with due mail.
#[derive(Debug, PartialEq, Eq)]
pub enum Want {
    /// Begin this many workers.
    Workers(usize),
    /// It is dead: move its mail to then.
    Postpone(SystemTime, Arc<str>),
    /// No seat is free in total.
    Full,
}

/// The book.
pub struct Book {
    destinations: HashMap<Arc<str>, Destination, foldhash::fast::RandomState>,
    workers: usize,
    /// A destination waits for a seat: those that have one get no second.
    starving: bool,
    /// Workers in total.
    pub workers_max: usize,
    /// Connections of one destination.
    pub window_max: usize,
    /// Nothing new is begun.
    pub halted: bool,
    destinations_max: usize,
}

impl Default for Book {
    fn default() -> Self {
        Book {
            destinations: HashMap::default(),
            workers: 0,
            starving: false,
            workers_max: 1,
            window_max: 1,
            halted: false,
            destinations_max: DESTINATIONS_MAX,
        }
    }
}

impl Book {
    /// Destinations remembered.
    pub fn known(&self) -> usize {
        self.destinations.len()
    }

    /// Workers now.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Destinations left alone at `now`.
    pub fn dead(&self, now: SystemTime) -> usize {
        self.destinations.values().filter(|destination| destination.shape.dead(now).is_some()).count()
    }

    /// A fresh lease is there.
    pub fn offer(&mut self, lease: Lease, now: SystemTime) -> Offer {
        if self.halted {
            return Offer::Back(lease);
        }
        let (seat_free, window_max) = (self.workers < self.workers_max && !self.starving, self.window_max);
        let destination = self.remember(&lease.destination, now);
        let window = destination.shape.window(now).min(window_max);
        let wants_worker = destination.workers == 0 || !destination.fresh.is_empty();
        let begin = wants_worker && seat_free && destination.workers < window;
        if destination.fresh.len() >= FRESH_MAX || window == 0 || (destination.workers == 0 && !begin) {
            destination.backlog = true;
            return Offer::Back(lease);
        }
        destination.fresh.push_back(lease);
        destination.workers += usize::from(begin);
        self.workers += usize::from(begin);
        Offer::Taken(begin)
    }

    /// `due` items of a destination are due.
    pub fn want(&mut self, name: &Arc<str>, due: usize, now: SystemTime) -> Want {
        if self.halted {
            return Want::Workers(0);
        }
        let (seats, window_max, starving) =
            (self.workers_max.saturating_sub(self.workers), self.window_max, self.starving);
        let destination = self.remember(name, now);
        if let Some(dead) = destination.shape.dead(now) {
            return Want::Postpone(dead.until, dead.why.clone());
        }
        destination.backlog = true;
        let window = destination.shape.window(now).min(window_max);
        let wanted = window.saturating_sub(destination.workers).min(due);
        if starving && destination.workers > 0 {
            return Want::Workers(0);
        }
        // One seat each while seats are short; the window fills in later rounds.
        let given = if wanted > seats { seats.min(1) } else { wanted };
        if given == 0 && destination.workers == 0 {
            self.starving = true;
            return Want::Full;
        }
        destination.workers += given;
        self.workers += given;
        Want::Workers(given)
    }

    /// No destination waits for a seat any more.
    pub fn all_served(&mut self) {
        self.starving = false;
    }

    /// What a worker that has `served` so many messages does next. Unless it `may_retire`, the seat is kept.
    pub fn turn(&mut self, name: &Arc<str>, served: usize, may_retire: bool, now: SystemTime) -> Turn {
        let (halted, starving, window_max) = (self.halted, self.starving, self.window_max);
        let Some(destination) = self.destinations.get_mut(name) else {
            return Turn::Retire(Vec::new());
        };
        let window = destination.shape.window(now).min(window_max);
        let leave = halted || destination.workers > window || (starving && served >= QUANTUM);
        if !leave {
            let rest = destination.backlog && destination.fresh_run >= FRESH_RUN;
            if let Some(lease) = destination.fresh.pop_front_if(|_| !rest) {
                destination.fresh_run += 1;
                return Turn::Lease(lease);
            }
            destination.fresh_run = 0;
            if std::mem::take(&mut destination.backlog) {
                return Turn::AskQueue;
            }
        }
        if !may_retire {
            return Turn::Nothing;
        }
        Turn::Retire(self.leave(name))
    }

    /// Leases that a worker got from the queue beyond its first; `more`: there may be still more. Gives how many workers to begin.
    pub fn stock(
        &mut self,
        name: &Arc<str>,
        leases: impl IntoIterator<Item = Lease>,
        more: bool,
        now: SystemTime,
    ) -> usize {
        let seats = if self.starving { 0 } else { self.workers_max.saturating_sub(self.workers) };
        let Some(destination) = self.destinations.get_mut(name) else {
            return 0;
        };
        destination.fresh.extend(leases);
        destination.backlog |= more;
        let window = destination.shape.window(now).min(self.window_max);
        let more_workers = window.saturating_sub(destination.workers).min(seats).min(destination.fresh.len());
        destination.workers += more_workers;
        self.workers += more_workers;
        more_workers
    }

    /// A worker is gone. If it was the last one there, the leases that it leaves behind go back to the queue.
    pub fn leave(&mut self, name: &Arc<str>) -> Vec<Lease> {
        self.workers -= 1;
        let Some(destination) = self.destinations.get_mut(name) else {
            return Vec::new();
        };
        destination.workers -= 1;
        if destination.workers > 0 {
            return Vec::new();
        }
        let left: Vec<Lease> = destination.fresh.drain(..).collect();
        destination.backlog |= !left.is_empty();
        left
    }

    fn remember(&mut self, name: &Arc<str>, now: SystemTime) -> &mut Destination {
        if self.destinations.len() >= self.destinations_max && !self.destinations.contains_key(name) {
            self.make_room(now);
        }
        self.destinations.entry(name.clone()).or_default()
    }

    /// Forgets a quarter at least, so that it is rarely done. Of a dead destination only the knowledge is lost, not the mail, which has
    /// been postponed: it costs two connections to learn again.
    fn make_room(&mut self, now: SystemTime) {
        let most = self.destinations_max - self.destinations_max / 4;
        self.destinations.retain(|_, destination| !destination.at_rest() || destination.shape.dead(now).is_some());
        let mut surplus = self.destinations.len().saturating_sub(most);
        self.destinations.retain(|_, destination| {
            let forget = surplus > 0 && destination.at_rest();
            surplus -= usize::from(forget);
            !forget
        });
    }

    /// A message went through.
    pub fn succeeded(&mut self, name: &str) {
        let most = self.window_max;
        if let Some(destination) = self.destinations.get_mut(name) {
            destination.shape.succeeded(most);
        }
    }

    /// True if the destination has more workers than its window has places.
    pub fn is_crowded(&self, name: &str, now: SystemTime) -> bool {
        let crowded = |d: &Destination| d.workers > d.shape.window(now).min(self.window_max);
        self.destinations.get(name).is_some_and(crowded)
    }

    /// The destination asks for less.
    pub fn slowed(&mut self, name: &str, reply: &str) {
        if let Some(destination) = self.destinations.get_mut(name) {
            destination.shape.slowed(reply);
        }
    }

    /// A connection to it failed. If it is dead now: until when, and the leases that go back.
    pub fn failed(
        &mut self,
        name: &str,
        retry: &Retry,
        now: SystemTime,
        random: f64,
        why: &str,
    ) -> Option<(SystemTime, Vec<Lease>)> {
        let destination = self.destinations.get_mut(name)?;
        let until = destination.shape.failed(retry, now, random, why)?;
        Some((until, destination.fresh.drain(..).collect()))
    }

    /// An operator wants one destination, or all, tried now.
    pub fn revive(&mut self, name: Option<&str>) {
        for (known, destination) in &mut self.destinations {
            if name.is_none_or(|name| name == &**known) {
                destination.shape.revive();
            }
        }
    }

    /// Takes all leases that wait in memory.
    pub fn drain(&mut self) -> Vec<Lease> {
        self.destinations.values_mut().flat_map(|destination| destination.fresh.drain(..)).collect()
    }

    /// A sentence for `queue why`.
    pub fn why(&self, name: &str, now: SystemTime) -> String {
        match self.destinations.get(name) {
            Some(destination) => destination.shape.sentence(name, now, destination.workers),
            None => format!("{name} has not been tried since the start"),
        }
    }
}

#[cfg(test)]
#[path = "book_model.rs"]
mod model;
