//! One reactor: a thread with its poll, its connections and its timers. I/O: sockets.
//!
//! A connection never changes its thread. Everything that its conversation runs, machine and service, runs inside
//! `catch_unwind`: a panic ends that conversation and is counted, the others don't notice. Here is no wait but the poll's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::accept::{Change, Listeners};
use super::connection::{Connection, End, Talk};
use super::farewell::{Stopped, Stopping};
use super::inbox::Inbox;
use super::service::Service;
use super::shared::Shared;
use super::slab::{Key, Slab};
use super::turn::{Scratch, Turn};
use super::wheel::Wheel;
use crate::base::machine::Machine;

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The waker's token; listeners have those below it. Connections' tokens lack the highest bit.
pub(super) const WAKER: Token = Token(usize::MAX);
/// Connections looked at to find one that is idle, and how idle it must be to make place for a newcomer.
const SHED_SAMPLES: usize = 32;
const SHED_IDLE_MIN: Duration = Duration::from_secs(10);

type Answer<S> = <<S as Service>::Machine as Machine>::Answer;

/// The state of one reactor thread.
pub(super) struct Reactor<S: Service> {
    pub poll: Poll,
    pub shared: Shared<S>,
    pub inbox: Arc<Inbox<Answer<S>>>,
    pub listeners: Listeners,
    pub connections: Slab<Connection<S::Machine>>,
    pub now: Instant,
    pub scratch: Scratch,
    wheel: Wheel,
    /// Late answers under work; kept for its memory.
    answers: Vec<(Key, Option<Answer<S>>)>,
    /// Connections that have more to do without an event.
    queued: Vec<Key>,
    pub stopping: Option<Stopping>,
    /// Reloads' parts for this reactor, and one that was found before sleeping.
    changes: mpsc::Receiver<Change>,
    change: Option<Change>,
}

impl<S: Service> Reactor<S> {
    pub fn new(
        poll: Poll,
        shared: Shared<S>,
        inbox: Arc<Inbox<Answer<S>>>,
        listeners: Listeners,
        changes: mpsc::Receiver<Change>,
    ) -> Self {
        let now = Instant::now();
        Reactor {
            poll,
            shared,
            inbox,
            listeners,
            connections: Slab::new(),
            now,
            scratch: Scratch::new(),
            wheel: Wheel::new(now),
            answers: Vec::new(),
            queued: Vec::new(),
            stopping: None,
            changes,
            change: None,
        }
    }

