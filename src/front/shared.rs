//! What all reactors share: the service, the listeners' settings, counts, and the wish to stop. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::{IntCounter, IntGauge};
use rustls::ServerConfig;

use super::gate::Gate;
use super::listen::ListenerSetup;
use super::meters::Meters;

/// Settings that change while the reactors run.
pub(super) struct Control {
    /// By the number that connections know their listener by. One that is gone stays until the last of them has ended.
    pub listeners: ArcSwap<Vec<Listening>>,
    /// When to close what is still open; set once the server stops.
    pub stop_at: ArcSwapOption<Instant>,
}

/// A listener as its connections see it.
#[derive(Clone)]
pub(super) struct Listening {
    pub setup: Arc<ListenerSetup>,
    counts: Arc<Counts>,
}

/// Its connections.
struct Counts {
    now: AtomicUsize,
    opened: IntGauge,
    accepted: IntCounter,
}

impl Listening {
    /// Nobody is connected yet.
    pub fn new(setup: Arc<ListenerSetup>, meters: &Meters) -> Self {
        let label = setup.address.to_string();
        let (opened, accepted) =
            (meters.open.with_label_values(&[&label]), meters.accepted.with_label_values(&[&label]));
        Listening { setup, counts: Arc::new(Counts { now: AtomicUsize::new(0), opened, accepted }) }
    }

    /// The same listener under new settings.
    pub fn with(&self, setup: Arc<ListenerSetup>) -> Self {
        Listening { setup, counts: self.counts.clone() }
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.counts.now.load(Ordering::Acquire)
    }
}

/// Everything of a reactor that others see too.
pub(super) struct Shared<S> {
    pub service: Arc<S>,
    pub tls: Option<Arc<ServerConfig>>,
    pub gate: Arc<Gate>,
    pub meters: Meters,
    pub control: Arc<Control>,
}

impl<S> Shared<S> {
    /// The present settings of a listener.
    pub fn setup(&self, listener: usize) -> Arc<ListenerSetup> {
        self.control.listeners.load()[listener].setup.clone()
    }

    /// A connection of this listener begins.
    pub fn count_opened(&self, listener: usize) {
        let counts = &self.control.listeners.load()[listener].counts;
        counts.now.fetch_add(1, Ordering::Relaxed);
        counts.opened.inc();
        counts.accepted.inc();
    }

    /// It has ended, and nothing more is asked in its name.
    pub fn count_closed(&self, listener: usize) {
        let counts = &self.control.listeners.load()[listener].counts;
        counts.opened.dec();
        // Released last: with none left, the number may be given to another listener.
        counts.now.fetch_sub(1, Ordering::Release);
    }
}

impl ListenerSetup {
    /// True if `ip` is not counted by address or network.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// True if `ip` must begin with a PROXY header.
    pub(super) fn is_proxy(&self, ip: IpAddr) -> bool {
        self.proxy_networks.iter().any(|net| net.contains(&ip))
    }
}
