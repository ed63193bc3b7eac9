//! What all reactors share: the service, the listeners' settings, counts, and the wish to stop. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;

use super::gate::Gate;
use super::listen::ListenerSetup;
use super::meters::Meters;

/// Settings that change while the reactors run.
pub(super) struct Control {
    /// One a listener, in the order of binding.
    pub setups: ArcSwap<Vec<Arc<ListenerSetup>>>,
    /// When to close what is still open; set once the server stops.
    pub stop_at: ArcSwapOption<Instant>,
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
        self.control.setups.load()[listener].clone()
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
