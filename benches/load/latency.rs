//! Every latency of a run, and its percentiles.

use std::time::Duration;

/// Microseconds, one a message; 40,000 a second for a minute are 10 MB.
#[derive(Default)]
pub struct Latency(Vec<u32>);

impl Latency {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// p50, p90, p99, p99.9 and the maximum, in milliseconds.
    pub fn json(&mut self) -> serde_json::Value {
        self.0.sort_unstable();
        let at = |part: f64| {
            let place = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
            f64::from(self.0.get(place).copied().unwrap_or(0)) / 1000.0
        };
        serde_json::json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) })
    }
}
