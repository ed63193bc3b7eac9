//! What policy counts. Pure: the registry is given.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::decision::{Decision, Reason};
use crate::config::settings::RateAction;

/// The meters of this stage.
#[derive(Clone, Debug)]
pub struct Meters {
    decisions: IntCounterVec,
    rate_hits: IntCounterVec,
    /// Keys that rates count now.
    pub rate_entries: IntGauge,
}

impl Meters {
    /// Registers them.
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let decisions = IntCounterVec::new(
            Opts::new("weir_policy_decisions_total", "Decisions at connect, MAIL and RCPT by answer and reason"),
            &["stage", "answer", "reason"],
        )?;
        let rate_hits =
            IntCounterVec::new(Opts::new("weir_policy_rate_hits_total", "Rates reached by action"), &["action"])?;
        let rate_entries = IntGauge::new("weir_policy_rate_entries", "Keys that rates count now")?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(rate_hits.clone()))?;
        registry.register(Box::new(rate_entries.clone()))?;
        Ok(Meters { decisions, rate_hits, rate_entries })
    }

    /// Counts a decision; `stage` is `connect`, `mail` or `rcpt`.
    pub fn decided(&self, stage: &'static str, decision: &Decision) {
        let answer = match &decision.reply {
            None => "allow",
            Some(reply) if reply.is_transient() => "defer",
            Some(_) => "reject",
        };
        self.decisions.with_label_values(&[stage, answer, Reason::as_str(decision.reason)]).inc();
    }

    /// Counts a rate that was reached.
    pub fn rate_reached(&self, action: RateAction) {
        self.rate_hits.with_label_values(&[action.as_str()]).inc();
    }
}
