//! One configuration with everything derived from it; replaced whole by a reload. Pure.

use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::{Listener, Mode};
use crate::deliver::route::Routes;
use crate::observe::meters::{Meters, SessionMeters};
use crate::policy::Domains;
use crate::smtp::server::settings::SessionSettings;

use super::checks::Checks;
use super::lists::Lists;

/// What a listener's conversations need.
#[derive(Clone)]
pub struct ListenerView {
    /// As configured.
    pub listener: Listener,
    /// For the protocol.
    pub session: Arc<SessionSettings>,
    /// A scanner or milter sees its mail.
    pub scanned: bool,
    /// Where they are counted.
    pub sessions: SessionMeters,
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
    /// By the number that connections know their listener by ([`crate::front::Prepared::by_number`]). One that is gone from the
    /// configuration stays as it was, for those who came to it.
    pub listeners: Vec<ListenerView>,
}

impl Snapshot {
    /// Derives everything from `config`, whose listeners have their order for a number.
    pub fn new(config: Arc<Config>, checks: Arc<Checks>, meters: &Meters) -> Self {
        let by_number: Vec<Option<usize>> = (0..config.listeners.len()).map(Some).collect();
        Snapshot::following(&[], config, checks, meters, &by_number)
    }

    /// The same after a reload: `by_number` tells which of `config`'s listeners has a number, or that it is as `before`.
    pub fn following(
        before: &[ListenerView],
        config: Arc<Config>,
        checks: Arc<Checks>,
        meters: &Meters,
        by_number: &[Option<usize>],
    ) -> Self {
        let view = |listener: &Listener| ListenerView {
            session: Arc::new(SessionSettings::from_listener(&config, listener)),
            scanned: checks.scanners.see(listener),
            sessions: meters.sessions_of(&listener.name),
            listener: listener.clone(),
        };
        let gone = |view: &ListenerView| ListenerView { scanned: checks.scanners.see(&view.listener), ..view.clone() };
        let listeners = by_number.iter().enumerate().map(|(number, place)| match place {
            Some(place) => view(&config.listeners[*place]),
            None => gone(&before[number]),
        });
        Snapshot {
            listeners: listeners.collect(),
            service: config.service_listener(),
            domains: Domains::new(config.clone()),
            lists: Lists::new(config.clone()),
            routes: Routes::new(&config),
            checks,
            config,
        }
    }
}
