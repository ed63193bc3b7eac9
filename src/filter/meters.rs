//! What the filter counts. Pure.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use super::verdict::Verdict;

/// Metrics of this room.
pub struct Meters {
    /// Judgements, by what the scores of those recipients make of them.
    pub judged: IntCounterVec,
    /// Limits that a message was over, by symbol.
    pub over_limit: IntCounterVec,
    /// Time of one judgement.
    pub seconds: Histogram,
    /// Messages that were judged at once.
    pub together: Histogram,
}

/// Bounds of the histogram in seconds: from a note to the longest that the budget allows.
const SECONDS_BUCKETS: [f64; 8] = [0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];

/// Bounds of the histogram in messages: up to as many as are judged together.
const TOGETHER_BUCKETS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let judged = Opts::new(
            "weir_filter_judged_total",
            "Judgements by action: one a message, or one for each group of its recipients with scores of its own",
        );
        let over_limit =
            Opts::new("weir_filter_over_limit_total", "Messages over a limit of the filter, by its symbol");
        let seconds =
            HistogramOpts::new("weir_filter_judge_seconds", "Time of one judgement").buckets(SECONDS_BUCKETS.to_vec());
        let together = HistogramOpts::new("weir_filter_judged_together", "Messages that were judged at once")
            .buckets(TOGETHER_BUCKETS.to_vec());
        let meters = Meters {
            judged: IntCounterVec::new(judged, &["action"])?,
            over_limit: IntCounterVec::new(over_limit, &["limit"])?,
            seconds: Histogram::with_opts(seconds)?,
            together: Histogram::with_opts(together)?,
        };
        registry.register(Box::new(meters.judged.clone()))?;
        registry.register(Box::new(meters.over_limit.clone()))?;
        registry.register(Box::new(meters.seconds.clone()))?;
        registry.register(Box::new(meters.together.clone()))?;
        Ok(meters)
    }

    /// Counts what was done for those who share a verdict.
    pub fn acted(&self, action: &str) {
        self.judged.with_label_values(&[action]).inc();
    }

    /// Counts messages that one thread judged at once.
    pub fn judged_together(&self, messages: usize) {
        self.together.observe(messages as f64);
    }

    /// Counts one verdict that took `seconds`.
    pub fn count(&self, verdict: &Verdict, seconds: f64) {
        // Labels are bounded by the table of limits.
        for row in super::budget::LIMITS.iter().filter(|row| verdict.has(row.symbol)) {
            self.over_limit.with_label_values(&[row.symbol]).inc();
        }
        self.seconds.observe(seconds);
    }
}
