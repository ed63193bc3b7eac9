//! What the identity checks count. Pure values of prometheus.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use super::Results;
use super::arc::ArcResult;
use super::outcome::Outcome;

/// Metrics of this room.
#[derive(Clone, Debug)]
pub struct Meters {
    results: IntCounterVec,
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
        let lookups = Histogram::with_opts(
            HistogramOpts::new("weir_verify_lookups", "DNS look-ups of one message")
                .buckets(vec![2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 128.0]),
        )?;
        let wait = Histogram::with_opts(
            HistogramOpts::new("weir_verify_wait_seconds", "From the end of the content to the results")
                .buckets(vec![0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0]),
        )?;
        registry.register(Box::new(results.clone()))?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(wait.clone()))?;
        Ok(Meters { results, lookups, wait })
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

    fn one(&self, method: &str, outcome: Outcome) {
        self.results.with_label_values(&[method, outcome.as_str()]).inc();
    }
}
