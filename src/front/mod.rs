//! Stage 1, accept: mio reactors, listeners, TLS, timers, PROXY protocol. I/O: sockets.
//!
//! Drives any [`crate::base::machine::Machine`] and has never heard of SMTP. [`bind`] takes the ports, while the process
//! may still do that; [`Bound::start`] serves them, one reactor thread a core; [`Reloader`] changes the listeners that
//! there are; [`Front::stop`] lets conversations finish.
//! A connection never changes its thread, an idle one holds no buffer, and a panic ends one conversation only.

mod accept;
mod connection;
mod farewell;
mod gate;
mod handshake;
mod inbox;
mod listen;
pub mod meters;
pub mod proxy;
mod reactor;
mod renew;
pub mod service;
mod shared;
mod slab;
pub mod systemd;
pub mod tls;
mod turn;
mod wheel;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

pub use farewell::Stopped;
pub use listen::ListenerSetup;
pub use renew::{Prepared, Reloader};

use accept::{Door, Listeners};
use gate::Gate;
use inbox::Inbox;
use meters::Meters;
use reactor::Reactor;
use renew::{Open, Running, Wire};
use service::Service;
use shared::{Control, Listening, Shared};
use tls::TlsStore;

/// Descriptors that connections never get: spool, deliveries, look-ups, logs need them.
const DESCRIPTORS_KEPT: u64 = 512;

/// Listening sockets that nobody serves yet.
pub struct Bound {
    open: Vec<Open>,
    /// By reactor, then by listener.
    sockets: Vec<Vec<TcpListener>>,
    activated: Vec<OwnedFd>,
}

/// Binds all listeners for `reactors` threads. Sockets in `activated` are used where their address is a listener's;
/// those that fit none are kept for a reload that names them.
/// # Errors
/// When an address can't be bound; the text names the listener, and what to do.
pub fn bind(setups: Vec<ListenerSetup>, reactors: usize, activated: Vec<OwnedFd>) -> io::Result<Bound> {
    let sockets = (0..reactors.max(1)).map(|_| Vec::new()).collect();
    let mut bound = Bound { open: Vec::new(), sockets, activated };
    for (number, setup) in setups.into_iter().enumerate() {
        let listener = listen::bind(&setup, bound.sockets.len(), &bound.activated, &bound.local_addrs())?;
        let wanted = setup.address;
        let setup = Arc::new(ListenerSetup { address: listener.address, ..setup });
        bound.open.push(Open { wanted, setup, number, door: number, activated: listener.activated });
        for (sockets, socket) in bound.sockets.iter_mut().zip(listener.sockets) {
            sockets.push(socket);
        }
    }
    bound.name_unused();
    Ok(bound)
}

impl Bound {
    /// Where each listener is, in the order given; port 0 has become a real one.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.setup.address).collect()
    }

    /// All of our own sockets.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().flatten().map(AsFd::as_fd)
    }

    /// Connections to a socket that systemd listens on and nobody serves would wait for ever.
    fn name_unused(&self) {
        for address in self.activated.iter().filter_map(listen::bound_to) {
            if !self.open.iter().any(|open| listen::is_same(address, open.setup.address)) {
                tracing::warn!(%address, "systemd listens there for us, but no listener has that address");
            }
        }
    }

    /// Starts the reactor threads. `tls` may be missing if no listener has TLS.
    /// # Errors
    /// When a poll or thread can't be made.
    pub fn start<S: Service>(self, service: Arc<S>, tls: Option<&TlsStore>, meters: Meters) -> io::Result<Front> {
        let listeners = self.open.iter().map(|open| Listening::new(open.setup.clone(), &meters)).collect();
        let control =
            Arc::new(Control { listeners: ArcSwap::from_pointee(listeners), stop_at: ArcSwapOption::empty() });
        let gate = Gate::new(connections_possible(), Instant::now());
        let (mut threads, mut wires) = (Vec::new(), Vec::new());
        for (number, sockets) in self.sockets.into_iter().enumerate() {
            let poll = mio::Poll::new()?;
            let alarm = inbox::alarm(&poll, reactor::WAKER)?;
            let shared = Shared {
                service: service.clone(),
                tls: tls.map(TlsStore::server_config),
                gate: gate.clone(),
                meters: meters.clone(),
                control: control.clone(),
            };
            let watched = std::iter::zip(sockets, &self.open)
                .map(|(socket, open)| Door::new(poll.registry(), socket, open.door, open.number));
            let listeners = Listeners::new(watched.collect::<io::Result<_>>()?);
            let (sender, changes) = mpsc::channel();
            wires.push(Wire { registry: poll.registry().try_clone()?, changes: sender, alarm: alarm.clone() });
            let reactor = Reactor::new(poll, shared, Arc::new(Inbox::new(alarm)), listeners, changes);
            threads.push(std::thread::Builder::new().name(format!("reactor-{number}")).spawn(|| reactor.run())?);
        }
        let running = Running { next_door: self.open.len(), open: self.open, activated: self.activated };
        let reloader = Reloader::new(control.clone(), meters, wires, running);
        Ok(Front { reloader, control, gate, threads })
    }
}

/// The running front end. Dropped without [`Front::stop`] it goes on serving.
pub struct Front {
    reloader: Reloader,
    control: Arc<Control>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<Stopped>>,
}

impl Front {
    /// Where each listener is.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.reloader.local_addrs()
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.gate.total()
    }

    /// True while all reactors run; false is a defect, and the process should be started anew.
    pub fn is_whole(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// The handle that changes its listeners.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Stops accepting, lets conversations end until `patience` has passed, then cuts them. Returns when all are gone.
    pub fn stop(self, patience: Duration) -> Stopped {
        self.control.stop_at.store(Some(Arc::new(Instant::now() + patience)));
        self.reloader.ring();
        let mut sum = Stopped::default();
        for thread in self.threads {
            match thread.join() {
                Ok(stopped) => {
                    sum.finished += stopped.finished;
                    sum.cut += stopped.cut;
                }
                Err(_) => tracing::error!("a reactor had panicked"),
            }
        }
        sum
    }
}

/// Connections that the descriptor limit allows.
fn connections_possible() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = limit.saturating_sub(DESCRIPTORS_KEPT.min(limit / 2));
    usize::try_from(possible).unwrap_or(usize::MAX)
}

/// Raises the limit of open files as far as the system lets us, and returns it. Call before [`Bound::start`].
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
