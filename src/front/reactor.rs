//! One reactor: a thread with its poll, its connections and its timers. I/O: sockets.
//!
//! A connection never changes its thread. Everything that its conversation runs, machine and service, runs inside
//! `catch_unwind`: a panic ends that conversation and is counted, the others don't notice. Here is no wait but the poll's.

use std::io::{self, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::accept::Listeners;
use super::connection::{Connection, End, Flags, Talk};
use super::inbox::Inbox;
use super::service::{Peer, Refusal, Service};
use super::shared::Shared;
use super::slab::{Key, Slab};
use super::turn::{Scratch, Turn};
use super::wheel::Wheel;
use crate::base::machine::Machine;

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The waker's token; listeners have those below it. Connections' tokens lack the highest bit.
pub(super) const WAKER: Token = Token(usize::MAX);
/// How long the peer may take to read our last words when it still had something to say, and how many of its bytes we
/// throw away meanwhile. Closing with unread input would reset the connection and lose them (RFC 9112 §9.6 tells why).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Connections looked at to find one that is idle, and how idle it must be to make place for a newcomer.
const SHED_SAMPLES: usize = 32;
const SHED_IDLE_MIN: Duration = Duration::from_secs(10);

type Answer<S> = <<S as Service>::Machine as Machine>::Answer;

/// How a reactor ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were open when the stop began and ended by themselves in time.
    pub finished: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// The state of one reactor thread.
pub(super) struct Reactor<S: Service> {
    pub poll: Poll,
    pub shared: Shared<S>,
    pub inbox: Arc<Inbox<Answer<S>>>,
    pub listeners: Listeners,
    pub connections: Slab<Connection<S::Machine>>,
    pub now: Instant,
    scratch: Scratch,
    wheel: Wheel,
    /// Late answers under work; kept for its memory.
    answers: Vec<(Key, Option<Answer<S>>)>,
    /// Connections that have more to do without an event.
    queued: Vec<Key>,
    stopping: Option<Stopping>,
}

struct Stopping {
    deadline: Instant,
    open_before: usize,
    cut: usize,
}

impl<S: Service> Reactor<S> {
    pub fn new(poll: Poll, shared: Shared<S>, inbox: Arc<Inbox<Answer<S>>>, listeners: Listeners) -> Self {
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
        let busy = stop_unseen || !self.queued.is_empty() || !self.inbox.is_empty() || self.listeners.is_busy();
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
    fn turn(&mut self, key: Key, first: impl FnOnce(&mut S::Machine, Instant)) {
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

    /// Says goodbye as far as it is due, and closes or lingers.
    fn end(&mut self, key: Key, mut connection: Box<Connection<S::Machine>>, end: End) {
        self.log_end(&connection, &end);
        if let End::Refused(why) = end {
            self.refuse(&connection.peer, why, &connection.stream);
        }
        if let Some(tls) = connection.tls.as_mut().filter(|tls| tls.up) {
            tls.session.send_close_notify();
            // What the socket does not take now is lost; the peer sees the end of the stream all the same.
            let _ = connection.write(&[]);
        }
        let unread = connection.flags.readable || !connection.rest.is_empty();
        let lingers = matches!(end, End::Closed | End::Refused(_)) && unread && !connection.flags.eof;
        if !lingers || connection.stream.shutdown(Shutdown::Write).is_err() {
            return self.forget(key, &mut connection);
        }
        let talk = std::mem::replace(&mut connection.talk, Talk::Lingering { bytes_left: LINGER_BYTES_MAX });
        self.close_talk(&connection.peer, talk);
        connection.rest = Vec::new();
        connection.tls = None;
        connection.then = None;
        connection.flags = Flags { readable: true, hung_up: connection.flags.hung_up, ..Flags::default() };
        connection.deadline = Some(self.now + LINGER);
        self.connections.put_back(key, connection);
        self.turn(key, |_, _| {});
    }

    fn log_end(&self, connection: &Connection<S::Machine>, end: &End) {
        let peer = connection.peer.remote;
        match end {
            End::Closed | End::Gone => {}
            End::Lost => tracing::error!(%peer, "a question was dropped unanswered; the conversation is closed"),
            End::Proxy(why) => {
                self.shared.meters.proxy_errors.inc();
                tracing::warn!(%peer, why, "closed: the PROXY header");
            }
            End::Tls(error) => {
                self.shared.meters.handshakes.with_label_values(&["failed"]).inc();
                tracing::info!(%peer, %error, "TLS failed");
            }
            End::Timeout if connection.is_handshaking() => {
                self.shared.meters.handshakes.with_label_values(&["timeout"]).inc();
                tracing::info!(%peer, "TLS handshake took too long");
            }
            End::Socket(error) => tracing::debug!(%peer, %error, "the socket failed"),
            other => tracing::debug!(%peer, ?other, "connection ended"),
        }
    }

    /// Tells a connection that it can't be served, if it would understand.
    pub(super) fn refuse(&self, peer: &Peer, why: Refusal, mut stream: &TcpStream) {
        let setup = self.shared.setup(peer.listener);
        self.shared.meters.refuse(&setup.address.to_string(), why);
        tracing::debug!(peer = %peer.remote, why = why.as_str(), "refused");
        if setup.tls != crate::config::settings::ListenerTls::Implicit {
            // A new socket takes a line at once; if not, the close says enough.
            let _ = stream.write(&self.shared.service.refuse(why, peer));
        }
    }

    fn forget(&mut self, key: Key, connection: &mut Connection<S::Machine>) {
        let talk = std::mem::replace(&mut connection.talk, Talk::Leaving);
        self.close_talk(&connection.peer, talk);
        self.listeners.count_closed(connection.peer.listener);
        self.connections.release(key);
    }

    fn close_talk(&self, peer: &Peer, talk: Talk<S::Machine>) {
        let Talk::Open(machine) = talk else { return };
        if catch_unwind(AssertUnwindSafe(|| self.shared.service.closed(peer, machine))).is_err() {
            self.shared.meters.panics.inc();
            tracing::error!(peer = %peer.remote, "closing a conversation panicked");
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
        self.listeners.count_opened(connection.peer.listener);
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

    fn check_stop(&mut self) -> Option<Stopped> {
        if self.stopping.is_none() {
            let deadline = **self.shared.control.stop_at.load().as_ref()?;
            self.begin_stop(deadline);
        }
        let stopping = self.stopping.as_mut()?;
        if self.now >= stopping.deadline {
            stopping.cut += self.connections.len();
            for key in self.connections.keys() {
                if let Some(connection) = self.connections.take(key) {
                    self.end(key, connection, End::Cut);
                }
            }
        }
        let stopping = self.stopping.as_ref()?;
        let done = self.connections.len() == 0;
        done.then_some(Stopped { finished: stopping.open_before.saturating_sub(stopping.cut), cut: stopping.cut })
    }

    fn begin_stop(&mut self, deadline: Instant) {
        self.accept(); // those who wait at the door are told
        self.listeners.close();
        self.stopping = Some(Stopping { deadline, open_before: self.connections.len(), cut: 0 });
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if matches!(connection.talk, Talk::Open(_)) && !connection.is_handshaking() {
                self.turn(key, |machine, now| machine.handle_stop(now));
            } else if let Some(connection) = self.connections.take(key) {
                self.end(key, connection, End::Cut);
            }
        }
    }
}
