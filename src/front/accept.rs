//! The listeners of one reactor: accept until empty, admit or refuse. I/O: sockets.
//!
//! Out of file descriptors it neither spins nor hangs: one that is kept in reserve tells one waiting client so, then
//! accepting pauses for a moment and those who wait stay in the backlog.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::connection::{Connection, Flags, Talk};
use super::gate::Place;
use super::listen::{BACKLOG, ListenerSetup};
use super::reactor::{Reactor, WAKER};
use super::service::{Peer, Refusal, Service};

/// Connections accepted before those that are there have their turn.
const ACCEPTS_PER_TURN: usize = 256;
/// How long accepting rests when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listening sockets of one reactor.
pub(super) struct Listeners {
    doors: Vec<Door>,
    reserve: Option<OwnedFd>,
    paused_until: Option<Instant>,
    open: bool,
}

/// One listening socket.
pub(super) struct Door {
    socket: TcpListener,
    /// The socket's own number, never used again.
    number: usize,
    /// The listener that its connections are of.
    listener: usize,
    /// The local address of every connection, unless bound to a wildcard.
    fixed: Option<SocketAddr>,
    /// More connections may wait (edge-triggered: true until an accept finds none).
    ready: bool,
}

impl Door {
    /// Watches `socket`.
    pub fn new(registry: &Registry, socket: std::net::TcpListener, number: usize, listener: usize) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, token_of(number), Interest::READABLE)?;
        let fixed = Some(local).filter(|address| !address.ip().is_unspecified());
        Ok(Door { socket, number, listener, fixed, ready: true })
    }

    /// Watches it no longer. Closing alone is not enough: systemd's sockets are open elsewhere too, and would go on to wake us.
    pub fn shut(mut self, registry: &Registry) {
        if let Err(error) = registry.deregister(&mut self.socket) {
            tracing::debug!(%error, "a listening socket was not watched");
        }
    }
}

impl Listeners {
    /// With the sockets of the start.
    pub fn new(doors: Vec<Door>) -> Self {
        Listeners { doors, reserve: make_reserve(), paused_until: None, open: true }
    }

    /// True if the token was a listening socket's.
    pub fn handle_event(&mut self, token: Token) -> bool {
        let Some(door) = self.doors.iter_mut().find(|door| token_of(door.number) == token) else { return false };
        door.ready = true;
        true
    }

    /// True if accepting can go on at once.
    pub fn is_busy(&self) -> bool {
        self.open && self.paused_until.is_none() && self.doors.iter().any(|door| door.ready)
    }

    /// When accepting goes on after a pause.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.open)
    }

    /// Stops listening.
    pub fn close(&mut self, registry: &Registry) {
        self.open = false;
        self.doors.drain(..).for_each(|door| door.shut(registry));
    }

    fn accept_one(&mut self, index: usize) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.doors[index].socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.doors[index].ready = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Listening sockets' tokens lie just below the waker's.
fn token_of(number: usize) -> Token {
    Token(WAKER.0 - 1 - number)
}

/// A descriptor to give up in need. An event descriptor, because a sandbox may forbid to open files.
fn make_reserve() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}

/// A reload's part for one reactor.
pub(super) struct Change {
    /// Sockets that listen from now on.
    pub opened: Vec<Door>,
    /// Socket and listener: whose its next connections are.
    pub moved: Vec<(usize, usize)>,
    /// Sockets that listen no longer.
    pub closed: Vec<usize>,
    /// Told when all of it is done.
    pub done: mpsc::Sender<()>,
}

impl<S: Service> Reactor<S> {
    /// Accepts what waits at all listeners, within bounds.
    pub(super) fn accept(&mut self) {
        if self.listeners.paused_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.listeners.paused_until = None;
        for index in 0..self.listeners.doors.len() {
            self.accept_up_to(ACCEPTS_PER_TURN, index);
        }
    }

    fn accept_up_to(&mut self, most: usize, index: usize) {
        for _ in 0..most {
            if !self.listeners.doors[index].ready || !self.accept_from(index) {
                break;
            }
        }
    }

