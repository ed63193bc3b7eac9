//! What scanners count. Pure.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of all scanners, by the name that the configuration gives them.
#[derive(Clone)]
pub struct Meters {
    /// Answers: clean, found, failed, skipped.
    pub answers: IntCounterVec,
    /// State of the circuit breaker.
    pub breaker: IntGaugeVec,
    /// Time of one question.
    pub seconds: HistogramVec,
}

/// From a local socket's answer to a timeout.
const SECONDS_BUCKETS: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answers =
            Opts::new("weir_filter_scanner_answers_total", "Answers of scanners: clean, found, failed, skipped");
        let breaker =
            Opts::new("weir_filter_scanner_breaker", "Circuit breaker of a scanner: 0 closed, 1 half open, 2 open");
        let seconds = HistogramOpts::new("weir_filter_scanner_seconds", "Time of one question to a scanner")
            .buckets(SECONDS_BUCKETS.to_vec());
        let meters = Meters {
            answers: IntCounterVec::new(answers, &["scanner", "answer"])?,
            breaker: IntGaugeVec::new(breaker, &["scanner"])?,
            seconds: HistogramVec::new(seconds, &["scanner"])?,
        };
        registry.register(Box::new(meters.answers.clone()))?;
        registry.register(Box::new(meters.breaker.clone()))?;
        registry.register(Box::new(meters.seconds.clone()))?;
        Ok(meters)
    }
}