    /// Serves until stopped and all connections are gone.
    pub fn run(mut self) -> Stopped {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.sleep(&mut events);
            let began = Instant::now();
            self.now = began;
            for event in &events {
                self.handle_event(event);
            }
            self.handle_answers();
            self.handle_timers();
            self.handle_queued();
            if let Some(change) = self.change.take() {
                self.renew_doors(change);
            }
            self.accept();
            self.report(began);
            if let Some(stopped) = self.check_stop() {
                return stopped;
            }
        }
    }

    fn sleep(&mut self, events: &mut Events) {
        self.inbox.alarm.before_sleep();
        let stop_unseen = self.stopping.is_none() && self.shared.control.stop_at.load().is_some();
        self.change = self.changes.try_recv().ok();
        let busy = stop_unseen
            || self.change.is_some()
            || !self.queued.is_empty()
            || !self.inbox.is_empty()
            || self.listeners.is_busy();
        let timeout = if busy { Some(Duration::ZERO) } else { self.next_deadline() };
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Only a broken poll descriptor does this, and nothing can be served without it.
            panic!("a reactor's poll failed: {error}");
        }
        self.inbox.alarm.after_sleep();
    }

    fn next_deadline(&self) -> Option<Duration> {
        let stop = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let next = [self.wheel.next(), self.listeners.resumes_at(), stop].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn handle_event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return; // what it woke for is looked at in every turn
        }
        if self.listeners.handle_event(token) {
            return;
        }
        let key = Key::from_token(token.0);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.flags.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        connection.flags.hung_up |= event.is_read_closed() || event.is_error();
        if connection.has_backlog() || (connection.flags.readable && connection.wants_input()) {
            self.turn(key, |_, _| {});
        }
    }

    fn handle_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        self.inbox.drain(&mut answers);
        self.shared.meters.late_answers.inc_by(answers.len() as u64);
        for (key, answer) in answers.drain(..) {
            // Nothing is open if the conversation is gone, or was answered at once by a service that made a ticket too.
            let asking = self.connections.get_mut(key).is_some_and(|c| std::mem::take(&mut c.flags.asking));
            if !asking {
                continue;
            }
            match answer {
                Some(answer) => self.turn(key, |machine, now| machine.handle_answer(now, answer)),
                None => self.lose(key),
            }
        }
        self.answers = answers;
    }

    fn lose(&mut self, key: Key) {
        let Some(connection) = self.connections.take(key) else { return };
        self.shared.meters.lost_questions.inc();
        self.end(key, connection, End::Lost);
    }

    fn handle_timers(&mut self) {
        let mut due = Vec::new();
        self.wheel.advance(self.now, &mut due);
        for (tick, key) in due {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.timer != Some(tick) {
                continue;
            }
            connection.timer = None;
            if connection.deadline.is_some_and(|deadline| deadline <= self.now) {
                let connection = self.connections.take(key).expect("it was just looked at");
                self.end(key, connection, End::Timeout);
            } else if connection.poll_timeout().is_some_and(|timeout| timeout <= self.now) {
                self.turn(key, |machine, now| machine.handle_timeout(now));
            } else {
                self.arm(key);
            }
        }
    }

    fn handle_queued(&mut self) {
        for key in std::mem::take(&mut self.queued) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.flags.queued = false;
                self.turn(key, |_, _| {});
            }
        }
    }

    fn report(&mut self, began: Instant) {
        self.shared.meters.bytes_in.inc_by(std::mem::take(&mut self.scratch.bytes_in));
        self.shared.meters.bytes_out.inc_by(std::mem::take(&mut self.scratch.bytes_out));
        self.shared.meters.turn_seconds.observe(began.elapsed().as_secs_f64());
    }

    /// Gives a conversation what `first` has for it, then runs the connection.
    pub(super) fn turn(&mut self, key: Key, first: impl FnOnce(&mut S::Machine, Instant)) {
        let Some(mut connection) = self.connections.take(key) else { return };
        let mut turn =
            Turn { shared: &self.shared, inbox: &self.inbox, scratch: &mut self.scratch, now: self.now, key };
        let run = AssertUnwindSafe(|| {
            turn.hand_over(&mut connection, first);
            turn.run(&mut connection)
        });
        match catch_unwind(run) {
            Ok(Ok(more)) => {
                if more && !connection.flags.queued {
                    connection.flags.queued = true;
                    self.queued.push(key);
                }
                self.connections.put_back(key, connection);
                self.arm(key);
            }
            Ok(Err(end)) => self.end(key, connection, end),
            Err(_) => {
                self.shared.meters.panics.inc();
                tracing::error!(peer = %connection.peer.remote, "a conversation panicked and is closed");
                self.forget(key, &mut connection);
            }
        }
    }

    /// Makes sure that the connection is looked at by its next deadline.
    fn arm(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(deadline) = connection.poll_timeout() else { return };
        let tick = self.wheel.tick_of(deadline);
        if connection.timer.is_none_or(|entered| tick < entered) {
            connection.timer = Some(tick);
            self.wheel.enter(tick, key);
        }
    }

    /// Takes a connection in.
    pub(super) fn adopt(&mut self, mut connection: Box<Connection<S::Machine>>) -> io::Result<()> {
        let key = self.connections.reserve();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut connection.stream, Token(key.token()), interest) {
            self.connections.release(key);
            return Err(error);
        }
        self.shared.count_opened(connection.peer.listener);
        self.connections.put_back(key, connection);
        self.turn(key, |_, _| {});
        Ok(())
    }

    /// Asks the idlest of a sample to go; true if its place is free.
    pub(super) fn shed_idlest(&mut self) -> bool {
        let start = fastrand::usize(..);
        let idlest = (0..SHED_SAMPLES)
            .filter_map(|step| self.connections.at(start.wrapping_add(step)))
            .filter(|(_, c)| matches!(c.talk, Talk::Open(_)) && !c.flags.asking)
            .filter(|(_, c)| self.now.saturating_duration_since(c.active) >= SHED_IDLE_MIN)
            .min_by_key(|(_, c)| c.active);
        let Some((key, _)) = idlest else { return false };
        let before = self.connections.len();
        self.turn(key, |machine, now| machine.handle_stop(now));
        let free = self.connections.len() < before;
        self.shared.meters.shed.inc_by(u64::from(free));
        free
    }
}