    /// Does its part of a reload.
    pub(super) fn renew_doors(&mut self, change: Change) {
        if self.listeners.open {
            self.listeners.doors.extend(change.opened);
        }
        for (number, listener) in change.moved {
            self.listeners
                .doors
                .iter_mut()
                .filter(|door| door.number == number)
                .for_each(|door| door.listener = listener);
        }
        for number in change.closed {
            let Some(index) = self.listeners.doors.iter().position(|door| door.number == number) else { continue };
            // Who got as far as the backlog was answered by the kernel already: closing would cut them off.
            self.listeners.doors[index].ready = true;
            self.accept_up_to(BACKLOG, index);
            self.listeners.doors.swap_remove(index).shut(self.poll.registry());
        }
        // Nobody waits if the reload was given up.
        let _ = change.done.send(());
    }

    /// Accepts one; false if this listener has to wait.
    fn accept_from(&mut self, index: usize) -> bool {
        match self.listeners.accept_one(index) {
            Ok(None) => false,
            Ok(Some((stream, remote))) => {
                let peer = self.peer_of(index, &stream, remote);
                self.admit(stream, peer);
                true
            }
            Err(error) if is_shortage(&error) => {
                self.pause(index, &error);
                false
            }
            // The client gave up while it waited (ECONNABORTED), or its network failed (accept(2)).
            Err(error) => {
                tracing::debug!(%error, "accept");
                true
            }
        }
    }

    fn peer_of(&self, door: usize, stream: &TcpStream, remote: SocketAddr) -> Peer {
        let Door { fixed, listener, .. } = self.listeners.doors[door];
        let local = fixed.or_else(|| stream.local_addr().ok()).unwrap_or(remote);
        Peer { remote: canonical(remote), local: canonical(local), listener }
    }

    fn admit(&mut self, stream: TcpStream, peer: Peer) {
        let setup = self.shared.setup(peer.listener);
        let is_proxy = setup.is_proxy(peer.remote.ip());
        let mut admitted = self.place_for(&setup, &peer, is_proxy);
        if matches!(admitted, Err(Refusal::Total)) && self.shed_idlest() {
            admitted = self.place_for(&setup, &peer, is_proxy);
        }
        let place = match admitted {
            Ok(place) => place,
            Err(why) => return self.refuse(&peer, why, &stream),
        };
        let connection = Box::new(Connection {
            stream,
            tls: None,
            talk: if is_proxy { Talk::Introduction } else { Talk::Arriving },
            peer,
            rest: Vec::new(),
            unsent: Vec::new(),
            then: None,
            deadline: Some(self.now + setup.limits.handshake_timeout),
            timer: None,
            active: self.now,
            // Most clients wait for our banner; a PROXY header is most likely there already.
            flags: Flags { readable: is_proxy, ..Flags::default() },
            place: Some(place),
        });
        if let Err(error) = self.adopt(connection) {
            tracing::warn!(%error, "a new connection can't be watched");
        }
    }

    fn place_for(&self, setup: &ListenerSetup, peer: &Peer, is_proxy: bool) -> Result<Place, Refusal> {
        let ip = peer.remote.ip();
        if self.shared.control.stop_at.load().is_some() {
            return Err(Refusal::Stopping);
        }
        if is_proxy || setup.trusts(ip) {
            return self.shared.gate.enter_trusted(&setup.limits);
        }
        self.shared.gate.enter(self.now, ip, &setup.limits)
    }

    fn pause(&mut self, index: usize, error: &io::Error) {
        self.shared.meters.accept_pauses.inc();
        tracing::warn!(%error, "accepting pauses");
        self.listeners.reserve = None;
        if let Ok(Some((stream, remote))) = self.listeners.accept_one(index) {
            let peer = self.peer_of(index, &stream, remote);
            self.refuse(&peer, Refusal::Descriptors, &stream);
        }
        self.listeners.reserve = make_reserve();
        self.listeners.paused_until = Some(self.now + PAUSE);
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: it will be the same a moment later.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// IPv4 clients of an IPv6 socket count as what they are.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
