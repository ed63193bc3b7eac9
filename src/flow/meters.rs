//! The meters of the house, and how a session's own counters join them. Pure: the registry is given.

use prometheus::{IntCounter, Registry};

use crate::observe::meters as gateway;
use crate::policy::meters as policy;
use crate::smtp::server::counters::SessionCounters;
use crate::smtp::server::meters as smtp;

/// What the conductor counts.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Sessions, messages, stages.
    pub flow: gateway::Meters,
    /// Decisions.
    pub policy: policy::Meters,
    /// Failed logins.
    pub auth_failures: IntCounter,
    smtp: smtp::Meters,
    sessions: Vec<(String, gateway::SessionMeters)>,
}

impl Meters {
    /// Registers them; `listeners` are the listeners' names in their order.
    /// # Errors
    /// If one of the names is taken.
    pub fn register<'a>(
        registry: &Registry,
        listeners: impl Iterator<Item = &'a str>,
    ) -> Result<Self, prometheus::Error> {
        let flow = gateway::Meters::register(registry)?;
        let auth_failures = IntCounter::new("weir_smtp_auth_failures_total", "Logins that failed")?;
        registry.register(Box::new(auth_failures.clone()))?;
        Ok(Meters {
            sessions: listeners.map(|name| (name.to_owned(), flow.sessions_of(name))).collect(),
            policy: policy::Meters::register(registry)?,
            smtp: smtp::Meters::register(registry)?,
            flow,
            auth_failures,
        })
    }

    /// A session began on this listener.
    pub fn session_opened(&self, listener: usize) {
        if let Some((_, meters)) = self.sessions.get(listener) {
            meters.opened.inc();
            meters.open.inc();
        }
    }

    /// A session ended.
    pub fn session_closed(&self, listener: usize, counters: &SessionCounters) {
        if let Some((name, meters)) = self.sessions.get(listener) {
            meters.open.dec();
            self.smtp.session_ended(name, counters);
        }
    }
}
