//! One configuration with everything derived from it; replaced whole by a reload. Pure.

use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::{Listener, Mode};
use crate::deliver::route::Routes;
use crate::policy::Domains;
use crate::smtp::server::settings::SessionSettings;

use super::checks::Checks;
use super::lists::Lists;

/// What a listener's conversations need.
pub struct ListenerView {
    /// As configured.
    pub listener: Listener,
    /// For the protocol.
    pub session: Arc<SessionSettings>,
    /// A scanner or milter sees its mail.
    pub scanned: bool,
}

impl ListenerView {
    /// True if a message needs checks that leave the reactor's thread.
    pub fn waits_for_checks(&self) -> bool {
        self.listener.verify != Mode::Off || self.listener.filter != Mode::Off || self.scanned
    }
}

/// The configuration of the moment.
pub struct Snapshot {
    /// As loaded.
    pub config: Arc<Config>,
    /// Our domains by name.
    pub domains: Domains,
    /// `[[list]]`.
    pub lists: Lists,
    /// Where recipients' mail goes.
    pub routes: Routes,
    /// What judges messages.
    pub checks: Arc<Checks>,
    /// What `[service]` judges with: a listener that listens nowhere.
    pub service: Listener,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerView>,
}

impl Snapshot {
    /// Derives everything from `config`.
    pub fn new(config: Arc<Config>, checks: Arc<Checks>) -> Self {
        let view = |listener: &Listener| ListenerView {
            session: Arc::new(SessionSettings::from_listener(&config, listener)),
            scanned: checks.scanners.see(listener),
            listener: listener.clone(),
        };
        let listeners = config.listeners.iter().map(view).collect();
        let service = config.service_listener();
        Snapshot {
            service,
            domains: Domains::new(config.clone()),
            lists: Lists::new(config.clone()),
            routes: Routes::new(&config),
            checks,
            listeners,
            config,
        }
    }
}
