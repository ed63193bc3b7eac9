//! The meters of the house, and how a session's own counters join them. Pure: the registry is given.

use prometheus::{IntCounter, Registry};

use crate::observe::meters as gateway;
use crate::policy::meters as policy;
use crate::smtp::server::counters::SessionCounters;
use crate::smtp::server::meters as smtp;

use super::snapshot::ListenerView;

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
}

impl Meters {
    /// Registers them.
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let flow = gateway::Meters::register(registry)?;
        let auth_failures = IntCounter::new("weir_smtp_auth_failures_total", "Logins that failed")?;
        registry.register(Box::new(auth_failures.clone()))?;
        Ok(Meters {
            policy: policy::Meters::register(registry)?,
            smtp: smtp::Meters::register(registry)?,
            flow,
            auth_failures,
        })
    }

    /// A session ended.
    pub fn session_closed(&self, listener: &ListenerView, counters: &SessionCounters) {
        listener.sessions.open.dec();
        self.smtp.session_ended(&listener.listener.name, counters);
    }
}
