//! The book against a model: a queue, workers that step one at a time, and everything that may happen between two steps. Pure.
//!
//! After each step no lease is lost, seats and windows add up, and no fresh lease is without a worker; in the end all is delivered.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::wire::envelope::{Envelope, Origin};

const DESTINATIONS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Fresh(usize),
    Dispatch,
    /// A worker, by any number, takes its turn.
    Turn(usize),
    Die(usize),
    Fail(usize),
    Slow(usize),
    Halt(bool),
    Wait(u64),
}

struct Worker {
    name: Arc<str>,
    served: usize,
    hand: Option<Lease>,
}

struct World {
    book: Book,
    queue: Vec<Lease>,
    workers: Vec<Worker>,
    now: SystemTime,
    accepted: usize,
    delivered: usize,
    dead_until: HashMap<Arc<str>, SystemTime>,
}

fn name(n: usize) -> Arc<str> {
    format!("d{}", n % DESTINATIONS).into()
}

fn lease(id: usize, destination: Arc<str>) -> Lease {
    Lease {
        id: QueueId(id as u64),
        envelope: Arc::new(Envelope::plain(Origin::local("mx"), None, Vec::new())),
        destination,
        recipients: Vec::new(),
        accepted: SystemTime::UNIX_EPOCH,
        prefix: Arc::from(&b""[..]),
        content: Content::from_bytes(Vec::new()),
    }
}

fn retry() -> Retry {
    let secs = Duration::from_secs;
    Retry {
        first: secs(10),
        factor: 2.0,
        max: secs(60),
        expire: secs(9999),
        expire_null_sender: secs(999),
        delay_notice: secs(0),
    }
}

impl World {
    fn new(workers_max: usize, window_max: usize) -> Self {
        let book = Book { workers_max, window_max, ..Book::default() };
        let (queue, workers, dead_until) = (Vec::new(), Vec::new(), HashMap::new());
        World { book, queue, workers, now: SystemTime::UNIX_EPOCH, accepted: 0, delivered: 0, dead_until }
    }

    fn begin(&mut self, name: &Arc<str>, count: usize) {
        for _ in 0..count {
            self.workers.push(Worker { name: name.clone(), served: 0, hand: None });
        }
        if count > 0 {
            let destination = &self.book.destinations[name];
            let window = destination.shape.window(self.now).min(self.book.window_max);
            assert!(destination.workers <= window, "more workers begun than the window has");
        }
    }

    fn due(&self, name: &Arc<str>) -> usize {
        let postponed = self.dead_until.get(name).is_some_and(|until| *until > self.now);
        if postponed { 0 } else { self.queue.iter().filter(|lease| lease.destination == *name).count() }
    }

    fn dispatch(&mut self) {
        let mut all_served = true;
        for name in (0..DESTINATIONS).map(name) {
            let due = self.due(&name);
            if due == 0 {
                continue;
            }
            match self.book.want(&name, due, self.now) {
                Want::Workers(count) => self.begin(&name, count),
                Want::Postpone(until, _) => drop(self.dead_until.insert(name, until)),
                Want::Full => all_served = false,
            }
        }
        if all_served {
            self.book.all_served();
        }
    }

    fn turn(&mut self, at: usize) {
        if self.workers.is_empty() {
            return;
        }
        let at = at % self.workers.len();
        let worker = &mut self.workers[at];
        let name = worker.name.clone();
        if worker.hand.take().is_some() {
            (self.delivered, worker.served) = (self.delivered + 1, worker.served + 1);
            self.book.succeeded(&name);
        }
        loop {
            match self.book.turn(&name, self.workers[at].served, true, self.now) {
                Turn::Lease(lease) => return self.workers[at].hand = Some(lease),
                Turn::AskQueue => {
                    if let Some(lease) = self.ask(&name) {
                        return self.workers[at].hand = Some(lease);
                    }
                }
                Turn::Retire(left) => {
                    self.workers.remove(at);
                    return self.queue.extend(left);
                }
                Turn::Nothing => unreachable!("the worker may retire"),
            }
        }
    }

    fn ask(&mut self, name: &Arc<str>) -> Option<Lease> {
        const ASKED: usize = 3;
        let due = self.due(name).min(ASKED);
        let mut got: Vec<Lease> = self.queue.extract_if(.., |lease| lease.destination == *name).collect();
        self.queue.extend(got.split_off(due));
        let first = (due > 0).then(|| got.remove(0));
        let begin = self.book.stock(name, got, due == ASKED, self.now);
        self.begin(name, begin);
        first
    }

