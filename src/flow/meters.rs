//! The meters of the house, and how a session's own counters join them. Pure: the registry is given.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::observe::meters as gateway;
use crate::policy::meters as policy;
use crate::smtp::server::counters::SessionCounters;

/// What the conductor counts.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Sessions, messages, stages.
    pub flow: gateway::Meters,
    /// Decisions.
    pub policy: policy::Meters,
    /// Failed logins.
    pub auth_failures: IntCounter,
    sessions: Vec<gateway::SessionMeters>,
    replies: IntCounterVec,
    limits: IntCounterVec,
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
        let replies =
            IntCounterVec::new(Opts::new("weir_smtp_replies_total", "Replies of SMTP sessions by code"), &["code"])?;
        let limits = IntCounterVec::new(
            Opts::new("weir_smtp_limits_total", "Limits of SMTP sessions that were hit"),
            &["limit"],
        )?;
        let auth_failures = IntCounter::new("weir_smtp_auth_failures_total", "Logins that failed")?;
        registry.register(Box::new(replies.clone()))?;
        registry.register(Box::new(limits.clone()))?;
        registry.register(Box::new(auth_failures.clone()))?;
        Ok(Meters {
            sessions: listeners.map(|name| flow.sessions_of(name)).collect(),
            policy: policy::Meters::register(registry)?,
            flow,
            auth_failures,
            replies,
            limits,
        })
    }

    /// A session began on this listener.
    pub fn session_opened(&self, listener: usize) {
        if let Some(meters) = self.sessions.get(listener) {
            meters.opened.inc();
            meters.open.inc();
        }
    }

    /// A session ended.
    pub fn session_closed(&self, listener: usize, counters: &SessionCounters) {
        if let Some(meters) = self.sessions.get(listener) {
            meters.open.dec();
        }
        for (code, count) in counters.replies.iter() {
            self.replies.with_label_values(&[code.to_string().as_str()]).inc_by(count.into());
        }
        for (limit, count) in counters.limits() {
            self.limits.with_label_values(&[limit.as_str()]).inc_by(count.into());
        }
    }
}
