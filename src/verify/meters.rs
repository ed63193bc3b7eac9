//! What the identity checks count. Pure values of prometheus.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use super::Results;
use super::arc::ArcResult;
use super::decide::Decision;
use super::outcome::Outcome;

/// What has results.
const METHODS: [&str; 4] = ["arc", "dkim", "dmarc", "spf"];

/// Metrics of this room.
#[derive(Clone, Debug)]
pub struct Meters {
    /// By method, then by outcome, both in the order of their lists: counted for each message, so looked up once.
    results: [[IntCounter; Outcome::ALL.len()]; METHODS.len()],
    decisions: IntCounterVec,
    bounded: IntCounterVec,
    lookups: Histogram,
    wait: Histogram,
}

impl Meters {
    /// Registers them.
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let results = IntCounterVec::new(
            Opts::new("weir_verify_results_total", "Results of identity checks, by method and RFC 8601 word"),
            &["method", "result"],
        )?;
        let decisions = IntCounterVec::new(
            Opts::new("weir_verify_decisions_total", "What identity decided, and what overrode a policy, if anything"),
            &["action", "overridden"],
        )?;
        let bounded = IntCounterVec::new(
            Opts::new("weir_verify_bounds_reached_total", "Messages that reached a bound of the identity checks"),
            &["bound"],
        )?;
        let lookups = Histogram::with_opts(
            HistogramOpts::new("weir_verify_lookups", "DNS look-ups of one message")
                .buckets(vec![2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 128.0]),
        )?;
        let wait = Histogram::with_opts(
            HistogramOpts::new("weir_verify_wait_seconds", "From the end of the content to the results")
                .buckets(vec![0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0]),
        )?;
        registry.register(Box::new(results.clone()))?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(bounded.clone()))?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(wait.clone()))?;
        let results =
            METHODS.map(|method| Outcome::ALL.map(|outcome| results.with_label_values(&[method, outcome.as_str()])));
        Ok(Meters { results, decisions, bounded, lookups, wait })
    }

    pub(super) fn count(&self, found: &Results, wait: Duration, lookups: u32) {
        self.one("spf", found.spf().outcome);
        found.dkim.iter().for_each(|dkim| self.one("dkim", dkim.outcome));
        self.one("dmarc", found.dmarc.outcome);
        let ArcResult { outcome, .. } = found.arc;
        self.one("arc", outcome);
        self.lookups.observe(lookups.into());
        self.wait.observe(wait.as_secs_f64());
    }

    /// A message reached `bound`: `arc_sets`, `dkim_signatures`, `header_fields`, `lookups`.
    pub(super) fn bound_reached(&self, bound: &str) {
        self.bounded.with_label_values(&[bound]).inc();
    }

    /// What became of it.
    pub fn decided(&self, decision: &Decision) {
        let labels = [decision.action.as_str(), decision.overridden.unwrap_or("none")];
        self.decisions.with_label_values(&labels).inc();
    }

    fn one(&self, method: &str, outcome: Outcome) {
        let method = METHODS.iter().position(|name| *name == method).expect("every method has its row");
        let outcome = Outcome::ALL.iter().position(|one| *one == outcome).expect("ALL has every outcome");
        self.results[method][outcome].inc();
    }
}
