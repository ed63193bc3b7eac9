//! Stage 1, accept: mio reactors, listeners, TLS, timers, PROXY protocol. I/O: sockets.
//!
//! Drives any [`crate::base::machine::Machine`] and has never heard of SMTP. [`bind`] takes the ports, while the process
//! may still do that; [`Bound::start`] serves them, one reactor thread a core; [`Front::stop`] lets conversations finish.
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
pub mod service;
mod shared;
mod slab;
pub mod systemd;
pub mod tls;
mod turn;
mod wheel;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

pub use farewell::Stopped;
pub use listen::ListenerSetup;

use gate::Gate;
use inbox::{Alarm, Inbox};
use meters::Meters;
use reactor::Reactor;
use service::Service;
use shared::{Control, Shared};
use tls::TlsStore;

/// Descriptors that connections never get: spool, deliveries, look-ups, logs need them.
const DESCRIPTORS_KEPT: u64 = 512;

/// Listening sockets that nobody serves yet.
pub struct Bound {
    setups: Vec<Arc<ListenerSetup>>,
    /// By reactor, then by listener.
    sockets: Vec<Vec<TcpListener>>,
}

/// Binds all listeners for `reactors` threads. Sockets in `activated` are used where their address is a listener's;
/// what is left there fits none.
/// # Errors
/// When an address can't be bound; the text names it.
pub fn bind(setups: Vec<ListenerSetup>, reactors: usize, activated: &mut Vec<OwnedFd>) -> io::Result<Bound> {
    let mut bound = Bound { setups: Vec::new(), sockets: (0..reactors.max(1)).map(|_| Vec::new()).collect() };
    for mut setup in setups {
        let listener = listen::bind(&setup, bound.sockets.len(), activated)?;
        setup.address = listener.address;
        bound.setups.push(Arc::new(setup));
        for (sockets, socket) in bound.sockets.iter_mut().zip(listener.sockets) {
            sockets.push(socket);
        }
    }
    Ok(bound)
}

impl Bound {
    /// Where each listener is, in the order given; port 0 has become a real one.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.setups.iter().map(|setup| setup.address).collect()
    }

    /// Starts the reactor threads. `tls` may be missing if no listener has TLS.
    /// # Errors
    /// When a poll or thread can't be made.
    pub fn start<S: Service>(self, service: Arc<S>, tls: Option<&TlsStore>, meters: Meters) -> io::Result<Front> {
        let addresses = self.local_addrs();
        let control =
            Arc::new(Control { setups: ArcSwap::from_pointee(self.setups.clone()), stop_at: ArcSwapOption::empty() });
        let gate = Gate::new(connections_possible());
        let mut front = Front { addresses, control: control.clone(), gate: gate.clone(), reactors: Vec::new() };
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
            let listeners = accept::Listeners::new(poll.registry(), sockets, &self.setups, &meters)?;
            let reactor = Reactor::new(poll, shared, Arc::new(Inbox::new(alarm.clone())), listeners);
            let thread = std::thread::Builder::new().name(format!("reactor-{number}")).spawn(|| reactor.run())?;
            front.reactors.push((alarm, thread));
        }
        Ok(front)
    }
}

/// The running front end. Dropped without [`Front::stop`] it goes on serving.
pub struct Front {
    addresses: Vec<SocketAddr>,
    control: Arc<Control>,
    gate: Arc<Gate>,
    reactors: Vec<(Arc<Alarm>, JoinHandle<Stopped>)>,
}

impl Front {
    /// Where each listener is.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.gate.total()
    }

    /// True while all reactors run; false is a defect, and the process should be started anew.
    pub fn is_whole(&self) -> bool {
        self.reactors.iter().all(|(_, thread)| !thread.is_finished())
    }

    /// A handle for [`Reloader::reload`].
    pub fn reloader(&self) -> Reloader {
        Reloader { control: self.control.clone() }
    }

    /// Stops accepting, lets conversations end until `patience` has passed, then cuts them. Returns when all are gone.
    pub fn stop(self, patience: Duration) -> Stopped {
        self.control.stop_at.store(Some(Arc::new(Instant::now() + patience)));
        for (alarm, _) in &self.reactors {
            alarm.ring();
        }
        let mut sum = Stopped::default();
        for (_, thread) in self.reactors {
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

/// Changes the settings of a running front end.
#[derive(Clone)]
pub struct Reloader {
    control: Arc<Control>,
}

impl Reloader {
    /// Takes new settings for all listeners, in the order in which they were bound; where they listen stays as it
    /// is, and one without new settings keeps its own. Connections that are there keep what they were admitted by.
    pub fn reload(&self, setups: Vec<ListenerSetup>) {
        let old = self.control.setups.load_full();
        let mut new = setups.into_iter();
        let renew = |old: &Arc<ListenerSetup>| match new.next() {
            Some(new) => Arc::new(ListenerSetup { address: old.address, ..new }),
            None => old.clone(),
        };
        self.control.setups.store(Arc::new(old.iter().map(renew).collect()));
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
