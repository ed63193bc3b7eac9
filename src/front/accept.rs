//! The listeners of one reactor: accept until empty, admit or refuse. I/O: sockets.
//!
//! Out of file descriptors it neither spins nor hangs: one that is kept in reserve tells one waiting client so, then
//! accepting pauses for a moment and those who wait stay in the backlog.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use prometheus::{IntCounter, IntGauge};

use super::connection::{Connection, Flags, Talk};
use super::gate::Place;
use super::listen::ListenerSetup;
use super::meters::Meters;
use super::reactor::{Reactor, WAKER};
use super::service::{Peer, Refusal, Service};

/// Connections accepted before those that are there have their turn.
const ACCEPTS_PER_TURN: usize = 256;
/// How long accepting rests when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listening sockets of one reactor.
pub(super) struct Listeners {
    all: Vec<Listener>,
    reserve: Option<OwnedFd>,
    paused_until: Option<Instant>,
    open: bool,
}

struct Listener {
    socket: Option<TcpListener>,
    /// The local address of every connection, unless bound to a wildcard.
    fixed: Option<SocketAddr>,
    /// More connections may wait (edge-triggered: true until an accept finds none).
    ready: bool,
    opened: IntGauge,
    accepted: IntCounter,
}

impl Listeners {
    /// Registers `sockets`, one a listener.
    pub fn new(
        registry: &Registry,
        sockets: Vec<std::net::TcpListener>,
        setups: &[std::sync::Arc<ListenerSetup>],
        meters: &Meters,
    ) -> io::Result<Self> {
        let mut all = Vec::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            let name = setups[index].address.to_string();
            let local = socket.local_addr()?;
            let mut socket = TcpListener::from_std(socket);
            registry.register(&mut socket, token_of(index), Interest::READABLE)?;
            all.push(Listener {
                socket: Some(socket),
                fixed: Some(local).filter(|address| !address.ip().is_unspecified()),
                ready: true,
                opened: meters.open.with_label_values(&[&name]),
                accepted: meters.accepted.with_label_values(&[&name]),
            });
        }
        Ok(Listeners { all, reserve: make_reserve(), paused_until: None, open: true })
    }

    /// True if the token was a listener's.
    pub fn handle_event(&mut self, token: Token) -> bool {
        let index = WAKER.0 - 1 - token.0;
        let Some(listener) = self.all.get_mut(index) else { return false };
        listener.ready = true;
        true
    }

    /// True if accepting can go on at once.
    pub fn is_busy(&self) -> bool {
        self.open && self.paused_until.is_none() && self.all.iter().any(|listener| listener.ready)
    }

    /// When accepting goes on after a pause.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.open)
    }

    /// Stops listening.
    pub fn close(&mut self) {
        self.open = false;
        for listener in &mut self.all {
            listener.socket = None;
            listener.ready = false;
        }
    }

    pub fn count_opened(&self, listener: usize) {
        self.all[listener].opened.inc();
        self.all[listener].accepted.inc();
    }

    pub fn count_closed(&self, listener: usize) {
        self.all[listener].opened.dec();
    }

    fn accept_one(&mut self, index: usize) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let Some(socket) = &self.all[index].socket else { return Ok(None) };
        match socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.all[index].ready = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Listeners' tokens lie just below the waker's.
fn token_of(listener: usize) -> Token {
    Token(WAKER.0 - 1 - listener)
}

/// A descriptor to give up in need. An event descriptor, because a sandbox may forbid to open files.
fn make_reserve() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}

impl<S: Service> Reactor<S> {
    /// Accepts what waits at all listeners, within bounds.
    pub(super) fn accept(&mut self) {
        if self.listeners.paused_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.listeners.paused_until = None;
        for index in 0..self.listeners.all.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners.all[index].ready || !self.accept_from(index) {
                    break;
                }
            }
        }
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

    fn peer_of(&self, listener: usize, stream: &TcpStream, remote: SocketAddr) -> Peer {
        let fixed = self.listeners.all[listener].fixed;
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
        self.shared.gate.enter(ip, &setup.limits)
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