    fn die(&mut self, at: usize) {
        if !self.workers.is_empty() {
            let worker = self.workers.remove(at % self.workers.len());
            self.queue.extend(worker.hand);
            let left = self.book.leave(&worker.name);
            self.queue.extend(left);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Fresh(n) => {
                self.accepted += 1;
                match self.book.offer(lease(self.accepted, name(*n)), self.now) {
                    Offer::Taken(begin) => self.begin(&name(*n), usize::from(begin)),
                    Offer::Back(lease) => self.queue.push(lease),
                }
            }
            Step::Dispatch => self.dispatch(),
            Step::Turn(at) => self.turn(*at),
            Step::Die(at) => self.die(*at),
            Step::Fail(n) => {
                if let Some((until, left)) = self.book.failed(&name(*n), &retry(), self.now, 0.0, "refused") {
                    self.queue.extend(left);
                    self.dead_until.insert(name(*n), until);
                }
            }
            Step::Slow(n) => self.book.slowed(&name(*n), "432"),
            Step::Halt(halted) => {
                self.book.halted = *halted;
                if *halted {
                    let left = self.book.drain();
                    self.queue.extend(left);
                }
            }
            Step::Wait(secs) => self.now += Duration::from_secs(*secs),
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.book.workers(), self.workers.len(), "the book counts the workers that are");
        assert!(self.workers.len() <= self.book.workers_max);
        let mut fresh = 0;
        for (name, destination) in &self.book.destinations {
            let here = self.workers.iter().filter(|worker| worker.name == *name).count();
            assert_eq!(destination.workers, here);
            assert!(destination.fresh.is_empty() || here > 0, "a fresh lease without a worker");
            fresh += destination.fresh.len();
        }
        let in_hand = self.workers.iter().filter(|worker| worker.hand.is_some()).count();
        assert_eq!(self.accepted, self.delivered + in_hand + fresh + self.queue.len(), "a lease is lost or doubled");
    }

    /// From here on all goes well: everything must be delivered.
    fn drain(&mut self) {
        self.step(&Step::Halt(false));
        let rounds_max = 1000 + self.accepted;
        for _ in 0..rounds_max {
            if self.delivered == self.accepted {
                return;
            }
            self.step(&Step::Dispatch);
            for at in (0..self.workers.len()).rev() {
                self.step(&Step::Turn(at));
            }
            self.step(&Step::Wait(1));
        }
        panic!("{} of {} are never delivered", self.accepted - self.delivered, self.accepted);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..DESTINATIONS).prop_map(Step::Fresh),
        3 => Just(Step::Dispatch),
        8 => (0usize..50).prop_map(Step::Turn),
        1 => (0usize..50).prop_map(Step::Die),
        1 => (0..DESTINATIONS).prop_map(Step::Fail),
        1 => (0..DESTINATIONS).prop_map(Step::Slow),
        1 => any::<bool>().prop_map(Step::Halt),
        1 => (0u64..30).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_and_no_limit_passed_whatever_happens(
        workers_max in 1usize..6, window_max in 1usize..5, steps in proptest::collection::vec(step(), 0..300))
    {
        let mut world = World::new(workers_max, window_max);
        for step in &steps {
            world.step(step);
        }
        world.drain();
    }
}

#[test]
fn one_busy_destination_does_not_keep_the_seats_from_another() {
    let mut world = World::new(2, 2);
    for _ in 0..5000 {
        world.step(&Step::Fresh(0));
    }
    world.step(&Step::Dispatch);
    assert_eq!(world.workers.len(), 2);
    world.step(&Step::Fresh(1));
    let waits = |world: &World| world.queue.iter().any(|lease| lease.destination == name(1));
    let (mut turns, before) = (0, world.delivered);
    while waits(&world) || world.workers.iter().any(|worker| worker.name == name(1)) {
        world.step(&Step::Dispatch);
        world.step(&Step::Turn(turns));
        turns += 1;
        assert!(turns < 1000, "the other destination never got a seat");
    }
    assert!(world.delivered - before < 4 * QUANTUM + FRESH_RUN, "it waited for more than a quantum of each seat");
}

#[test]
fn a_flood_of_fresh_mail_does_not_starve_what_waits_in_the_queue() {
    let mut world = World::new(1, 1);
    world.queue.push(lease(0, name(0)));
    world.accepted += 1;
    world.step(&Step::Fresh(0));
    world.step(&Step::Dispatch);
    for turns in 0.. {
        world.step(&Step::Fresh(0));
        world.step(&Step::Fresh(0));
        world.step(&Step::Turn(0));
        world.step(&Step::Dispatch);
        if world.queue.iter().all(|lease| lease.id != QueueId(0)) {
            return;
        }
        assert!(turns <= FRESH_RUN, "old mail waits while fresh mail is sent");
    }
}

#[test]
fn destinations_are_bounded_even_if_all_are_dead() {
    let mut book = Book { workers_max: 10, window_max: 10, destinations_max: 100, ..Book::default() };
    let now = SystemTime::UNIX_EPOCH;
    for n in 0..1000 {
        let name: Arc<str> = format!("dead{n}").into();
        assert!(matches!(book.offer(lease(n, name.clone()), now), Offer::Taken(true)));
        let failures = [1, 2].map(|_| book.failed(&name, &retry(), now, 0.0, "refused").map(|(_, left)| left.len()));
        assert_eq!(failures, [None, Some(1)]);
        book.leave(&name);
        assert!(book.known() <= 100);
    }
    assert!(book.dead(now) >= 75, "the dead are forgotten last");
    assert!(matches!(book.want(&"new".into(), 5, now), Want::Workers(2)));
}
